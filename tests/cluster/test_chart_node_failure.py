"""New connections through a VIP while a node loses its power, as the chart runs PorterLB on a complete Kubernetes.

The node-monitor grace period is 40 s, as in most clusters: Kubernetes itself reacts long after the measured interval.
Figures are printed; bounds are generous, for busy machines.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from typing import Any

import pytest

from lab.measure import wait_until
from porterlb.core.node_return import BOOT
from porterlb.edge.node_failure import ANNOTATION, RECORD
from tests.cluster.test_chart_scenarios import NAMES, served
from tests.cluster.whole import NAMESPACE, Whole, WholeBackend, is_ready, whole

pytestmark = [pytest.mark.cluster, pytest.mark.lab, pytest.mark.nodes, pytest.mark.timeout(900)]

TRIALS = int(os.environ.get("PORTERLB_TRIALS", "1"))
AFTER = 6.0 if TRIALS > 1 else 3.5
"""Observation time of new connections after the power loss, in seconds."""
WITHOUT = bool(os.environ.get("PORTERLB_TEST_WITHOUT_MARKS"))
"""Also measure Kubernetes without PorterLB's marks: a minute for each trial."""


class Patient(WholeBackend):
    grace = 40.0


@pytest.fixture(scope="module")
def lab() -> Iterator[Whole]:
    with whole(backend=Patient) as made:
        try:
            made.install(settings={"markAgainAfter": 5})
            made.pools()
            yield made
        finally:
            for node in made.nodes:
                print(f"--- {node.name}\n{made.manager_log(node.name)[-3000:]}")


def spare(lab: Whole) -> str:
    """The node without a replica: the two other nodes can determine whether it is alive."""
    (name,) = set(NAMES) - set(lab.wait_replicas(2))
    return name


def reasons(lab: Whole, app: str) -> dict[str, tuple[str, str]]:
    """Status and reason of Ready, by node."""
    found: dict[str, Any] = {pod.spec.node_name: pod for pod in lab.pods_of(app, "default")}
    return {
        node: next((c.status, c.reason or "") for c in pod.status.conditions if c.type == "Ready")
        for node, pod in found.items()
    }


def record(lab: Whole) -> str:
    """The record that the leader wrote for the next leader; "{}" before the leader has marked a node."""
    lease = lab.kubectl("-n", NAMESPACE, "get", "lease", RECORD, "-o", "json", "--ignore-not-found")
    return str(json.loads(lease)["metadata"]["annotations"][ANNOTATION]) if lease.strip() else "{}"


def forgotten(lab: Whole) -> None:
    wait_until(lambda: "{}" in record(lab), 60, "the node to be forgotten, so that it may be marked again")


STALL = 0.15
"""A gap, in seconds, that a busy machine causes by itself: sockets are not read for a moment."""


def comes_back(lab: Whole, vip: str, victim: str) -> str:
    """A node returns. Describes what clients lose; empty if they lose nothing.

    Streams and new connections run from before its power-on until its kube-proxy has forwarded for a while.
    """
    where = lab.segment_client if lab.on_segment(vip) else lab.client
    with (
        where.attempts(vip, interval=0.04, timeout=1.0) as attempts,
        where.stream(vip, flows=24, interval=0.01) as stream,
    ):
        moment = time.monotonic()
        lab.back(victim)
        if not lab.on_segment(vip):
            lab.wait_hops(vip, *NAMES, timeout=40)
        wait_until(lambda: all(is_ready(pod) for pod in lab.pods_of("web", "default")), 30, "all pods to be ready")
        time.sleep(2.0)  # until every kube-proxy knows the pod
        seen, knocked = stream.report(), attempts.report()
    print(f"{victim} returns ({vip}): {seen}; {knocked.since(moment)}")
    return f"{seen}; {knocked.since(moment)}" if seen.worst_gap_ms > 1000 * STALL or knocked.failed else ""


def power_loss(lab: Whole, vip: str, victim: str, wait: float) -> tuple[float, str]:
    """(seconds until the start of the last failed attempt, description): 25 attempts a second with a timeout of 1 s."""
    where = lab.segment_client if lab.on_segment(vip) else lab.client
    with where.attempts(vip, interval=0.04, timeout=1.0) as attempts:
        time.sleep(1.0)
        moment = time.monotonic()
        lab.node(victim).power_off()
        time.sleep(wait)
        report = attempts.report()
    return report.last(moment), report.since(moment)


