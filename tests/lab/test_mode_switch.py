"""The manual switch, on both clusters: its output, its refusals, its effects, and its cost to the traffic (nothing)."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest

from lab.measure import wait_until
from tests.lab.mode_scenes import ModeStage
from tests.lab.product import EIP_ANNOTATION

pytestmark = pytest.mark.lab

PROTOCOL = "protocol.porter.kubesphere.io/v1alpha1"


@pytest.fixture(scope="module")
def stage(cluster: str) -> Iterator[ModeStage]:
    with ModeStage(cluster, pools=("standby", "quiet", "far")) as made:
        try:
            made.wait_wide()
            yield made
        finally:
            print(made.lab.logs())


def test_it_shows_what_is_on_the_wire(stage: ModeStage) -> None:
    code, out, err = stage.command("mode")
    assert code == 0, err
    for eip in ("standby", "quiet"):
        line = next(line for line in out.splitlines() if line.startswith(eip))
        assert re.search(r"auto +bgp +\d+\w+ +2 bgp +An established session carries it\.", line), out
        assert stage.judge(eip) == "bgp"
    rows = {row["name"]: row for row in stage.json_of("mode")}
    assert rows["far"]["layer2Possible"] == "False" and rows["standby"]["layer2Possible"] == "True"


@pytest.mark.parametrize(
    ("wanted", "mode"),
    [("layer2", "layer2"), ("bgp", "bgp"), ("layer2", "layer2"), ("auto", "bgp"), ("bgp", "bgp"), ("auto", "bgp")],
)
def test_every_switch_by_hand_loses_nothing(stage: ModeStage, wanted: str, mode: str) -> None:
    before = stage.record("standby")
    said = []

    def switch() -> None:
        said.append(stage.command("mode", wanted, "--eip", "standby", "--eip", "quiet"))

    report = stage.during(switch, after=0.5)
    ((code, out, err),) = said
    assert code == 0, err
    assert report.lost == 0, report
    for eip in ("standby", "quiet"):
        assert f"Eip {eip} was switched from {before['protocol']} to {wanted}; 2 addresses are served by {mode}." in out
        assert f"Eip {eip}: protocol {before['protocol']} -> {wanted}." in err
        # The command has waited until the old path was inactive: its output is valid now
        assert stage.record(eip)["served"] == mode
        for vip in stage.vips[eip]:
            owners = stage.lab.owners(vip)
            # The last withdrawal has been sent, but a busy router may not have read it yet.
            wait_until(lambda vip=vip: bool(stage.routes(vip)) == (mode == "bgp"), 2, f"the routes to {vip}")
            assert bool(owners) == (mode == "layer2" or (wanted == "auto" and eip == "standby")), vip
    if before["served"] != mode:
        change = stage.record("standby")["history"][0]
        assert (change["before"], change["after"]) == (before["served"], mode)
        assert change["reason"].startswith("spec.protocol is") or wanted == "auto"


def test_what_cannot_work_is_refused(stage: ModeStage) -> None:
    code, _, err = stage.command("mode", "layer2", "--eip", "far")
    assert code == 1 and "layer2 cannot work for Eip far: its addresses are in no connected subnet" in err, err
    code, _, err = stage.command("mode", "bgp", "--eip", "nonsense")
    assert code == 2 and "There is no Eip 'nonsense'" in err
    code, out, err = stage.command("mode", "auto", "--eip", "far", "--no-wait")
    assert code == 0 and "is auto already" in out, err
    stage.lose("shut down")
    stage.wait_judged("layer2")
    code, _, err = stage.command("mode", "bgp", "--eip", "standby")
    assert code == 1 and "no replica has an established session" in err, err
    code, out, _ = stage.command("mode")
    line = next(line for line in out.splitlines() if line.startswith("standby"))
    assert "layer2" in line and "maintenance window" in line, out
    rows = {row["name"]: row for row in stage.json_of("mode")}
    assert "maintenance window" in rows["standby"]["history"][0]["reason"]
    # With --force the switch is done, and the output reports that no established session carries it
    code, _, err = stage.command("mode", "bgp", "--eip", "quiet", "--force", "--timeout", "5")
    assert code == 1 and "No BGP session that carries it is established" in err, err
    code, _, err = stage.command("mode", "auto", "--eip", "quiet")
    assert code == 0, err
    stage.give_back("shut down")
    stage.wait_judged("bgp", timeout=40)
    stage.wait_wide()


def test_one_service_may_want_another_way_than_its_pool(stage: ModeStage) -> None:
    lab = stage.lab
    lab.service("fixed", policy="Local", annotations={EIP_ANNOTATION: "quiet", PROTOCOL: "layer2"})
    (vip,) = lab.wait_vips("fixed", 1, timeout=30)
    lab.wait_owner(vip)
    assert not stage.routes(vip)
    assert lab.wait_condition("Service", "fixed", "Serving", "True", "default")["reason"] == "Layer2"
    lab.service("fixed", policy="Local", annotations={EIP_ANNOTATION: "quiet", PROTOCOL: "bgp"})
    lab.wait_hops(vip, "node-a", "node-b", "node-c")
    wait_until(lambda: not lab.owners(vip), 15, "nobody to answer for a strict bgp address")
    wait_until(
        lambda: lab.conditions("Service", "fixed", "default")["Serving"]["reason"] == "BGP", 10, "the status to say so"
    )
    assert stage.record("quiet")["vips"] == {"bgp": 2, "layer2": 0, "none": 0}, "it is not the pool's mode"
    lab.delete_service("fixed")


def test_changes_are_in_history_events_and_metrics(stage: ModeStage) -> None:
    history = stage.record("standby")["history"]
    assert all({"time", "before", "after", "reason"} <= change.keys() for change in history)
    assert [change["time"] for change in history] == sorted((c["time"] for c in history), reverse=True)
    assert all(change["before"] != change["after"] for change in history)
    told = " ".join(event["message"] for event in stage.lab.backend.events("Eip", "standby"))
    assert "The mode went from bgp to layer2." in told and "The mode went from layer2 to bgp." in told
    for node in ("node-a", "node-b", "node-c"):
        changes = stage.metric(node, "porterlb_mode_changes_total")
        timed = stage.metric(node, "porterlb_mode_change_seconds_count")
        assert changes >= 16 and timed >= changes / 2, (node, changes, timed)
        # Most changes are visible on the network within 1 s; one had to wait for a session
        quick = sum(
            stage.metric(node, f'porterlb_mode_change_seconds_bucket{{after="{mode}",le="1.0"}}')
            for mode in ("bgp", "layer2")
        )
        assert quick >= timed / 2, (node, quick, timed)
