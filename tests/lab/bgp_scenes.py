"""Shared code of the BGP scenarios: combinations of sessions, and the routes that a router must then have."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

from lab import objects
from lab.host import outside_nic
from lab.measure import wait_equal
from lab.routers import NODES_AS, RibPath, Router, RouterConfig, Session, router_class
from lab.routers.base import ROUTER_AS
from tests.lab.product import Product

PASSWORD = "s3cret+w1th/odd.characters="  # without spaces: FRR takes only the first word
FAR = 9  # the number of the router that is one hop away
DUAL: dict[str, Any] = {"policy": "Local", "families": ("IPv4", "IPv6")}
FAMILIES: dict[str, dict[str, tuple[str, ...]]] = {
    "v4": {"v4": ("v4",)},
    "v6": {"v6": ("v6",)},
    "v6 over v4": {"v4": ("v6",)},
    "both over v4": {"v4": ("v4", "v6")},
    "two sessions": {"v4": ("v4",), "v6": ("v6",)},
}
"""The route families that a session carries, by the session's own family."""


@dataclass(frozen=True)
class Combination:
    """One combination of session options between the nodes and a router.

    ``relation``: direct or multihop (both eBGP), or ibgp. ``passive``: PorterLB waits for the router. ``port``: the
    listening port of the side that waits. ``timers``: PorterLB's hold time and keepalive interval, 0 for the value
    derived from the other. ``nodes``: all, or those of the rack that the nodeSelector names.
    """

    router: str
    carry: str
    relation: str
    add_path: bool
    password: bool
    passive: bool
    port: int
    timers: tuple[int, int]
    nodes: str
    restart: bool

    def __str__(self) -> str:
        words = [self.router, self.carry, self.relation, self.nodes, f"port {self.port}", f"hold {self.timers[0]}"]
        words += [name for name in ("add_path", "password", "passive", "restart") if getattr(self, name)]
        return ", ".join(words)

    @property
    def sessions(self) -> dict[str, tuple[str, ...]]:
        return FAMILIES[self.carry]

    @property
    def families(self) -> tuple[str, ...]:
        return tuple(sorted({family for carried in self.sessions.values() for family in carried}))

    @property
    def our_as(self) -> int:
        return ROUTER_AS if self.relation == "ibgp" else NODES_AS


RULE = {
    "eips": ["routed"],
    "communities": ["64500:7", "64500:8"],
    "largeCommunities": ["64500:1:2"],
    "med": 77,
    "localPref": 321,
    "asPathPrepend": 2,
}


def has_attributes(path: RibPath, combination: Combination) -> bool:
    """Whether a path arrived with the attributes of RULE, as far as they apply."""
    ibgp = combination.relation == "ibgp"
    return (
        path.communities == {"64500:7", "64500:8"}
        and path.large_communities == {"64500:1:2"}
        and path.med == 77
        and path.as_path == (() if ibgp else (NODES_AS,) * 3)
        and (not ibgp or path.local_pref == 321)
    )


def far_router(lab: Product, kind: str) -> Router:
    """A router behind the first one. It is on the outside network only, which puts one hop between it and the nodes."""
    router, way = (
        router_class(kind)(lab.net, f"router{FAR}", [outside_nic(FAR, "eth1")], RouterConfig()),
        outside_nic(1),
    )
    lab.net.plug(router.cables())
    router.configure()
    # Not a default route: FRR does not resolve neighbors and next hops through a default route
    router.ns.ip(f"route add 10.77.0.0/24 via {way.v4}", f"route add fd77::/64 via {way.v6}")
    lab.hosts.append(router)  # for the lab to stop it at the end
    return router


def connect(lab: Product, router: Router, combination: Combination) -> None:
    """Starts a fresh daemon with this configuration, and applies the BgpPeers for it."""
    c = combination
    chosen = [node for node in lab.nodes if c.nodes == "all" or node.name != "node-c"]
    usual = Session("", "", asn=c.our_as, add_path=c.add_path, graceful_restart=c.restart, hold=30)
    sessions = tuple(
        replace(
            usual,
            node=node.name,
            address=node.v4 if over == "v4" else node.v6,
            families=carried,
            password=PASSWORD if c.password else "",
            multihop=5 if c.relation == "multihop" else 0,
            passive=not c.passive,
            port=c.port if c.passive else 179,
        )
        for node in chosen
        for over, carried in c.sessions.items()
    )
    router.kill_daemon()
    router.config = RouterConfig(sessions, port=179 if c.passive else c.port)
    router.start_daemon()
    lab.bgp_conf(**({"listenPort": c.port} if c.passive else {}))
    for over in c.sessions:
        lab.backend.apply(objects.bgp_peer(f"peer-{over}", router.v4 if over == "v4" else router.v6, **_spec(c, over)))


def _spec(c: Combination, over: str) -> dict[str, Any]:
    hold, keepalive = c.timers
    conf: dict[str, Any] = {"localAs": c.our_as} if c.relation == "ibgp" else {}
    if c.password:
        conf["authPasswordSecret"] = {"name": "bgp", "key": "word"}
    spec: dict[str, Any] = {
        "asn": ROUTER_AS,
        "conf": conf,
        "afiSafis": [
            {
                "config": {"family": {"afi": "AFI_IP6" if family == "v6" else "AFI_IP", "safi": "SAFI_UNICAST"}},
                **({"addPaths": {"config": {"sendMax": 8}}} if c.add_path else {}),
            }
            for family in c.sessions[over]
        ],
        "timers": {"config": {"holdTime": hold, **({"keepaliveInterval": keepalive} if keepalive else {})}},
        "gracefulRestart": {"enabled": c.restart},
        "advertise": [RULE],
    }
    if c.relation == "multihop":
        spec["ebgpMultihop"] = {"enabled": True, "multihopTtl": 5}
    if c.passive:
        spec["transport"] = {"passiveMode": True}
    elif c.port != 179:
        spec["transport"] = {"remotePort": c.port}
    if c.nodes != "all":
        spec["nodeSelector"] = {"matchLabels": {"rack": "one"}}
    return spec


def wanted_routes(lab: Product, vips: Iterable[str], nodes: Iterable[str]) -> dict[str, frozenset[str]]:
    """The expected routes of a router: each of these VIPs with each of these nodes as next hop, and nothing else."""
    return {
        f"{vip}/{ipaddress.ip_address(vip).max_prefixlen}": lab.hops(*nodes, family="v6" if ":" in vip else "v4")
        for vip in vips
    }


def wait_exactly(router: Router, wanted: dict[str, frozenset[str]], timeout: float = 30, *, kernel: bool) -> None:
    """Waits until the router has exactly these prefixes with exactly these next hops. With `kernel`, also waits for its
    kernel."""
    wait_equal(router.routes, wanted, timeout, f"the routes of {router.kind}", interval=0.05)
    if kernel and router.programs_kernel:
        wait_equal(router.kernel_routes, wanted, timeout, f"the kernel's routes of {router.kind}", interval=0.05)