@pytest.mark.parametrize("eip", ["routed", "segment", "routed6", "segment6"])
def test_new_connections_fail_for_a_moment_only(lab: Whole, eip: str) -> None:
    family = "IPv6" if eip.endswith("6") else "IPv4"
    with served(lab, "web", eip, policy="Cluster", families=[family]) as vip:
        for _ in range(TRIALS):
            victim = spare(lab)
            seconds, words = power_loss(lab, vip, victim, AFTER)
            print(f"{eip}, policy Cluster: {words}")
            assert reasons(lab, "web")[victim] == ("False", "PorterLBNodeDead")
            assert lab.ready(victim) == "True", "Kubernetes does not know yet"
            lost = comes_back(lab, vip, victim)
            forgotten(lab)
            assert seconds < 3.0, words
            assert not lost, lost
    told = lab.kubectl("get", "events", "-A", "-o", "wide")
    assert "PorterLBNodeDead" in told, told


@pytest.mark.parametrize("eip", ["routed", "segment"])
def test_a_node_that_returns_loses_nothing_with_policy_local(lab: Whole, eip: str) -> None:
    with served(lab, "web", eip, policy="Local") as vip:
        for number in range(TRIALS):
            victim = NAMES[number % 3] if TRIALS > 1 else spare(lab)  # a node with a replica takes 10 s longer
            others = [name for name in NAMES if name != victim]
            lab.node(victim).power_off()
            if lab.on_segment(vip):
                lab.wait_owner(vip, *others)
            else:
                lab.wait_hops(vip, *others)
            time.sleep(BOOT + 0.5)  # a shorter outage does not count as a boot
            lost = comes_back(lab, vip, victim)
            lab.wait_replicas(2)
            wait_until(lambda: "{}" in record(lab), 60, "the node to be forgotten")
            assert not lost, lost


def cut_off(lab: Whole, victim: str) -> list[str]:
    """No other node hears the victim; the API server still does. Returns the keys of the faults."""
    return [lab.faults.filter("all", victim, name) for name in NAMES if name != victim]


def why_not(lab: Whole, victim: str) -> str:
    """The reason why the leader does not mark the pods of a silent node."""
    refused: dict[str, str] = lab.state(lab.leader())["nodeFailures"]["refused"]
    return refused.get(victim, "")


def test_a_false_verdict_costs_a_moment(lab: Whole) -> None:
    """No other node hears a live node that runs no replica. Its kubelet corrects the pods immediately. They stay
    correct, because a node is not marked twice."""
    with served(lab, "web", "routed", policy="Cluster") as vip:
        victim = spare(lab)
        with lab.client.attempts(vip) as attempts:
            moment = time.monotonic()
            keys = cut_off(lab, victim)
            try:
                wait_until(lambda: f'"{victim}": "marked"' in record(lab), 10, f"{victim} to be marked", 0.02)
                marked = time.monotonic() - moment
                wait_until(lambda: reasons(lab, "web")[victim][0] == "True", 10, "the kubelet to put it right", 0.02)
                right = time.monotonic() - moment
                time.sleep(2.0)
                assert reasons(lab, "web")[victim][0] == "True"
            finally:
                for key in keys:
                    lab.faults.lift(key)
            words = attempts.report().since(moment)
            print(f"a false verdict: marked after {marked:.2f} s, put right after {right:.2f} s; {words}")
        wait_until(lambda: "{}" in record(lab), 60, "the node to be forgotten")


def test_a_node_whose_probes_are_filtered_answers_tcp_and_is_not_marked(lab: Whole) -> None:
    victim = spare(lab)
    keys = [lab.faults.filter(protocol, source=victim) for protocol in ("arp", "ndp")]
    try:
        wait_until(lambda: "answers TCP" in why_not(lab, victim), 10, "the leader to say why", 0.05)
        time.sleep(2.0)
        assert victim not in record(lab)
    finally:
        for key in keys:
            lab.faults.lift(key)


def every_node(lab: Whole) -> None:
    """Runs a replica on every node."""
    lab.upgrade(kind="DaemonSet", settings={"markAgainAfter": 5})
    assert set(lab.wait_replicas(3, timeout=120)) == set(NAMES)


