"""The same sequence with each router of the lab: BIRD, FRR and GoBGP."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from ipaddress import IPv4Address, ip_address
from pathlib import Path as File

import pytest

from lab.cluster import Lab
from lab.netns import enter
from lab.node import Node
from lab.routers import KINDS, NODES_AS, RouterConfig, Session
from porterlb.core.desired import SessionConfig
from tests.edge.bgp_speaking import eventually, speaking, via, wanted

pytestmark = pytest.mark.lab


@contextmanager
def inside(node: Node) -> Iterator[None]:
    """Enters the node's namespace with this thread; the ExaBGP that it starts runs there too."""
    home = File(f"/proc/{os.getpid()}/task/{os.getpid()}/ns/net")
    descriptor = os.open(home, os.O_RDONLY | os.O_CLOEXEC)
    enter(node.ns.path)
    try:
        yield
    finally:
        enter(File(f"/proc/self/fd/{descriptor}"))
        os.close(descriptor)


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_three_next_hops_in_both_families_survive_and_go(kind: str, tmp_path: File) -> None:
    v4, v6 = "192.0.2.1/32", "2001:db8::1/128"
    password = "geheim" if KINDS[kind].takes_passwords else ""

    async def story(lab: Lab) -> None:
        router, node = lab.router, lab.nodes[0]
        peer = SessionConfig(
            "tor",
            ip_address(router.v4),
            router.config.asn,
            NODES_AS,
            IPv4Address(node.v4),
            password=password,
            add_path=True,
            minimum_ttl=255,
        )
        rule = {"communities": ("64512:7",), "large_communities": ("64512:1:2",), "med": 5}
        routes = {via("tor", n.v4, i, **rule): [v4] for i, n in enumerate(lab.nodes, 1)}
        routes |= {via("tor", n.v6, i, **rule): [v6] for i, n in enumerate(lab.nodes, 1)}
        hops = {v4: frozenset(n.v4 for n in lab.nodes), v6: frozenset(n.v6 for n in lab.nodes)}
        async with speaking(tmp_path) as watched:
            await watched.applied(wanted([peer], routes))
            await eventually(lambda: router.routes() == hops)
            for path in router.route_details(v4):
                assert (path.as_path, path.med) == ((NODES_AS,), 5)
                assert path.communities == {"64512:7"}
                assert path.large_communities == {"64512:1:2"}

            os.kill(watched.speaker.pid, signal.SIGKILL)
            await eventually(lambda: not watched.up())
            while not watched.up():
                assert router.routes() == hops  # graceful restart
                await asyncio.sleep(0.01)
            await eventually(lambda: watched.last.applied == watched.token)
            assert router.routes() == hops

            for n, i in ((lab.nodes[1], 2),):
                del routes[via("tor", n.v4, i, **rule)], routes[via("tor", n.v6, i, **rule)]
                hops = {v4: hops[v4] - {n.v4}, v6: hops[v6] - {n.v6}}
            await watched.applied(wanted([peer], routes))
            await eventually(lambda: router.routes() == hops)

            router.shutdown_session(node.v4, "moving racks")
            await eventually(lambda: "moving racks" in watched.reason("tor"))
            assert not watched.up()
            router.enable_session(node.v4)
            await eventually(watched.up, 40)  # routes alone prove nothing: graceful restart may have kept them
            await eventually(lambda: router.routes() == hops, 40)
            await watched.speaker.stop(withdraw=True)
            await eventually(lambda: not router.routes())

    with Lab(nodes=3, routers=[kind], pods=0, sessions=[]) as lab:
        node = lab.nodes[0]
        session = Session(node.name, node.v4, families=("v4", "v6"), password=password, ttl_security=True)
        lab.router.reconfigure(RouterConfig((session,)))
        with inside(node):
            asyncio.run(story(lab))
