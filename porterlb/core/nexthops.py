"""Which nodes may receive the traffic of a Service, and in which order.

Sources: KEP-1669 (serving terminating endpoints), KEP-1860 (ipMode), the well-known node labels and taints.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType

from porterlb.core.model import Address, Endpoint, Interface, Member, Network, Node, Ready, Service, TrafficPolicy, View
from porterlb.core.parse.node import EXCLUDED
from porterlb.core.problems import Problem, Reason
from porterlb.core.rendezvous import Ring, ranked, shuffled


def unusable_because(node: Node, view: View, *, ignore_ready: bool) -> str:
    """Why no traffic is sent to ``node``: a clause; empty if the node is usable."""
    if node.name in view.dead and not view.doubt:
        return "does not answer probes"
    if node.out_of_service:
        return "is tainted out-of-service"
    if node.excluded:
        return f"is labelled {EXCLUDED} (the setting ignore_exclude_label ignores that)"
    if node.network_unavailable:
        return "reports NetworkUnavailable"
    if node.ready is not Ready.TRUE and not ignore_ready:
        return f"has Ready={node.ready.value}"
    return ""


def usable_nodes(nodes: Mapping[str, Node], view: View) -> frozenset[str]:
    """The nodes that traffic may be sent to.

    Ready=False or Unknown counts only while another node is Ready: if none is, the control plane has failed, not every
    node at once.
    """
    return frozenset(nodes.keys() - unusable_nodes(nodes, view))


def unusable_nodes(nodes: Mapping[str, Node], view: View) -> dict[str, str]:
    """The unusable nodes, each with the reason as a clause."""
    nobody_ready = not any(node.ready is Ready.TRUE for node in nodes.values())
    found = {name: unusable_because(node, view, ignore_ready=nobody_ready) for name, node in nodes.items()}
    unusable = {name: why for name, why in found.items() if why}
    settling = (view.settling & nodes.keys()) - unusable.keys()
    if settling and nodes.keys() - unusable.keys() - settling:  # without other usable nodes, waiting gains nothing
        unusable |= dict.fromkeys(settling, RETURNED)
    return unusable


RETURNED = "has just returned, and its kube-proxy may not forward yet"
"""Why a node of ``View.settling`` is not usable."""


@dataclass(frozen=True, slots=True)
class NextHops:
    """``nodes``: usable nodes that can serve. ``problem``: why there is none. ``anywhere``: all usable nodes can serve,
    wherever the endpoints are, so a subset of them is enough."""

    nodes: frozenset[str]
    endpoints: frozenset[str] = frozenset()  # the nodes with a ready endpoint
    problem: Problem | None = None
    anywhere: bool = False


def next_hops(
    policy: TrafficPolicy,
    endpoints: Sequence[Endpoint],
    usable: frozenset[str],
    unusable: Mapping[str, str] = MappingProxyType({}),
) -> NextHops:
    """Local: usable nodes with a ready endpoint. Cluster: every usable node, if any endpoint is ready.

    Terminating endpoints that still serve are used when no endpoint is ready (KEP-1669). ``endpoints``: of one IP
    version. ``unusable``: why other nodes are not usable.

    If every ready endpoint is hinted for its own node (trafficDistribution PreferSameNode), kube-proxy keeps traffic on
    the node that it arrives at. Then, with policy Cluster, the next hops are the usable nodes with a ready endpoint, if
    there are any.
    """
    ready = [endpoint for endpoint in endpoints if endpoint.ready]
    if not ready:
        ready = [endpoint for endpoint in endpoints if endpoint.serving and endpoint.terminating]
    if not ready:
        return NextHops(frozenset(), problem=Problem(Reason.NO_READY_ENDPOINT, "No endpoint of the Service is ready."))
    at = frozenset(endpoint.node for endpoint in ready) & usable
    stays = bool(at) and all(endpoint.same_node for endpoint in ready)
    nodes = at if policy is TrafficPolicy.LOCAL or stays else usable
    if nodes:
        return NextHops(nodes, at, anywhere=nodes is usable)
    if policy is TrafficPolicy.CLUSTER:
        sentence, whose = "No node is usable.", set(unusable)
    elif not any(endpoint.node for endpoint in ready):
        sentence, whose = (
            "externalTrafficPolicy is Local, and no ready endpoint names its node (nodeName in the EndpointSlice), so "
            "it is not known where they are. Add nodeName, or use the policy Cluster.",
            set(),
        )
    else:
        whose = {endpoint.node for endpoint in ready} & unusable.keys()
        sentence = "externalTrafficPolicy is Local and no usable node has a ready endpoint."
    return NextHops(frozenset(), problem=Problem(Reason.NO_USABLE_NODE, f"{sentence}{_whys(whose, unusable)}"))


def _whys(names: Iterable[str], unusable: Mapping[str, str]) -> str:
    """Sentences that say why these nodes are not usable, grouped by reason, with a leading space."""
    by_reason: dict[str, list[str]] = {}
    for name in sorted(names):
        by_reason.setdefault(unusable[name], []).append(name)
    shown = []
    for why, nodes in by_reason.items():
        more = f" and {len(nodes) - _NAMED} more" if len(nodes) > _NAMED else ""
        shown.append(f" {', '.join(nodes[:_NAMED])}{more}: each {why}." if len(nodes) > 1 else f" {nodes[0]} {why}.")
    return "".join(shown)


_NAMED = 5


def on_subnet(addresses: Iterable[Address], subnet: Network) -> bool:
    return any(address.version == subnet.version and address in subnet for address in addresses)


@dataclass(frozen=True, slots=True)
class Segments:
    """The known subnets that nodes are connected to, from the members' interfaces."""

    subnets: tuple[Network, ...]
    addresses: Mapping[str, tuple[Address, ...]] = field(default_factory=dict)  # by node
    closed: tuple[Network, ...] = ()
    """Subnets that only connect workloads on one node (docker0, cni0): not segments."""
    gateways: tuple[Address, ...] = ()
    """The next hops of the nodes' default routes; those used by most nodes first."""
    _by_prefix: dict[tuple[int, int], dict[int, Network]] = field(default_factory=dict, compare=False, repr=False)
    """Subnets by version and prefix length, longest first, and by their leading bits."""

    def __post_init__(self) -> None:
        for subnet in sorted(self.subnets, key=lambda s: -s.prefixlen):
            bits = int(subnet.network_address) >> (subnet.max_prefixlen - subnet.prefixlen)
            self._by_prefix.setdefault((subnet.version, subnet.prefixlen), {})[bits] = subnet

    def of(self, address: Address) -> Network | None:
        """The connected subnet (longest prefix) that holds ``address``, or None: it is on no segment."""
        number, version, length = int(address), address.version, address.max_prefixlen
        for (of, prefixlen), found in self._by_prefix.items():
            if of == version and (subnet := found.get(number >> (length - prefixlen))) is not None:
                return subnet
        return None

    def towards(self, address: Address) -> Network | None:
        """The connected subnet that traffic for ``address`` goes through: its own, otherwise that of a gateway."""
        subnet = self.of(address)
        if subnet is not None:
            return subnet
        gateways = (gateway for gateway in self.gateways if gateway.version == address.version)
        return next((found for gateway in gateways if (found := self.of(gateway)) is not None), None)

    def nodes_on(self, subnet: Network) -> frozenset[str]:
        return frozenset(name for name, addresses in self.addresses.items() if on_subnet(addresses, subnet))


