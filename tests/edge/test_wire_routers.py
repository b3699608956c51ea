"""Router advertisements (RFC 4861) on a real link: the process solicits routers, and learns and forgets them."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest

from lab.netns import Namespace
from porterlb.core.bgp.router_table import SOLICITATION
from porterlb.core.model import Address
from porterlb.wire.routers import RouterListener
from tests.edge.bgp_routers import Segment, segment
from tests.edge.bgp_speaking import eventually

pytestmark = pytest.mark.lab


@pytest.fixture
def net() -> Iterator[Segment]:
    with segment() as made:
        yield made


class Advertiser:
    """A router that sends the given messages, by its link-local address."""

    def __init__(self, net: Segment, number: int) -> None:
        self.namespace = Namespace(net.router(number))
        self.address = f"fe80::{number}"
        self.namespace.sysctl({"net/ipv6/conf/all/forwarding": 1})  # this makes it a member of the group of all routers
        self.namespace.ip(
            "link set eth0 addrgenmode none", f"address add {self.address}/64 dev eth0 nodad", "link set eth0 up"
        )
        self.socket = self.namespace.call(self._open)
        self.index = self.namespace.call(lambda: socket.if_nametoindex("eth0"))

    @staticmethod
    def _open() -> socket.socket:
        made = socket.socket(socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_ICMPV6)
        made.settimeout(0.0)
        return made

    def say(self, lifetime: int, hop_limit: int = 255) -> None:
        self.socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_HOPS, hop_limit)
        message = struct.pack("!BBHBBHII", 134, 0, 0, 64, 0, lifetime, 0, 0)
        self.socket.sendto(message, ("ff02::1", 0, 0, self.index))

    def solicited(self) -> bool:
        try:
            while True:
                if self.socket.recv(1500)[0] == SOLICITATION[0]:
                    return True
        except BlockingIOError:
            return False


def test_routers_are_solicited_heard_and_forgotten(net: Segment) -> None:
    async def story() -> None:
        one, two = Advertiser(net, 2), Advertiser(net, 3)
        told: list[tuple[Address, ...]] = []
        listener = RouterListener(told.append, asyncio.get_running_loop())
        try:
            listener.want(("br0",))
            await eventually(one.solicited, 10)
            one.say(1800, hop_limit=64)
            await asyncio.sleep(0.2)
            assert not told, "it came through a router"
            two.say(2)
            await eventually(lambda: told)
            one.say(1800)
            await eventually(lambda: len(told) == 2)
            await eventually(lambda: len(told) == 3, 5)
            one.say(0)
            await eventually(lambda: len(told) == 4)
            assert [[str(address) for address in routers] for routers in told] == [
                ["fe80::3%br0"],
                ["fe80::3%br0", "fe80::2%br0"],
                ["fe80::2%br0"],  # the lifetime of the other router is over
                [],
            ]
        finally:
            listener.want(())
            one.socket.close()
            two.socket.close()

    asyncio.run(story())


def descriptors() -> int:
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


def test_other_interfaces_are_not_listened_to_and_cost_no_socket(net: Segment) -> None:
    async def story() -> None:
        one = Advertiser(net, 2)
        told: list[tuple[Address, ...]] = []
        listener = RouterListener(told.append, asyncio.get_running_loop())
        before = descriptors()
        listener.want(())
        assert descriptors() == before
        listener.want(("eth9",))  # it does not exist yet
        one.say(1800)
        await asyncio.sleep(0.2)
        assert not told
        listener.want(("br0",))
        one.say(1800)
        await eventually(lambda: told)
        listener.want(())
        assert told[-1] == () and descriptors() == before
        one.socket.close()

    asyncio.run(story())
