"""A node becomes a next hop of a policy Local Service only once its kube-proxy can forward: a returning node causes no
loss."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from lab import objects
from porterlb.core.node_return import BOOT
from tests.lab.product import Product, product

pytestmark = pytest.mark.lab

NAMES = ("node-a", "node-b", "node-c")
RETURNS, BOOTS = 5, 2


@pytest.fixture(scope="module")
def lab() -> Iterator[Product]:
    """The substitute for kube-proxy writes its rules once a second, as kube-proxy does."""
    with product("manifests", nodes=3, routers=["bird"], proxy_interval=1.0) as made:
        made.prepare()
        made.manage()
        yield made


def endpoints(lab: Product, name: str, *nodes: str) -> None:
    pods = [pod for pod in lab.pods if pod.node in nodes]
    for piece in objects.endpoint_slices(name, pods, "default", families=["IPv4"]):
        lab.backend.apply(piece)


def test_endpoints_that_come_back_lose_nothing(lab: Product) -> None:
    (vip,) = lab.give("web", "routed")
    lab.wait_hops(vip, *NAMES)
    lost = []
    for _ in range(RETURNS):
        endpoints(lab, "web", "node-a", "node-b")
        lab.wait_hops(vip, "node-a", "node-b")
        lab.proxy.sync()  # no node may still know the pod of node-c when it returns
        with lab.client.stream(vip, flows=24, interval=0.005) as stream:
            endpoints(lab, "web", *NAMES)
            lab.wait_hops(vip, *NAMES)
            time.sleep(0.3)
            lost.append(stream.report().lost)
    assert lost == [0] * RETURNS


def test_e7_a_node_that_boots_gets_no_traffic_before_its_kube_proxy_forwards(lab: Product) -> None:
    """Policy Cluster. The node's kernel answers probes immediately; its replica and its proxy start later."""
    (vip,) = lab.give(
        "cluster", "routed", policy="Cluster", pods=[pod.name for pod in lab.pods if pod.node != "node-c"]
    )
    lost = []
    for _ in range(BOOTS):
        lab.wait_hops(vip, *NAMES)
        lab.node("node-c").power_off()
        lab.wait_hops(vip, "node-a", "node-b")
        time.sleep(BOOT)  # a shorter outage does not count as a boot
        with lab.client.stream(vip, flows=24, interval=0.005) as stream:
            lab.node("node-c").power_on()
            lab.wait_hops(vip, *NAMES, timeout=40)
            time.sleep(0.5)
            lost.append(stream.report().lost)
    assert lost == [0] * BOOTS


def test_the_only_endpoint_is_used_at_once(lab: Product) -> None:
    (vip,) = lab.give("alone", "routed", pods=["pod-a1"])
    lab.wait_hops(vip, "node-a")
    endpoints(lab, "alone", "node-b")
    begun = time.monotonic()
    lab.wait_hops(vip, "node-b")
    assert time.monotonic() - begun < 1.2, "a next hop waits for its kube-proxy only while there is another one"
