"""Which replicas announce which next hop to a BGP peer.

A next hop is announced by replicas on other nodes, and by its own replica only if no other can. When a node dies, the
router keeps its session and everything that it announced until the hold time ends; other replicas withdraw at once.
"""

from __future__ import annotations

import zlib
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice

from porterlb.core.model import Address, Member, Network, Peer
from porterlb.core.nexthops import MOST, on_subnet
from porterlb.core.rendezvous import Ring, ranked
from porterlb.core.scope import scope_of, scoped

COPIES = 3
"""Replicas that announce one next hop, if there are enough: any two of them may be lost."""


@dataclass(frozen=True, slots=True)
class Reach:
    """Which next hop address of a node a replica may announce to one peer, for one IP version.

    A directly connected peer gets only next hops in the session's own subnet, because the router cannot resolve others.
    ``dead_on``: nodes with a subnet on which they are dead; no address there is announced. ``routers``: by replica,
    where nodes have different routers (spec.overrides, spec.interface). ``extended``: the replicas that may announce
    IPv6 next hops for IPv4 routes (RFC 8950). They do so if there is no IPv4 next hop.

    If the router has a link-local address, the subnets are those of its interface. If there are none, the link is
    unnumbered: each replica announces its own link-local address there, which is valid on that link alone.
    """

    peer: Peer
    version: int
    addresses: Mapping[str, tuple[Address, ...]]  # by node
    members: Mapping[str, Member]
    dead_on: frozenset[tuple[str, Network]] = frozenset()
    routers: Mapping[str, Address | None] = field(default_factory=dict)
    extended: frozenset[str] = frozenset()

    _groups: dict[str, int] = field(default_factory=dict, compare=False, repr=False)  # by replica
    _subnets: dict[object, int] = field(default_factory=dict, compare=False, repr=False)
    _found: dict[tuple[int, str], Address | None] = field(default_factory=dict, compare=False, repr=False)
    _kinds: dict[str, tuple[object, ...]] = field(default_factory=dict, compare=False, repr=False)  # by replica

    def group(self, replica: str) -> int:
        """The replica's group. Replicas of one group can announce the same next hops: they reach the router by the same
        subnets. Where the router belongs to one node, the group is that node's replica alone."""
        found = self._groups.get(replica)
        if found is None:
            alike: object = (self._session_subnets(replica), self._versions(replica))
            alike = replica if self.own_only(replica) else alike
            found = self._groups[replica] = self._subnets.setdefault(alike, len(self._subnets))
        return found

    def own_only(self, replica: str) -> bool:
        """Whether the router serves this node alone, so that only traffic for the node itself may be sent to it."""
        return self.peer.router_per_node or self._is_on(replica) or self._unnumbered(replica)

    def _unnumbered(self, replica: str) -> bool:
        """Whether the router is known by its link-local address alone, on a link without subnets."""
        router = self._router(replica)
        by_link = router.is_link_local if router is not None else bool(self.peer.interface)
        return by_link and not self._session_subnets(replica)

    def lacks_extended(self, replica: str) -> bool:
        """Whether IPv6 next hops for IPv4 routes are possible with the router, but were not negotiated (RFC 8950)."""
        router = self._router(replica)
        return router is not None and router.version == 6 and replica not in self.extended

    def _scope(self, replica: str) -> str:
        """The interface of a router with a link-local address."""
        return scope_of(self._router(replica))

    def _versions(self, replica: str) -> tuple[int, ...]:
        """IP versions that a next hop may have, the preferred one first."""
        return (4, 6) if self.version == 4 and replica in self.extended else (self.version,)

    def _is_on(self, replica: str) -> bool:
        """Whether the router is a daemon on the node itself."""
        member = self.members.get(replica)
        own = [interface.ip for interface in member.subnets] if member else []
        router = self._router(replica)
        return router is not None and (router.is_loopback or router in own)

    def _router(self, replica: str) -> Address | None:
        return self.routers.get(replica, self.peer.address)

    def alike(self, other: Reach, replicas: Iterable[str]) -> bool:
        """Whether these replicas can announce the same next hops under both."""
        return (self.version, self.addresses, self.members, self.dead_on) == (
            other.version,
            other.addresses,
            other.members,
            other.dead_on,
        ) and all(self._kind(replica) == other._kind(replica) for replica in replicas)

    def _kind(self, replica: str) -> tuple[object, ...]:
        """What the next hops that a replica can announce depend on, besides the nodes."""
        found = self._kinds.get(replica)
        if found is None:
            found = (self.own_only(replica), self._is_on(replica), self._session_subnets(replica))
            self._kinds[replica] = found
        return found

    def address(self, replica: str, node: str) -> Address | None:
        """The next hop address of ``node`` as ``replica`` would announce it, or None."""
        key = (self.group(replica), node)
        if key not in self._found:
            self._found[key] = self._address(replica, node)
        return self._found[key]

    def _address(self, replica: str, node: str) -> Address | None:
        if replica != node and self.own_only(replica):
            return None
        dead = [subnet for name, subnet in self.dead_on if name == node]
        if self._unnumbered(replica):
            return self._link_local(replica)
        there = self.addresses.get(node, ())
        own = [address for version in self._versions(replica) for address in there if address.version == version]
        own = [address for address in own if not any(on_subnet([address], subnet) for subnet in dead)]
        if not own or self.peer.multihop_ttl or self._is_on(replica):
            return own[0] if own else None
        subnets = self._session_subnets(replica)
        if not subnets:
            return own[0]
        return next((a for a in own if any(on_subnet([a], subnet) for subnet in subnets)), None)

    def _link_local(self, replica: str) -> Address | None:
        """The link-local address of a replica's node on the interface of its router."""
        member, scope = self.members.get(replica), self._scope(replica)
        if member is None or 6 not in self._versions(replica):
            return None
        return next((scoped(at.ip, scope) for at in member.on(scope) if at.version == 6 and at.is_link_local), None)

    def _session_subnets(self, replica: str) -> tuple[Network, ...]:
        member = self.members.get(replica)
        if member is None or self.peer.multihop_ttl:
            return ()
        router, scope = self._router(replica), self._scope(replica)
        connected = [interface.network for interface in (member.on(scope) if scope else member.subnets)]
        found: list[Network] = []
        for version in self._versions(replica):
            if router is not None and version == router.version and not scope:
                found += [n for n in connected if router in n]
            else:
                # The other IP version over this session, or a router with a link-local address: every connected subnet
                # except host routes and link-local ones.
                found += [
                    n
                    for n in connected
                    if n.version == version and n.prefixlen < n.max_prefixlen and not n.is_link_local
                ]
        return tuple(found)


