"""The parts of the simulator: the measuring code itself must be correct."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from porterlb.core.layer2.arp import BROADCAST, ArpTemplate, arp_frame
from porterlb.core.layer2.ndp import Solicitation
from sim.faults import Fault, draw
from sim.segment import NDP, NeighbourCache, Segment
from sim.world import Process, Spinning, World

TEMPLATE = ArpTemplate(arp_frame())
VIP = bytes((10, 77, 0, 200))
VIP6 = bytes.fromhex("fd770000000000000000000000000200")
MAC_A, MAC_B = bytes((2, 0, 0, 0, 0, 1)), bytes((2, 0, 0, 0, 0, 2))


def started(world: World, main: Callable[[], object], clock: float = 1000.0) -> Process:
    process = Process(world, "n1/test", "n1", clock)
    world.at(0.0, process.loop.create_task, main(), process=process)
    return process


def test_sleep_takes_virtual_time_by_the_clock_of_the_process() -> None:
    world, seen = World(1), []

    async def main() -> None:
        begun = asyncio.get_running_loop().time()
        await asyncio.sleep(3.0)
        seen.append(asyncio.get_running_loop().time() - begun)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(2.0):
                await asyncio.Event().wait()
        seen.append(world.now)

    started(world, main)
    world.run(10.0)
    assert seen == pytest.approx([3.0, 5.0], abs=1e-5)


def test_timers_of_a_stopped_process_run_when_it_goes_on_and_arrivals_come_first() -> None:
    world, seen = World(1), list[str]()
    process = Process(world, "n1/test", "n1", 0.0)
    process.loop.call_at(1.0, seen.append, "timer")
    world.at(0.5, process.stop)
    world.at(2.0, seen.append, "arrival", process=process, kind=0)
    world.at(3.0, process.resume)
    world.run(2.9)
    assert seen == []
    world.run(4.0)
    assert seen == ["arrival", "timer"]


def test_a_killed_process_does_nothing_more_and_its_children_get_sigterm() -> None:
    world, seen = World(1), list[str]()
    parent, child = Process(world, "n1/a", "n1", 0.0), Process(world, "n1/b", "n1", 0.0)
    parent.children.append(child)
    parent.loop.call_at(1.0, seen.append, "parent")
    child.loop.add_signal_handler(15, seen.append, "told")
    world.at(0.5, parent.end, -9)
    world.run(2.0)
    assert seen == ["told"]
    assert child.alive


def test_a_loop_without_end_is_found() -> None:
    world = World(1)

    def again() -> None:
        world.at(world.now, again)

    world.at(1.0, again)
    with pytest.raises(Spinning, match="time does not go on"):
        world.run(2.0)


class Asked:
    """A segment with a host that uses a VIP, and two nodes that may answer."""

    def __init__(self) -> None:
        self.world = World(7)
        self.segment = Segment(self.world)
        self.a, self.b = self.segment.plug("a", 1), self.segment.plug("b", 2)
        self.host = self.segment.plug("host", 250)
        self.host.cache = self.cache = NeighbourCache(self.host)
        self.cache.talk(VIP)

    def answer(self, mac: bytes) -> None:
        port = self.segment.by_mac[mac]
        port.send(TEMPLATE.answer(mac, mac, VIP)._middle.join((self.host.mac, self.host.mac + self.host.packed)))

    def gratuitous(self, mac: bytes) -> None:
        self.segment.by_mac[mac].send(TEMPLATE.gratuitous(mac, mac, VIP))

    @property
    def mac(self) -> bytes:
        return self.cache.macs.get(VIP, b"")


def test_a_gratuitous_request_replaces_an_entry_and_a_second_answer_in_the_locktime_does_not() -> None:
    seen = Asked()
    seen.world.at(0.1, seen.answer, MAC_A)
    seen.world.at(0.2, seen.answer, MAC_B)
    seen.world.run(0.5)
    assert seen.mac == MAC_A
    seen.world.at(0.6, seen.gratuitous, MAC_B)
    seen.world.run(0.7)
    assert seen.mac == MAC_B


class Solicited(Asked):
    """The same with IPv6."""

    def __init__(self) -> None:
        super().__init__()
        self.segment.ipv6 = True
        self.cache.talk(VIP6)

    def answer(self, mac: bytes) -> None:
        asked = Solicitation(self.host.mac, self.host.packed6, VIP6, VIP6, self.host.mac)
        frame = NDP.answer(mac, mac, VIP6).reply(asked)
        assert frame is not None
        self.segment.by_mac[mac].send(frame)

    @property
    def mac(self) -> bytes:
        return self.cache.macs.get(VIP6, b"")


def test_an_advertisement_with_override_replaces_an_entry_at_once() -> None:
    seen = Solicited()
    seen.world.at(0.1, seen.answer, MAC_A)
    seen.world.run(0.2)
    assert seen.mac == MAC_A
    seen.segment.by_mac[MAC_B].send(NDP.unsolicited(MAC_B, MAC_B, VIP6))
    seen.world.run(0.3)
    assert seen.mac == MAC_B


@pytest.mark.parametrize("kind", [Asked, Solicited])
def test_an_entry_that_nobody_confirms_is_given_up(kind: type[Asked]) -> None:
    seen = kind()
    seen.world.at(0.1, seen.answer, MAC_A)
    seen.world.run(15.0)
    assert seen.mac == MAC_A
    seen.world.run(60.0)
    assert seen.mac == b""


def test_a_kernel_answers_solicitations_for_its_own_address() -> None:
    seen = Solicited()
    seen.cache.talk(seen.a.packed6)
    seen.world.run(1.0)
    assert seen.cache.macs[seen.a.packed6] == MAC_A


def test_what_is_cut_does_not_arrive_in_that_direction() -> None:
    seen = Asked()
    heard: list[bytes] = []
    seen.b.receive = heard.append  # type: ignore[method-assign, assignment]
    seen.segment.weather.cut = {("a", "b")}
    seen.a.send(BROADCAST + seen.a.mac + b"x" * 50)
    seen.world.run(1.0)
    assert seen.host.name == "host"
    assert [frame for frame in heard if frame[6:12] == seen.a.mac] == []
    seen.segment.weather.cut = {("b", "a")}
    seen.a.send(BROADCAST + seen.a.mac + b"x" * 50)
    seen.world.run(2.0)
    assert len([frame for frame in heard if frame[6:12] == seen.a.mac]) == 1


def test_a_seed_draws_the_same_faults_and_leaves_the_ends_quiet() -> None:
    names, services = ("n1", "n2", "n3"), ("s0", "s1")
    for seed in range(50):
        faults = draw(seed, names, services, 120.0)
        assert faults == draw(seed, names, services, 120.0)
        assert all(fault.at >= 12.0 and fault.until <= 80.5 for fault in faults)
    assert draw(1, names, services, 120.0) != draw(2, names, services, 120.0)


def test_a_fault_reads_as_a_sentence() -> None:
    assert Fault(1.0, "one_way", "n1", "n2", 2.5).told() == "one_way n1 -> n2 for 2.50 s"
    assert Fault(1.0, "loss", seconds=1.0, value=0.1).told() == "loss (0.10) for 1.00 s"
