"""A manager that is busy for a long time, and logs that no process reads: BGP and Layer 2 keep serving."""

from __future__ import annotations

import os
import re
import signal
import time
from pathlib import Path

import pytest

from lab.cluster import CHECKOUT
from lab.measure import wait_equal
from tests.lab.product import Product, product
from tests.lab.test_privileges import family

pytestmark = pytest.mark.lab

BUSY = 6.0
SILENCE = 2.0

DISTURBED = f"""
import logging, os, signal, time

def busy(*_):
    until = time.monotonic() + {BUSY}
    while time.monotonic() < until:
        sum(range(1000))

def flood(*_):
    for number in range(5000):
        logging.getLogger("porterlb.flood").warning("line %d %s", number, "x" * 500)

signal.signal(signal.SIGUSR1, busy)
signal.signal(signal.SIGUSR2, flood)
if os.environ.get("UNREAD"):
    unread, writing = os.pipe()
    os.dup2(writing, 2)
    os.set_inheritable(2, True)
    del os.environ["UNREAD"]
"""
"""Python runs a signal handler on the main thread, where the event loop is. Meanwhile, the loop handles no events."""


def start(lab: Product, folder: Path, **env: str) -> None:
    (folder / "sitecustomize.py").write_text(DISTURBED)
    path = os.pathsep.join([str(folder), str(CHECKOUT)])
    for node in lab.nodes:
        lab.managers[node.name] = lab.start_manager(
            node, "--silence-after", str(SILENCE), env={"PYTHONPATH": path, **env}
        )


def wire_of(pid: int) -> int:
    return next(p for p in family(pid) if b"porterlb.wire" in Path(f"/proc/{p}/cmdline").read_bytes())


def test_a_loop_that_is_deaf_for_longer_than_the_silence_limit_loses_nothing(tmp_path: Path) -> None:
    with product("manifests", nodes=2, routers=["bird"]) as lab:
        lab.prepare()
        start(lab, tmp_path)
        (routed,) = lab.give("routed", "routed")
        (segment,) = lab.give("segment", "segment")
        lab.wait_hops(routed, "node-a", "node-b", timeout=40)
        lab.wait_owner(segment)
        with lab.client.stream(routed, interval=0.01) as one, lab.segment_client.stream(segment, interval=0.01) as two:
            for manager in lab.managers.values():
                manager.signal(signal.SIGUSR1)
            time.sleep(BUSY + SILENCE + 1.0)
        for stream in (one, two):
            report = stream.report()
            assert report.lost == 0, report
        for manager in lab.managers.values():
            assert manager.alive and "no beat of the manager" not in manager.output()


COUNTERS = ("log_lines_dropped_total", 'wire_total{what="log_lines_dropped"}')


def dropped(lab: Product, node: str) -> dict[str, float]:
    _, text = lab.manager_http(node, "/metrics")
    found = re.findall(r'^porterlb_(log_lines_dropped_total|wire_total\{what="log_lines_dropped"\}) (\S+)$', text, re.M)
    return {name: float(value) for name, value in found}


def test_logs_that_nobody_reads_stop_nothing(tmp_path: Path) -> None:
    with product("manifests", nodes=2, routers=["bird"]) as lab:
        lab.prepare()
        start(lab, tmp_path, UNREAD="1")
        (routed,) = lab.give("routed", "routed")
        (segment,) = lab.give("segment", "segment")
        lab.wait_hops(routed, "node-a", "node-b", timeout=40)
        lab.wait_owner(segment)
        for manager in lab.managers.values():
            pid = next(p for p in family(manager.pid) if b"manager" in Path(f"/proc/{p}/cmdline").read_bytes())
            os.kill(wire_of(pid), signal.SIGUSR2)
            manager.signal(signal.SIGUSR2)
        wait_equal(
            lambda: {what: n > 0 for what, n in dropped(lab, "node-a").items()}, dict.fromkeys(COUNTERS, True), 20
        )
        lab.wait_settled(timeout=40)
        with lab.client.stream(routed, interval=0.01) as one, lab.segment_client.stream(segment, interval=0.01) as two:
            time.sleep(SILENCE + 2.0)
        for stream in (one, two):
            report = stream.report()
            assert report.lost == 0, report
        assert all(manager.alive for manager in lab.managers.values())
        assert lab.manager_http("node-b", "/healthz")[0] == 200
