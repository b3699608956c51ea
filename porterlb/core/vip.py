"""The plan of one VIP: next hops, mode, announcing and answering, from the values that all VIPs share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from hashlib import blake2b

from porterlb.core import drain, layer2_choice
from porterlb.core.announce import Arrangement
from porterlb.core.bgp.advertise import Told
from porterlb.core.bgp.recipients import Recipients
from porterlb.core.desired import Layer2Vip, Path, Prefix
from porterlb.core.holddown import HoldDown, wait
from porterlb.core.mode import Announce, ModePolicy, Phase, VipMode, Ways, decide
from porterlb.core.model import Address, Eip, Mode, Protocol, Service, ServiceKey, TrafficPolicy
from porterlb.core.problems import Problem, Reason
from porterlb.core.sentences import no_ipv4_next_hop
from porterlb.core.shared import Shared

Announced = Mapping[str, Mapping[str, tuple[str, ...]]]


@dataclass(frozen=True, slots=True)
class VipPlan:
    """One VIP: the nodes that may receive its traffic, its mode, and the replicas that announce or answer it.

    ``next_hops``: usable nodes, best Layer 2 next hop first (policy Cluster: at most 16 of them). ``announced``: next
    hops by replica, by BGP peer, as all replicas together must announce them (empty in layer2 mode). ``problems``:
    why it is not served, or not fully.
    """

    address: Address
    eip: str
    services: tuple[ServiceKey, ...]
    protocol: Protocol
    mode: VipMode
    next_hops: tuple[str, ...] = ()
    candidates: tuple[str, ...] = ()  # the next hops on the VIP's segment; with spec.layer2, all that may serve it
    announced: Announced = field(default_factory=dict)
    on_link: bool = False
    problems: tuple[Problem, ...] = ()
    digest: int = 0
    peers: frozenset[str] = frozenset()  # that it may be announced to
    prefix: Prefix = ""
    paths: tuple[Path, ...] = ()  # as this replica announces it
    aggregates: tuple[tuple[Path, Prefix], ...] = ()  # prefixes that this replica announces for this VIP and others
    layer2: Layer2Vip | None = None  # the value for the wire process; None: none
    best: tuple[str, ...] = ()  # the candidates of the best rank: it may be placed on them
    weight: int = 1  # if VIPs are placed by load
    recorded: str = ""  # the node that was last its Layer 2 next hop, by the API; it may be unusable
    takers: tuple[str, ...] = ()  # if each host has its own next hop: the nodes that share the hosts

    def uses(self, nodes: frozenset[str]) -> bool:
        """Whether one of these nodes is among its next hops."""
        return not nodes.isdisjoint(self.next_hops) or not nodes.isdisjoint(self.candidates)

    @property
    def place(self) -> str:
        """The one node that serves it in Layer 2, now or after a loss of BGP; empty if Layer 2 cannot serve it, or if
        several nodes do."""
        alone = self.candidates and not self.takers and self.protocol is not Protocol.BGP
        return self.candidates[0] if alone else ""


def served_alike(one: Eip, other: Eip) -> bool:
    """Whether VIPs of both have the same plan: two versions of one Eip may differ only in who may use its addresses."""
    return (one.protocol, one.layer2_standby, one.layer2_spread, one.labels) == (
        other.protocol,
        other.layer2_standby,
        other.layer2_spread,
        other.labels,
    ) and placed_alike(one, other)


def placed_alike(one: Eip, other: Eip) -> bool:
    """Whether VIPs of both may be served by the same nodes in Layer 2."""
    return (one.interface, one.can_reach, one.layer2) == (other.interface, other.can_reach, other.layer2)


def plan_vip(
    shared: Shared,
    address: Address,
    eip: Eip,
    holders: Sequence[Service],
    last: VipMode | None,
    hold_downs: Mapping[frozenset[str], HoldDown],
    known: VipPlan | None = None,
) -> VipPlan:
    """``holders``: the Services that have the address according to the API, the oldest first. ``last``: its last mode.

    ``hold_downs``: by set of peers, including the set of this VIP. ``known``: its previous plan, if the next hops are
    the same: then only the mode must be decided.
    """
    owner, text = holders[0], str(address)
    recipients = shared.rules.recipients(eip, address.version, holders)
    order, candidates, best, problem = layer2_candidates(shared, address, eip, holders, recipients, known)
    on_link = candidates is not None
    carried = shared.peering.carried(recipients, address.version, order)
    protocol = owner.protocol or eip.protocol
    local = any(service.traffic_policy is TrafficPolicy.LOCAL for service in holders)
    hold_down = hold_downs[recipients.names]
    ways = Ways(protocol, carried, on_link, eip.layer2_standby)
    mode = decide(last, ways, hold_down, shared.now, shared.policy)
    announced = _arranged(shared, address, eip, recipients, mode, order, candidates or order, local=local)
    reachable = candidates if on_link else None
    paths, aggregates = _own_routes(shared, address, eip, recipients.told, announced, local=local)
    takers: tuple[str, ...] = ()
    if eip.layer2_spread and candidates and protocol is not Protocol.BGP:
        reachable, takers = shared.topology.sharing(candidates)
    return VipPlan(
        address=address,
        eip=eip.name,
        services=tuple(service.key for service in holders),
        protocol=protocol,
        mode=mode,
        next_hops=order,
        candidates=candidates or (),
        announced=announced,
        on_link=on_link,
        problems=_problems(problem, ways, recipients, order, _nowhere(shared, eip, address))
        + _not_negotiated(shared.peering.not_carried(recipients, address.version), address.version, protocol)
        + (() if carried else _no_ipv4_hop(shared, recipients, address, order, protocol))
        + _nobody_there(eip, ways, order, candidates)
        + _losses(mode, hold_down, shared.policy),
        digest=_digest(
            f"{text}|{order}|{mode.announce}|{mode.answer}|{recipients.text}{_drained(shared, order)}{_told(takers)}"
            f"{_chosen(eip, candidates)}"
        ),
        peers=recipients.names,
        prefix=f"{text}/{address.max_prefixlen}",
        paths=paths,
        aggregates=aggregates,
        layer2=Layer2Vip(address, reachable, eip.interface, eip.can_reach, takers, _scope(shared, eip, address))
        if reachable and mode.answer
        else None,
        best=best,
        weight=owner.weight,
        recorded=owner.pinned_node,
        takers=takers,
    )


def announced_anew(shared: Shared, vip: VipPlan, eip: Eip, holders: Sequence[Service]) -> VipPlan:
    """The plan of a VIP for which only the announcers of its next hops have changed."""
    recipients = shared.rules.recipients(eip, vip.address.version, holders)
    local = any(service.traffic_policy is TrafficPolicy.LOCAL for service in holders)
    order, candidates = vip.next_hops, vip.candidates or vip.next_hops
    announced = _arranged(shared, vip.address, eip, recipients, vip.mode, order, candidates, local=local)
    paths, aggregates = _own_routes(shared, vip.address, eip, recipients.told, announced, local=local)
    return replace(vip, announced=announced, paths=paths, aggregates=aggregates)


def _arranged(
    shared: Shared,
    address: Address,
    eip: Eip,
    recipients: Recipients,
    mode: VipMode,
    order: tuple[str, ...],
    candidates: tuple[str, ...],
    *,
    local: bool,
) -> Announced:
    """Next hops by replica, by peer."""
    if mode.announce is Announce.NONE or not order:
        return {}
    full = mode.announce is Announce.FULL
    return {
        name: shared.peering.arrangement(name, _turned_by(shared, told, address, eip, local=local), hops)
        for name, told in recipients.told.items()
        if (hops := _announced(told, order, candidates, shared.topology.drain, full=full))
    }


def _drained(shared: Shared, order: Sequence[str]) -> str:
    """The effect of a drain on the announcements; empty without one, so that digests equal those of earlier
    releases."""
    if shared.topology.drain.all.isdisjoint(order):
        return ""
    return f"|{sorted(shared.topology.drain.announced)}|{sorted(shared.topology.drain.withdrawn)}"


def _told(takers: Sequence[str]) -> str:
    return f"|{takers}" if takers else ""


def _chosen(eip: Eip, candidates: Sequence[str] | None) -> str:
    """The effect of spec.layer2; empty without it, so that digests equal those of earlier releases."""
    return f"|{candidates}" if eip.layer2 else ""


def _scope(shared: Shared, eip: Eip, address: Address) -> str:
    return layer2_choice.scope_name(eip, shared.topology.segment(eip, address)) if eip.layer2.limits else ""


def _nowhere(shared: Shared, eip: Eip, address: Address) -> str:
    """Why Layer 2 cannot serve an address that no replica may answer for."""
    if eip.layer2.limits and (eip.layer2.interfaces or shared.topology.segment(eip, address) is not None):
        return f"no node with a replica may serve it (spec.layer2 of the Eip {eip.name})"
    return "it is in no connected subnet"


def layer2_candidates(
    shared: Shared,
    address: Address,
    eip: Eip,
    holders: Sequence[Service],
    recipients: Recipients | None = None,
    known: VipPlan | None = None,
) -> tuple[tuple[str, ...], tuple[str, ...] | None, tuple[str, ...], Problem | None]:
    """The next hops; those on the VIP's segment (None: it is on no segment); of these, the best for a new VIP; and why
    there is no next hop. ``known``: as for :func:`plan_vip`."""
    topology = shared.topology
    segment = topology.segment(eip, address)
    if known is not None and known.next_hops:
        if eip.layer2:
            return known.next_hops, known.candidates if known.on_link else None, known.best, None
        return known.next_hops, topology.on_segment(eip, segment, known.next_hops), known.best, None
    hops = topology.hops(holders, shared.snapshot.endpoints, address.version)
    order = topology.order(holders, hops, segment, recipients.parts if recipients is not None else ())
    if eip.layer2:
        candidates, best = shared.choices.chosen(eip, segment, holders, hops)
    else:
        candidates = topology.on_segment(eip, segment, order)
        best = topology.best(candidates or (), hops)
    return order, candidates, best, hops.problem


def _digest(text: str) -> int:
    """48 bits (JSON readers keep 53). Not a CRC: CRCs are linear, so the digests of a Service's two VIPs, which change
    alike, would cancel each other out in the plan's digest."""
    return int.from_bytes(blake2b(text.encode(), digest_size=6).digest(), "big")


