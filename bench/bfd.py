"""False BFD failures next to busy processes, with managers that stop for some seconds (SIGSTOP), with FRR and BIRD.

``python -m bench bfd [--minutes N]``: three nodes have a session of 50 ms x 3 with each router. At each check, the
states on both routers are compared with those of every replica whose manager runs.
"""

from __future__ import annotations

import itertools
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from bench.report import Table
from lab.measure import wait_until
from lab.netns import LabError
from lab.routers import RouterConfig
from tests.lab.product import Product, product

MINUTES = 30.0
QUICK = 0.5
HOGS = 8
EVERY = 0.5  # seconds between two checks
STOPPED, RUNS = 5.0, 20.0
"""The time in seconds for which one manager is stopped, and the time for which all run before the next one is
stopped."""
RATE = 50  # ms, three times

_chosen: dict[str, float] = {}


def choose(minutes: float | None) -> None:
    """Sets the command-line option; None: the default."""
    _chosen.clear()
    if minutes:
        _chosen["minutes"] = minutes


@contextmanager
def cluster() -> Iterator[Product]:
    """Three nodes with managers, and two routers with BFD; all sessions are up."""
    with product("manifests", nodes=3, routers=["frr", "bird"], sessions=[], pod_servers=False) as lab:
        lab.prepare(peers=False)
        for router in lab.routers:
            sessions = tuple(replace(session, bfd=RATE) for session in lab.node_sessions(["v4"]))
            router.reconfigure(RouterConfig(sessions))
            lab.peer(router, bfd={"enabled": True, "detectMultiplier": 3, "minTransmit": RATE, "minReceive": RATE})
        lab.manage()
        lab.give("web", "routed", policy="Cluster")
        lab.wait_settled()
        wait_until(lambda: not wrong(lab, {node.name for node in lab.nodes}), 30, "all BFD sessions to be up")
        yield lab


def sessions(lab: Product, node: str) -> dict[str, dict[str, Any]]:
    """The BFD sessions of a node as its replica reports them, by peer."""
    return {name: peer["bfd"] for name, peer in lab.state(node)["peers"].items() if peer.get("bfd")}


def wrong(lab: Product, running: set[str]) -> list[str]:
    """The sessions that are not up: on the routers, and in the reports of these nodes."""
    found = []
    for router in lab.routers:
        states = router.bfd_states()
        found += [f"{router.kind}: {node.name} {state}" for node in lab.nodes if (state := states.get(node.v4)) != "up"]
    for node in sorted(running):
        seen = sessions(lab, node)
        found += [f"{node}: {name} {one['state']}" for name, one in seen.items() if one["state"] != "Up"]
        if len(seen) != len(lab.routers):
            found.append(f"{node} reports {len(seen)} sessions")
    return found


def hogs(quick: bool) -> Table:
    """All sessions stay up next to HOGS busy processes while one manager after another stops for STOPPED seconds."""
    minutes = _chosen.get("minutes", QUICK if quick else MINUTES)
    table = Table(
        f"BFD {RATE} ms x 3 beside {HOGS} busy processes, {minutes:g} minutes, three nodes, FRR and BIRD",
        ("managers stopped", "looks", "looks with a difference", "failures counted by replicas"),
    )
    with cluster() as lab:
        names = [node.name for node in lab.nodes]
        before = _failures(lab, names)
        looks, differences, stops = 0, list[str](), 0
        busy = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(HOGS)]
        try:
            end = time.monotonic() + 60 * minutes
            for victim in itertools.cycle(names):
                if time.monotonic() > end:
                    break
                for stopped, seconds in (("", RUNS), (victim, STOPPED)):
                    if stopped:
                        lab.managers[stopped].stop()
                        stops += 1
                    try:
                        until = time.monotonic() + seconds
                        while time.monotonic() < until:
                            looks += 1
                            differences += _look(lab, set(names) - {stopped})
                            time.sleep(EVERY)
                    finally:
                        if stopped:
                            lab.managers[stopped].cont()
                print(f"  {stops} stops, {looks} looks, {len(differences)} differences", file=sys.stderr, flush=True)
        finally:
            for process in busy:
                process.kill()
                process.wait()
        time.sleep(STOPPED)
        failures = sum(_failures(lab, names)[name] - before[name] for name in names)
    table.rows.append((stops, looks, len(differences), failures))
    table.raw["differences"] = differences
    return table


def _look(lab: Product, running: set[str]) -> list[str]:
    """At most one difference, which lists everything that is wrong at this moment."""
    try:
        found = wrong(lab, running)
    except (LabError, OSError) as error:
        return [f"the look failed: {error}"]
    return ["; ".join(found)] if found else []


def _failures(lab: Product, names: list[str]) -> dict[str, int]:
    return {name: sum(int(one["failures"]) for one in sessions(lab, name).values()) for name in names}


PARTS: Mapping[str, Callable[[bool], Table]] = {"hogs": hogs}
