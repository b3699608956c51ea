"""Which nodes may serve the VIPs of an Eip in Layer 2, and which are preferred: spec.layer2 of the Eip.

A node serves a VIP on one of the listed interfaces. If a listed interface of any node is on the segment of the VIP,
only nodes with a listed interface on that segment serve it; otherwise each node uses the first listed interface that is
up. A node without a replica has unknown interfaces: it may serve, if it is on the segment.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from porterlb.core.desired import Layer2Scope
from porterlb.core.model import Eip, Layer2Rules, Member, Network, Node, Selector, Service, Snapshot
from porterlb.core.nexthops import MOST, NextHops, Tier
from porterlb.core.topology import Topology


@dataclass(frozen=True, slots=True)
class Choice:
    """For the VIPs of one Eip on one segment. ``left_out``: the nodes that may not serve them, each with the reason as
    a clause. ``weights``: the sum of the preferences of each node; others have 0. ``strict``: they are served on their
    segment only."""

    left_out: Mapping[str, str] = field(default_factory=dict)
    weights: Mapping[str, int] = field(default_factory=dict)
    strict: bool = False


def selected(eips: Iterable[Eip], nodes: Mapping[str, Node]) -> dict[Selector, frozenset[str]]:
    """The nodes of every selector of these Eips."""
    found: dict[Selector, frozenset[str]] = {}
    for eip in eips:
        for selector in _selectors(eip.layer2):
            if selector not in found:
                found[selector] = frozenset(name for name, node in nodes.items() if selector.matches(node.labels))
    return found


def _selectors(rules: Layer2Rules) -> Iterator[Selector]:
    yield from rules.node_selectors
    for term in rules.preferred:
        yield term.selector


def choice(
    rules: Layer2Rules,
    segment: Network | None,
    nodes: Iterable[str],
    members: Mapping[str, Member],
    selected: Mapping[Selector, frozenset[str]],
) -> Choice:
    """``segment``: of the VIPs; None: they are on none. ``selected``: the nodes of each selector."""
    weights: dict[str, int] = {}
    for term in rules.preferred:
        for name in selected[term.selector]:
            weights[name] = weights.get(name, 0) + term.weight
    names = rules.interfaces
    on = segment if any(_is_on(member, names, segment) for member in members.values()) else None
    left_out: dict[str, str] = {}
    for name in nodes:
        member = members.get(name)
        if rules.node_selectors and not any(name in selected[selector] for selector in rules.node_selectors):
            left_out[name] = "does not match spec.layer2.nodeSelectors"
        elif names and member is not None and (why := _interface_problem(member, names, on)):
            left_out[name] = why
    return Choice(left_out, weights, strict=on is not None)


def _is_on(member: Member, names: Collection[str], segment: Network | None) -> bool:
    """Whether one of these interfaces of the node is known to be on the segment."""
    return segment is not None and any(
        name in names and any(own.version == segment.version and own.ip in segment for own in addresses)
        for name, addresses in member.listed
    )


def _interface_problem(member: Member, names: Collection[str], segment: Network | None) -> str:
    """Why a node cannot serve on one of these interfaces, as a clause; empty if it can, or if that is not known yet.

    ``segment``: that the interface must be on; None: any.
    """
    if all(name in member.lacks for name in names):
        return f"has no interface {' or '.join(names)} that is up"
    known = {*member.lacks, *(name for name, _ in member.listed)}
    if segment is None or not known.issuperset(names) or _is_on(member, names, segment):
        return ""
    up = [name for name, _ in member.listed if name in names]
    return f"has no interface of the list on {segment} ({', '.join(up)} {'is' if len(up) == 1 else 'are'} elsewhere)"


def scope(rules: Layer2Rules, made: Choice, replicas: Iterable[str]) -> Layer2Scope:
    """What the wire process needs to know. ``replicas``: the nodes with a replica."""
    return Layer2Scope(frozenset(replicas) - made.left_out.keys(), rules.interfaces, made.strict)


def scope_name(eip: Eip, segment: Network | None) -> str:
    """The name of a scope: equal on all replicas."""
    return f"{eip.name} {segment}" if segment is not None else eip.name


def segments_of(eip: Eip, subnets: Iterable[Network]) -> list[Network | None]:
    """The segments that addresses of the Eip may be on."""
    found: list[Network | None] = [None]
    for subnet in subnets:
        first, last = int(subnet.network_address), int(subnet.broadcast_address)
        if any(r.first.version == subnet.version and int(r.first) <= last and int(r.last) >= first for r in eip.ranges):
            found.append(subnet)
    return found


@dataclass(frozen=True, slots=True)
class Layer2Choices:
    """The choices of all Eips. ``own``: our node. ``selected``: the nodes of each selector in spec.layer2."""

    own: str
    topology: Topology
    eips: Mapping[str, Eip]
    selected: Mapping[Selector, frozenset[str]]
    # Results of pure functions of the other fields:
    _choices: dict[tuple[str, Network | None], Choice] = field(default_factory=dict, compare=False, repr=False)
    _tiers: dict[tuple[str, Network | None], tuple[Tier, ...]] = field(default_factory=dict, compare=False, repr=False)

    def choice(self, eip: Eip, segment: Network | None) -> Choice:
        """Which nodes may serve VIPs of ``eip`` on a segment, and which are preferred."""
        found = self._choices.get((eip.name, segment))
        if found is None:
            topology = self.topology
            found = choice(eip.layer2, segment, topology.nodes, topology.members, self.selected)
            self._choices[eip.name, segment] = found
        return found

    def chosen(
        self, eip: Eip, segment: Network | None, services: Sequence[Service], hops: NextHops
    ) -> tuple[tuple[str, ...] | None, tuple[str, ...]]:
        """For an Eip with spec.layer2: the nodes that serve the VIP in Layer 2, best first (None: no replica may serve
        it), and the best ones for a new VIP. ``hops``: its next hops."""
        topology, made = self.topology, self.choice(eip, segment)
        out = made.left_out
        replicas = topology.members.keys() & topology.nodes.keys()
        if replicas and replicas <= out.keys():
            return None, ()
        within = replace(hops, nodes=hops.nodes - out.keys(), endpoints=hops.endpoints - out.keys())
        order = self._order(services, within, segment, eip, made.weights)
        if eip.layer2.interfaces and not made.strict:
            candidates: tuple[str, ...] | None = order[:MOST]
        else:
            candidates = topology.on_segment(eip, segment, order)
        return candidates, topology.best(candidates or (), hops, made.weights)

    def _order(
        self,
        services: Sequence[Service],
        hops: NextHops,
        segment: Network | None,
        eip: Eip,
        weights: Mapping[str, int],
    ) -> tuple[str, ...]:
        """``weights``: by the preferences of the Eip."""
        if not weights:
            return self.topology.order(services, hops, segment)
        among = None
        if self.topology.many and hops.anywhere:
            among = self._tiers.get((eip.name, segment))
            if among is None:
                among = self._tiers[eip.name, segment] = self.topology.tiers(segment, weights)
        return self.topology.ranked(services, hops, among, weights)

    def scopes(self) -> dict[str, Layer2Scope]:
        """The scopes of all Eips with limits for Layer 2, by name."""
        replicas = (self.topology.members.keys() | {self.own}) & self.topology.nodes.keys()
        return {
            scope_name(eip, segment): scope(eip.layer2, self.choice(eip, segment), replicas)
            for eip in self.eips.values()
            if eip.layer2.limits
            for segment in self.segments_of(eip)
        }

    def segments_of(self, eip: Eip) -> list[Network | None]:
        """The segments on which Layer 2 may serve addresses of the Eip; None for those that are on none."""
        if eip.can_reach:
            return [self.topology.segments.towards(eip.can_reach)]
        return segments_of(eip, self.topology.segments.subnets)

    def same_segments(self, other: Layer2Choices) -> bool:
        """Whether both have the same segments, and the same nodes with the interfaces that Eips name and select."""
        one, two = self.topology, other.topology
        return (one.segments, self.selected, one.members) == (two.segments, other.selected, two.members)


def layer2_choices(
    snapshot: Snapshot, topology: Topology, before: tuple[Snapshot, Layer2Choices] | None = None
) -> Layer2Choices:
    """``before``: of the last plan. It is returned itself if nothing has changed that it depends on."""
    if before is not None:
        last, then = before
        if then.topology is topology and (snapshot.view.node, snapshot.eips) == (last.view.node, last.eips):
            return then
    return Layer2Choices(snapshot.view.node, topology, snapshot.eips, selected(snapshot.eips.values(), snapshot.nodes))
