"""A limit on the prefixes announced to one peer (``spec.maxPrefixesSent``).

A mistake in the cluster must not exceed the prefix limit of the router: the session would end, and all routes with it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field

from porterlb.core.desired import Path, Prefix

Routes = Mapping[Path, AbstractSet[Prefix]]


@dataclass(slots=True)
class Guard:
    """Announced prefixes stay; new ones are added in text order while there is room.

    ``withheld``: wanted prefixes that are not announced, as of the last :meth:`apply`.
    """

    withheld: dict[str, frozenset[Prefix]] = field(default_factory=dict)  # by peer
    _kept: dict[str, frozenset[Prefix]] = field(default_factory=dict)

    def apply(self, routes: Routes, limits: Mapping[str, int]) -> Routes:
        """``routes`` without the prefixes over the limit of their peer. ``limits``: by peer name; 0 or absent: none."""
        self.withheld = {}
        for peer in self._kept.keys() - limits.keys():
            del self._kept[peer]
        for peer, limit in limits.items():
            wanted = frozenset().union(*(prefixes for path, prefixes in routes.items() if path.peer == peer))
            kept = self._kept[peer] = _chosen(wanted, self._kept.get(peer, frozenset()), limit)
            if len(kept) < len(wanted):
                self.withheld[peer] = wanted - kept
        if not self.withheld:
            return routes
        found = {path: self._allowed(path.peer, prefixes) for path, prefixes in routes.items()}
        return {path: prefixes for path, prefixes in found.items() if prefixes}

    def cut(self, routes: Routes) -> Iterable[tuple[Path, Prefix]]:
        """The routes among ``routes`` that are withheld."""
        for path, prefixes in routes.items():
            for prefix in self.withheld.get(path.peer, frozenset()):
                if prefix in prefixes:
                    yield path, prefix

    def _allowed(self, peer: str, prefixes: AbstractSet[Prefix]) -> AbstractSet[Prefix]:
        return self._kept[peer].intersection(prefixes) if peer in self.withheld else prefixes


def _chosen(wanted: frozenset[Prefix], before: frozenset[Prefix], limit: int) -> frozenset[Prefix]:
    if not limit or len(wanted) <= limit:
        return wanted
    staying = sorted(wanted & before)[:limit]
    return frozenset([*staying, *sorted(wanted - before)[: limit - len(staying)]])
