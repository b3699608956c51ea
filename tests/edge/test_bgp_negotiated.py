"""The capabilities that a session really negotiated, with real routers: never the configured ones."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path as File

import pytest

from porterlb.core.bgp.negotiated import Negotiated
from tests.edge.bgp_routers import Bird, Segment, segment
from tests.edge.bgp_speaking import Watched, eventually, has, neighbor, speaking, via, wanted

pytestmark = pytest.mark.lab

PREFIX, V6 = "192.0.2.1/32", "2001:db8::1/128"
HOPS = ("10.99.0.11", "10.99.0.12", "10.99.0.13")


@pytest.fixture
def net() -> Iterator[Segment]:
    with segment() as made:
        yield made


def agreed(watched: Watched) -> Negotiated | None:
    return watched.last.sessions["r2"].negotiated


def capabilities(watched: Watched) -> tuple[tuple[int, ...], tuple[int, ...]] | None:
    of = agreed(watched)
    return (of.families, of.add_path) if of else None


def test_everything_is_negotiated_and_told(net: Segment, tmp_path: File) -> None:
    async def story() -> None:
        bird = Bird(net, 2, tmp_path, channel="add paths rx;", graceful=True, options="hold time 6;")
        peer = neighbor(bird, add_path=True, graceful_restart=30)
        async with speaking(tmp_path) as watched:
            await watched.applied(wanted([peer], {}))
            await eventually(lambda: watched.up() == {"r2"})
            assert agreed(watched) == Negotiated((4, 6), (4, 6), 6, True, True, True, "10.99.0.2", 64600)

    asyncio.run(story())


def test_a_router_without_add_path_and_ipv6(net: Segment, tmp_path: File) -> None:
    async def story() -> None:
        bird = Bird(net, 2, tmp_path)
        bird.reconfigure(bird.configuration.replace("ipv6 { import all; export none;  };", ""))
        peer = neighbor(bird, add_path=True)
        async with speaking(tmp_path) as watched:
            routes = {via("r2", HOPS[0]): [PREFIX], via("r2", "fd99::11"): [V6]}
            await watched.applied(wanted([peer], routes))
            await eventually(lambda: watched.up() == {"r2"})
            assert agreed(watched) == Negotiated((4,), (), 9, False, True, True, "10.99.0.2", 64600)
            await has(bird, {PREFIX: {HOPS[0]}})

    asyncio.run(story())


def test_a_router_that_loses_add_path_keeps_a_next_hop(net: Segment, tmp_path: File) -> None:
    """Without add-path, paths replace one another: the withdrawal of one would remove the prefix."""

    async def story() -> None:
        bird = Bird(net, 2, tmp_path, channel="add paths rx;")
        peer = neighbor(bird, add_path=True)
        async with speaking(tmp_path) as watched:
            three = wanted([peer], {via("r2", hop, number): [PREFIX] for number, hop in enumerate(HOPS, 1)})
            await watched.applied(three)
            await has(bird, {PREFIX: set(HOPS)})
            bird.reconfigure(bird.configuration.replace("add paths rx;", ""))
            await eventually(lambda: watched.up() == {"r2"} and capabilities(watched) == ((4, 6), ()))
            await watched.applied(wanted([peer], {via("r2", HOPS[1]): [PREFIX]}))  # like the next plan
            await has(bird, {PREFIX: {HOPS[1]}})
            bird.reconfigure(bird.configuration.replace("import all;", "import all; add paths rx;"))
            await eventually(lambda: watched.up() == {"r2"} and capabilities(watched) != ((4, 6), ()))
            await watched.applied(three)
            await has(bird, {PREFIX: set(HOPS)})
            assert watched.last.restarts == 0

    asyncio.run(story())


def test_no_end_of_rib_before_it_is_planned_for_the_new_session(net: Segment, tmp_path: File) -> None:
    """Graceful restart: the routes that the router kept stay until the plan for this negotiation is applied."""

    async def story() -> None:
        bird = Bird(net, 2, tmp_path, channel="add paths rx;", graceful=True)
        peer = neighbor(bird, add_path=True, graceful_restart=60)
        routes = {via("r2", hop, number): [PREFIX] for number, hop in enumerate(HOPS, 1)}
        async with speaking(tmp_path) as watched:
            await watched.applied(wanted([peer], routes))
            await has(bird, {PREFIX: set(HOPS)})
        async with speaking(tmp_path / "again") as watched:  # a new replica has no knowledge of a negotiation
            watched.planning = False
            await watched.applied(wanted([peer], {via("r2", HOPS[0]): [PREFIX]}))
            await eventually(lambda: watched.up() == {"r2"})
            await asyncio.sleep(1.0)
            assert set(HOPS[1:]) <= bird.table()[PREFIX]
            watched.planning = True
            await watched.applied(wanted([replace(peer)], routes))
            await has(bird, {PREFIX: set(HOPS)})

    asyncio.run(story())
