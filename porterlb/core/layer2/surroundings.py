"""What a decision about a VIP needs besides the VIP itself: the live nodes and answering replicas of each segment."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

from porterlb.core.desired import DesiredWire, Layer2Scope
from porterlb.core.layer2.answering import answering
from porterlb.core.layer2.hellos import Hellos
from porterlb.core.layer2.interfaces import InterfaceTable, Usage
from porterlb.core.layer2.nodes import Nodes
from porterlb.core.layer2.serving import Serving
from porterlb.core.layer2.staleness import Staleness
from porterlb.core.layer2.verdict import Place
from porterlb.core.model import Address, Member
from porterlb.core.observed import Answering

_NOWHERE = Layer2Scope()
"""For the name of a scope that is not known."""


class Surroundings:
    """Reads the other parts. Other parts write ``wanted``, ``dead``, ``dead_places`` and ``yielded``.

    Args:
        own: our node.
    """

    def __init__(
        self,
        own: str,
        interfaces: InterfaceTable,
        nodes: Nodes,
        hellos: Hellos,
        serving: Serving,
        staleness: Staleness,
    ) -> None:
        self.own = own
        self.wanted = DesiredWire()
        """What the manager wants, without the VIPs."""
        self.dead: frozenset[str] = frozenset()
        self.dead_places: frozenset[Place] = frozenset()
        self.yielded: dict[bytes, str] = {}
        """VIPs that another node also answers and ranks first for, with that node: see `DoubleAnswers`."""
        self.interfaces = interfaces
        self._nodes = nodes
        self._hellos = hellos
        self._serving = serving
        self._staleness = staleness
        self._stale: frozenset[str] | None = None
        self._replicas: dict[int, frozenset[str]] = {}
        self._scoped: dict[tuple[int, str], frozenset[str]] = {}
        self._dead_on: dict[int, frozenset[str]] = {}

    def forget(self) -> None:
        """Clears cached results. Call after any change of hellos, dead nodes, members, interfaces, serving or
        staleness."""
        self._stale = None
        self._replicas.clear()
        self._scoped.clear()
        self._dead_on.clear()

    @property
    def leader(self) -> str:
        return self.wanted.leader

    @property
    def members(self) -> Mapping[str, Member]:
        return self.wanted.members

    @property
    def scopes(self) -> Mapping[str, Layer2Scope]:
        return self.wanted.scopes

    @property
    def serves(self) -> bool:
        """Whether this replica answers for VIPs."""
        return self._serving.answers

    @property
    def stale(self) -> frozenset[str]:
        """The replicas whose plan may be outdated, this one included."""
        if self._stale is None:
            said = frozenset(hello.node for hello in self._hellos.last if hello.stale)
            self._stale = said | {self.own} if self._staleness.stale else said
        return self._stale

    def answering(
        self, vip: str, candidates: Sequence[str], dead: Collection[str], replicas: Collection[str]
    ) -> Answering:
        """The next hop and the answerer of a VIP, as this replica sees the others."""
        return answering(vip, candidates, dead, replicas, self.leader, self.stale, self.own)

    @property
    def frozen(self) -> bool:
        """Whether we are in doubt: then nothing must change."""
        return self._serving.frozen

    def dead_on(self, usage: Usage | None, address: Address) -> frozenset[str]:
        """Nodes that cannot serve ``address``: dead on its segment, or on the segment of their InternalIP."""
        index = usage.ifindex if usage is not None else self._down(address)
        found = self._dead_on.get(index)
        if found is None:
            there = (place.node for place in self.dead_places if place.nic == index)
            found = self._dead_on[index] = self.dead.union(there)
        return found

    def _down(self, address: Address) -> int:
        """The interface without carrier whose subnet contains ``address``; 0: none."""
        nics = self.interfaces.nics.items()
        return next((index for index, nic in nics if any(address in own.network for own in nic.addresses)), 0)

    def replicas(self, usage: Usage | None, address: Address, interface: str = "") -> Collection[str]:
        """Replicas that answer on a segment: connected to it, with a fresh hello, a live node, and done listening; and
        ourselves if we serve. ``interface``: the name that the Eip gives; this node may lack it."""
        if usage is None and interface:
            return frozenset(node for node in self._answering(None) if self._has(node, interface))
        if usage is None:
            here = (node for node in self._answering(None) if self._on_link(node, lambda s: address in s.network))
            return frozenset(here)
        found = self._replicas.get(usage.ifindex)
        if found is None:
            networks = {interface.network for interface in self.interfaces.nics[usage.ifindex].addresses}
            there = (node for node in self._answering(usage) if self._on_link(node, lambda s: s.network in networks))
            found = frozenset(there)
            if self._serving.answers and self.own not in self._isolated(usage):
                found |= {self.own}
            self._replicas[usage.ifindex] = found
        return found

    def usage(self, address: Address, interface: str, can_reach: Address | None, scope: str) -> Usage | None:
        """The interface on which this replica answers for a VIP; None: it does not. ``scope``: the name of the VIP's
        scope; empty: none."""
        if not scope:
            return self.interfaces.of(address, interface, can_reach)
        found = self.scopes.get(scope)
        if found is None or self.own not in found.nodes:
            return None
        if found.interfaces:
            return self.interfaces.listed(address, found.interfaces, strict=found.strict)
        return self.interfaces.of(address, interface, can_reach)

    def replicas_of(self, usage: Usage | None, address: Address, interface: str, scope: str) -> Collection[str]:
        """As `replicas`, and only those that may answer for the VIP by its scope."""
        if not scope:
            return self.replicas(usage, address, interface)
        found = self.scopes.get(scope, _NOWHERE)
        if not found.interfaces:
            return found.nodes.intersection(self.replicas(usage, address, interface))
        key = usage.ifindex if usage is not None else 0, scope
        made = self._scoped.get(key)
        if made is None:
            made = found.nodes.intersection(self._answering(usage))
            if usage is not None and self._serving.answers and self.own not in self._isolated(usage):
                made |= {self.own}
            self._scoped[key] = made
        return made

    def _answering(self, usage: Usage | None) -> list[str]:
        dead = self.dead | self._isolated(usage)
        return [hello.node for hello in self._hellos.last if hello.answers and hello.node not in dead]

    def _isolated(self, usage: Usage | None) -> frozenset[str]:
        """Nodes that are dead on the segment itself: their replicas reach no host there. A replica whose node is dead
        on another segment can still answer here, on behalf of other nodes."""
        if usage is None:
            return frozenset()
        return frozenset(place.node for place in self.dead_places if place.nic == usage.ifindex)

    def _has(self, node: str, interface: str) -> bool:
        member = self.members.get(node)
        return member is not None and interface not in member.lacks

    def _on_link(self, node: str, fits: Callable[[Any], bool]) -> bool:
        member = self.members.get(node)
        return member is not None and (not member.subnets or any(fits(subnet) for subnet in member.subnets))

    def mac(self, node: str, usage: Usage) -> bytes:
        """A node's MAC on that interface; empty: unknown."""
        if node == self.own:
            return self.interfaces.nics[usage.ifindex].mac
        return self._nodes.mac(node, usage.ifindex)
