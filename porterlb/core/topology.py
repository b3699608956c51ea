"""The nodes of one moment: which may receive traffic, on which segments they are, and which run a replica."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from porterlb.core import nexthops
from porterlb.core.drain import NO_DRAIN, Stages
from porterlb.core.model import Address, Eip, Endpoint, Member, Network, Node, Service, ServiceKey, Snapshot
from porterlb.core.nexthops import NextHops, Segments, Tier
from porterlb.core.placement.load import FULL


@dataclass(frozen=True, slots=True)
class Topology:
    """``usable``: the nodes that traffic may be sent to; ``unusable``: the others, each with the reason as a clause.

    ``cordoned``: nodes that are the last choice in Layer 2: cordoned and draining ones. ``settling``: nodes that are
    unusable only because they have just returned. ``replicas``: the nodes with a live replica. ``dead_on``: nodes with
    a connected subnet on which they are dead; empty while we are in doubt about ourselves. ``capacities``: Layer 2
    capacities of the nodes that differ from the default (:mod:`porterlb.core.placement.load`).
    """

    nodes: Mapping[str, Node]
    members: Mapping[str, Member]
    segments: Segments
    usable: frozenset[str]
    unusable: Mapping[str, str]
    settling: frozenset[str]
    cordoned: frozenset[str]
    replicas: frozenset[str]
    drain: Stages
    dead_on: frozenset[tuple[str, Network]]
    capacities: Mapping[str, int]
    # Results of pure functions of the other fields:
    _tiers: dict[Network | None, tuple[Tier, ...]] = field(default_factory=dict, compare=False, repr=False)
    _present: dict[Network, frozenset[str]] = field(default_factory=dict, compare=False, repr=False)

    def hops(
        self, services: Sequence[Service], endpoints: Mapping[ServiceKey, tuple[Endpoint, ...]], version: int
    ) -> NextHops:
        """The next hops of a VIP that these Services share (usually one Service): the next hops of any of them.

        ``version``: of the VIP. kube-proxy sends its traffic only to endpoints of that IP version.
        """
        found = [self._hops_of(service, endpoints.get(service.key, ()), version) for service in services]
        if len(found) == 1:
            return found[0]
        nodes = frozenset(node for hops in found for node in hops.nodes)
        with_endpoint = frozenset(node for hops in found for node in hops.endpoints)
        problem = next((hops.problem for hops in found if hops.problem), None)
        anywhere = any(hops.anywhere for hops in found)
        return NextHops(nodes, with_endpoint, None if nodes else problem, anywhere)

    def _hops_of(self, service: Service, endpoints: tuple[Endpoint, ...], version: int) -> NextHops:
        if any(endpoint.version not in (0, version) for endpoint in endpoints):
            endpoints = tuple(endpoint for endpoint in endpoints if endpoint.version in (0, version))
        policy = service.traffic_policy
        found = nexthops.next_hops(policy, endpoints, self.usable, self.unusable)
        if found.nodes or not self.settling:
            return found
        # Policy Local, and the only endpoints are on a node that has just returned.
        with_settling = nexthops.next_hops(policy, endpoints, self.usable | self.settling, self.unusable)
        return with_settling if with_settling.nodes else found

    def order(
        self,
        services: Sequence[Service],
        hops: NextHops,
        segment: Network | None,
        parts: Sequence[frozenset[str]] = (),
    ) -> tuple[str, ...]:
        """The next hops of a VIP on ``segment``, best first: see :func:`porterlb.core.nexthops.layer2_order`.

        ``parts``: if only some of many nodes are chosen, up to the same number of nodes of each of these sets is added
        at the end. They are sets of nodes that a BGP peer gets alone.
        """
        found = self._order(services, hops, segment)
        if not self.many or not hops.anywhere:
            return found
        for nodes in parts:
            several = replace(hops, nodes=hops.nodes & nodes, endpoints=hops.endpoints & nodes)
            more = self._order(services, several, segment)[: nexthops.MOST]
            found += tuple(node for node in more if node not in found)
        return found

    def _order(self, services: Sequence[Service], hops: NextHops, segment: Network | None) -> tuple[str, ...]:
        among = None
        if self.many and hops.anywhere:
            among = self._tiers.get(segment)
            if among is None:
                among = self._tiers[segment] = self.tiers(segment)
        return self.ranked(services, hops, among)

    @property
    def many(self) -> bool:
        """Whether there are more nodes than a VIP uses."""
        return len(self.nodes) > nexthops.MOST

    def tiers(self, segment: Network | None, weights: Mapping[str, int] = nexthops.NO_WEIGHTS) -> tuple[Tier, ...]:
        """The usable nodes by preference for a VIP on ``segment``. ``weights``: of `Layer2Choices`."""
        present: frozenset[str] = self.nodes_on(segment) if segment is not None else frozenset()
        # A draining node stays picked: its routes must first be announced with the community.
        cordoned = frozenset(name for name in self.cordoned if self.nodes[name].cordoned)
        return nexthops.tiers(self.usable, present, self.replicas, cordoned, weights)

    def ranked(
        self,
        services: Sequence[Service],
        hops: NextHops,
        among: Sequence[Tier] | None,
        weights: Mapping[str, int] = nexthops.NO_WEIGHTS,
    ) -> tuple[str, ...]:
        """The next hops, best first. ``among``: the tiers to pick from if there are many next hops."""
        return nexthops.layer2_order(
            services[0],
            hops,
            self.replicas,
            self.cordoned,
            among,
            many=self.many,
            draining=self.drain.all,
            weights=weights,
        )

    def segment(self, eip: Eip, address: Address) -> Network | None:
        """The connected subnet in which Layer 2 serves an address of ``eip``; None: it is in none."""
        return self.segments.towards(eip.can_reach) if eip.can_reach else self.segments.of(address)

    def nodes_on(self, subnet: Network) -> frozenset[str]:
        """The nodes with an address in a subnet."""
        found = self._present.get(subnet)
        if found is None:
            found = self._present[subnet] = self.segments.nodes_on(subnet)
        return found

    def on_segment(self, eip: Eip, segment: Network | None, order: tuple[str, ...]) -> tuple[str, ...] | None:
        """The nodes of ``order`` that are alive on the segment of the VIP; None if it is on none of our segments."""
        if eip.interface:
            lack = self.lacking(eip.interface)
            if self.members and lack >= self.members.keys():
                return None
            return tuple([node for node in order if node not in lack][: nexthops.MOST])
        if segment is None:
            return None
        present = self.nodes_on(segment) - frozenset(node for node, subnet in self.dead_on if subnet == segment)
        return tuple([node for node in order if node in present][: nexthops.MOST])

    def lacking(self, interface: str) -> frozenset[str]:
        """The nodes whose replica reports that this interface is missing or down."""
        return frozenset(name for name, member in self.members.items() if interface in member.lacks)

    def best(
        self, candidates: tuple[str, ...], hops: NextHops, weights: Mapping[str, int] = nexthops.NO_WEIGHTS
    ) -> tuple[str, ...]:
        """The candidates that a new VIP may be placed on: see :func:`porterlb.core.nexthops.best_of`."""
        return nexthops.best_of(candidates, hops, self.replicas, self.cordoned, weights)

    def sharing(self, candidates: tuple[str, ...]) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """For a VIP that is spread over its candidates: the nodes that keep their hosts, and the nodes that get new
        ones.

        A draining node is in neither group. A cordoned node and a node without a replica only keep their hosts. If no
        other node is left, they are in both groups nevertheless.
        """
        keep = tuple(name for name in candidates if name not in self.drain.all) or candidates
        take = tuple(name for name in keep if name in self.replicas and name not in self.cordoned)
        return keep, tuple(sorted(take or keep))

    @property
    def eligible(self) -> frozenset[str]:
        """The nodes that Layer 2 may place VIPs on."""
        return (self.usable & self.replicas) - self.cordoned

    @property
    def partly_dead(self) -> frozenset[tuple[str, Network]]:
        """Usable nodes with a connected subnet on which they are dead."""
        return frozenset(at for at in self.dead_on if at[0] in self.usable)

    def same_segments(self, other: Topology) -> bool:
        """Whether both are equal except for the usability of nodes."""
        return (
            self.segments == other.segments and self.members == other.members and self.partly_dead == other.partly_dead
        )

    def lost(self, other: Topology) -> frozenset[str] | None:
        """The nodes that require a new plan for every VIP that used them under ``other``, the previous topology, with
        the same segments. None: any VIP may use a new node."""
        if self is other:
            return frozenset()
        if not (
            self.usable <= other.usable
            and self.replicas <= other.replicas
            and self.cordoned & self.usable >= other.cordoned & self.usable
        ):
            return None
        lost = (
            (other.settling - self.settling - self.usable)
            | (other.usable - self.usable)
            | (other.replicas - self.replicas)
            | (self.cordoned - other.cordoned)
        )
        return lost | (self.drain.announced ^ other.drain.announced) | (self.drain.withdrawn ^ other.drain.withdrawn)


def topology(snapshot: Snapshot, at: Stages = NO_DRAIN, before: tuple[Snapshot, Topology] | None = None) -> Topology:
    """``at``: the draining nodes. ``before``: of the last plan. It is returned itself if nothing has changed that it
    depends on; its segments are reused if nodes and members are the same."""
    view, nodes, members = snapshot.view, snapshot.nodes, snapshot.members
    segments: Segments | None = None
    present: dict[Network, frozenset[str]] = {}
    if before is not None:
        last, then = before
        if (nodes, members) == (last.nodes, last.members):  # a tuple: identical mappings are not compared
            segments, present = then.segments, then._present
            if at == then.drain and _judgements(snapshot) == _judgements(last):
                return then
    unusable = nexthops.unusable_nodes(nodes, view)
    return Topology(
        nodes=nodes,
        members=members,
        segments=segments if segments is not None else nexthops.segments(nodes, members),
        usable=frozenset(nodes.keys() - unusable),
        unusable=unusable,
        settling=view.settling & frozenset(name for name, why in unusable.items() if why == nexthops.RETURNED),
        cordoned=frozenset(name for name, node in nodes.items() if node.cordoned or name in at.all),
        replicas=frozenset(view.fresh) | {view.node},
        drain=at,
        dead_on=frozenset() if view.doubt else view.dead_on,
        capacities={name: node.capacity for name, node in nodes.items() if node.capacity != FULL},
        _present=present,
    )


def _judgements(snapshot: Snapshot) -> tuple[object, ...]:
    """What hellos and probes say about the nodes."""
    view = snapshot.view
    return view.node, view.fresh, view.dead, view.dead_on, view.settling, view.doubt
