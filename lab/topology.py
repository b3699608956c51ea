"""The machines of a lab, the bridges of their cards, and the sessions of its routers.

`flat`: all nodes on one segment, with one or two routers. `racks`: a subnet and a router for each rack, and a spine. A
`Topology` is a plain value; `lab.cluster` builds it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from lab.host import Nic, outside_nic, second_nic, segment_nic
from lab.net import OUTSIDE, SECOND, SEGMENT
from lab.node import node_name, pod_ranges
from lab.routers import RouterConfig, Session


@dataclass(frozen=True)
class Site:
    """One machine: its cards, its default gateway, the labels of its Node."""

    name: str
    nics: tuple[Nic, ...]
    gateway: Nic | None = None
    labels: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class RouterSite:
    """One router.

    Args:
        kind: bird, frr, gobgp or openbgpd.
        routes: static routes of its kernel, in the syntax of ``ip route``.
        shared: an address that it shares by VRRP with the other routers of the first card's subnet: the first router of
            the topology has it, and the next one takes it over.
    """

    name: str
    kind: str
    nics: tuple[Nic, ...]
    config: RouterConfig
    routes: tuple[str, ...] = ()
    shared: Nic | None = None


@dataclass(frozen=True)
class Topology:
    """A lab's machines.

    Args:
        bridges: of the switch.
        client: the client behind the routers.
        local: the client in the subnet of the first node.
        second_local: the client on the second segment, if there is one.
    """

    bridges: tuple[str, ...]
    nodes: tuple[Site, ...]
    routers: tuple[RouterSite, ...]
    client: Site
    local: Site
    second_local: Site | None = None

    def pod_routes(self, node: Site) -> list[str]:
        """A node's routes to the pods of other nodes in its subnet. Its gateway has the routes to all others."""
        return [
            f"route replace {pods} via {address}"
            for index, other in enumerate(self.nodes)
            if other is not node and other.nics[0].bridge == node.nics[0].bridge
            for pods, address in zip(pod_ranges(index), (other.nics[0].v4, other.nics[0].v6), strict=True)
        ]


def sessions_with(machines: Iterable[Site], families: Iterable[str] = ("v4", "v6")) -> tuple[Session, ...]:
    """One session per machine and family: v4 routes over a v4 session, v6 routes over a v6 session."""
    families = tuple(families)
    return tuple(
        Session(site.name, site.nics[0].v4 if family == "v4" else site.nics[0].v6, (family,))
        for site in machines
        for family in families
    )


def flat(
    nodes: int,
    routers: Sequence[str],
    *,
    sessions: Iterable[Session] | None = None,
    asn: Sequence[int] = (),
    port: int = 179,
    second: bool = False,
) -> Topology:
    """All nodes on one segment: routers 10.77.0.1 and .2, nodes from .11, a client .250 (and the same in fd77::/64);
    outside: routers 10.88.0.1 and .2, a client 10.88.0.10 (fd88::/64).

    Args:
        sessions: of every router; by default `sessions_with` all nodes.
        asn: AS of each router, in order; 64500 by default.
        port: TCP port on which the routers listen.
        second: nodes and a client have a card on a second segment, 10.79.0.0/24 and fd79::/64.
    """
    gateway = segment_nic(1) if routers else None
    sites = tuple(
        Site(node_name(index), (segment_nic(11 + index), *([second_nic(11 + index)] if second else [])), gateway)
        for index in range(nodes)
    )
    config = RouterConfig(tuple(sessions) if sessions is not None else sessions_with(sites), port=port)
    return Topology(
        (SEGMENT, SECOND, OUTSIDE),
        sites,
        tuple(
            RouterSite(
                f"router{number}",
                kind,
                (segment_nic(number), outside_nic(number, "eth1")),
                replace(config, asn=asn[number - 1]) if number <= len(asn) else config,
            )
            for number, kind in enumerate(routers, 1)
        ),
        Site("client", (outside_nic(10),), outside_nic(1) if routers else None),
        Site("local", (segment_nic(250),), gateway),
        Site("second-local", (second_nic(250, "eth0"),)) if second else None,
    )


# Racks

SHARED = 254
"""The number of the address that the routers of one rack share."""


def rack_nic(rack: int, number: int, name: str = "eth0") -> Nic:
    """The card of machine `number` in a rack: 10.60.RACK.N/24, fd60:RACK::N/64."""
    return Nic(
        name, f"rack{rack}", f"02:60:00:00:{rack:02x}:{number:02x}", f"10.60.{rack}.{number}", f"fd60:{rack}::{number}"
    )


