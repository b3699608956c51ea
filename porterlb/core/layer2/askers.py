"""The askers of spread VIPs: which host of a segment uses which node as its next hop for which VIP.

An asker is identified by its MAC: a neighbour cache has one entry for each VIP, whichever of its addresses the host
asks from. All replicas keep the same table: each tells the others its assignments, and of two assignments for one asker
the one with the higher stamp counts. Stamps are a Lamport clock: a later event has a higher stamp on every replica.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Iterator, Mapping
from hashlib import blake2b

from porterlb.core.hello import Assignment

MOST = 4096
"""Maximum number of assignments, of all VIPs together. Beyond it the oldest ones are dropped. A host whose assignment
was dropped keeps its neighbour entry. It is assigned again when it asks, and it is not told when its node dies."""

Key = tuple[bytes, bytes]
"""A packed VIP, and the MAC of an asker."""


def order(vip: bytes, asker: bytes, nodes: Iterable[str]) -> list[str]:
    """``nodes`` in the rendezvous order for one asker of one VIP: the same on every replica."""
    key = vip + asker
    weighed = [(blake2b(node.encode(), digest_size=8, key=key, person=b"plb-asker").digest(), node) for node in nodes]
    return [node for _, node in sorted(weighed, reverse=True)]


def place(vip: bytes, askers: Iterable[bytes], nodes: Iterable[str], loads: Mapping[str, int]) -> dict[bytes, str]:
    """A node for each asker: the first in the asker's order that has less than an equal share.

    The result depends on the values only. A node with the mean (rounded up) or more gets no asker.

    Args:
        nodes: the nodes that may get askers; without any, the result is empty.
        loads: number of askers by node before this call.
    """
    names = frozenset(nodes)
    if not names:
        return {}
    carried = {name: loads.get(name, 0) for name in names}
    total = sum(carried.values())
    found: dict[bytes, str] = {}
    for asker in sorted(askers):
        total += 1
        most = -(-total // len(names))
        chosen = next(name for name in order(vip, asker, names) if carried[name] < most)
        carried[chosen] += 1
        found[asker] = chosen
    return found


def counts(one: Assignment, other: Assignment) -> bool:
    """Whether ``one`` takes precedence over ``other``, of the same asker. All replicas use the same rule."""
    if one.stamp != other.stamp or one.node == other.node:
        return one.stamp > other.stamp
    return order(one.vip, one.asker, (one.node, other.node))[0] == one.node


class AskerTable:
    """The newest assignment for each asker. Times: monotonic seconds of this replica.

    ``clock``: the highest stamp seen.
    """

    def __init__(self, most: int = MOST) -> None:
        self._most = most
        self._by_vip: dict[bytes, dict[bytes, Assignment]] = {}
        self._loads: dict[bytes, dict[str, int]] = {}
        self._heard: dict[Key, float] = {}  # when an assignment last arrived, or was renewed
        self._oldest: list[tuple[int, bytes, bytes]] = []  # heap of stamp, VIP, asker; may hold outdated entries
        self._dropped = 0  # highest stamp that was dropped because the table was full
        self.clock = 0

    def __len__(self) -> int:
        return len(self._heard)

    def __iter__(self) -> Iterator[Assignment]:
        """All assignments, in the same order on all replicas."""
        for vip in sorted(self._by_vip):
            askers = self._by_vip[vip]
            yield from (askers[asker] for asker in sorted(askers))

    def of(self, vip: bytes) -> Mapping[bytes, Assignment]:
        """The assignments of a VIP by asker."""
        return self._by_vip.get(vip, {})

    def get(self, vip: bytes, asker: bytes) -> Assignment | None:
        return self._by_vip.get(vip, {}).get(asker)

    def loads(self, vip: bytes) -> Mapping[str, int]:
        """The number of askers of a VIP by node."""
        return self._loads.get(vip, {})

    def heard(self, vip: bytes, asker: bytes) -> float:
        """When the assignment last arrived, or was renewed."""
        return self._heard[vip, asker]

    def take(self, new: Assignment, now: float) -> tuple[bool, Key | None]:
        """Stores an assignment if it counts. Returns whether it did, and the asker dropped to make room."""
        self.clock = max(self.clock, new.stamp)
        old = self.get(new.vip, new.asker)
        if (old is None and new.stamp <= self._dropped) or (old is not None and not counts(new, old)):
            return False, None
        self._by_vip.setdefault(new.vip, {})[new.asker] = new
        if old is not None:
            self._shift(old, -1)
        self._shift(new, 1)
        self._heard[new.vip, new.asker] = now
        heapq.heappush(self._oldest, (new.stamp, new.vip, new.asker))
        dropped = self._drop() if len(self._heard) > self._most else None
        if len(self._oldest) > 4 * self._most:
            self._oldest = [(one.stamp, one.vip, one.asker) for one in self]
            heapq.heapify(self._oldest)
        return True, dropped

    def forget(self, vip: bytes) -> None:
        """Drops the askers of a VIP."""
        for asker in self._by_vip.pop(vip, {}):
            del self._heard[vip, asker]
        self._loads.pop(vip, None)

    def _drop(self) -> Key | None:
        while self._oldest:
            stamp, vip, asker = heapq.heappop(self._oldest)
            found = self.get(vip, asker)
            if found is not None and found.stamp == stamp:
                self._dropped = max(self._dropped, stamp)
                del self._by_vip[vip][asker], self._heard[vip, asker]
                self._shift(found, -1)
                if not self._by_vip[vip]:
                    del self._by_vip[vip]
                return vip, asker
        return None

    def _shift(self, one: Assignment, by: int) -> None:
        loads = self._loads.setdefault(one.vip, {})
        loads[one.node] = loads.get(one.node, 0) + by
        if not loads[one.node]:
            del loads[one.node]
        if not loads:
            del self._loads[one.vip]
