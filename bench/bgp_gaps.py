"""The gap for clients behind a router when a BGP next hop loses power, without BFD or a wait for NotReady."""

from __future__ import annotations

import time

from bench.report import Table, percentile
from lab.measure import wait_until
from tests.lab.product import Product, product

NAMES = ("node-a", "node-b", "node-c")
CONNECT = 0.04
"""Seconds between two new connections."""
FLOWS = 12
"""Flows over three next hops: enough that some of them use the dying one."""


ROWS = (("default", "Local", "300"), ("fast", "Local", "150"), ("default", "Cluster", ""))
"""Profile, externalTrafficPolicy, target of the stream's gap in ms. With Cluster, a flow to a pod of the dead node is
lost with any next hop: its gap has no target, and the pods of the node are marked as not ready."""


def next_hop(quick: bool) -> Table:
    """Twenty trials with each profile."""
    count = 3 if quick else 20
    table = Table(
        f"BGP next hop loses power: worst gap of {FLOWS} flows and new connections, ms ({count} trials)",
        ("profile", "policy", "median", "worst", "target", "new connections", "own stall"),
        notes=[
            "BIRD with add-path; a request every 2 ms a flow; the leader lives",
            "new connections: until the last one that failed had begun, worst; 25 a second, time-out 1 s",
            "Cluster: the dead node's endpoints are marked (mark-pods-not-ready); the flows to its pod do not count",
        ],
    )
    for profile, policy, target in ROWS:
        gaps, connections, stalls = _trials(profile, policy, count)
        streams = (percentile(gaps, 0.5), max(gaps)) if policy == "Local" else ("", "")
        table.rows.append((profile, policy, *streams, target, max(connections), max(stalls)))
        table.raw[f"{profile}, {policy}"] = {"gaps": gaps, "connections": connections, "stalls": stalls}
    return table


def _trials(profile: str, policy: str, count: int) -> tuple[list[float], list[float], list[float]]:
    found = []
    with product("manifests", nodes=3, routers=["bird"]) as lab:
        lab.prepare()
        options = ("--return-after", "3", "--profile", profile, "--mark-pods-not-ready", "--mark-again-after", "1")
        lab.manage(options=options)
        (vip,) = lab.give("web", "routed", policy=policy)
        lab.wait_hops(vip, *NAMES, timeout=40)
        lab.wait_settled()
        for number in range(count):
            leader = lab.wait_leader()
            others = [name for name in NAMES if name != leader]
            found.append(_one(lab, vip, others[number % len(others)]))
    gaps, connections, stalls = (list(column) for column in zip(*found, strict=True))
    return gaps, connections, stalls


def _one(lab: Product, vip: str, victim: str) -> tuple[float, float, float]:
    attempts = lab.client.attempts(vip, interval=CONNECT)
    with attempts, lab.client.stream(vip, flows=FLOWS, interval=0.002) as stream:
        time.sleep(0.4)
        moment = time.monotonic()
        lab.node(victim).power_off()
        lab.wait_hops(vip, *(name for name in NAMES if name != victim), timeout=10)
        time.sleep(1.2)
        report = stream.report()
        connections = attempts.report().last(moment) * 1000
    lab.node(victim).power_on()
    lab.wait_settled()
    lab.wait_hops(vip, *NAMES)
    wait_until(lambda: lab.client.reaches(vip), 10, "an answer")
    wait_until(lambda: len(lab.client.pods_answering(vip, 30)) == len(NAMES), 40, "no endpoint to be marked any more")
    return report.worst_gap_ms, connections, report.sender_stall_ms
