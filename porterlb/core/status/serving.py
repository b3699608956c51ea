"""The served VIPs, as opposed to the planned ones: which VIP BGP carries, and which one a replica answers for.

A BGP route counts if the replica that announces it is live, has acknowledged a plan with the route and has an
established session with the peer, and if the route was not refused. A Layer 2 answer counts while the answering replica
is live and the next hop is not known to be dead.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from ipaddress import ip_address, ip_network

from porterlb.core.known import Known
from porterlb.core.mode import Announce
from porterlb.core.model import Address, Mode, Node
from porterlb.core.observed import Answering, FreshReplica
from porterlb.core.persistent import Editor, PersistentMap, differing, editing
from porterlb.core.served import Served
from porterlb.core.vip import VipPlan

Addresses = Mapping[str, Sequence[Address]]


@dataclass(frozen=True, slots=True)
class Acknowledged:
    """The VIPs of the last plan that each replica has acknowledged, by replica; with the replica's boot number.

    Without it, every change would make every VIP look unserved until the digests agree again.
    """

    by_replica: Mapping[str, tuple[int, Mapping[Address, VipPlan]]] = field(default_factory=dict)

    def updated(self, known: Known) -> Acknowledged:
        """The present acknowledgements, from the previous ones. Replicas that are not live or have restarted have
        none."""
        fresh: dict[str, tuple[int, Mapping[Address, VipPlan]]] = {}
        own = FreshReplica(known.node, 0, applied=known.applied, digest=known.plan.digest)
        for replica, said in {**known.wire.fresh, known.node: own}.items():
            before = self.by_replica.get(replica)
            if said.applied == known.plan.digest:
                fresh[replica] = (said.boot, known.plan.vips)
            elif before is not None and before[0] == said.boot and said.applied:
                fresh[replica] = before
        return Acknowledged(fresh)

    def hops(self, replica: str, peer: str, address: Address) -> Sequence[str]:
        """The next hops of a VIP that ``replica`` has ordered its ExaBGP to announce to ``peer``."""
        told = self.by_replica.get(replica)
        vip = told[1].get(address) if told else None
        return vip.announced.get(peer, {}).get(replica, ()) if vip else ()


def served_now(vip: VipPlan, known: Known, acknowledged: Acknowledged, refusals: Refusals | None = None) -> Served:
    """How ``vip`` is served now. ``refusals``: see :func:`refusals_of`; computed here if omitted."""
    refused = (refusals_of(known) if refusals is None else refusals).get(vip.address, {})
    carried = _carried(vip, known, acknowledged, refused) if vip.mode.announce is not Announce.NONE else {}
    answered = _answered(vip, known) if vip.mode.answer else None
    conflict = known.wire.conflicts.get(vip.address)
    ways = {Mode.BGP: bool(carried), Mode.LAYER2: answered is not None}
    first = vip.mode.mode
    order = [first, *(mode for mode in ways if mode is not first)]
    return Served(
        next((mode for mode in order if ways.get(mode)), Mode.NONE),
        carried,
        answered,
        tuple(f"The route to {hop} is not announced to {peer}: {words}." for (peer, hop), words in refused.items()),
        conflict.mac.hex(":") if conflict else "",
        _hosts(vip, known) if answered is not None else (),
    )


class WireView:
    """How every VIP is served, updated without checking VIPs that cannot have changed.

    :meth:`outdated` returns the VIPs to check again, :meth:`look` checks one of them, and :meth:`done` ends the round.
    The caller can do other work between the calls.
    """

    def __init__(self) -> None:
        self.on_wire: Mapping[Address, Served] = PersistentMap()
        self._next: Editor[Address, Served] = Editor()
        self._vips: Mapping[Address, VipPlan] = PersistentMap()
        self._answering: Mapping[Address, Answering] = PersistentMap()
        self._nodes: Mapping[str, Node] = {}
        self._addresses: Addresses = {}
        self._basis: object = None
        self._unsettled: set[Address] = set()
        self._refusals: Refusals = {}

    def outdated(self, known: Known) -> list[Address]:
        """VIPs that may be served differently now: all of them after a session or a replica came or went."""
        if known.snapshot.nodes is not self._nodes:
            self._nodes, self._addresses = known.snapshot.nodes, known.addresses
        basis = (
            {peer: session.up for peer, session in known.bgp.sessions.items()},
            {name: (said.boot, said.sessions, bool(said.applied)) for name, said in known.wire.fresh.items()},
            bool(known.applied),
            known.bgp.rejected,
            known.wire.dead,
            known.wire.dead_on,
            {address: conflict.mac for address, conflict in known.wire.conflicts.items()},
            self._addresses,
        )
        same, self._basis = basis == self._basis, basis
        plan = known.plan
        vips, self._vips = self._vips, plan.vips
        answering, self._answering = self._answering, known.wire.answering
        found = differing(vips, plan.vips)
        self._next = editing(self.on_wire)
        for address in found:
            if address not in plan.vips:
                self._next.pop(address, None)
        self._refusals = refusals_of(known)
        if not same:
            return list(plan.vips)
        found |= differing(answering, known.wire.answering)
        # A planned change that was not complete may be complete now: a replica may have acknowledged it.
        found |= self._unsettled
        return [address for address in found if address in plan.vips]

    def look(self, address: Address, known: Known, acknowledged: Acknowledged) -> bool:
        """Checks one VIP again; returns whether it is served differently."""
        vip = known.plan.vips[address]
        served = served_now(vip, known, acknowledged, self._refusals)
        self._unsettled.discard(address)
        if served.mode is not vip.mode.mode or any(
            not frozenset(hop for hops in by_replica.values() for hop in hops) <= set(served.carried.get(peer, ()))
            for peer, by_replica in vip.announced.items()
        ):
            self._unsettled.add(address)
        if self._next.get(address) == served:
            return False
        self._next[address] = served
        return True

    def done(self) -> Mapping[Address, Served]:
        """The present view."""
        self.on_wire = self._next.frozen()
        self._unsettled = {address for address in self._unsettled if address in self.on_wire}
        return self.on_wire


Refusals = Mapping[Address, Mapping[tuple[str, Address], str]]
"""By VIP: ExaBGP's message by (peer, next hop address)."""


