"""The desired state: the complete plan, made by a pure function of the snapshot.

``plan(snapshot, previous, now, policy)`` composes allocation (which VIP), next hops (which nodes), mode (BGP or
Layer 2), announcing and answering (which replica). The same function runs online and for ``porterlb plan``.
A VIP is announced or answered only after it is in the Service's status or in our records (Eip.status.used): an address
that is not in the API is not announced. If another writer changes the status, the VIP stays announced.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping
from dataclasses import dataclass, field, replace

from porterlb.core import drain, holddown
from porterlb.core.allocation import Allocation, AllocationMemory, Allocations, EipUse, ReservedMemo, allocate
from porterlb.core.bgp.peers import listened, own_bfd, own_sessions, peer_problems
from porterlb.core.desired import DesiredBgp, DesiredWire, Path, Prefix
from porterlb.core.eip_plan import EipPlan, eip_plan
from porterlb.core.holddown import HoldDown
from porterlb.core.memory import Memory
from porterlb.core.mode import ModePolicy
from porterlb.core.model import Address, Service, ServiceKey, Snapshot
from porterlb.core.persistent import PersistentMap, PersistentSet, differing, editing
from porterlb.core.placement.planned import Planned, placed
from porterlb.core.placement.policy import DEFAULT, PlacementPolicy
from porterlb.core.problems import Problem
from porterlb.core.shared import Shared, shared_by_all
from porterlb.core.tables import Tables
from porterlb.core.vip import VipPlan, announced_anew, placed_alike, plan_vip, served_alike


@dataclass(frozen=True, slots=True)
class Plan:
    """The complete plan of one replica. ``digest`` is equal on all replicas with the same network plan.

    ``wake_at``: when the plan next changes only because time passes (monotonic seconds), or None.
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
    unwritten: Mapping[ServiceKey, tuple[Address, ...]] = field(default_factory=dict)  # decided, not in the API yet
    routes: Mapping[Path, PersistentSet[Prefix]] = field(default_factory=dict, repr=False)
    shares: Mapping[tuple[Path, Prefix], int] = field(default_factory=dict, repr=False)  # VIPs behind each aggregate
    waking: Mapping[Address, float] = field(default_factory=dict, repr=False)  # when time alone changes the mode
    loads: Mapping[str, int] = field(default_factory=dict, repr=False)  # weights of the VIPs that each node serves
    unrecorded: Mapping[Address, ServiceKey] = field(default_factory=dict, repr=False)  # VIPs without a recorded node
    uses: Mapping[str, EipUse] = field(default_factory=dict, repr=False, compare=False)
    shared: Shared | None = field(default=None, compare=False, repr=False)


Steps = Generator[DesiredBgp | None, None, Plan]
"""A plan in steps. A step is None, or what BGP is told before the plan is complete."""

BATCH = 100
"""VIPs that are planned between two yields of :func:`plan_steps`: about 5 ms."""


def plan(
    snapshot: Snapshot,
    previous: Plan | None,
    now: float,
    policy: ModePolicy,
    placement: PlacementPolicy = DEFAULT,
) -> Plan:
    """The plan for ``snapshot``. ``now``: monotonic seconds.

    Only the memory of ``previous``, the last plan, influences the result; its other parts are reused where their inputs
    are unchanged. A replica in doubt about itself changes nothing: it keeps the last plan.
    """
    steps = plan_steps(snapshot, previous, now, policy, placement)
    while True:
        try:
            next(steps)
        except StopIteration as done:
            made: Plan = done.value
            return made