def _own_routes(
    shared: Shared, address: Address, eip: Eip, recipients: Mapping[str, Told], announced: Announced, *, local: bool
) -> tuple[tuple[Path, ...], tuple[tuple[Path, Prefix], ...]]:
    """The routes that this replica announces, for each next hop assigned to it: the host route, and covering
    prefixes."""
    me = shared.snapshot.view.node
    paths: dict[Path, None] = {}
    aggregates: dict[tuple[Path, Prefix], None] = {}
    for peer, by_replica in announced.items():
        for node in by_replica.own(me) if isinstance(by_replica, Arrangement) else by_replica.get(me, ()):
            for length, attributes in recipients[peer].routes(node, local=local):
                path = shared.peering.path(
                    peer, node, address.version, drain.attributes(attributes, node, shared.topology.drain)
                )
                found = shared.rules.covering(address, length, eip) if length else None
                if path is not None and found is not None:
                    aggregates[path, found[1]] = None
                elif path is not None:
                    paths.setdefault(path)
    return tuple(paths), tuple(aggregates)


def _turned_by(shared: Shared, told: Told, address: Address, eip: Eip, *, local: bool) -> Address:
    """The address that selects the announced next hops if not all can be announced. For VIPs that share a prefix, it is
    the prefix."""
    offer = told.offers[0]
    found = shared.rules.covering(address, offer.length, eip) if offer.only and offer.aggregates(local=local) else None
    return found[0] if found else address


