"""What a decision about a VIP has to know beside the VIP itself: who lives and who answers on which segment."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Any

from porterlb.core.layer2.hellos import Hellos
from porterlb.core.layer2.interfaces import InterfaceTable, Usage
from porterlb.core.layer2.nodes import Nodes
from porterlb.core.layer2.serving import Serving
from porterlb.core.model import Address, Member


class Surroundings:
    """Reads the other parts; ``dead``, ``leader`` and ``members`` are written down here.

    Args:
        own: our node.
    """

    def __init__(self, own: str, interfaces: InterfaceTable, nodes: Nodes, hellos: Hellos, serving: Serving) -> None:
        self.own = own
        self.leader = ""
        self.members: Mapping[str, Member] = {}
        self.dead: frozenset[str] = frozenset()
        self.interfaces = interfaces
        self._nodes = nodes
        self._hellos = hellos
        self._serving = serving
        self._replicas: dict[int, frozenset[str]] = {}

    def forget(self) -> None:
        """After any change of hellos, of the dead, of members, interfaces, or of whether we serve."""
        self._replicas.clear()

    @property
    def frozen(self) -> bool:
        """In doubt: nothing is to change."""
        return self._serving.frozen

    def replicas(self, usage: Usage | None, address: Address) -> Collection[str]:
        """Replicas that answer on that segment: on it, their hello fresh, their node alive, beyond their listening;
        and ourselves, if we serve."""
        if usage is None:
            return frozenset(node for node in self._answering() if self._on_link(node, lambda s: address in s.network))
        found = self._replicas.get(usage.ifindex)
        if found is None:
            networks = {interface.network for interface in self.interfaces.nics[usage.ifindex].addresses}
            there = (node for node in self._answering() if self._on_link(node, lambda s: s.network in networks))
            found = frozenset(there)
            if self._serving.answers:
                found |= {self.own}
            self._replicas[usage.ifindex] = found
        return found

    def _answering(self) -> list[str]:
        return [hello.node for hello in self._hellos.last if hello.answers and hello.node not in self.dead]

    def _on_link(self, node: str, fits: Callable[[Any], bool]) -> bool:
        member = self.members.get(node)
        return member is not None and (not member.subnets or any(fits(subnet) for subnet in member.subnets))

    def mac(self, node: str, usage: Usage) -> bytes:
        """A node's MAC on that interface; empty: not known."""
        if node == self.own:
            return self.interfaces.nics[usage.ifindex].mac
        return self._nodes.mac(node, usage.ifindex)
