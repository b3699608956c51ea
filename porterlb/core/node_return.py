"""When a node that was dead receives traffic again.

A node that boots answers probes as soon as its network is up. Its kube-proxy starts later, and drops what arrives
before. While other nodes can take the traffic, a returned node therefore waits: until its replica, if it has one, says
hello again (both start with its kubelet), and then until kube-proxy has had the time to write its rules. With policy
Local the wait of :mod:`porterlb.core.proxy_wait` for the Service's own health check comes on top.

The state is a value: `step` takes the state before and returns the state now.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

REPLICA_WITHIN = 30.0
"""Seconds, at most, for which a returned node waits for its replica: a usual boot from network to pods takes 10 s."""


@dataclass(frozen=True, slots=True)
class Return:
    """``since``: when the node answered probes again; ``heard``: since when its replica is fresh, None: not yet."""

    since: float
    heard: float | None = None

    def over_at(self, delay: float) -> float:
        return self.since + REPLICA_WITHIN if self.heard is None else self.heard + delay


@dataclass(frozen=True, slots=True)
class Returns:
    """``dead``: nodes that are dead. ``waiting``: nodes that have returned and wait. Times: monotonic seconds."""

    dead: frozenset[str] = frozenset()
    waiting: Mapping[str, Return] = field(default_factory=dict)

    @property
    def settling(self) -> frozenset[str]:
        return frozenset(self.waiting)

    def wakes_at(self, delay: float) -> float | None:
        """When a node stops waiting by time alone, or None."""
        return min((found.over_at(delay) for found in self.waiting.values()), default=None)


def step(
    before: Returns, dead: frozenset[str], members: Collection[str], fresh: Collection[str], now: float, delay: float
) -> Returns:
    """The state now.

    Args:
        dead: nodes that are dead now.
        members: nodes that have a replica.
        fresh: nodes whose replica is heard now, our own included.
        delay: seconds from the hello of a replica until its node's kube-proxy forwards.
    """
    waiting = dict(before.waiting)
    for node in before.dead - dead:
        waiting[node] = Return(now)
    found: dict[str, Return] = {}
    for node, entry in waiting.items():
        if node in dead:
            continue
        there = node in fresh or node not in members
        heard = (entry.heard if entry.heard is not None else now) if there else None
        kept = Return(entry.since, heard)
        if now < kept.over_at(delay):
            found[node] = kept
    return Returns(dead, found)