def _announced(
    told: Told, order: tuple[str, ...], candidates: tuple[str, ...], stages: drain.Stages, *, full: bool
) -> tuple[str, ...]:
    """The next hops announced to one peer. If not ``full``, only the one that Layer 2 uses, otherwise the first
    possible one."""
    if full:
        return drain.announced(told.allowed(order), stages)
    return drain.announced((told.allowed(candidates) or told.allowed(order))[:1], stages)


def _problems(
    hops: Problem | None, ways: Ways, recipients: Recipients, order: tuple[str, ...], nowhere: str
) -> tuple[Problem, ...]:
    """``nowhere``: why Layer 2 cannot serve the VIP, if it is on no segment, as a clause."""
    found = [hops] if hops else []
    if ways.protocol is Protocol.LAYER2 and not ways.on_link:
        found.append(Problem(Reason.OFF_SEGMENT, f"Layer 2 cannot serve the address: {nowhere}."))
    elif (
        ways.protocol is not Protocol.LAYER2
        and not ways.carried
        and (ways.protocol is Protocol.BGP or not ways.on_link)
    ):
        fallback = "" if ways.protocol is Protocol.BGP else f" Layer 2 cannot serve it: {nowhere}."
        if order and recipients.names and not any(told.allowed(order) for told in recipients.told.values()):
            sentence = "The rules of its BgpPeers (spec.advertise[].nodeSelector) select none of its next hops."
            found.append(Problem(Reason.NO_PEER, f"{sentence}{fallback}"))
        elif recipients.names:
            found.append(Problem(Reason.NO_SESSION, f"No BGP session that carries it is established.{fallback}"))
        else:
            found.append(Problem(Reason.NO_PEER, f"There is no BgpPeer that it is announced to.{fallback}"))
    return tuple(found)


