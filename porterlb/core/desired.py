"""The desired state of the two speakers of one replica: the complete set, each time."""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from ipaddress import IPv4Address

from porterlb.core.bfd.values import BfdTarget
from porterlb.core.bgp.negotiated import Negotiated
from porterlb.core.model import Address, Member, RouteAttributes

Prefix = str
"""The destination of a route: a host route in CIDR text (RFC 4632, RFC 5952), ``192.0.2.1/32``. Text, because ExaBGP
takes text and every table is keyed by it; Python hashes a text once, but a network object at each use."""


@dataclass(frozen=True, slots=True)
class SessionConfig:
    """One BGP session of this replica, with exactly the settings that affect the session.

    Times in seconds. ``peer``: the name of its BgpPeer. ``address``: a link-local one has its interface as scope
    (``fe80::1%eth0``). ``peer_as`` 0: any AS but ours. ``interface``: of the node; the local address is taken from it.
    """

    peer: str
    address: Address
    peer_as: int
    local_as: int
    router_id: IPv4Address
    local_address: Address | None = None
    interface: str = ""
    password: str = field(default="", repr=False)
    multihop_ttl: int = 0
    minimum_ttl: int = 0  # 0: any
    hold_time: int = 9
    keepalive: int = 0  # 0: a third of the negotiated hold time
    connect_retry: int = 0  # 0: ExaBGP's own back-off
    passive: bool = False
    remote_port: int = 179
    graceful_restart: int = 30  # 0: off
    families: tuple[int, ...] = (4, 6)
    add_path: bool = False
    max_prefixes: int = 0  # 0: no limit
    admin_down: bool = False

    @property
    def extends_next_hops(self) -> bool:
        """Whether IPv6 next hops for IPv4 routes are offered to the router (RFC 8950): to one with an IPv6 address."""
        return self.address.version == 6 and 4 in self.families


@dataclass(frozen=True, slots=True)
class Path:
    """What the routes of one group have in common. ``path_id`` 0: without add-path. ``extended``: IPv4 routes with an
    IPv6 next hop (RFC 8950)."""

    peer: str
    next_hop: Address
    path_id: int = 0
    attributes: RouteAttributes = RouteAttributes()
    extended: bool = False

    @property
    def version(self) -> int:
        """IP version of the routes."""
        return 4 if self.extended else self.next_hop.version


@dataclass(frozen=True, slots=True)
class DesiredBgp:
    """Every session and every route that this replica must have. ``routes``: prefixes by path.

    ``negotiated``: the negotiated values that the routes of each peer were planned for, by peer name; a peer with no
    known values is absent. ``bfd``: the BFD sessions, by peer name; they are not part of ExaBGP's configuration.
    """

    sessions: Mapping[str, SessionConfig] = field(default_factory=dict)  # by peer name
    routes: Mapping[Path, AbstractSet[Prefix]] = field(default_factory=dict)
    listen_port: int = 0
    listen_addresses: tuple[Address, ...] = ()
    negotiated: Mapping[str, Negotiated] = field(default_factory=dict)
    bfd: Mapping[str, BfdTarget] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Layer2Scope:
    """Where VIPs of an Eip with limits (spec.layer2) are answered. ``nodes``: the replicas that may answer.

    ``interfaces``: a replica answers on the first of these that is on the VIP's subnet. If there is none, it answers on
    the first that is up, or, if ``strict``, not at all. Empty: on the interface that the VIP names.
    """

    nodes: frozenset[str] = frozenset()
    interfaces: tuple[str, ...] = ()
    strict: bool = False


@dataclass(frozen=True, slots=True)
class Layer2Vip:
    """One VIP for the wire process.

    ``candidates``: usable nodes, best first (see :mod:`porterlb.core.nexthops`); the first live one is the next hop.
    ``interface``: a NIC name, or empty: the interface whose subnet holds ``can_reach``, or else the VIP itself.
    ``takers``: if each asking host gets its own next hop, the candidates that new hosts are assigned to. ``scope``: the
    name of its scope; empty: none.
    """

    address: Address
    candidates: tuple[str, ...]
    interface: str = ""
    can_reach: Address | None = None
    takers: tuple[str, ...] = ()
    scope: str = ""


@dataclass(frozen=True, slots=True)
class DesiredWire:
    """The complete desired state of the wire process of this replica. ``nodes``: the nodes to probe, by name.

    ``sessions``: our established BGP sessions by peer name; ``hold_downs``: our hold-down states by set of peers
    (:func:`porterlb.core.holddown.said`); ``negotiated``: what each session negotiated, as a short text by peer name;
    ``leader``: the replica that we consider the leader. These travel in our hello. ``outage``: the API is unavailable.
    ``digest``: of the plan that this belongs to; ``applied``: of the plan that BGP has applied.
    """

    members: Mapping[str, Member] = field(default_factory=dict)
    nodes: Mapping[str, tuple[Address, ...]] = field(default_factory=dict)
    vips: Mapping[Address, Layer2Vip] = field(default_factory=dict)
    scopes: Mapping[str, Layer2Scope] = field(default_factory=dict)  # by name
    sessions: frozenset[str] = frozenset()
    hold_downs: frozenset[str] = frozenset()
    negotiated: Mapping[str, str] = field(default_factory=dict)
    leader: str = ""
    outage: bool = False
    digest: int = 0
    applied: int = 0
    check: frozenset[Address] = frozenset()
    """On-link addresses to probe for foreign owners before their first use (RFC 5227)."""
    routers: tuple[str, ...] = ()
    """Interfaces on which router advertisements (RFC 4861) are heard, and sent."""
