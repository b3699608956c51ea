"""Sessions by link-local address with each router of the lab: the next hops it accepts, and the routes not sent."""

from __future__ import annotations

import asyncio
import os
import signal
from dataclasses import replace
from ipaddress import IPv4Address, ip_address
from pathlib import Path as File

import pytest

from lab.cluster import Lab
from lab.routers import KINDS, NODES_AS, Session
from porterlb.core.desired import SessionConfig
from tests.edge.bgp_speaking import eventually, speaking, via, wanted
from tests.edge.test_bgp_every_router import inside

pytestmark = pytest.mark.lab

V4, V6 = "192.0.2.1/32", "2001:db8::1/128"
ROUTER, NODE = "fe80::77:ff:fe00:1", "fe80::77:ff:fe00:b"
"""The addresses of eth0, derived from the MACs."""
EXTENDED = {"bird", "frr", "gobgp"}
"""The routers that accept IPv6 next hops for IPv4 routes on such a session."""

MD5 = {kind for kind, router in KINDS.items() if router.takes_passwords} - {"gobgp"}
"""GoBGP 3.10 does not support a session with a password and a link-local address."""


@pytest.mark.parametrize("guarded", [False, True], ids=["open", "ttl-and-md5"])
@pytest.mark.parametrize("kind", sorted(KINDS))
def test_routes_with_link_local_next_hops(kind: str, guarded: bool, tmp_path: File) -> None:
    password = "geheim" if guarded and kind in MD5 else ""

    async def story(lab: Lab) -> None:
        router, node = lab.router, lab.nodes[0]
        peer = SessionConfig(
            "leaf",
            ip_address(f"{ROUTER}%eth0"),
            router.config.asn,
            NODES_AS,
            IPv4Address(node.v4),
            graceful_restart=60,
            password=password,
            minimum_ttl=255 if guarded else 0,
        )
        hop = f"{NODE}%eth0"
        routes = {via("leaf", hop): [V6], replace(via("leaf", hop), extended=True): [V4]}
        hops = {V6: {NODE}} | ({V4: {NODE}} if kind in EXTENDED else {})
        async with speaking(tmp_path) as watched:
            watched.want(wanted([peer], routes))
            await eventually(watched.up)
            agreed = watched.last.sessions["leaf"].negotiated
            assert agreed is not None and agreed.extended_next_hop is (kind in EXTENDED)
            await eventually(lambda: router.routes() == hops, 10)

            os.kill(watched.speaker.pid, signal.SIGKILL)
            await eventually(lambda: not watched.up())
            await eventually(watched.up, 40)
            await eventually(lambda: router.routes() == hops, 10)
            await watched.speaker.stop(withdraw=True)
            await eventually(lambda: not router.routes())

    session = Session(
        "node-a",
        NODE,
        families=("v4", "v6"),
        interface="eth0",
        extended=True,
        password=password,
        ttl_security=guarded,
    )
    with Lab(nodes=1, routers=[kind], pods=0, sessions=[session]) as lab, inside(lab.nodes[0]):
        asyncio.run(story(lab))