def segments(nodes: Mapping[str, Node], members: Mapping[str, Member]) -> Segments:
    """Segments from the nodes and members. Subnets come from the members only, because nodes do not publish
    prefixes."""
    subnets: set[Network] = set()
    own: dict[Network, dict[str, Address]] = {}
    addresses: dict[str, dict[Address, None]] = {name: dict.fromkeys(node.addresses) for name, node in nodes.items()}
    for member in members.values():
        for interface in member.subnets:
            if _routable(interface):
                subnets.add(interface.network)
                if member.node in nodes:
                    own.setdefault(interface.network, {})[member.node] = interface.ip
                if member.node in addresses:
                    addresses[member.node][interface.ip] = None
    inner = {(member.node, subnet) for member in members.values() for subnet in member.inner}
    closed = {subnet for subnet, hosts in own.items() if _is_closed(hosts, nodes)}
    lone = {subnet for subnet, hosts in own.items() if len(hosts) == 1 and (next(iter(hosts)), subnet) in inner}
    met = [address for node in nodes.values() for address in node.addresses]
    met += [gateway for member in members.values() for gateway in member.gateways]
    closed |= {subnet for subnet in lone if not on_subnet(met, subnet)}
    count = Counter(gateway for member in members.values() for gateway in dict.fromkeys(member.gateways))
    gateways = sorted(count, key=lambda gateway: (-count[gateway], gateway.version, int(gateway)))
    return Segments(
        _ordered(subnets - closed),
        {name: tuple(found) for name, found in addresses.items()},
        _ordered(closed),
        tuple(gateways),
    )


def _ordered(subnets: Iterable[Network]) -> tuple[Network, ...]:
    return tuple(sorted(subnets, key=lambda n: (n.version, int(n.network_address), n.prefixlen)))


def _is_closed(hosts: Mapping[str, Address], nodes: Mapping[str, Node]) -> bool:
    """Whether the nodes with these addresses in a subnet cannot reach each other through it: all have the same address
    there, and it is not an address of the Node objects."""
    address = next(iter(hosts.values()))
    known = any(address in nodes[name].addresses for name in hosts)
    return len(hosts) > 1 and not known and all(other == address for other in hosts.values())


def _routable(interface: Interface) -> bool:
    return (
        interface.network.prefixlen < interface.max_prefixlen
        and not interface.ip.is_loopback
        and not interface.ip.is_link_local
    )


