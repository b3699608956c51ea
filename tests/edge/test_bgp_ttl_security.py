"""TTL security (GTSM, RFC 5082) with real BIRD routers, in both directions of the connection."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path as File

import pytest

from tests.edge.bgp_routers import Bird, Segment, segment
from tests.edge.bgp_speaking import eventually, has, neighbor, speaking, via, wanted

pytestmark = pytest.mark.lab


@pytest.fixture
def net() -> Iterator[Segment]:
    with segment() as made:
        yield made


def test_a_router_with_ttl_security_and_one_without(net: Segment, tmp_path: File) -> None:
    async def story() -> None:
        waits = "passive on; error wait time 1, 2; startup hold time 3;"
        secure = Bird(net, 2, tmp_path, options=f"{waits} ttl security on;")
        plain = Bird(net, 3, tmp_path, options=waits)  # sends with TTL 1
        over_v6 = Bird(net, 4, tmp_path, options=f"{waits} ttl security on;", v6_session=True)
        birds = (secure, plain, over_v6)
        routes = {via(f"r{bird.number}", "10.99.0.11"): ["192.0.2.1/32"] for bird in birds}
        right = [neighbor(secure, minimum_ttl=255), neighbor(plain), neighbor(over_v6, minimum_ttl=255)]
        async with speaking(tmp_path) as watched:
            await watched.applied(wanted(right, routes))
            for bird in birds:
                await has(bird, {"192.0.2.1/32": {"10.99.0.11"}})
            wrong = [replace(peer, minimum_ttl=0 if peer.minimum_ttl else 255) for peer in right]
            await watched.applied(wanted(wrong, routes))
            await eventually(lambda: not watched.up())
            await asyncio.sleep(2)
            assert not watched.up()
            await watched.applied(wanted(right, routes))
            await eventually(lambda: watched.up() == {"r2", "r3", "r4"})

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
