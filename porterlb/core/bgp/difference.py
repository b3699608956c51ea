"""The difference between the wanted routes and the routes that ExaBGP has: what must still be sent to it.

This module does no I/O. The order of the work guarantees that changes of what a router uses now go first, that a small
change never waits for a big one, and that the new path of a moving VIP is announced before its last path is withdrawn.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from enum import IntEnum

from porterlb.core.desired import Path, Prefix

Slot = tuple[str, int]  # peer, path identifier: at most one path of a prefix in each slot


class Urgency(IntEnum):
    """Lower goes first."""

    URGENT = 0  # withdrawals and changes of routes that a router uses now
    AFTER = 1  # withdrawals of a router's last path to a prefix whose new path must be announced first
    NEW = 2  # routes that a router does not have yet


@dataclass(frozen=True, slots=True)
class Batch:
    """The content of one command line. ``path``: the path announced or withdrawn."""

    path: Path
    prefixes: tuple[Prefix, ...]
    withdraw: bool = False


_NONE: AbstractSet[Prefix] = frozenset()
_Group = tuple[Urgency, int, bool, Path]  # urgency, generation, withdraw, path


@dataclass(slots=True)
class Difference:
    """Wanted routes, routes that ExaBGP has, and the work between them. An update costs only as much as what changed.

    ``rejected`` routes are not tried again until the wanted route changes, or the peer is resynced.
    """

    routes: Mapping[Path, AbstractSet[Prefix]] = field(default_factory=dict)
    peers: frozenset[str] = frozenset()
    rejected: dict[tuple[Path, Prefix], str] = field(default_factory=dict)
    _target: dict[Slot, dict[Prefix, Path]] = field(default_factory=dict)
    _has: dict[Slot, dict[Prefix, Path]] = field(default_factory=dict)
    _unsure: dict[Slot, set[Prefix]] = field(default_factory=dict)  # subset of _has: may or may not be in ExaBGP
    _slots: dict[str, set[Slot]] = field(default_factory=dict)
    _work: dict[_Group, dict[Prefix, None]] = field(default_factory=dict)
    _split: list[Batch] = field(default_factory=list)
    generation: int = 0
    """Rises whenever the order of the work may have changed."""

    def want(self, routes: Mapping[Path, AbstractSet[Prefix]]) -> None:
        """Replaces the whole wanted set. If two paths conflict (same slot and prefix), one of them counts."""
        self.generation += 1
        changed: dict[Slot, set[Prefix]] = {}
        differing = []
        for path in self.routes.keys() | routes.keys():
            old, new = self.routes.get(path, _NONE), routes.get(path, _NONE)
            if old is not new and old != new:
                differing.append(path)
        # Sorted: the order of the work must not depend on the hashes of the paths, which differ between processes.
        for path in sorted(differing, key=_order):
            old, new = self.routes.get(path, _NONE), routes.get(path, _NONE)
            slot = (path.peer, path.path_id)
            target = self._target.setdefault(slot, {})
            self._slots.setdefault(path.peer, set()).add(slot)
            for prefix in old - new:
                if target.get(prefix) == path:
                    del target[prefix]
                self.rejected.pop((path, prefix), None)
            changed.setdefault(slot, set()).update(old ^ new)
        # After all removals: a prefix that moves between paths of one slot is removed from one and added to the other.
        for path in sorted(routes, key=_order):
            slot = (path.peer, path.path_id)
            touched = changed.get(slot)
            if touched:
                target, prefixes = self._target[slot], routes[path]
                smaller, larger = (touched, prefixes) if len(touched) < len(prefixes) else (prefixes, touched)
                for prefix in smaller:
                    if prefix in larger:
                        target.setdefault(prefix, path)
        self.routes = routes
        for slot, nets in changed.items():
            self._queue(slot, nets)

    def set_peers(self, peers: frozenset[str]) -> None:
        """Sets the peers that ExaBGP has configured. New peers have no routes yet; removed peers have none left."""
        self.generation += 1
        changed = self.peers ^ peers
        new = peers - self.peers
        self.peers = peers
        for peer in changed:
            self._drop_work(peer)
            for slot in self._slots.get(peer, ()):
                self._has.pop(slot, None)
                self._unsure.pop(slot, None)
        for peer in new:
            self.resync(peer)

    def has_path_ids(self, peer: str, version: int) -> bool:
        """Whether ExaBGP has routes of this peer and IP version that only add-path can distinguish."""
        return any(
            path.version == version
            for slot in self._slots.get(peer, ())
            if slot[1]
            for path in self._has.get(slot, {}).values()
        )

    def has_extended(self, peer: str) -> bool:
        """Whether ExaBGP has IPv4 routes with an IPv6 next hop for this peer."""
        return any(path.extended for slot in self._slots.get(peer, ()) for path in self._has.get(slot, {}).values())

    def cleared(self, peer: str) -> None:
        """ExaBGP has withdrawn all routes from this peer: the wanted ones must be announced again."""
        for slot in self._slots.get(peer, ()):
            self._has.pop(slot, None)
            self._unsure.pop(slot, None)
        self.resync(peer)

    def resync(self, peer: str) -> None:
        """Sends all routes of this peer again: ExaBGP may have lost some of them."""
        self.generation += 1
        self._drop_work(peer)
        for key in [key for key in self.rejected if key[0].peer == peer]:
            del self.rejected[key]
        for slot in self._slots.get(peer, ()):
            has = self._has.get(slot, {})
            self._unsure[slot] = set(has)
            self._queue(slot, self._target.get(slot, {}).keys() | has.keys())

    def busy(self, peer: str | None = None) -> bool:
        """Whether any work is left (for this peer)."""
        if peer is None:
            return bool(self._work or self._split)
        return any(key[3].peer == peer for key in self._work) or any(b.path.peer == peer for b in self._split)

    def next(self, most: int) -> Batch | None:
        """The most urgent work, at most ``most`` prefixes. The caller then calls done, failed or unsure."""
        while self._work or self._split:
            key = min(self._work, key=lambda k: (k[0], len(self._work[k]), -k[1]), default=None)
            if self._split and (key is None or key[0] is not Urgency.URGENT):
                batch = self._split.pop()
            else:
                assert key is not None
                group = self._work[key]
                batch = Batch(key[3], tuple(itertools.islice(group, most)), key[2])
                for prefix in batch.prefixes:
                    del group[prefix]
                if not group:
                    del self._work[key]
            batch = self._current(batch)
            if batch.prefixes:
                return batch
        return None

    def give_back(self, batch: Batch) -> None:
        """The batch was not sent: it is queued again, as far as it is still wanted. Halves of a refused batch go first:
        this batch may withdraw a last path, and the halves may announce the path that must exist before that."""
        if batch.path.peer in self.peers:
            self._split.insert(0, batch)

    def done(self, batch: Batch) -> None:
        """ExaBGP acknowledged the batch. If other paths of its prefixes have become wanted since, these are queued."""
        slot = (batch.path.peer, batch.path.path_id)
        has, unsure = self._has.setdefault(slot, {}), self._unsure.setdefault(slot, set())
        unsure.difference_update(batch.prefixes)
        for prefix in batch.prefixes:
            if batch.withdraw:
                has.pop(prefix, None)
            else:
                has[prefix] = batch.path
        target = self._target.get(slot, {})
        if stale := [prefix for prefix in batch.prefixes if target.get(prefix) != has.get(prefix)]:
            self.generation += 1
            self._queue(slot, stale)

    def failed(self, batch: Batch, reason: str) -> None:
        """ExaBGP refused the batch: halves are tried until the single refused route is found."""
        self.generation += 1
        if len(batch.prefixes) > 1:
            middle = len(batch.prefixes) // 2
            self._split.append(Batch(batch.path, batch.prefixes[middle:], batch.withdraw))
            self._split.append(Batch(batch.path, batch.prefixes[:middle], batch.withdraw))
        elif batch.withdraw:  # ExaBGP cannot have a route that it cannot withdraw
            self.done(batch)
        else:
            self.rejected[(batch.path, batch.prefixes[0])] = reason

    def unsure(self, batch: Batch) -> None:
        """No answer arrived: ExaBGP may have applied the batch. The caller resyncs the peer when possible."""
        slot = (batch.path.peer, batch.path.path_id)
        has, unsure = self._has.setdefault(slot, {}), self._unsure.setdefault(slot, set())
        unsure.update(batch.prefixes)
        for prefix in batch.prefixes:
            has.setdefault(prefix, batch.path)

    def count(self) -> int:
        """The number of routes that ExaBGP has."""
        return sum(map(len, self._has.values()))

    def _current(self, batch: Batch) -> Batch:
        """The batch without prefixes that changed in the meantime; those are queued elsewhere."""
        slot = (batch.path.peer, batch.path.path_id)
        target, has, unsure = self._target.get(slot, {}), self._has.get(slot, {}), self._unsure.get(slot, set())
        if batch.withdraw:
            left = tuple(p for p in batch.prefixes if p not in target and p in has)
        else:
            path = batch.path
            left = tuple(p for p in batch.prefixes if target.get(p) == path and (has.get(p) != path or p in unsure))
        return Batch(batch.path, left, batch.withdraw)

    def _queue(self, slot: Slot, prefixes: Iterable[Prefix]) -> None:
        peer = slot[0]
        if peer not in self.peers:
            return
        target, has, unsure = self._target.get(slot, {}), self._has.get(slot, {}), self._unsure.get(slot, set())
        others = [other for other in self._slots[peer] if other != slot]
        for prefix in prefixes:
            wanted, had = target.get(prefix), has.get(prefix)
            if wanted is None:
                if had is not None:
                    self._add(self._withdrawal_urgency(others, prefix), True, had, prefix)
            elif had is None:
                self._add(Urgency.NEW, False, wanted, prefix)
            elif had != wanted:
                self._add(Urgency.URGENT, False, wanted, prefix)
            elif prefix in unsure:
                self._add(Urgency.NEW, False, wanted, prefix)

    def _withdrawal_urgency(self, others: list[Slot], prefix: Prefix) -> Urgency:
        """URGENT, unless the router would be without the prefix while another path is still to be announced."""
        coming = [slot for slot in others if prefix in self._target.get(slot, {})]
        if not coming or any(self._has.get(slot, {}).get(prefix) == self._target[slot][prefix] for slot in coming):
            return Urgency.URGENT
        for slot in coming:
            self._add(Urgency.URGENT, False, self._target[slot][prefix], prefix)
        return Urgency.AFTER

    def _add(self, urgency: Urgency, withdraw: bool, path: Path, prefix: Prefix) -> None:
        self._work.setdefault((urgency, self.generation, withdraw, path), {})[prefix] = None

    def _drop_work(self, peer: str) -> None:
        for key in [key for key in self._work if key[3].peer == peer]:
            del self._work[key]
        self._split = [batch for batch in self._split if batch.path.peer != peer]


def _order(path: Path) -> tuple[str, int, int, int, int, str]:
    hop = path.next_hop
    return (path.peer, path.path_id, path.version, hop.version, int(hop), repr(path.attributes))
