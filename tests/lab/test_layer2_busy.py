"""PorterLB processes that are busy or stalled: clients see no effect, and no healthy node is declared dead."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from lab.measure import wait_until
from tests.lab.scenarios import Stage

pytestmark = [pytest.mark.lab, pytest.mark.timeout(180)]


def deaths(stage: Stage) -> dict[str, int]:
    """The number of nodes that each wire process has declared dead."""
    return {name: stage.lab.state(name)["wire"]["counters"].get("deaths", 0) for name in stage.running}


@contextmanager
def hogs(stage: Stage, count: int) -> Iterator[None]:
    """Runs this number of processes that only use CPU time."""
    argv = [sys.executable, "-I", "-S", "-c", "while True: pass"]
    started = [stage.lab.segment_client.start(f"hog-{number}", argv) for number in range(count)]
    try:
        yield
    finally:
        for hog in started:
            hog.kill()


@pytest.mark.parametrize("profile", ["default", "fast"])
def test_a_stalled_wire_process_declares_nobody_dead(cluster: str, profile: str) -> None:
    with Stage(cluster, profile=profile) as stage:
        at = stage.serve_one_at_each()
        stage.settle()
        before = deaths(stage)
        for name in ("node-a", "node-b"):
            wire = stage.wire(name)

            def stall(wire: int = wire) -> None:
                os.kill(wire, signal.SIGSTOP)
                time.sleep(2.0)
                os.kill(wire, signal.SIGCONT)

            with stage.watched(at[name]) as answers:
                report = stage.during(stage.all_vips(), stall)
            assert report.lost == 0, str(report)
            assert set().union(*answers) == {name}  # meanwhile, another replica answers with the same node's MAC
            stage.settle()
        assert deaths(stage) == before


def test_processor_hogs_declare_nobody_dead(cluster: str) -> None:
    with Stage(cluster) as stage:
        stage.serve_one_at_each()
        stage.settle()
        before = deaths(stage)
        with hogs(stage, 4 * (os.cpu_count() or 1)):
            time.sleep(8.0)
        stage.settle()
        assert deaths(stage) == before


def test_a_flood_of_10000_services_delays_no_answer_probe_or_hello() -> None:
    """On a directory of manifests only, where all arrive at once: the test covers a manager under full load.

    It takes minutes until all are served. Meanwhile, every manager reads, plans and writes as fast as it can.
    """
    with Stage("manifests", pool="10.77.0.100-10.77.0.229,fd77::1:0/112", proxy_interval=3600.0) as stage:
        at = stage.serve_one_at_each()
        stage.settle()
        before = deaths(stage)
        managers = {name: stage.manager(name).pid for name in at}

        def flood() -> None:
            stage.write_many(10_000)
            begun = {name: processor_seconds(pid) for name, pid in managers.items()}
            wait_until(
                lambda: all(processor_seconds(pid) - begun[name] > 4.0 for name, pid in managers.items()),
                90.0,
                "managers that have worked for 4 s",
                interval=0.5,
            )

        with stage.watched(stage.all_vips()) as answers:
            report = stage.during(stage.all_vips(), flood, interval=0.01, after=1.0)
        assert report.lost == 0, str(report)
        silent = [seen for seen in answers if not seen]
        assert len(silent) <= len(answers) * 0.02, (len(silent), len(answers))  # the others within 50 ms each
        assert [seen for seen in answers if len(seen) > 1] == []
        wait_until(lambda: deaths(stage) == before, 20.0, "managers that say what their wire process saw")
        for name, vips in at.items():
            assert {stage.owner(vip) for vip in vips} == {name}


def processor_seconds(pid: int) -> float:
    """The CPU time that a process has used, in seconds."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
