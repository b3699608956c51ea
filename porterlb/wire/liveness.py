"""Which nodes live, by what they answer. No input or output; times are arguments in monotonic seconds.

A node is declared dead only when something else has been heard since it should have answered: silence from everybody
at once is rather our own link. It is then undecided, and while every other node is dead or undecided we are in doubt.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

NEVER_HEARD = 25
"""Unanswered probes after which a node that has never answered is dead too: a replica that starts while a node is off
must not send traffic there. The prober asks such a target 20 times at full pace, then once a second: some 6 s, which
a node that boots beside us needs for its network."""

GATEWAY = ""
"""The node name of a gateway: it is probed to know about our own link, and never judged."""


class Key(NamedTuple):
    """What is probed: interface index and address."""

    nic: int
    address: bytes


@dataclass(slots=True)
class Target:
    """A probed address. ``decides``: whether the node's life hangs on it, or only its MAC is wanted."""

    node: str
    key: Key
    decides: bool = True
    up: bool = True  # our interface
    mac: bytes = b""
    last: float = 0.0  # when it answered last; 0: never
    misses: int = 0  # probes sent since


class Liveness:
    """Targets and judgement. ``interval``: between probes, seconds; ``limit``: unanswered probes that mean death."""

    def __init__(self, interval: float, limit: int) -> None:
        self._interval = interval
        self._limit = limit
        self.targets: dict[Key, Target] = {}
        self.dead: set[str] = set()
        self.doubt = False
        self._undecided: set[str] = set()

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
        self.dead &= {target.node for target in self.targets.values()}

    def at(self, nic: int, address: bytes) -> Target | None:
        return self.targets.get(Key(nic, address))

    def heard(self, nic: int, address: bytes, mac: bytes, now: float) -> Target | None:
        """An answer. Returns the target when its node is alive again or its MAC is new."""
        target = self.targets.get(Key(nic, address))
        if target is None:
            return None
        target.last, target.misses = now, 0
        news = target.mac != mac
        target.mac = mac
        if target.decides and target.node in self.dead:
            self.dead.discard(target.node)
            news = True
        return target if news else None

    @property
    def seen(self) -> frozenset[str]:
        """Nodes that have answered at least once."""
        return frozenset(t.node for t in self.targets.values() if t.last and t.node != GATEWAY)

    @property
    def latest(self) -> float:
        """When any target answered last."""
        return max((t.last for t in self.targets.values()), default=0.0)

    def judge(self, now: float, lag: float, evidence: float) -> frozenset[str]:
        """The nodes that die now.

        Args:
            lag: how late this judgement comes; above half an interval it says nothing, for then it is we who stall.
            evidence: when anything else (a hello, a request) was last heard.
        """
        if lag > self._interval / 2:
            return frozenset()
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
        silent = {node for node in last if node not in answering and node not in self.dead}
        died = frozenset(
            node for node in silent if max(evidence, self._latest_of_others(node)) > last[node] + self._interval
        )
        if died & self._undecided:
            # Sound is back after a silence all around: whoever has not been heard yet gets one more probe.
            for target in self.targets.values():
                if target.node in self._undecided:
                    target.misses = self._limit - 1
            self._undecided = set()
            self.doubt = False
            return frozenset()
        self.dead |= died
        self._undecided = silent - died
        everybody = all(node in self.dead or node in silent for node in last)
        self.doubt = bool(last) and (cut_off or bool(self._undecided and everybody))
        return died

    def _latest_of_others(self, node: str) -> float:
        return max((t.last for t in self.targets.values() if t.node != node), default=0.0)