def uplink_nic(link: int, number: int, name: str) -> Nic:
    """The card of a router on the link between a rack router and the spine: 10.61.LINK.N/24, fd61:LINK::N/64. The spine
    is 1, the rack router 2."""
    return Nic(
        name, f"up{link}", f"02:61:00:00:{link:02x}:{number:02x}", f"10.61.{link}.{number}", f"fd61:{link}::{number}"
    )


def racks(
    routers: Sequence[Sequence[str]] = (("frr",), ("bird",), ("frr",)),
    spine: str = "bird",
    *,
    nodes: int = 1,
    bfd: int = 0,
    hold: int = 9,
) -> Topology:
    """A subnet for each rack, and a spine with a client behind it; eBGP between the rack routers and the spine.

    Rack R (from 1) is 10.60.R.0/24 and fd60:R::/64: routers .1 and .2 (``tor-R``, ``tor-Rb``), nodes from .11, labeled
    ``rack: "R"``. A client is at .250 of rack 1, another one at 10.88.0.10 behind the spine. The default gateway of a
    rack is its router; two routers share .254 by VRRP. The routers learn the routes to all racks and pods by BGP. Pods
    therefore reach one another without an overlay.

    Args:
        routers: the routers of each rack by kind, one or two.
        spine: the spine's kind.
        nodes: in each rack.
        bfd: milliseconds between BFD packets on all sessions, of which three may be missing; 0: no BFD.
        hold: hold time of all sessions, in seconds.
    """
    sites: list[Site] = []
    rack_routers: list[RouterSite] = []
    spine_nics, spine_sessions = [outside_nic(1)], []

    def session(name: str, nic: Nic, family: str, asn: int, passive: bool) -> Session:
        address = nic.v4 if family == "v4" else nic.v6
        return Session(
            name, address, (family,), asn, add_path=False, passive=passive, hold=hold, graceful_restart=False, bfd=bfd,
            transit=True,
        )  # fmt: skip

    for rack, kinds in enumerate(routers, 1):
        gateway = rack_nic(rack, 1 if len(kinds) == 1 else SHARED)
        mine = range(len(sites), len(sites) + nodes)
        here = [
            Site(node_name(n), (rack_nic(rack, 11 + at),), gateway, {"rack": str(rack)}) for at, n in enumerate(mine)
        ]
        pods = [(prefix, site) for n, site in zip(mine, here, strict=True) for prefix in pod_ranges(n)]
        sites += here
        for number, kind in enumerate(kinds, 1):
            name, link, asn = f"tor-{rack}{'b' * (number - 1)}", len(rack_routers) + 1, rack_as(rack, number)
            below, above = rack_nic(rack, number), uplink_nic(link, 1, f"eth{link}")
            uplink = uplink_nic(link, 2, "eth1")
            up = [session("spine", above, family, SPINE_AS, passive=False) for family in ("v4", "v6")]
            down = [replace(s, hold=hold, bfd=bfd) for s in sessions_with(here)]
            own = (f"10.60.{rack}.0/24", f"fd60:{rack}::/64", *(prefix for prefix, _ in pods))
            via = tuple(
                f"{prefix} via {site.nics[0].v6 if ':' in prefix else site.nics[0].v4}" for prefix, site in pods
            )
            config = RouterConfig((*up, *down), asn, injected=own)
            shared = gateway if len(kinds) > 1 else None
            rack_routers.append(RouterSite(name, kind, (below, uplink), config, via, shared))
            spine_nics.append(above)
            spine_sessions += [session(name, uplink, family, asn, passive=True) for family in ("v4", "v6")]
    config = RouterConfig(tuple(spine_sessions), SPINE_AS, injected=("10.88.0.0/24", "fd88::/64"))
    return Topology(
        (*dict.fromkeys(nic.bridge for site in rack_routers for nic in site.nics), OUTSIDE),
        tuple(sites),
        (*rack_routers, RouterSite("spine", spine, tuple(spine_nics), config)),
        Site("client", (outside_nic(10),), outside_nic(1)),
        Site("local", (rack_nic(1, 250),), sites[0].gateway),
    )


SPINE_AS = 64500


def rack_as(rack: int, number: int = 1) -> int:
    """The AS of a rack's router."""
    return 64600 + 10 * rack + number
