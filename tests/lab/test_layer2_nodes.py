"""The three scenarios of the mission in Layer 2 mode, as seen by a client on the segment.

Bounds are about twice the targets of docs/layer2.md, because test machines are busy. ``make bench`` measures.
"""

from __future__ import annotations

import time
from collections.abc import Iterable

import pytest

from lab.measure import wait_until
from lab.stream import Report
from tests.lab.scenarios import Stage

pytestmark = [pytest.mark.lab, pytest.mark.timeout(180)]

GAP_MS = {"default": 600.0, "fast": 400.0}


def lost_nothing(report: Report, vips: Iterable[str]) -> dict[str, int]:
    """The losses of a stream to these VIPs, by VIP."""
    return {vip: report.only(vip).lost for vip in vips if report.only(vip).lost}


@pytest.mark.parametrize("profile", ["default", "fast"])
def test_scenario_1_the_next_hop_loses_its_power(cluster: str, profile: str) -> None:
    with Stage(cluster, profile=profile) as stage:
        at = stage.serve_one_at_each()
        stage.settle()
        for trial in range(2):
            victim = stage.owner(at["node-a"][0])
            affected = [vip for vip in stage.all_vips() if stage.owner(vip) == victim]
            others = [vip for vip in stage.all_vips() if vip not in affected]
            assert set(at["node-a"]) <= set(affected) and others
            report = stage.during(stage.all_vips(), stage.lab.node(victim).power_off)
            for vip in affected:
                seen = report.only(vip)
                assert 0 < seen.worst_gap_ms <= GAP_MS[profile] and len(seen.gaps) == 1, (trial, vip, str(seen))
                assert stage.owner(vip) != victim
            assert not lost_nothing(report, others)
            assert stage.owner(at["node-a"][0]) == stage.owner(at["node-a"][1])  # both families move together
            stage.back(victim)


def test_scenario_2_the_only_replicas_node_goes_off_and_another_replica_starts(cluster: str) -> None:
    with Stage(cluster, replicas=["node-a"]) as stage:
        at = stage.serve_one_at_each()
        stage.settle()
        elsewhere = [*at["node-b"], *at["node-c"]]
        for name, vips in at.items():
            # node-a answers for all VIPs, each with the MAC of its node
            assert {stage.owner(vip) for vip in vips} == {name}
        with stage.lab.segment_client.stream(stage.all_vips()) as stream:
            time.sleep(0.4)
            stage.lab.node("node-a").power_off()
            stage.lab.set_node("node-a", ready="Unknown")  # as the node controller reports it, some time later
            time.sleep(2.0)
            stage.start("node-b")  # as Kubernetes does with the only pod
            begun = time.monotonic()
            wait_until(lambda: stage.owners(at["node-a"][0]) - {"node-a"}, 20.0, "an answer of the new replica")
            answering = time.monotonic() - begun
            for vip in stage.all_vips():
                assert stage.owner(vip) != "node-a"
            time.sleep(0.5)
            report = stream.report()
        print(f"answering after {answering:.1f} s")
        assert answering <= 10.0
        assert not lost_nothing(report, elsewhere)  # the neighbors' caches kept their entries, and were refreshed
        for vip in at["node-a"]:
            assert report.only(vip).gaps[-1].begin + report.only(vip).gaps[-1].length_ms / 1000 < report.ended - 0.2
        assert {stage.owner(vip) for vip in at["node-b"]} == {"node-b"}
        assert {stage.owner(vip) for vip in at["node-c"]} == {"node-c"}


def test_scenario_3_the_leaders_node_goes_off_among_three_replicas(cluster: str) -> None:
    with Stage(cluster) as stage:
        at = stage.serve_one_at_each()
        stage.settle()
        for trial in range(2):
            leader = stage.leader()
            affected = [vip for vip in stage.all_vips() if stage.owner(vip) == leader]
            others = [vip for vip in stage.all_vips() if vip not in affected]
            waits: list[float] = []

            def off(leader: str = leader, trial: int = trial, waits: list[float] = waits) -> None:
                stage.lab.node(leader).power_off()
                waits.append(stage.time_to_allocate(f"late-{trial}"))

            report = stage.during(stage.all_vips(), off, after=0.5)
            assert not lost_nothing(report, others)
            for vip in affected:
                assert report.only(vip).worst_gap_ms <= GAP_MS["default"], (trial, vip, str(report.only(vip)))
            assert waits[0] <= 12.0
            assert stage.leader(other_than=leader) != leader
            stage.back(leader)
        assert at


def test_leader_and_next_hop_on_one_node_of_two(cluster: str) -> None:
    with Stage(cluster, nodes=2) as stage:
        leader = stage.leader()
        other = next(node.name for node in stage.lab.nodes if node.name != leader)
        here, there = stage.serve("here", at=leader), stage.serve("there", at=other)
        stage.settle()
        report = stage.during(stage.all_vips(), stage.lab.node(leader).power_off)
        assert not lost_nothing(report, there)
        for vip in here:
            assert 0 < report.only(vip).worst_gap_ms <= GAP_MS["default"], str(report.only(vip))
            assert stage.owner(vip) == other
        assert stage.leader(other_than=leader) == other
        stage.wait_moved(leader)
        stage.back(leader)
        assert {stage.owner(vip) for vip in stage.all_vips()} == {other}  # nothing is taken back


def test_the_next_hops_cable_is_pulled_and_plugged_in_again(cluster: str) -> None:
    with Stage(cluster) as stage:
        at = stage.serve_one_at_each()
        stage.settle()
        victim = next(name for name in at if name != stage.leader())
        others = [vip for name, vips in at.items() if name != victim for vip in vips]
        report = stage.during(stage.all_vips(), stage.lab.node(victim).cut_link)
        assert not lost_nothing(report, others)
        for vip in at[victim]:
            assert 0 < report.only(vip).worst_gap_ms <= GAP_MS["default"], str(report.only(vip))
        moved = {vip: stage.owner(vip) for vip in at[victim]}
        stage.wait_moved(victim)
        report = stage.during(stage.all_vips(), stage.lab.node(victim).restore_link, after=3.0)
        assert report.lost == 0, str(report)
        assert {vip: stage.owner(vip) for vip in at[victim]} == moved


def test_a_node_that_comes_back_without_the_api_claims_nothing_by_what_it_knew(cluster: str) -> None:
    with Stage(cluster) as stage:
        at = stage.serve_one_at_each()
        stage.settle()
        victim = next(name for name in at if name != stage.leader())
        node = stage.lab.node(victim)
        node.cut_api()
        stage.during(at[victim], node.cut_link)
        moved = {vip: stage.owner(vip) for vip in at[victim]}
        stage.wait_moved(victim)
        with stage.watched(at[victim]) as answers:
            report = stage.during(stage.all_vips(), node.restore_link, after=3.0)
        assert report.lost == 0, str(report)
        assert [seen for seen in answers if victim in seen] == []
        node.restore_api()
        stage.settle()
        assert {vip: stage.owner(vip) for vip in at[victim]} == moved
