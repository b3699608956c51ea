"""The main job on real components: from a Service to the router's table and a reply through the VIP."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from lab.measure import trials, wait_until
from tests.lab.product import EIP_ANNOTATION, Product, product

pytestmark = pytest.mark.lab

NAMES = ("node-a", "node-b", "node-c")


@pytest.fixture(scope="module")
def road(cluster: str) -> Iterator[Product]:
    with product(cluster, nodes=3, routers=["bird"]) as made:
        made.prepare()
        made.manage()
        made.give("web", "routed")
        try:
            made.wait_hops(made.vips("web")[0], *NAMES, timeout=40)
            yield made
        finally:
            print(made.logs())


def test_replies_come_through_the_vip_from_every_pod(road: Product) -> None:
    vip = road.vips("web")[0]
    assert set(road.client.pods_answering(vip, 40)) == {"pod-a1", "pod-b1", "pod-c1"}
    assert road.wait_condition("Service", "web", "Serving", "True", "default")["message"]


def test_next_hops_follow_pods_policy_labels_and_readiness(road: Product) -> None:
    (vip,) = road.give("moving", "routed", pods=["pod-a1"])
    road.wait_hops(vip, "node-a")
    road.service("moving", ["pod-b1", "pod-c1"], policy="Local", annotations={EIP_ANNOTATION: "routed"})
    road.wait_hops(vip, "node-b", "node-c")
    road.service("moving", ["pod-b1"], policy="Cluster", annotations={EIP_ANNOTATION: "routed"})
    road.wait_hops(vip, *NAMES)
    road.set_node("node-a", labels={"node.kubernetes.io/exclude-from-external-load-balancers": ""})
    road.wait_hops(vip, "node-b", "node-c")
    road.set_node("node-a")
    road.wait_hops(vip, *NAMES)
    road.set_node("node-c", ready="Unknown")
    road.wait_hops(vip, "node-a", "node-b")
    road.set_node("node-c", unschedulable=True)
    road.wait_hops(vip, *NAMES)
    road.set_node("node-c")
    road.service("moving", [], policy="Cluster", annotations={EIP_ANNOTATION: "routed"})
    road.wait_hops(vip)
    wait_until(
        lambda: road.conditions("Service", "moving", "default")["Serving"]["reason"] == "NoReadyEndpoint",
        10,
        "the status to say why",
    )
    road.delete_service("moving")


def test_deleted_service_leaves_nothing_and_frees_its_address(road: Product) -> None:
    before = road.router.next_hops()
    (vip,) = road.give("short", "routed")
    road.wait_hops(vip, *NAMES)
    road.delete_service("short")
    wait_until(lambda: road.router.next_hops() == before, 10, "the table to be as before")
    wait_until(lambda: vip not in road.backend.status("Eip", "routed").get("used", {}), 10, "the address to be free")


def test_eip_edits_keep_valid_holders_and_say_what_is_wrong(road: Product) -> None:
    vip = road.vips("web")[0]
    road.eip("routed", "172.16.0.0/26", protocol="bgp")
    wait_until(lambda: road.backend.status("Eip", "routed").get("poolSize") == 64, 10, "the pool to have grown")
    assert road.vips("web") == [vip]
    road.eip("routed", "10.0.0.300", protocol="bgp")
    message = road.wait_condition("Eip", "routed", "Ready", "False")["message"]
    assert "10.0.0.300" in message
    road.eip("routed", "172.16.0.0/27", protocol="bgp")
    road.wait_condition("Eip", "routed", "Ready", "True")
    assert wait_until(lambda: road.vips("web"), 10, "the address to be kept")[0] == [vip]
    road.wait_hops(vip, *NAMES)


def test_peers_come_and_go_and_change_without_touching_the_others(road: Product) -> None:
    vip = road.vips("web")[0]
    with road.client.stream(vip, flows=6, interval=0.005) as stream:
        road.peer(name="second", conf={"neighborAddress": "10.77.0.99"})
        wait_until(lambda: road.backend.status("BgpPeer", "second").get("nodesPeerStatus"), 15, "its status")
        time.sleep(1)
        road.backend.delete("BgpPeer", "second")
        time.sleep(1)
        report = stream.report()
    assert report.lost == 0, report
    road.backend.delete("BgpPeer", "router1-v4")
    road.wait_hops(vip)
    road.peer()
    road.wait_hops(vip, *NAMES, timeout=30)


def test_routes_that_the_router_sends_are_never_used(road: Product) -> None:
    routes = [node.run(["ip", "route"]).stdout for node in road.nodes]
    road.router.inject("198.51.100.0/24", "172.16.0.0/16")
    try:
        time.sleep(1)
        assert [node.run(["ip", "route"]).stdout for node in road.nodes] == routes
        road.wait_hops(road.vips("web")[0], *NAMES)
    finally:
        road.router.uninject("198.51.100.0/24", "172.16.0.0/16")


@pytest.mark.parametrize("victim", ["manager", "exabgp"])
def test_a_killed_replica_loses_nothing(road: Product, victim: str) -> None:
    vip = road.vips("web")[0]
    with road.client.stream(vip, flows=4, interval=0.004) as stream:
        time.sleep(0.3)
        if victim == "manager":
            road.managers["node-b"].kill()
        else:
            found = road.node("node-b").run(["pgrep", "-P", str(road.managers["node-b"].pid), "-f", "exabgp"]).stdout
            road.node("node-b").run(["kill", "-KILL", *found.split()])
        time.sleep(2)
        report = stream.report()
    if victim == "manager":
        road.manage("node-b")
    assert report.lost == 0, report
    road.wait_settled()
    road.wait_hops(vip, *NAMES)


def test_a_next_hop_that_loses_power_is_withdrawn_by_the_others(road: Product) -> None:
    vip = road.vips("web")[0]

    def one(number: int) -> float:
        victim = NAMES[number % 3]
        rest = [name for name in NAMES if name != victim]
        with road.client.stream(vip, flows=12, interval=0.005) as stream:
            time.sleep(0.3)
            road.node(victim).power_off()
            road.wait_hops(vip, *rest, timeout=5)
            time.sleep(0.3)
            report = stream.report()
        road.node(victim).power_on()
        road.wait_settled()
        road.wait_hops(vip, *NAMES)
        return report.worst_gap_ms

    figures = trials(3, one)
    print(f"next hop off, worst gap a trial: {figures.figures} ms")
    assert figures.worst <= 900, figures  # measured 180 to 215 ms on an idle machine; see bench/


def test_wrong_objects_get_one_clear_sentence_and_disturb_nobody(road: Product) -> None:
    vip = road.vips("web")[0]
    road.eip("reversed", "10.9.0.9-10.9.0.1", protocol="bgp")
    road.eip("overlap", "172.16.0.8/29", protocol="bgp")
    road.peer(name="no-secret", conf={"neighborAddress": "10.77.0.98", "authPasswordSecret": {"name": "x", "key": "y"}})
    road.service("foreign", annotations={"eip.porter.kubesphere.io/v1alpha1": "203.0.113.7"})
    # Ready is initially False, too: "It has not been processed yet."
    wait_until(
        lambda: "10.9.0.9-10.9.0.1" in road.wait_condition("Eip", "reversed", "Ready", "False")["message"],
        15,
        "the wrong range to be named",
    )
    assert "routed" in road.wait_condition("Eip", "overlap", "Conflicting", "True")["message"]
    refused = road.wait_condition("Service", "foreign", "AddressAssigned", "False", "default")
    assert "203.0.113.7" in refused["message"]
    wait_until(
        lambda: any("x" in c.get("message", "") for c in road.conditions("BgpPeer", "no-secret").values()),
        15,
        "the missing Secret to be named",
    )
    assert "Traceback" not in road.logs()
    road.wait_hops(vip, *NAMES)
    for kind, name in (("Eip", "reversed"), ("Eip", "overlap"), ("BgpPeer", "no-secret")):
        road.backend.delete(kind, name)
    road.delete_service("foreign")
