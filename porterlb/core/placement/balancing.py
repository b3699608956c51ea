"""The smallest set of moves that balances the nodes: a minimum-cost flow.

Units (the VIPs of one Service) are on nodes, and each may be on some nodes only. The aim is the least sum of squared
loads, each divided by the node's capacity. With equal weights and capacities that is the most even distribution that
the candidates allow, by any convex measure (Harvey, Ladner, Lovász, Tamir: Semi-matchings, 2003). Among the
distributions with the least sum, the one with the fewest moved units is chosen.

For units of one weight this is exact. A residual graph has the nodes as its vertices. An arc from one node to another
represents a unit that can move there, at the cost of 1 if it leaves its home and of -1 if it returns. One more vertex
represents the load of the nodes. A distribution is optimal if and only if the graph has no negative cycle
(Klein, 1967). Units of several weights are balanced one weight after the other, the heaviest first, until no further
change occurs; then no single weight can improve the result.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from heapq import heapify, heappop, heappush
from math import lcm

from porterlb.core.model import ServiceKey
from porterlb.core.placement.load import FULL, Capacities, Loads, Unit

PASSES = 8
"""Maximum number of rounds over all weights: each improves the result, and the first leaves little to do."""


def moves(units: Sequence[Unit], capacities: Capacities, fixed: Loads | None = None) -> dict[ServiceKey, str]:
    """The units that must move, each with its new node; empty if no improvement is possible.

    ``fixed``: the load of nodes without these units. If several units are equally suitable, those that no host has
    asked for recently are moved first. The result depends on the values alone, not on the order of any argument.
    """
    ordered = sorted(units, key=lambda unit: (unit.asked, unit.key))
    names = sorted({name for unit in ordered for name in (unit.at, *unit.best)})
    number = {name: at for at, name in enumerate(names)}
    sizes = [capacities.get(name, FULL) for name in names]
    loads = [(fixed or {}).get(name, 0) for name in names]
    for unit in ordered:
        loads[number[unit.at]] += unit.weight
    place = [number[unit.at] for unit in ordered]
    by_weight: dict[int, list[int]] = {}
    for at, unit in enumerate(ordered):
        if any(name != unit.at for name in unit.best):
            by_weight.setdefault(unit.weight, []).append(at)
    flows = [
        _Flow(weight, members, ordered, number, place, loads, sizes)
        for weight, members in sorted(by_weight.items(), reverse=True)
    ]
    for _ in range(PASSES if len(flows) > 1 else 1):
        if not sum(flow.improve() for flow in flows):  # every flow, even after a change by one
            break
    return {unit.key: names[place[at]] for at, unit in enumerate(ordered) if names[place[at]] != unit.at}


_RETURN, _SWAP, _LEAVE = -1, 0, 1  # cost of an arc, in moves


class _Flow:
    """The units of one weight. ``place`` and ``loads`` are shared by all weights, and modified."""

    def __init__(
        self,
        weight: int,
        members: Sequence[int],
        units: Sequence[Unit],
        number: Mapping[str, int],
        place: list[int],
        loads: list[int],
        sizes: Sequence[int],
    ) -> None:
        self._weight, self._place, self._loads = weight, place, loads
        self._nodes = range(len(sizes))
        scale = lcm(*sizes)
        self._per = [scale // size for size in sizes]
        self._home = {at: number[units[at].at] for at in members}
        self._allowed = {at: sorted({number[name] for name in units[at].best} | {self._home[at]}) for at in members}
        # by node, by other node, by cost: numbers of the units that can move there (some may have left since)
        self._arcs: list[dict[int, tuple[list[int], list[int], list[int]]]] = [{} for _ in sizes]
        self._into: list[set[int]] = [set() for _ in sizes]  # the nodes with an arc to each
        for at in members:
            self._offer(at)
        for arcs in self._arcs:
            for heaps in arcs.values():
                for heap in heaps:
                    heapify(heap)

    def improve(self) -> bool:
        """Moves units until no improvement is possible. Returns whether any was moved."""
        changed = self._direct()
        while (cycle := self._negative_cycle()) is not None:
            changed = True
            for source, target in cycle:
                self._move(source, target)
        return changed

    def _gain(self, source: int, target: int) -> int:
        """The improvement of the aim with one unit less on ``source`` and one more on ``target``."""
        return self._less(source) - self._more(target)

    def _less(self, node: int) -> int:
        return (2 * self._loads[node] - self._weight) * self._per[node]

    def _more(self, node: int) -> int:
        return (2 * self._loads[node] + self._weight) * self._per[node]

    def _direct(self) -> bool:
        """Most of the work: single moves from the fullest node that has one to the emptiest node that it can move to.

        If a node has no better place for any unit, it has none until its load rises or the load of a reachable node
        falls.
        """
        changed = False
        waiting = {node for node in self._nodes if self._arcs[node]}
        heap = [(-self._less(node), node) for node in waiting]
        heapify(heap)
        while heap:
            key, source = heappop(heap)
            if source not in waiting or key != -self._less(source):
                continue  # added again since
            waiting.discard(source)
            better = [node for node in self._arcs[source] if self._gain(source, node) > 0]
            targets = [node for node in better if self._cost(source, node) is not None]
            if not targets:
                continue
            target = min(targets, key=lambda node: (self._more(node), node))
            self._move(source, target)
            changed = True
            for node in (source, target, *(self._into[source] - waiting)):
                if self._arcs[node]:
                    waiting.add(node)
                    heappush(heap, (-self._less(node), node))
        return changed

    def _cost(self, source: int, target: int) -> int | None:
        """The lowest cost of an arc in moves; None: there is no such arc."""
        heaps = self._arcs[source].get(target)
        if heaps is not None:
            for cost in (_RETURN, _SWAP, _LEAVE):
                heap = heaps[cost + 1]
                while heap and not self._offers(heap[0], source, target, cost):
                    heappop(heap)
                if heap:
                    return cost
        return None

    def _offers(self, at: int, source: int, target: int, cost: int) -> bool:
        return self._place[at] == source and cost == self._costs(at, source, target)

    def _costs(self, at: int, source: int, target: int) -> int:
        home = self._home[at]
        return (target != home) - (source != home)

    def _offer(self, at: int, *, push: bool = False) -> None:
        """Adds a unit to the arcs that leave its place."""
        source = self._place[at]
        for target in self._allowed[at]:
            if target != source:
                self._into[target].add(source)
                heap = self._arcs[source].setdefault(target, ([], [], []))[self._costs(at, source, target) + 1]
                if push:
                    heappush(heap, at)
                else:
                    heap.append(at)

    def _move(self, source: int, target: int) -> None:
        cost = self._cost(source, target)
        assert cost is not None
        at = self._arcs[source][target][cost + 1][0]
        self._place[at] = target
        self._loads[source] -= self._weight
        self._loads[target] += self._weight
        self._offer(at, push=True)

    def _negative_cycle(self) -> list[tuple[int, int]] | None:
        """The moves along a negative cycle of the residual graph; None: there is none (Bellman and Ford)."""
        big = len(self._home) * 2 + 1  # a better distribution is worth more than any number of moves
        arcs = [
            (source, target, cost)
            for source in self._nodes
            for target in sorted(self._arcs[source])
            if (cost := self._cost(source, target)) is not None
        ]
        load = len(self._loads)  # the vertex of the loads
        arcs += [(load, node, -self._less(node) * big) for node in self._nodes if self._arcs[node]]
        arcs += [(node, load, self._more(node) * big) for node in self._nodes]
        distance = [0] * (load + 1)
        parent = [-1] * (load + 1)
        while True:
            changed = False
            for source, target, length in arcs:
                if distance[source] + length < distance[target]:
                    distance[target] = distance[source] + length
                    parent[target] = source
                    changed = True
            if not changed:
                return None
            cycle = _cycle(parent)
            if cycle is not None:
                return [(source, target) for source, target in cycle if load not in (source, target)]


def _cycle(parent: Sequence[int]) -> list[tuple[int, int]] | None:
    """The arcs of a cycle among the parents; such a cycle is negative. None: there is none."""
    seen = [0] * len(parent)
    for start in range(len(parent)):
        at = start
        while at != -1 and not seen[at]:
            seen[at] = start + 1
            at = parent[at]
        if at != -1 and seen[at] == start + 1:
            arcs, end = [(parent[at], at)], at
            while (at := parent[at]) != end:
                arcs.append((parent[at], at))
            return arcs[::-1]
    return None
