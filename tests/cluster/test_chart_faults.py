"""PorterLB from its image on real nodes, with partial failures of a node: kubelet, containerd, memory, a volume, the
node. Also: another release of the image, and commands that reach the replicas through kubelets. Figures are printed."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from kubernetes import client

from lab.measure import wait_until
from lab.stream import Report
from porterlb.core.node_return import BOOT
from tests.chart import chart
from tests.cluster.memory import kill_for_memory, restarts
from tests.cluster.nodes import images, later
from tests.cluster.scenarios import porterlb
from tests.cluster.test_chart_scenarios import NAMES, served
from tests.cluster.whole import NAMESPACE, Whole, is_ready, whole

pytestmark = [pytest.mark.cluster, pytest.mark.lab, pytest.mark.nodes, pytest.mark.timeout(400)]

MANAGER = r"^\S*python\S* .*porterlb manager"
"""The command line of process 1 of a replica's container."""


@pytest.fixture(scope="module")
def lab() -> Iterator[Whole]:
    with whole() as made:
        try:
            made.install()
            made.pools()
            yield made
        finally:
            for node in made.nodes:
                print(f"--- {node.name}\n{made.manager_log(node.name)[-3000:]}")


class Load:
    """A VIP of each mode with policy Cluster, and a stream of datagrams to each."""

    def __init__(self, lab: Whole, routed: str, segment: str) -> None:
        self.lab, self.routed, self.segment = lab, routed, segment

    @contextmanager
    def watched(self) -> Iterator[list[Report]]:
        """Collects the reports of the two streams, BGP first, after the end of the block."""
        reports: list[Report] = []
        with (
            self.lab.client.stream(self.routed, flows=6, interval=0.005, duration=200) as far,
            self.lab.segment_client.stream(self.segment, flows=4, interval=0.005, duration=200) as near,
        ):
            time.sleep(0.5)
            yield reports
            time.sleep(0.5)
            reports += [far.report(), near.report()]


@pytest.fixture(scope="module")
def load(lab: Whole) -> Iterator[Load]:
    with (
        served(lab, "far", "routed", policy="Cluster") as routed,
        served(lab, "near", "segment", policy="Cluster") as segment,
    ):
        lab.wait_hops(routed, *NAMES)
        yield Load(lab, routed, segment)


@pytest.fixture(autouse=True)
def whole_again(lab: Whole) -> Iterator[None]:
    """Restores the cluster after each test, including failed ones."""
    yield
    for machine in lab.machines.values():
        machine.release("kubelet")
    lab.node_by_node_back()
    lab.wait_ready(*NAMES)
    lab.wait_replicas(2, timeout=90)


