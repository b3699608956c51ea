"""The objects that decisions are based on: frozen, parsed, with units.

Nothing here depends on the source of an object. :mod:`porterlb.core.parse` makes these values from API objects.
A *replica* is named by the node that it runs on: there is at most one per node.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv4Interface, IPv4Network, IPv6Address, IPv6Interface, IPv6Network
from typing import NamedTuple

from porterlb.core.bfd.values import BfdSettings
from porterlb.core.bgp.negotiated import Negotiated

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network
Interface = IPv4Interface | IPv6Interface


class ServiceKey(NamedTuple):
    """Namespace and name of a Service."""

    namespace: str
    name: str

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}"


class Protocol(enum.StrEnum):
    """The wanted protocol of a VIP (Eip.spec.protocol, or the Service's annotation)."""

    AUTO = "auto"
    BGP = "bgp"
    LAYER2 = "layer2"


class Mode(enum.StrEnum):
    """The protocol that serves a VIP now."""

    BGP = "bgp"
    LAYER2 = "layer2"
    NONE = "none"


class Ready(enum.StrEnum):
    """The status of a node's Ready condition."""

    TRUE = "True"
    FALSE = "False"
    UNKNOWN = "Unknown"


@dataclass(frozen=True, slots=True)
class Requirement:
    """One matchExpressions entry. operator: In, NotIn, Exists, DoesNotExist."""

    key: str
    operator: str
    values: frozenset[str] = frozenset()

    def matches(self, labels: Mapping[str, str]) -> bool:
        present = self.key in labels
        if self.operator == "Exists":
            return present
        if self.operator == "DoesNotExist":
            return not present
        if self.operator == "In":
            return present and labels[self.key] in self.values
        return not present or labels[self.key] not in self.values


@dataclass(frozen=True, slots=True)
class Selector:
    """A Kubernetes label selector; the empty one matches everything."""

    requirements: tuple[Requirement, ...] = ()

    def matches(self, labels: Mapping[str, str]) -> bool:
        return all(requirement.matches(labels) for requirement in self.requirements)


@dataclass(frozen=True, slots=True)
class Node:
    """A Kubernetes node. ``addresses`` are its InternalIPs in the order given, ``other_addresses`` the rest of
    status.addresses (ExternalIP)."""

    name: str
    addresses: tuple[Address, ...] = ()
    labels: Mapping[str, str] = field(default_factory=dict)
    ready: Ready = Ready.TRUE
    network_unavailable: bool = False
    excluded: bool = False  # label node.kubernetes.io/exclude-from-external-load-balancers
    out_of_service: bool = False  # taint node.kubernetes.io/out-of-service
    cordoned: bool = False  # spec.unschedulable
    draining: bool = False  # our annotation, see porterlb.core.drain
    capacity: int = 100  # for VIPs in Layer 2, in hundredths: by annotation
    other_addresses: tuple[Address, ...] = ()

    def address(self, version: int) -> Address | None:
        """The node's first address of IP version 4 or 6."""
        return next((address for address in self.addresses if address.version == version), None)


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One endpoint of a Service. ``node`` is empty when the EndpointSlice does not name one.

    ``version``: 4 or 6, the IP version of its EndpointSlice and of the VIPs that it serves; 0: both versions.
    ``same_node``: it is hinted for traffic that arrives at its own node (KEP-3015, PreferSameNode).
    """

    node: str
    ready: bool = True
    serving: bool = True
    terminating: bool = False
    version: int = 0
    same_node: bool = False


class TrafficPolicy(enum.StrEnum):
    """Service.spec.externalTrafficPolicy."""

    CLUSTER = "Cluster"
    LOCAL = "Local"


class Port(NamedTuple):
    """protocol: TCP, UDP or SCTP."""

    protocol: str
    number: int


@dataclass(frozen=True, slots=True)
class Service:
    """A Service of type LoadBalancer that we manage.

    ``families``: IP versions in the order of spec.ipFamilies; ``dual_stack_required``: ipFamilyPolicy is
    RequireDualStack. ``held``: addresses in status.loadBalancer.ingress. ``created``: RFC 3339 text, which sorts.

    ``recorded``: the addresses that it was given according to our own records (Eip.status.used). ``foreign_writer``:
    the field manager that has written the ingress in its status, if that is not us.
    """

    key: ServiceKey
    uid: str = ""
    created: str = ""
    resource_version: str = field(default="", compare=False)  # of the first version with these values
    generation: int = 0
    labels: Mapping[str, str] = field(default_factory=dict)
    ports: frozenset[Port] = frozenset()
    traffic_policy: TrafficPolicy = TrafficPolicy.CLUSTER
    health_check_port: int = 0  # spec.healthCheckNodePort; 0: none
    selector: tuple[tuple[str, str], ...] = ()
    families: tuple[int, ...] = (4,)
    dual_stack_required: bool = False
    held: tuple[Address, ...] = ()
    wanted_addresses: tuple[Address, ...] = ()
    wanted_eip: str = ""
    protocol: Protocol | None = None
    sharing_key: str = ""
    shares_anywhere: bool = False  # the sharing key is MetalLB's, which applies across namespaces
    pinned_node: str = ""  # its present Layer 2 next hop: Eip.status.layer2NextHops, or the annotation of old versions
    recorded: tuple[Address, ...] = ()
    foreign_writer: str = ""
    weight: int = 1  # of each of its VIPs if VIPs are placed by load: by annotation

    def has(self, address: Address) -> bool:
        """Whether the Service has this address according to the API: in its own status, or in our records."""
        return address in self.held or address in self.recorded


class AddressRange(NamedTuple):
    """An inclusive range; both ends have the same IP version."""

    first: Address
    last: Address


class Preference(NamedTuple):
    """A term of spec.layer2.preferred: nodes that ``selector`` selects are preferred by ``weight`` (1 to 100)."""

    weight: int
    selector: Selector


@dataclass(frozen=True, slots=True)
class Layer2Rules:
    """Eip.spec.layer2: where its VIPs are served in Layer 2. BGP is not affected.

    ``interfaces``: NIC names; each node uses one of them; empty: any. ``node_selectors``: only nodes that one of them
    selects answer; empty: all nodes.
    """

    interfaces: tuple[str, ...] = ()
    node_selectors: tuple[Selector, ...] = ()
    preferred: tuple[Preference, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.limits or self.preferred)

    @property
    def limits(self) -> bool:
        """Whether some nodes may not serve."""
        return bool(self.interfaces or self.node_selectors)


@dataclass(frozen=True, slots=True)
class Eip:
    """A pool of addresses. ``ranges`` are sorted and disjoint. They do not contain ``exclude``d addresses (nor network
    addresses if ``avoidNetworkAddresses`` is set)."""

    name: str
    ranges: tuple[AddressRange, ...]
    uid: str = ""
    created: str = ""
    generation: int = 0
    protocol: Protocol = Protocol.AUTO
    interface: str = ""  # NIC name
    can_reach: Address | None = None
    disabled: bool = False
    priority: int = 0
    namespaces: frozenset[str] = frozenset()
    namespace_selector: Selector | None = None
    service_selector: Selector | None = None
    auto_assign: bool = True
    layer2_standby: bool = True
    layer2_spread: bool = False  # each host that asks for an address gets its own next hop
    layer2: Layer2Rules = Layer2Rules()
    probe: bool = True  # check the segment for a foreign host before an address is first used
    is_default: bool = False
    labels: Mapping[str, str] = field(default_factory=dict)
    rebalance: str = ""  # a rebalance request that has not been answered yet: by annotation

    def __contains__(self, address: Address) -> bool:
        return any(
            r.first.version == address.version and int(r.first) <= int(address) <= int(r.last) for r in self.ranges
        )


@dataclass(frozen=True, slots=True)
class RouteAttributes:
    """BGP path attributes. Communities as ExaBGP writes them (``64500:1``; large ``64500:1:2``; well-known by name).

    ``prepend``: how many additional times the local AS is prepended (0 to 16).
    """

    communities: tuple[str, ...] = ()
    large_communities: tuple[str, ...] = ()
    local_pref: int | None = None
    med: int | None = None
    prepend: int = 0


@dataclass(frozen=True, slots=True)
class AdvertiseRule:
    """One entry of BgpPeer.spec.advertise: matching VIPs are announced with these attributes.

    A peer without rules gets every VIP. A peer with rules gets only the VIPs of matching rules, with their attributes:
    see :mod:`porterlb.core.bgp.advertise`. ``community_names``: of the BgpConf. ``node_selector``: of the next hops.
    ``lengths``: of the prefix that covers a VIP and is announced for it, IPv4 and IPv6; 0: none. ``aggregate_only``: no
    host route is announced in addition. ``aggregate_local``: also for Services with policy Local.
    """

    eips: frozenset[str] = frozenset()  # empty: any
    eip_selector: Selector | None = None
    service_selector: Selector | None = None
    node_selector: Selector | None = None
    attributes: RouteAttributes = RouteAttributes()
    community_names: tuple[str, ...] = ()
    lengths: tuple[int, int] = (0, 0)
    aggregate_only: bool = True
    aggregate_local: bool = False


class DynamicAs(enum.StrEnum):
    """A BgpPeer.spec.conf.peerAs that is not a number."""

    EXTERNAL = "external"  # any AS but ours
    INTERNAL = "internal"  # ours


@dataclass(frozen=True, slots=True)
class PeerOverride:
    """One entry of BgpPeer.spec.overrides: its values replace those of the BgpPeer on the nodes that it selects. None,
    0 or empty: not set.

    ``gateway``: the IP version whose default gateway is the router. ``refused``: the entry has an error, and its nodes
    have no session.
    """

    node_selector: Selector | None = None
    address: Address | None = None
    gateway: int = 0
    peer_as: int = 0
    dynamic: DynamicAs | None = None
    local_as: int = 0
    router_id: IPv4Address | None = None
    local_address: Address | None = None
    interface: str = ""
    refused: bool = False


@dataclass(frozen=True, slots=True)
class Peer:
    """A BgpPeer. Times in seconds. ``families``: IP versions announced to it. ``local_as`` 0: that of BgpConf.

    ``address`` None: only its overrides have one, or it is found on ``interface``. ``dynamic``: the AS that the router
    may have if ``peer_as`` is 0.

    ``router_per_node``: behind this address, each node reaches a different router. Only overrides set ``router_id``:
    see :mod:`porterlb.core.bgp.overrides`.
    """

    name: str
    address: Address | None
    peer_as: int
    local_as: int = 0
    dynamic: DynamicAs | None = None
    uid: str = ""
    created: str = ""
    generation: int = 0
    description: str = ""
    admin_down: bool = False
    password: str = field(default="", repr=False)
    password_secret: tuple[str, str] | None = None  # (name, key) in the release namespace
    multihop_ttl: int = 0  # 0: directly connected
    minimum_ttl: int = 0  # of the packets that the router sends (RFC 5082); 0: any
    hold_time: int = 9
    keepalive: int = 0  # 0: a third of the hold time, as negotiated
    connect_retry: int = 0  # seconds between attempts; 0: ExaBGP's own back-off
    passive: bool = False
    remote_port: int = 179
    local_address: Address | None = None
    interface: str = ""  # of the node: has the local address; a link-local router is on it
    router_id: IPv4Address | None = None
    graceful_restart: int | None = None  # restart time; None: the value of BgpConf; 0: off
    families: tuple[int, ...] = (4, 6)
    max_prefixes: int = 0  # maximum that a replica announces to it; 0: no limit
    add_path: int = 0  # maximum number of paths per prefix (sendMax); 0 or 1: no add-path
    node_selector: Selector | None = None
    router_per_node: bool = False
    bfd: BfdSettings | None = None  # None: no BFD
    advertise: tuple[AdvertiseRule, ...] = ()
    advertise_union: bool = False  # all matching rules together, otherwise the first one
    overrides: tuple[PeerOverride, ...] = ()  # the first entry that selects a node applies there


RACK_LABELS = ("porter.kubesphere.io/rack", "openelb.kubesphere.io/rack")
"""Labels of nodes; the first label that a node has is used."""


@dataclass(frozen=True, slots=True)
class BgpConf:
    """The BgpConf ``default``. ``graceful_restart``: restart time in seconds, 0: off."""

    local_as: int = 0
    as_per_rack: Mapping[str, int] = field(default_factory=dict)  # by the value of a node's label: see RACK_LABELS
    router_id: IPv4Address | None = None
    listen_port: int = 0  # 0: do not listen
    listen_addresses: tuple[Address, ...] = ()
    graceful_restart: int = 30
    communities: Mapping[str, str] = field(default_factory=dict)  # by name
    generation: int = 0


@dataclass(frozen=True, slots=True)
class Member:
    """A replica as its membership Lease describes it. ``boot`` rises strictly with each start.

    ``subnets``: the interfaces of its node as address/prefix, so that every replica knows what is on-link for it.
    ``inner``: its subnets that only connect workloads on the node (cni0). ``lacks``: names of interfaces that Eips name
    (spec.interface, spec.layer2.interfaces) or BgpPeers (spec.interface) and that are missing or down on its node.
    ``listed``: the addresses of the interfaces in spec.layer2.interfaces and of BgpPeers that are up on its node, by
    name. ``routers``: heard by router advertisements on the interfaces of BgpPeers; the one to use on an interface is
    before the others (:mod:`porterlb.core.bgp.router_table`).
    """

    node: str
    address: str  # hello address, IP
    port: int  # hello UDP port
    boot: int
    subnets: tuple[Interface, ...] = ()
    gateways: tuple[Address, ...] = ()  # of its default routes; a link-local one with its interface
    inner: tuple[Network, ...] = ()
    lacks: tuple[str, ...] = ()
    listed: tuple[tuple[str, tuple[Interface, ...]], ...] = ()
    routers: tuple[Address, ...] = ()

    def on(self, interface: str) -> tuple[Interface, ...]:
        """The addresses of a listed interface."""
        return next((addresses for name, addresses in self.listed if name == interface), ())


@dataclass(frozen=True, slots=True)
class View:
    """The observations of this replica: everything that does not come from the API.

    ``dead``: nodes that are dead on the segments of their InternalIPs; ``dead_on``: dead nodes with the connected
    subnet on which they are (:mod:`porterlb.core.layer2.verdict`). ``probed``: nodes on one of our segments, so that
    probes decide about them; for other nodes, Ready decides. ``fresh``: replicas whose hello is fresh; our own node is
    always included.
    ``sessions``: established BGP sessions as (replica, peer name), of all fresh replicas. ``negotiated``: the values
    that they negotiated; for our own sessions that are down, the last values.
    ``settling``: nodes that were dead, have returned, and wait (:mod:`porterlb.core.node_return`).
    ``doubt``: all other nodes look dead and no replica is heard. Then our own node is cut off, and nothing must change.
    """

    node: str
    dead: frozenset[str] = frozenset()
    dead_on: frozenset[tuple[str, Network]] = frozenset()
    probed: frozenset[str] = frozenset()
    fresh: frozenset[str] = frozenset()
    sessions: frozenset[tuple[str, str]] = frozenset()
    negotiated: Mapping[tuple[str, str], Negotiated] = field(default_factory=dict)
    hold_downs: Mapping[str, frozenset[str]] = field(default_factory=dict)  # by other replica, as in its hello
    leader: str = ""
    doubt: bool = False
    settling: frozenset[str] = frozenset()
    outage: bool = False  # the API is unavailable
    asked: frozenset[Address] = frozenset()  # VIPs that a host has asked for recently, as far as we heard it


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Everything that a plan is made from."""

    view: View
    nodes: Mapping[str, Node] = field(default_factory=dict)
    services: Mapping[ServiceKey, Service] = field(default_factory=dict)
    endpoints: Mapping[ServiceKey, tuple[Endpoint, ...]] = field(default_factory=dict)
    eips: Mapping[str, Eip] = field(default_factory=dict)
    peers: Mapping[str, Peer] = field(default_factory=dict)
    conf: BgpConf = BgpConf()
    namespaces: Mapping[str, Mapping[str, str]] = field(default_factory=dict)  # labels
    members: Mapping[str, Member] = field(default_factory=dict)
    elsewhere: Mapping[Address, tuple[ServiceKey, ...]] = field(default_factory=dict)
    """Addresses that Services use but did not get from us (spec.externalIPs, other load balancers)."""
    proxies: Mapping[str, frozenset[Address]] = field(default_factory=dict)
    """Hosts that answer for many addresses of the segment (proxy ARP), by MAC, with the addresses that they claim."""
    claimed: frozenset[Address] = frozenset()
    """Addresses that a foreign host answers for (found by the duplicate address probe): they must not be assigned."""
