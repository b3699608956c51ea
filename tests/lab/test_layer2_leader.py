"""Effects on traffic, answers and writes when the leader fails in every way except a power loss."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from lab.measure import wait_until
from tests.lab.scenarios import Stage

pytestmark = [pytest.mark.lab, pytest.mark.timeout(180)]

LEASE_S = 12.0  # twice the target of 6 s without allocation


@contextmanager
def stopped(pids: list[int]) -> Iterator[None]:
    """Stops these processes for the duration of the block."""
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for pid in pids:
            os.kill(pid, signal.SIGCONT)


def test_the_leader_process_is_killed(cluster: str) -> None:
    with Stage(cluster) as stage:
        at = stage.serve_one_at_each()
        stage.settle()
        leader = stage.leader()
        waits: list[float] = []

        def kill() -> None:
            stage.manager(leader).kill()
            waits.append(stage.time_to_allocate("late"))

        with stage.watched(at[leader]) as answers:
            report = stage.during(stage.all_vips(), kill)
        assert report.lost == 0, str(report)  # its node is alive: another replica answers with the node's MAC
        assert waits[0] <= LEASE_S
        assert [seen for seen in answers if seen - {leader}] == []
        assert len([seen for seen in answers if not seen]) <= 0.4 / 0.05  # asked each 50 ms: no long silence
        assert stage.leader(other_than=leader)
        for name, vips in at.items():
            assert {stage.owner(vip) for vip in vips} == {name}


@pytest.mark.parametrize("what", ["manager", "everything"])
def test_the_leader_is_stopped_past_its_lease_and_continued(cluster: str, what: str) -> None:
    with Stage(cluster) as stage:
        at = stage.serve_one_at_each()
        stage.settle()
        leader = stage.leader()
        manager = stage.manager(leader)
        family = [pid for pid, _ in manager.descendants()] if what == "everything" else []
        with stage.lab.segment_client.stream(stage.all_vips(), interval=0.002) as stream:
            time.sleep(0.4)  # until the client has its neighbor entries: a first request may meet the stopped manager
            with stopped([manager.pid, *family]):
                assert stage.time_to_allocate("late") <= LEASE_S
                new = stage.leader(other_than=leader)
                # The old leader's knowledge becomes outdated: it would assign the address of "late" to "later"
                stage.lab.delete_service("late")
                wait_until(lambda: stage.time_to_allocate("later") and stage.lab.vips("later"), 20.0, "later")
                before = stage.lab.backend.status("Service", "later", "default")
                time.sleep(0.5)
            with stage.watched(stage.all_vips()) as answers:
                time.sleep(4.0)
            report = stream.report()
        assert stage.leader() == new
        assert stage.lab.vips("later") == [entry["ip"] for entry in before["loadBalancer"]["ingress"]]
        wait_until(lambda: stage.lab.state(leader)["leader"] == new, 10.0, "the old leader to know the new one")
        assert [seen for seen in answers if len(seen) > 1] == []
        assert report.lost == 0, str(report)
        for name, vips in at.items():
            assert {stage.owner(vip) for vip in vips} == {name}


def test_the_leader_is_partitioned_from_everybody_and_the_partition_heals(cluster: str) -> None:
    with Stage(cluster) as stage:
        at = stage.serve_one_at_each()
        stage.settle()
        leader = stage.leader()
        node = stage.lab.node(leader)
        others = [vip for name, vips in at.items() if name != leader for vip in vips]
        waits: list[float] = []

        def cut() -> None:
            node.partition()
            node.cut_api()
            waits.append(stage.time_to_allocate("late"))

        report = stage.during(stage.all_vips(), cut)
        assert waits[0] <= LEASE_S
        assert {vip: report.only(vip).lost for vip in others if report.only(vip).lost} == {}
        for vip in at[leader]:
            assert 0 < report.only(vip).worst_gap_ms <= 600.0, str(report.only(vip))
        new = stage.leader(other_than=leader)
        moved = {vip: stage.owner(vip) for vip in stage.all_vips()}
        stage.wait_moved(leader)
        node.heal()
        node.restore_api()
        stage.settle()
        assert stage.leader() == new
        assert {vip: stage.owner(vip) for vip in stage.all_vips()} == moved  # one owner each, and the same


def test_the_leader_is_partitioned_from_the_other_nodes_only(cluster: str) -> None:
    """Both sides are alive and heard by the client. During the partition both may answer; afterwards exactly one
    does."""
    with Stage(cluster) as stage:
        stage.serve_one_at_each()
        stage.settle()
        leader = stage.leader()
        node = stage.lab.node(leader)
        node.partition(*[other for other in stage.lab.nodes if other is not node])
        time.sleep(2.0)
        for vip in stage.all_vips():
            assert stage.owners(vip)
        node.heal()
        stage.settle()
        report = stage.during(stage.all_vips(), lambda: None, after=1.0)
        assert report.lost == 0, str(report)


@pytest.mark.parametrize("who", ["next hop", "leader"])
def test_a_node_goes_off_while_the_api_is_away(cluster: str, who: str) -> None:
    with Stage(cluster) as stage:
        at = stage.serve_one_at_each()
        stage.settle()
        leader = stage.leader()
        victim = leader if who == "leader" else next(name for name in at if name != leader)
        for node in stage.lab.nodes:
            node.cut_api()
        time.sleep(3.5)  # past the renew deadline: there is no leader any more
        others = [vip for name, vips in at.items() if name != victim for vip in vips]
        report = stage.during(stage.all_vips(), stage.lab.node(victim).power_off)
        assert {vip: report.only(vip).lost for vip in others if report.only(vip).lost} == {}
        for vip in at[victim]:
            assert 0 < report.only(vip).worst_gap_ms <= 600.0, str(report.only(vip))
            assert stage.owner(vip) != victim
        for node in stage.lab.nodes:
            if node.on:
                node.restore_api()
        assert stage.time_to_allocate("late") <= LEASE_S