def plan_steps(
    snapshot: Snapshot,
    previous: Plan | None,
    now: float,
    policy: ModePolicy,
    placement: PlacementPolicy = DEFAULT,
) -> Steps:
    """As :func:`plan`, in small steps: the caller may do other work after each. The result is the same.

    After the loss of a node, the VIPs that this replica announces with a next hop on it are planned first. If many
    other VIPs follow, one step is the routes so far: new ones for these VIPs, and the present ones of the others.
    """
    if snapshot.view.doubt and previous is not None:
        return previous
    before = previous or Plan()
    memory = before.memory
    reserved = memory.reserved.updated(snapshot.nodes, snapshot.members, snapshot.peers)
    allocations = _allocations(snapshot, memory.allocation, reserved, now)
    yield None
    drains = memory.drains
    if drains is None or before.shared is None or before.shared.snapshot.nodes is not snapshot.nodes:
        drains = drain.step(drains, snapshot.nodes, now)
    at = drain.stages(drains, now, policy)
    shared = shared_by_all(snapshot, memory.sessions, now, policy, before.shared, at)
    keys = _changed(shared, allocations, before)
    look, moved, handed_on = _to_plan(shared, allocations, before, keys)
    yield None
    hold_downs = _hold_downs(shared, allocations, before, look)
    if hold_downs is not memory.hold_downs:
        stepped = {peers for peers in hold_downs if hold_downs[peers] != memory.hold_downs.get(peers)}
        for address, vip in before.vips.items():
            if vip.peers in stepped:
                look.setdefault(address, vip.eip)  # it may belong to another Eip by now
    tables = yield from _plan_vips(shared, allocations, before, look, moved, handed_on, hold_downs)
    yield None
    unwritten = _unwritten(snapshot, allocations, before, keys)
    wakes = list(tables.waking.values())
    wakes += [due for state in hold_downs.values() if (due := holddown.wakes_at(state, policy)) is not None]
    wakes += [due for due in (drain.wakes_at(drains, now, policy),) if due is not None]
    planned = Planned(tables.vips, tables.loads, tables.unrecorded, allocations.services, unwritten)
    placement_now, due = placed(shared, planned, memory.placement, placement)
    if due is not None:
        wakes.append(due)
    yield None
    sessions = own_sessions(snapshot)
    routes = tables.routes()
    yield None
    return Plan(
        vips=tables.vips.frozen(),
        services=allocations.services,
        eips=_eips(shared, allocations, before),
        peers=_peer_problems(snapshot, before),
        bgp=DesiredBgp(
            sessions,
            {path: prefixes for path, prefixes in routes.items() if path.peer in sessions},
            snapshot.conf.listen_port,
            snapshot.conf.listen_addresses,
            {peer: of for (replica, peer), of in snapshot.view.negotiated.items() if replica == snapshot.view.node},
            own_bfd(snapshot, sessions),
        ),
        wire=DesiredWire(
            members=snapshot.members,
            nodes=_probed_nodes(shared, before),
            vips=tables.layer2.frozen(),
            scopes=shared.choices.scopes(),
            sessions=frozenset(peer for peer, replicas in shared.peering.up.items() if snapshot.view.node in replicas),
            hold_downs=holddown.said(hold_downs),
            negotiated={
                peer: of.text
                for (replica, peer), of in snapshot.view.negotiated.items()
                if replica == snapshot.view.node
            },
            leader=snapshot.view.leader,
            outage=snapshot.view.outage,
            digest=tables.digest,
            check=_new_on_link(shared, unwritten),
            routers=listened(snapshot),
        ),
        digest=tables.digest,
        wake_at=min(wakes, default=None),
        memory=Memory(
            hold_downs,
            shared.peering.sessions,
            tables.modes.frozen(),
            allocations.memory,
            drains,
            placement_now,
            reserved,
        ),
        unwritten=unwritten,
        routes=routes,
        shares=tables.shares.frozen(),
        waking=tables.waking.frozen(),
        loads=tables.loads,
        unrecorded=tables.unrecorded.frozen(),
        uses=allocations.eips,
        shared=shared,
    )


def _plan_vips(
    shared: Shared,
    allocations: Allocations,
    before: Plan,
    look: dict[Address, str],
    moved: set[Address] | None,
    handed_on: list[Address],
    hold_downs: Mapping[frozenset[str], HoldDown],
) -> Generator[DesiredBgp | None, None, Tables]:
    """Plans the VIPs of :func:`_to_plan` in steps."""
    snapshot, tables = shared.snapshot, Tables(shared, before)
    look, urgent = _urgent_first(shared, before, look)
    if len(look) + len(handed_on) < urgent + BATCH:
        urgent = 0  # the plan is soon complete
    for done, (address, name) in enumerate(look.items(), 1):
        if done % BATCH == 0:
            yield None
        holders = _holders_of(snapshot, allocations, address, name)
        if holders:
            last = before.memory.modes.get(address)
            known = None if moved is None or address in moved else before.vips.get(address)
            tables.put(address, plan_vip(shared, address, snapshot.eips[name], holders, last, hold_downs, known))
        else:
            tables.remove(address)
        if done == urgent:
            routes = {path: held for path, held in tables.routes().items() if path.peer in before.bgp.sessions}
            yield replace(before.bgp, routes=routes)
    for done, address in enumerate(handed_on, 1):
        if done % BATCH == 0:
            yield None
        if address not in look:
            vip = before.vips[address]
            holders = _holders_of(snapshot, allocations, address, vip.eip)
            tables.announce_anew(address, announced_anew(shared, vip, snapshot.eips[vip.eip], holders))
    return tables


