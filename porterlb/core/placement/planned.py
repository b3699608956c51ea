"""Placement as one step of a plan: from the plans of all VIPs to the leader's decisions."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

from porterlb.core.allocation import Allocation
from porterlb.core.model import Address, Protocol, ServiceKey, Snapshot
from porterlb.core.nexthops import unusable_because
from porterlb.core.placement import state
from porterlb.core.placement.census import Candidacy, movable, unit_of, units
from porterlb.core.placement.load import Loads, Unit
from porterlb.core.placement.policy import PlacementPolicy
from porterlb.core.placement.settling import Scene, judged, settle
from porterlb.core.placement.state import Census, Placement
from porterlb.core.shared import Shared
from porterlb.core.vip import VipPlan, layer2_candidates


@dataclass(frozen=True, slots=True)
class Planned:
    """The plans of all VIPs. ``loads``: by node; ``unrecorded``: the owners of VIPs without a recorded node, by VIP;
    ``unwritten``: addresses that were just decided, by Service."""

    vips: Mapping[Address, VipPlan]
    loads: Loads
    unrecorded: Mapping[Address, ServiceKey]
    allocations: Mapping[ServiceKey, Allocation]
    unwritten: Mapping[ServiceKey, tuple[Address, ...]]


def placed(
    shared: Shared, planned: Planned, before: Placement | None, policy: PlacementPolicy
) -> tuple[Placement, float | None]:
    """The state of the placement now, and when it next changes only because time passes. Only the leader decides."""
    snapshot, now = shared.snapshot, shared.now
    seen = settle(before.settling if before else None, _scene(shared), now)
    expected = not seen.settled and _expected(shared, seen.scene)
    seen = judged(seen, now, policy, expected=expected)
    placement = replace(before, settling=seen) if before is not None else Placement(seen)
    if snapshot.view.leader != snapshot.view.node:
        return replace(placement, decided={}, moves=(), expected={}, answered=frozenset(), loads=planned.loads), None
    census = _census(shared, planned, placement)
    placement = state.step(placement, census, now, policy)
    return placement, state.wakes_at(placement, census.requests, policy, expected=expected)


def _scene(shared: Shared) -> Scene:
    topology = shared.topology
    return Scene(
        usable=topology.usable,
        unusable=frozenset(topology.unusable),
        cordoned=topology.cordoned,
        replicas=topology.replicas,
        dead_on=topology.partly_dead,
        outage=shared.snapshot.view.outage,
    )


def _expected(shared: Shared, scene: Scene) -> bool:
    """Whether a node or replica may still be about to start.

    This holds for a node that is down. In a cluster in which no next hop was ever recorded, it also holds for a node
    without a replica: it is the first start, and the replicas start one after the other.
    """
    snapshot = shared.snapshot
    down = (snapshot.nodes[name] for name in scene.unusable)
    if any(unusable_because(replace(node, excluded=False), snapshot.view, ignore_ready=False) for node in down):
        return True
    if scene.usable <= scene.replicas:
        return False
    return not any(service.pinned_node for service in snapshot.services.values())


def _census(shared: Shared, planned: Planned, placement: Placement) -> Census:
    snapshot = shared.snapshot
    fresh = dict(_allocated(shared, planned)) if placement.settling.settled else {}
    keys = set(planned.unrecorded.values()) if placement.settling.settled else set()

    def unit(key: ServiceKey) -> tuple[Unit, str] | None:
        service = snapshot.services.get(key)
        if service is None:
            return None
        found = _unit(key, snapshot, planned) or fresh.get(key)
        return None if found is None else (found, service.pinned_node)

    new = [found for key in sorted(keys) if (found := _unit(key, snapshot, planned)) is not None]
    return Census(
        loads=planned.loads,
        unit=unit,
        new=[*new, *fresh.values()],
        everyone=lambda: movable(planned.vips, shared.topology.cordoned, snapshot.view.asked),
        capacities=shared.topology.capacities,
        eligible=shared.topology.eligible,
        requests=frozenset(eip.rebalance for eip in snapshot.eips.values() if eip.rebalance),
        allocated=frozenset(fresh),
    )


def _unit(key: ServiceKey, snapshot: Snapshot, planned: Planned) -> Unit | None:
    service = snapshot.services[key]
    return unit_of(key, dict.fromkeys((*service.held, *service.recorded)), planned.vips)


def _allocated(shared: Shared, planned: Planned) -> Iterator[tuple[ServiceKey, Unit]]:
    """The units of Services that get their first address in this plan: they are placed before any replica answers."""
    snapshot = shared.snapshot
    for key in sorted(planned.unwritten):
        service = snapshot.services[key]
        if service.pinned_node or service.held or service.recorded:
            continue
        allocation = planned.allocations[key]
        vips = [
            vip
            for address, name in zip(allocation.addresses, allocation.eips, strict=True)
            if address not in planned.vips and (vip := _vip(shared, key, address, name)) is not None
        ]
        if found := units(vips):
            yield key, found[0]


def _vip(shared: Shared, key: ServiceKey, address: Address, name: str) -> Candidacy | None:
    """The placement data of a VIP that will be planned when its address is in the API."""
    service, eip = shared.snapshot.services[key], shared.snapshot.eips[name]
    if (service.protocol or eip.protocol) is Protocol.BGP or eip.layer2_spread:
        return None
    _, candidates, best, _ = layer2_candidates(shared, address, eip, [service])
    return Candidacy(address, key, candidates[0], best, service.weight) if candidates else None
