"""The simulator's inputs to a manager and its wire process are recorded, and replay to the same decisions."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.sim.command import sim


@pytest.mark.timeout(300)
def test_every_process_of_a_seed_replays(tmp_path: Path) -> None:
    """This includes killed processes, in a ring that has discarded their beginning."""
    faults = tmp_path / "faults.json"
    found = [
        {"at": 6.0, "kind": "power", "a": "n1", "seconds": 4.0},
        {"at": 8.0, "kind": "stop_wire", "a": "n2", "seconds": 7.0},
        {"at": 9.0, "kind": "link", "a": "n3", "seconds": 2.0},
    ]
    faults.write_text(json.dumps(found))
    seed = ("--first", "3", "--seeds", "1", "--seconds", "58", "--faults", str(faults))
    done = sim(*seed, "--recordings", str(tmp_path / "recordings"), "--ring", "200000", timeout=280)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    from porterlb.replay import replayed  # noqa: PLC0415

    kinds: set[str] = set()
    files = sorted((tmp_path / "recordings").rglob("*.jsonl"))
    assert len(files) >= 3
    for path in files:
        for step in replayed(path.read_text().splitlines(keepends=True))[1]:
            assert not step.differs, (path.name, step.line)
            kinds.add(f"{step.line['by']} {step.line['what']}")
    assert {"manager planned", "manager wire", "manager object", "wire hello", "wire heard", "wire state"} <= kinds
