"""Another controller that writes a Service's status: we write back at growing intervals, and name the controller."""

from __future__ import annotations

from porterlb.core.status.rewriting import FORGET, LONGEST, Rewriting, rewritten


def test_g5_writes_back_off_exponentially() -> None:
    state: Rewriting | None = None
    now, pauses = 0.0, []
    for version in range(12):
        state = rewritten(state, "other", str(version), now)
        pauses.append(round(state.until - now, 3))
        now = state.until + 0.1
    assert pauses == [0, 1, 2, 4, 8, 16, 32, 64, 128, 256, LONGEST, LONGEST]


def test_g5_one_version_counts_once_and_a_long_peace_ends_it() -> None:
    first = rewritten(None, "other", "1", 0.0)
    assert rewritten(first, "other", "1", 5.0) is first
    second = rewritten(first, "other", "2", 1.0)
    third = rewritten(second, "other", "3", 2.0)
    assert [state.told(3.0) for state in (first, second, third)] == [False, False, True]
    assert not third.told(third.until + FORGET)
    assert rewritten(third, "other", "4", third.until + FORGET).times == 1
