"""What the plans of all VIPs have in common, worked out once a plan: usable nodes, segments, sessions, arrangements."""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from ipaddress import IPv4Address

from porterlb.core import announce, holddown, nexthops
from porterlb.core.desired import Neighbor, Path
from porterlb.core.holddown import ModePolicy, SessionsSeen
from porterlb.core.memory import Sessions
from porterlb.core.model import (
    Address,
    Eip,
    Endpoint,
    Peer,
    RouteAttributes,
    Service,
    Snapshot,
    TrafficPolicy,
)
from porterlb.core.nexthops import NextHops, Segments
from porterlb.core.problems import Problem, Reason


@dataclass(frozen=True, slots=True)
class Recipients:
    """The peers that a VIP is announced to. ``attributes``: what each gets; ``text``: the same on all replicas."""

    attributes: Mapping[str, RouteAttributes]
    names: frozenset[str]
    text: str


@dataclass(frozen=True, slots=True)
class Shared:
    """Shared by all VIPs of one plan. The caches hold results of pure functions of the context."""

    snapshot: Snapshot
    usable: frozenset[str]
    segments: Segments
    replicas: frozenset[str]
    peers: Mapping[str, Peer]
    speakers: Mapping[str, tuple[str, ...]]  # by peer: the replicas that announce to it
    sessions: Sessions
    now: float  # monotonic seconds
    policy: ModePolicy
    by_service: bool
    """Whether what a peer gets depends on the labels of Services."""
    unusable: Mapping[str, str] = field(default_factory=dict)
    """Why the other nodes are not usable, as clauses."""
    _hops: dict[tuple[TrafficPolicy, tuple[Endpoint, ...]], NextHops] = field(default_factory=dict)
    _arrangements: dict[tuple[str, int, tuple[str, ...], int], Mapping[str, tuple[str, ...]]] = field(
        default_factory=dict
    )
    _paths: dict[tuple[str, str, int, RouteAttributes], Path | None] = field(default_factory=dict)
    _recipients: dict[tuple[str, int], Recipients] = field(default_factory=dict)
    _carried: dict[tuple[frozenset[str], int, tuple[str, ...]], bool] = field(default_factory=dict)

    def hops(self, services: Sequence[Service], version: int) -> NextHops:
        """The next hops of a VIP that these Services share (one, mostly): those of any of them.

        ``version``: of the VIP. kube-proxy sends its traffic to the endpoints of that IP version only.
        """
        if len(services) == 1:
            return self._hops_of(services[0], version)
        found = [self._hops_of(service, version) for service in services]
        nodes = frozenset(node for hops in found for node in hops.nodes)
        endpoints = frozenset(node for hops in found for node in hops.endpoints)
        return NextHops(tuple(sorted(nodes)), endpoints, None if nodes else found[0].problem)

    def _hops_of(self, service: Service, version: int) -> NextHops:
        endpoints = self.snapshot.endpoints.get(service.key, ())
        if any(endpoint.version not in (0, version) for endpoint in endpoints):
            endpoints = tuple(endpoint for endpoint in endpoints if endpoint.version in (0, version))
        key = (service.traffic_policy, endpoints)
        found = self._hops.get(key)
        if found is None:
            found = self._hops[key] = nexthops.next_hops(*key, self.usable, self.unusable)
        return found

    def on_segment(self, eip: Eip, address: Address, order: tuple[str, ...]) -> tuple[str, ...] | None:
        """Those nodes of ``order`` that are on the segment of the VIP; None when it is on no segment of ours."""
        if eip.interface:
            return order
        subnet = self.segments.towards(eip.can_reach) if eip.can_reach else self.segments.of(address)
        if subnet is None:
            return None
        present = self.segments.nodes_on(subnet)
        return tuple(node for node in order if node in present)

    def arrangement(self, peer: str, address: Address, hops: tuple[str, ...]) -> Mapping[str, tuple[str, ...]]:
        """Next hops by replica, for one peer: see :func:`porterlb.core.announce.arrange`."""
        replicas = self.speakers[peer]
        ordered = tuple(sorted(hops))
        capacity = max(1, self.peers[peer].add_path)
        salt = int(address) % len(ordered) if capacity * len(replicas) < len(ordered) else 0
        key = (peer, address.version, ordered, salt)
        found = self._arrangements.get(key)
        if found is None:
            reach = self._reach(peer, address.version)
            found = self._arrangements[key] = announce.arrange(ordered, replicas, reach, capacity, salt)
        return found

    def _reach(self, peer: str, version: int) -> announce.Reach:
        return announce.Reach(self.peers[peer], version, self.segments.addresses, self.snapshot.members)

    def recipients(self, eip: Eip, version: int, services: Sequence[Service]) -> Recipients:
        """The peers that VIPs of ``eip`` and of these Services are announced to."""
        key = (eip.name, version)
        found = self._recipients.get(key)
        if found is None:
            attributes = {
                name: told
                for name, peer in self.peers.items()
                if version in peer.families and (told := announce.attributes_for(peer, eip, services)) is not None
            }
            found = Recipients(attributes, frozenset(attributes), str(sorted(attributes)))
            if not self.by_service:
                self._recipients[key] = found
        return found

    def carried(self, recipients: Recipients, version: int, hops: tuple[str, ...]) -> bool:
        """Whether a live replica has a session with one of these peers and can tell it one of these next hops."""
        key = (recipients.names, version, hops)
        found = self._carried.get(key)
        if found is None:
            found = self._carried[key] = any(self._carries(peer, version, hops) for peer in recipients.names)
        return found

    def _carries(self, peer: str, version: int, hops: tuple[str, ...]) -> bool:
        reach = self._reach(peer, version)
        up = [replica for replica, of in self.sessions if of == peer]
        return any(not hops or any(reach.address(replica, hop) for hop in hops) for replica in up)

    def recipient_sets(self) -> set[frozenset[str]]:
        """Every set of peers that a VIP of these Eips may be announced to, as far as Services do not matter."""
        return {
            self.recipients(eip, version, ()).names
            for eip in self.snapshot.eips.values()
            for version in {found.first.version for found in eip.ranges}
        }

    def sessions_seen(self, peers: frozenset[str]) -> SessionsSeen:
        """What is known of the sessions with a set of peers, for its hold-down."""
        view = self.snapshot.view
        since = {replica: at for (replica, peer), at in self.sessions.items() if peer in peers}
        others = self.replicas - {view.node}
        said = {name: holddown.heard(view.hold_downs.get(name, ()), peers) for name in others}
        return SessionsSeen(
            own=view.node in since,
            carried=bool(since),
            stable_since=min(since.values(), default=self.now),
            carriers=holddown.furthest(phase for name, phase in said.items() if name in since),
            others=holddown.furthest(said.values()),
        )

    def path(self, peer: str, node: str, version: int, attributes: RouteAttributes) -> Path | None:
        """How this replica announces ``node`` to ``peer``; None where it cannot."""
        key = (peer, node, version, attributes)
        if key not in self._paths:
            hop = self._reach(peer, version).address(self.snapshot.view.node, node)
            identifier = announce.path_id(hop) if hop and self.peers[peer].add_path > 1 else 0
            self._paths[key] = Path(peer, hop, identifier, attributes) if hop else None
        return self._paths[key]

    def like(self, other: Shared) -> bool:
        """Whether the plans of VIPs whose own objects are the same are the same under both."""
        return (
            self.usable == other.usable
            and self.unusable == other.unusable
            and self.replicas == other.replicas
            and self.speakers == other.speakers
            and self.sessions == other.sessions
            and self.peers == other.peers
            and self.snapshot.eips == other.snapshot.eips
            and self.segments == other.segments
            and self.snapshot.view.node == other.snapshot.view.node
            and self.snapshot.members == other.snapshot.members
            and self._cordoned() == other._cordoned()
        )

    def _cordoned(self) -> frozenset[str]:
        return frozenset(name for name, node in self.snapshot.nodes.items() if node.cordoned)


