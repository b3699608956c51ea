"""BFD in the complete product: dead nodes, dead routers, and events that are not failures."""

from __future__ import annotations

import json
import time
from dataclasses import replace

import pytest

from lab.measure import wait_until
from lab.routers import RouterConfig
from tests.lab.product import Product, product
from tests.lab.test_bgp_losses import peer_list

pytestmark = pytest.mark.lab

PEER = "router1-v4"
BFD = {"enabled": True, "detectMultiplier": 3, "minTransmit": 50, "minReceive": 50}
NOTICED = 0.4
"""Upper limit in seconds for 50 ms x 3 on a busy machine. The measured times are printed."""

FALLBACK = 2.0
"""Upper limit in seconds until the first answer in Layer 2, also on a busy machine. The hold time is 9 s."""


def bfd(lab: Product, node: str) -> dict[str, object]:
    """The BFD session of a node, from its /state."""
    found: dict[str, object] = lab.state(node)["peers"][PEER]["bfd"]
    return found


@pytest.mark.parametrize("kind", ["frr", "bird"])
def test_dead_node_dead_router_and_a_manager_that_stalls(kind: str) -> None:
    with product("manifests", nodes=3, routers=[kind], sessions=[], pod_servers=False) as lab:
        lab.prepare(peers=False)
        lab.router.reconfigure(RouterConfig(tuple(replace(s, bfd=50) for s in lab.node_sessions(["v4"]))))
        # Each node announces only itself, as with one router per rack: no other node can withdraw it
        lab.peer(bfd=BFD, routerPerNode=True)
        lab.manage()
        try:
            _story(lab, kind)
        finally:
            print(lab.logs())


def remote_states(lab: Product) -> list[str]:
    """What the router says of the BFD session of each node, as `peer list` shows it."""
    (row,) = [row for row in json.loads(peer_list(lab, "-o", "json"))["items"] if row["name"] == PEER]
    return [session.get("bfd", {}).get("remoteState", "") for session in row["sessions"]]


def _story(lab: Product, kind: str) -> None:
    a, b, c = lab.nodes
    (routed,) = lab.give("web", "routed", policy="Cluster")
    lab.eip("fallback", "10.77.0.240-10.77.0.245", layer2Standby=False)
    (fallback,) = lab.give("shop", "fallback", policy="Cluster")
    lab.wait_settled()
    up = {node.v4: "up" for node in lab.nodes}
    wait_until(lambda: lab.router.bfd_states() == up, 20, "BFD to be up on the router")
    wait_until(lambda: all(bfd(lab, n.name)["state"] == "Up" for n in lab.nodes), 10, "BFD to be up on the nodes")
    wait_until(lambda: remote_states(lab) == ["Up"] * 3, 10, "the status of BFD, as each replica writes it")
    assert bfd(lab, a.name)["detectionTime"] == 150
    _, metrics = lab.manager_http(a, "/metrics")
    assert f'porterlb_bfd_session_up{{peer="{PEER}"}} 1.0' in metrics
    lab.wait_hops(routed, a.name, b.name, c.name)

    before = [bfd(lab, n.name)["failures"] for n in lab.nodes]
    lab.managers[a.name].stop()
    time.sleep(5)
    lab.managers[a.name].cont()
    assert lab.router.bfd_states() == up
    assert [bfd(lab, n.name)["failures"] for n in lab.nodes] == before

    prefix = f"{routed}/32"
    begun = time.monotonic()
    c.power_off()
    off = time.monotonic()
    wait_until(
        lambda: lab.router.routes("v4").get(prefix) == {a.v4, b.v4},
        5,
        "the route of the dead node to go",
        interval=0.002,
    )
    took = time.monotonic() - off
    print(f"{kind}: route of the dead node gone after {took:.3f} s (+ {off - begun:.3f} s of the power-off itself)")
    assert took < NOTICED

    wait_until(lambda: not lab.segment_client.who_has(fallback, timeout=0.1), 10, "BGP alone to serve")
    port = lab.router.port(lab.router.nics[0])
    lab.faults.filter("all", port)
    lab.faults.filter("all", target=port)
    cut = time.monotonic()
    wait_until(lambda: lab.segment_client.who_has(fallback, timeout=0.02), 9, "Layer 2 to answer", interval=0.002)
    took = time.monotonic() - cut
    print(f"{kind}: Layer 2 answers {took:.3f} s after the router was cut off")
    assert took < FALLBACK

    def told() -> bool:
        found = {entry["what"]: entry["message"] for entry in lab.state(a.name)["history"]}
        expired, lost = found.get("BfdDown", ""), found.get("SessionDown", "")
        return "control detection time expired (1)" in expired and "within the detection time" in lost

    wait_until(told, 5, "the history to say why", interval=0.1)
    lab.faults.clear()
    wait_until(lambda: lab.state(a.name)["peers"][PEER]["state"] == "established", 30, "the session to return")
    wait_until(lambda: bfd(lab, a.name)["state"] == "Up", 10, "BFD to return")
