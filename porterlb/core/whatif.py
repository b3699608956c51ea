"""What would be if: the plan of a cluster as it is now beside the plan of the same cluster without some of its parts.

The same :func:`porterlb.core.plan.plan` as online, followed through time until nothing changes any more.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

from porterlb.core.mode import ModePolicy
from porterlb.core.model import Address, Member, Mode, ServiceKey, Snapshot, View
from porterlb.core.objects import Objects
from porterlb.core.placement.overview import Overview, decided, overview, place_of
from porterlb.core.placement.policy import AT_ONCE
from porterlb.core.plan import Plan, plan
from porterlb.core.problems import Problem
from porterlb.core.status.peer import entries, negotiated_of
from porterlb.core.vip import VipPlan

ROUNDS = 10
"""At most so many steps in time: from layer2 back to bgp takes three (waiting, narrow, wide)."""


@dataclass(frozen=True, slots=True)
class Missing:
    """What is taken away, by name: nodes lose power, sessions with peers are lost, replicas are gone."""

    nodes: frozenset[str] = frozenset()
    peers: frozenset[str] = frozenset()
    replicas: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Way:
    """How a VIP is brought in. ``next_hops``: in layer2 mode the one (several where hosts share them), in bgp mode all
    that are announced.

    ``peers``: who is told, in bgp mode. ``why``: why it is not served, or what is missing.
    """

    mode: Mode
    next_hops: tuple[str, ...] = ()
    peers: tuple[str, ...] = ()
    why: str = ""


@dataclass(frozen=True, slots=True)
class VipChange:
    """``before`` is None for a VIP that would be new, ``after`` for one that would be gone."""

    address: Address
    eip: str
    services: tuple[ServiceKey, ...]
    before: Way | None
    after: Way | None

    @property
    def changed(self) -> bool:
        return self.before != self.after


@dataclass(frozen=True, slots=True)
class WhatIf:
    """``new``: addresses that Services would be given. ``refused``: why others get none.

    ``problems``: what only all objects together show, and slips in objects that are not ours. ``spread``: how the VIPs
    are spread over the nodes in Layer 2, now and then.
    """

    vips: tuple[VipChange, ...]
    new: Mapping[ServiceKey, tuple[Address, ...]] = field(default_factory=dict)
    refused: Mapping[ServiceKey, tuple[Problem, ...]] = field(default_factory=dict)
    problems: Mapping[str, tuple[Problem, ...]] = field(default_factory=dict)
    spread: Overview = Overview()
    spread_then: Overview = Overview()


def offline_snapshot(objects: Objects, members: Mapping[str, Member], node: str = "") -> Snapshot:
    """The cluster as its objects and Leases tell of it, seen by the replica on ``node`` (any, where it is empty).

    Sessions are those that the BgpPeers' status calls established. Replicas are taken for live that have a Lease.
    """
    sessions = frozenset(
        (replica, key.name)
        for key, obj in objects.all_raw("BgpPeer").items()
        for replica, entry in entries(obj.get("status")).items()
        if (entry.get("peerState") or {}).get("sessionState") == "ESTABLISHED" and replica in members
    )
    negotiated = {}
    for replica, peer in sessions:
        status = (objects.raw("BgpPeer", "", peer) or {}).get("status")
        if (agreed := negotiated_of(status, replica, objects.peers.get(peer))) is not None:
            negotiated[replica, peer] = agreed
    fresh = frozenset(members)
    me = node or min(fresh, default="")
    return Snapshot(
        # It leads: only a leader gives addresses, and what it would give is what the user wants to know.
        view=View(me, probed=fresh, fresh=fresh | {me}, sessions=sessions, negotiated=negotiated, leader=me),
        nodes=objects.nodes,
        services=objects.services,
        endpoints=objects.endpoints,
        eips=objects.eips,
        peers=objects.peers,
        conf=objects.conf,
        namespaces=objects.namespaces,
        members=members,
        elsewhere=objects.elsewhere,
    )


def without(snapshot: Snapshot, missing: Missing) -> Snapshot:
    """The same cluster without these; seen by another replica where ours is among them."""
    view = snapshot.view
    gone = missing.nodes | missing.replicas
    fresh = view.fresh - gone
    me = view.node if view.node in fresh else min(fresh, default="")
    sessions = frozenset(
        (replica, peer) for replica, peer in view.sessions if replica in fresh and peer not in missing.peers
    )
    changed = replace(view, node=me, dead=view.dead | missing.nodes, fresh=fresh, sessions=sessions, leader=me)
    return replace(snapshot, view=changed)


def settled(snapshot: Snapshot, previous: Plan | None, now: float, policy: ModePolicy) -> tuple[Plan, float]:
    """The plan once time has done what it does (waiting for a session to be stable, widening), and when that is."""
    made = plan(snapshot, previous, now, policy, AT_ONCE)
    for _ in range(ROUNDS):
        if made.wake_at is None:
            break
        now = max(now, made.wake_at) + 0.001
        made = plan(snapshot, made, now, policy, AT_ONCE)
    return made, now


def what_if(snapshot: Snapshot, missing: Missing, policy: ModePolicy) -> WhatIf:
    """What changes for every VIP, and what Services without an address would get."""
    before, now = settled(snapshot, None, 0.0, policy)
    then = without(snapshot, missing)
    after, _ = settled(then, before, now, policy)
    addresses = sorted({*before.vips, *after.vips}, key=lambda address: (address.version, int(address)))
    return WhatIf(
        tuple(
            VipChange(
                address,
                shown.eip,
                shown.services,
                _way(before, address, snapshot.view),
                _way(after, address, then.view),
            )
            for address in addresses
            if (shown := after.vips.get(address) or before.vips.get(address)) is not None
        ),
        {
            key: tuple(address for address in allocation.addresses if not snapshot.services[key].has(address))
            for key, allocation in sorted(after.services.items())
            if any(not snapshot.services[key].has(address) for address in allocation.addresses)
        },
        {key: allocation.refusals for key, allocation in sorted(after.services.items()) if allocation.refusals},
        {f"Eip {name}": eip.problems for name, eip in sorted(before.eips.items()) if eip.problems}
        | {f"BgpPeer {name}": problems for name, problems in before.peers.items()},
        overview(before),
        overview(after),
    )


def _way(made: Plan, address: Address, view: View) -> Way | None:
    vip = made.vips.get(address)
    return None if vip is None else way(vip, view, place_of(vip, decided(made)))


def way(vip: VipPlan, view: View, place: str) -> Way:
    """How a planned VIP is brought in: what is planned is done, but only where there is somebody to do it.

    ``place``: the node that serves it in Layer 2.
    """
    why = " ".join(map(str, vip.problems))
    if not vip.next_hops:
        return Way(Mode.NONE, why=why or "No node can receive its traffic.")
    carried = {
        peer: {hop for replica, hops in by_replica.items() if (replica, peer) in view.sessions for hop in hops}
        for peer, by_replica in vip.announced.items()
    }
    hops = _sorted(hop for found in carried.values() for hop in found)
    if vip.mode.mode is Mode.BGP and hops:
        return Way(Mode.BGP, hops, _sorted(peer for peer, found in carried.items() if found), why)
    if vip.mode.answer and vip.candidates and view.fresh - {""}:
        return Way(Mode.LAYER2, vip.takers or (place or vip.candidates[0],), (), why)
    if not view.fresh - {""}:
        why = "No replica is left to announce it or to answer for it."
    return Way(Mode.NONE, why=why or "No session carries it, and Layer 2 does not answer for it.")


def _sorted(names: Iterable[str]) -> tuple[str, ...]:
    return tuple(sorted(set(names)))
