"""One VIP over several nodes: how evenly hosts are spread, and their gaps when a node is cut off."""

from __future__ import annotations

import sys
import time
from itertools import cycle, islice

from bench.report import Table, percentile
from porterlb.settings import PROFILES
from tests.edge.crowd import INTERVAL, NODES, V4, V6, Crowd, Lost

HOSTS, ROUTERS = 28, 2
BOTH = (V4, V6)


def spread(quick: bool) -> Table:
    """Both profiles: 28 hosts and two routers, IPv4 and IPv6 at once; the nodes are cut off in turn."""
    count = 3 if quick else 20
    table = Table(
        f"layer2Spread: hosts ({HOSTS} hosts, {ROUTERS} routers, {len(NODES)} nodes, {count} trials)",
        ("profile", "fullest share %", "emptiest share %", "median ms", "worst ms", "target", "lost by others"),
        notes=[
            "shares: of an even one, of both families, after all hosts have asked at the same time",
            "ms: the longest gap of any host of the node that is cut off, one figure a trial",
            f"a ping each {INTERVAL * 1000:.0f} ms from each host, or from a client behind it, to each VIP",
        ],
    )
    for profile, target in (("default", "250"), ("fast", "100")):
        crowd = Crowd(HOSTS, ROUTERS, **PROFILES[profile])
        try:
            crowd.resolve()
            crowd.wait_known()
            even = len(crowd.hosts) / len(NODES)
            shares = [count for vip in BOTH for count in crowd.shares(vip).values()]
            gaps, others = _cut(crowd, count)
        finally:
            crowd.close()
        row = (profile, 100 * max(shares) / even, 100 * min(shares) / even, percentile(gaps, 0.5), max(gaps), target)
        table.rows.append((*row, others))
        table.raw[profile] = {"shares": shares, "gaps": gaps}
        print(f"  {profile}: worst {max(gaps):.0f} ms, {others} lost by others", file=sys.stderr, flush=True)
    return table


def _cut(crowd: Crowd, count: int) -> tuple[list[float], int]:
    """The longest gap of each trial in ms, and the number of losses of the other nodes' hosts."""
    gaps: list[float] = []
    others = 0
    for node in islice(cycle(NODES), count):
        crowd.forget()
        crowd.resolve()
        before = {vip: crowd.entries(vip) for vip in BOTH}
        pings = crowd.ping(2.0)
        time.sleep(0.8)
        crowd.segment.net.carrier(node, False)
        lost = pings.lost()
        crowd.segment.net.carrier(node, True)
        for name, replica in crowd.segment.replicas.items():
            if name != node:
                replica.until(lambda r, n=node: not r.report.dead and n in r.report.fresh, f"{node} is back")  # type: ignore[misc]
        time.sleep(1.5)
        touched = [one for one in lost if _is_of(one, before, node)]
        if touched:
            gaps.append(max(one.longest for one in touched) * 1000)
        others += sum(one.count for one in lost if not _is_of(one, before, node))
    return gaps, others


def _is_of(one: Lost, entries: dict[str, dict[str, str]], node: str) -> bool:
    return entries[one.vip][one.host] == node
