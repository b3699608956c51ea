"""keepaliveInterval and connectRetry take effect, and a change of them does not affect the session."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path as File

import pytest

from tests.edge.bgp_routers import Bird, Segment, run, segment, tool
from tests.edge.bgp_speaking import eventually, neighbor, speaking, wanted
from tests.edge.test_bgp_slow_router import SlowReader

pytestmark = pytest.mark.lab


@pytest.fixture
def net() -> Iterator[Segment]:
    with segment() as made:
        yield made


def test_keepalives_are_sent_as_often_as_asked(net: Segment, tmp_path: File) -> None:
    async def story(router: SlowReader) -> None:
        peer = router.config()
        async with speaking(tmp_path) as watched:
            await watched.applied(wanted([peer], {}))
            await eventually(lambda: watched.up() == {"tor"})
            await eventually(lambda: router.keepalives == 1)
            await asyncio.sleep(2.5)
            assert router.keepalives == 1, "a third of the hold time is 10 s"
            await watched.applied(wanted([replace(peer, keepalive=1)], {}))
            before = router.keepalives
            await asyncio.sleep(3.5)
            assert 2 <= router.keepalives - before <= 5
            assert watched.last.sessions["tor"].losses == 0

    router = SlowReader(100_000, hold=30)
    try:
        asyncio.run(story(router))
    finally:
        router.close()


def test_a_connection_is_tried_as_often_as_asked(net: Segment, tmp_path: File) -> None:
    """The kernel alone retransmits lost packets after 1, 3, 7 and 15 s."""

    async def story() -> None:
        bird = Bird(net, 2, tmp_path, options="passive on;")
        inside = (tool("nsenter"), f"--net=/run/netns/{bird.namespace}", tool("nft"))
        run(*inside, "add table ip t; add chain ip t i { type filter hook input priority 0; tcp dport 179 drop; }")
        async with speaking(tmp_path) as watched:
            await watched.applied(wanted([neighbor(bird, connect_retry=1)], {}))
            await asyncio.sleep(3.4)
            run(*inside, "delete table ip t")
            began = time.monotonic()
            await eventually(lambda: watched.up() == {"r2"})
            assert time.monotonic() - began < 2.8

    asyncio.run(story())
