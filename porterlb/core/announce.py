"""Which replicas announce which next hop to a BGP peer.

A next hop is announced by replicas on other nodes, and by its own replica only if no other can. When a node dies, the
router keeps its session and everything that it announced until the hold time ends; other replicas withdraw at once.
"""

from __future__ import annotations

import zlib
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice

from porterlb.core.model import Address, Member, Network, Peer
from porterlb.core.nexthops import on_subnet
from porterlb.core.rendezvous import Ring, ranked

COPIES = 3
"""Replicas that announce one next hop, if there are enough: any two of them may be lost."""


@dataclass(frozen=True, slots=True)
class Reach:
    """Which next hop address of a node a replica may announce to one peer, for one IP version.

    A directly connected peer gets only next hops in the session's own subnet, because the router cannot resolve others.
    ``dead_on``: nodes with a subnet on which they are dead; no address there is announced. ``routers``: by replica,
    where nodes have different routers (spec.overrides).
    """

    peer: Peer
    version: int
    addresses: Mapping[str, tuple[Address, ...]]  # by node
    members: Mapping[str, Member]
    dead_on: frozenset[tuple[str, Network]] = frozenset()
    routers: Mapping[str, Address | None] = field(default_factory=dict)

    _groups: dict[str, int] = field(default_factory=dict, compare=False, repr=False)  # by replica
    _subnets: dict[object, int] = field(default_factory=dict, compare=False, repr=False)
    _found: dict[tuple[int, str], Address | None] = field(default_factory=dict, compare=False, repr=False)

    def group(self, replica: str) -> int:
        """The replica's group. Replicas of one group can announce the same next hops: they reach the router by the same
        subnets. Where the router belongs to one node, the group is that node's replica alone."""
        found = self._groups.get(replica)
        if found is None:
            alike: object = replica if self.own_only(replica) else self._session_subnets(replica)
            found = self._groups[replica] = self._subnets.setdefault(alike, len(self._subnets))
        return found

    def own_only(self, replica: str) -> bool:
        """Whether the router serves this node alone, so that only traffic for the node itself may be sent to it."""
        return self.peer.router_per_node or self._is_on(replica)

    def _is_on(self, replica: str) -> bool:
        """Whether the router is a daemon on the node itself."""
        member = self.members.get(replica)
        own = [interface.ip for interface in member.subnets] if member else []
        router = self._router(replica)
        return router is not None and (router.is_loopback or router in own)

    def _router(self, replica: str) -> Address | None:
        return self.routers.get(replica, self.peer.address)

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
        own = [address for address in self.addresses.get(node, ()) if address.version == self.version]
        own = [address for address in own if not any(on_subnet([address], subnet) for subnet in dead)]
        if not own or self.peer.multihop_ttl or self._is_on(replica):
            return own[0] if own else None
        subnets = self._session_subnets(replica)
        if not subnets:
            return own[0]
        return next((a for a in own if any(on_subnet([a], subnet) for subnet in subnets)), None)

    def _session_subnets(self, replica: str) -> tuple[Network, ...]:
        member = self.members.get(replica)
        if member is None or self.peer.multihop_ttl:
            return ()
        connected = [interface.network for interface in member.subnets]
        router = self._router(replica)
        if router is not None and self.version == router.version:
            return tuple(n for n in connected if router in n)
        # The other IP version over this session: every connected subnet of it except host routes and link-local ones.
        return tuple(
            n for n in connected if n.version == self.version and n.prefixlen < n.max_prefixlen and not n.is_link_local
        )


FEW = 16
"""Up to this number of replicas at a peer, the best arrangement is searched. Above it, each next hop has its own
announcers."""

_CHOICES = 3 * COPIES


class Announcers:
    """Which replicas announce each next hop to one peer that many replicas can reach: a few that follow it on a ring.

    The choice for a next hop does not depend on the VIP. Therefore a VIP adds almost no work, and the loss of a replica
    affects only the next hops that it announces.
    """

    def __init__(self, reach: Reach, replicas: Sequence[str], before: Announcers | None = None) -> None:
        """``before``: with an equal ``reach``. Its results that still hold are reused."""
        self._reach = reach
        self._replicas = frozenset(replicas)
        self._ring = Ring(replicas)
        self._found: dict[str, tuple[str, ...]] = {}
        self._own: dict[str, frozenset[str]] = {}
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

    def own(self, replica: str) -> frozenset[str]:
        """The next hops that ``replica`` may announce."""
        found = self._own.get(replica)
        if found is None:
            found = frozenset(hop for hop in self._reach.addresses if replica in self.of(hop))
            self._own[replica] = found
        return found

    def arrange(self, hops: Sequence[str], capacity: int) -> dict[str, tuple[str, ...]]:
        """Next hops by replica: each is covered once where possible, then up to COPIES times."""
        taken: defaultdict[str, list[str]] = defaultdict(list)
        copies = dict.fromkeys(hops, 1)
        uncovered = []
        for hop in hops:
            replica = next((one for one in self.of(hop) if len(taken[one]) < capacity), None)
            if replica is None:
                uncovered.append(hop)
            else:
                taken[replica].append(hop)
        each = dict.fromkeys(self._replicas, capacity) if uncovered else {}
        for choose in (self.of, self._able) if uncovered else ():
            choices = {hop: list(choose(hop)) for hop in hops}
            uncovered = [hop for hop in uncovered if not _place(hop, choices, taken, each, set())]
        for hop in hops:
            for replica in self.of(hop):
                if copies[hop] >= COPIES:
                    break
                held = taken[replica]
                if len(held) < capacity and hop not in held:
                    held.append(hop)
                    copies[hop] += 1
        return {replica: tuple(held) for replica, held in taken.items() if held}


class Arrangement(Mapping[str, tuple[str, ...]]):
    """Next hops by replica, computed on first use: with many replicas it is large and seldom read."""

    __slots__ = ("_announcers", "_capacity", "_hops")

    def __init__(self, announcers: Announcers, hops: tuple[str, ...], capacity: int) -> None:
        self._announcers, self._hops, self._capacity = announcers, hops, capacity

    def own(self, replica: str) -> tuple[str, ...]:
        """What ``replica`` announces."""
        if self._announcers.own(replica).isdisjoint(self._hops):
            return ()
        return self._arranged().get(replica, ())

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
    hop: str, choices: dict[str, list[str]], taken: dict[str, list[str]], capacity: Mapping[str, int], seen: set[str]
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
