"""The delay before a failed operation is tried again."""

from hypothesis import given
from hypothesis import strategies as st

from porterlb.core.backoff import delay

CHANCE = st.floats(0, 1, exclude_max=True)


def test_the_first_waits_are_short_and_double() -> None:
    assert [delay(n, 0.0, first=0.2, ceiling=5) for n in range(8)] == [0, 0.1, 0.2, 0.4, 0.8, 1.6, 2.5, 2.5]


@given(st.integers(1, 10**9), CHANCE, CHANCE)
def test_a_wait_is_within_half_and_all_of_the_ceiling_however_long_it_has_failed(
    n: int, one: float, two: float
) -> None:
    assert 0.1 <= delay(n, one) <= 5
    assert delay(n, one) <= 2 * delay(n, two)  # at most half of it is random
    assert delay(n, one) <= delay(n + 1, one)
