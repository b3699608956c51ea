"""C1, C2, B3 with real ExaBGP and BIRD: only the peer that cannot work is refused; the others keep their sessions."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
from collections.abc import Iterator
from dataclasses import replace
from ipaddress import ip_address
from pathlib import Path as File

import pytest

from porterlb.core.desired import DesiredBgp
from porterlb.edge.bgp import local
from tests.edge.bgp_routers import LOCAL_AS, NODE4, Bird, Segment, run, segment, tool
from tests.edge.bgp_speaking import Watched, eventually, has, neighbor, speaking, via, wanted

pytestmark = pytest.mark.lab

PREFIX, HOP, PORT = "192.0.2.1/32", "10.99.0.11", 1790


@pytest.fixture
def net() -> Iterator[Segment]:
    with segment() as made:
        yield made


def with_passive(bird: Bird, port: int) -> DesiredBgp:
    """An ordinary peer with a route, and a passive peer, for which the node is to listen."""
    passive = neighbor(bird, "waits", address=ip_address("10.99.0.9"), passive=True)
    routes = {via("r2", HOP): [PREFIX]}
    return replace(wanted([neighbor(bird), passive], routes), listen_port=port)


async def refused(watched: Watched, peer: str, *words: str) -> None:
    await eventually(lambda: peer in watched.last.sessions and watched.last.sessions[peer].refusal is not None)
    for word in words:
        assert word in watched.reason(peer)


def test_c1_a_port_that_another_process_has_refuses_the_passive_peer_alone(net: Segment, tmp_path: File) -> None:
    async def story() -> None:
        bird = Bird(net, 2, tmp_path)
        async with speaking(tmp_path) as watched:
            with socket.create_server((NODE4, PORT)):
                watched.want(with_passive(bird, PORT))
                await has(bird, {PREFIX: {HOP}})
                await refused(watched, "waits", f"port {PORT}", "Another process listens")
                assert watched.up() == {"r2"} and watched.last.restarts == 0
            # Once the port is free, the node listens for both peers. This changes their configuration.
            await eventually(lambda: (ip_address(NODE4), PORT) in set(local.listeners()), 40)
            await eventually(lambda: watched.last.sessions["waits"].refusal is None and watched.up() == {"r2"}, 20)
            await has(bird, {PREFIX: {HOP}})
            assert watched.last.restarts == 0

    asyncio.run(story())


def test_c2_without_the_capability_the_passive_peer_is_refused_also_after_a_crash(
    net: Segment, tmp_path: File, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(local, "has", lambda _: False)

    async def story() -> None:
        bird = Bird(net, 2, tmp_path)
        async with speaking(tmp_path) as watched:
            watched.want(with_passive(bird, 179))
            await has(bird, {PREFIX: {HOP}})
            await refused(watched, "waits", "port 179", "bgp.listenOnPrivilegedPort=true")
            pid = watched.speaker.pid
            assert pid
            os.kill(pid, signal.SIGKILL)
            await eventually(lambda: watched.last.restarts == 1 and watched.up() == {"r2"})
            await has(bird, {PREFIX: {HOP}})
            await refused(watched, "waits", "port 179")

    asyncio.run(story())


def test_c_a_local_address_that_the_node_lacks_refuses_its_peer_until_it_is_there(net: Segment, tmp_path: File) -> None:
    async def story() -> None:
        bird = Bird(net, 2, tmp_path)
        away = neighbor(bird, "away", address=ip_address("10.99.0.9"), local_address=ip_address("10.99.0.77"))
        async with speaking(tmp_path) as watched:
            watched.want(wanted([neighbor(bird), away], {via("r2", HOP): [PREFIX]}))
            await has(bird, {PREFIX: {HOP}})
            await refused(watched, "away", "does not have the address 10.99.0.77")
            session = bird.session()
            net.ip("-n", net.node, "addr", "add", "10.99.0.77/32", "dev", "lo")
            await eventually(lambda: watched.last.sessions["away"].refusal is None, 40)
            assert bird.session() == session and watched.last.restarts == 0

    asyncio.run(story())


def test_b3_a_bgp_daemon_on_the_node_itself_takes_the_routes_of_this_node(net: Segment, tmp_path: File) -> None:
    """Calico's BIRD, at 127.0.0.1: it uses the node's addresses, and the session never leaves the node."""
    folder = tmp_path / "own"
    folder.mkdir()
    (folder / "conf").write_text(
        f"""
router id 10.99.0.200;
protocol device {{}}
protocol direct {{ ipv4; }}
protocol static {{ ipv4; route 10.99.0.0/24 via "br0"; }}
protocol bgp node {{
    local 127.0.0.1 as 64700;
    neighbor 127.0.0.1 as {LOCAL_AS};
    multihop;
    passive on;
    strict bind on;
    ipv4 {{ import all; export none; }};
}}
"""
    )
    control = folder / "ctl"
    net.spawn(net.node, tool("bird"), "-f", "-c", str(folder / "conf"), "-s", str(control), log=folder / "log")

    def shown() -> str:
        return run(tool("birdc"), "-s", str(control), "show", "route", "protocol", "node", "all", check=False)

    async def story() -> None:
        bird = Bird(net, 2, tmp_path)
        own = neighbor(bird, "own", address=ip_address("127.0.0.1"), peer_as=64700, multihop_ttl=2)
        routes = {via("own", NODE4): [PREFIX], via("r2", NODE4): [PREFIX]}
        async with speaking(tmp_path) as watched:
            await watched.applied(wanted([neighbor(bird), own], routes))
            await eventually(lambda: watched.up() == {"r2", "own"})
            await has(bird, {PREFIX: {NODE4}})
            await eventually(lambda: PREFIX in shown())
            assert f"BGP.next_hop: {NODE4}" in shown()

    asyncio.run(story())
