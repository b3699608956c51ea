"""The BFD process with real sockets on the loopback interface: pairs of its own sessions exchange packets."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from ipaddress import ip_address
from pathlib import Path

from porterlb.core.bfd.packet import Packet
from porterlb.core.bfd.values import (
    BfdSession,
    BfdSettings,
    BfdState,
    BfdTarget,
    Diagnostic,
    ObstacleKind,
)
from porterlb.edge.bfd import BfdSpeaker
from porterlb.settings import Settings
from tests.edge.bgp_speaking import eventually

FAST = BfdSettings(3, 50, 50)


class Speaking:
    """A running speaker, its reports, and whether it gets beats."""

    def __init__(self, silence_after: float) -> None:
        self.last: Mapping[str, BfdSession] = {}
        self.beating = True
        self.speaker = BfdSpeaker(self._heard, settings=Settings("n", silence_after=silence_after))

    def _heard(self, sessions: Mapping[str, BfdSession]) -> None:
        self.last = sessions

    def want(self, *targets: BfdTarget) -> None:
        self.speaker.want({target.peer: target for target in targets})

    def states(self) -> set[BfdState]:
        return {session.state for session in self.last.values()}

    @property
    def pid(self) -> int:
        found = self.speaker.pid
        assert found is not None
        return found

    async def beat(self) -> None:
        while True:
            if self.beating:
                self.speaker.beat()
            await asyncio.sleep(0.1)


@asynccontextmanager
async def speaking(silence_after: float = 10.0) -> AsyncIterator[Speaking]:
    made = Speaking(silence_after)
    tasks = [asyncio.create_task(made.speaker.run()), asyncio.create_task(made.beat())]
    try:
        yield made
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def pair(number: int, *, multihop: bool = False, settings: BfdSettings = FAST) -> tuple[BfdTarget, BfdTarget]:
    """Two sessions of one process, each of which is the other's router."""
    one, other = ip_address(f"127.0.1.{number}"), ip_address(f"127.0.2.{number}")
    return (
        BfdTarget(f"a{number}", one, other, multihop, settings),
        BfdTarget(f"b{number}", other, one, multihop, settings),
    )


def memory(pid: int) -> int:
    """Resident memory, in kB."""
    text = Path(f"/proc/{pid}/status").read_text()
    return int(text.partition("VmRSS:")[2].split()[0])


def processor_time(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def test_sixteen_sessions_at_50_ms_in_both_versions_and_over_several_hops() -> None:
    async def story() -> None:
        targets = [target for number in range(1, 8) for target in pair(number, multihop=number > 5)]
        loopback = ip_address("::1")  # its own router
        targets += [BfdTarget("six", loopback, settings=FAST), BfdTarget("far", loopback, multihop=True, settings=FAST)]
        async with speaking() as ours:
            ours.want(*targets)
            await eventually(lambda: len(ours.last) == 16 and ours.states() == {BfdState.UP})
            begun, before = processor_time(ours.pid), sum(session.failures for session in ours.last.values())
            await asyncio.sleep(2)
            used = (processor_time(ours.pid) - begun) / 2
            failures = sum(session.failures for session in ours.last.values()) - before
            print(f"16 sessions at 50 ms: {used:.1%} of a core, {memory(ours.pid)} kB, {failures} failures in 2 s")
            assert {(s.transmit_interval, s.detection_time) for s in ours.last.values()} == {(50_000, 150_000)}

            # one end leaves: the other receives AdminDown, which is no failure
            ours.want(*(target for target in targets if target.peer != "b1"))
            await eventually(lambda: ours.last["a1"].remote_state is BfdState.ADMIN_DOWN, 5)
            assert (ours.last["a1"].state, ours.last["a1"].diagnostic) == (BfdState.DOWN, Diagnostic.NEIGHBOR_DOWN)
            assert "b1" not in ours.last

    asyncio.run(story())


def test_without_a_sign_of_life_of_the_manager_it_says_admin_down_and_comes_back() -> None:
    async def story() -> None:
        async with speaking(silence_after=1.0) as ours:
            ours.want(*pair(11))
            await eventually(lambda: ours.states() == {BfdState.UP})
            ours.beating = False
            await asyncio.sleep(0.6)
            assert ours.states() == {BfdState.UP}
            await eventually(lambda: ours.states() == {BfdState.ADMIN_DOWN}, 5)
            assert [session.failures for session in ours.last.values()] == [0, 0]
            ours.beating = True
            await eventually(lambda: ours.states() == {BfdState.UP}, 10)

    asyncio.run(story())


def test_a_process_that_is_killed_runs_again_and_one_without_sessions_does_not_run() -> None:
    async def story() -> None:
        async with speaking() as ours:
            ours.want(*pair(12))
            await eventually(lambda: ours.states() == {BfdState.UP})
            failures = [session.failures for session in ours.last.values()]
            os.kill(ours.pid, signal.SIGKILL)
            await eventually(lambda: all(session.obstacle for session in ours.last.values()), 5)
            assert {s.obstacle.kind for s in ours.last.values() if s.obstacle} == {ObstacleKind.NOT_RUNNING}
            assert [session.failures for session in ours.last.values()] == failures
            await eventually(lambda: ours.states() == {BfdState.UP})
            assert [session.failures for session in ours.last.values()] == failures
            ours.want()
            await eventually(lambda: ours.speaker.pid is None and not ours.last, 5)

    asyncio.run(story())


def test_a_port_that_another_process_has_blocks_the_peers_of_that_port_alone() -> None:
    async def story() -> None:
        other = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as FRR's bfdd does
        other.bind(("0.0.0.0", 3784))
        near, far = pair(13), pair(14, multihop=True)
        absent = BfdTarget("absent", ip_address("127.0.0.9"), ip_address("192.0.2.77"), True, FAST)
        async with speaking() as ours:
            ours.want(*near, *far, absent)
            await eventually(lambda: bool(ours.last) and all(ours.last[t.peer].up for t in far))
            for target in near:
                obstacle = ours.last[target.peer].obstacle
                assert obstacle is not None
                assert (obstacle.kind, obstacle.port) == (ObstacleKind.PORT_TAKEN, 3784)
            obstacle = ours.last["absent"].obstacle
            assert obstacle is not None and obstacle.kind is ObstacleKind.ADDRESS_ABSENT
            other.close()
            await eventually(lambda: all(ours.last[t.peer].up for t in near), 10)

    asyncio.run(story())


def test_packets_with_another_ttl_or_from_another_address_have_no_effect() -> None:
    hello = Packet(BfdState.DOWN, 7, 0, 3, 1_000_000, 50_000).encode()

    async def story() -> None:
        async with speaking() as ours:
            ours.want(BfdTarget("x", ip_address("127.0.1.15"), ip_address("127.0.2.15"), settings=FAST))
            await eventually(lambda: "x" in ours.last)
            for source, ttl, heard in (
                ("127.0.1.15", 254, False),
                ("127.0.1.16", 255, False),
                ("127.0.1.15", 255, True),
            ):
                with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
                    sender.bind((source, 0))
                    sender.setsockopt(socket.IPPROTO_IP, socket.IP_TTL, ttl)
                    sender.sendto(hello, ("127.0.2.15", 3784))
                await asyncio.sleep(0.2)
                assert ours.last["x"].heard is heard
            assert ours.last["x"].state is BfdState.INIT

    asyncio.run(story())
