"""The bounds of BGP's fields."""

from __future__ import annotations

import pytest

from porterlb.core.bgp.rules import hold_time_allowed, keepalive_of


@pytest.mark.parametrize(("hold", "keepalive"), [(0, 0), (3, 1), (9, 3), (10, 3), (90, 30)])
def test_a_keepalive_is_sent_at_a_third_of_the_hold_time(hold: int, keepalive: int) -> None:
    assert keepalive_of(hold) == keepalive


@pytest.mark.parametrize(("hold", "asked", "keepalive"), [(0, 5, 0), (9, 1, 1), (9, 3, 3), (9, 4, 3), (3, 2, 1)])
def test_a_shorter_interval_may_be_asked_for(hold: int, asked: int, keepalive: int) -> None:
    assert keepalive_of(hold, asked) == keepalive


@pytest.mark.parametrize(("hold", "allowed"), [(0, True), (1, False), (2, False), (3, True), (9, True)])
def test_a_hold_time_is_zero_or_three_seconds_at_least(hold: int, allowed: bool) -> None:
    """RFC 4271, 4.2."""
    assert hold_time_allowed(hold) is allowed
