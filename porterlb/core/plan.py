"""What is to be: the whole plan, made by a pure function of what is known.

``plan(snapshot, previous, now, policy)`` composes allocation (which VIP), next hops (which nodes), mode (BGP or
Layer 2), announcing and answering (which replica). The same function runs online and behind ``porterlb plan``.
A VIP is announced or answered once it is in the Service's status or in our records (Eip.status.used): what the API does
not know is not on the wire. What somebody else writes into the status does not take it off the wire.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TypeVar

from porterlb.core import holddown
from porterlb.core.allocation import Allocation, AllocationMemory, Allocations, EipUse, ReservedMemo, allocate
from porterlb.core.desired import DesiredBgp, DesiredWire, Path, Prefix
from porterlb.core.holddown import HoldDown
from porterlb.core.memory import Memory
from porterlb.core.mode import ModePolicy, wakes_at
from porterlb.core.model import Address, AddressRange, Eip, Protocol, Service, ServiceKey, Snapshot
from porterlb.core.problems import Problem
from porterlb.core.shared import Shared, own_neighbors, shared_by_all
from porterlb.core.vip import VipPlan, plan_vip


@dataclass(frozen=True, slots=True)
class EipPlan:
    """One pool: how it is used, whether Layer 2 can serve it (None: not known yet), and what is wrong with it."""

    use: EipUse
    layer2_possible: bool | None = None
    layer2_reason: str = ""
    problems: tuple[Problem, ...] = ()


@dataclass(frozen=True, slots=True)
class Plan:
    """The whole plan of one replica. ``digest`` is the same on all replicas that plan the same for the network.

    ``wake_at``: when time alone changes the plan (monotonic seconds), or None.
    """

    vips: Mapping[Address, VipPlan] = field(default_factory=dict)
    services: Mapping[ServiceKey, Allocation] = field(default_factory=dict)
    eips: Mapping[str, EipPlan] = field(default_factory=dict)
    peers: Mapping[str, tuple[Problem, ...]] = field(default_factory=dict)
    bgp: DesiredBgp = DesiredBgp()
    wire: DesiredWire = DesiredWire()
    digest: int = 0
    wake_at: float | None = None
    memory: Memory = field(default_factory=Memory)  # for the next plan
    unwritten: Mapping[ServiceKey, tuple[Address, ...]] = field(default_factory=dict)  # decided on, not in the API yet
    routes: Mapping[Path, frozenset[Prefix]] = field(default_factory=dict, repr=False)
    shared: Shared | None = field(default=None, compare=False, repr=False)


def plan(snapshot: Snapshot, previous: Plan | None, now: float, policy: ModePolicy) -> Plan:
    """The plan for ``snapshot``. ``now``: monotonic seconds.

    Of ``previous``, the last plan, only the memory has an influence on the result; the rest of it is used again where
    what it was made from is the same. A replica in doubt about itself changes nothing: it keeps the last plan.
    """
    if snapshot.view.doubt and previous is not None:
        return previous
    before = previous or Plan()
    memory = before.memory
    reserved = memory.reserved.updated(snapshot.nodes, snapshot.members, snapshot.peers)
    allocations = _allocations(snapshot, memory.allocation, reserved, now)
    shared = shared_by_all(snapshot, memory.sessions, now, policy)
    keys = _changed(shared, allocations, before)
    look = _all(allocations, before) if keys is None else _looked_at(shared, allocations, before, keys)
    hold_downs = _hold_downs(shared, allocations, before, look)
    if keys is not None and hold_downs is not memory.hold_downs:
        stepped = {peers for peers in hold_downs if hold_downs[peers] != memory.hold_downs.get(peers)}
        look.update((address, vip.eip) for address, vip in before.vips.items() if vip.peers in stepped)
    vips = _vips(shared, allocations, before, look, hold_downs)
    changed = look.keys()
    unwritten = _unwritten(snapshot, allocations, before, keys)
    wakes = [at for vip in vips.values() if (at := wakes_at(vip.mode, policy)) is not None]
    wakes += [at for state in hold_downs.values() if (at := holddown.wakes_at(state, policy)) is not None]
    neighbors, peer_problems = own_neighbors(snapshot)
    digest = before.digest
    for address in changed:
        for vip in (before.vips.get(address), vips.get(address)):
            digest ^= vip.digest if vip else 0
    routes = _routes(vips, before, changed)
    return Plan(
        vips=vips,
        services=allocations.services,
        eips={name: _eip(shared, snapshot.eips[name], use) for name, use in allocations.eips.items()},
        peers=peer_problems,
        bgp=DesiredBgp(
            neighbors,
            {path: prefixes for path, prefixes in routes.items() if path.peer in neighbors},
            snapshot.conf.listen_port,
            snapshot.conf.listen_addresses,
        ),
        wire=DesiredWire(
            members=snapshot.members,
            nodes={name: found for name, found in shared.segments.addresses.items() if name != snapshot.view.node},
            vips={address: vip.layer2 for address, vip in vips.items() if vip.layer2 is not None},
            sessions=frozenset(peer for replica, peer in snapshot.view.sessions if replica == snapshot.view.node),
            hold_downs=holddown.said(hold_downs),
            leader=snapshot.view.leader,
            digest=digest,
            check=_new_on_link(shared, unwritten),
        ),
        digest=digest,
        wake_at=min(wakes, default=None),
        memory=Memory(
            hold_downs,
            shared.sessions,
            {address: vip.mode for address, vip in vips.items()},
            allocations.memory,
            reserved,
        ),
        unwritten=unwritten,
        routes=routes,
        shared=shared,
    )


def _changed(shared: Shared, allocations: Allocations, before: Plan) -> set[ServiceKey] | None:
    """The Services that are to be looked at anew; None: all, for what they share has changed."""
    if before.shared is None or not shared.like(before.shared):
        return None
    old, new = before.shared.snapshot, shared.snapshot
    keys = differing(old.services, new.services) | differing(old.endpoints, new.endpoints)
    return keys | differing(before.services, allocations.services)


def _vips(
    shared: Shared,
    allocations: Allocations,
    before: Plan,
    look: Mapping[Address, str],
    hold_downs: Mapping[frozenset[str], HoldDown],
) -> dict[Address, VipPlan]:
    """The plan of every VIP that the API knows. ``look``: those to be planned anew; the others stay as they are."""
    vips = dict(before.vips)
    for address, name in look.items():
        holders = _holders_of(shared.snapshot, allocations, address, name)
        if holders:
            last = before.memory.modes.get(address)
            vips[address] = plan_vip(shared, address, shared.snapshot.eips[name], holders, last, hold_downs)
        else:
            vips.pop(address, None)
    return vips


def _hold_downs(
    shared: Shared, allocations: Allocations, before: Plan, look: Mapping[Address, str]
) -> Mapping[frozenset[str], HoldDown]:
    """The hold-down of every set of peers that is in use, one step further."""
    sets = shared.recipient_sets()
    if shared.by_service:
        sets.update(vip.peers for address, vip in before.vips.items() if address not in look)
        for address, name in look.items():
            if holders := _holders_of(shared.snapshot, allocations, address, name):
                sets.add(shared.recipients(shared.snapshot.eips[name], address.version, holders).names)
    live = frozenset(peer for _, peer in shared.sessions)
    seen = {peers: shared.sessions_seen(peers) for peers in sets}
    return holddown.advance(before.memory.hold_downs, seen, live, shared.now, shared.policy)


def _all(allocations: Allocations, before: Plan) -> dict[Address, str]:
    """Every address that is or was planned, each with the name of its Eip; empty where no Service has it any more."""
    look = dict.fromkeys(before.vips, "")
    look.update((address, name) for name, use in allocations.eips.items() for address in use.used)
    return look


def _looked_at(shared: Shared, allocations: Allocations, before: Plan, keys: set[ServiceKey]) -> dict[Address, str]:
    """The addresses whose plan may be another one now, each with the name of its Eip."""
    assert before.shared is not None
    old, new = before.shared.snapshot, shared.snapshot
    look = {at: vip.eip for at, vip in before.vips.items() if wakes_at(vip.mode, shared.policy) is not None}
    for key in keys:
        for service in (old.services.get(key), new.services.get(key)):
            for address in service.held if service else ():
                if address in before.vips:
                    look[address] = before.vips[address].eip
        allocation = allocations.services.get(key)
        if allocation:
            look.update(zip(allocation.addresses, allocation.eips, strict=True))
    return look


def _unwritten(
    snapshot: Snapshot, allocations: Allocations, before: Plan, keys: set[ServiceKey] | None
) -> dict[ServiceKey, tuple[Address, ...]]:
    """What was decided on and is not in the API yet."""
    found: dict[ServiceKey, tuple[Address, ...]] = {}
    for key in allocations.services if keys is None else keys.union(before.unwritten):
        allocation = allocations.services.get(key)
        fresh = [a for a in allocation.addresses if not snapshot.services[key].has(a)] if allocation else ()
        if fresh:
            found[key] = tuple(fresh)
    return found


_Key = TypeVar("_Key")


def differing(one: Mapping[_Key, object], other: Mapping[_Key, object]) -> set[_Key]:
    """The keys whose values are not the same ones."""
    if one is other:
        return set()
    found = {key for key, value in other.items() if one.get(key) is not value}
    found.update(one.keys() - other.keys())
    return found


def _routes(vips: Mapping[Address, VipPlan], before: Plan, changed: Iterable[Address]) -> dict[Path, frozenset[Prefix]]:
    """What this replica itself announces: the routes of the plan before, with the VIPs whose paths have changed."""
    add: dict[Path, set[Prefix]] = {}
    remove: dict[Path, set[Prefix]] = {}
    for address in changed:
        for vip, place in ((before.vips.get(address), remove), (vips.get(address), add)):
            if vip:
                for path in vip.paths:
                    place.setdefault(path, set()).add(vip.prefix)
    routes = dict(before.routes)
    for path in remove.keys() | add.keys():
        fresh = (routes.get(path, frozenset()) - remove.get(path, set())) | add.get(path, set())
        if fresh:
            routes[path] = frozenset(fresh)
        else:
            routes.pop(path, None)
    return routes


def _allocations(snapshot: Snapshot, memory: AllocationMemory, reserved: ReservedMemo, now: float) -> Allocations:
    return allocate(
        snapshot.services,
        snapshot.eips,
        memory,
        now,
        namespaces=snapshot.namespaces,
        claimed=snapshot.claimed,
        reserved=reserved.reserved,
        elsewhere=snapshot.elsewhere,
        closed=_closed(snapshot),
        may_allocate=snapshot.view.leader == snapshot.view.node,
    )


def _closed(snapshot: Snapshot) -> dict[str, str]:
    """The Eips that give nothing out, for a host answers for all of their addresses; each with a clause."""
    return {
        name: f"the host {mac} answers for every address of its segment (proxy ARP, proxy NDP). "
        "Switch that off on the host, or set spec.probe of the Eip to false"
        for mac, addresses in sorted(snapshot.proxies.items())
        for name, eip in snapshot.eips.items()
        if eip.probe and any(address in eip for address in addresses)
    }


def _holders_of(snapshot: Snapshot, allocations: Allocations, address: Address, eip: str) -> list[Service]:
    """The Services that the API says have the address, the oldest first."""
    if eip not in snapshot.eips:
        return []
    keys = allocations.eips[eip].used.get(address, ())
    found = [snapshot.services[key] for key in keys if snapshot.services[key].has(address)]
    return sorted(found, key=lambda service: (service.created, service.uid, service.key))


def _eip(shared: Shared, eip: Eip, use: EipUse) -> EipPlan:
    if eip.protocol is Protocol.BGP or not shared.segments.subnets:
        return EipPlan(use, problems=use.problems)
    outside = _outside(shared, eip)
    if not outside:
        return EipPlan(use, True, "Every address is in a connected subnet.", use.problems)
    first = outside[0]
    text = str(first.first) if first.first == first.last else f"{first.first}-{first.last}"
    closed = next((net for net in shared.segments.closed if net.version == first[0].version and first[0] in net), None)
    where = (
        f"{text} is in {closed}, which each node has for itself (all have the same address in it)"
        if closed is not None
        else f"{eip.can_reach} (spec.interface) is behind no interface of any replica"
        if eip.can_reach is not None
        else f"{text} is in no connected subnet of any replica"
    )
    return EipPlan(
        use,
        False,
        f"{where}, so Layer 2 cannot serve it"
        + ("; it has no fallback when BGP is lost." if eip.protocol is Protocol.AUTO else "."),
        use.problems,
    )


def _outside(shared: Shared, eip: Eip) -> list[AddressRange]:
    """The ranges of an Eip that Layer 2 cannot serve, for they are on no segment."""
    if eip.interface:
        return []
    if eip.can_reach is not None:
        return [] if shared.segments.towards(eip.can_reach) is not None else list(eip.ranges)
    return [r for r in eip.ranges if shared.segments.of(r.first) is None or shared.segments.of(r.last) is None]


def _new_on_link(shared: Shared, unwritten: Mapping[ServiceKey, tuple[Address, ...]]) -> frozenset[Address]:
    """Addresses that were just decided on and are not in the API yet: nobody else on the segment may have them.

    Until our own membership has told which subnets we are in, every address may be on-link: the wire process knows.
    """
    unknown = shared.snapshot.view.node not in shared.snapshot.members
    unprobed = [eip for eip in shared.snapshot.eips.values() if not eip.probe]
    return frozenset(
        address
        for addresses in unwritten.values()
        for address in addresses
        if (unknown or shared.segments.of(address) is not None) and not any(address in eip for eip in unprobed)
    )
