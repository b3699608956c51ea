"""The rules of a BgpPeer (spec.advertise) with managers on three nodes and a real router."""

from __future__ import annotations

from typing import Any

import pytest

from lab.measure import wait_equal, wait_until
from lab.routers import RouterConfig, Session
from tests.lab.product import product

pytestmark = pytest.mark.lab

RACKS = {"node-a": "one", "node-b": "one", "node-c": "two"}


def in_rack(name: str) -> dict[str, Any]:
    return {"matchLabels": {"rack": name}}


@pytest.mark.parametrize("kind", ["bird", "frr"])
def test_rules_choose_next_hops_and_communities_by_node(kind: str) -> None:
    with product("manifests", nodes=3, routers=[kind], pod_servers=False) as lab:
        lab.prepare(peers=False)
        for node, rack in RACKS.items():
            lab.set_node(node, labels={"rack": rack})
        lab.bgp_conf(communities={"east": "64500:1", "wide": "64500:2:3"})
        lab.manage()
        (vip,) = lab.give("web", "routed", policy="Cluster")

        def seen() -> dict[str, tuple[set[str], set[str]]]:
            names = {node.v4: node.name for node in lab.nodes}
            paths = lab.router.route_details(f"{vip}/32")
            return {names[p.next_hop]: (set(p.communities), set(p.large_communities)) for p in paths}

        def rules(*advertise: dict[str, Any], **spec: Any) -> None:
            lab.peer(conf={"peerAs": "external"}, advertise=list(advertise), **spec)

        try:
            one = {"nodeSelector": in_rack("one"), "communities": ["east"]}
            every = {"communities": ["64500:9", "wide"]}
            rest = ({"64500:9"}, {"64500:2:3"})
            rules(one, every)
            first = {"node-a": ({"64500:1"}, set()), "node-b": ({"64500:1"}, set()), "node-c": rest}
            wait_equal(seen, first, 30, "the first matching rule of each next hop")
            rules(one, every, advertisePolicy="union")
            both = ({"64500:1", "64500:9"}, {"64500:2:3"})
            wait_equal(seen, {"node-a": both, "node-b": both, "node-c": rest}, 20, "a union of the rules")
            rules({"nodeSelector": in_rack("two")})
            wait_equal(seen, {"node-c": (set(), set())}, 20, "the next hops of one rack")
            lab.set_node("node-b", labels={"rack": "two"})
            wait_equal(lambda: set(seen()), {"node-b", "node-c"}, 20, "a node that changed its rack")
            rules({"aggregationLength": 28, "communities": ["64500:9"]})
            (other,) = lab.give("mail", "routed", policy="Cluster")
            (local,) = lab.give("local", "routed", policy="Local")
            hops = lab.hops(*RACKS)
            wait_equal(lab.router.routes, {"172.16.0.0/28": hops, f"{local}/32": hops}, 20, "one prefix for two VIPs")
            lab.delete_service("web")
            lab.delete_service("local")
            wait_equal(lab.router.routes, {"172.16.0.0/28": hops}, 20, f"the prefix while {other} is in it")
            lab.delete_service("mail")
            wait_equal(lab.router.routes, {}, 20, "no prefix without a VIP in it")
            (vip,) = lab.give("web", "routed", policy="Cluster")
            rules({"communities": ["west"]})
            sentence = "'west' is neither a well-known community nor one of spec.communities"

            def named() -> bool:
                ready = lab.conditions("BgpPeer", "router1-v4").get("Ready", {})
                return ready.get("status") == "False" and sentence in ready["message"]

            wait_until(named, 15, "the condition to name the community")
            wait_equal(seen, {}, 20, "nothing by a rule whose community is unknown")
        finally:
            print(lab.logs())


def test_each_rack_has_an_as_of_its_own() -> None:
    with product("manifests", nodes=3, pod_servers=False) as lab:
        lab.prepare()
        ases = {"node-a": 65001, "node-b": 65001, "node-c": 65002}
        for node, rack in RACKS.items():
            lab.set_node(node, labels={"porter.kubesphere.io/rack": rack})
        lab.bgp_conf(asPerRack={"one": 65001, "two": 65002})
        sessions = tuple(Session(node.name, node.v4, asn=ases[node.name]) for node in lab.nodes)
        lab.router.reconfigure(RouterConfig(sessions))
        lab.manage()
        (vip,) = lab.give("web", "routed", policy="Cluster")
        try:
            lab.wait_hops(vip, *RACKS, timeout=30)
            every = {node.v4 for node in lab.nodes}  # each replica also announces the other nodes' next hops
            wait_equal(lab.router.established, every, 20, "a session of each node")
            assert {path.as_path for path in lab.router.route_details(f"{vip}/32")} <= {(65001,), (65002,)}

            def told() -> dict[str, int]:
                nodes = lab.backend.status("BgpConf", "default").get("nodesConfStatus", {})
                return {name: found["as"] for name, found in nodes.items()}

            wait_equal(told, ases, 15, "the AS of each node in the status of the BgpConf")
        finally:
            print(lab.logs())
