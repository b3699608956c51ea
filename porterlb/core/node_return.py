"""When a node that was dead receives traffic again.

A node that boots answers probes as soon as its network is up. Its kube-proxy starts later; packets that arrive before
are dropped. While other nodes can take the traffic, a returned node therefore waits for three conditions. Its replica,
if it has one, says hello again (both start with its kubelet). Its kube-proxy runs, if this can be checked. Then
kube-proxy has had the time to write its rules. With policy Local, the wait of :mod:`porterlb.core.proxy_wait` for the
Service's own health check is added.

A node that was dead for less than the duration of a boot did not boot: a lost frame or a stalled replica made it look
dead, possibly to one replica only. It does not wait, because replicas that disagree about it would serve VIPs twice.

A node that is dead and has never answered this replica died before the replica began to watch: how long ago is not
known. It counts as one that boots, because the replicas that run longer have seen it dead for longer.

The state is a value: `step` takes the state before and returns the state now.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

PODS_WITHIN = 30.0
"""Maximum seconds for which a returned node waits for its replica and its kube-proxy. A usual boot takes 10 s from
network to pods."""

BOOT = 3.0
"""Minimum seconds of a boot, from the last answer of the old kernel to the first answer of the new one."""


@dataclass(frozen=True, slots=True)
class Return:
    """``since``: when the node answered probes again; ``runs``: since when its replica is fresh and its kube-proxy
    runs; None: not yet."""

    since: float
    runs: float | None = None

    def over_at(self, delay: float) -> float:
        return self.since + PODS_WITHIN if self.runs is None else self.runs + delay


@dataclass(frozen=True, slots=True)
class Returns:
    """``dead``: nodes that are dead, and since when. ``waiting``: nodes that have returned and wait. Times: monotonic
    seconds."""

    dead: Mapping[str, float] = field(default_factory=dict)
    waiting: Mapping[str, Return] = field(default_factory=dict)

    @property
    def settling(self) -> frozenset[str]:
        return frozenset(self.waiting)

    def wakes_at(self, delay: float) -> float | None:
        """When a wait next ends only because time passes, or None."""
        return min((found.over_at(delay) for found in self.waiting.values()), default=None)


def exempt_nodes(own: str, outage: bool) -> frozenset[str]:
    """Nodes that do not wait when they return: our own, while the API is unavailable.

    All replicas wait for a returned node. While it waits, its own plan equals theirs, even if it still has the
    placement from before it was cut off. Its replica would treat the equal plans as proof that it is up to date, and
    would claim its former VIPs when the wait is over. Without the wait, the plans differ until the replica can read the
    API.
    """
    return frozenset({own}) if outage else frozenset()


def step(
    before: Returns,
    dead: frozenset[str],
    members: Collection[str],
    fresh: Collection[str],
    now: float,
    delay: float,
    proxies: Collection[str] | None = None,
    exempt: Collection[str] = (),
    unheard: Collection[str] = (),
) -> Returns:
    """The state now.

    Args:
        dead: nodes that are dead now.
        members: nodes that have a replica.
        fresh: nodes whose replica is heard now, including our own.
        delay: seconds from the start of a node's kube-proxy until it forwards; if the start is not known, from the
            hello of its replica.
        proxies: the waiting nodes whose kube-proxy runs. None: this cannot be checked.
        exempt: nodes that do not begin to wait: see `exempt_nodes`.
        unheard: the dead nodes that have never answered us.
    """
    waiting = dict(before.waiting)
    for node, since in before.dead.items():
        if node not in dead and node not in exempt and now - since >= BOOT:
            waiting[node] = Return(now)
    found: dict[str, Return] = {}
    for node, entry in waiting.items():
        if node in dead:
            continue
        there = (node in fresh or node not in members) and (proxies is None or node in proxies)
        runs = (entry.runs if entry.runs is not None else now) if there else None
        kept = Return(entry.since, runs)
        if now < kept.over_at(delay):
            found[node] = kept
    died = {}
    for node in sorted(dead):
        # A node that dies while it waits is still booting: its next return counts as one, however short this death is.
        long_ago = node in unheard or node in before.waiting
        died[node] = before.dead.get(node, now - BOOT if long_ago else now)
    return Returns(died, found)