FEW = 16
"""Up to this number of replicas at a peer, the best arrangement is searched. Above it, each next hop has its own
announcers."""

_CHOICES = MOST
"""Replicas that may announce one next hop: as many as a VIP has next hops. Thus each of its next hops finds a replica,
also if a replica can announce only one."""


class Announcers:
    """Which replicas announce each next hop to one peer that many replicas can reach: a few that follow it on a ring.

    The choice for a next hop does not depend on the VIP. Therefore a VIP adds almost no work, and the loss of a replica
    affects only the next hops that it may announce.
    """

    def __init__(self, reach: Reach, replicas: Sequence[str], before: Announcers | None = None) -> None:
        """``before``: with an equal ``reach``. Its results that still hold are reused."""
        self._reach = reach
        self._replicas = frozenset(replicas)
        self._ring = Ring(replicas)
        self._found: dict[str, tuple[str, ...]] = {}
        self._own: dict[str, frozenset[str]] = {}
        self._last: tuple[object, ...] = ()
        self._last_share: tuple[str, ...] = ()
        if before is not None and self._replicas <= before._replicas:
            gone = before._replicas - self._replicas
            self._found = {hop: found for hop, found in before._found.items() if gone.isdisjoint(found)}

    def of(self, hop: str) -> tuple[str, ...]:
        """Replicas that may announce ``hop``, best first. More than needed, because some may have no capacity left."""
        found = self._found.get(hop)
        if found is None:
            found = self._found[hop] = tuple(islice(self._able(hop), _CHOICES))
        return found

    def _able(self, hop: str) -> Iterator[str]:
        """Every replica that can announce ``hop``, best first; its own replica only if no other can."""
        others = False
        for replica in self._ring.after(hop):
            if replica != hop and self._reach.address(replica, hop) is not None:
                others = True
                yield replica
        if not others and hop in self._replicas and self._reach.address(hop, hop) is not None:
            yield hop

    def differing(self, other: Announcers) -> set[str]:
        """The next hops that have other announcers than under ``other``."""
        return {hop for hop, found in other._found.items() if self.of(hop) is not found and self.of(hop) != found}

    def serves(self, reach: Reach, replicas: Sequence[str]) -> bool:
        """Whether these replicas at another peer (``reach``) have the same announcers."""
        return self._replicas == frozenset(replicas) and self._reach.alike(reach, self._replicas)

    def own(self, replica: str) -> frozenset[str]:
        """The next hops that ``replica`` may announce."""
        found = self._own.get(replica)
        if found is None:
            found = frozenset(hop for hop in self._reach.addresses if replica in self.of(hop))
            self._own[replica] = found
        return found

    def share(self, replica: str, hops: tuple[str, ...], capacity: int) -> tuple[str, ...]:
        """What ``replica`` announces: its part of :meth:`arrange`, computed for this replica only. It is called for
        every VIP, and with the same arguments for each peer that has the same announcers."""
        key = (replica, hops, capacity)
        if self._last != key:
            self._last_share = self._share(replica, hops, capacity)
            self._last = key
        return self._last_share

    def _share(self, replica: str, hops: tuple[str, ...], capacity: int) -> tuple[str, ...]:
        may = self.own(replica)
        if may.isdisjoint(hops):
            return ()
        if capacity >= len(hops):  # no replica is ever full
            return tuple([hop for hop in hops if hop in may and replica in self.of(hop)[:COPIES]])
        if capacity > 1:
            return self.arrange(hops, capacity).get(replica, ())
        taken = self._each_once(hops)
        if taken is None:
            return self.arrange(hops, capacity).get(replica, ())
        if replica not in taken:
            self._copies(hops, taken, replica)
        return (taken[replica],) if replica in taken else ()

    def _each_once(self, hops: Iterable[str]) -> dict[str, str] | None:
        """One next hop by replica, if each replica can announce only one: a replica for each next hop. None: some next
        hop finds none, unless others move."""
        taken: dict[str, str] = {}
        for hop in hops:
            for replica in self._found.get(hop) or self.of(hop):
                if replica not in taken:
                    taken[replica] = hop
                    break
            else:
                return None
        return taken

    def _copies(self, hops: Iterable[str], taken: dict[str, str], until: str = "") -> None:
        """Adds further replicas for each next hop to the result of :meth:`_each_once`, until ``until`` has one."""
        for hop in hops:
            copies = 1
            for replica in self._found[hop]:
                if replica not in taken:
                    taken[replica] = hop
                    copies += 1
                    if replica == until:
                        return
                    if copies >= COPIES:
                        break

    def arrange(self, hops: Sequence[str], capacity: int) -> dict[str, tuple[str, ...]]:
        """Next hops by replica: each is covered once where possible, then up to COPIES times."""
        if capacity == 1:
            single = self._each_once(hops)
            if single is not None:
                self._copies(hops, single)
                return {replica: (hop,) for replica, hop in single.items()}
        taken: defaultdict[str, list[str]] = defaultdict(list)
        choices = {hop: self.of(hop) for hop in hops}
        full: set[str] = set()
        uncovered = []
        for hop, able in choices.items():
            for replica in able:
                if replica not in full:
                    taken[replica].append(hop)
                    if len(taken[replica]) >= capacity:
                        full.add(replica)
                    break
            else:
                uncovered.append(hop)
        if uncovered:
            each = dict.fromkeys(self._replicas, capacity)
            for hop in uncovered:
                _place(hop, choices, taken, each, set())
            full = {replica for replica, held in taken.items() if len(held) >= capacity}
        for hop, able in choices.items():
            copies = 1
            for replica in able:
                if replica in full or hop in taken[replica]:
                    continue
                taken[replica].append(hop)
                if len(taken[replica]) >= capacity:
                    full.add(replica)
                copies += 1
                if copies >= COPIES:
                    break
        return {replica: tuple(held) for replica, held in taken.items() if held}


