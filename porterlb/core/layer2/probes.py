"""The state of each probed address: from one missed probe to silence.

A target that missed one probe less than the limit is *suspect*: it gets a burst of five probes, a fifth of the interval
apart (10 ms at 50 ms). It is *silent* when it has missed the limit and the burst. A target that another replica
suspects gets the burst immediately. Times are monotonic seconds, as arguments.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

from porterlb.core.layer2.arp import BROADCAST
from porterlb.core.layer2.targets import GATEWAY, Target, TargetKey
from porterlb.core.layer2.verdict import Vote

BURST = 5
"""Probes of a burst. With 10 % random loss in each direction, two probes and a burst are all missed once in 110,000."""

MOST_BURSTS = 100
"""Maximum number of simultaneous bursts: a rack that loses power must not make us cause a storm. Others wait."""

NEVER_HEARD = 25
"""Unanswered probes after which a node that has never answered is silent too: a replica that starts while a node is off
must not send traffic there. Such a target is probed 20 times at full rate, then once a second: about 6 s in total, the
time that a node which boots at the same time needs for its network. A node that an earlier process of this replica
heard does not boot at the same time: EAGER probes are enough, 1 s in total."""

EAGER = 20
"""Number of full-rate probes to a target that has never answered; after that only every EAGER-th probe is sent."""


class Probe(NamedTuple):
    """One probe to send. ``mac``: destination of the frame."""

    key: TargetKey
    mac: bytes


class Heard(NamedTuple):
    """What an answer changed. ``mac``: the MAC is new; ``cleared``: the target was suspect, silent or never heard."""

    node: str
    mac: bool
    cleared: bool


@dataclass(slots=True)
class Finding:
    """The state of one target. ``since``: when it became suspect; None: it is not."""

    target: Target
    since: float | None = None
    silent: bool = False
    left: int = 0  # probes of the burst still to send
    next: float = 0.0  # when to send the next one
    burst_end: float = 0.0  # when the time to answer the last probe of the burst is over

    @property
    def is_node(self) -> bool:
        """False for gateways: they are probed to test our own link, and are never judged."""
        return self.target.node != GATEWAY

    @property
    def vote(self) -> Vote | None:
        """None: the target has never answered, and may still do so."""
        if self.silent:
            return Vote.SILENT
        if self.since is not None:
            return Vote.SUSPECT
        return Vote.HEARD if self.target.last else None


class Probes:
    """The targets and their states. ``interval``: seconds between two probes of a target. ``heard``: nodes that an
    earlier process of this replica heard."""

    def __init__(self, interval: float, limit: int, heard: Collection[str] = ()) -> None:
        self._heard = frozenset(heard)
        self._interval = interval
        self._limit = limit
        self._suspect_at = max(1, limit - 1)
        self._gap = interval / BURST
        self._tick = 0
        self._bursting: dict[TargetKey, Finding] = {}
        self.findings: dict[TargetKey, Finding] = {}
        self.on: dict[int, list[Finding]] = {}
        """By interface, gateways first, then by name."""
        self.unwell: dict[TargetKey, Finding] = {}
        """Nodes that are suspect, silent, or have never answered. The others need no computation."""

    def set_targets(self, wanted: Iterable[Target]) -> None:
        """Replaces the targets; the state of targets that stay is kept."""
        known, self.findings = self.findings, {}
        for target in wanted:
            found = known.get(target.key)
            if found is None or found.target.node != target.node:
                found = Finding(target)
            elif target.up and not found.target.up:
                found.target.misses = 0  # probes lost at our own interface do not count
            if not target.up:
                self._clear(found)
            found.target.up, found.target.decides = target.up, target.decides
            self.findings[target.key] = found
        self._bursting = {key: f for key, f in self._bursting.items() if self.findings.get(key) is f}
        self.unwell = {key: f for key, f in self.findings.items() if f.vote is not Vote.HEARD and f.is_node}
        self.on = {}
        for found in sorted(self.findings.values(), key=lambda f: f.target.node):
            self.on.setdefault(found.target.key.nic, []).append(found)

    def heard(self, key: TargetKey, mac: bytes, now: float) -> Heard | None:
        """An answer; None if it changes nothing."""
        found = self.findings.get(key)
        if found is None:
            return None
        target = found.target
        news = target.mac != mac
        cleared = found.since is not None or found.silent or not target.last
        target.last, target.misses, target.mac = now, 0, mac
        if cleared:
            self._clear(found)
        return Heard(target.node, news, cleared) if news or cleared else None

    def judge(self, now: float) -> bool:
        """Call before the probes of a tick, unless the tick is late. Returns whether any finding changed."""
        changed = False
        for found in self.findings.values():
            target = found.target
            if target.misses < self._suspect_at or not target.up:
                continue
            if not target.last:
                if not found.silent and target.misses >= (EAGER if target.node in self._heard else NEVER_HEARD):
                    found.silent = changed = True
                continue
            if found.since is None or (target.misses == self._suspect_at and not found.left and not found.silent):
                # The probe of this tick is the first one of the burst.
                changed = self._suspect(found, now, BURST - 1, now + self._gap) or changed
            elif not found.silent and target.misses >= self._limit and not found.left and now >= found.burst_end:
                found.silent = changed = True
        return changed

    def suspected_elsewhere(self, key: TargetKey, now: float) -> bool:
        """Another replica suspects this target: it gets a burst now. Returns whether it was not suspect before."""
        found = self.findings.get(key)
        if found is None or found.since is not None or found.silent or not found.target.last or not found.target.up:
            return False
        return self._suspect(found, now, BURST, now)

    def ask_again(self, nic: int, but: Collection[str], now: float) -> None:
        """Silent nodes on an interface, except ``but``, get one more probe and a burst: until now our own link was at
        fault."""
        for found in list(self.unwell.values()):
            if found.silent and found.target.last and found.target.key.nic == nic and found.target.node not in but:
                self._clear(found)
                found.target.misses = self._suspect_at
                self._suspect(found, now, BURST, now)

    def _suspect(self, found: Finding, now: float, left: int, first: float) -> bool:
        if len(self._bursting) >= MOST_BURSTS:
            return False
        news = found.since is None
        if found.since is None:
            found.since = now
        found.left, found.next = left, first
        found.burst_end = first + left * self._gap - self._gap / 10  # tolerance for timer inaccuracy
        self._bursting[found.target.key] = found
        if found.is_node:
            self.unwell[found.target.key] = found
        return news

    def _clear(self, found: Finding) -> None:
        found.since, found.silent, found.left = None, False, 0
        self._bursting.pop(found.target.key, None)
        self.unwell.pop(found.target.key, None)

    def due(self, usable: Callable[[int], bool]) -> Iterator[Probe]:
        """The probes of one tick, for targets whose interface is ``usable``. Call `sent` for each."""
        self._tick += 1
        for place, found in enumerate(self.findings.values()):
            target = found.target
            if not target.up or not usable(target.key.nic):
                continue
            now_and_then = (self._tick + place) % EAGER == 0
            if not target.mac and target.misses >= EAGER and not now_and_then:
                continue
            # The last probe before silence, and occasional probes to a silent target, are broadcast: a node may have
            # returned with another MAC.
            last_chance = target.misses == self._suspect_at
            to_all = not target.mac or last_chance or (target.misses >= self._limit and now_and_then)
            yield Probe(target.key, BROADCAST if to_all else target.mac)

    def sent(self, key: TargetKey) -> None:
        """A probe of the tick was sent."""
        self.findings[key].target.misses += 1

    def bursts(self, now: float) -> list[Probe]:
        """The probes of bursts that are due now."""
        probes = []
        for key, found in list(self._bursting.items()):
            if found.next > now:
                continue
            found.left -= 1
            found.next += self._gap
            found.burst_end = max(found.burst_end, now + self._gap * 0.9)
            if not found.left:
                del self._bursting[key]
            probes.append(Probe(key, found.target.mac if found.left else BROADCAST))
        return probes

    @property
    def next_at(self) -> float | None:
        """When `bursts` has something to send."""
        return min((found.next for found in self._bursting.values()), default=None)

    # ---- results

    def contacts(self, nic: int, since: float, but: str | None = None) -> tuple[str, ...]:
        """The nodes (or GATEWAY) that answered on an interface at ``since`` or later, except ``but``: at most two."""
        found: list[str] = []
        for finding in self.on.get(nic, ()):
            target = finding.target
            if target.last >= since and target.last and target.node != but and target.node not in found:
                found.append(target.node)
                if len(found) == 2:
                    break
        return tuple(found)

    def isolated(self, nic: int, rounds: int) -> bool:
        """Whether no target on an interface answered the last ``rounds`` probes, although an answer was expected."""
        found = self.on.get(nic, ())
        for one in found:
            target = one.target
            if not (target.misses >= rounds and target.up and (target.last or one.silent)):
                return False
        return bool(found)

    @property
    def latest(self) -> float:
        """When any target last answered."""
        return max((found.target.last for found in self.findings.values()), default=0.0)

    @property
    def nodes(self) -> list[Finding]:
        """All findings without gateways."""
        return [found for found in self.findings.values() if found.is_node]