def shared_by_all(snapshot: Snapshot, sessions: Sessions, now: float, policy: ModePolicy) -> Shared:
    """``sessions``: as remembered from the last plan."""
    view = snapshot.view
    replicas = frozenset(view.fresh) | {view.node}
    live = {(replica, peer) for replica, peer in view.sessions if replica in replicas and peer in snapshot.peers}
    peers = {name: snapshot.peers[name] for name in sorted(snapshot.peers)}
    speakers = {}
    for name, peer in peers.items():
        able = {replica for replica, of in live if of == name}
        if _selects(peer, snapshot, view.node):
            # Ourselves even before our session is up: what we announce is then ready when it comes up, and the
            # End-of-RIB that follows the first routes does not flush what the router kept for us (RFC 4724).
            able.add(view.node)
        speakers[name] = tuple(sorted(able))
    unusable = nexthops.unusable_nodes(snapshot.nodes, view)
    return Shared(
        snapshot=snapshot,
        usable=frozenset(snapshot.nodes.keys() - unusable),
        unusable=unusable,
        segments=nexthops.segments(snapshot.nodes, snapshot.members),
        replicas=replicas,
        peers={name: peer for name, peer in peers.items() if not peer.admin_down},
        speakers=speakers,
        sessions={session: sessions.get(session, now) for session in live},
        now=now,
        policy=policy,
        by_service=any(rule.service_selector is not None for p in peers.values() for rule in p.advertise),
    )