class Arrangement(Mapping[str, tuple[str, ...]]):
    """Next hops by replica, computed on first use: with many replicas it is large and seldom read."""

    __slots__ = ("_announcers", "_capacity", "_hops")

    def __init__(self, announcers: Announcers, hops: tuple[str, ...], capacity: int) -> None:
        self._announcers, self._hops, self._capacity = announcers, hops, capacity

    def own(self, replica: str) -> tuple[str, ...]:
        """What ``replica`` announces."""
        return self._announcers.share(replica, self._hops, self._capacity)

    def _arranged(self) -> dict[str, tuple[str, ...]]:
        return self._announcers.arrange(self._hops, self._capacity)

    def __getitem__(self, replica: str) -> tuple[str, ...]:
        return self._arranged()[replica]

    def __iter__(self) -> Iterator[str]:
        return iter(self._arranged())

    def __len__(self) -> int:
        return len(self._arranged())

    def __eq__(self, other: object) -> bool:
        if isinstance(other, Arrangement) and other._announcers is self._announcers:
            return (self._hops, self._capacity) == (other._hops, other._capacity)
        return isinstance(other, Mapping) and self._arranged() == dict(other)

    __hash__ = None  # type: ignore[assignment]


def arrange(
    next_hops: Sequence[str], replicas: Sequence[str], reach: Reach, capacity: Mapping[str, int], salt: int = 0
) -> dict[str, tuple[str, ...]]:
    """Next hops by replica: as many next hops as possible are covered, then each gets up to COPIES announcers.

    ``capacity``: by replica, the number of next hops that it can announce for one prefix (1 without add-path). ``salt``
    rotates the order, so that different VIPs use different nodes if not all fit. Replicas with the same input get the
    same result.
    """
    if not next_hops or not replicas:
        return {}
    turn = salt % len(next_hops)
    hops = [*next_hops[turn:], *next_hops[:turn]]
    choices: dict[str, list[str]] = {}
    for hop in hops:
        able = [replica for replica in replicas if reach.address(replica, hop) is not None]
        others = [replica for replica in able if replica != hop]
        choices[hop] = list(ranked(hop, others)) if others else [replica for replica in able if replica == hop]
    taken: dict[str, list[str]] = {replica: [] for replica in replicas}
    for hop in hops:
        _place(hop, choices, taken, capacity, set())
    for hop in hops:
        copies = sum(hop in held for held in taken.values())
        for replica in choices[hop]:
            if copies >= COPIES:
                break
            if hop not in taken[replica] and len(taken[replica]) < capacity[replica]:
                taken[replica].append(hop)
                copies += 1
    return {replica: tuple(held) for replica, held in taken.items() if held}


def _place(
    hop: str,
    choices: Mapping[str, Sequence[str]],
    taken: dict[str, list[str]],
    capacity: Mapping[str, int],
    seen: set[str],
) -> bool:
    """One augmenting step of bipartite matching (Kuhn): finds a replica for ``hop`` and moves other hops if
    necessary."""
    for replica in sorted(choices[hop], key=lambda name: len(taken[name])):
        if replica in seen:
            continue
        seen.add(replica)
        if len(taken[replica]) < capacity[replica]:
            taken[replica].append(hop)
            return True
        for other in list(taken[replica]):
            if _place(other, choices, taken, capacity, seen):
                taken[replica].remove(other)
                taken[replica].append(hop)
                return True
    return False


def path_id(address: Address) -> int:
    """The add-path identifier (RFC 7911) of a next hop: 32 bits, never 0, the same on every replica."""
    return (int(address) if address.version == 4 else zlib.crc32(address.packed)) or 1
