"""The lab's routers report correctly: each is fed by ExaBGP speakers with fixed routes on the nodes."""

from __future__ import annotations

import pytest

from lab.cluster import Lab
from lab.measure import wait_equal, wait_until
from lab.routers import KINDS, RouterConfig, Session
from tests.lab.conftest import StaticSpeaker

pytestmark = pytest.mark.lab

V4, V6 = "10.99.0.1/32", "fd99::1/128"


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_a_router_has_three_next_hops_injects_and_says_goodbye(kind: str) -> None:
    with Lab(nodes=3, routers=[kind], pods=0) as lab:
        router = lab.router
        hops = [node.v4 for node in lab.nodes]
        # v4: one speaker announces all three next hops (add-path); v6: each announces itself
        attributes = "med 5 community [64512:7 64512:8] large-community [64512:1:2]"
        announced = [f"{V4} next-hop {hop} path-information 0.0.0.{i} {attributes}" for i, hop in enumerate(hops, 1)]
        speaker = StaticSpeaker(lab.nodes[0], router, announced, add_path=True)
        for node in lab.nodes:
            StaticSpeaker(node, router, [f"{V6} next-hop {node.v6}"], over="v6", families=["ipv6 unicast"])
        wanted = {V4: lab.hops("node-a", "node-b", "node-c"), V6: lab.hops("node-a", "node-b", "node-c", family="v6")}
        lab.wait_routes(wanted, kernel=False)
        if router.programs_kernel:
            lab.wait_routes(wanted, kernel=True)
        else:
            assert router.kernel_routes() == {} and router.next_hops() == wanted

        paths = router.route_details(V4)
        assert sorted(path.next_hop for path in paths) == hops
        for path in paths:
            assert (path.neighbor, path.as_path, path.med) == (lab.nodes[0].v4, (64512,), 5)
            assert path.communities == {"64512:7", "64512:8"} and path.large_communities == {"64512:1:2"}
        assert {path.neighbor for path in router.route_details(V6)} == wanted[V6]
        assert router.route_details("10.1.2.3/32") == []

        router.inject("203.0.113.0/24")
        wait_equal(speaker.prefixes, {"203.0.113.0/24"}, 5.0, "what the router announces, and nothing of the nodes'")
        assert router.established() == {hops[0], *wanted[V6]}  # no session was affected

        router.shutdown_session(hops[0], "moving racks")
        wait_until(lambda: speaker.heard("notification"), 5.0, "the Cease")
        cease = speaker.heard("notification")[0]["notification"]
        assert (cease["code"], cease["subcode"]) == (6, 2) and "moving racks" in cease["message"]
        wait_equal(router.established, set(wanted[V6]), 5.0, "the other sessions")
        lab.wait_routes({V6: wanted[V6]})
        router.enable_session(hops[0])
        lab.wait_routes(wanted, timeout=20.0)

        router.kill_daemon()
        router.start_daemon()
        lab.wait_routes(wanted, timeout=20.0)


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_a_router_takes_each_option(kind: str) -> None:
    with Lab(nodes=4, routers=[kind], pods=0, sessions=[]) as lab:
        a, b, c, d = lab.nodes
        password = "geheim" if KINDS[kind].takes_passwords else ""
        sessions = (
            Session(a.name, a.v4, families=("v4", "v6"), password=password),  # IPv6 over an IPv4 session, with MD5
            Session(b.name, b.v4, asn=64500),  # iBGP
            Session(c.name, c.v4, passive=False, port=1790),  # the router connects, to another port
            Session(d.name, d.v6, families=("v6",), multihop=5),
        )
        lab.router.reconfigure(RouterConfig(sessions))
        both = ["ipv4 unicast", "ipv6 unicast"]
        routes = [f"10.99.0.1/32 next-hop {a.v4}", f"fd99::1/128 next-hop {a.v6}"]
        StaticSpeaker(a, lab.router, routes, families=both, options=[f'md5-password "{password}";'] if password else [])
        StaticSpeaker(b, lab.router, [f"10.99.0.2/32 next-hop {b.v4} local-preference 200"], asn=64500)
        StaticSpeaker(c, lab.router, [f"10.99.0.3/32 next-hop {c.v4} as-path [ 64512 64512 ]"], listen=1790)
        multihop = ["outgoing-ttl 5;"]
        StaticSpeaker(d, lab.router, [f"fd99::4/128 next-hop {d.v6}"], over="v6", families=both[1:], options=multihop)
        wanted = {
            "10.99.0.1/32": lab.hops("node-a"),
            "fd99::1/128": lab.hops("node-a", family="v6"),
            "10.99.0.2/32": lab.hops("node-b"),
            "10.99.0.3/32": lab.hops("node-c"),
            "fd99::4/128": lab.hops("node-d", family="v6"),
        }
        lab.wait_routes(wanted, timeout=30.0)
        lab.wait_routes(wanted, kernel=False)
        assert [path.local_pref for path in lab.router.route_details("10.99.0.2/32")] == [200]
        assert [path.as_path for path in lab.router.route_details("10.99.0.3/32")] == [(64512, 64512)]

        lab.router.reconfigure(RouterConfig(sessions[1:2]))  # the other sessions end; this one is not affected
        lab.wait_routes({"10.99.0.2/32": lab.hops("node-b")})


def test_silence_is_noticed_when_the_hold_time_is_over_and_a_paused_router_keeps_its_routes() -> None:
    with Lab(nodes=1, routers=["bird"], pods=0, sessions=[]) as lab:
        node = lab.nodes[0]
        lab.router.reconfigure(RouterConfig((Session(node.name, node.v4, hold=3),)))
        speaker = StaticSpeaker(node, lab.router, [f"{V4} next-hop {node.v4}"])
        lab.wait_routes({V4: frozenset({node.v4})})
        lab.router.block_bgp()
        took = wait_equal(lab.router.established, set[str](), 10.0, "the hold timer")
        assert took > 1.0
        assert "Hold timer expired" in lab.router.sessions()[node.v4].detail
        lab.router.unblock_bgp()
        lab.wait_routes({V4: frozenset({node.v4})}, timeout=20.0)
        lab.router.pause()
        wait_until(lambda: speaker.heard("state")[-1]["state"] == "down", 10.0, "the speaker to notice")
        assert lab.router.kernel_routes() == {V4: frozenset({node.v4})}  # the kernel keeps the route without its daemon
        lab.router.resume()
        lab.router.wait_established([node.v4], 20.0)
