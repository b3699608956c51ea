"""Takes a node out of service without loss: its traffic moves to other nodes while the node still forwards all of it.

In Layer 2 a draining node becomes the last choice at once, also for the VIPs that it serves. In BGP its routes are
first announced with the community GRACEFUL_SHUTDOWN (RFC 8326), so that routers which honour it choose other next hops.
They are withdrawn after ``ModePolicy.drain_after`` if other next hops are left. A VIP that no other node can serve
stays.

Each replica counts the time from when it first saw the request. A replica that starts treats every request as old,
because it has announced nothing yet.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from porterlb.core.holddown import ModePolicy
from porterlb.core.model import Node, RouteAttributes

COMMUNITY = "graceful-shutdown"
"""65535:0; see :mod:`porterlb.core.bgp.rules`."""

LONG_AGO = float("-inf")

Drains = Mapping[str, float]
"""When this replica first saw the drain request of each node (monotonic seconds)."""


@dataclass(frozen=True, slots=True)
class Stages:
    """The draining nodes. ``announced``: still next hops, with the community; ``withdrawn``: the others."""

    announced: frozenset[str] = frozenset()
    withdrawn: frozenset[str] = frozenset()

    @property
    def all(self) -> frozenset[str]:
        return self.announced | self.withdrawn

    def __bool__(self) -> bool:
        return bool(self.announced or self.withdrawn)


NO_DRAIN = Stages()


def step(before: Drains | None, nodes: Mapping[str, Node], now: float) -> Drains:
    """The current drains. ``before``: None when the replica starts."""
    wanted = [name for name, node in nodes.items() if node.draining]
    if before is not None and before.keys() == set(wanted):
        return before
    return {name: LONG_AGO if before is None else before.get(name, now) for name in sorted(wanted)}


def stages(drains: Drains, now: float, policy: ModePolicy) -> Stages:
    withdrawn = frozenset(name for name, since in drains.items() if now >= since + policy.drain_after)
    return Stages(frozenset(drains) - withdrawn, withdrawn)


def wakes_at(drains: Drains, now: float, policy: ModePolicy) -> float | None:
    """When routes are next withdrawn only because time passes (monotonic seconds), or None."""
    return min((at for since in drains.values() if (at := since + policy.drain_after) > now), default=None)


def announced(hops: tuple[str, ...], at: Stages) -> tuple[str, ...]:
    """The next hops without the withdrawn ones, if others are left."""
    if at.withdrawn.isdisjoint(hops):
        return hops
    return tuple(hop for hop in hops if hop not in at.withdrawn) or hops


def attributes(of: RouteAttributes, hop: str, at: Stages) -> RouteAttributes:
    """The attributes of a route with the next hop ``hop``: with the community while the node drains."""
    if hop not in at.all or COMMUNITY in of.communities:
        return of
    return replace(of, communities=(*of.communities, COMMUNITY))


@dataclass(frozen=True, slots=True)
class Progress:
    """The remaining steps of a node's drain, as the replicas see it. VIPs as text.

    ``unaware``: replicas that do not know of the drain yet, or have not applied the plan with it. ``announcing``:
    replicas that still announce the node with the community. ``carried``, ``answered``: VIPs whose traffic still comes
    to the node by BGP and by Layer 2. ``only``: those of them that no other node can serve.
    """

    unaware: tuple[str, ...] = ()
    announcing: tuple[str, ...] = ()
    carried: tuple[str, ...] = ()
    answered: tuple[str, ...] = ()
    only: tuple[str, ...] = ()

    @property
    def safe(self) -> bool:
        """Whether no VIP traffic comes to the node any longer."""
        return not (self.unaware or self.announcing or self.carried or self.answered)

    @property
    def stuck(self) -> bool:
        """Whether waiting does not help: no other node can serve any of the remaining VIPs."""
        left = {*self.carried, *self.answered}
        return bool(left) and not (self.unaware or self.announcing) and left == set(self.only)


def progress(node: str, states: Mapping[str, Mapping[str, Any]]) -> Progress:
    """The progress of the drain of ``node``. ``states``: of the replicas (:mod:`porterlb.core.status.state`)."""
    stage = {name: _stage(state, node) for name, state in sorted(states.items())}
    carried: set[str] = set()
    answered: set[str] = set()
    only: set[str] = set()
    for state in states.values():
        for address, vip in (state.get("vips") or {}).items():
            by_bgp = any(node in hops for hops in (vip.get("carried") or {}).values())
            by_layer2 = node in (vip.get("hosts") or [(vip.get("answering") or {}).get("nextHop")])
            carried |= {address} if by_bgp else set()
            answered |= {address} if by_layer2 else set()
            if (by_bgp or by_layer2) and _no_other(vip, node, by_bgp=by_bgp):
                only.add(address)
    return Progress(
        tuple(name for name, state in states.items() if not stage[name] or not _applied(state)),
        tuple(name for name, found in stage.items() if found == "announced"),
        tuple(sorted(carried)),
        tuple(sorted(answered)),
        tuple(sorted(only)),
    )


def _stage(state: Mapping[str, Any], node: str) -> str:
    return str(((state.get("nodes") or {}).get(node) or {}).get("drain") or "")


def _applied(state: Mapping[str, Any]) -> bool:
    plan = state.get("plan") or {}
    return bool(plan) and plan.get("applied") == plan.get("digest")


def _no_other(vip: Mapping[str, Any], node: str, *, by_bgp: bool) -> bool:
    """Whether only ``node`` can serve a VIP by the protocol that serves it now."""
    others: Iterable[str] = vip.get("nextHops") or () if by_bgp else vip.get("candidates") or ()
    return not set(others) - {node}
