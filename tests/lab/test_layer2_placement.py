"""Placement of VIPs: spread over the nodes, only on nodes with an endpoint, and never moved back without need."""

from __future__ import annotations

from collections import Counter

import pytest

from lab.measure import wait_until
from tests.lab.scenarios import Stage

pytestmark = [pytest.mark.lab, pytest.mark.timeout(360)]

MANY = 300


def test_300_vips_are_spread_evenly_and_a_returning_node_takes_none_back(cluster: str) -> None:
    with Stage(cluster, pool="10.77.0.60-10.77.0.99,fd77::1:0/112", proxy_interval=5.0) as stage:
        stage.settle()  # records begin 1 s after the last replica has joined; a busy machine may take longer
        for number in range(MANY):
            stage.lab.service(f"many-{number}", ["pod-a1", "pod-b1", "pod-c1"], policy="Local", families=("IPv6",))

        def placed() -> dict[str, str]:
            found = {
                vip: vip_state["answering"]["nextHop"]
                for vip, vip_state in stage.lab.state("node-a").get("vips", {}).items()
                if vip_state["answering"]
                and vip_state["answering"]["answerer"]
                and vip_state["recorded"] == vip_state["answering"]["nextHop"]
            }
            return found if len(found) == MANY else {}

        before, _ = wait_until(placed, 150.0, "300 VIPs that are answered", interval=0.2)
        counts = Counter(before.values())
        assert set(counts) == {"node-a", "node-b", "node-c"}
        assert max(counts.values()) <= min(counts.values()) * 1.25, counts

        victim = next(name for name in ("node-c", "node-b") if name != stage.leader())
        stage.lab.node(victim).power_off()
        moved, _ = wait_until(
            lambda: found if victim not in (found := placed()).values() else {},
            20.0,
            "all VIPs elsewhere",
            interval=0.1,
        )
        stays = {vip for vip, node in before.items() if node != victim}
        assert {vip: moved[vip] for vip in stays} == {vip: before[vip] for vip in stays}
        share = Counter(moved[vip] for vip, node in before.items() if node == victim)
        assert len(share) == 2 and min(share.values()) >= sum(share.values()) / 4, share  # both survivors take some
        stage.wait_moved(victim)
        stage.back(victim)
        assert placed() == moved


def test_policy_local_only_nodes_with_a_ready_endpoint(cluster: str) -> None:
    with Stage(cluster) as stage:
        vips = stage.serve("web", ["pod-b1"], at="node-a")  # the request is for a node without an endpoint
        stage.settle()
        assert {stage.owner(vip) for vip in vips} == {"node-b"}
        assert stage.lab.segment_client.http_get(vips[0]) == "pod-b1"

        stage.lab.service("web", ["pod-b1", "pod-c1"], policy="Local", families=("IPv4", "IPv6"),
                          conditions={"pod-b1": {"ready": False, "serving": False}})  # fmt: skip
        for vip in vips:
            wait_until(lambda vip=vip: stage.owners(vip) == {"node-c"}, 10.0, "node-c to answer")

        stage.lab.service("web", [], policy="Local", families=("IPv4", "IPv6"))
        for vip in vips:
            wait_until(lambda vip=vip: stage.owners(vip) == set(), 10.0, "nobody to answer")
        serving = stage.lab.wait_condition("Service", "web", "Serving", "False", "default")
        assert serving["reason"] == "NoReadyEndpoint"
        assert stage.lab.vips("web") == vips  # the Service keeps its address

        stage.lab.service("web", ["pod-a1"], policy="Local", families=("IPv4", "IPv6"))
        for vip in vips:
            wait_until(lambda vip=vip: stage.owners(vip) == {"node-a"}, 10.0, "node-a to answer")


def test_policy_cluster_is_answered_by_one_node_and_reaches_all_pods(cluster: str) -> None:
    with Stage(cluster) as stage:
        vips = stage.serve("web", policy="Cluster")
        stage.settle()
        names = {stage.owner(vip) for vip in vips}
        assert len(names) == 1
        for vip in vips:
            assert len(stage.lab.segment_client.pods_answering(vip, 30)) == 3
