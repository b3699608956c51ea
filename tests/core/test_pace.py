"""The minimum interval between two plans."""

from hypothesis import given
from hypothesis import strategies as st

from porterlb.core.pace import AT_ONCE, EVERY, Pace


def test_a_change_and_what_follows_from_it_are_planned_at_once() -> None:
    pace = Pace()
    for _ in range(AT_ONCE):
        assert pace.wait(100.0) == 0
        pace.took(100.0)
    assert abs(pace.wait(100.0) - EVERY) < 1e-9


@given(st.lists(st.floats(0, 1), max_size=60), st.floats(0, 1e6))
def test_plans_are_bounded_and_none_waits_long(gaps: list[float], start: float) -> None:
    """A caller that observes the waits makes at most as many plans in a period as the bucket and its refill allow."""
    pace, now = Pace(), start
    for made, gap in enumerate(gaps, 1):
        now += gap
        wait = pace.wait(now)
        assert 0 <= wait <= EVERY + 1e-9
        now += wait
        assert pace.wait(now) < 1e-6
        pace.took(now)
        assert made <= AT_ONCE + (now - start) / EVERY + 1e-6
