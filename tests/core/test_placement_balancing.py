"""The fewest moves: compared with every possible distribution, for small cases."""

from __future__ import annotations

import itertools
from fractions import Fraction

from hypothesis import given
from hypothesis import strategies as st

from porterlb.core.model import ServiceKey
from porterlb.core.placement.balancing import moves
from porterlb.core.placement.load import FULL, Unit, balance_of, least_loaded, level, loads_of

NAMES = ("n1", "n2", "n3", "n4")


@st.composite
def cases(draw: st.DrawFn, weights: st.SearchStrategy[int] | None = None) -> tuple[list[Unit], dict[str, int]]:
    names = NAMES[: draw(st.integers(1, 4))]
    weight = draw(st.integers(1, 3))
    units = [
        Unit(
            ServiceKey("default", f"s{number}"),
            draw(st.sampled_from(names)),
            tuple(draw(st.permutations(names))[: draw(st.integers(1, len(names)))]),
            draw(weights) if weights is not None else weight,
        )
        for number in range(draw(st.integers(0, 6)))
    ]
    sizes = st.sampled_from([FULL, FULL, 50, 200])
    return units, {name: draw(sizes) for name in names}


def cost(units: list[Unit], places: tuple[str, ...], capacities: dict[str, int]) -> tuple[Fraction, int]:
    loads = dict.fromkeys(NAMES, 0)
    for unit, node in zip(units, places, strict=True):
        loads[node] += unit.weight
    squares = sum((load * level(load, capacities.get(name, FULL)) for name, load in loads.items()), Fraction(0))
    return squares, sum(unit.at != node for unit, node in zip(units, places, strict=True))


@given(cases())
def test_no_distribution_is_more_even_and_none_as_even_has_fewer_moves(case: tuple[list[Unit], dict[str, int]]) -> None:
    units, capacities = case
    found = moves(units, capacities)
    places = tuple(found.get(unit.key, unit.at) for unit in units)
    assert all(node in (unit.at, *unit.best) for unit, node in zip(units, places, strict=True))
    assert all(unit.at != found[unit.key] for unit in units if unit.key in found)
    every = itertools.product(*[sorted({unit.at, *unit.best}) for unit in units])
    assert cost(units, places, capacities) == min(cost(units, other, capacities) for other in every)


@given(cases(st.integers(1, 4)))
def test_with_several_weights_no_single_move_makes_it_better(case: tuple[list[Unit], dict[str, int]]) -> None:
    units, capacities = case
    found = moves(units, capacities)
    places = [found.get(unit.key, unit.at) for unit in units]
    reached = cost(units, tuple(places), capacities)[0]
    assert reached <= cost(units, tuple(unit.at for unit in units), capacities)[0]
    for at, unit in enumerate(units):
        for node in unit.best:
            other = (*places[:at], node, *places[at + 1 :])
            assert cost(units, other, capacities)[0] >= reached


@given(cases(), st.randoms())
def test_no_order_matters(case: tuple[list[Unit], dict[str, int]], chance: object) -> None:
    units, capacities = case
    shuffled, sizes = list(units), list(capacities.items())
    chance.shuffle(shuffled)  # type: ignore[attr-defined]
    chance.shuffle(sizes)  # type: ignore[attr-defined]
    assert moves(shuffled, dict(sizes)) == moves(units, capacities)


def test_what_others_carry_counts() -> None:
    units = [Unit(ServiceKey("d", f"s{number}"), "n1", ("n1", "n2")) for number in range(4)]
    assert len(moves(units, {}, {"n1": 0, "n2": 0})) == 2
    assert moves(units, {}, {"n2": 10}) == {}
    assert len(moves(units, {}, {"n1": 10})) == 4


def test_units_that_nobody_asked_for_are_moved_first() -> None:
    units = [Unit(ServiceKey("d", f"s{number}"), "n1", ("n1", "n2"), asked=number < 3) for number in range(6)]
    assert {key.name for key in moves(units, {})} == {"s3", "s4", "s5"}


def test_a_chain_of_moves_is_found_where_no_single_one_helps() -> None:
    """n1 has too many and n3 too few; the only path for a correction is by way of n2."""
    units = [
        *(Unit(ServiceKey("d", f"a{number}"), "n1", ("n1", "n2")) for number in range(3)),
        *(Unit(ServiceKey("d", f"b{number}"), "n2", ("n2", "n3")) for number in range(2)),
        Unit(ServiceKey("d", "c"), "n3", ("n3",)),
    ]
    found = moves(units, {})
    after = [Unit(unit.key, found.get(unit.key, unit.at), unit.best) for unit in units]
    assert loads_of(after) == {"n1": 2, "n2": 2, "n3": 2} and len(found) == 2


def test_the_balance_is_the_fullest_node_over_the_mean() -> None:
    balance = balance_of({"n1": 12, "n2": 6}, ("n1", "n2", "n3"), {"n2": 200})
    assert (balance.fullest, balance.ratio, balance.excess) == ("n1", 12 / 4.5, Fraction(15, 2))
    assert balance_of({}, (), {}).ratio == balance_of({}, ("n1",), {}).ratio == 1.0


def test_the_least_loaded_node_is_the_first_of_equals() -> None:
    assert least_loaded(("n2", "n1"), 1, {}, {}) == "n2"
    assert least_loaded(("n2", "n1"), 1, {"n2": 1}, {}) == "n1"
    assert least_loaded(("n2", "n1"), 1, {"n2": 1}, {"n2": 300}) == "n2"
    assert least_loaded((), 1, {}, {}) == ""
