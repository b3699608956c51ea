"""The cost of an idle replica: processor time and memory of each of its processes.

A lab with a router and a replica on each node, some VIPs of each mode, and no changes. Here, the kernel time for the
delivery of a frame is counted for its sender, because all nodes are on one machine. On real nodes, a part of it is
interrupt time of the receiver.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from statistics import median

from bench.report import Table
from bench.usage import processor_seconds, proportional_bytes, resident_bytes, wakeups
from tests.lab.product import Product, product

ROLES = {
    "wire": "porterlb.wire",
    "ExaBGP": "launcher.py",
    "API process": "api.py",
    "BFD": "porterlb.bfd",
}
"""By a part of the command line. All other processes are the manager."""
FIGURES = ("processor", "wakeups", "resident", "proportional")
VIPS = 10


def replica(lab: Product, node: str) -> dict[str, int]:
    """The processes of a replica: PID by role."""
    manager = lab.managers[node]
    found = {"manager": manager.pid}
    for pid, command in manager.descendants():
        role = next((role for role, part in ROLES.items() if part in command), "")
        if role:
            found[role] = pid
    return found


def measure(nodes: int, seconds: float) -> dict[str, dict[str, list[float]]]:
    """By role: percent of a processor in user and in kernel mode, wake-ups per second, and megabytes, one figure per
    replica."""
    with product("manifests", nodes=nodes, routers=["bird"]) as lab:
        lab.prepare()
        lab.proxy.close()  # the replacement of kube-proxy would only use processor time
        lab.manage(options=())
        for number in range(VIPS):
            for pool in ("routed", "auto"):
                lab.give(f"{pool}-{number}", pool, policy="Cluster")
        lab.wait_settled()
        time.sleep(20)  # until all announcements have ended and all statuses are written
        replicas = [replica(lab, name) for name in lab.managers]
        before = [{role: (processor_seconds(pid), wakeups(pid)) for role, pid in one.items()} for one in replicas]
        begun = time.monotonic()
        time.sleep(seconds)
        elapsed = time.monotonic() - begun
        found: dict[str, dict[str, list[float]]] = {}
        for one, used in zip(replicas, before, strict=True):
            for role, pid in one.items():
                figures = found.setdefault(role, {name: [] for name in FIGURES})
                figures["processor"].append(100 * (processor_seconds(pid) - used[role][0]) / elapsed)
                figures["wakeups"].append((wakeups(pid) - used[role][1]) / elapsed)
                figures["resident"].append(resident_bytes(pid) / 1e6)
                figures["proportional"].append(proportional_bytes(pid) / 1e6)
    return found


def _table(nodes: int, quick: bool) -> Table:
    table = Table(
        f"An idle replica of {nodes}, default settings",
        ("process", "% of a processor", "wake-ups/s", "RSS MB", "PSS MB"),
        notes=[f"{2 * VIPS} Services, one router; median of the replicas. RSS counts shared pages in each process."],
    )
    found = measure(nodes, 10.0 if quick else 30.0)
    for role, figures in found.items():
        table.rows.append((role, *(median(values) for values in figures.values())))
    whole: Mapping[str, list[float]] = {
        name: [sum(values) for values in zip(*(figures[name] for figures in found.values()), strict=True)]
        for name in FIGURES
    }
    table.rows.append(("together", *(median(values) for values in whole.values())))
    table.raw = {**found, "together": dict(whole)}
    return table


PARTS = {"three": lambda quick: _table(3, quick), "ten": lambda quick: _table(10, quick)}
