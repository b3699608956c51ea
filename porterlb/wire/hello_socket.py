"""Sends hellos to the members and receives theirs, over UDP."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Callable, Mapping
from ipaddress import ip_address

from porterlb.core.hello import MAX_DATAGRAM, Hello, Writer
from porterlb.core.model import Member
from porterlb.wire import packet

_TOS = 0xC0  # CS6, network control: dropped last when a queue is full


class HelloSocket:
    """One UDP socket per address family. ``heard`` gets each datagram. Raises OSError if none can be opened."""

    def __init__(
        self, address: str, port: int, key: bytes, heard: Callable[[bytes], None], loop: asyncio.AbstractEventLoop
    ) -> None:
        self._writer = Writer(key)
        self._heard = heard
        self._loop = loop
        self._sockets: dict[int, socket.socket] = {}
        self._to: list[tuple[socket.socket, tuple[str, int]]] = []
        places = {4: "0.0.0.0", 6: "::"} if not address else {ip_address(address).version: address}  # noqa: S104  # signed
        error: OSError | None = None
        for version, place in places.items():
            try:
                self._sockets[version] = self._open(version, place, port)
            except OSError as failure:  # a host without IPv6
                error = failure
        if not self._sockets and error is not None:
            raise error
        for opened in self._sockets.values():
            loop.add_reader(opened, self._drain, opened)

    @staticmethod
    def _open(version: int, place: str, port: int) -> socket.socket:
        family = socket.AF_INET if version == 4 else socket.AF_INET6
        opened = socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
        try:
            with contextlib.suppress(OSError):
                if version == 4:
                    opened.setsockopt(socket.IPPROTO_IP, socket.IP_TOS, _TOS)
                else:
                    opened.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_TCLASS, _TOS)
            if version == 6:
                opened.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            packet.enlarge_buffer(opened, 1 << 20)
            opened.setblocking(False)
            opened.bind((place, port))
        except OSError:
            opened.close()
            raise
        return opened

    def set_members(self, own: str, members: Mapping[str, Member]) -> None:
        """Sets the receivers of hellos: all members but us. A member with an invalid address is left out."""
        self._to = []
        for member in members.values():
            if member.node == own:
                continue
            with contextlib.suppress(ValueError):
                opened = self._sockets.get(ip_address(member.address).version)
                if opened is not None:
                    self._to.append((opened, (member.address, member.port)))

    def say(self, hello: Hello) -> tuple[int, int]:
        """Sends one hello to every member; returns how many were sent and how many the kernel refused."""
        data = self._writer.datagram(hello)
        refused = 0
        for opened, to in self._to:
            try:
                opened.sendto(data, to)
            except OSError:  # no route, queue full: the next hello follows soon
                refused += 1
        return len(self._to) - refused, refused

    def drain(self) -> None:
        for opened in self._sockets.values():
            self._drain(opened)

    def _drain(self, opened: socket.socket) -> None:
        for _ in range(256):
            try:
                data = opened.recv(MAX_DATAGRAM + 1)
            except BlockingIOError:
                return
            except OSError:  # an ICMP error for a datagram sent before
                continue
            self._heard(data)

    def close(self) -> None:
        for opened in self._sockets.values():
            self._loop.remove_reader(opened)
            opened.close()
