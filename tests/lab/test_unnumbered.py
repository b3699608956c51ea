"""Fabrics without IPv4 addresses with real routers: sessions by interface and by link-local address, IPv4 routes with
IPv6 next hops (RFC 8950) in real kernels, and traffic along them."""

from __future__ import annotations

import time
from typing import Any

import pytest

from lab.measure import wait_equal, wait_until
from lab.routers import Router, RouterConfig, Session
from tests.lab import fabric
from tests.lab.product import Product, product

pytestmark = pytest.mark.lab

POOL = "172.16.0.64/27,fdaa::/120"
PASSWORD = "geheim"


def begin(kind: str, **options: Any) -> Any:
    return product("manifests", nodes=2, routers=[kind], sessions=[], **options)


def serve(lab: Product, policy: str = "Local") -> list[str]:
    lab.eip("fabric", POOL, protocol="bgp")
    lab.manage()
    return lab.give("web", "fabric", count=2, **{**fabric.DUAL, "policy": policy})


def on_links(lab: Product) -> dict[str, str]:
    """The expected next hops of the router: the link-local address of each node, on the link to it."""
    return {fabric.port(node): fabric.link_local(node) for node in lab.nodes}


def wait_arrives(lab: Product, vips: list[str]) -> None:
    """Waits until new connections to each VIP reach a pod on every node."""
    pods = {pod.name for pod in lab.pods}
    for vip in vips:
        wait_until(lambda vip=vip: set(lab.client.pods_answering(vip, 12)) == pods, 20, f"{vip} at every node")


def entries(lab: Product, name: str) -> dict[str, tuple[str, str, bool | None]]:
    """The status of each node's session: state, router, and whether RFC 8950 was negotiated."""
    found = lab.backend.status("BgpPeer", name).get("nodesPeerStatus", {})
    return {
        node: (
            of["peerState"]["sessionState"],
            of["peerState"]["neighborAddress"],
            of.get("negotiated", {}).get("extendedNextHop"),
        )
        for node, of in found.items()
    }


def ready(lab: Product, name: str) -> str:
    return str(lab.conditions("BgpPeer", name).get("Ready", {}).get("message"))


def test_unnumbered_frr() -> None:
    """`neighbor fab-a interface` at the router, `spec.interface` alone in the BgpPeer."""
    with begin("frr") as lab:
        lab.prepare(peers=False)
        router: Router = lab.router
        fabric.link(lab, router)
        fabric.restart(router, RouterConfig(fabric.sessions(lab, numbered=False, hold=30)))
        fabric.peer(lab, "leaf", interface=fabric.UPLINK, timers={"config": {"holdTime": 3, "connectRetry": 2}})
        vips = serve(lab)
        try:
            wait_until(lambda: fabric.in_kernel(lab, router, vips, on_links(lab)), 40, "the routes of both nodes")
            wait_arrives(lab, vips)
            found = {
                node.name: ("ESTABLISHED", f"{fabric.router_link_local(node)}%{fabric.UPLINK}", True)
                for node in lab.nodes
            }
            wait_equal(lambda: entries(lab, "leaf"), found, 15, "the routers in the status")
            code, listed = fabric.ask(lab, "peer", "list")
            assert code == 0 and f"{fabric.router_link_local(lab.nodes[0])}%{fabric.UPLINK}" in str(listed)

            dead, left = lab.nodes
            with lab.client.stream(vips[:1], flows=8, interval=0.005) as stream:
                time.sleep(1.0)
                router.ns.ip(f"link set {fabric.port(dead)} down")
                time.sleep(4.0)
                report = stream.report()
            print(f"unnumbered: worst gap {report.worst_gap_ms:.0f} ms after the link of a node went down")
            assert len(report.pods) == 2, "both nodes served flows"
            assert report.worst_gap_ms < 2500
            hops = {fabric.port(left): fabric.link_local(left)}
            assert fabric.in_kernel(lab, router, vips, hops)
            router.ns.ip(f"link set {fabric.port(dead)} up")
            # FRR 8.4 then has both paths, but omits the restored port from the kernel's group of next hops.
            for vip in vips:
                prefix, family = (f"{vip}/128", "v6") if ":" in vip else (f"{vip}/32", "v4")
                wait_until(
                    lambda prefix=prefix, family=family: len(router.paths(family).get(prefix, ())) == 2,
                    30,
                    f"both paths of {prefix} again",
                )
        finally:
            print(lab.logs())


def test_bird_by_link_local_address() -> None:
    """`fe80::...` with `spec.interface`; first without `extended next hop`, then with it."""
    with begin("bird") as lab:
        lab.prepare(peers=False)
        router: Router = lab.router
        fabric.link(lab, router)
        fabric.restart(router, RouterConfig(fabric.sessions(lab, hold=9)))
        for node in lab.nodes:
            fabric.peer(
                lab,
                f"leaf-{node.name}",
                {"neighborAddress": fabric.router_link_local(node)},
                interface=fabric.UPLINK,
                nodeSelector={"matchLabels": {"kubernetes.io/hostname": node.name}},
                afiSafis=[
                    {"config": {"family": {"afi": afi, "safi": "SAFI_UNICAST"}}, "addPaths": {"config": {"sendMax": 4}}}
                    for afi in ("AFI_IP", "AFI_IP6")
                ],
            )
        v4, v6 = serve(lab)
        try:
            wait_until(lambda: fabric.in_kernel(lab, router, [v6], on_links(lab)), 40, "the IPv6 routes")
            assert not router.paths("v4"), "nothing that the router did not negotiate"
            sentence = "did not negotiate IPv6 next hops for IPv4 routes (RFC 8950)"
            for node in lab.nodes:
                wait_until(lambda of=node: sentence in ready(lab, f"leaf-{of.name}"), 15, "a sentence")
            code, why = fabric.ask(lab, "explain", "default/web")
            assert code == 4 and sentence in str(why)

            router.reconfigure(RouterConfig(fabric.sessions(lab, hold=9, extended=True)))
            wait_until(lambda: fabric.in_kernel(lab, router, [v4, v6], on_links(lab)), 60, "the IPv4 routes, too")
            wait_arrives(lab, [v4, v6])
            wait_until(lambda: sentence not in ready(lab, "leaf-node-a"), 15, "no sentence any more")

            router.reconfigure(RouterConfig(fabric.sessions(lab, hold=9)))
            wait_until(lambda: not router.paths("v4") and len(router.established()) == 2, 60, "no IPv4 routes again")
            wait_until(lambda: fabric.in_kernel(lab, router, [v6], on_links(lab)), 40, "the IPv6 routes")
        finally:
            print(lab.logs())


