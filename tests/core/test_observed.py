"""Which reports lead to a plan at once, and whether the others announce the same as we do."""

from __future__ import annotations

from dataclasses import replace

import pytest

from porterlb.core.bgp.negotiated import as_configured
from porterlb.core.observed import BgpReport, FreshReplica, SessionState, WireReport
from tests.core.stage import seen, situation, snapshot

V4, BOTH = as_configured((4,), add_path=True), as_configured((4, 6), add_path=True)
UP = SessionState("tor", "established", 0.0, negotiated=V4)
DOWN = SessionState("tor", "active", 0.0)


def bgp(**sessions: SessionState) -> BgpReport:
    return BgpReport(sessions)


@pytest.mark.parametrize(
    ("before", "after", "urgent"),
    [
        (bgp(tor=UP), bgp(tor=UP), False),
        (bgp(tor=UP), bgp(tor=DOWN), True),
        (bgp(tor=UP), bgp(), True),
        (bgp(tor=DOWN), bgp(tor=DOWN), False),
        (bgp(tor=DOWN), bgp(), False),
        (bgp(), bgp(tor=DOWN), False),
        (bgp(tor=DOWN), bgp(tor=UP), True),
        (bgp(), bgp(tor=UP), True),
        (bgp(tor=UP), bgp(tor=replace(UP, negotiated=BOTH)), True),
        (bgp(tor=UP, far=UP), bgp(tor=UP, far=DOWN), True),
    ],
)
def test_a_session_that_is_lost_or_comes_up_is_planned_for_at_once(
    before: BgpReport, after: BgpReport, urgent: bool
) -> None:
    assert after.is_urgent(before) is urgent


def test_a_node_that_goes_and_whatever_comes_is_planned_for_at_once() -> None:
    calm = WireReport(fresh={"b": FreshReplica("b", 1)})
    assert not replace(calm, fresh={"b": FreshReplica("b", 2)}).is_urgent(calm)
    for news in (
        replace(calm, dead=frozenset("b")),
        replace(calm, dead_on={"10.0.0.0/24": frozenset("b")}),
        replace(calm, doubt=True),
    ):
        assert news.is_urgent(calm) and calm.is_urgent(news)
        assert not news.lost_replica(calm)
    more = replace(calm, fresh={**calm.fresh, "c": FreshReplica("c", 1)})
    assert more.is_urgent(calm) and not more.lost_replica(calm)
    assert calm.lost_replica(more) and not calm.is_urgent(more), "its node has died perhaps: that comes soon"


def test_routes_are_withdrawn_at_the_end_only_where_every_peer_of_ours_has_another_replica() -> None:
    assert situation(snapshot()).others_announce
    assert not situation(snapshot(up=("node-a",))).others_announce
    assert not situation(snapshot(up=("node-b", "node-c"))).others_announce, "we announce nothing ourselves"
    made = situation(snapshot())
    two = {**made.bgp.sessions, "far": UP}
    assert not seen(made.plan, made.snapshot, bgp={"sessions": two}).others_announce


def test_every_wanted_session_must_be_up_before_a_manager_that_has_just_started_ends() -> None:
    made = situation(snapshot())
    assert set(made.plan.bgp.sessions) and made.all_sessions_up
    for sessions in ({}, dict.fromkeys(made.plan.bgp.sessions, DOWN)):
        assert not seen(made.plan, made.snapshot, bgp={"sessions": sessions}).all_sessions_up