def test_a_replica_that_no_other_hears_writes_that_it_lives(lab: Whole) -> None:
    every_node(lab)
    # After the upgrade the Lease may still name a replica that has ended.
    wait_until(lambda: {lab.state(name)["leader"] for name in NAMES} == {lab.leader()}, 30, "one leader for all")
    victim = next(name for name in NAMES if name != lab.leader())
    keys = cut_off(lab, victim)
    try:
        wait_until(lambda: "writes to the API" in why_not(lab, victim), 10, "the leader to say why", 0.05)
        time.sleep(5.0)
        assert victim not in record(lab)
    finally:
        for key in keys:
            lab.faults.lift(key)


def test_the_leaders_node_is_the_victim(lab: Whole) -> None:
    """A replica on every node: the cluster first elects a new leader, which takes about 4 s, then it proceeds as
    above."""
    every_node(lab)
    with served(lab, "web", "routed", policy="Cluster") as vip:
        for _ in range(TRIALS):
            wait_until(lambda: lab.leader() in NAMES, 20, "a leader")
            victim = lab.leader()
            seconds, words = power_loss(lab, vip, victim, 9.0)
            print(f"routed, policy Cluster, the leader's node: {words}")
            assert reasons(lab, "web")[victim] == ("False", "PorterLBNodeDead")
            lab.back(victim)
            lab.wait_replicas(3, timeout=90)
            assert seconds < 8.0, words
            forgotten(lab)


def test_without_the_api_nothing_is_marked_until_it_is_back(lab: Whole) -> None:
    """The only API server dies with a node: the VIP moves as always, and the pods are marked once the API is back."""
    every_node(lab)
    with served(lab, "web", "segment", policy="Cluster") as vip:
        wait_until(lambda: lab.leader() in NAMES, 20, "a leader")
        victim = next(name for name in NAMES if name != lab.leader())
        with lab.api_away():
            lab.node(victim).power_off()
            lab.wait_owner(vip, *(name for name in NAMES if name != victim), timeout=10)
            time.sleep(4.0)  # longer than the lease: there is no leader any more
        assert lab.ready(victim) == "True", "Kubernetes does not know yet"
        begun = time.monotonic()
        wait_until(lambda: f'"{victim}": "marked"' in record(lab), 30, f"{victim} to be marked", 0.05)
        print(f"the API server is back: marked {time.monotonic() - begun:.1f} s later")
        assert reasons(lab, "web")[victim] == ("False", "PorterLBNodeDead")

        def reached() -> bool:
            with lab.segment_client.attempts(vip) as attempts:
                time.sleep(1.2)
                return not attempts.report().failed

        # Controllers and kube-proxies reconnect to the API after their own retry delays.
        wait_until(reached, 40, "new connections to reach live pods only", 0.1)
        print(f"no new connection fails from {time.monotonic() - begun - 1.2:.1f} s on")
        lab.back(victim)


def test_without_the_right_same_node_is_as_quick_and_the_rest_waits_for_kubernetes(lab: Whole) -> None:
    lab.upgrade(nodeFailure={"markPodsNotReady": False})
    lab.rolled_out()
    with served(lab, "web", "routed", policy="Cluster") as vip:
        assert "markPodsNotReady" in lab.wait_condition("Service", "web", "Serving", "True", "default")["message"]
        lab.kubectl("patch", "service", "web", "-p", '{"spec":{"trafficDistribution":"PreferSameNode"}}')
        hinted = ("get", "endpointslices", "-l", "kubernetes.io/service-name=web", "-o", "json")
        wait_until(lambda: lab.kubectl(*hinted).count('"forNodes"') == 3, 30, "the hints")
        time.sleep(2.0)  # until every kube-proxy knows them
        for _ in range(TRIALS):
            victim = spare(lab)
            seconds, words = power_loss(lab, vip, victim, 3.0)
            print(f"routed, PreferSameNode, pods not marked: {words}")
            assert reasons(lab, "web")[victim][1] != "PorterLBNodeDead"
            assert seconds < 2.0, words
            lab.back(victim)
            lab.wait_hops(vip, *NAMES, timeout=40)
        if WITHOUT:
            lab.kubectl("patch", "service", "web", "-p", '{"spec":{"trafficDistribution":null}}')
            wait_until(lambda: '"forNodes"' not in lab.kubectl(*hinted), 30, "the hints to go")
            time.sleep(2.0)
            _, words = power_loss(lab, vip, spare(lab), 58.0)
            print(f"routed, policy Cluster, pods not marked: {words}")
            lab.back(*NAMES)
