"""Router advertisements (RFC 4861) on the interfaces of BgpPeers, heard and sent: the socket and the timer around
`RouterTable`. The kernel's own settings (accept_ra, forwarding) do not matter."""

from __future__ import annotations

import asyncio
import logging
import socket
import struct
from collections.abc import Callable
from ipaddress import IPv6Address

from porterlb.core.bgp.router_table import (
    ADVERTISEMENT,
    ALL_NODES,
    ALL_ROUTERS,
    HOP_LIMIT,
    OWN_ADVERTISEMENT,
    SOLICITATION,
    RouterTable,
)
from porterlb.core.bgp.router_table import parse_advertisement as parse
from porterlb.core.model import Address

log = logging.getLogger("porterlb.wire")

_ICMP6_FILTER = 1  # linux/icmpv6.h; Python has no name for it
_LONGEST = 1500  # bytes of a message that are read
_BURST = 64  # messages read in a row
_RETRY = 5.0  # seconds until a socket that could not be opened is tried again
_PKTINFO = struct.Struct("=16sI")


class RouterListener:
    """``report`` is called with the routers on all wanted interfaces when they have changed. The socket exists only
    while an interface is wanted."""

    def __init__(self, report: Callable[[tuple[Address, ...]], None], loop: asyncio.AbstractEventLoop) -> None:
        self._report = report
        self._loop = loop
        self._table = RouterTable()
        self._wanted: tuple[str, ...] = ()
        self._told: tuple[Address, ...] = ()
        self._socket: socket.socket | None = None
        self._timer: asyncio.TimerHandle | None = None

    def want(self, interfaces: tuple[str, ...]) -> None:
        """Sets the interfaces to listen on."""
        if interfaces == self._wanted:
            return
        self._wanted = interfaces
        if not interfaces:
            self.close()
        self._table.want(interfaces, self._loop.time())
        self._go_on()

    def returned(self, interface: str) -> None:
        """The interface has a carrier again."""
        if interface in self._wanted:
            self._table.returned(interface, self._loop.time())
            self._go_on()

    def close(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._socket is not None:
            self._loop.remove_reader(self._socket)
            self._socket.close()
            self._socket = None

    def _open(self) -> socket.socket | None:
        if self._socket is None:
            try:
                self._socket = _icmpv6()
            except OSError as error:
                log.warning("cannot listen for router advertisements: %s", error)
                return None
            self._loop.add_reader(self._socket, self._drain)
        return self._socket

    def _go_on(self) -> None:
        """Takes the steps that are due, reports what has changed, and sets the timer."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        opened = self._open() if self._wanted else None
        if self._wanted and opened is None:
            self._timer = self._loop.call_later(_RETRY, self._go_on)
            return
        solicit, advertise = self._table.step(self._loop.time())
        if opened is not None:
            for interface in solicit:
                _send(opened, SOLICITATION, ALL_ROUTERS, interface)
            for interface in advertise:
                _send(opened, OWN_ADVERTISEMENT, ALL_NODES, interface)
        if (found := self._table.routers) != self._told:
            self._told = found
            self._report(found)
        if (at := self._table.next_at) is not None:
            self._timer = self._loop.call_at(at, self._go_on)

    def _drain(self) -> None:
        opened = self._socket
        if opened is None:
            return
        try:
            for _ in range(_BURST):
                data, ancillary, _, source = opened.recvmsg(_LONGEST, 128)
                self._heard(data, ancillary, str(source[0]))
        except OSError:  # nothing more, or an interface is down
            pass
        self._go_on()

    def _heard(self, data: bytes, ancillary: list[tuple[int, int, bytes]], source: str) -> None:
        index, hop_limit = 0, 0
        for level, kind, value in ancillary:
            if (level, kind) == (socket.IPPROTO_IPV6, socket.IPV6_PKTINFO):
                index = _PKTINFO.unpack_from(value)[1]
            elif (level, kind) == (socket.IPPROTO_IPV6, socket.IPV6_HOPLIMIT):
                hop_limit = struct.unpack_from("=i", value)[0]
        said = parse(data, IPv6Address(source.partition("%")[0]), hop_limit)
        if said is None:
            return
        try:
            interface = socket.if_indextoname(index)
        except OSError:  # it has just been removed
            return
        self._table.heard(interface, said, self._loop.time())


def _icmpv6() -> socket.socket:
    """A socket that receives router advertisements on every interface. Raises OSError."""
    opened = socket.socket(socket.AF_INET6, socket.SOCK_RAW | socket.SOCK_CLOEXEC, socket.IPPROTO_ICMPV6)
    try:
        blocked = bytearray(b"\xff" * 32)  # one bit for each type; set: not received (RFC 3542, 3.2)
        word = ADVERTISEMENT // 32
        bits = int.from_bytes(blocked[4 * word : 4 * word + 4], "little") & ~(1 << (ADVERTISEMENT % 32))
        blocked[4 * word : 4 * word + 4] = struct.pack("=I", bits)
        opened.setsockopt(socket.IPPROTO_ICMPV6, _ICMP6_FILTER, bytes(blocked))
        opened.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_RECVPKTINFO, 1)
        opened.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_RECVHOPLIMIT, 1)
        opened.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_HOPS, HOP_LIMIT)
        opened.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_LOOP, 0)
        opened.setblocking(False)
    except OSError:
        opened.close()
        raise
    return opened


def _send(opened: socket.socket, message: bytes, group: str, interface: str) -> None:
    """Never raises: the interface may be missing or down, and the message is sent again later."""
    try:
        opened.sendto(message, (group, 0, 0, socket.if_nametoindex(interface)))
    except OSError as error:
        log.debug("cannot send to %s on %s: %s", group, interface, error)
