"""A VIP that the plan moves to another node: its answerer continues until the next one shows that it has the plan.

The replicas learn of a change one after the other, and one of them may learn of it late: its API is slow, or its
manager is busy. If the answerer stopped at once, nobody would answer in the meantime. The next answerer has the plan if
its hello has the digest of ours, or if it announces the VIP. After PATIENCE it is not waited for any longer; by then it
says that its plan may be outdated (:mod:`porterlb.core.layer2.staleness`), and another replica answers for it.

A node that joins those that share a spread VIP takes no new askers until its answerer has the plan.
"""

from __future__ import annotations

from collections.abc import Collection, Hashable
from itertools import takewhile

from porterlb.core.layer2.hellos import Hellos
from porterlb.core.layer2.surroundings import Surroundings
from porterlb.core.observed import Answering

PATIENCE = 10.0  # seconds


class Handover:
    """``complete``: whether the wanted set is complete, so that its digest is that of the VIPs. Times: monotonic
    seconds, as arguments. A VIP is any key; ``node``: the one that joins a spread VIP, else empty."""

    def __init__(self, around: Surroundings, hellos: Hellos) -> None:
        self._around = around
        self._hellos = hellos
        self._until: dict[tuple[Hashable, str], float] = {}  # in the order of time: every wait is as long
        self.complete = True

    @property
    def next_at(self) -> float | None:
        """When the first wait ends."""
        return next(iter(self._until.values()), None)

    @property
    def waiting(self) -> dict[Hashable, None]:
        """The VIPs for which we wait."""
        return {vip: None for vip, _ in self._until}

    def due(self, now: float) -> dict[Hashable, None]:
        """The VIPs of which a wait has ended."""
        ended = takewhile(lambda wait: wait[1] <= now, self._until.items())
        return {vip: None for (vip, _), _ in ended}

    def moves(
        self, vip: Hashable, before: Answering | None, served: Answering, dead: Collection[str], now: float
    ) -> bool:
        """Whether a VIP that we answered as ``before`` goes to ``served`` now; if not, we still answer it."""
        own = self._around.own
        ours = before is not None and before.answerer == own and before.next_hop not in dead
        if not ours or served.answerer in (own, ""):
            self.forget(vip, "")
            return True
        return not self.waits(vip, served.answerer, now)

    def waits(self, vip: Hashable, answerer: str, now: float, node: str = "") -> bool:
        """Whether we still wait until ``answerer`` has the plan."""
        key = vip, node
        if not self._has_plan(answerer) and now < self._until.setdefault(key, now + PATIENCE):
            return True
        self.forget(vip, node)
        return False

    def _has_plan(self, replica: str) -> bool:
        """As far as its last hello says. A replica without a hello is not waited for."""
        if replica == self._around.own:
            return True
        said = self._hellos.last_of(replica)
        return said is None or (self.complete and said.digest == self._around.wanted.digest)

    def announced(self, vip: Hashable, now: float) -> bool:
        """Another node claims the VIP. Returns whether we have waited for that: then decide the VIP, it goes to it."""
        if (vip, "") not in self._until:
            return False
        self._until[vip, ""] = now
        return True

    def forget(self, vip: Hashable, *nodes: str) -> None:
        """We no longer wait for the VIP, or for these nodes that join it."""
        for node in nodes:
            self._until.pop((vip, node), None)
