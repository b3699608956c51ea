"""False deaths under random loss, in memory on a virtual clock and with real kernels; and next to busy processes.

``python -m bench liveness [--loss PERCENT ...] [--minutes N]``
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from itertools import pairwise
from typing import Any

from bench.report import Table
from porterlb.settings import PROFILES
from tests.core.layer2.simulation import DEFAULT, FAST, World
from tests.edge.wire_lab import Segment, vips

LOSSES = (1, 3, 5, 10)  # percent of all frames and datagrams, independently
MINUTES = 10.0
QUICK = 0.5  # minutes

_chosen: dict[str, Any] = {}


def choose(losses: list[int] | None, minutes: float | None) -> None:
    """Sets the command-line options; None: the defaults."""
    _chosen.update(losses=tuple(losses) if losses else LOSSES, minutes=minutes)


def _minutes(quick: bool) -> float:
    chosen = _chosen.get("minutes")
    return float(chosen) if chosen else QUICK if quick else MINUTES


def simulated(quick: bool) -> Table:
    """The failure detectors of three replicas, a gateway, and a virtual clock: stalls of the machine have no effect."""
    minutes = _minutes(quick)
    table = Table(
        f"False deaths in memory, {minutes:g} minutes, three nodes and a gateway",
        ("profile", "loss %", "deaths", "hellos a second and replica"),
    )
    for name, timing in (("default", DEFAULT), ("fast", FAST)):
        for loss in _chosen.get("losses", LOSSES):
            world = World("a", "b", "c", timing=timing, loss=loss / 100, seed=loss, gateway=True)
            world.run(60 * minutes)
            said = max(replica.sequence for replica in world.replicas.values()) / (60 * minutes)
            table.rows.append((name, loss, len(world.deaths), said))
            table.raw[f"{name} {loss}"] = [list(death) for death in world.deaths]
            _say(table)
    return table


def real(quick: bool) -> Table:
    """Three replicas in network namespaces; the switch drops frames at random."""
    minutes = _minutes(quick)
    table = Table(
        f"False deaths on a segment, {minutes:g} minutes, three nodes and a gateway",
        ("profile", "loss %", "deaths", "replicas given up", "judgements skipped"),
        notes=["judgements skipped: ticks that came late by more than half an interval, for want of a processor"],
    )
    for profile in ("default", "fast"):
        segment = Segment()
        try:
            segment.tell(vips=vips(("10.77.0.100", ("n2", "n1", "n3"))))
            segment.start(**dict[str, Any](PROFILES[profile]))
            segment.settled()
            for loss in _chosen.get("losses", LOSSES):
                table.rows.append((profile, loss, *_lossy(segment, loss, minutes)))
                _say(table)
        finally:
            segment.close()
    return table


HOGS = 16


def hogs(quick: bool) -> Table:
    """Three replicas on a machine whose processors are busy with HOGS computing processes; no frame is lost."""
    minutes = _minutes(quick)
    table = Table(
        f"False deaths beside {HOGS} busy processes, {minutes:g} minutes, three nodes and a gateway",
        ("profile", "loss %", "deaths", "replicas given up", "judgements skipped"),
    )
    for profile in ("default", "fast"):
        segment, busy = Segment(), list[subprocess.Popen[bytes]]()
        try:
            segment.tell(vips=vips(("10.77.0.100", ("n2", "n1", "n3"))))
            segment.start(**dict[str, Any](PROFILES[profile]))
            segment.settled()
            busy += [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(HOGS)]
            table.rows.append((profile, 0, *_lossy(segment, 0, minutes)))
            _say(table)
        finally:
            for process in busy:
                process.kill()
                process.wait()
            segment.close()
    return table


def _lossy(segment: Segment, loss: int, minutes: float) -> tuple[int, int, int]:
    replicas = segment.replicas.values()
    before = {replica: dict(replica.report.counters) for replica in replicas}
    for replica in replicas:
        replica.history.clear()
    segment.faults.loss(loss)
    time.sleep(60 * minutes)
    segment.faults.clear()
    time.sleep(1.5)  # the counters are reported once a second

    def risen(name: str) -> int:
        return sum(r.report.counters.get(name, 0) - before[r].get(name, 0) for r in replicas)

    given_up = 0
    for replica in replicas:
        fresh = [len(report.fresh) for _, report in list(replica.history)]
        given_up += sum(after < first for first, after in pairwise(fresh))
    return risen("deaths"), given_up, risen("judgements_skipped")


def _say(table: Table) -> None:
    profile, loss, deaths, *_ = table.rows[-1]
    print(f"  {profile}, {loss} % loss: {deaths} false deaths", file=sys.stderr, flush=True)


PARTS: Mapping[str, Callable[[bool], Table]] = {"simulated": simulated, "real": real, "hogs": hogs}
