"""The first program that a newcomer runs: the demo completes, and its measured values stay within generous bounds."""

from __future__ import annotations

import io
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from lab import recordings
from lab.cluster import CHECKOUT, Lab
from lab.demo import Demo

pytestmark = pytest.mark.lab


def replay(path: Path, seed: int) -> dict[str, Any]:
    """Runs ``porterlb replay`` in a separate process, where sets have another order."""
    argv = [sys.executable, "-m", "porterlb", "replay", str(path), "-o", "json", "--all"]
    environment = {**os.environ, "PYTHONHASHSEED": str(seed), "PYTHONPATH": str(CHECKOUT)}
    done = subprocess.run(argv, env=environment, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, (path.name, done.stdout[-3000:], done.stderr[-3000:])
    found: dict[str, Any] = {"text": done.stdout, **json.loads(done.stdout)}
    assert found["different"] == 0
    return found


def check_recordings(folder: Path) -> None:
    """The recordings of all managers, including the run that ended with its node's power, replay to the recorded
    decisions."""
    found = sorted(folder.iterdir())
    assert {path.name.split(".")[0] for path in found} == {"node-a", "node-b", "node-c"}
    plans = events = 0
    for number, path in enumerate(found):
        one = replay(path, 1)
        plans, events = plans + one["plans"], events + one["events"]
        if number == 0:
            assert replay(path, 2)["text"] == one["text"]
    assert plans > 50
    assert events > 5000


def test_the_story_is_told_to_its_end(tmp_path: Path) -> None:
    with Lab(nodes=3, routers=["bird"]) as lab:
        demo = Demo(lab, Console(file=io.StringIO()), tmp_path)
        demo.run()
        (tmp_path / "ring").mkdir()
        assert [path.name for path in recordings.save(tmp_path / "ring")] == [f"0-node-{x}.jsonl" for x in "abc"]
    for number, path in enumerate(sorted((tmp_path / "ring").iterdir())):
        if number == 0:  # the recordings of a failed test
            assert replay(path, 3)["plans"] > 5
        path.unlink()
    (tmp_path / "ring").rmdir()
    check_recordings(tmp_path)
    assert len(demo.rows) == 9
    for what, figure in demo.rows:
        found = re.fullmatch(r"(\d+) ms|(\d+\.\d\d) s|(\d+) of \d+", figure)
        assert found, f"{what}: {figure}"
        gap, seconds, lost = found.groups()
        if gap is not None:
            assert int(gap) < 1000, what
        elif seconds is not None:
            assert float(seconds) < 20, what
        else:
            assert int(lost) == 0, what
    # The lease of a leader that loses its power must expire first: 4 s, renewed each second
    waited = dict(demo.rows)["until the new leader gave a new Service its address"]
    assert float(waited.split()[0]) > 1.0
