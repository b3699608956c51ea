"""When a replica reports that its plan may be outdated."""

from __future__ import annotations

from porterlb.core.layer2.staleness import SETTLE, SILENT, Staleness


def test_a_silent_manager_makes_the_plan_stale_until_a_second_after_its_return() -> None:
    made = Staleness(10.0)
    assert not made.check(10.0 + SILENT, 0.0) and not made.stale
    assert made.check(10.1 + SILENT, 0.0) and made.stale
    assert not made.check(11.0 + SILENT, 0.0)
    made.beat(20.0)
    assert not made.check(20.0 + SETTLE - 0.1, 0.0) and made.stale
    made.beat(20.5)
    assert made.check(20.0 + SETTLE, 0.0) and not made.stale


def test_a_stall_of_our_own_process_says_nothing_about_the_manager() -> None:
    made = Staleness(10.0)
    assert not made.check(20.0, SILENT) and not made.stale
    made.beat(20.1)
    assert not made.check(20.2, 0.0) and not made.stale


def test_an_outage_of_the_api_makes_the_plan_stale_until_a_second_after_its_end() -> None:
    made = Staleness(10.0)
    made.outage(True, 10.1)
    assert made.check(10.2, 0.0) and made.stale
    for beat in range(11, 30):
        made.beat(float(beat))
    made.outage(False, 30.0)
    made.outage(False, 30.5)
    made.beat(30.5)
    assert not made.check(30.0 + SETTLE - 0.1, 0.0) and made.stale
    assert made.check(30.0 + SETTLE, 0.0) and not made.stale
