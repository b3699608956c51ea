"""The leader's decisions about next hops that are not in the API yet, and when it moves the next VIP."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction

from porterlb.core.model import ServiceKey
from porterlb.core.placement import balancing, settling
from porterlb.core.placement.load import Capacities, Loads, Unit, balance_of, least_loaded
from porterlb.core.placement.policy import PlacementPolicy
from porterlb.core.placement.settling import Settling

RATIO = 1.25
"""Automatic rebalancing begins if the load of the fullest node exceeds this multiple of the mean ..."""

EXCESS = Fraction(2)
"""... and its share by at least this number of VIPs (of weight 1)."""


@dataclass(frozen=True, slots=True)
class Move:
    """The VIPs of one Service must move to another node."""

    key: ServiceKey
    source: str
    target: str
    weight: int


@dataclass(frozen=True, slots=True)
class Placement:
    """The state of one replica. Times in monotonic seconds.

    ``decided``: the next hops that must be recorded, by Service, until they are in the API. ``moves``: the remaining
    moves of a rebalancing, the next one first; ``expected``: the loads that they were computed for. ``moved``: the last
    move. ``looked``: when a check found no VIP to move. ``answered``: requests to rebalance that have been carried out.
    """

    settling: Settling
    decided: Mapping[ServiceKey, str] = field(default_factory=dict)
    moves: tuple[Move, ...] = ()
    expected: Loads = field(default_factory=dict)
    moved: float | None = None
    looked: float | None = None
    answered: frozenset[str] = frozenset()
    loads: Loads = field(default_factory=dict)
    """The load of each node in this plan, including the decisions."""


@dataclass(frozen=True, slots=True)
class Census:
    """The placement data of the VIPs of one plan.

    ``loads``: by the nodes that serve them now. ``unit``: the unit of one Service and the node that is recorded for it
    (empty: none), or None. ``new``: the units without a record, planned or just allocated. ``everyone``: all units with
    a record. ``allocated``: the units that were just allocated; their load is not in ``loads``. ``eligible``: the nodes
    that VIPs could be placed on. ``requests``: to rebalance, not answered yet.
    """

    loads: Loads
    unit: Callable[[ServiceKey], tuple[Unit, str] | None]
    new: Sequence[Unit]
    everyone: Callable[[], Sequence[Unit]]
    capacities: Capacities
    eligible: frozenset[str]
    requests: frozenset[str] = frozenset()
    allocated: frozenset[ServiceKey] = frozenset()


def step(before: Placement, census: Census, now: float, policy: PlacementPolicy) -> Placement:
    """The leader's decisions now. ``before.settling`` is current. Before the cluster has settled, nothing is
    decided."""
    state, before = before.settling, replace(before, answered=before.answered & census.requests)
    if not state.settled or state.scene.outage:
        return replace(before, decided={}, moves=(), expected={}, loads=dict(census.loads))
    decided, loads = _kept(before.decided, census)
    new = [unit for unit in census.new if unit.key not in decided]
    for key, node in _placed(new, loads, census).items():
        decided[key] = node
    placement = replace(before, decided=decided, loads={name: load for name, load in loads.items() if load})
    if state.changed == now and before.moves:
        placement = replace(placement, moves=(), expected={})
    return _rebalanced(placement, census, now, policy)


def _kept(before: Mapping[ServiceKey, str], census: Census) -> tuple[dict[ServiceKey, str], dict[str, int]]:
    """The decisions that are still valid and not recorded yet, and the loads including them."""
    decided: dict[ServiceKey, str] = {}
    loads = dict(census.loads)
    for key, node in before.items():
        found = census.unit(key)
        if found is None:
            continue
        unit, recorded = found
        if recorded != node and node in unit.best:
            decided[key] = node
            _shift(loads, unit, node, census)
    return decided, loads


def _shift(loads: dict[str, int], unit: Unit, node: str, census: Census) -> None:
    if unit.key not in census.allocated:
        loads[unit.at] = loads.get(unit.at, 0) - unit.weight
    loads[node] = loads.get(node, 0) + unit.weight


def _placed(new: Sequence[Unit], loads: dict[str, int], census: Census) -> dict[ServiceKey, str]:
    """The nodes for units without a record; ``loads`` is updated accordingly.

    A single unit goes to the least loaded node, the first by rendezvous if several are equal. Several units are placed
    together: on the nodes that serve them now as far as that is balanced, because each change is a move.
    """
    for unit in new:
        if unit.key not in census.allocated:
            loads[unit.at] = loads.get(unit.at, 0) - unit.weight
    if len(new) == 1:
        found = {new[0].key: least_loaded(new[0].best, new[0].weight, loads, census.capacities) or new[0].at}
    else:
        moved = balancing.moves(new, census.capacities, loads)
        found = {unit.key: moved.get(unit.key, unit.at) for unit in new}
    for unit in new:
        node = found[unit.key]
        loads[node] = loads.get(node, 0) + unit.weight
    return found


def _rebalanced(placement: Placement, census: Census, now: float, policy: PlacementPolicy) -> Placement:
    """Adds the decision for the next move, if one is due. One move at a time: the next one waits for its record."""
    requests = census.requests - placement.answered
    due = _due(placement, requests, policy)
    if due is None or now < due or placement.decided:
        return placement
    if not placement.moves or placement.expected != placement.loads:
        asked = bool(requests) or _uncordoned(placement) or bool(placement.moves)
        if not asked and not exceeds(placement.loads, census.eligible, census.capacities):
            return replace(placement, looked=now)
        placement = replace(placement, moves=ordered(census.everyone(), census.capacities))
        if not placement.moves:
            return replace(placement, looked=now, expected={}, answered=placement.answered | requests)
    move, *rest = placement.moves
    loads = dict(placement.loads)
    loads[move.source] = loads.get(move.source, 0) - move.weight
    loads[move.target] = loads.get(move.target, 0) + move.weight
    loads = {name: load for name, load in loads.items() if load}
    decided = {**placement.decided, move.key: move.target}
    return replace(placement, decided=decided, moves=tuple(rest), expected=loads, loads=loads, moved=now)


def exceeds(loads: Loads, nodes: Iterable[str], capacities: Capacities) -> bool:
    """Whether the fullest node exceeds its share so far that VIPs are moved without a request."""
    balance = balance_of(loads, nodes, capacities)
    return balance.ratio > RATIO and balance.excess >= EXCESS


def ordered(units: Sequence[Unit], capacities: Capacities) -> tuple[Move, ...]:
    """The smallest set of moves that restores balance: first VIPs that no host asked for recently, then by name."""
    found = balancing.moves(units, capacities)
    moved = sorted((unit for unit in units if unit.key in found), key=lambda unit: (unit.asked, unit.key))
    return tuple(Move(unit.key, unit.at, found[unit.key], unit.weight) for unit in moved)


def _due(placement: Placement, requests: frozenset[str], policy: PlacementPolicy) -> float | None:
    """When the next move, or the next check for moves, is due; None: not before another event."""
    state = placement.settling
    requests = requests - placement.answered
    if not state.settled or state.scene.outage or not (policy.automatic or requests):
        return None
    due = state.changed + (policy.settle_after if _uncordoned(placement) or requests else policy.rebalance_after)
    if placement.moved is not None:
        due = max(due, placement.moved + policy.pace)
    looked = placement.looked
    if looked is not None and looked >= max(state.changed, placement.moved or looked) and not requests:
        due = max(due, looked + policy.rebalance_after)
    return due


def _uncordoned(placement: Placement) -> bool:
    """Whether a node was uncordoned and no check for moves has followed yet: an operator is present."""
    state, looked = placement.settling, placement.looked
    return state.uncordoned and (looked is None or looked < state.changed)


def wakes_at(
    placement: Placement, requests: frozenset[str], policy: PlacementPolicy, *, expected: bool
) -> float | None:
    """When the leader's decisions next change only because time passes, or None."""
    at = settling.wakes_at(placement.settling, policy, expected=expected)
    if at is None and not placement.decided:
        at = _due(placement, requests, policy)
    return at