def refusals_of(known: Known) -> Refusals:
    """The routes that our own ExaBGP refused, sorted by VIP."""
    found: dict[Address, dict[tuple[str, Address], str]] = {}
    shared = known.plan.shares.keys() & known.bgp.rejected.keys()
    for (path, prefix), words in known.bgp.rejected.items():
        if (path, prefix) not in shared:
            vip = ip_address(prefix.partition("/")[0])
            found.setdefault(vip, {})[(path.peer, path.next_hop)] = words.strip().rstrip(".")
    for address, planned in known.plan.vips.items() if shared else ():
        for path, prefix in shared.intersection(planned.aggregates):
            words = known.bgp.rejected[path, prefix]
            found.setdefault(address, {})[(path.peer, path.next_hop)] = words.strip().rstrip(".")
    return found


def _carried(
    vip: VipPlan, known: Known, acknowledged: Acknowledged, refused: Mapping[tuple[str, Address], str]
) -> dict[str, tuple[str, ...]]:
    found: dict[str, tuple[str, ...]] = {}
    for peer, by_replica in vip.announced.items():
        hops: set[str] = set()
        for replica, planned in by_replica.items():
            if not known.established(replica, peer):
                continue
            told = acknowledged.hops(replica, peer, vip.address)
            mine = replica == known.node
            hops.update(
                hop
                for hop in planned
                if hop in told and not (mine and refused and _is_refused(peer, hop, known.addresses, refused))
            )
        if hops:
            found[peer] = tuple(sorted(hops))
    return found


def _is_refused(peer: str, hop: str, addresses: Addresses, refused: Mapping[tuple[str, Address], str]) -> bool:
    return any((peer, address) in refused for address in addresses.get(hop, ()))


def _answered(vip: VipPlan, known: Known) -> Answering | None:
    found = known.wire.answering.get(vip.address)
    if found is None or not found.answerer or not found.next_hop:
        return None
    if not known.is_live(found.answerer) or _is_dead(found.next_hop, vip, known):
        return None
    return found


def _hosts(vip: VipPlan, known: Known) -> tuple[str, ...]:
    """The nodes that share the hosts of the segment, if the VIP is spread over several."""
    return tuple(sorted(node for node in vip.takers if not _is_dead(node, vip, known)))


def _is_dead(node: str, vip: VipPlan, known: Known) -> bool:
    if node in known.wire.dead:
        return True
    return any(node in dead and vip.address in ip_network(on) for on, dead in known.wire.dead_on.items())
