"""Failures around ExaBGP that the router must not notice; and the reasons for lost sessions."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from ipaddress import IPv4Address, ip_address
from pathlib import Path as File

import pytest

from porterlb.core.bgp import words
from porterlb.core.desired import SessionConfig
from tests.edge.bgp_routers import LOCAL_AS, Bird, Script, Segment, segment, until
from tests.edge.bgp_speaking import Watched, eventually, has, many, neighbor, speaking, via, wanted

pytestmark = pytest.mark.lab

COUNT = 300
HOP = "10.99.0.11"


@pytest.fixture
def net() -> Iterator[Segment]:
    with segment() as made:
        yield made


@contextmanager
def watching(bird: Bird) -> Iterator[list[int]]:
    """The router's number of routes, read repeatedly, as fast as it answers."""
    counts: list[int] = []
    ended = threading.Event()

    def look() -> None:
        while not ended.is_set():
            counts.append(bird.count())

    thread = threading.Thread(target=look)
    thread.start()
    try:
        yield counts
    finally:
        ended.set()
        thread.join()


def api_process(exabgp: int) -> int:
    children = File(f"/proc/{exabgp}/task/{exabgp}/children").read_text().split()
    return int(children[0])


def is_alive(pid: int) -> bool:
    try:
        return "\nState:\tZ" not in File(f"/proc/{pid}/status").read_text()
    except FileNotFoundError:
        return False


def disturb(what: str, watched: Watched) -> None:
    pid = watched.speaker.pid
    if what == "killed":
        os.kill(pid, signal.SIGKILL)
    elif what == "hung":
        os.kill(pid, signal.SIGSTOP)
    else:
        os.kill(api_process(pid), signal.SIGKILL)


@pytest.mark.parametrize("what", ["killed", "hung", "api process killed"])
def test_no_route_leaves_the_router_when_exabgp_is(what: str, net: Segment, tmp_path: File) -> None:
    async def story() -> None:
        bird = Bird(net, 2, tmp_path, graceful=True)
        peer = neighbor(bird, graceful_restart=60)
        routes = {via("r2", HOP): many(COUNT - 1), via("r2", "10.99.0.12"): ["192.0.2.1/32"]}
        async with speaking(tmp_path, ack_timeout=0.5, heartbeat=0.2) as watched:
            await watched.applied(wanted([peer], routes))
            await eventually(lambda: bird.count() == COUNT)
            pid = watched.speaker.pid
            helper = api_process(pid)
            with watching(bird) as counts:
                disturb(what, watched)
                moved = {via("r2", HOP): many(COUNT - 1), via("r2", "10.99.0.13"): ["192.0.2.1/32"]}
                await watched.applied(wanted([peer], moved))
                await has(bird, {prefix: {HOP} for prefix in many(COUNT - 1)} | {"192.0.2.1/32": {"10.99.0.13"}})
                await eventually(lambda: watched.up() == {"r2"})
                await eventually(lambda: "stale" not in bird.ctl("show", "route", "all").lower())
            assert min(counts) == COUNT
            assert not watched.last.trouble
            if what == "api process killed":
                assert watched.speaker.pid == pid
                assert watched.last.restarts == 0
                assert api_process(pid) != helper
            else:
                assert watched.last.restarts == 1
                assert watched.last.sessions["r2"].losses == 1
                assert "ExaBGP" in watched.reason("r2")
                assert not is_alive(pid)

    asyncio.run(story())


def test_whatever_the_order_of_disturbances_it_converges(net: Segment, tmp_path: File) -> None:
    async def story() -> None:
        bird = Bird(net, 2, tmp_path, graceful=True)
        peer = neighbor(bird, graceful_restart=60)
        chance = random.Random(7)
        async with speaking(tmp_path, ack_timeout=0.5, heartbeat=0.2) as watched:
            table: dict[str, set[str]] = {}
            for _ in range(8):
                hop = f"10.99.0.{chance.randrange(11, 19)}"
                prefixes = many(chance.randrange(1, 400))
                table = {prefix: {hop} for prefix in prefixes}
                watched.want(wanted([peer], {via("r2", hop): prefixes}))
                await asyncio.sleep(chance.random())
                if watched.speaker.pid:
                    # The process may be starting or ending.
                    with suppress(ProcessLookupError, FileNotFoundError, IndexError):
                        disturb(chance.choice(["killed", "hung", "api process killed"]), watched)
            await eventually(lambda: watched.last.applied == watched.token, 60)
            await has(bird, table)
            await eventually(lambda: watched.up() == {"r2"})
            assert not watched.last.trouble

    asyncio.run(story())


