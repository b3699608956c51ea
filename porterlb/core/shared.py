"""Values that the plans of all VIPs share: usable nodes, segments, sessions, and the announcers of next hops."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from porterlb.core import announce, holddown, nexthops
from porterlb.core.announce import Announcers, Arrangement, Reach
from porterlb.core.bgp import advertise
from porterlb.core.bgp.advertise import Told
from porterlb.core.bgp.negotiated import Negotiated
from porterlb.core.bgp.overrides import routers
from porterlb.core.bgp.peers import own_sessions
from porterlb.core.desired import Path, Prefix
from porterlb.core.drain import NO_DRAIN, Stages
from porterlb.core.holddown import ModePolicy, SessionsSeen
from porterlb.core.memory import Sessions
from porterlb.core.model import Address, Eip, Network, Peer, RouteAttributes, Selector, Service, Snapshot
from porterlb.core.nexthops import NextHops, Segments, Tier
from porterlb.core.persistent import differing
from porterlb.core.placement.load import FULL


@dataclass(frozen=True, slots=True)
class Recipients:
    """The peers that a VIP is announced to. ``told``: what each peer gets; ``text``: equal on all replicas."""

    told: Mapping[str, Told]
    names: frozenset[str]
    text: str


@dataclass(frozen=True, slots=True)
class Shared:
    """Shared by all VIPs of one plan. The caches hold results of pure functions of the other fields; the next plan
    takes them over while these fields are equal (:func:`shared_by_all`)."""

    snapshot: Snapshot
    usable: frozenset[str]
    cordoned: frozenset[str]
    """Nodes that are the last choice in Layer 2: cordoned and draining ones."""
    segments: Segments
    replicas: frozenset[str]
    peers: Mapping[str, Peer]
    speakers: Mapping[str, tuple[str, ...]]  # by peer: the replicas that announce to it
    sessions: Sessions
    up: Mapping[str, tuple[str, ...]]  # by peer: the replicas that have a session with it
    now: float  # monotonic seconds
    policy: ModePolicy
    by_service: bool
    """Whether the routes for a peer depend on the labels of Services."""
    drain: Stages = Stages()
    unusable: Mapping[str, str] = field(default_factory=dict)
    """Why the other nodes are not usable, as clauses."""
    selected: Mapping[Selector, frozenset[str]] = field(default_factory=dict)
    """The nodes of the selectors in rules of peers."""
    settling: frozenset[str] = frozenset()
    """Nodes that are unusable only because they have just returned."""
    _tiers: dict[Network | None, tuple[Tier, ...]] = field(default_factory=dict)
    _present: dict[Network, frozenset[str]] = field(default_factory=dict)
    _reaches: dict[tuple[str, int], Reach] = field(default_factory=dict)
    _groups: dict[tuple[str, int], Mapping[int, str]] = field(default_factory=dict)
    _capacities: dict[tuple[str, int], Mapping[str, int]] = field(default_factory=dict)
    _leasts: dict[tuple[str, int], int] = field(default_factory=dict)
    _announcers: dict[tuple[str, int], Announcers] = field(default_factory=dict)
    _announcers_before: dict[tuple[str, int], Announcers] = field(default_factory=dict)  # with the same reach
    _arrangements: dict[tuple[str, int, tuple[str, ...], int], Mapping[str, tuple[str, ...]]] = field(
        default_factory=dict
    )
    _paths: dict[tuple[str, str, int, RouteAttributes], Path | None] = field(default_factory=dict)
    _recipients: dict[tuple[str, int], Recipients] = field(default_factory=dict)
    _sizes: dict[bool, Mapping[str, int]] = field(default_factory=dict)
    _sets: dict[bool, frozenset[frozenset[str]]] = field(default_factory=dict)
    _covering: dict[tuple[str, int, int, int], tuple[Address, Prefix] | None] = field(default_factory=dict)
    _seen: dict[frozenset[str], SessionsSeen] = field(default_factory=dict)

    def hops(self, services: Sequence[Service], version: int) -> NextHops:
        """The next hops of a VIP that these Services share (usually one Service): the next hops of any of them.

        ``version``: of the VIP. kube-proxy sends its traffic only to endpoints of that IP version.
        """
        if len(services) == 1:
            return self._hops_of(services[0], version)
        found = [self._hops_of(service, version) for service in services]
        nodes = frozenset(node for hops in found for node in hops.nodes)
        endpoints = frozenset(node for hops in found for node in hops.endpoints)
        problem = next((hops.problem for hops in found if hops.problem), None)
        anywhere = any(hops.anywhere for hops in found)
        return NextHops(nodes, endpoints, None if nodes else problem, anywhere)

    def _hops_of(self, service: Service, version: int) -> NextHops:
        endpoints = self.snapshot.endpoints.get(service.key, ())
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
        self, services: Sequence[Service], hops: NextHops, segment: Network | None, recipients: Recipients | None = None
    ) -> tuple[str, ...]:
        """The next hops of a VIP on ``segment``, best first: see :func:`porterlb.core.nexthops.layer2_order`.

        ``recipients``: if only some of many nodes are chosen and a peer gets certain nodes only, up to the
        same number of those nodes is added at the end.
        """
        found = self._order(services, hops, segment)
        if len(self.snapshot.nodes) <= nexthops.MOST or not hops.anywhere or recipients is None:
            return found
        for nodes in dict.fromkeys(told.nodes for told in recipients.told.values() if told.nodes is not None):
            several = replace(hops, nodes=hops.nodes & nodes, endpoints=hops.endpoints & nodes)
            more = self._order(services, several, segment)[: nexthops.MOST]
            found += tuple(node for node in more if node not in found)
        return found

    def _order(self, services: Sequence[Service], hops: NextHops, segment: Network | None) -> tuple[str, ...]:
        many = len(self.snapshot.nodes) > nexthops.MOST
        among = None
        if many and hops.anywhere:
            among = self._tiers.get(segment)
            if among is None:
                present: frozenset[str] = self.nodes_on(segment) if segment is not None else frozenset()
                # A draining node stays picked: its routes must first be announced with the community.
                cordoned = frozenset(name for name in self.cordoned if self.snapshot.nodes[name].cordoned)
                among = nexthops.tiers(self.usable, present, self.replicas, cordoned)
                self._tiers[segment] = among
        return nexthops.layer2_order(
            services[0], hops, self.replicas, self.cordoned, among, many=many, draining=self.drain.all
        )

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
            if self.snapshot.members and lack >= self.snapshot.members.keys():
                return None
            return tuple([node for node in order if node not in lack][: nexthops.MOST])
        if segment is None:
            return None
        present = self.nodes_on(segment) - self.snapshot.view.dead_there(segment)
        return tuple([node for node in order if node in present][: nexthops.MOST])

    @property
    def node_capacities(self) -> Mapping[str, int]:
        """Layer 2 capacities of the nodes that differ from the default: see :mod:`porterlb.core.placement.load`."""
        found = self._sizes.get(True)
        if found is None:
            nodes = self.snapshot.nodes
            found = self._sizes[True] = {name: node.capacity for name, node in nodes.items() if node.capacity != FULL}
        return found

    def lacking(self, interface: str) -> frozenset[str]:
        """The nodes whose replica reports that this interface is missing or down."""
        return frozenset(name for name, member in self.snapshot.members.items() if interface in member.lacks)

    def best(self, candidates: tuple[str, ...], hops: NextHops) -> tuple[str, ...]:
        """The candidates that a new VIP may be placed on: see :func:`porterlb.core.nexthops.best_of`."""
        return nexthops.best_of(candidates, hops, self.replicas, self.cordoned)

    def arrangement(self, peer: str, address: Address, hops: tuple[str, ...]) -> Mapping[str, tuple[str, ...]]:
        """Next hops by replica, for one peer: see :mod:`porterlb.core.announce`."""
        capacity = self.capacity(peer, address.version)
        if len(capacity) > announce.FEW:
            least = self._least(peer, address.version)
            salt = int(address) % len(hops) if least * len(capacity) < len(hops) else 0
            return Arrangement(self.announcers(peer, address.version), (*hops[salt:], *hops[:salt]), least)
        salt = int(address) % len(hops) if sum(capacity.values()) < len(hops) else 0
        ordered = tuple(sorted(hops))
        key = (peer, address.version, ordered, salt)
        found = self._arrangements.get(key)
        if found is None:
            reach = self._reach(peer, address.version)
            found = self._arrangements[key] = announce.arrange(ordered, tuple(capacity), reach, capacity, salt)
        return found

    def capacity(self, peer: str, version: int) -> Mapping[str, int]:
        """Number of next hops per prefix that each replica can announce to ``peer``; replicas that can announce none
        are absent."""
        found = self._capacities.get((peer, version))
        if found is None:
            most = max(1, self.peers[peer].add_path)
            agreed = {replica: self._agreed(replica, peer) for replica in self.speakers[peer]}
            found = self._capacities[peer, version] = {
                replica: most if version in of.add_path else 1
                for replica, of in agreed.items()
                if version in of.families
            }
        return found

    def _least(self, peer: str, version: int) -> int:
        """Number of next hops per prefix that every replica can announce: many replicas are treated as equal."""
        found = self._leasts.get((peer, version))
        if found is None:
            found = self._leasts[peer, version] = min(self.capacity(peer, version).values(), default=1)
        return found

    def _agreed(self, replica: str, peer: str) -> Negotiated:
        """The negotiated values of a session. If unknown, those of our own session with the peer; otherwise the
        minimum."""
        known = self.snapshot.view.negotiated
        found = known.get((replica, peer)) or known.get((self.snapshot.view.node, peer))
        return found or Negotiated(self.peers[peer].families)

    def announcers(self, peer: str, version: int) -> Announcers:
        """The announcers of each next hop to a peer that many replicas have a session with."""
        found = self._announcers.get((peer, version))
        if found is None:
            before = self._announcers_before.get((peer, version))
            found = Announcers(self._reach(peer, version), tuple(self.capacity(peer, version)), before)
            self._announcers[peer, version] = found
        return found

    def _reach(self, peer: str, version: int) -> Reach:
        found = self._reaches.get((peer, version))
        if found is None:
            of, members = self.peers[peer], self.snapshot.members
            found = Reach(of, version, self.segments.addresses, members, self.dead_on, routers(of, self.snapshot))
            self._reaches[peer, version] = found
        return found

    def recipients(self, eip: Eip, version: int, services: Sequence[Service]) -> Recipients:
        """The peers that VIPs of ``eip`` and of these Services are announced to."""
        key = (eip.name, version)
        found = self._recipients.get(key)
        if found is None:
            names = self.snapshot.conf.communities
            told = {
                name: of
                for name, peer in self.peers.items()
                if version in peer.families
                and (of := advertise.told(peer, eip, version, services, self.selected, names)) is not None
            }
            found = Recipients(told, frozenset(told), _recipients_text(told))
            if not self.by_service:
                self._recipients[key] = found
        return found

    def covering(self, address: Address, length: int, eip: Eip) -> tuple[Address, Prefix] | None:
        """See :func:`porterlb.core.bgp.advertise.covering`: the same for all addresses in the prefix."""
        key = (eip.name, address.version, length, int(address) >> (address.max_prefixlen - length))
        if key not in self._covering:
            self._covering[key] = advertise.covering(address, length, eip)
        return self._covering[key]

    def carried(self, recipients: Recipients, version: int, hops: tuple[str, ...]) -> bool:
        """Whether a live replica has a session with one of these peers and can announce one of these next hops to
        it."""
        able = {peer: told.allowed(hops) for peer, told in recipients.told.items()}
        return any(self._carries(peer, version, mine) for peer, mine in able.items() if mine or not hops)

    def _carries(self, peer: str, version: int, hops: tuple[str, ...]) -> bool:
        groups = self._session_groups(peer, version)
        if not groups or not hops:
            return bool(groups)
        reach = self._reach(peer, version)
        return any(reach.address(replica, hop) for replica in groups.values() for hop in hops)

    def not_carried(self, recipients: Recipients, version: int) -> tuple[str, ...]:
        """The peers with established sessions, none of which negotiated this IP version."""
        names = sorted(recipients.names)
        return tuple(peer for peer in names if self.up.get(peer) and not self._session_groups(peer, version))

    def _session_groups(self, peer: str, version: int) -> Mapping[int, str]:
        """For each group of replicas that can announce the same next hops, one replica with a session."""
        found = self._groups.get((peer, version))
        if found is None:
            reach = self._reach(peer, version)
            able = self.capacity(peer, version)
            found = {reach.group(replica): replica for replica in reversed(self.up.get(peer, ())) if replica in able}
            self._groups[peer, version] = found
        return found

    def recipient_sets(self) -> frozenset[frozenset[str]]:
        """Every set of peers that a VIP of these Eips may be announced to, without regard to Services."""
        found = self._sets.get(True)
        if found is None:
            found = self._sets[True] = frozenset(
                self.recipients(eip, version, ()).names
                for eip in self.snapshot.eips.values()
                for version in {found.first.version for found in eip.ranges}
            )
        return found

    def sessions_seen(self, peers: frozenset[str]) -> SessionsSeen:
        """The state of the sessions with a set of peers, for its hold-down."""
        found = self._seen.get(peers)
        if found is None:
            found = self._seen[peers] = self._sessions_seen(peers)
        return found

    def _sessions_seen(self, peers: frozenset[str]) -> SessionsSeen:
        view = self.snapshot.view
        since = {replica: at for (replica, peer), at in self.sessions.items() if peer in peers}
        others = self.replicas - {view.node}
        said = {name: holddown.heard(view.hold_downs.get(name, ()), peers) for name in others}
        return SessionsSeen(
            own=view.node in since,
            carried=bool(since),
            stable_since=min(since.values(), default=0.0),
            carriers=holddown.furthest(phase for name, phase in said.items() if name in since),
            others=holddown.furthest(said.values()),
        )

    def path(self, peer: str, node: str, version: int, attributes: RouteAttributes) -> Path | None:
        """How this replica announces ``node`` to ``peer``; None if it cannot."""
        key = (peer, node, version, attributes)
        if key not in self._paths:
            hop = self._reach(peer, version).address(self.snapshot.view.node, node)
            several = self.capacity(peer, version).get(self.snapshot.view.node, 1) > 1
            identifier = announce.path_id(hop) if hop and several else 0
            self._paths[key] = Path(peer, hop, identifier, attributes) if hop else None
        return self._paths[key]

    @property
    def dead_on(self) -> frozenset[tuple[str, Network]]:
        """Usable nodes with a connected subnet on which they are dead; empty while we are in doubt about ourselves."""
        view = self.snapshot.view
        return frozenset() if view.doubt else frozenset(at for at in view.dead_on if at[0] in self.usable)

    def sharing(self, candidates: tuple[str, ...]) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """For a VIP that is spread over its candidates: the nodes that keep their hosts, and the nodes that get new
        ones.

        A draining node is in neither group. A cordoned node and a node without a replica only keep their hosts. If no
        other node is left, they are in both groups nevertheless.
        """
        keep = tuple(name for name in candidates if name not in self.drain.all) or candidates
        take = tuple(name for name in keep if name in self.replicas and name not in self.cordoned)
        return keep, tuple(sorted(take or keep))

    def same_rules(self, other: Shared) -> bool:
        """Whether both are equal except for node usability, sessions and Eips."""
        one, two = self.snapshot, other.snapshot
        return (
            self.peers == other.peers
            and self.segments == other.segments
            and one.view.node == two.view.node
            and one.view.negotiated == two.view.negotiated
            and one.members == two.members
            and self.dead_on == other.dead_on
            and one.conf == two.conf
            and self.selected == other.selected
        )

    def lost_nodes(self, other: Shared) -> tuple[frozenset[str], frozenset[str]] | None:
        """The nodes that require a new plan for every VIP that used them under ``other``, the previous value. Second,
        the nodes for which only the announcers differ.

        None: all VIPs must be planned again, because any of them may use a new node, or BGP carries other VIPs.
        """
        if self.speakers is other.speakers:
            return frozenset(), frozenset()
        if not (
            self.usable <= other.usable
            and self.replicas <= other.replicas
            and self.cordoned & self.usable >= other.cordoned & self.usable
            and self._reachable() == other._reachable()
        ):
            return None
        lost = (
            (other.settling - self.settling - self.usable)
            | (other.usable - self.usable)
            | (other.replicas - self.replicas)
            | (self.cordoned - other.cordoned)
        )
        lost |= (self.drain.announced ^ other.drain.announced) | (self.drain.withdrawn ^ other.drain.withdrawn)
        handed_on: set[str] = set()
        for peer, replicas in self.speakers.items():
            before = other.speakers[peer]
            if replicas == before or peer not in self.peers:
                continue
            least = min(self._least(peer, version) for version in (4, 6))
            capacity = least * min(len(replicas), len(before))
            if len(replicas) <= announce.FEW or len(before) <= announce.FEW or capacity < _AMPLE:
                return None
            for version in (4, 6):
                if (peer, version) in other._announcers:
                    now, then = self.announcers(peer, version), other.announcers(peer, version)
                    handed_on |= now.differing(then)
        return lost, frozenset(handed_on)

    def _reachable(self) -> dict[tuple[str, int], frozenset[int]]:
        """The groups of replicas that have a session, by peer and IP version: ``carried`` depends on them."""
        return {
            (peer, version): frozenset(self._session_groups(peer, version)) for peer in self.peers for version in (4, 6)
        }


_AMPLE = 8 * nexthops.MOST
"""With this number of announcements of one prefix, every next hop of a VIP keeps its preferred announcers."""


def _recipients_text(told: Mapping[str, Told]) -> str:
    """Only the names if no rule chooses nodes, so that digests equal those of earlier releases."""
    chosen = {name: sorted(of.nodes) for name, of in sorted(told.items()) if of.nodes is not None}
    return f"{sorted(told)}{chosen or ''}"


def shared_by_all(
    snapshot: Snapshot,
    sessions: Sessions,
    now: float,
    policy: ModePolicy,
    before: Shared | None,
    at: Stages = NO_DRAIN,
) -> Shared:
    """``sessions``: as remembered from the last plan. ``before``: of the last plan; its valid parts are reused.
    ``at``: the draining nodes."""
    if before is not None and (before.policy, before.drain) == (policy, at) and _same_inputs(snapshot, before.snapshot):
        seen = before._seen if snapshot.view.hold_downs == before.snapshot.view.hold_downs else {}
        return replace(before, snapshot=snapshot, now=now, _seen=seen)
    view = snapshot.view
    replicas = frozenset(view.fresh) | {view.node}
    peers = {name: snapshot.peers[name] for name in sorted(snapshot.peers)}
    up: dict[str, list[str]] = {}
    live = {}
    for replica, peer in sorted(view.sessions):
        if replica in replicas and peer in peers:
            live[replica, peer] = sessions.get((replica, peer), now)
            up.setdefault(peer, []).append(replica)
    speakers = {}
    held = own_sessions(snapshot)
    for name in peers:
        able = up.get(name, [])
        if view.node not in able and name in held:
            # Our own replica is included before its session is up. Its routes are then ready when the session comes up,
            # and the End-of-RIB after the first routes does not flush the routes that the router kept for us (RFC
            # 4724).
            able = sorted((*able, view.node))
        speakers[name] = tuple(able)
    old = before.snapshot if before is not None else None
    if before is not None and old is not None and old.nodes == snapshot.nodes and old.members == snapshot.members:
        segments = before.segments
    else:
        segments = nexthops.segments(snapshot.nodes, snapshot.members)
    unusable = nexthops.unusable_nodes(snapshot.nodes, view)
    made = Shared(
        snapshot=snapshot,
        usable=frozenset(snapshot.nodes.keys() - unusable),
        unusable=unusable,
        settling=view.settling & frozenset(name for name, why in unusable.items() if why == nexthops.RETURNED),
        cordoned=frozenset(name for name, node in snapshot.nodes.items() if node.cordoned or name in at.all),
        drain=at,
        segments=segments,
        replicas=replicas,
        peers={name: peer for name, peer in peers.items() if not peer.admin_down},
        speakers=speakers,
        sessions=live,
        up={peer: tuple(found) for peer, found in up.items()},
        now=now,
        policy=policy,
        selected=advertise.selected(peers.values(), snapshot.nodes),
        by_service=any(rule.service_selector is not None for p in peers.values() for rule in p.advertise),
    )
    if before is not None and before.policy == policy and made.same_rules(before):
        edited = differing(before.snapshot.eips, snapshot.eips)
        return replace(
            made,
            _present=before._present,
            _reaches=before._reaches,
            _announcers_before=before._announcers,
            _paths=before._paths,
            _recipients={key: found for key, found in before._recipients.items() if key[0] not in edited},
            _sets=before._sets if not edited else {},
            _covering={key: found for key, found in before._covering.items() if key[0] not in edited},
        )
    return made


def _same_inputs(one: Snapshot, two: Snapshot) -> bool:
    """Whether all inputs of :class:`Shared` are equal; Services and endpoints are checked one by one elsewhere."""
    rest: dict[str, Any] = {"leader": "", "hold_downs": {}, "outage": False, "asked": frozenset()}
    return (
        replace(one.view, **rest) == replace(two.view, **rest)
        and one.nodes == two.nodes
        and one.members == two.members
        and one.peers == two.peers
        and one.eips == two.eips
        and one.conf == two.conf
    )
