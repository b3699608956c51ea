"""What-if analysis: the plan of the present cluster, and the plan of the same cluster without some of its parts.

Uses the same :func:`porterlb.core.plan.plan` as online, and advances the time until nothing changes any longer.
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
from porterlb.core.status.peer import negotiated_of
from porterlb.core.status.reading import entries
from porterlb.core.vip import VipPlan

ROUNDS = 10
"""Maximum number of steps in time: from layer2 back to bgp takes three (waiting, narrow, wide)."""


@dataclass(frozen=True, slots=True)
class Missing:
    """The removed parts, by name: nodes lose power, sessions with peers are lost, replicas are gone."""

    nodes: frozenset[str] = frozenset()
    peers: frozenset[str] = frozenset()
    replicas: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Way:
    """How a VIP is served. ``next_hops``: in layer2 mode the only one (several if hosts share them), in bgp mode all
    that are announced.

    ``peers``: the peers that it is announced to, in bgp mode. ``why``: why it is not served, or not fully.
    """

    mode: Mode
    next_hops: tuple[str, ...] = ()
    peers: tuple[str, ...] = ()
    why: str = ""


@dataclass(frozen=True, slots=True)
class VipChange:
    """``before`` is None for a new VIP, ``after`` for a removed one."""

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
    """``new``: addresses that Services would get. ``refused``: why other Services get none.

    ``problems``: found only by considering all objects together, and likely mistakes in objects that we do not manage.
    ``spread``: the distribution of the VIPs over the nodes in Layer 2 now; ``spread_then``: after the change.
    ``left_out``: by Eip, the nodes that its spec.layer2 excludes, each with the reason as a clause.
    """

    vips: tuple[VipChange, ...]
    new: Mapping[ServiceKey, tuple[Address, ...]] = field(default_factory=dict)
    refused: Mapping[ServiceKey, tuple[Problem, ...]] = field(default_factory=dict)
    problems: Mapping[str, tuple[Problem, ...]] = field(default_factory=dict)
    spread: Overview = Overview()
    spread_then: Overview = Overview()
    left_out: Mapping[str, Mapping[str, str]] = field(default_factory=dict)


def offline_snapshot(objects: Objects, members: Mapping[str, Member], node: str = "") -> Snapshot:
    """The cluster as described by its objects and Leases, seen by the replica on ``node`` (empty: any replica).

    Sessions are those that are established in the status of the BgpPeers. Replicas with a Lease are considered live.
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
        # It leads: only a leader assigns addresses, and the user wants to know which ones.
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
    """The same cluster without these parts; seen by another replica if ours is removed."""
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
    """The plan after all waits have ended (a session becoming stable, widening), and the time of that plan."""
    made = plan(snapshot, previous, now, policy, AT_ONCE)
    for _ in range(ROUNDS):
        if made.wake_at is None:
            break
        now = max(now, made.wake_at) + 0.001
        made = plan(snapshot, made, now, policy, AT_ONCE)
    return made, now


def what_if(snapshot: Snapshot, missing: Missing, policy: ModePolicy) -> WhatIf:
    """The changes for every VIP, and the addresses that Services without one would get."""
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
        {name: eip.left_out for name, eip in sorted(before.eips.items()) if eip.left_out},
    )


def _way(made: Plan, address: Address, view: View) -> Way | None:
    vip = made.vips.get(address)
    return None if vip is None else way(vip, view, place_of(vip, decided(made)))


def way(vip: VipPlan, view: View, place: str) -> Way:
    """How a planned VIP is served: the plan is carried out wherever a replica exists to do it.

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
