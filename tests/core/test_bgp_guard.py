"""spec.maxPrefixesSent: never more than the limit, and no announced path is withdrawn in favor of a new one."""

from __future__ import annotations

from ipaddress import ip_address

from hypothesis import given
from hypothesis import strategies as st

from porterlb.core.bgp.guard import Guard, Routes
from porterlb.core.desired import Path, Prefix

A, B = (Path("tor", ip_address(f"10.0.0.{hop}"), hop) for hop in (1, 2))
OTHER = Path("other", ip_address("10.0.0.1"))


def nets(*numbers: int) -> frozenset[Prefix]:
    return frozenset(f"192.0.2.{number}/32" for number in numbers)


def test_what_is_announced_stays_and_the_rest_waits_for_room() -> None:
    guard = Guard()
    limits = {"tor": 2}
    assert guard.apply({A: nets(7, 8)}, limits) == {A: nets(7, 8)}
    assert guard.withheld == {}
    full = {A: nets(1, 2, 7, 8), B: nets(1, 7), OTHER: nets(1, 2, 3)}
    assert guard.apply(full, limits) == {A: nets(7, 8), B: nets(7), OTHER: nets(1, 2, 3)}
    assert guard.withheld == {"tor": nets(1, 2)}
    assert set(guard.cut(full)) == {(A, "192.0.2.1/32"), (A, "192.0.2.2/32"), (B, "192.0.2.1/32")}
    assert guard.apply({A: nets(1, 2, 8), B: nets(2)}, limits) == {A: nets(1, 8)}, "the lowest one takes the room"
    assert guard.apply({A: nets(1, 2, 8)}, {}) == {A: nets(1, 2, 8)}
    assert guard.withheld == {}


def test_a_lower_limit_is_kept_at_once() -> None:
    guard = Guard()
    guard.apply({A: nets(1, 2, 3)}, {"tor": 3})
    assert guard.apply({A: nets(1, 2, 3)}, {"tor": 1}) == {A: nets(1)}


WANTED = st.dictionaries(st.sampled_from([A, B]), st.frozensets(st.integers(1, 6)).map(lambda s: nets(*s)), max_size=2)


@given(st.lists(st.tuples(WANTED, st.integers(1, 5)), max_size=6))
def test_never_more_than_the_limit_and_never_less_than_possible(story: list[tuple[Routes, int]]) -> None:
    guard, before, limit_before = Guard(), frozenset[Prefix](), 99
    for wanted, limit in story:
        told = guard.apply(wanted, {"tor": limit})
        everything = frozenset[Prefix]().union(*wanted.values())
        announced = frozenset[Prefix]().union(*told.values())
        assert len(announced) == min(limit, len(everything))
        assert announced | guard.withheld.get("tor", frozenset()) == everything
        assert all(told[path] == wanted[path] & announced for path in told)
        if limit >= limit_before:
            assert before & everything <= announced, "something that was announced is taken away"
        before, limit_before = announced, limit
