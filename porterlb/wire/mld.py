"""MLD for the groups that we listen to on one interface: receives queries, sends reports."""

from __future__ import annotations

import asyncio
import logging
import random
import socket
import struct

from porterlb.core.layer2.mld import HOP_BY_HOP, parse_query
from porterlb.core.layer2.mld_listener import MldListener
from porterlb.core.observed import Nic
from porterlb.wire import packet
from porterlb.wire.responder import DRAIN

log = logging.getLogger("porterlb.wire")

_ICMP6_FILTER = 1  # linux/icmpv6.h; Python has no name for it
_RETRY = 0.5  # seconds; the interface is down, or has no link-local address yet


class Mld:
    """The sockets around an `MldListener`, opened with the first group. They stay when the interface loses carrier.

    Reports are sent through the kernel, which knows its link-local address. Queries are received by AF_PACKET: those
    for one group are sent to that group, of which the kernel is not a member.
    """

    def __init__(self, nic: Nic, loop: asyncio.AbstractEventLoop) -> None:
        self._nic = nic
        self._loop = loop
        self._listener = MldListener(random.random)
        self._timer: asyncio.TimerHandle | None = None
        self._ears: socket.socket | None = None
        self._voice: socket.socket | None = None
        self._retry: asyncio.TimerHandle | None = None
        self._told = False

    @property
    def groups(self) -> set[bytes]:
        return self._listener.groups

    def join(self, group: bytes) -> None:
        self._open()
        self._listener.join(group, self._loop.time())
        self._schedule()

    def leave(self, group: bytes) -> None:
        self._listener.leave(group, self._loop.time())
        self._schedule()

    def rejoin(self) -> None:
        """Reports all groups again."""
        if self._retry is not None:
            self._retry.cancel()
            self._retry = None
        if self.groups:
            self._open()
        self._listener.rejoin(self._loop.time())
        self._schedule()

    def close(self) -> None:
        for timer in (self._timer, self._retry):
            if timer is not None:
                timer.cancel()
        if self._ears is not None:
            self._loop.remove_reader(self._ears)
            self._ears.close()
        if self._voice is not None:
            self._voice.close()

    def _open(self) -> None:
        try:
            if self._voice is None:
                self._voice = _voice(self._nic.index)
            if self._ears is None:
                self._ears = packet.open_socket(self._nic.name, packet.ETHERTYPE_IPV6, packet.mld_query_program())
                self._loop.add_reader(self._ears, self._drain)
        except OSError as error:
            self._failed(error)

    def _drain(self) -> None:
        assert self._ears is not None
        try:
            for _ in range(DRAIN):
                query = parse_query(self._ears.recv(packet.SNAP))
                if query is not None:
                    self._listener.heard(query, self._loop.time())
        except OSError:  # nothing more, or the interface is down: this socket works again once it is up
            pass
        self._schedule()

    def _schedule(self) -> None:
        at = self._listener.next_at
        if self._timer is not None:
            if at is not None and self._timer.when() <= at:
                return  # the timer is early enough
            self._timer.cancel()
        self._timer = self._loop.call_at(at, self._speak) if at is not None else None

    def _speak(self) -> None:
        self._timer = None
        for message in self._listener.due(self._loop.time()):
            try:
                if self._voice is not None:
                    self._voice.sendto(message.body, (socket.inet_ntop(socket.AF_INET6, message.destination), 0))
            except OSError as error:
                self._failed(error)
                break
        self._schedule()

    def _failed(self, error: OSError) -> None:
        if not self._told:
            self._told = True
            log.warning("cannot report solicited-node groups on %s yet: %s", self._nic.name, error)
        if self._retry is None:
            self._retry = self._loop.call_later(_RETRY, self.rejoin)


def _voice(nic: int) -> socket.socket:
    """A socket that sends MLD messages as RFC 3810 5 requires, and receives nothing. Raises OSError."""
    opened = socket.socket(socket.AF_INET6, socket.SOCK_RAW | socket.SOCK_CLOEXEC, socket.IPPROTO_ICMPV6)
    try:
        opened.setsockopt(socket.IPPROTO_ICMPV6, _ICMP6_FILTER, b"\xff" * 32)
        opened.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_IF, struct.pack("@i", nic))
        opened.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_HOPS, 1)
        opened.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_LOOP, 0)
        opened.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_HOPOPTS, HOP_BY_HOP)
        opened.setblocking(False)
    except OSError:
        opened.close()
        raise
    return opened
