"""UDP sockets of BFD (RFC 5881, RFC 5883): one receiver per port and IP version, one sender per session."""

from __future__ import annotations

import contextlib
import errno
import random
import socket
import struct
from collections.abc import Iterator
from ipaddress import ip_address

from porterlb.core.bfd.values import (
    ALL_TTL,
    FIRST_SOURCE_PORT,
    LAST_SOURCE_PORT,
    Address,
    BfdTarget,
    Obstacle,
    ObstacleKind,
)
from porterlb.core.scope import scope_of, scoped, unscoped

_IP_RECVTTL = 12  # linux/in.h; Python has no name for it
_CONTROL = 0xC0  # DSCP CS6, network control: routers drop it last
_LONGEST = 128  # bytes of a datagram that are read; a packet has 24
_BURST = 64  # datagrams read in a row; then another socket gets its turn
_PORTS_TRIED = 64

_NO_ROUTE = frozenset({errno.ENETUNREACH, errno.EHOSTUNREACH, errno.ENETDOWN, errno.ENODEV, errno.ENXIO})
"""The last two: the interface of a link-local address is missing."""


class Blocked(Exception):
    """The socket cannot be opened now."""

    def __init__(self, obstacle: Obstacle) -> None:
        super().__init__(obstacle.kind)
        self.obstacle = obstacle


class Receiver:
    """One port of one IP version, on all addresses of the node. Raises Blocked when another process uses the port."""

    def __init__(self, version: int, port: int) -> None:
        six = version == 6
        self._socket = socket.socket(socket.AF_INET6 if six else socket.AF_INET, socket.SOCK_DGRAM)
        try:
            self._socket.setblocking(False)
            if six:
                self._socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
                self._socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_RECVHOPLIMIT, 1)
            else:
                self._socket.setsockopt(socket.IPPROTO_IP, _IP_RECVTTL, 1)
            # No SO_REUSEADDR: with it, two processes on one port would each get some packets.
            self._socket.bind(("::" if six else "0.0.0.0", port))  # noqa: S104  # packets of other addresses are discarded
        except OSError as error:
            self._socket.close()
            if error.errno == errno.EADDRINUSE:
                raise Blocked(Obstacle(ObstacleKind.PORT_TAKEN, port)) from None
            raise Blocked(_other(error)) from None

    def fileno(self) -> int:
        return self._socket.fileno()

    def read(self) -> Iterator[tuple[bytes, Address, int]]:
        """Datagrams that have arrived, with the address of the sender and the TTL on arrival (0: not known)."""
        for _ in range(_BURST):
            try:
                data, ancillary, _, source = self._socket.recvmsg(_LONGEST, 64)
            except OSError:  # nothing to read, or an ICMP error that belongs to no datagram of ours
                return
            yield data, _sender(source), _ttl(ancillary)

    def close(self) -> None:
        self._socket.close()


class Sender:
    """Sends the packets of one session, all from one source port. Raises Blocked when it cannot be opened now."""

    def __init__(self, target: BfdTarget) -> None:
        six = target.address.version == 6
        self._socket = socket.socket(socket.AF_INET6 if six else socket.AF_INET, socket.SOCK_DGRAM)
        self.broken = False
        try:
            self._socket.setblocking(False)
            if six:
                self._socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_UNICAST_HOPS, ALL_TTL)
                self._socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_TCLASS, _CONTROL)
            else:
                self._socket.setsockopt(socket.IPPROTO_IP, socket.IP_TTL, ALL_TTL)
                self._socket.setsockopt(socket.IPPROTO_IP, socket.IP_TOS, _CONTROL)
            self._bind(str(target.local_address or ("::" if six else "0.0.0.0")))  # noqa: S104  # connected to the router
            self._socket.connect(_endpoint(target.address, target.port))
        except OSError as error:
            self._socket.close()
            if error.errno == errno.EADDRNOTAVAIL:
                raise Blocked(Obstacle(ObstacleKind.ADDRESS_ABSENT)) from None
            raise Blocked(Obstacle(ObstacleKind.NO_ROUTE) if error.errno in _NO_ROUTE else _other(error)) from None

    def _bind(self, address: str) -> None:
        for _ in range(_PORTS_TRIED):
            try:
                self._socket.bind((address, random.randint(FIRST_SOURCE_PORT, LAST_SOURCE_PORT)))
                return
            except OSError as error:
                if error.errno != errno.EADDRINUSE:
                    raise
        raise OSError(errno.EADDRINUSE, "no source port is free")

    def send(self, data: bytes) -> None:
        """Never raises: a packet that cannot be sent counts as lost."""
        for _ in range(2):
            try:
                self._socket.send(data)
                return
            except ConnectionRefusedError:
                continue  # the answer to the previous packet: the router did not run BFD then
            except OSError as error:
                # The node may have another route or address by now: a new socket uses it.
                self.broken = error.errno != errno.EAGAIN
                return

    def close(self) -> None:
        self._socket.close()


def _endpoint(address: Address, port: int) -> tuple[str, int] | tuple[str, int, int, int]:
    """As the socket module wants it: the interface of a link-local address as a number. It ignores the name after the
    percent sign. Raises OSError without the interface."""
    if address.version == 4:
        return str(address), port
    scope = scope_of(address)
    return str(unscoped(address)), port, 0, socket.if_nametoindex(scope) if scope else 0


def _sender(source: tuple[str, int] | tuple[str, int, int, int]) -> Address:
    """The address of the sender; a link-local one with the interface that the datagram arrived on."""
    address = ip_address(str(source[0]).partition("%")[0])
    if len(source) == 4 and source[3]:
        with contextlib.suppress(OSError):  # the interface has just been removed
            return scoped(address, socket.if_indextoname(source[3]))
    return address


def _ttl(ancillary: list[tuple[int, int, bytes]]) -> int:
    for level, kind, data in ancillary:
        four = (level, kind) == (socket.IPPROTO_IP, socket.IP_TTL)
        if (four or (level, kind) == (socket.IPPROTO_IPV6, socket.IPV6_HOPLIMIT)) and len(data) >= 4:
            return int(struct.unpack_from("=i", data)[0])
    return 0


def _other(error: OSError) -> Obstacle:
    return Obstacle(ObstacleKind.OTHER, text=str(error.strerror or error))