@pytest.mark.parametrize("kind", ["bird", "frr"])
def test_bfd_and_md5_by_link_local_address(kind: str) -> None:
    """A link that drops all packets: BFD detects it at both ends. The hold time is 90 s."""
    with begin(kind) as lab:
        lab.prepare(peers=False)
        router: Router = lab.router
        fabric.link(lab, router)
        fabric.restart(router, RouterConfig(fabric.sessions(lab, hold=90, bfd=50, password=PASSWORD)))
        for node in lab.nodes:
            address = fabric.router_link_local(node)
            fabric.peer(
                lab,
                f"leaf-{node.name}",
                {"neighborAddress": address, "authPassword": PASSWORD},
                interface=fabric.UPLINK,
                nodeSelector={"matchLabels": {"kubernetes.io/hostname": node.name}},
                afiSafis=[{"config": {"family": {"afi": "AFI_IP6", "safi": "SAFI_UNICAST"}}}],
                bfd={"enabled": True, "detectMultiplier": 3, "minTransmit": 50, "minReceive": 50},
            )
        lab.eip("fabric", "fdaa::/120", protocol="bgp")
        lab.manage()
        vips = lab.give("web", "fabric", policy="Local", families=("IPv6",))
        try:
            wait_until(lambda: fabric.in_kernel(lab, router, vips, on_links(lab)), 40, "the routes of both nodes")
            wait_until(lambda: sorted(router.bfd_states().values()) == ["up", "up"], 20, "BFD of both nodes")
            dead, left = lab.nodes
            router.ns.nft(
                f'table netdev lost {{ chain in {{ type filter hook ingress device "{fabric.port(dead)}" priority 0; '
                "policy drop; }; }\n"
            )
            hops = {fabric.port(left): fabric.link_local(left)}
            wait_until(lambda: fabric.in_kernel(lab, router, vips, hops), 3, "the dead link to be left out")
            told = wait_until(
                lambda: state if (state := entries(lab, f"leaf-{dead.name}")[dead.name][0]) != "ESTABLISHED" else "",
                10,
                "the node to lose its session",
            )[0]
            assert told
            router.ns.run(["nft", "delete", "table", "netdev", "lost"])
            wait_until(lambda: fabric.in_kernel(lab, router, vips, on_links(lab)), 30, "the routes of both nodes again")
        finally:
            print(lab.logs())


@pytest.mark.parametrize("kind", ["bird", "frr"])
def test_a_segment_with_ipv6_only(kind: str) -> None:
    """Sessions by global IPv6 addresses. The other replicas also announce a node, and its death is therefore detected
    at once."""
    with product("manifests", nodes=3, routers=[kind], sessions=[]) as lab:
        lab.prepare(peers=False)
        router: Router = lab.router
        fabric.without_ipv4(lab)
        sessions = tuple(Session(node.name, node.v6, ("v4", "v6"), extended=True, hold=30) for node in lab.nodes)
        fabric.restart(router, RouterConfig(sessions))
        fabric.peer(
            lab,
            "tor",
            {"neighborAddress": router.v6},
            afiSafis=[
                {"config": {"family": {"afi": afi, "safi": "SAFI_UNICAST"}}, "addPaths": {"config": {"sendMax": 8}}}
                for afi in ("AFI_IP", "AFI_IP6")
            ],
        )
        vips = serve(lab)
        a, b, c = lab.nodes
        try:
            every = {node.v6 for node in lab.nodes}
            for vip in vips:
                wait_equal(lambda vip=vip: hops(router, vip), every, 40, f"the next hops of {vip}")
            assert not ipv4_on_segment(router) and "via inet6" in router.run(["ip", "route", "show", vips[0]]).stdout
            wait_arrives(lab, vips)
            with lab.client.stream(vips[:1], flows=12, interval=0.002) as stream:
                time.sleep(1.0)
                b.power_off()
                time.sleep(3.0)
                report = stream.report()
            print(f"{kind}: worst gap {report.worst_gap_ms:.0f} ms after a node lost power")
            assert len(report.pods) == 3, "each node served flows"
            assert report.worst_gap_ms < 1000, "by the hold time it would be 30 s"
            for vip in vips:
                wait_equal(lambda vip=vip: hops(router, vip), {a.v6, c.v6}, 10, f"{vip} without the dead node")
        finally:
            print(lab.logs())


def hops(router: Router, vip: str) -> set[str]:
    prefix = f"{vip}/{128 if ':' in vip else 32}"
    return set(router.kernel_routes().get(prefix, ()))


def ipv4_on_segment(router: Router) -> str:
    return router.run(["ip", "-4", "-o", "address", "show", "dev", "eth0"]).stdout.strip()
