"""The sessions of all replicas with all peers: which VIPs they carry, and which replica announces which next hop."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

from porterlb.core import announce, holddown
from porterlb.core.announce import Announcers, Arrangement, Reach
from porterlb.core.bgp.negotiated import Negotiated
from porterlb.core.bgp.overrides import routers
from porterlb.core.bgp.peers import own_sessions
from porterlb.core.bgp.recipients import Recipients
from porterlb.core.desired import Path
from porterlb.core.holddown import SessionsSeen
from porterlb.core.memory import Sessions
from porterlb.core.model import Address, Peer, RouteAttributes, Snapshot
from porterlb.core.topology import Topology


@dataclass(frozen=True, slots=True)
class Peering:
    """``own``: our node. ``peers``: without those that are administratively down. ``routers``: by peer with overrides
    or an interface, the router of each replica.

    ``sessions``: since when each established session is up; ``up``: the replicas with a session, by peer;
    ``speakers``: the replicas that announce to each peer. ``extended``: those that may announce IPv6 next hops for IPv4
    routes to it (RFC 8950). ``hold_downs``: as the other replicas report them.
    """

    own: str
    topology: Topology
    peers: Mapping[str, Peer]
    routers: Mapping[str, Mapping[str, Address | None]]
    sessions: Sessions
    up: Mapping[str, tuple[str, ...]]
    speakers: Mapping[str, tuple[str, ...]]
    negotiated: Mapping[tuple[str, str], Negotiated]
    hold_downs: Mapping[str, frozenset[str]]
    extended: Mapping[str, frozenset[str]]
    # Results of pure functions of the other fields:
    _reaches: dict[tuple[str, int], Reach] = field(default_factory=dict, compare=False, repr=False)
    _groups: dict[tuple[str, int], Mapping[int, str]] = field(default_factory=dict, compare=False, repr=False)
    _capacities: dict[tuple[str, int], Mapping[str, int]] = field(default_factory=dict, compare=False, repr=False)
    _leasts: dict[tuple[str, int], int] = field(default_factory=dict, compare=False, repr=False)
    _announcers: dict[tuple[str, int], Announcers] = field(default_factory=dict, compare=False, repr=False)
    _announcers_before: dict[tuple[str, int], Announcers] = field(default_factory=dict, compare=False, repr=False)
    _arrangements: dict[tuple[str, int, tuple[str, ...], int], Mapping[str, tuple[str, ...]]] = field(
        default_factory=dict, compare=False, repr=False
    )
    _paths: dict[tuple[str, str, int, RouteAttributes], Path | None] = field(
        default_factory=dict, compare=False, repr=False
    )
    _seen: dict[frozenset[str], SessionsSeen] = field(default_factory=dict, compare=False, repr=False)

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
        found = self.negotiated.get((replica, peer)) or self.negotiated.get((self.own, peer))
        return found or Negotiated(self.peers[peer].families)

    def announcers(self, peer: str, version: int) -> Announcers:
        """The announcers of each next hop to a peer that many replicas have a session with."""
        found = self._announcers.get((peer, version))
        if found is None:
            reach, replicas = self._reach(peer, version), tuple(self.capacity(peer, version))
            made = [of for (_, also), of in self._announcers.items() if also == version]
            found = next((of for of in made if of.serves(reach, replicas)), None)
            if found is None:
                found = Announcers(reach, replicas, self._announcers_before.get((peer, version)))
            self._announcers[peer, version] = found
        return found

    def _reach(self, peer: str, version: int) -> Reach:
        found = self._reaches.get((peer, version))
        if found is None:
            topology = self.topology
            found = self._reaches[peer, version] = Reach(
                self.peers[peer],
                version,
                topology.segments.addresses,
                topology.members,
                topology.partly_dead,
                self.routers.get(peer, {}),
                self.extended.get(peer, frozenset()),
            )
        return found

    def path(self, peer: str, node: str, version: int, attributes: RouteAttributes) -> Path | None:
        """How this replica announces ``node`` to ``peer``; None if it cannot."""
        key = (peer, node, version, attributes)
        if key not in self._paths:
            hop = self._reach(peer, version).address(self.own, node)
            several = self.capacity(peer, version).get(self.own, 1) > 1
            identifier = announce.path_id(hop) if hop and several else 0
            extended = hop is not None and hop.version != version
            self._paths[key] = Path(peer, hop, identifier, attributes, extended) if hop else None
        return self._paths[key]

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

    def without_ipv4_hop(self, recipients: Recipients, hops: Iterable[str]) -> tuple[str, ...]:
        """The peers whose sessions carry IPv4 routes, but none of these next hops, because IPv6 next hops for them (RFC
        8950) were not negotiated."""
        found = []
        for peer in sorted(recipients.names):
            reach = self._reach(peer, 4)
            replicas = self._session_groups(peer, 4).values()
            lacking = bool(replicas) and all(reach.lacks_extended(replica) for replica in replicas)
            if lacking and not any(reach.address(replica, hop) for replica in replicas for hop in hops):
                found.append(peer)
        return tuple(found)

    def own_lacks_ipv4_hop(self, peer: str) -> bool:
        """Whether our own session with a peer carries IPv4 routes, but no node has a next hop for them that can be
        announced, because RFC 8950 was not negotiated."""
        if peer not in self.peers or self.own not in self.capacity(peer, 4):
            return False
        reach = self._reach(peer, 4)
        return reach.lacks_extended(self.own) and not any(
            reach.address(self.own, node) for node in self.topology.usable
        )

    def _session_groups(self, peer: str, version: int) -> Mapping[int, str]:
        """For each group of replicas that can announce the same next hops, one replica with a session."""
        found = self._groups.get((peer, version))
        if found is None:
            reach = self._reach(peer, version)
            able = self.capacity(peer, version)
            found = {reach.group(replica): replica for replica in reversed(self.up.get(peer, ())) if replica in able}
            self._groups[peer, version] = found
        return found

    def sessions_seen(self, peers: frozenset[str]) -> SessionsSeen:
        """The state of the sessions with a set of peers, for its hold-down."""
        found = self._seen.get(peers)
        if found is None:
            found = self._seen[peers] = self._sessions_seen(peers)
        return found

    def _sessions_seen(self, peers: frozenset[str]) -> SessionsSeen:
        since = {replica: at for (replica, peer), at in self.sessions.items() if peer in peers}
        others = self.topology.replicas - {self.own}
        said = {name: holddown.heard(self.hold_downs.get(name, ()), peers) for name in others}
        return SessionsSeen(
            own=self.own in since,
            carried=bool(since),
            stable_since=min(since.values(), default=0.0),
            carriers=holddown.furthest(phase for name, phase in said.items() if name in since),
            others=holddown.furthest(said.values()),
        )

    def same_reach(self, other: Peering) -> bool:
        """Whether each replica can announce the same next hops to the same peers, if it has a session with them, and
        our sessions have the same negotiated values."""
        return (
            self.own == other.own
            and self.peers == other.peers
            and self.routers == other.routers
            and self.extended == other.extended
            and all(
                self.negotiated.get((self.own, peer)) == other.negotiated.get((self.own, peer)) for peer in self.peers
            )
            and (self.topology is other.topology or self.topology.same_segments(other.topology))
        )

    def handed_on(self, other: Peering) -> frozenset[str] | None:
        """The next hops that have other announcers than under ``other``, the previous value, with the same reach. None:
        BGP carries other VIPs, or the announcers of any VIP may differ."""
        if self is other or (self.speakers is other.speakers and self.negotiated is other.negotiated):
            return frozenset()
        if self._reachable() != other._reachable():
            return None
        found: set[str] = set()
        for peer in self.speakers:
            for version in (4, 6):
                able, before = self.capacity(peer, version), other.capacity(peer, version)
                if able == before:
                    continue
                if min(len(able), len(before)) <= announce.FEW or able.get(self.own) != before.get(self.own):
                    return None
                if self._least(peer, version) != other._least(peer, version):
                    return None
                then = other._announcers.get((peer, version)) or other._announcers_before.get((peer, version))
                if then is not None:
                    found |= self.announcers(peer, version).differing(then)
        return frozenset(found)

    def _reachable(self) -> dict[tuple[str, int], tuple[bool, frozenset[int]]]:
        """Whether any replica has a session, and the groups of replicas that have one, by peer and IP version:
        ``carried`` and ``not_carried`` depend on them."""
        return {
            (peer, version): (bool(self.up.get(peer)), frozenset(self._session_groups(peer, version)))
            for peer in self.peers
            for version in (4, 6)
        }


def peering(
    snapshot: Snapshot,
    topology: Topology,
    sessions: Sessions,
    now: float,
    before: tuple[Snapshot, Peering] | None = None,
) -> Peering:
    """``sessions``: as remembered from the last plan. ``before``: of the last plan. It is returned itself if nothing
    has changed that it depends on; what depends on the reach alone is reused if the reach is the same."""
    view = snapshot.view
    if before is not None:
        last, then = before
        if then.topology is topology and _session_inputs(snapshot) == _session_inputs(last):
            same = then.hold_downs == view.hold_downs
            return then if same else replace(then, hold_downs=view.hold_downs, _seen={})
    up: dict[str, list[str]] = {}
    live = {}
    for replica, peer in sorted(view.sessions):
        if replica in topology.replicas and peer in snapshot.peers:
            live[replica, peer] = sessions.get((replica, peer), now)
            up.setdefault(peer, []).append(replica)
    peers = {name: peer for name, peer in sorted(snapshot.peers.items()) if not peer.admin_down}
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
    if before is not None and (last.nodes, last.members, last.peers) == (
        snapshot.nodes,
        snapshot.members,
        snapshot.peers,
    ):
        by_peer = then.routers
    else:
        by_peer = {name: found for name, peer in peers.items() if (found := routers(peer, snapshot))}
    made = Peering(
        own=view.node,
        topology=topology,
        peers=peers,
        routers=by_peer,
        sessions=live,
        up={peer: tuple(found) for peer, found in up.items()},
        speakers=speakers,
        negotiated=view.negotiated,
        hold_downs=view.hold_downs,
        extended=_extended(speakers, view.negotiated, view.node),
    )
    if before is not None and made.same_reach(then):
        asked = {**then._announcers_before, **then._announcers}
        return replace(made, _reaches=then._reaches, _announcers_before=asked, _paths=then._paths)
    return made


def _extended(
    speakers: Mapping[str, tuple[str, ...]], negotiated: Mapping[tuple[str, str], Negotiated], own: str
) -> dict[str, frozenset[str]]:
    """By peer, the replicas whose session negotiated IPv6 next hops for IPv4 routes; as in ``Peering._agreed``, our
    session stands for those of which nothing is known."""
    able = {at for at, agreed in negotiated.items() if agreed.extended_next_hop}
    if not able:
        return {}
    return {
        peer: frozenset(
            name for name in names if (name, peer) in able or ((name, peer) not in negotiated and (own, peer) in able)
        )
        for peer, names in speakers.items()
    }


def _session_inputs(snapshot: Snapshot) -> tuple[object, ...]:
    """What sessions depend on, except nodes and members."""
    return snapshot.view.sessions, snapshot.view.negotiated, snapshot.peers, snapshot.conf