def _selects(peer: Peer, snapshot: Snapshot, node: str) -> bool:
    if peer.node_selector is None:
        return True
    return node in snapshot.nodes and peer.node_selector.matches(snapshot.nodes[node].labels)


def own_neighbors(snapshot: Snapshot) -> tuple[dict[str, Neighbor], dict[str, tuple[Problem, ...]]]:
    """The sessions that this replica is to have, and why it cannot have others."""
    neighbors: dict[str, Neighbor] = {}
    problems: dict[str, tuple[Problem, ...]] = {}
    by_address: dict[Address, str] = {}
    conf = snapshot.conf
    for name, peer in sorted(snapshot.peers.items()):
        local_as = peer.local_as or conf.local_as
        if not local_as:
            problems[name] = (
                Problem(
                    Reason.NO_LOCAL_AS,
                    "No AS of our own is known: set spec.as of the BgpConf default, or spec.conf.localAs here.",
                    "spec.conf.localAs",
                ),
            )
            continue
        if peer.address in by_address:
            problems[name] = (
                Problem(
                    Reason.INVALID_FIELD,
                    f"BgpPeer {by_address[peer.address]} has the same address {peer.address} and is used instead.",
                    "spec.conf.neighborAddress",
                ),
            )
            continue
        by_address[peer.address] = name
        if not _selects(peer, snapshot, snapshot.view.node):
            continue
        neighbors[name] = Neighbor(
            peer=name,
            address=peer.address,
            peer_as=peer.peer_as,
            local_as=local_as,
            router_id=router_id(snapshot),
            local_address=peer.local_address,
            password=peer.password,
            multihop_ttl=peer.multihop_ttl,
            hold_time=peer.hold_time,
            keepalive=peer.keepalive,
            connect_retry=peer.connect_retry,
            passive=peer.passive,
            remote_port=peer.remote_port,
            graceful_restart=conf.graceful_restart if peer.graceful_restart is None else peer.graceful_restart,
            families=peer.families,
            add_path=peer.add_path > 1,
            admin_down=peer.admin_down,
        )
    return neighbors, problems


def router_id(snapshot: Snapshot) -> IPv4Address:
    """The BGP identifier of this replica (RFC 6286: unique within the AS, so one for all nodes will not do).

    The node's first IPv4 address; without one that of the BgpConf, else one made from the node's name.
    """
    node = snapshot.nodes.get(snapshot.view.node)
    address = node.address(4) if node else None
    if isinstance(address, IPv4Address):
        return address
    return snapshot.conf.router_id or IPv4Address(zlib.crc32(snapshot.view.node.encode()) or 1)
