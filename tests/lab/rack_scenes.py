"""The product in racks: shared by the tests of `lab.topology.racks` and its benchmark.

Each BgpPeer serves one IP version and all racks: an entry of ``spec.overrides`` for each rack names its router. If a
rack has two routers, a second BgpPeer has the sessions to the second routers.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from ipaddress import ip_address
from typing import Any

from lab import objects
from lab.measure import wait_equal, wait_until
from lab.routers import Router
from lab.topology import racks
from tests.lab.product import Product, product

DUAL: dict[str, Any] = {"families": ("IPv4", "IPv6"), "count": 2}
ROUTED = "172.16.0.0/27,fd16::/123"
"""Addresses outside the racks' subnets: only BGP can serve them."""

IN_RACK = "10.60.1.200-10.60.1.215,fd60:1::200-fd60:1::20f"
"""Addresses in the subnet of rack 1: its nodes can serve them by Layer 2."""

OTHER_IN_RACK = "10.60.1.220-10.60.1.235,fd60:1::220-fd60:1::22f"

BFD = {"enabled": True, "detectMultiplier": 3, "minTransmit": 50, "minReceive": 50}


@contextmanager
def in_racks(*kinds: tuple[str, ...], spine: str, bfd: bool, **options: Any) -> Iterator[Product]:
    """Managers on the only node of each rack, with sessions to the routers of their rack.

    Args:
        kinds: the routers of each rack.
        bfd: 50 ms x 3 on all sessions; otherwise failures are detected by the hold time of 9 s.
    """
    with product("manifests", topology=racks(kinds, spine, bfd=50 if bfd else 0), **options) as lab:
        lab.bgp_conf()
        lab.eip("routed", ROUTED, protocol="bgp")
        firsts = {rack: lab.router_named(f"tor-{rack}") for rack in range(1, len(kinds) + 1)}
        seconds = {rack: lab.router_named(f"tor-{rack}b") for rack, of in enumerate(kinds, 1) if len(of) > 1}
        for family in ("v4", "v6"):
            _peer(lab, f"first-{family}", firsts, family, bfd)
            if seconds:
                _peer(lab, f"second-{family}", seconds, family, bfd)
        for node in lab.nodes:
            arguments = ("--return-after", "3", "--settle-after", "1")
            lab.managers[node.name] = lab.start_manager(node, *arguments, remember=True)
        yield lab


def _peer(lab: Product, name: str, routers: dict[int, Router], family: str, bfd: bool) -> None:
    afi = "AFI_IP6" if family == "v6" else "AFI_IP"
    peer = objects.bgp_peer(
        name,
        "",
        0,
        nodeSelector={"matchExpressions": [{"key": "rack", "operator": "In", "values": list(map(str, routers))}]},
        overrides=[
            {
                "nodeSelector": {"matchLabels": {"rack": str(rack)}},
                "neighborAddress": router.v6 if family == "v6" else router.v4,
                "peerAs": router.config.asn,
            }
            for rack, router in routers.items()
        ],
        afiSafis=[{"config": {"family": {"afi": afi, "safi": "SAFI_UNICAST"}}}],
        timers={"config": {"holdTime": 9, "connectRetry": 2}},
        **({"bfd": BFD} if bfd else {}),
    )
    peer["spec"]["conf"] = {}
    lab.backend.apply(peer)


def without_second_sessions(lab: Product) -> None:
    """Removes the sessions between the nodes and the second routers. These routers still route for their racks."""
    for family in ("v4", "v6"):
        lab.backend.delete("BgpPeer", f"second-{family}")
    for router in lab.routers:
        if router.name.endswith("b"):
            up = tuple(session for session in router.config.sessions if session.transit)
            router.reconfigure(replace(router.config, sessions=up))


def via(lab: Product, vip: str) -> frozenset[str]:
    """The rack routers from which the spine has a route to exactly this VIP."""
    names = {nic.v6 if ":" in vip else nic.v4: router.name for router in lab.routers[:-1] for nic in router.nics[1:]}
    paths = lab.routers[-1].route_details(f"{vip}/{ip_address(vip).max_prefixlen}")
    return frozenset(names[path.neighbor] for path in paths)


def wait_via(lab: Product, vips: list[str], *routers: str, timeout: float = 40) -> None:
    """Waits until the spine has routes to these VIPs from exactly these routers (none: no route)."""
    for vip in vips:
        wait_equal(lambda vip=vip: via(lab, vip), frozenset(routers), timeout, f"the spine's routes to {vip}")


def wait_bfd(lab: Product) -> None:
    """Waits until all BFD sessions of all routers are up."""
    for router in lab.routers:
        wanted = {session.address for session in router.config.sessions if session.bfd}
        wait_until(
            lambda of=router, all_=wanted: {a for a, state in of.bfd_states().items() if state == "up"} >= all_,
            30,
            f"BFD of {router.name}",
        )


def wait_served(lab: Product, vips: list[str], *pods: str, timeout: float = 40) -> None:
    """Waits until the client behind the spine gets answers from exactly these pods."""
    for vip in vips:
        wait_until(lambda vip=vip: lab.client.reaches(vip), timeout, f"an answer from {vip}")
        wait_equal(
            lambda vip=vip: set(lab.client.pods_answering(vip, 10 * len(pods))),
            set(pods),
            timeout,
            f"the pods behind {vip}",
        )