NO_WEIGHTS: Mapping[str, int] = MappingProxyType({})
"""Without preferences of an Eip (spec.layer2.preferred)."""

MOST = 16
"""Maximum number of next hops of a VIP with policy Cluster. It fills the ECMP groups of common routers, and the work
for a VIP does not grow with the number of nodes. Policy Local has no limit, because the pods of an omitted node would
get no traffic. Layer 2 uses the first ones."""


@dataclass(frozen=True, slots=True)
class Tier:
    """Usable nodes that are equally good for any VIP of a segment: nodes with a replica, then the others."""

    nodes: frozenset[str]
    rings: tuple[Ring, ...]


def tiers(
    usable: frozenset[str],
    present: frozenset[str],
    replicas: frozenset[str],
    cordoned: frozenset[str],
    weights: Mapping[str, int] = NO_WEIGHTS,
) -> tuple[Tier, ...]:
    """The usable nodes, best first: on the segment (``present``), then the others; in each group, cordoned ones
    last. ``weights``: as for :func:`layer2_order`."""
    found = []
    for place in (usable & present, usable - present):
        for part in (place - cordoned, place & cordoned):
            if part:
                found.append(Tier(part, (*_rings(part & replicas, weights), *_rings(part - replicas, weights))))
    return tuple(found)


def _rings(names: frozenset[str], weights: Mapping[str, int]) -> list[Ring]:
    """Rings of nodes with equal weights, the heaviest first."""
    if not weights:
        return [Ring(names)] if names else []
    by_weight: dict[int, set[str]] = {}
    for name in names:
        by_weight.setdefault(weights.get(name, 0), set()).add(name)
    return [Ring(by_weight[weight]) for weight in sorted(by_weight, reverse=True)]


def picked(
    key: str, pinned: str, hops: NextHops, among: Sequence[Tier], weights: Mapping[str, int] = NO_WEIGHTS
) -> list[str]:
    """Up to MOST of the next hops: the pinned node, then from each tier first the nodes with a ready endpoint.

    Removing a node that was not picked does not change the result.
    """
    chosen: dict[str, None] = {pinned: None} if pinned in hops.nodes else {}
    for tier in among:
        with_endpoint = hops.endpoints & tier.nodes
        rings = (*_rings(with_endpoint, weights), *tier.rings) if with_endpoint else tier.rings
        for ring in rings:
            for name in ring.after(key):
                if len(chosen) == MOST:
                    return list(chosen)
                if name in hops.nodes:
                    chosen[name] = None
    return list(chosen)


def layer2_order(
    service: Service,
    hops: NextHops,
    replicas: frozenset[str],
    cordoned: frozenset[str],
    among: Sequence[Tier] | None = None,
    *,
    many: bool = False,
    draining: frozenset[str] = frozenset(),
    weights: Mapping[str, int] = NO_WEIGHTS,
) -> tuple[str, ...]:
    """The order in which ``hops`` serve a VIP on the segment.

    The pinned node comes first while it is usable. The others are ordered by rendezvous rank: nodes with a ready
    endpoint first, then nodes with a replica, cordoned ones last. Replicas with the same input get the same order. Both
    VIPs of a dual-stack Service have the same order, because its first address determines the rank. ``among``: the
    tiers of the VIP's segment, if there are many next hops and MOST of them are enough. ``many``: the cluster has more
    than MOST nodes; then the rank of nodes with an endpoint is cheaper to compute and a little less even. ``draining``:
    these nodes come last, even if the VIP is pinned there. ``weights``: of the nodes that the Eip prefers; among nodes
    that are equal otherwise, the heaviest come first.
    """
    key = str((service.held or service.recorded or (service.key,))[0])
    names: Iterable[str] = hops.nodes
    if among is not None:
        names = picked(key, service.pinned_node, hops, among, weights)

    def preference(name: str) -> tuple[int, ...]:
        return (
            name in draining,
            name != service.pinned_node,
            name in cordoned,
            name not in hops.endpoints,
            name not in replicas,
            -weights.get(name, 0),
        )

    if not many:
        return tuple(sorted(ranked(key, names), key=preference))
    near = hops.endpoints.intersection(names)
    by_rank = [*shuffled(key, near), *ranked(key, [name for name in names if name not in near])]
    return tuple(sorted(by_rank, key=preference))


def best_of(
    order: Sequence[str],
    hops: NextHops,
    replicas: frozenset[str],
    cordoned: frozenset[str],
    weights: Mapping[str, int] = NO_WEIGHTS,
) -> tuple[str, ...]:
    """The nodes of ``order`` that are equally good for a new VIP, in the same order: the nodes of the best rank, as
    :func:`layer2_order` ranks them. The present location of a VIP does not matter."""
    ranks = [
        (name in cordoned, name not in hops.endpoints, name not in replicas, -weights.get(name, 0)) for name in order
    ]
    best = min(ranks, default=None)
    return tuple([name for name, rank in zip(order, ranks, strict=True) if rank == best])