@pytest.mark.parametrize("withdraw", [True, False])
def test_a_wanted_withdrawal_is_a_withdrawal_also_under_graceful_restart(
    withdraw: bool, net: Segment, tmp_path: File
) -> None:
    async def story() -> None:
        bird = Bird(net, 2, tmp_path, graceful=True)
        async with speaking(tmp_path) as watched:
            await watched.applied(wanted([neighbor(bird, graceful_restart=60)], {via("r2", HOP): many(COUNT)}))
            await eventually(lambda: bird.count() == COUNT)
            pid = watched.speaker.pid
            await watched.speaker.stop(withdraw=withdraw)
            assert not is_alive(pid)
            await asyncio.sleep(0.3)
            assert bird.count() == (0 if withdraw else COUNT)

    asyncio.run(story())


@contextmanager
def manager(bird: Bird, run_dir: File, silence_after: float) -> Iterator[subprocess.Popen[bytes]]:
    argv = [sys.executable, "-m", "tests.edge.bgp_speaking", str(run_dir), bird.address, str(bird.asn)]
    process = subprocess.Popen([*argv, str(silence_after)], cwd=File(__file__).parents[2])
    try:
        yield process
    finally:
        process.send_signal(signal.SIGCONT)
        process.kill()
        process.wait()


def children(pid: int) -> list[int]:
    return [int(child) for child in File(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def test_exabgp_ends_with_a_manager_that_is_killed(net: Segment, tmp_path: File) -> None:
    bird = Bird(net, 2, tmp_path, graceful=True)
    with manager(bird, tmp_path / "run", 10) as process:
        until(lambda: bird.count() == 100)
        [exabgp] = children(process.pid)
        helper = api_process(exabgp)
        process.kill()
        until(lambda: not is_alive(exabgp) and not is_alive(helper), 5)
        assert bird.count() == 100  # graceful restart: the next manager takes over


def test_a_manager_that_hangs_does_not_announce_for_ever(net: Segment, tmp_path: File) -> None:
    bird = Bird(net, 2, tmp_path, graceful=True)
    with manager(bird, tmp_path / "run", 1.5) as process:
        until(lambda: bird.count() == 100)
        [exabgp] = children(process.pid)
        process.send_signal(signal.SIGSTOP)
        until(lambda: bird.count() == 0, 10)
        until(lambda: not is_alive(exabgp), 10)
        process.send_signal(signal.SIGCONT)
        until(lambda: bird.count() == 100, 20)


def test_the_reason_of_a_loss_is_the_peers_own_words(net: Segment, tmp_path: File) -> None:
    async def story() -> None:
        bird = Bird(net, 2, tmp_path)
        async with speaking(tmp_path) as watched:
            await watched.applied(wanted([neighbor(bird, hold_time=3)], {via("r2", HOP): many(3)}))
            await eventually(lambda: watched.up() == {"r2"})
            bird.ctl("disable", "node", '"fibre works until noon, ask Ada"')
            await eventually(lambda: watched.last.sessions["r2"].losses == 1)
            lost = watched.last.sessions["r2"]
            assert not lost.up
            assert words.loss(lost.loss) == (
                'The peer sent NOTIFICATION cease, administrative shutdown (6/2): "fibre works until noon, ask Ada".'
            )
            bird.ctl("enable", "node")
            await eventually(lambda: watched.up() == {"r2"})
            assert watched.last.sessions["r2"].loss == lost.loss  # kept until the next loss
            await eventually(lambda: bird.count() == 3)
            net.cut(2)
            await eventually(lambda: watched.last.sessions["r2"].losses == 2)
            assert watched.reason("r2") == "Hold timer expired: nothing was heard from the peer (4/0)."

    asyncio.run(story())


LONG = "€" * 80  # 240 octets: RFC 9003 allows 255, its predecessor RFC 8203 only 128


@pytest.mark.parametrize(
    ("end", "reset", "reason"),
    [
        (None, True, "The TCP connection was reset by the peer."),
        (None, False, "The TCP connection was closed by the peer without a NOTIFICATION."),
        (b"\x06\x01", False, "The peer sent NOTIFICATION cease, maximum number of prefixes reached (6/1)."),
        (
            b"\x06\x02" + bytes([len(LONG.encode())]) + LONG.encode(),
            False,
            f'The peer sent NOTIFICATION cease, administrative shutdown (6/2): "{LONG}".',
        ),
        (b"\x63\x07junk", False, "The peer sent NOTIFICATION unknown error (99/7)."),
    ],
)
def test_every_end_of_a_session_has_a_reason(
    end: bytes | None, reset: bool, reason: str, net: Segment, tmp_path: File
) -> None:
    async def story() -> None:
        script = Script(end, reset=reset)
        peer = SessionConfig("s", ip_address(Script.ADDRESS), 64600, LOCAL_AS, IPv4Address("10.99.0.1"))
        async with speaking(tmp_path) as watched:
            await watched.applied(wanted([replace(peer, remote_port=script.port, hold_time=90)], {}))
            await eventually(lambda: watched.up() == {"s"})
            script.go.set()
            await eventually(lambda: watched.last.sessions["s"].losses == 1)
            assert watched.reason("s") == reason

    asyncio.run(story())
