"""Route refresh (RFC 2918) and enhanced route refresh (RFC 7313): a router that requests it gets every path again."""

from __future__ import annotations

import asyncio
import json
from ipaddress import IPv4Address, ip_address
from pathlib import Path as File

import pytest

from lab.cluster import Lab
from lab.routers import NODES_AS, RouterConfig, Session
from lab.routers.frr import Frr
from porterlb.core.desired import SessionConfig
from tests.edge.bgp_routers import Bird, segment
from tests.edge.bgp_speaking import eventually, has, neighbor, speaking, via, wanted
from tests.edge.test_bgp_every_router import inside

pytestmark = pytest.mark.lab

V4, V6 = "192.0.2.1/32", "2001:db8::1/128"


def test_bird_asks_after_a_change_of_its_import_filter(tmp_path: File) -> None:
    hops = ["10.99.0.11", "10.99.0.12"]
    table = {V4: set(hops), V6: {"fd99::11", "fd99::12"}}

    async def story(bird: Bird) -> None:
        routes = {via("r2", hop, i): [V4] for i, hop in enumerate(hops, 1)}
        routes |= {via("r2", hop, i): [V6] for i, hop in enumerate(sorted(table[V6]), 1)}
        async with speaking(tmp_path) as watched:
            await watched.applied(wanted([neighbor(bird, add_path=True)], routes))
            await has(bird, table)
            agreed = watched.last.sessions["r2"].negotiated
            assert agreed is not None
            assert agreed.route_refresh
            taken = bird.configuration
            bird.reconfigure(taken.replace("import all", "import none"))
            await has(bird, {})
            bird.reconfigure(taken)  # BIRD has kept none of the routes that it refused
            await has(bird, table)
            bird.ctl("reload", "in", "node")
            for _ in range(20):
                assert bird.table() == table, "lost during the refresh"
                await asyncio.sleep(0.02)
            assert watched.last.sessions["r2"].losses == 0

    with segment() as net:
        asyncio.run(story(Bird(net, 2, tmp_path, channel="add paths rx;")))


def test_frr_asks_after_a_change_of_its_prefix_list_and_gets_the_markers(tmp_path: File) -> None:
    with Lab(nodes=1, routers=["frr"], pods=0, sessions=[]) as lab:
        frr, node = lab.router, lab.nodes[0]
        assert isinstance(frr, Frr)
        frr.reconfigure(RouterConfig((Session(node.name, node.v4, families=("v4",)),)))
        peer = SessionConfig(
            "tor", ip_address(frr.v4), frr.config.asn, NODES_AS, IPv4Address(node.v4), add_path=True, families=(4,)
        )
        table = {V4: frozenset({"10.77.0.12", "10.77.0.13"})}

        def filtered(*words: str) -> None:
            family = ("address-family ipv4 unicast", " ".join(words), "exit-address-family")
            frr.vty("configure terminal", "ip prefix-list none deny any", f"router bgp {peer.peer_as}", *family, "end")

        def markers() -> int:
            """ROUTE-REFRESH messages that FRR received: one at the start and one at the end of a refresh (RFC 7313)."""
            stats = json.loads(frr.vty(f"show bgp neighbors {node.v4} json"))[node.v4]["messageStats"]
            return int(stats["routeRefreshRecv"])

        async def story() -> None:
            routes = {via("tor", hop, i): [V4] for i, hop in enumerate(sorted(table[V4]), 1)}
            async with speaking(tmp_path) as watched:
                await watched.applied(wanted([peer], routes))
                await eventually(lambda: frr.routes() == table)
                filtered("neighbor", node.v4, "prefix-list none in")
                await eventually(lambda: not frr.routes())
                before = markers()
                filtered("no neighbor", node.v4, "prefix-list none in")
                await eventually(lambda: frr.routes() == table)
                await eventually(lambda: markers() >= before + 2)
                frr.vty(f"clear bgp ipv4 unicast {node.v4} soft in")
                await eventually(lambda: markers() >= before + 4)
                assert frr.routes() == table
                assert watched.last.sessions["tor"].losses == 0

        with inside(node):
            asyncio.run(story())
