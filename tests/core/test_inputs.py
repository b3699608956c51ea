"""The inputs of a plan: reports, memories, and the times at which a new plan is needed without an event."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address, ip_network

from porterlb.core.bgp.negotiated import Negotiated
from porterlb.core.duplicates import FIRST
from porterlb.core.inputs import CHECK_AGAIN, CHECK_LIMIT, Inputs, News
from porterlb.core.model import Member
from porterlb.core.namesake import TOLD_FOR
from porterlb.core.node_return import PODS_WITHIN
from porterlb.core.objects import Objects
from porterlb.core.observed import Answering, BgpReport, FreshReplica, NoticeKind, SessionState, WireReport
from porterlb.core.problems import Reason
from porterlb.core.proxy_wait import ProxyPolicy

VIP, OTHER = ip_address("192.0.2.1"), ip_address("192.0.2.2")
MAC = bytes(6)


def inputs() -> Inputs:
    return Inputs("a", "porter", Objects(claim_without_class=True), ProxyPolicy(1.5, 5.0))


def test_what_a_report_of_the_wire_process_changes() -> None:
    made, dead, heard = inputs(), WireReport(dead=frozenset("b")), FreshReplica("c", 1, digest=1)
    assert made.heard_wire(WireReport(), 0.0) is News.PLAN  # the first report
    assert made.heard_wire(WireReport(counters={"requests": 1}), 1.0) is News.NOTHING
    assert made.heard_wire(dead, 2.0) is News.URGENT
    assert made.heard_wire(replace(dead, trouble="no sockets"), 3.0) is News.STATUS
    assert made.heard_wire(replace(dead, fresh={"c": heard}), 4.0) is News.URGENT
    assert made.heard_wire(replace(dead, fresh={"c": replace(heard, digest=2, applied=2)}), 5.0) is News.STATUS
    for news in (
        {"fresh": {"c": replace(heard, sessions=frozenset({"r1"}))}},
        {"fresh": {"c": replace(heard, negotiated={"r1": "4"})}},
        {"fresh": {"c": replace(heard, hold_downs=frozenset({"r1"}))}},
        {"fresh": {"c": heard}, "probed": frozenset("b")},
    ):
        assert made.heard_wire(replace(dead, **news), 6.0) is News.PLAN, news
    assert made.heard_wire(replace(dead, probed=frozenset("b")), 6.5) is News.SILENCE
    assert made.heard_wire(replace(dead, doubt=True), 7.0) is News.URGENT


def test_what_a_report_of_the_bgp_speaker_changes() -> None:
    made, up = inputs(), SessionState("r1", "established", 0.0, negotiated=Negotiated(families=(4,)))
    assert made.heard_bgp(BgpReport()) is News.NOTHING
    assert made.heard_bgp(BgpReport({"r1": up})) is News.URGENT
    assert made.heard_bgp(BgpReport({"r1": up}, applied=3)) is News.STATUS
    assert made.heard_bgp(BgpReport({"r1": replace(up, negotiated=Negotiated(families=(6,)))})) is News.URGENT
    assert made.heard_bgp(BgpReport({"r1": replace(up, state="idle")})) is News.URGENT
    assert made.heard_bgp(BgpReport()) is News.PLAN
    assert made.bgp_report == BgpReport()


def test_a_report_has_only_the_changed_answers_and_those_of_no_vip_are_forgotten() -> None:
    made = inputs()
    made.heard_wire(WireReport(answering={VIP: Answering("a", "a")}), 0.0)
    made.heard_wire(WireReport(answering={OTHER: Answering("b", "b")}), 1.0)
    assert made.wire_report.answering == {VIP: Answering("a", "a"), OTHER: Answering("b", "b")}
    made.served_only([VIP, OTHER])
    assert len(made.wire_report.answering) == 2
    made.served_only([VIP])
    assert made.wire_report.answering == {VIP: Answering("a", "a")}


def test_a_claimed_address_is_remembered_and_probed_again() -> None:
    made = inputs()
    made.heard_wire(WireReport(), 0.0)
    assert made.wakes_at(0.0) is None
    assert made.heard_wire(WireReport(claimed={VIP: MAC}), 10.0) is News.PLAN
    assert made.snapshot(10.0).claimed == frozenset({VIP})
    assert made.wakes_at(10.0) == 10.0 + FIRST
    assert made.wakes_at(10.0 + FIRST) == 10.0 + FIRST + CHECK_AGAIN


def test_a_new_address_waits_for_the_probe_for_a_bounded_time() -> None:
    made = inputs()
    made.check([VIP], 1.0)
    made.check([VIP, OTHER], 1.5)
    assert made.unchecked(1.5) == {VIP, OTHER}
    assert made.wakes_at(1.5) == 1.5 + CHECK_LIMIT
    assert made.unchecked(1.0 + CHECK_LIMIT) == {OTHER}
    made.heard_wire(WireReport(clear=frozenset({OTHER})), 1.55)
    assert made.unchecked(1.55) == {VIP}
    made.check([], 2.0)
    assert not made.unchecked(2.0) and made.wakes_at(2.0) is None


def test_another_manager_with_our_name_is_said_for_some_time() -> None:
    made = inputs()
    assert not made.wire_known(0.0).notices
    made.challenged_at = 5.0
    assert [notice.kind for notice in made.wire_known(5.0 + TOLD_FOR / 2).notices] == [NoticeKind.OWN_NAME]
    assert not made.wire_known(5.0 + TOLD_FOR).notices


def test_a_peer_without_its_secret_has_no_session_and_a_problem() -> None:
    made = inputs()
    for name, password in (("open", {}), ("kept", {"authPasswordSecret": {"name": "secret"}})):
        spec = {"conf": {"neighborAddress": "10.0.0.1", "peerAs": 65000, **password}}
        made.objects.change("BgpPeer", {"metadata": {"name": name, "uid": name}, "spec": spec})
    assert set(made.snapshot(0.0).peers) == {"open"}
    assert [p.reason for p in made.with_missing_secrets({})["kept"]] == [Reason.SECRET_MISSING]
    made.passwords = {"kept": "word"}
    assert made.snapshot(0.0).peers["kept"].password == "word"
    assert not made.with_missing_secrets({})


def test_sessions_of_all_replicas_are_in_the_view() -> None:
    made = inputs()
    agreed = Negotiated(families=(4,))
    made.bgp_report = BgpReport(
        sessions={
            "r1": SessionState("r1", "established", 0.0, negotiated=agreed),
            "r2": SessionState("r2", "idle", 0.0),
        }
    )
    heard = FreshReplica("b", 1, frozenset({"r2"}), negotiated={"r2": agreed.text, "r3": "not a text"})
    made.heard_wire(WireReport(fresh={"b": heard}, dead_on={"10.0.0.0/24": frozenset("c")}), 0.0)
    view = made.snapshot(0.0).view
    assert view.sessions == {("a", "r1"), ("b", "r2")}
    assert view.negotiated == {("a", "r1"): agreed, ("b", "r2"): agreed}
    assert view.fresh == {"a", "b"}
    assert view.dead_on == {("c", ip_network("10.0.0.0/24"))}


def test_a_node_that_returns_waits_unless_we_are_in_doubt() -> None:
    for doubt, settling in ((False, {"b"}), (True, set())):
        made = inputs()
        made.members = {"b": Member("b", "10.0.0.2", 7473, 1)}
        made.heard_wire(WireReport(dead=frozenset("b")), 0.0)
        made.snapshot(0.0)
        made.heard_wire(WireReport(doubt=doubt), 10.0)
        assert made.snapshot(10.0).view.settling == settling
        assert made.wakes_at(10.0) == (None if doubt else 10.0 + PODS_WITHIN)
