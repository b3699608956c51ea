"""The solicited-node multicast groups (RFC 4291 2.7.1) of the IPv6 VIPs on one interface.

Two devices must know a group: the NIC, whose filter drops other multicast, and a switch that snoops MLD, which forwards
solicitations only to ports that reported the group. IPV6_JOIN_GROUP would tell both, but also the kernel's IPv6, which
then searches all groups for each solicitation. So we tell both ourselves (docs/decisions/solicited-node-groups.md).
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque

from porterlb.core.layer2.ndp import multicast_mac, solicited_node
from porterlb.core.observed import Nic
from porterlb.wire import packet
from porterlb.wire.mld import Mld

log = logging.getLogger("porterlb.wire")


class SolicitedNodeGroups:
    """Joins and leaves groups in the requested order; each VIP counts once. Stays when its interface loses carrier."""

    def __init__(self, nic: Nic, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._users: dict[bytes, set[bytes]] = {}
        self._filter = packet.MulticastFilter(nic.index)
        self._todo: deque[bytes] = deque()
        self._failed = False
        self._mld = Mld(nic, loop)

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

    def rejoin(self) -> None:
        """Reports all groups again: the interface may be connected to another switch now."""
        self._mld.rejoin()

    def close(self) -> None:
        """Call this once the interface is gone: while it exists, closing thousands of memberships takes a while."""
        self._todo.clear()
        self._mld.close()
        self._filter.close()

    def _later(self, group: bytes) -> None:
        if (group in self._users) is not (group in self._mld.groups):
            if not self._todo:
                self._loop.call_soon(self._one)
            self._todo.append(group)

    def _one(self) -> None:
        """Changes one group per turn of the event loop, so that answers wait for one change only."""
        if not self._todo:
            return
        group = self._todo.popleft()
        wanted = group in self._users
        if wanted is not (group in self._mld.groups):
            self._change(group, wanted)
        if self._todo:
            self._loop.call_soon(self._one)

    def _change(self, group: bytes, wanted: bool) -> None:
        try:
            if wanted:
                self._filter.add(multicast_mac(group))
            else:
                self._filter.remove(multicast_mac(group))
        except OSError as error:  # the interface is gone, and its filter with it
            if not self._failed:
                self._failed = True
                log.warning("cannot change the solicited-node groups of an interface: %s", error)
        if wanted:
            self._mld.join(group)
        else:
            self._mld.leave(group)
