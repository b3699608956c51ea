"""The load of each node: the weights of the VIPs that it serves in Layer 2, relative to its capacity."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from fractions import Fraction

from porterlb.core.model import ServiceKey

FULL = 100
"""The capacity of a node without the annotation: capacities are counted in hundredths."""

Loads = Mapping[str, int]
"""The sum of the weights by node; a node without VIPs may be missing."""

Capacities = Mapping[str, int]
"""In hundredths, by node; a node that is missing has FULL."""


@dataclass(frozen=True, slots=True)
class Unit:
    """The VIPs of one Service, which are served by one node and move together.

    ``at``: the node that serves them. ``best``: the nodes that they may be placed on, in rendezvous order: those of the
    best rank (endpoints first, then a live replica; cordoned nodes last). ``weight``: of all its VIPs together.
    ``asked``: whether a host on the segment has asked for one of them recently.
    """

    key: ServiceKey
    at: str
    best: tuple[str, ...]
    weight: int = 1
    asked: bool = False


def level(load: int, capacity: int) -> Fraction:
    """The load of a node relative to its capacity: comparable between nodes, without rounding."""
    return Fraction(load * FULL, capacity)


def loads_of(units: Iterable[Unit]) -> dict[str, int]:
    found: dict[str, int] = {}
    for unit in units:
        found[unit.at] = found.get(unit.at, 0) + unit.weight
    return found


@dataclass(frozen=True, slots=True)
class Balance:
    """The evenness of the load. ``fullest``: the node with the highest level; empty if there is no node.

    ``mean``: the total load over the total capacity. ``excess``: the load of the fullest node above its share.
    """

    fullest: str = ""
    ratio: float = 1.0  # level of the fullest node over the mean; 1.0 without load
    excess: Fraction = Fraction(0)


def balance_of(loads: Loads, nodes: Iterable[str], capacities: Capacities) -> Balance:
    """``nodes``: those that could serve VIPs, with or without load."""
    names = sorted({*nodes, *(name for name, load in loads.items() if load)})
    if not names:
        return Balance()
    size = {name: capacities.get(name, FULL) for name in names}
    mean = level(sum(loads.get(name, 0) for name in names), sum(size.values()))
    fullest = max(names, key=lambda name: level(loads.get(name, 0), size[name]))
    highest = level(loads.get(fullest, 0), size[fullest])
    excess = (highest - mean) * size[fullest] / FULL
    return Balance(fullest, float(highest / mean) if mean else 1.0, excess)


def least_loaded(best: Iterable[str], weight: int, loads: Loads, capacities: Capacities) -> str:
    """The node whose level is lowest after adding ``weight``; the first of ``best`` if several are equal; empty if
    there is none."""
    found, lowest = "", None
    for name in best:
        carried = level(loads.get(name, 0) + weight, capacities.get(name, FULL))
        if lowest is None or carried < lowest:
            found, lowest = name, carried
    return found