def _peer_problems(snapshot: Snapshot, before: Plan) -> Mapping[str, tuple[Problem, ...]]:
    """The problems of the peers, computed again only if their inputs have changed: there may be many nodes."""
    last = before.shared.snapshot if before.shared else None
    if last is not None and all(
        one is other or one == other
        for one, other in (
            (last.peers, snapshot.peers),
            (last.nodes, snapshot.nodes),
            (last.eips, snapshot.eips),
            (last.conf, snapshot.conf),
            (last.members, snapshot.members),  # their gateways
        )
    ):
        return before.peers
    return peer_problems(snapshot)


def _changed(shared: Shared, allocations: Allocations, before: Plan) -> set[ServiceKey] | None:
    """The Services that have changed, or have other endpoints or addresses; None: there is no previous plan."""
    if before.shared is None:
        return None
    old, new = before.shared.snapshot, shared.snapshot
    keys = differing(old.services, new.services) | differing(old.endpoints, new.endpoints)
    return keys | differing(before.services, allocations.services)


def _to_plan(
    shared: Shared, allocations: Allocations, before: Plan, keys: set[ServiceKey] | None
) -> tuple[dict[Address, str], set[Address] | None, list[Address]]:
    """The addresses whose plan may differ now, each with the name of its Eip; those that lost a node first.

    Second, the subset whose next hops may differ; None: all. Third, the addresses for which only the announcers of
    their next hops are different; some may be in the first result too.
    """
    if keys is None or before.shared is None or not shared.same_rules(before.shared):
        return _all(allocations, before), None, []
    lost = shared.topology.lost(before.shared.topology)
    again = shared.peering.handed_on(before.shared.peering) if lost is not None else None
    if lost is None or again is None:
        return _all(allocations, before), None, []
    look: dict[Address, str] = {}
    handed_on: list[Address] = []
    if again:
        handed_on = [at for at, vip in before.vips.items() if vip.uses(again)]
    if lost:
        look.update((at, vip.eip) for at, vip in before.vips.items() if vip.uses(lost))
    if shared.topology.unusable != before.shared.topology.unusable:  # the problem text of VIPs without next hops
        look.update((at, vip.eip) for at, vip in before.vips.items() if not vip.next_hops)
    old, new = before.shared.snapshot, shared.snapshot
    for key in keys:
        for service in (old.services.get(key), new.services.get(key)):
            for address in (*service.held, *service.recorded) if service else ():
                if address in before.vips:
                    look[address] = before.vips[address].eip
    for key in keys:
        allocation = allocations.services.get(key)
        if allocation:
            look.update(zip(allocation.addresses, allocation.eips, strict=True))
    moved = set(look)
    for address in before.waking:
        look.setdefault(address, before.vips[address].eip)
    for name in differing(old.eips, new.eips):
        before_edit, after_edit = old.eips.get(name), new.eips.get(name)
        if before_edit is not None and after_edit is not None and served_alike(before_edit, after_edit):
            continue
        if before_edit is None or after_edit is None or not placed_alike(before_edit, after_edit):
            moved.update(address for address, vip in before.vips.items() if vip.eip == name)
        used = allocations.eips[name].used if name in allocations.eips else {}
        look.update((address, name) for address in used)
        for address, vip in before.vips.items():
            if vip.eip == name:
                look.setdefault(address, name)
        moved.update(address for address in used if address not in before.vips)
    return look, moved, handed_on


def _urgent_first(shared: Shared, before: Plan, look: dict[Address, str]) -> tuple[dict[Address, str], int]:
    """The same addresses, first those that this replica announces with a next hop on a node that has been lost; second,
    how many these are."""
    if before.shared is None:
        return look, 0
    old, new = before.shared.topology, shared.topology
    lost = (old.usable | old.settling) - (new.usable | new.settling)
    hops = {address for node in lost for address in old.segments.addresses.get(node, ())}
    paths = {path for path in before.routes if path.next_hop in hops} if hops else ()
    if not paths:
        return look, 0
    urgent = {
        at: name
        for at, name in look.items()
        if (vip := before.vips.get(at)) is not None
        and not (paths.isdisjoint(vip.paths) and all(path not in paths for path, _ in vip.aggregates))
    }
    return {**urgent, **look}, len(urgent)


