"""BgpPeer.spec.overrides with managers on three nodes and two real routers, one for each rack."""

from __future__ import annotations

from typing import Any

import pytest

from lab import objects
from lab.measure import wait_equal, wait_until
from lab.routers import RouterConfig, Session
from tests.lab.product import product

pytestmark = pytest.mark.lab

RACKS = {"node-a": "one", "node-b": "one", "node-c": "two"}
SOURCE, ROUTER_ID = "10.77.0.103", "10.99.0.3"


def in_rack(name: str) -> dict[str, Any]:
    return {"matchLabels": {"rack": name}}


@pytest.mark.parametrize("kinds", [("bird", "frr"), ("frr", "bird")])
def test_each_rack_has_a_router_and_values_of_its_own(kinds: tuple[str, str]) -> None:
    with product("manifests", nodes=3, routers=list(kinds), sessions=[], pod_servers=False) as lab:
        lab.prepare(peers=False)
        for node, rack in RACKS.items():
            lab.set_node(node, labels={"rack": rack})
        a, b, c = lab.nodes
        c.ns.ip("link add source type bridge", f"address add {SOURCE}/32 dev source", "link set source up")
        one, two = lab.routers
        one.reconfigure(RouterConfig(tuple(Session(node.name, node.v4, asn=65001) for node in (a, b))))
        two.stop_daemon()
        two.config = RouterConfig((Session(c.name, SOURCE, asn=65002),), asn=64600)
        two.start_daemon()
        entries = [
            {"nodeSelector": in_rack("one"), "defaultGateway": "ipv4", "peerAs": 64500, "localAs": 65001},
            {
                "nodeSelector": in_rack("two"), "neighborAddress": two.v4, "peerAs": 64600, "localAs": 65002,
                "routerId": ROUTER_ID, "interface": "source",
            },
        ]  # fmt: skip

        def peer(*overrides: dict[str, Any]) -> None:
            lab.backend.apply({**objects.bgp_peer("racks", "", 0), "spec": {"conf": {}, "overrides": list(overrides)}})

        def message() -> str:
            return str(lab.conditions("BgpPeer", "racks").get("Ready", {}).get("message"))

        peer(*entries)
        lab.manage()
        (vip,) = lab.give("web", "routed", policy="Cluster")
        try:
            wait_equal(one.established, {a.v4, b.v4}, 30, "sessions of the first rack with its gateway")
            wait_equal(two.established, {SOURCE}, 20, "a session from the address of the interface")
            assert ROUTER_ID in identifiers(two)
            prefix = f"{vip}/32"
            for router, asn in ((one, 65001), (two, 65002)):
                wait_until(lambda of=router: of.route_details(prefix), 20, f"routes at {router.name}")
                assert {path.as_path for path in router.route_details(prefix)} == {(asn,)}

            def told() -> dict[str, tuple[str, str]]:
                found = lab.backend.status("BgpPeer", "racks").get("nodesPeerStatus", {})
                return {n: (of["override"], of["peerState"]["neighborAddress"]) for n, of in found.items()}

            first, second = ("spec.overrides[0]", one.v4), ("spec.overrides[1]", two.v4)
            wait_equal(told, {a.name: first, b.name: first, c.name: second}, 15, "the values in the status")

            c.ns.ip("link del source")
            wait_until(lambda: "no interface source" in message(), 30, "a sentence about the interface")
            c.ns.ip("link add source type bridge", f"address add {SOURCE}/32 dev source", "link set source up")
            wait_equal(two.established, {SOURCE}, 60, "the session, once the interface is back")

            peer(entries[0], {**entries[1], "neighborAddress": "10.77"})
            wrong = 'spec.overrides[1].neighborAddress: "10.77" is not the IP address of a host.'
            wait_equal(two.established, set(), 20, "no session by an entry with an error")
            wait_until(lambda: wrong in message(), 15, "a sentence")
            assert one.established() == {a.v4, b.v4}, "the other entry stays"
        finally:
            print(lab.logs())


def identifiers(router: Any) -> str:
    """The router's output about its neighbors, with their BGP identifiers."""
    if router.kind == "frr":
        return str(router.vty("show bgp neighbors json"))
    return str(router.birdc("show protocols all"))
