"""New connections in a cluster without Kubernetes while a node loses its power. From the Node's status, the component
that forwards traffic to pods (here the lab's substitute for kube-proxy) learns to omit the node's endpoints."""

from __future__ import annotations

import time

import pytest

from lab.measure import wait_until
from tests.lab.product import Product, product

pytestmark = [pytest.mark.lab, pytest.mark.timeout(180)]

NAMES = ("node-a", "node-b", "node-c")


def marked(lab: Product, node: str) -> bool:
    conditions = lab.backend.status("Node", node).get("conditions", [])
    return any(c["type"] == "EndpointsReady" and c["status"] == "False" for c in conditions)


@pytest.mark.parametrize("on", [True, False], ids=["marked", "not-marked"])
def test_new_connections_of_policy_cluster(on: bool) -> None:
    with product("manifests", nodes=3, routers=["bird"]) as lab:
        lab.prepare()
        lab.manage(options=("--return-after", "3", *(["--mark-pods-not-ready"] if on else [])))
        try:
            (vip,) = lab.give("web", "routed", policy="Cluster")
            lab.wait_hops(vip, *NAMES)
            leader = lab.wait_leader()
            victim = next(name for name in NAMES if name != leader)
            with lab.client.attempts(vip) as attempts:
                time.sleep(1.0)
                moment = time.monotonic()
                lab.node(victim).power_off()
                time.sleep(4.0)
                report = attempts.report()
            print(f"{'marked' if on else 'not marked'}: {report.since(moment)}")
            assert marked(lab, victim) is on
            assert (report.last(moment) < 2.5) is on, "a third of them fails until the end where nobody is told"
            if on:
                lab.node(victim).power_on()
                wait_until(lambda: not marked(lab, victim), 40, "the node's endpoints to be restored")
        except BaseException:
            print(lab.logs())
            raise