def _hold_downs(
    shared: Shared, allocations: Allocations, before: Plan, look: Mapping[Address, str]
) -> Mapping[frozenset[str], HoldDown]:
    """The hold-down of every set of peers in use, advanced by one step."""
    sets = shared.rules.recipient_sets()
    if shared.rules.by_service:
        sets = sets.union(vip.peers for address, vip in before.vips.items() if address not in look)
        for address, name in look.items():
            if holders := _holders_of(shared.snapshot, allocations, address, name):
                sets |= {shared.rules.recipients(shared.snapshot.eips[name], address.version, holders).names}
    live = frozenset(shared.peering.up)
    seen = {peers: shared.peering.sessions_seen(peers) for peers in sets}
    return holddown.advance(before.memory.hold_downs, seen, live, shared.now, shared.policy)


def _all(allocations: Allocations, before: Plan) -> dict[Address, str]:
    """Every address that is or was planned, each with the name of its Eip; empty if no Service has it any longer."""
    look = dict.fromkeys(before.vips, "")
    look.update((address, name) for name, use in allocations.eips.items() for address in use.used)
    return look


def _probed_nodes(shared: Shared, before: Plan) -> Mapping[str, tuple[Address, ...]]:
    me = shared.snapshot.view.node
    if (
        before.shared is not None
        and before.shared.topology.segments is shared.topology.segments
        and me not in before.wire.nodes
    ):
        return before.wire.nodes
    return {name: found for name, found in shared.topology.segments.addresses.items() if name != me}


def _eips(shared: Shared, allocations: Allocations, before: Plan) -> PersistentMap[str, EipPlan]:
    """The plan of every pool; unchanged ones are taken over."""
    eips, found = shared.snapshot.eips, editing(before.eips)
    if before.shared is not None and shared.choices.same_segments(before.shared.choices):
        names = differing(before.shared.snapshot.eips, eips) | differing(before.uses, allocations.eips)
    else:
        names = {*before.eips, *allocations.eips}
    for name in names:
        if name in allocations.eips:
            found[name] = eip_plan(shared.choices, eips[name], allocations.eips[name])
        else:
            found.pop(name, None)
    return found.frozen()


def _unwritten(
    snapshot: Snapshot, allocations: Allocations, before: Plan, keys: set[ServiceKey] | None
) -> dict[ServiceKey, tuple[Address, ...]]:
    """Addresses that were decided but are not in the API yet."""
    found: dict[ServiceKey, tuple[Address, ...]] = {}
    for key in allocations.services if keys is None else keys.union(before.unwritten):
        allocation = allocations.services.get(key)
        fresh = [a for a in allocation.addresses if not snapshot.services[key].has(a)] if allocation else ()
        if fresh:
            found[key] = tuple(fresh)
    return found


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
    """The Eips that assign no addresses, because a host answers for all of their addresses; each with a clause."""
    return {
        name: f"the host {mac} answers for every address of its segment (proxy ARP, proxy NDP). "
        "Switch that off on the host, or set spec.probe of the Eip to false"
        for mac, addresses in sorted(snapshot.proxies.items())
        for name, eip in snapshot.eips.items()
        if eip.probe and any(address in eip for address in addresses)
    }


def _holders_of(snapshot: Snapshot, allocations: Allocations, address: Address, eip: str) -> list[Service]:
    """The Services that have the address according to the API, the oldest first."""
    if eip not in snapshot.eips:
        return []
    keys = allocations.eips[eip].used.get(address, ())
    found = [snapshot.services[key] for key in keys if snapshot.services[key].has(address)]
    return sorted(found, key=lambda service: (service.created, service.uid, service.key))


def _new_on_link(shared: Shared, unwritten: Mapping[ServiceKey, tuple[Address, ...]]) -> frozenset[Address]:
    """Addresses that were just decided and are not in the API yet. No other host on the segment may have them.

    Until our own membership Lease gives our subnets, every address may be on-link; the wire process knows the subnets.
    """
    if not unwritten:
        return frozenset()
    unknown = shared.snapshot.view.node not in shared.snapshot.members
    unprobed = [eip for eip in shared.snapshot.eips.values() if not eip.probe]
    return frozenset(
        address
        for addresses in unwritten.values()
        for address in addresses
        if (unknown or shared.topology.segments.of(address) is not None) and not any(address in eip for eip in unprobed)
    )
