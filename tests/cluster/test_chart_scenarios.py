"""PorterLB as its chart runs it, on a complete Kubernetes: real controllers, scheduler and kube-proxy, nodes that lose
their power, API server outages, upgrades. Figures are printed; bounds are generous, for busy machines."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import helm_python as helm
import pytest

from lab.measure import trials, wait_until
from lab.netns import LabError
from tests.chart import chart
from tests.cluster.whole import ACCOUNT, NAMESPACE, VALUES, Whole, merged, whole

pytestmark = [pytest.mark.cluster, pytest.mark.lab, pytest.mark.nodes, pytest.mark.timeout(900)]

NAMES = ("node-a", "node-b", "node-c")
TRIALS = int(os.environ.get("PORTERLB_TRIALS", "2"))
"""Number of trials of each failure. Use more for comparable figures: PORTERLB_TRIALS=10 pytest -s ..."""

PASSWORD_SECRET = "router-password"


@pytest.fixture(scope="module")
def lab() -> Iterator[Whole]:
    with whole() as made:
        try:
            made.install(bgp={"passwordSecrets": [PASSWORD_SECRET]})
            made.pools()
            yield made
        finally:
            for node in made.nodes:
                print(f"--- {node.name}\n{made.manager_log(node.name)[-3000:]}")


@contextmanager
def served(lab: Whole, name: str, eip: str, **options: Any) -> Iterator[str]:
    """A VIP for the duration of the block."""
    (vip,) = lab.deploy(name, eip, **options)
    try:
        yield vip
    except BaseException:
        print(lab.situation())
        lab.node_by_node_back()
        lab.kubectl("delete", "deployment,service", name, "--wait=false")
        raise
    lab.undeploy(name)


def serve(lab: Whole, vip: str, nodes: Iterable[str], timeout: float) -> None:
    """Waits until one of these nodes answers for the VIP (on the segment), or until all of them are its next hops."""
    if lab.on_segment(vip):
        lab.wait_owner(vip, *nodes, timeout=timeout)
    else:
        lab.wait_hops(vip, *nodes, timeout=timeout)


def replica_nodes(lab: Whole, count: int = 2) -> tuple[str, ...]:
    return tuple(lab.wait_replicas(count))


@pytest.mark.parametrize(
    ("eip", "policy", "family"),
    [
        ("routed", "Local", "IPv4"),
        ("routed", "Cluster", "IPv4"),
        ("routed6", "Local", "IPv6"),
        ("routed6", "Cluster", "IPv6"),
        ("segment", "Local", "IPv4"),
        ("segment", "Cluster", "IPv4"),
        ("segment6", "Local", "IPv6"),
        ("segment6", "Cluster", "IPv6"),
    ],
)
def test_main_job(lab: Whole, eip: str, policy: str, family: str) -> None:
    """From a Service to replies through its VIP: by the correct nodes, to the correct pods."""
    on = ("node-b", "node-c")
    with served(lab, "web", eip, policy=policy, families=[family], nodes=on) as vip:
        may = on if policy == "Local" else NAMES
        where = lab.segment_client if lab.on_segment(vip) else lab.client
        if lab.on_segment(vip):
            lab.wait_owner(vip, *may)
        else:
            lab.wait_hops(vip, *may)
        pods = {pod.spec.node_name: pod.metadata.name for pod in lab.pods_of("web", "default")}

        def as_it_should_be() -> bool:
            """All pods respond. With Local and Layer 2, only the pod of the node that serves the VIP responds."""
            (on_node, *others) = lab.owners(vip) if lab.on_segment(vip) else [""]
            wanted = {pods[on_node]} if policy == "Local" and on_node else set(pods.values())
            return not others and set(where.pods_answering(vip, 30)) == wanted

        # kube-proxy may learn of one pod a second before the other, and a VIP may move to the first ready pod.
        wait_until(as_it_should_be, 20, f"answers of {pods}")
        if policy == "Local":
            status, source = where.http(vip, 80, "/client")
            assert (status, source.strip()) == (200, where.v6 if family == "IPv6" else where.v4)
        assert lab.wait_condition("Service", "web", "Serving", "True", "default")["message"]


def test_the_processes_have_what_the_chart_gives_them(lab: Whole) -> None:
    """One capability, no way to gain more, a read-only root, and their own process 1."""
    name, pod = next(iter(lab.wait_replicas(2).items()))
    inside = lab.machines[name].processes(r"^\S*python\S* .*(porterlb|exabgp)")
    assert len(inside) >= 3
    for pid in inside:
        status = dict(
            line.split(":\t", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines() if ":\t" in line
        )
        assert int(status["CapBnd"], 16) | int(status["CapPrm"], 16) | int(status["CapEff"], 16) == 1 << 13, "NET_RAW"
        assert status["NoNewPrivs"].strip() == "1"
        mounts = {line.split()[4]: line.split()[5] for line in Path(f"/proc/{pid}/mountinfo").read_text().splitlines()}
        assert "ro" in mounts["/"].split(",")
        assert "ro" in mounts["/run/secrets/kubernetes.io/serviceaccount"].split(",")
        assert "rw" in mounts["/run/porterlb"].split(",")
    assert pod.spec.node_name == name


def test_scenario_1_the_layer_2_next_hop_loses_power(lab: Whole) -> None:
    with served(lab, "web", "segment") as vip:

        def one(_: int) -> float:
            victim = lab.wait_owner(vip)
            with lab.segment_client.stream(vip, flows=4, interval=0.002) as stream:
                time.sleep(0.5)
                lab.node(victim).power_off()
                lab.wait_owner(vip, *(name for name in NAMES if name != victim), timeout=10)
                time.sleep(0.5)
                report = stream.report()
            lab.back(victim)
            lab.wait_replicas(2)
            return report.worst_gap_ms

        figures = trials(TRIALS, one)
        print(f"scenario 1, gap in ms: {figures}")
        assert figures.worst < 3000


def test_a_bgp_next_hop_loses_power(lab: Whole) -> None:
    with served(lab, "web", "routed") as vip:

        def one(number: int) -> float:
            lab.wait_hops(vip, *NAMES, timeout=60)
            victim = NAMES[number % 3]
            with lab.client.stream(vip, flows=12, interval=0.005) as stream:
                time.sleep(0.5)
                lab.node(victim).power_off()
                lab.wait_hops(vip, *(name for name in NAMES if name != victim), timeout=20)
                time.sleep(0.5)
                report = stream.report()
            lab.back(victim)
            lab.wait_replicas(2)
            return report.worst_gap_ms

        figures = trials(TRIALS, one)
        print(f"BGP next hop off, gap in ms: {figures}")
        assert figures.worst < 4000


@pytest.mark.parametrize("eip", ["segment", "routed"])
def test_scenario_2_the_only_replica_is_created_again_elsewhere(lab: Whole, eip: str) -> None:
    lab.upgrade(bgp={"passwordSecrets": [PASSWORD_SECRET]}, replicas=1)
    try:
        lab.wait_replicas(1)
        scenario_2(lab, eip)
    finally:
        lab.upgrade(bgp={"passwordSecrets": [PASSWORD_SECRET]})
    lab.wait_replicas(2)


def scenario_2(lab: Whole, eip: str) -> None:
    with served(lab, "web", eip) as vip:
        (victim,) = lab.ready_replicas()
        others = [name for name in NAMES if name != victim]
        begun = time.monotonic()
        lab.node(victim).power_off()

        def moved() -> bool:
            if lab.on_segment(vip):
                return bool(lab.owners(vip)) and lab.owners(vip) <= set(others)
            return lab.router.next_hops().get(f"{vip}/32") == lab.hops(*others)

        def moment(what: Callable[[], Any], name: str) -> float:
            wait_until(what, 60, name, 0.02)
            return time.monotonic() - begun

        not_ready = moment(lambda: lab.ready(victim) != "True", "NotReady")
        evicted = moment(lambda: victim not in lab.replicas(), "the eviction")
        created = moment(lambda: set(lab.replicas()) & set(others), "a new pod on another node")
        (node,) = lab.replicas()
        started = moment(
            lambda: [s for s in lab.replicas()[node].status.container_statuses or [] if s.state.running], "its start"
        )
        answered = moment(moved, "the first answer, or the new routes")
        ready = moment(lab.ready_replicas, "its readiness")
        print(
            f"scenario 2 ({eip}), s: NotReady {not_ready:.2f} after the loss; then +{evicted - not_ready:.2f} evicted, "
            f"+{created - not_ready:.2f} bound to {node}, +{started - not_ready:.2f} started, "
            f"+{answered - not_ready:.2f} first answer or routes, +{ready - not_ready:.2f} ready"
        )
        assert node != victim
        assert answered - not_ready < 30
        assert (lab.segment_client if lab.on_segment(vip) else lab.client).reaches(vip)
        lab.back(victim)


@pytest.mark.parametrize("eip", ["segment", "routed"])
def test_scenario_3_the_leader_loses_power(lab: Whole, eip: str) -> None:
    with served(lab, "web", eip, nodes=NAMES) as vip:
        where = lab.segment_client if lab.on_segment(vip) else lab.client

        def one(number: int) -> float:
            victim = lab.wait_leader(*replica_nodes(lab))
            others = [name for name in NAMES if name != victim]
            if not lab.on_segment(vip):
                lab.wait_hops(vip, *NAMES, timeout=60)
            with where.stream(vip, flows=4, interval=0.002) as stream:
                time.sleep(0.5)
                off = time.monotonic()
                lab.node(victim).power_off()
                serve(lab, vip, others, 20)
                lab.wait_leader(*others, timeout=20)
                leads = time.monotonic() - off
                assert lab.deploy(f"more{number}", "segment", nodes=others)
                allocated = time.monotonic() - off
                report = stream.report()
            gap = report.worst_gap_ms
            print(f"scenario 3 ({eip}): gap {gap:.0f} ms, leader after {leads:.1f} s, VIP by {allocated:.1f} s")
            lab.undeploy(f"more{number}")
            lab.back(victim)
            lab.wait_replicas(2)
            return gap

        figures = trials((TRIALS + 1) // 2, one)
        print(f"scenario 3 ({eip}), gap in ms: {figures}")
        assert figures.worst < 3000


def test_rolling_upgrade_and_rollback_lose_nothing(lab: Whole) -> None:
    with served(lab, "routed-web", "routed") as routed, served(lab, "segment-web", "segment") as segment:
        lab.wait_hops(routed, *NAMES)
        before = {pod.metadata.uid for pod in lab.wait_replicas(2).values()}
        with (
            lab.client.stream(routed, flows=6, interval=0.005, duration=300) as far,
            lab.segment_client.stream(segment, flows=4, interval=0.005, duration=300) as near,
        ):
            time.sleep(0.5)
            lab.upgrade(bgp={"passwordSecrets": [PASSWORD_SECRET]}, podAnnotations={"release": "next"})
            lab.rolled_out()
            upgraded = {pod.metadata.uid for pod in lab.wait_replicas(2).values()}
            with lab.helm() as config:
                config.rollback(chart.RELEASE)
            lab.rolled_out()
            back = {pod.metadata.uid for pod in lab.wait_replicas(2).values()}
            time.sleep(0.5)
            reports = far.report(), near.report()
        print(f"rolling upgrade and rollback: BGP {reports[0]}; Layer 2 {reports[1]}")
        assert not before & upgraded and not upgraded & back
        assert [report.lost for report in reports] == [0, 0]


def test_api_away_while_the_leader_and_its_node_die(lab: Whole) -> None:
    with served(lab, "routed-web", "routed") as routed, served(lab, "segment-web", "segment") as segment:
        lab.wait_hops(routed, *NAMES)
        victim = lab.wait_leader(*replica_nodes(lab))
        others = [name for name in NAMES if name != victim]
        pin = json.dumps({"status": {"layer2NextHops": {segment: victim}}})

        def pinned() -> bool:
            """The record of the leader may be written after this one, and replace it."""
            lab.kubectl("patch", "eip", "segment", "--subresource=status", "--type=merge", "-p", pin)
            time.sleep(1.0)
            return lab.owners(segment) == {victim}

        wait_until(pinned, 30, f"{segment} on {victim}")
        with lab.api_away():
            time.sleep(6)  # longer than the lease: there is no leader any more
            with (
                lab.client.stream(routed, flows=12, interval=0.005) as far,
                lab.segment_client.stream(segment, flows=4, interval=0.005) as near,
            ):
                time.sleep(0.5)
                lab.node(victim).power_off()
                lab.wait_hops(routed, *others, timeout=20)
                lab.wait_owner(segment, *others, timeout=10)
                time.sleep(0.5)
                reports = far.report(), near.report()
        print(f"API away, gap in ms: BGP {reports[0].worst_gap_ms:.0f}, Layer 2 {reports[1].worst_gap_ms:.0f}")
        assert max(report.worst_gap_ms for report in reports) < 5000
        lab.back(victim)
        lab.wait_replicas(2)
        lab.wait_hops(routed, *NAMES, timeout=60)


def test_a_drained_node_hands_over(lab: Whole) -> None:
    victim, other = replica_nodes(lab)
    on = [name for name in NAMES if name != victim]
    with served(lab, "web", "routed", nodes=on) as vip:
        lab.wait_hops(vip, *on)
        with lab.client.stream(vip, flows=6, interval=0.005, duration=200) as stream:
            time.sleep(0.5)
            lab.kubectl("drain", victim, "--ignore-daemonsets", "--delete-emptydir-data", "--timeout=60s")
            try:
                found = lab.wait_replicas(2)
                assert victim not in found and other in found
                time.sleep(1)
                report = stream.report()
            finally:
                lab.kubectl("uncordon", victim)
        assert report.lost == 0, report


def test_wrong_values_change_nothing(lab: Whole) -> None:
    before = {pod.metadata.uid for pod in lab.wait_replicas(2).values()}
    for values, sentence in (
        ({"kind": "StatefulSet"}, "'/kind': value must be one of 'Deployment', 'DaemonSet'"),
        (
            {"settings": {"leaseDuration": 1}},
            "settings.leaseRenewDeadline (2.5 s) must be below",
        ),
    ):
        with lab.helm() as config, pytest.raises(helm.HelmError) as refused:
            config.upgrade(chart.FOLDER, chart.RELEASE, merged(VALUES, values))
        assert sentence in str(refused.value)
    assert {pod.metadata.uid for pod in lab.wait_replicas(2).values()} == before


def permissions() -> set[tuple[str, str, str, str, str]]:
    """(namespace, group, resource, name, verb) of each permission of the chart, as installed here."""
    found = set()
    for obj in chart.rendered({"bgp": {"passwordSecrets": [PASSWORD_SECRET]}}):
        if obj["kind"] not in ("Role", "ClusterRole"):
            continue
        namespace = obj["metadata"].get("namespace", "")
        for rule in obj["rules"]:
            for resource in rule["resources"]:
                for name in rule.get("resourceNames", [""]):
                    found |= {(namespace, g, resource, name, verb) for g in rule["apiGroups"] for verb in rule["verbs"]}
    return found


def test_every_permission_is_used_and_nothing_is_denied(lab: Whole) -> None:
    """The audit log of all earlier tests, and the remaining cases: a peer with a password, an Event that repeats, and a
    node that is removed from the cluster."""
    secret = {"name": PASSWORD_SECRET, "namespace": NAMESPACE}
    lab.backend.apply({"apiVersion": "v1", "kind": "Secret", "metadata": secret, "stringData": {"key": "secret"}})
    reference = {"name": PASSWORD_SECRET, "key": "key"}
    lab.peer(name="guarded", conf={"neighborAddress": "10.77.0.99", "authPasswordSecret": reference})
    granted = permissions()
    (vip,) = lab.deploy("web", "segment")
    for _ in range(3):  # the next hop is recorded in an annotation; sessions end and return
        lab.wait_owner(vip)
        lab.kubectl("patch", "bgppeer", "router1-v4", "--type=merge", "-p", '{"spec":{"conf":{"adminDown":true}}}')
        wait_until(lambda: len(lab.router.established()) < 4, 30, "sessions to end")
        lab.kubectl("patch", "bgppeer", "router1-v4", "--type=merge", "-p", '{"spec":{"conf":{"adminDown":false}}}')
        wait_until(lambda: len(lab.router.established()) >= 4, 60, "sessions to be back")

    (idle,) = set(NAMES) - set(lab.wait_replicas(2))  # both replicas can determine that it is dead: its pods are marked
    lab.node(idle).power_off()
    time.sleep(2.0)
    lab.back(idle)
    victim = next(iter(lab.wait_replicas(2)))
    lab.node(victim).power_off()
    lab.kubectl("delete", "node", victim)
    leases = ("-n", NAMESPACE, "get", "leases", "-o", "name")
    wait_until(lambda: f"porterlb-{victim}\n" not in lab.kubectl(*leases), 90, "its lease to go", 0.5)
    lab.back(victim)
    lab.wait_replicas(2)

    def unused() -> set[tuple[str, str, str, str, str]]:
        return granted - {used for event in lab.decisions() if (used := permission(event, granted))}

    with suppress(LabError):  # the assertions below name the missing ones
        wait_until(lambda: not unused(), 60, "", 1.0)
    events = lab.decisions()
    denied = [event for event in events if event["annotations"]["authorization.k8s.io/decision"] != "allow"]
    assert [(event["verb"], event["requestURI"]) for event in denied] == []
    assert sorted(unused()) == [], f"{len(events)} requests of {ACCOUNT} did not use these"
    print(f"{len(events)} requests, {len(granted)} permissions, all used, none denied")


def permission(event: dict[str, Any], granted: set[tuple[str, str, str, str, str]]) -> tuple[str, ...] | None:
    """The granted permission that a request used."""
    asked = event.get("objectRef") or {}
    resource = "/".join(filter(None, (asked.get("resource", ""), asked.get("subresource", ""))))
    for namespace in (asked.get("namespace", ""), ""):
        for name in (asked.get("name", ""), ""):
            key = (namespace, asked.get("apiGroup", ""), resource, name, event["verb"])
            if key in granted:
                return key
    return None


def test_as_a_daemonset_every_node_answers_for_itself(lab: Whole) -> None:
    lab.upgrade(bgp={"passwordSecrets": [PASSWORD_SECRET]}, kind="DaemonSet")
    assert set(lab.wait_replicas(3, timeout=90)) == set(NAMES)
    with served(lab, "routed-web", "routed") as routed, served(lab, "segment-web", "segment") as segment:
        lab.wait_hops(routed, *NAMES)
        owner = lab.wait_owner(segment)
        own = lab.node(owner).mac
        assert {(a.mac, a.source) for a in lab.segment_client.answers(segment)} == {(own, own)}


def test_uninstall_leaves_the_users_objects_and_nothing_that_hangs(lab: Whole) -> None:
    lab.uninstall()
    wait_until(lambda: not lab.pods_of("porterlb", NAMESPACE), 60, "the pods to end", 0.2)
    assert len(lab.kubectl("get", "eips", "-o", "name").split()) >= 5
    lab.kubectl("delete", "eips,bgppeers,bgpconfs", "--all", "--timeout=20s")
    lab.kubectl("delete", "namespace", NAMESPACE, "--timeout=60s")
