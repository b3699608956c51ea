"""The solicited-node multicast groups (RFC 4291 2.7.1) of the IPv6 VIPs on one interface.

A switch that snoops MLD hands solicitations only to ports that joined with MLD; packet membership alone says nothing
to it. The kernel bounds the groups of a socket, so they are spread over several. It also keeps an interface's groups
in a list: the ten-thousandth join takes 0.2 ms, so only one is made in a turn of the loop.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import struct
from collections import deque

from porterlb.core.neighbour import solicited_node

log = logging.getLogger("porterlb.wire")

_A_SOCKET = 2000


class SolicitedNodeGroups:
    """Joins and leaves, in the order asked for; each VIP counts once. Outlives the carrier of its interface."""

    def __init__(self, nic: int, loop: asyncio.AbstractEventLoop) -> None:
        self._nic = struct.pack("@i", nic)
        self._loop = loop
        self._users: dict[bytes, set[bytes]] = {}
        self._joined: dict[bytes, socket.socket] = {}
        self._sockets: list[socket.socket] = []
        self._newest = 0  # groups of the newest socket
        self._todo: deque[bytes] = deque()
        self._failed = False

    def join(self, address: bytes) -> None:
        group = solicited_node(address)
        self._users.setdefault(group, set()).add(address)
        self._later(group)

    def leave(self, address: bytes) -> None:
        group = solicited_node(address)
        users = self._users.get(group, set())
        users.discard(address)
        if not users:
            self._users.pop(group, None)
            self._later(group)

    def close(self) -> None:
        """Once the interface is gone: while it is there, closing thousands of memberships would take a second."""
        self._todo.clear()
        for opened in self._sockets:
            opened.close()

    @property
    def joined(self) -> int:
        return len(self._joined)

    def _later(self, group: bytes) -> None:
        if (group in self._users) is not (group in self._joined):
            if not self._todo:
                self._loop.call_soon(self._one)
            self._todo.append(group)

    def _one(self) -> None:
        if not self._todo:
            return
        group = self._todo.popleft()
        wanted, opened = group in self._users, self._joined.get(group)
        if wanted and opened is None:
            self._join(group)
        elif not wanted and opened is not None:
            del self._joined[group]
            try:
                opened.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_LEAVE_GROUP, group + self._nic)
            except OSError as error:
                log.info("leaving a solicited-node group: %s", error)  # the interface is gone, and the group with it
        if self._todo:
            self._loop.call_soon(self._one)

    def _join(self, group: bytes) -> None:
        for fresh in (False, True):
            try:
                if fresh or not self._sockets or self._newest >= _A_SOCKET:
                    self._sockets.append(socket.socket(socket.AF_INET6, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC))
                    self._newest = 0
                self._sockets[-1].setsockopt(socket.IPPROTO_IPV6, socket.IPV6_JOIN_GROUP, group + self._nic)
            except OSError as error:  # the socket is full (net.core.optmem_max): once more with a new one
                if fresh and not self._failed:
                    self._failed = True
                    log.warning("cannot join solicited-node groups: %s; switches that snoop MLD will not ask us", error)
                continue
            self._newest += 1
            self._joined[group] = self._sockets[-1]
            return