def one_answer(lab: Whole, vip: str, seconds: float) -> None:
    """Checks for this number of seconds that exactly one node answers for the VIP."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        assert len(lab.owners(vip)) == 1
        time.sleep(0.1)


def test_a_kubelet_dies_while_its_node_lives(lab: Whole, load: Load) -> None:
    """Kubernetes replaces the replica of a node that has stopped reporting. The old replica cannot be ended: it is
    Terminating, but it is alive and answers. It may still lead while its replacement runs on another node."""
    victim = lab.wait_leader(*lab.wait_replicas(2))
    old = lab.replicas()[victim].metadata.uid
    begun = time.monotonic()
    with load.watched() as reports:
        lab.machines[victim].hold("kubelet")
        lab.wait_ready(victim, status=("Unknown",))
        not_ready = time.monotonic() - begun
        wait_until(lambda: victim not in lab.ready_replicas() and len(lab.ready_replicas()) == 2, 60, "a replacement")
        replaced = time.monotonic() - begun
        one_answer(lab, load.segment, 4.0)
        there = {pod.metadata.uid: pod for pod in lab.pods_of("porterlb", NAMESPACE)}
        assert there[old].metadata.deletion_timestamp and len(there) == 3
        heard = lab.state(victim)["replicas"]
        assert {name for name, replica in heard.items() if replica["fresh"]} == set(NAMES), "three replicas live"
        lab.machines[victim].release("kubelet")
        lab.wait_ready(victim)
        wait_until(lambda: old not in {p.metadata.uid for p in lab.pods_of("porterlb", NAMESPACE)}, 60, "it to end")
        one_answer(lab, load.segment, 2.0)
    print(f"kubelet dead: NotReady after {not_ready:.1f} s, replaced after {replaced:.1f} s; {reports}")
    assert reports[1].lost == 0, "on the segment"
    assert reports[0].worst_gap_ms < 1000, "by BGP"


def test_containerd_is_started_again(lab: Whole, load: Load) -> None:
    before = {name: (pod.metadata.uid, restarts(pod)) for name, pod in lab.wait_replicas(2).items()}
    victim = next(iter(before))
    machine = lab.machines[victim]
    was = machine.pid("containerd")
    with load.watched() as reports:
        machine.kill("containerd")
        wait_until(lambda: machine.processes(r"^containerd --config") not in ([], [was]), 20, "another containerd")
        time.sleep(4.0)
    lab.wait_ready(victim)
    assert {name: (pod.metadata.uid, restarts(pod)) for name, pod in lab.wait_replicas(2).items()} == before
    assert [report.lost for report in reports] == [0, 0]
    name = lab.replicas()[victim].metadata.name
    assert lab.kubectl("-n", NAMESPACE, "exec", name, "--", "true") == "", "it knows its containers"


def test_a_pod_deleted_as_its_replica_starts_again_leaves_no_routes_behind(lab: Whole, load: Load) -> None:
    """Routers keep the routes of a replica that was killed for the restart time (30 s), also those to a node that dies
    meanwhile. The replica that is started again must end its sessions in order, however early its pod is deleted. As
    process 1 of a container, it would not even get a SIGTERM that arrives before it has a handler."""
    victim, other = lab.wait_replicas(2)
    prefix, own = f"{load.routed}/32", lab.node(victim).v4
    kill_for_memory(lab, victim)
    begun = time.monotonic()
    lab.kubectl("-n", NAMESPACE, "delete", "pod", lab.replicas()[victim].metadata.name)
    ended = time.monotonic() - begun
    left = {path.next_hop for path in lab.router.paths("v4").get(prefix, []) if path.neighbor == own}
    if victim not in lab.wait_replicas(2, timeout=60):
        assert not left, "the routes of the pod that was deleted"
    print(f"deleted as it started: ended after {ended:.1f} s")
    assert ended < 20, "the kubelet kills it after 30 s"
    far = lab.client.stream(load.routed, flows=12, interval=0.005)
    with far:
        time.sleep(0.5)
        lab.node(other).power_off()
        lab.wait_hops(load.routed, *sorted(set(NAMES) - {other}), timeout=20)
        time.sleep(1.0)
    assert far.report().worst_gap_ms < 2000, "no session keeps a route to the node"


def test_a_volume_that_is_full_serves_on_and_starts_again(lab: Whole, load: Load) -> None:
    name, pod = next(iter(lab.wait_replicas(2).items()))
    fill = ("-n", NAMESPACE, "exec", pod.metadata.name, "--", "sh", "-c", "cat /dev/zero > /run/porterlb/full; true")
    with load.watched() as reports:
        lab.kubectl(*fill)
        time.sleep(2.0)
        assert restarts(lab.replicas()[name]) == 0
    assert [report.lost for report in reports] == [0, 0]
    with load.watched() as reports:
        (manager,) = lab.machines[name].processes(MANAGER)
        os.kill(manager, signal.SIGKILL)
        wait_until(lambda: restarts(lab.replicas()[name]) == 1, 30, "the container to start again", 0.1)
        lab.wait_replicas(2)
    print(f"manager killed, its volume full: {reports}")
    assert max(report.worst_gap_ms for report in reports) < 3000
    lab.kubectl("-n", NAMESPACE, "delete", "pod", pod.metadata.name)


def test_a_replica_without_memory_is_killed(lab: Whole, load: Load) -> None:
    victim = lab.wait_owner(load.segment)
    if victim not in lab.ready_replicas():
        victim = next(iter(lab.ready_replicas()))
    with load.watched() as reports:
        kill_for_memory(lab, victim)
        ended = lab.replicas()[victim].status.container_statuses[0].last_state.terminated
        lab.wait_replicas(2)
    print(f"replica out of memory ({ended.reason}): {reports}")
    assert ended.reason == "OOMKilled"
    assert max(report.worst_gap_ms for report in reports) < 3000
    lab.kubectl("-n", NAMESPACE, "delete", "pod", lab.replicas()[victim].metadata.name)


def evict(lab: Whole, pod: Any) -> int:
    """Requests the eviction of a pod from the eviction API, as kubectl drain does. Returns the status code."""
    body = client.V1Eviction(metadata=client.V1ObjectMeta(name=pod.metadata.name, namespace=NAMESPACE))
    try:
        lab.core.create_namespaced_pod_eviction(pod.metadata.name, NAMESPACE, body)
    except client.ApiException as error:
        return int(error.status or 0)
    return 201


def test_one_replica_at_a_time_is_evicted(lab: Whole, load: Load) -> None:
    first, second = lab.wait_replicas(2).values()
    with load.watched() as reports:
        assert evict(lab, first) == 201
        wait_until(lambda: len(lab.ready_replicas()) == 1, 20, "the first one to leave", 0.02)
        assert evict(lab, second) == 429, "the budget allows one disruption"
        lab.wait_replicas(2)
        assert first.metadata.uid not in {pod.metadata.uid for pod in lab.ready_replicas().values()}
    print(f"a replica is evicted: {reports}")
    assert [report.lost for report in reports] == [0, 0]


def test_an_image_that_cannot_be_pulled_stops_the_upgrade_at_the_first_replica(lab: Whole, load: Load) -> None:
    before = {pod.metadata.uid for pod in lab.wait_replicas(2).values()}

    def reasons() -> set[str]:
        waiting = [pod.status.container_statuses or [] for pod in lab.replicas().values()]
        return {each.state.waiting.reason for found in waiting for each in found if each.state.waiting}

    with load.watched() as reports:
        lab.upgrade(image={"repository": images.MANAGER, "pullPolicy": "Always"})
        wait_until(lambda: reasons() & {"ErrImagePull", "ImagePullBackOff"}, 60, "the image not to be pulled", 0.1)
        time.sleep(3.0)
        assert len(before & {pod.metadata.uid for pod in lab.ready_replicas().values()}) == 1, "the other one stays"
        with lab.helm() as config:
            config.rollback(chart.RELEASE)
        lab.rolled_out()
        lab.wait_replicas(2)
    print(f"an image that cannot be pulled: {reports}")
    assert [report.lost for report in reports] == [0, 0]


def test_a_node_boots_again(lab: Whole, load: Load) -> None:
    """The node's disk survives: the same pods start again."""
    victim = next(iter(lab.wait_replicas(2)))
    bound: Any = lab.core.list_pod_for_all_namespaces(field_selector=f"spec.nodeName={victim}")
    before = {pod.metadata.uid: restarts(pod) for pod in bound.items}
    with load.watched() as reports:
        lab.node(victim).power_off()
        time.sleep(BOOT + 0.5)  # a shorter outage does not count as a boot
        lab.back(victim)
        lab.wait_replicas(2)
    after: Any = lab.core.list_pod_for_all_namespaces(field_selector=f"spec.nodeName={victim}")
    assert {pod.metadata.uid: restarts(pod) for pod in after.items} == {uid: n + 1 for uid, n in before.items()}
    print(f"{victim} boots again: {reports}")


