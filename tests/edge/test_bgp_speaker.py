"""The BGP speaker with a real ExaBGP and real BIRD routers: the router's table equals the wanted set."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator
from dataclasses import replace
from ipaddress import ip_address
from pathlib import Path as File
from typing import Any

import pytest

from porterlb.core.desired import DesiredBgp
from porterlb.edge.bgp.process import folder
from tests.edge.bgp_routers import LOCAL_AS, NODE4, Bird, Segment, run, segment
from tests.edge.bgp_speaking import eventually, has, many, neighbor, speaking, via, wanted

pytestmark = pytest.mark.lab


@pytest.fixture
def net() -> Iterator[Segment]:
    with segment() as made:
        yield made


def test_routes_are_exactly_the_wanted_ones_after_each_change(net: Segment, tmp_path: File) -> None:
    async def story() -> None:
        bird = Bird(net, 2, tmp_path)
        peer = neighbor(bird)
        async with speaking(tmp_path) as watched:
            one = {
                via("r2", "10.99.0.11"): ["192.0.2.1/32", "192.0.2.2/32"],
                via("r2", "fd99::11"): ["2001:db8::1/128"],  # IPv6 over an IPv4 session
            }
            await watched.applied(wanted([peer], one))
            await has(
                bird,
                {"192.0.2.1/32": {"10.99.0.11"}, "192.0.2.2/32": {"10.99.0.11"}, "2001:db8::1/128": {"fd99::11"}},
            )
            await eventually(lambda: watched.up() == {"r2"})
            moved = {
                via("r2", "10.99.0.11"): ["192.0.2.1/32"],
                via("r2", "10.99.0.12"): ["192.0.2.2/32", "192.0.2.3/32"],
            }
            await watched.applied(wanted([peer], moved))
            await has(
                bird,
                {"192.0.2.1/32": {"10.99.0.11"}, "192.0.2.2/32": {"10.99.0.12"}, "192.0.2.3/32": {"10.99.0.12"}},
            )
            await watched.applied(wanted([peer], {}))
            await has(bird, {})
            assert watched.up() == {"r2"}
            await watched.applied(wanted([peer], one))
            await watched.speaker.stop(withdraw=True)
            await has(bird, {})

    asyncio.run(story())


def test_ipv4_over_an_ipv6_session(net: Segment, tmp_path: File) -> None:
    async def story() -> None:
        bird = Bird(net, 2, tmp_path, v6_session=True)
        async with speaking(tmp_path) as watched:
            routes = {via("r2", "10.99.0.11"): ["192.0.2.1/32"], via("r2", "fd99::11"): ["2001:db8::1/128"]}
            await watched.applied(wanted([neighbor(bird)], routes))
            await has(bird, {"192.0.2.1/32": {"10.99.0.11"}, "2001:db8::1/128": {"fd99::11"}})

    asyncio.run(story())


def test_add_path_gives_three_next_hops_and_takes_back_one(net: Segment, tmp_path: File) -> None:
    async def story() -> None:
        bird = Bird(net, 2, tmp_path, channel="add paths rx;")
        peer = neighbor(bird, add_path=True)
        hops = ["10.99.0.11", "10.99.0.12", "10.99.0.13"]
        async with speaking(tmp_path) as watched:
            three = {via("r2", hop, i): ["192.0.2.1/32", "192.0.2.2/32"] for i, hop in enumerate(hops, 1)}
            await watched.applied(wanted([peer], three))
            await has(bird, {"192.0.2.1/32": set(hops), "192.0.2.2/32": set(hops)})
            del three[via("r2", hops[1], 2)]
            await watched.applied(wanted([peer], three))
            await has(bird, {"192.0.2.1/32": {hops[0], hops[2]}, "192.0.2.2/32": {hops[0], hops[2]}})

    asyncio.run(story())


def test_attributes_reach_an_ibgp_and_an_ebgp_router(net: Segment, tmp_path: File) -> None:
    async def story() -> None:
        outside = Bird(net, 2, tmp_path)
        inside = Bird(net, 3, tmp_path, asn=LOCAL_AS)
        rule: dict[str, Any] = {
            "communities": ("64500:1", "no-export"),
            "large_communities": ("64500:1:2",),
            "med": 30,
            "local_pref": 222,
            "prepend": 2,
        }
        async with speaking(tmp_path) as watched:
            routes = {via(peer, "10.99.0.11", **rule): ["192.0.2.1/32"] for peer in ("r2", "r3")}
            await watched.applied(wanted([neighbor(outside), neighbor(inside)], routes))
            for bird in (outside, inside):
                await has(bird, {"192.0.2.1/32": {"10.99.0.11"}})
            there = outside.attributes("192.0.2.1/32")
            assert "BGP.as_path: 64500 64500 64500\n" in there
            assert "BGP.med: 30" in there
            assert "(64500,1)" in there
            assert "(65535,65281)" in there
            assert "(64500, 1, 2)" in there
            here = inside.attributes("192.0.2.1/32")
            assert "BGP.local_pref: 222" in here
            assert "BGP.as_path: \n" in here

    asyncio.run(story())


def test_a_router_whose_as_is_not_told(net: Segment, tmp_path: File) -> None:
    """0: any AS but ours. The routes have the attributes for an external peer."""

    async def story() -> None:
        outside = Bird(net, 2, tmp_path)
        inside = Bird(net, 3, tmp_path, asn=LOCAL_AS, options="error wait time 1, 1;")
        peers = [replace(neighbor(bird), peer_as=0) for bird in (outside, inside)]
        routes = {via("r2", "10.99.0.11", local_pref=200, prepend=1): ["192.0.2.1/32"]}
        async with speaking(tmp_path) as watched:
            await watched.applied(wanted(peers, routes))
            await has(outside, {"192.0.2.1/32": {"10.99.0.11"}})
            assert "BGP.as_path: 64500 64500\n" in outside.attributes("192.0.2.1/32")
            agreed = watched.last.sessions["r2"].negotiated
            assert agreed is not None
            assert agreed.peer_as == 64600
            await eventually(lambda: "(2/2)" in watched.reason("r3"))
            assert watched.up() == {"r2"}
            # A reload, after which ExaBGP lists its neighbors
            await watched.applied(wanted([*peers, neighbor(Bird(net, 4, tmp_path))], routes))
            await eventually(lambda: watched.up() == {"r2", "r4"})
            assert watched.last.restarts == 0

    asyncio.run(story())


def test_a_router_with_a_prefix_limit_keeps_its_session(net: Segment, tmp_path: File) -> None:
    async def story() -> None:
        bird = Bird(net, 2, tmp_path, channel="receive limit 3 action restart;")
        peer = neighbor(bird, max_prefixes=3)
        path = via("r2", "10.99.0.11")
        async with speaking(tmp_path) as watched:
            await watched.applied(wanted([peer], {path: ["192.0.2.2/32", "192.0.2.3/32"]}))
            await has(bird, {"192.0.2.2/32": {"10.99.0.11"}, "192.0.2.3/32": {"10.99.0.11"}})
            mistake = ["192.0.2.2/32", "192.0.2.3/32", *many(50)]
            await watched.applied(wanted([peer], {path: mistake}))
            kept = {"192.0.2.2/32", "192.0.2.3/32", many(1)[0]}
            await has(bird, {prefix: {"10.99.0.11"} for prefix in kept})
            assert watched.last.withheld == {"r2": 49}
            assert {prefix for _, prefix in watched.last.rejected} == set(mistake) - kept
            assert "maxPrefixesSent is 3" in watched.last.rejected[path, many(50)[-1]]
            await watched.applied(wanted([peer], {path: ["192.0.2.2/32", *many(2)]}))
            await has(bird, {prefix: {"10.99.0.11"} for prefix in ["192.0.2.2/32", *many(2)]})
            assert (watched.last.withheld, watched.last.rejected) == ({}, {})
            assert watched.last.sessions["r2"].losses == 0

    asyncio.run(story())


def test_a_refused_route_is_named_and_the_others_are_announced(net: Segment, tmp_path: File) -> None:
    async def story() -> None:
        bird = Bird(net, 2, tmp_path)
        async with speaking(tmp_path) as watched:
            bad = via("r2", "10.99.0.11", communities=("no-such-name",))
            other = via("r2", "fd99::11")
            routes = {
                via("r2", "10.99.0.11"): many(100),
                bad: ["192.0.2.1/32", "192.0.2.2/32"],
                other: ["192.0.2.3/32"],
            }
            await watched.applied(wanted([neighbor(bird)], routes))
            await has(bird, {prefix: {"10.99.0.11"} for prefix in many(100)})
            refused = {(path, str(prefix)): reason for (path, prefix), reason in watched.last.rejected.items()}
            assert set(refused) == {(bad, "192.0.2.1/32"), (bad, "192.0.2.2/32"), (other, "192.0.2.3/32")}
            assert "no-such-name" in refused[(bad, "192.0.2.1/32")]
            assert "IP version" in refused[(other, "192.0.2.3/32")]
            await watched.applied(wanted([neighbor(bird)], {via("r2", "10.99.0.11"): many(100)}))
            assert not watched.last.rejected

    asyncio.run(story())


def test_peers_come_change_and_go_without_touching_the_others(net: Segment, tmp_path: File) -> None:
    async def story() -> None:
        first, second = Bird(net, 2, tmp_path, graceful=True), Bird(net, 3, tmp_path, graceful=True)
        keep, other = neighbor(first, graceful_restart=30), neighbor(second, graceful_restart=30)
        routes = {via(peer, "10.99.0.11"): many(60) for peer in ("r2", "r3")}
        table = {prefix: {"10.99.0.11"} for prefix in many(60)}
        async with speaking(tmp_path) as watched:
            await watched.applied(wanted([keep], {via("r2", "10.99.0.11"): many(60)}))
            await has(first, table)
            await eventually(lambda: watched.up() == {"r2"})
            pid, since = watched.speaker.pid, watched.last.sessions["r2"].since
            await watched.applied(wanted([keep, other], routes))
            await has(second, table)
            await watched.applied(wanted([keep, replace(other, hold_time=30)], routes))
            await eventually(lambda: watched.last.sessions["r3"].losses == 1)
            await eventually(lambda: watched.up() == {"r2", "r3"})
            assert "/30" in second.ctl("show", "protocols", "all", "node")
            await has(second, table)
            await watched.applied(wanted([keep, replace(other, admin_down=True)], routes))
            assert watched.last.sessions["r3"].state == "admin down"
            await has(second, {}, 5)  # withdrawn: graceful restart must not keep unwanted routes
            await watched.applied(wanted([keep], routes))
            assert watched.last.sessions.keys() == {"r2"}
            await has(first, table)
            assert watched.last.sessions["r2"].since == since
            assert watched.speaker.pid == pid
            assert watched.last.restarts == 0

    asyncio.run(story())


def test_a_peer_that_goes_and_comes_back_at_once_keeps_its_session(net: Segment, tmp_path: File) -> None:
    """As if the BgpConf were deleted and created again: the second change arrives before ExaBGP has taken the first."""

    async def story() -> None:
        first, second = Bird(net, 2, tmp_path), Bird(net, 3, tmp_path)
        keep, other = neighbor(first), neighbor(second)
        routes = {via(peer, "10.99.0.11"): ["192.0.2.1/32"] for peer in ("r2", "r3")}
        async with speaking(tmp_path) as watched:
            await watched.applied(wanted([keep, other], routes))
            await eventually(lambda: watched.up() == {"r2", "r3"})
            since = watched.last.sessions["r3"].since
            for pause in (0.0, 0.02, 0.05):
                watched.want(wanted([keep], {via("r2", "10.99.0.11"): ["192.0.2.1/32"]}))
                await asyncio.sleep(pause)
                await watched.applied(wanted([keep, other], routes))
                await eventually(lambda: watched.up() == {"r2", "r3"})
                assert abs(watched.last.sessions["r3"].since - since) < 2.0, "ExaBGP shows whole seconds"
            await has(second, {"192.0.2.1/32": {"10.99.0.11"}})
            # Two reloads: the session ends and opens again.
            await watched.applied(wanted([keep], {via("r2", "10.99.0.11"): ["192.0.2.1/32"]}))
            await watched.applied(wanted([keep, other], routes))
            await eventually(lambda: watched.up() == {"r2", "r3"})
            await has(second, {"192.0.2.1/32": {"10.99.0.11"}})
            assert watched.last.restarts == 0

    asyncio.run(story())


def test_a_peer_that_is_away_gets_the_last_word_only(net: Segment, tmp_path: File) -> None:
    """A route that changed A, B, A while its router was away must not arrive as B; and peers can still be changed."""

    async def story() -> None:
        here, away = Bird(net, 2, tmp_path), Bird(net, 3, tmp_path)
        away.kill()
        peers = [neighbor(here), neighbor(away)]

        def at(hop: str) -> DesiredBgp:
            other = "10.99.0.13"
            return wanted(peers, {via("r3", hop): ["192.0.2.1/32"], via("r3", other): ["192.0.2.9/32"]})

        async with speaking(tmp_path) as watched:
            for hop in ("10.99.0.11", "10.99.0.12", "10.99.0.11", "10.99.0.13"):
                await watched.applied(at(hop))
            await watched.applied(at("10.99.0.11"))
            third = Bird(net, 4, tmp_path)
            peers.append(neighbor(third))
            await watched.applied(at("10.99.0.12"))
            await watched.applied(at("10.99.0.11"))
            await eventually(lambda: {"r2", "r4"} <= watched.up())
            assert watched.last.restarts == 0
            away.start()
            await has(away, {"192.0.2.1/32": {"10.99.0.11"}, "192.0.2.9/32": {"10.99.0.13"}})

    asyncio.run(story())


def test_an_urgent_change_overtakes_a_burst(net: Segment, tmp_path: File) -> None:
    async def story() -> None:
        bird = Bird(net, 2, tmp_path)
        peer = neighbor(bird)
        small = via("r2", "10.99.0.11")
        async with speaking(tmp_path) as watched:
            await watched.applied(wanted([peer], {small: ["192.0.2.1/32"]}))
            await has(bird, {"192.0.2.1/32": {"10.99.0.11"}})
            burst = via("r2", "10.99.0.12")
            watched.want(wanted([peer], {small: ["192.0.2.1/32"], burst: many(2000)}))
            await eventually(lambda: bird.count() > 1, step=0)
            token = watched.want(wanted([peer], {via("r2", "10.99.0.13"): ["192.0.2.1/32"], burst: many(2000)}))
            await eventually(lambda: "via 10.99.0.13" in bird.ctl("show", "route", "192.0.2.1/32", check=False), step=0)
            during = bird.count()
            await eventually(lambda: watched.last.applied == token)
            await eventually(lambda: bird.count() == 2001)
            assert during < 2001, "the change came only after the burst"

    asyncio.run(story())


def test_password_multihop_port_and_the_passive_side(net: Segment, tmp_path: File) -> None:
    async def story() -> None:
        password = "s3cret #;' \\{}[ä"
        odd = Bird(net, 2, tmp_path, options=f'password "{password}"; multihop 3; passive on;')
        odd.reconfigure(odd.configuration.replace("local 10.99.0.2 as", "local 10.99.0.2 port 1790 as"))
        caller = Bird(net, 3, tmp_path, options="neighbor port 1791; connect delay time 1; connect retry time 1;")
        peers = [
            neighbor(odd, password=password, multihop_ttl=3, remote_port=1790),
            neighbor(caller, passive=True),
        ]
        routes = {via(peer, "10.99.0.11"): ["192.0.2.1/32"] for peer in ("r2", "r3")}
        async with speaking(tmp_path) as watched:
            await watched.applied(replace(wanted(peers, routes), listen_port=1791))
            for bird in (odd, caller):
                await has(bird, {"192.0.2.1/32": {"10.99.0.11"}})
            run_dir = tmp_path / "run"
            assert run_dir.stat().st_mode & 0o777 == 0o700
            assert all(path.stat().st_mode & 0o077 == 0 for path in run_dir.iterdir() if not path.is_socket())
            assert password not in (run_dir / "exabgp.log").read_text()
            assert password not in repr(watched.reports)

    asyncio.run(story())


def test_routes_that_a_router_sends_are_never_used(net: Segment, tmp_path: File) -> None:
    async def story() -> None:
        sends = "protocol static sends { ipv4; " + "".join(f"route {p} blackhole; " for p in many(500)) + "}"
        bird = Bird(net, 2, tmp_path, channel="export all;", protocols=sends)
        before = run("ip", "route")
        async with speaking(tmp_path) as watched:
            await watched.applied(wanted([neighbor(bird)], {via("r2", NODE4): ["192.0.2.1/32"]}))
            await eventually(lambda: re.search(r"50\d exported", bird.ctl("show", "protocols", "all", "node")))
            await eventually(lambda: "via 10.99.0.1" in bird.ctl("show", "route", "192.0.2.1/32", check=False))
            assert run("ip", "route") == before

    asyncio.run(story())


def test_without_peers_no_exabgp_runs(net: Segment, tmp_path: File) -> None:
    async def story() -> None:
        bird = Bird(net, 2, tmp_path, graceful=True)
        peer = neighbor(bird, graceful_restart=30)
        routes = {via("r2", "10.99.0.11"): ["192.0.2.1/32"]}
        async with speaking(tmp_path) as watched:
            await watched.applied(DesiredBgp())
            assert watched.speaker.pid == 0
            await watched.applied(wanted([peer], routes))
            await has(bird, {"192.0.2.1/32": {"10.99.0.11"}})
            await watched.applied(DesiredBgp())
            assert watched.speaker.pid == 0
            assert not watched.last.trouble
            await has(bird, {}, 5)
            await watched.applied(wanted([peer], routes))
            await has(bird, {"192.0.2.1/32": {"10.99.0.11"}})
            assert watched.last.restarts == 0

    asyncio.run(story())


def test_one_wrong_peer_does_not_disturb_the_right_ones(net: Segment, tmp_path: File) -> None:
    async def story() -> None:
        bird = Bird(net, 2, tmp_path)
        good = neighbor(bird, "a-good")
        twin = neighbor(bird, "b-twin")
        elsewhere = replace(
            neighbor(bird, "c-far"), address=ip_address("10.99.0.9"), local_address=ip_address("10.1.1.1")
        )
        routes = {via(peer, "10.99.0.11"): ["192.0.2.1/32"] for peer in ("a-good", "b-twin", "c-far")}
        async with speaking(tmp_path) as watched:
            await watched.applied(wanted([good, twin, elsewhere], routes))
            await has(bird, {"192.0.2.1/32": {"10.99.0.11"}})
            assert "same address" in watched.reason("b-twin")
            assert "does not have the address 10.1.1.1" in watched.reason("c-far")
            assert not watched.last.trouble

    asyncio.run(story())


def test_the_folder_exabgp_never_becomes_a_package() -> None:
    """An __init__.py in it would shadow the real exabgp for every Python started in the checkout."""
    assert not (folder() / "__init__.py").exists()
    assert {"api.py", "exabgp.env", "launcher.py"} <= {path.name for path in folder().iterdir()}
