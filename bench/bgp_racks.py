"""A subnet and a router for each rack: the gaps for a client behind the spine when a node or a rack router dies.

eBGP between nodes, rack routers and spine; FRR and BIRD. No carrier is lost: only BFD or the hold time can detect the
failure. Each node is alone in its rack. Therefore, only the node itself can announce it.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

from bench.report import Cell, Table, percentile
from lab.measure import wait_until
from lab.stream import Report
from tests.lab.product import Product
from tests.lab.rack_scenes import (
    DUAL,
    IN_RACK,
    OTHER_IN_RACK,
    in_racks,
    wait_bfd,
    wait_served,
    wait_via,
    without_second_sessions,
)

INTERVAL = 0.005
"""Seconds between two requests of a flow."""
FLOWS = 8
"""For each VIP. With three next hops, no flow uses a given one in about 4 % of the trials: (2/3)^8."""

COLUMNS = ("Service", "family", "BFD", "median", "worst", "target", "trials", "own stall")
NOTES = [
    f"gap of {FLOWS} flows to each VIP, a request every {INTERVAL * 1000:.0f} ms, from the client behind the spine",
    "without BFD, the hold time of all sessions is 9 s",
    "trials in which no flow to a VIP used the failed path do not count for this VIP",
]


@dataclass
class Gaps:
    """``gaps``: by Service and family, ms."""

    gaps: dict[tuple[str, str], list[float]] = field(default_factory=dict)
    stalls: list[float] = field(default_factory=list)

    def add(self, number: int, report: Report, services: Mapping[str, Iterable[str]]) -> None:
        print(f"  trial {number}: {report}", file=sys.stderr, flush=True)
        self.stalls.append(report.sender_stall_ms)
        for service, vips in services.items():
            for vip in vips:
                key = service, "IPv6" if ":" in vip else "IPv4"
                if gap := report.only(vip).worst_gap_ms:
                    self.gaps.setdefault(key, []).append(gap)

    def rows(self, bfd: bool) -> list[Sequence[Cell]]:
        first = ("50 ms x 3", "250") if bfd else ("none", "")
        return [
            (service, family, first[0], percentile(gaps, 0.5), max(gaps), first[1], len(gaps), max(self.stalls))
            for (service, family), gaps in self.gaps.items()
        ]


def _during(
    lab: Product, services: Mapping[str, list[str]], fail: Callable[[], None], after: Callable[[], None]
) -> Report:
    """The report of a stream to all VIPs. ``after`` returns when the failure has been detected."""
    vips = [vip for of in services.values() for vip in of]
    with lab.client.stream(vips, flows=FLOWS, interval=INTERVAL) as stream:
        time.sleep(0.3)
        fail()
        after()
        time.sleep(0.6)
        return stream.report()


# Failures


def _node(count: int, bfd: bool) -> Gaps:
    done = Gaps()
    with in_racks(("frr",), ("bird",), ("frr",), spine="bird", bfd=bfd) as lab:
        services = {
            "Local": lab.give("web", "routed", **DUAL),
            # Its pod is on a live node: packets are lost on the path, not with a pod
            "Cluster": lab.give("shop", "routed", "Cluster", pods=["pod-c1"], **DUAL),
        }
        vips = [vip for of in services.values() for vip in of]
        for number in range(count):
            wait_via(lab, vips, "tor-1", "tor-2", "tor-3")
            _ready(lab, bfd)
            wait_served(lab, services["Local"], "pod-a1", "pod-b1", "pod-c1")
            wait_served(lab, services["Cluster"], "pod-c1")
            rack = 1 + number % 2
            node = lab.nodes[rack - 1]
            left = [f"tor-{other}" for other in (1, 2, 3) if other != rack]
            report = _during(lab, services, node.power_off, partial(wait_via, lab, vips, *left, timeout=15))
            done.add(number, report, services)
            node.power_on()
    return done


def _router(count: int, bfd: bool) -> Gaps:
    """The node in the rack has sessions with both routers."""
    done = Gaps()
    with in_racks(("frr", "bird"), ("bird",), spine="frr", bfd=bfd) as lab:
        dead = lab.router_named("tor-1")
        local = lab.give("web", "routed", pods=["pod-a1"], **DUAL)
        cluster = lab.give("shop", "routed", "Cluster", pods=["pod-b1"], **DUAL)

        def noticed() -> None:
            wait_via(lab, local, "tor-1b", timeout=15)
            wait_via(lab, cluster, "tor-1b", "tor-2", timeout=15)

        for number in range(count):
            wait_via(lab, local, "tor-1", "tor-1b")
            wait_via(lab, cluster, "tor-1", "tor-1b", "tor-2")
            _ready(lab, bfd)
            wait_served(lab, local, "pod-a1")
            wait_served(lab, cluster, "pod-b1")
            services = {"Local": local, "Cluster": cluster}
            done.add(number, _during(lab, services, dead.isolate, noticed), services)
            dead.rejoin()
    return done


def _only_session(count: int, bfd: bool) -> Gaps:
    """The node in the rack has a session with one router. The other router only routes for the rack's subnet, which
    contains the VIPs. Once the first router's route is gone, the other router sends ARP requests and neighbor
    solicitations for them."""
    done = Gaps()
    with in_racks(("frr", "bird"), ("bird",), spine="frr", bfd=bfd) as lab:
        without_second_sessions(lab)
        dead = lab.router_named("tor-1")
        lab.eip("standby", IN_RACK)
        lab.eip("quiet", OTHER_IN_RACK, layer2Standby=False)
        standby = lab.give("standby", "standby", pods=["pod-a1"], **DUAL)
        quiet = lab.give("quiet", "quiet", pods=["pod-a1"], **DUAL)
        vips = [*standby, *quiet]
        for number in range(count):
            wait_via(lab, vips, "tor-1")
            _ready(lab, bfd)
            wait_served(lab, vips, "pod-a1")
            wait_until(lambda: not any(lab.owners(vip) for vip in quiet), 30, "BGP alone to serve")
            services = {"Local, layer2Standby": standby, "Local, no layer2Standby": quiet}
            done.add(number, _during(lab, services, dead.isolate, partial(wait_via, lab, vips, timeout=15)), services)
            dead.rejoin()
    return done


def _ready(lab: Product, bfd: bool) -> None:
    if bfd:
        wait_bfd(lab)
    lab.wait_settled()


# Parts of the benchmark

Trial = Callable[[int, bool], Gaps]


def _part(what: str, trials: Trial, bfd: bool) -> Callable[[bool], Table]:
    def run(quick: bool) -> Table:
        found = trials(2 if quick else 20 if bfd else 5, bfd)
        table = Table(f"Racks: {what}, ms", COLUMNS, notes=NOTES)
        table.rows = found.rows(bfd)
        table.raw = {f"{service}, {family}": gaps for (service, family), gaps in found.gaps.items()}
        return table

    return run


_FAILURES: Mapping[str, tuple[str, Trial]] = {
    "racks_node": ("a node loses its power", _node),
    "racks_router": ("one of two rack routers dies silently", _router),
    "racks_fallback": ("the only rack router with a session dies silently, Layer 2 takes over", _only_session),
}

PARTS = {
    f"{name}{suffix}": _part(what, trials, bfd)
    for name, (what, trials) in _FAILURES.items()
    for suffix, bfd in (("", True), ("_hold_time", False))
}
"""Each failure with BFD (20 trials), and without it (5 trials)."""
