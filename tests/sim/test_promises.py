"""The simulator's promises are effective: each one detects a breach."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from sim.faults import Fault
from sim.promises import Violation
from sim.run import Result
from sim.shrink import shrink
from tests.sim.breaches import BREACHES, WITH_BGP
from tests.sim.command import ROOT


@pytest.mark.timeout(300)
def test_each_broken_promise_is_noticed_and_an_untouched_site_breaks_none() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.sim.breaches"],
        cwd=ROOT,
        env={**os.environ, "PYTHONHASHSEED": "0"},
        capture_output=True,
        text=True,
        timeout=280,
        check=True,
    )
    breaches = {**BREACHES, **WITH_BGP}
    wanted = ["untouched: nothing", "untouched with BGP: nothing"]
    wanted += [f"{name}: {promise}" for name, (_, promise) in breaches.items()]
    assert done.stdout.splitlines() == wanted


def made(faults: list[Fault], promise: str) -> Result:
    violation = Violation(50.0, promise, "", "") if promise else None
    return Result(1, 60.0, faults, len(faults), violation, {}, 0, 0)


def test_shrinking_finds_the_two_faults_that_matter_and_keeps_the_promise() -> None:
    faults = [Fault(float(at), "link", f"n{at}", seconds=4.0) for at in range(1, 21)]

    def attempt(seed: int, seconds: float, tried: list[Fault]) -> Result:
        names = {fault.a for fault in tried}
        if {"n3", "n17"} <= names:
            return made(tried, "path")
        return made(tried, "one owner" if "n5" in names else "")  # a different promise is a different failure

    said: list[str] = []
    best = shrink(made(faults, "path"), 60.0, said.append, attempt=attempt)
    assert [fault.a for fault in best.faults] == ["n3", "n17"]
    assert all(fault.seconds == 0.5 for fault in best.faults)
    assert said


def test_importing_the_simulator_changes_nothing() -> None:
    code = (
        "import sys, time, porterlb.app as app, porterlb.wire.packet as packet\n"
        "before = (app.Manager.__init__, app.HttpServer, packet.open_socket, app.time)\n"
        "import sim.run\n"
        "assert before == (app.Manager.__init__, app.HttpServer, packet.open_socket, app.time)\n"
        "assert app.time is time\n"
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, timeout=60)
