"""Which nodes live, by what they answer.

A node is declared dead only when something else has been heard since it should have answered: silence from everybody
at once is rather our own link. It is then undecided, and while every other node is dead or undecided we are in doubt.

Events in: `set_targets`, `sent`, `heard`. Verdict out: `judge` once an interval, and `verdict` at any time.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import NamedTuple

from porterlb.core.layer2.arp import BROADCAST
from porterlb.core.layer2.targets import GATEWAY, Key, Target

NEVER_HEARD = 25
"""Unanswered probes after which a node that has never answered is dead too: a replica that starts while a node is off
must not send traffic there. Such a target is probed 20 times at full pace, then once a second: some 6 s, which a node
that boots beside us needs for its network."""

EAGER = 20
"""Probes that a target never heard of gets at full pace; then one in EAGER."""


class Probe(NamedTuple):
    """Ask ``key.address`` on interface ``key.nic`` for its MAC; ``mac``: to whom the frame goes, perhaps to all."""

    key: Key
    mac: bytes


class Heard(NamedTuple):
    """What an answer has changed. ``mac``: it is new; ``revived``: the node was dead."""

    node: str
    mac: bool
    revived: bool


@dataclass(frozen=True, slots=True)
class Verdict:
    """``dead``: by our own probes; ``died``: those of them that this judgement has added. ``doubt``: nobody at all is
    heard, so it is rather we who are cut off, and nothing is to change. ``seen``: nodes that have ever answered."""

    dead: frozenset[str] = frozenset()
    died: frozenset[str] = frozenset()
    doubt: bool = False
    seen: frozenset[str] = frozenset()


class Liveness:
    """Targets and judgement. ``interval``: between probes, seconds; ``limit``: unanswered probes that mean death."""

    def __init__(self, interval: float, limit: int) -> None:
        self._interval = interval
        self._limit = limit
        self._tick = 0
        self._dead: set[str] = set()
        self._doubt = False
        self._undecided: set[str] = set()
        self.targets: dict[Key, Target] = {}

    # ---- events

    def set_targets(self, wanted: Iterable[Target]) -> None:
        """Replaces the targets; what is known of those that stay is kept."""
        known, self.targets = self.targets, {}
        for target in wanted:
            old = known.get(target.key)
            if old is not None and old.node == target.node:
                if target.up and not old.up:
                    old.misses = 0  # what our own interface swallowed is not theirs
                old.up, old.decides = target.up, target.decides
                target = old  # noqa: PLW2901
            self.targets[target.key] = target
        self._dead &= {target.node for target in self.targets.values()}

    def sent(self, key: Key) -> None:
        """A probe has left."""
        self.targets[key].misses += 1

    def heard(self, nic: int, address: bytes, mac: bytes, now: float) -> Heard | None:
        """An answer; None when it says nothing new about a node."""
        target = self.targets.get(Key(nic, address))
        if target is None:
            return None
        target.last, target.misses = now, 0
        heard = Heard(target.node, target.mac != mac, target.decides and target.node in self._dead)
        target.mac = mac
        if heard.revived:
            self._dead.discard(target.node)
        return heard if heard.mac or heard.revived else None

    # ---- what is known

    @property
    def verdict(self) -> Verdict:
        """What holds now."""
        return Verdict(frozenset(self._dead), doubt=self._doubt, seen=self._seen())

    @property
    def latest(self) -> float:
        """When any target answered last."""
        return max((t.last for t in self.targets.values()), default=0.0)

    def probes(self, nics: Collection[int]) -> list[Probe]:
        """What to send now, once an interval. ``nics``: the interfaces that can send.

        Unicast after the first answer, as the kernel's own re-checks are. The last probe before a verdict, and now
        and then one to a dead node, goes to all: a node may have come back with another MAC.
        """
        self._tick += 1
        probes = []
        for place, target in enumerate(self.targets.values()):
            if not target.up or target.key.nic not in nics:
                continue
            now_and_then = (self._tick + place) % EAGER == 0
            if not target.mac and target.misses >= EAGER and not now_and_then:
                continue
            last_chance = target.misses == self._limit - 1
            to_all = not target.mac or last_chance or (target.misses >= self._limit and now_and_then)
            probes.append(Probe(target.key, BROADCAST if to_all else target.mac))
        return probes

    def judge(self, now: float, lag: float, evidence: float) -> Verdict:
        """Who is dead now.

        Args:
            lag: how late this judgement comes; above half an interval it says nothing, for then it is we who stall.
            evidence: when anything else (a hello, a request) was last heard.
        """
        died = frozenset() if self.late(lag) else self._died(evidence)
        return Verdict(frozenset(self._dead), died, self._doubt, self._seen())

    def late(self, lag: float) -> bool:
        """Whether a judgement that comes so late says nothing."""
        return lag > self._interval / 2

    def _died(self, evidence: float) -> frozenset[str]:
        last: dict[str, float] = {}
        answering: set[str] = set()
        cut_off = True  # none of our interfaces towards a node is up
        for target in self.targets.values():
            if not target.decides or target.node == GATEWAY:
                continue
            if not target.last and target.misses < NEVER_HEARD:
                continue
            last[target.node] = max(last.get(target.node, 0.0), target.last)
            cut_off = cut_off and not target.up
            if not target.up or target.misses < self._limit:
                answering.add(target.node)  # or not to be judged
        silent = {node for node in last if node not in answering and node not in self._dead}
        died = frozenset(
            node for node in silent if max(evidence, self._latest_of_others(node)) > last[node] + self._interval
        )
        if died & self._undecided:
            # Answers return after a total silence: each node that has not been heard yet gets one more probe.
            for target in self.targets.values():
                if target.node in self._undecided:
                    target.misses = self._limit - 1
            self._undecided = set()
            self._doubt = False
            return frozenset()
        self._dead |= died
        self._undecided = silent - died
        everybody = all(node in self._dead or node in silent for node in last)
        self._doubt = bool(last) and (cut_off or bool(self._undecided and everybody))
        return died

    def _latest_of_others(self, node: str) -> float:
        return max((t.last for t in self.targets.values() if t.node != node), default=0.0)

    def _seen(self) -> frozenset[str]:
        return frozenset(t.node for t in self.targets.values() if t.last and t.node != GATEWAY)