def _not_negotiated(peers: tuple[str, ...], version: int, protocol: Protocol) -> tuple[Problem, ...]:
    if not peers or protocol is Protocol.LAYER2:
        return ()
    whose = "session" if len(peers) == 1 else "sessions"
    sentence = (
        f"The {whose} with {', '.join(peers)} did not negotiate IPv{version} routes, so BGP does not carry it there. "
        f"Enable IPv{version} unicast for this neighbor on the router."
    )
    return (Problem(Reason.NOT_NEGOTIATED, sentence, fatal=False),)


def _no_ipv4_hop(
    shared: Shared, recipients: Recipients, address: Address, order: tuple[str, ...], protocol: Protocol
) -> tuple[Problem, ...]:
    if address.version != 4 or protocol is Protocol.LAYER2 or not order:
        return ()
    peers = shared.peering.without_ipv4_hop(recipients, order)
    if not peers:
        return ()
    return (Problem(Reason.NOT_NEGOTIATED, f"{no_ipv4_next_hop(peers)} BGP does not carry it there.", fatal=False),)


def _nobody_there(
    eip: Eip, ways: Ways, order: tuple[str, ...], candidates: tuple[str, ...] | None
) -> tuple[Problem, ...]:
    """The problem if Layer 2 is the only option and no node that could serve the VIP is alive on its segment."""
    elsewhere = ways.protocol is Protocol.BGP or (ways.protocol is not Protocol.LAYER2 and ways.carried)
    if candidates != () or not order or elsewhere:
        return ()
    few = f"{', '.join(order[:3])}{' ...' if len(order) > 3 else ''}"
    where = (
        "may serve it and is alive on the segment of the address (spec.layer2 of the Eip)"
        if eip.layer2.limits
        else f"has an interface {eip.interface} that is up"
        if eip.interface
        else "is alive on the segment of the address"
    )
    return (Problem(Reason.OFF_SEGMENT, f"None of its next hops ({few}) {where}: Layer 2 cannot serve it."),)


def _losses(mode: VipMode, hold_down: HoldDown, policy: ModePolicy) -> tuple[Problem, ...]:
    """Why an automatic VIP waits longer than usual for BGP."""
    if hold_down.losses < 2 or mode.phase not in (Phase.LAYER2, Phase.WAITING):
        return ()
    return (
        Problem(
            Reason.ROUTES_LOST,
            f"Routes were lost {hold_down.lasted:.1f} s after they were announced, {hold_down.losses} times in a row: "
            f"BGP is used again after a session has been stable for {wait(hold_down, policy):.0f} s. "
            "Check the prefix limit of the router.",
            fatal=False,
        ),
    )


def served(vip: VipPlan) -> Mode:
    """The mode that serves the VIP now; none while no node can receive its traffic."""
    return vip.mode.mode if vip.next_hops else Mode.NONE