def releases(lab: Whole) -> dict[str, str]:
    """The release that each replica reports."""
    return {name: lab.state(name)["host"]["release"] for name in lab.ready_replicas()}


def test_upgrade_to_another_release_and_rollback(lab: Whole, load: Load) -> None:
    """Upgrades to another image, whose hellos have a field unknown to this release, and rolls back. Meanwhile, both
    releases run side by side."""
    now = set(releases(lab).values())
    with load.watched() as reports:
        lab.upgrade(image={"repository": images.MANAGER, "tag": images.LATER})
        lab.rolled_out()
        lab.wait_replicas(2)
        assert set(releases(lab).values()) == {later.RELEASE} != now
        with lab.helm() as config:
            config.rollback(chart.RELEASE)
        lab.rolled_out()
        lab.wait_replicas(2)
        assert set(releases(lab).values()) == now
    print(f"upgrade and rollback: {reports}")
    assert [report.lost for report in reports] == [0, 0]


def test_commands_reach_the_replicas_through_the_kubelet(lab: Whole, load: Load) -> None:
    lab.wait_replicas(2)
    pod = next(iter(lab.ready_replicas().values())).metadata.name
    shown = lab.kubectl("-n", NAMESPACE, "exec", pod, "--", "porterlb", "status")
    assert "2 of 2 served" in shown, shown
    done = porterlb(lab, "explain", "default/near", "--wire", "-o", "json")
    assert done.returncode == 0, done.stdout + done.stderr
    assert {row["verdict"] for row in json.loads(done.stdout)["segment"]} <= {"asPlanned", "own"}


def test_drain_waits_until_nothing_is_served_by_the_node(lab: Whole, load: Load) -> None:
    victim = lab.wait_owner(load.segment)
    with load.watched() as reports:
        done = porterlb(lab, "drain", victim)
        try:
            assert done.returncode == 0, done.stdout + done.stderr
            assert "It is safe to reboot it." in done.stdout
            lab.wait_hops(load.routed, *(name for name in NAMES if name != victim))
            assert lab.wait_owner(load.segment) != victim
        finally:
            assert porterlb(lab, "undrain", victim).returncode == 0
    print(f"{victim} drained: {reports}")
    assert [report.lost for report in reports] == [0, 0]


def test_a_cluster_of_one_node_has_no_pod_that_waits() -> None:
    """One replica, as in docs/install.md. An upgrade ends the old one first, because both use the ports of the node."""
    with whole(nodes=1) as single:
        single.install(replicas=1)
        single.pools()
        assert all(is_ready(pod) for pod in single.pods_of("porterlb", NAMESPACE))
        with served(single, "web", "segment") as vip:
            single.upgrade(replicas=1, podAnnotations={"release": "next"})
            single.rolled_out()
            single.wait_replicas(1)
            assert single.wait_owner(vip) == "node-a"
