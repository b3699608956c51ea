"""Each node alone in the subnet of its rack, with real rack routers and a spine: dead nodes, dead rack routers.

The bounds are generous for a busy machine. ``python -m bench bgp`` measures (racks_node, racks_router, racks_fallback).
"""

from __future__ import annotations

import time

import pytest

from lab.measure import wait_equal, wait_until
from lab.stream import Report
from tests.lab.product import Product
from tests.lab.rack_scenes import (
    DUAL,
    IN_RACK,
    in_racks,
    wait_bfd,
    wait_served,
    wait_via,
    without_second_sessions,
)

pytestmark = pytest.mark.lab

BOUND = 1000.0
"""Upper limit in milliseconds. Without BFD, the gaps are between 6 s and 9 s."""

INTERVAL = 0.01
FLOWS = 8


@pytest.mark.parametrize(("kinds", "spine"), [(("frr", "bird", "frr"), "bird"), (("bird", "frr", "bird"), "frr")])
def test_a_node_loses_its_power(kinds: tuple[str, ...], spine: str) -> None:
    with in_racks(*((kind,) for kind in kinds), spine=spine, bfd=True) as lab:
        try:
            _power_loss(lab)
        finally:
            print(lab.logs())


def gaps(report: Report, vips: list[str], what: str) -> list[float]:
    """The worst gap of each VIP in milliseconds; all are below the bound."""
    found = [report.only(vip).worst_gap_ms for vip in vips]
    for vip, gap in zip(vips, found, strict=True):
        print(f"{what}, {vip}: worst gap {gap:.0f} ms")
        assert gap < BOUND
    return found


def _power_loss(lab: Product) -> None:
    local = lab.give("web", "routed", **DUAL)
    # Its pod is on a live node: packets are lost on the path, not with a pod
    cluster = lab.give("shop", "routed", "Cluster", pods=["pod-c1"], **DUAL)
    racks = ("tor-1", "tor-2", "tor-3")
    wait_via(lab, [*local, *cluster], *racks)
    wait_bfd(lab)
    lab.wait_settled()
    wait_served(lab, local, "pod-a1", "pod-b1", "pod-c1")
    wait_served(lab, cluster, "pod-c1")
    with lab.client.stream([*local, *cluster], flows=FLOWS, interval=INTERVAL) as stream:
        time.sleep(0.3)
        lab.node("node-b").power_off()
        wait_via(lab, [*local, *cluster], "tor-1", "tor-3", timeout=5)
        time.sleep(0.5)
        report = stream.report()
    gaps(report, [*local, *cluster], "power")
    assert report.lost  # some of the 32 flows used this node
    lab.node("node-b").power_on()
    wait_via(lab, [*local, *cluster], *racks)


@pytest.mark.parametrize(("kinds", "spine"), [(("bird", "frr"), "frr"), (("frr", "bird"), "bird")])
def test_a_rack_router_dies_silently(kinds: tuple[str, str], spine: str) -> None:
    with in_racks(kinds, ("frr",), spine=spine, bfd=True) as lab:
        try:
            _other_router(lab)
            _fallback(lab)
        finally:
            print(lab.logs())


def _other_router(lab: Product) -> None:
    """The node has sessions with both routers of its rack."""
    local = lab.give("web", "routed", pods=["pod-a1"], **DUAL)
    cluster = lab.give("shop", "routed", "Cluster", pods=["pod-b1"], **DUAL)
    wait_via(lab, local, "tor-1", "tor-1b")
    wait_via(lab, cluster, "tor-1", "tor-1b", "tor-2")
    wait_bfd(lab)
    lab.wait_settled()
    wait_served(lab, local, "pod-a1")
    wait_served(lab, cluster, "pod-b1")
    dead = lab.router_named("tor-1")
    with lab.client.stream([*local, *cluster], flows=FLOWS, interval=INTERVAL) as stream:
        time.sleep(0.3)
        dead.isolate()
        wait_via(lab, local, "tor-1b", timeout=5)
        wait_via(lab, cluster, "tor-1b", "tor-2", timeout=5)
        time.sleep(0.5)
        report = stream.report()
    gaps(report, [*local, *cluster], "other router")
    assert report.only(local[0]).lost and report.only(local[1]).lost
    dead.rejoin()
    wait_via(lab, local, "tor-1", "tor-1b")


def _fallback(lab: Product) -> None:
    """The node has a session with one router. The other router only routes for the rack's subnet. When the first router
    is dead, traffic for addresses of this subnet arrives through the other one, which sends ARP requests and neighbor
    solicitations for them."""
    a = lab.node("node-a")
    without_second_sessions(lab)
    lab.eip("rack", IN_RACK, layer2Standby=False)
    vips = lab.give("near", "rack", pods=["pod-a1"], **DUAL)
    wait_via(lab, vips, "tor-1")
    wait_served(lab, vips, "pod-a1")
    lab.wait_settled()
    wait_until(lambda: not any(lab.owners(vip) for vip in vips), 10, "BGP alone to serve")
    dead = lab.router_named("tor-1")
    with lab.client.stream(vips, flows=FLOWS, interval=INTERVAL) as stream:
        time.sleep(0.3)
        dead.isolate()
        wait_via(lab, vips, timeout=5)
        time.sleep(1.5)
        report = stream.report()
    assert min(gaps(report, vips, "fallback")) > 0
    for vip in vips:
        assert lab.owners(vip) == {a.name}
    # The router first returns as gateway, then the session
    key = lab.faults.filter("bgp", a.port(a.nics[0]))
    dead.rejoin()
    spine = lab.router_named("spine")
    wait_equal(spine.established, {session.address for session in spine.config.sessions}, 20, "the spine's sessions")
    time.sleep(1.5)
    with lab.client.stream(vips, flows=FLOWS, interval=INTERVAL) as stream:
        lab.faults.lift(key)
        wait_via(lab, vips, "tor-1")
        time.sleep(2.0)
        back = stream.report()
    print(f"back: {back}")
    assert back.lost == 0
