"""Partial losses of BGP: one router of two, one replica's sessions, the leader with its sessions; and a pool without a
fallback."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from lab.measure import wait_until
from lab.netns import LabError
from tests.lab.mode_scenes import ModeStage

pytestmark = pytest.mark.lab

GAP_MS = 500.0


@pytest.fixture(scope="module")
def stage() -> Iterator[ModeStage]:
    with ModeStage(routers=("bird", "frr"), pools=("standby", "quiet", "far")) as made:
        try:
            made.wait_wide()
            yield made
        finally:
            print(made.lab.logs())


def test_one_router_of_two_is_lost(stage: ModeStage) -> None:
    lab = stage.lab

    def other() -> None:
        stage.lose("ended", lab.routers[1:])
        wait_until(lambda: lab.state("node-a")["peers"]["router2-v4"]["state"] != "established", 10, "the loss")
        time.sleep(0.5)

    report = stage.during(other)
    assert report.lost == 0, report
    for eip in ("standby", "quiet"):
        assert stage.record(eip)["served"] == "bgp" and stage.planned(eip) == {"bgp"}
    message = lab.wait_condition("Service", "standby", "Serving", "True", "default")["message"]
    wait_until(
        lambda: "router2" in lab.conditions("Service", "standby", "default")["Serving"]["message"],
        10,
        f"router2 to be named in {message}",
    )

    def give_back() -> None:
        stage.give_back("ended", lab.routers[1:])
        stage.wait_wide()

    report = stage.during(give_back)
    assert report.lost == 0, report


def test_a_router_that_lost_only_its_own_sessions_finds_standby_addresses(stage: ModeStage) -> None:
    """The client is behind the first router. The second one keeps its sessions, and BGP keeps serving."""
    lab = stage.lab

    def own() -> None:
        stage.lose("shut down", lab.routers[:1])
        wait_until(lambda: not any(map(stage.routes, stage.on_link)), 10, "the routes to be gone")
        time.sleep(0.5)

    report = stage.during(own, stage.vips["standby"])
    assert report.worst_gap_ms <= GAP_MS, report
    assert stage.planned("standby") == stage.planned("quiet") == {"bgp"}
    assert not any(lab.client.reaches(vip, timeout=0.5) for vip in stage.vips["quiet"]), "this is what standby is for"
    assert not any(lab.owners(vip) for vip in stage.vips["quiet"]), "in bgp mode nobody answers without standby"
    report = stage.during(lambda: stage.give_back("shut down", lab.routers[:1]), stage.vips["standby"], after=4)
    stage.wait_wide()
    assert report.lost == 0, report


def test_one_replica_loses_its_sessions(stage: ModeStage) -> None:
    node = stage.lab.node("node-b")

    def sessions(verb: str) -> None:
        for router in stage.lab.routers:
            for address in (node.v4, node.v6):
                getattr(router, verb)(address)

    def lose() -> None:
        sessions("shutdown_session")
        wait_until(
            lambda: all(p["state"] != "established" for p in stage.lab.state("node-b")["peers"].values()),
            10,
            "the loss",
        )
        time.sleep(1)

    assert (report := stage.during(lose)).lost == 0, report
    assert stage.judge("standby") == stage.judge("quiet") == "bgp"
    assert stage.planned("standby") == {"bgp"}, "the replica without a session knows by hello that others carry it"
    assert (report := stage.during(lambda: sessions("enable_session"), after=3)).lost == 0, report
    stage.wait_wide()


def test_leader_and_all_sessions_are_lost_at_once(stage: ModeStage) -> None:
    lab = stage.lab
    leader = lab.wait_leader()

    def disaster() -> None:
        lab.node(leader).power_off()
        stage.lose("shut down")
        for eip in ("standby", "quiet"):
            stage.wait_mode("layer2", eip, timeout=30)

    report = stage.during(disaster, after=1.5)
    print(f"leader and sessions lost: {report}")
    # VIPs on the dead node are moved because of its death, not because of BGP
    assert report.worst_gap_ms <= 2 * GAP_MS, report
    stage.wait_judged("layer2")
    assert lab.wait_leader() != leader
    lab.node(leader).power_on()
    stage.give_back("shut down")
    stage.wait_judged("bgp", timeout=60)
    lab.wait_settled()
    stage.wait_wide(timeout=40)


def test_addresses_off_the_segment_have_no_way_back_and_say_so_from_the_start(stage: ModeStage) -> None:
    lab = stage.lab
    (vip,) = stage.vips["far"]
    condition = lab.wait_condition("Eip", "far", "Layer2Possible", "False")
    assert "172.16.9.0" in condition["message"] and "no fallback" in condition["message"]
    lab.wait_condition("Eip", "standby", "Layer2Possible", "True")
    stage.lose("shut down")
    stage.wait_mode("none", "far")
    # Serving is briefly False with NotYetServed while the replicas lose their sessions one after the other.
    wait_until(
        lambda: lab.wait_condition("Service", "far", "Serving", "False", "default")["reason"] == "NoSession",
        15,
        "the reason NoSession",
    )
    refused = lab.wait_condition("Service", "far", "Serving", "False", "default")
    assert "maintenance window" in refused["message"]
    assert not lab.owners(vip)
    begun = time.monotonic()
    stage.give_back("shut down")
    lab.wait_hops(vip, "node-a", "node-b", "node-c", timeout=30)
    print(f"off the segment, back after {time.monotonic() - begun:.1f} s: as soon as there is a session")
    stage.wait_mode("bgp", "far")
    stage.wait_wide()


def test_established_connections_live_through_the_narrow_return(stage: ModeStage) -> None:
    """The measured property is in docs/modes.md: a flow survives while it stays on its node."""
    lab = stage.lab
    vip = stage.vips["standby"][0]
    stage.lose("shut down")
    stage.wait_judged("layer2")
    owner = lab.wait_owner(vip)
    with lab.client.connections(vip, 30) as held:
        time.sleep(0.5)
        stage.give_back("shut down")

        def narrow() -> set[str]:
            return stage.routes(vip)

        found, _ = wait_until(narrow, 30, "the first route")
        assert found == {owner}, "towards the node that serves it already"
        time.sleep(0.2)
        report = held.report()
        if stage.routes(vip) != {owner}:
            raise LabError("widened sooner than narrow_dwell")
        assert report.reset == 0 and set(report.pods) == {f"pod-{owner[-1]}1"}, report
        stage.wait_wide()
        time.sleep(1.0)
        report = held.report()
        print(f"widening over 3 nodes: {report.reset} of {report.opened} reset, {report.silent} silent")
        assert report.reset + report.silent < report.opened, "the flows that stay on their node go on"
