"""Who lives on which segment now: what a decision about a VIP has to know beside the VIP itself.

The process writes down here what it learns (the dead, the leader, doubt, whether we serve); hellos, nodes and
interfaces are asked when they are needed.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any

from porterlb.core.hello import Hello
from porterlb.core.layer2.nodes import Nodes
from porterlb.core.model import Address, Member
from porterlb.wire.ports import Port, Ports
from porterlb.wire.vips import Place, Vip


class Segments:
    """The Surroundings of a :class:`~porterlb.wire.vips.VipTable`.

    Args:
        own: our node.
        hellos: the last hello of each fresh replica, asked when needed.
    """

    def __init__(
        self,
        own: str,
        ports: Ports,
        nodes: Nodes,
        hellos: Callable[[], Iterable[Hello]],
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        self.own = own
        self.leader = ""
        self.members: Mapping[str, Member] = {}
        self.dead: Collection[str] = frozenset()
        self.frozen = False
        """In doubt: nothing is to change."""
        self.serving = False
        """Whether we answer; not while we only listen, nor when we hand over."""
        self._ports = ports
        self._nodes = nodes
        self._hellos = hellos
        self._loop = loop
        self._replicas: dict[int, frozenset[str]] = {}

    def forget(self) -> None:
        """After any change of hellos, of the dead, of members, interfaces, or of whether we serve."""
        self._replicas.clear()

    def now(self) -> float:
        return self._loop.time()

    def place(self, vip: Vip) -> Place | None:
        return self._ports.of(vip.address, vip.interface, vip.can_reach)

    def replicas(self, place: Place | None, address: Address) -> Collection[str]:
        """Replicas that answer on that segment: on it, their hello fresh, their node alive, beyond their listening."""
        if not isinstance(place, Port):
            return frozenset(node for node in self._answering() if self._on_link(node, lambda s: address in s.network))
        index = place.nic.index
        found = self._replicas.get(index)
        if found is None:
            networks = {interface.network for interface in place.nic.addresses}
            there = (node for node in self._answering() if self._on_link(node, lambda s: s.network in networks))
            found = frozenset(there)
            if self.serving:
                found |= {self.own}
            self._replicas[index] = found
        return found

    def _answering(self) -> list[str]:
        return [hello.node for hello in self._hellos() if hello.answers and hello.node not in self.dead]

    def _on_link(self, node: str, fits: Callable[[Any], bool]) -> bool:
        member = self.members.get(node)
        return member is not None and (not member.subnets or any(fits(subnet) for subnet in member.subnets))

    def mac(self, node: str, place: Place) -> bytes:
        assert isinstance(place, Port)
        return place.nic.mac if node == self.own else self._nodes.mac(node, place.nic.index)
