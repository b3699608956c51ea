"""All sessions lost, in every way, and restored: each with an IPv4 and an IPv6 address, with and without standby."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from lab.measure import wait_until
from lab.stream import Report
from tests.lab.mode_scenes import ModeStage

pytestmark = pytest.mark.lab

WORDS = {
    "ended": ("shutdown", "cease", "closed"),
    "killed": ("closed by the peer", "reset"),
    "stopped": ("Hold timer expired",),
    "blocked": ("Hold timer expired",),
    "shut down": ("maintenance window",),
}
"""The required words of the reason, by the way in which BGP was disabled."""

GAP_MS = 500.0
"""In milliseconds. Generous: measured 0 to 30 ms on an idle machine, see bench/mode.py."""

SILENT_GAP_MS = 2500.0
"""In milliseconds, if neither side sends a notice: the two hold timers may expire one keepalive interval (1 s) apart.
Without standby, no node answers before PorterLB's timer has expired."""


WAYS = {
    "bird": ("stopped", "blocked", "shut down"),
    "frr": ("killed", "ended", "shut down"),
    "gobgp": ("killed", "stopped"),
}
"""Each way at least once. Each router is tested with the ways in which it behaves differently. GoBGP programs no
kernel."""


@pytest.fixture(scope="module", params=list(WAYS))
def stage(request: pytest.FixtureRequest) -> Iterator[ModeStage]:
    with ModeStage(routers=(request.param,)) as made:
        try:
            yield made
        finally:
            print(made.lab.logs())


def test_bgp_lost_in_every_way_and_back(stage: ModeStage) -> None:
    router = stage.lab.router
    for how in WAYS[router.kind]:
        stage.wait_judged("bgp")
        stage.wait_wide()
        with stage.lab.segment_client.stream(stage.vips["standby"], interval=0.01) as near:
            lost = _lose(stage, how, watch=router.programs_kernel)
            back = _back(stage, how, watch=router.programs_kernel)
            beside = near.report()
        print(f"{router.kind} {how}: on the segment {beside}\n  lost {lost}\n  back {back}")
        assert beside.worst_gap_ms <= GAP_MS, f"hosts on the segment: {beside}"
        if lost and back:
            quiet = [lost.only(vip).worst_gap_ms for vip in stage.vips["quiet"]]
            assert max(quiet) <= (SILENT_GAP_MS if how == "blocked" else GAP_MS), lost
            assert max(lost.only(vip).worst_gap_ms for vip in stage.vips["standby"]) <= GAP_MS, lost
            assert back.lost == 0, back


def _lose(stage: ModeStage, how: str, *, watch: bool) -> Report | None:
    def gone() -> None:
        stage.lose(how)
        for eip in ("standby", "quiet"):
            stage.wait_mode("layer2", eip)
            reason = stage.record(eip)["reason"]
            assert any(word in reason for word in WORDS[how]), reason

    if watch:
        report = stage.during(gone)
    else:
        gone()
        report = None
    if how == "stopped":  # a frozen router keeps its routes, but receives no updates
        for vip in stage.on_link:
            stage.lab.wait_owner(vip)
    else:
        stage.wait_judged("layer2")
    return report


def _back(stage: ModeStage, how: str, *, watch: bool) -> Report | None:
    def again() -> None:
        stage.give_back(how)
        stage.wait_judged("bgp", timeout=40)
        stage.wait_wide()

    if watch:
        return stage.during(again)
    again()
    return None


@pytest.mark.parametrize("stage", ["bird"], indirect=True)
def test_flapping_sessions_do_not_flap_the_traffic(stage: ModeStage) -> None:
    stage.wait_judged("bgp")
    with stage.lab.client.stream(stage.on_link, flows=2, interval=0.01) as stream:
        stage.lose("shut down")
        stage.wait_mode("layer2", "quiet")
        stage.wait_mode("layer2", "standby")
        # The two sessions end one after the other: the history may contain "mixed"
        lost = stage.record("standby")["history"]
        since = time.monotonic() + 0.2
        for _ in range(2):
            stage.give_back("shut down")
            time.sleep(3)
            stage.lose("shut down")
            time.sleep(0.5)
            assert stage.judge("standby") == stage.judge("quiet") == "layer2"
        report = stream.report()
    assert not report.since(since), report.gaps
    assert stage.record("standby")["history"] == lost
    stage.give_back("shut down")
    stage.wait_judged("bgp", timeout=40)
    stage.wait_wide()


@pytest.mark.parametrize("stage", ["bird"], indirect=True)
def test_a_replica_that_starts_waits_with_the_others_and_moves_nobody(stage: ModeStage) -> None:
    stage.wait_judged("bgp")
    lab = stage.lab
    stage.lose("shut down")
    stage.wait_judged("layer2")
    lab.managers["node-b"].terminate(20)
    stage.give_back("shut down")
    wait_until(lambda: len(lab.router.established()) >= 4, 15, "the sessions of the other two")
    lab.manage("node-b", options=("--return-after", "3"))
    seen: set[str] = set()

    def phases() -> bool:
        routed = any(stage.routes(vip) for vip in stage.on_link)  # read first: the phase changes before its routes
        states = [lab.state(name).get("vips", {}) for name in ("node-a", "node-b", "node-c")]
        now = [state[vip]["phase"] for state in states for vip in stage.on_link if vip in state]
        seen.update(now)
        if routed:
            assert set(now) & {"narrow", "bgp"}
        return len(now) == 12 and set(now) == {"bgp"}

    wait_until(phases, 30, "all replicas to be in bgp", interval=0.05)
    assert seen & {"waiting", "narrow"}, "nobody went straight to bgp"  # which of the two is seen depends on timing
    lab.wait_settled()
    lab.managers["node-a"].terminate(20)
    time.sleep(0.3)
    # Restarted while BGP serves: no replica leaves BGP, and no address moves
    with lab.client.stream(stage.on_link, flows=2, interval=0.01) as stream:
        lab.manage("node-a", options=("--return-after", "3"))
        lab.wait_settled()
        report = stream.report()
    assert report.lost == 0, report
    stage.wait_judged("bgp")
    stage.wait_wide()
