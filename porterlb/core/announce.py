"""Who announces which next hop to a BGP peer.

A next hop is announced by replicas on other nodes, and by its own replica only when no other can: a dead node's
session lives on at the router until the hold time, with everything that it announced, while others withdraw at once.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from porterlb.core.model import Address, AdvertiseRule, Eip, Member, Network, Peer, RouteAttributes, Service
from porterlb.core.nexthops import on_subnet
from porterlb.core.rendezvous import ranked

COPIES = 3
"""So many replicas announce one next hop, where there are enough: any two of them may be lost."""


def attributes_for(peer: Peer, eip: Eip, services: Iterable[Service]) -> RouteAttributes | None:
    """What ``peer`` is to get with VIPs of ``eip`` and ``services``; None: nothing is announced to it."""
    if not peer.advertise:
        return RouteAttributes()
    labels = [service.labels for service in services]
    for rule in peer.advertise:
        if _matches(rule, eip, labels):
            return rule.attributes
    return None


def _matches(rule: AdvertiseRule, eip: Eip, services: Sequence[Mapping[str, str]]) -> bool:
    if rule.eips and eip.name not in rule.eips:
        return False
    if rule.eip_selector is not None and not rule.eip_selector.matches(eip.labels):
        return False
    selector = rule.service_selector
    return selector is None or any(selector.matches(labels) for labels in services)


@dataclass(frozen=True, slots=True)
class Reach:
    """Which next hop address of a node a replica may announce to one peer, for one IP version.

    To a directly connected peer only next hops in the session's own subnet: the router could not resolve others.
    """

    peer: Peer
    version: int
    addresses: Mapping[str, tuple[Address, ...]]  # by node
    members: Mapping[str, Member]

    def address(self, replica: str, node: str) -> Address | None:
        """The next hop address of ``node`` as ``replica`` would announce it, or None."""
        own = [address for address in self.addresses.get(node, ()) if address.version == self.version]
        if not own or self.peer.multihop_ttl:
            return own[0] if own else None
        subnets = self._session_subnets(replica)
        if not subnets:
            return own[0]
        return next((a for a in own if any(on_subnet([a], subnet) for subnet in subnets)), None)

    def _session_subnets(self, replica: str) -> tuple[Network, ...]:
        member = self.members.get(replica)
        if member is None:
            return ()
        connected = [interface.network for interface in member.subnets]
        if self.version == self.peer.address.version:
            return tuple(n for n in connected if self.peer.address in n)
        # The other family over this session: any connected subnet of that family but host routes and link-local.
        return tuple(
            n for n in connected if n.version == self.version and n.prefixlen < n.max_prefixlen and not n.is_link_local
        )


def arrange(
    next_hops: Sequence[str], replicas: Sequence[str], reach: Reach, capacity: int, salt: int = 0
) -> dict[str, tuple[str, ...]]:
    """Next hops by replica: as many next hops covered as can be, then up to COPIES announcers each.

    ``capacity``: how many next hops one replica can announce for one prefix (1 without add-path). ``salt`` turns the
    order, so that different VIPs use different nodes where not all fit. The same on all replicas that see the same.
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
            if hop not in taken[replica] and len(taken[replica]) < capacity:
                taken[replica].append(hop)
                copies += 1
    return {replica: tuple(held) for replica, held in taken.items() if held}


def _place(hop: str, choices: dict[str, list[str]], taken: dict[str, list[str]], capacity: int, seen: set[str]) -> bool:
    """One augmenting step of bipartite matching (Kuhn): finds a replica for ``hop``, moving others if it must."""
    for replica in sorted(choices[hop], key=lambda name: len(taken[name])):
        if replica in seen:
            continue
        seen.add(replica)
        if len(taken[replica]) < capacity:
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
