"""The gap that clients behind a router see when a BGP next hop loses its power; no BFD, nobody waits for NotReady."""

from __future__ import annotations

import time

from bench.report import Table, percentile
from lab.measure import wait_until
from tests.lab.product import Product, product

NAMES = ("node-a", "node-b", "node-c")
FLOWS = 12
"""So many flows over three next hops: some of them go over the one that dies."""


def next_hop(quick: bool) -> Table:
    """Ten trials with each profile."""
    count = 3 if quick else 10
    table = Table(
        f"BGP next hop loses power: worst gap of {FLOWS} flows, ms ({count} trials)",
        ("profile", "median", "worst", "target", "own stall"),
        notes=["BIRD with add-path; externalTrafficPolicy Local; a request every 2 ms a flow"],
    )
    for profile, target in (("default", "300"), ("fast", "150")):
        gaps, stalls = _trials(profile, count)
        table.rows.append((profile, percentile(gaps, 0.5), max(gaps), target, max(stalls)))
        table.raw[profile] = {"gaps": gaps, "stalls": stalls}
    return table


def _trials(profile: str, count: int) -> tuple[list[float], list[float]]:
    gaps, stalls = [], []
    with product("manifests", nodes=3, routers=["bird"]) as lab:
        lab.prepare()
        lab.manage(options=("--return-after", "3", "--profile", profile))
        (vip,) = lab.give("web", "routed")
        lab.wait_hops(vip, *NAMES, timeout=40)
        lab.wait_settled()
        for number in range(count):
            victim = NAMES[number % len(NAMES)]
            gap, stall = _one(lab, vip, victim)
            gaps.append(gap)
            stalls.append(stall)
    return gaps, stalls


def _one(lab: Product, vip: str, victim: str) -> tuple[float, float]:
    with lab.client.stream(vip, flows=FLOWS, interval=0.002) as stream:
        time.sleep(0.4)
        lab.node(victim).power_off()
        lab.wait_hops(vip, *(name for name in NAMES if name != victim), timeout=10)
        time.sleep(0.4)
        report = stream.report()
    lab.node(victim).power_on()
    lab.wait_settled()
    lab.wait_hops(vip, *NAMES)
    wait_until(lambda: lab.client.reaches(vip), 10, "an answer")
    return report.worst_gap_ms, report.sender_stall_ms
