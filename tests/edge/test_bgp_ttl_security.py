"""TTL security (GTSM, RFC 5082) with real BIRD routers, in both directions of the connection."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path as File

import pytest

from tests.edge.bgp_routers import Bird, Segment, segment
from tests.edge.bgp_speaking import has, neighbor, speaking, via, wanted

pytestmark = pytest.mark.lab


@pytest.fixture
def net() -> Iterator[Segment]:
    with segment() as made:
        yield made


def test_both_sides_have_ttl_security_or_neither(net: Segment, tmp_path: File) -> None:
    async def story() -> None:
        secure = Bird(net, 2, tmp_path, options="ttl security on; passive on;")
        plain = Bird(net, 3, tmp_path, options="passive on;")  # sends with TTL 1
        over_v6 = Bird(net, 4, tmp_path, options="ttl security on; passive on;", v6_session=True)
        alone = Bird(net, 5, tmp_path, options="ttl security on; passive on;")
        without = Bird(net, 6, tmp_path, options="passive on;")
        peers = [neighbor(bird, minimum_ttl=255) for bird in (secure, over_v6, without)]
        peers += [neighbor(plain), neighbor(alone)]
        async with speaking(tmp_path) as watched:
            await watched.applied(wanted(peers, {via(p.peer, "10.99.0.11"): ["192.0.2.1/32"] for p in peers}))
            for bird in (secure, plain, over_v6):
                await has(bird, {"192.0.2.1/32": {"10.99.0.11"}})
            await asyncio.sleep(2)
            assert watched.up() == {"r2", "r3", "r4"}

    asyncio.run(story())


def test_routers_that_connect_share_the_listening_socket_but_not_the_lowest_ttl(net: Segment, tmp_path: File) -> None:
    async def story() -> None:
        calls = "neighbor port 1791; connect delay time 1; connect retry time 1; error wait time 1, 2;"
        secure = Bird(net, 2, tmp_path, options=f"{calls} ttl security on;")
        plain = Bird(net, 3, tmp_path, options=calls)
        peers = [neighbor(secure, passive=True, minimum_ttl=255), neighbor(plain, passive=True)]
        routes = {via(peer, "10.99.0.11"): ["192.0.2.1/32"] for peer in ("r2", "r3")}
        async with speaking(tmp_path) as watched:
            await watched.applied(replace(wanted(peers, routes), listen_port=1791))
            for bird in (secure, plain):
                await has(bird, {"192.0.2.1/32": {"10.99.0.11"}})

    asyncio.run(story())
