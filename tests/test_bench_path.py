"""bench/path.py counts as documented: calls that enter another file, only in the processes of a replica."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

from bench.path import gratuitous, planned, window
from bench.path_trace import FOLDER, Note, entering
from porterlb.core.objects import Objects

ROOT = Path(__file__).resolve().parent.parent


def test_calls_that_enter_another_file_are_noted_and_others_are_not(tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text("from bench import path_trace\n\npath_trace.begin()\n")
    environment = {**os.environ, FOLDER: str(tmp_path), "PYTHONPATH": os.pathsep.join([str(tmp_path), str(ROOT)])}
    for command in (
        ["-m", "porterlb", "version", "--client"],
        ["-m", "porterlb.nothing"],
        ["-c", "import porterlb.core.backoff"],
    ):
        subprocess.run([sys.executable, *command], env=environment, cwd=ROOT, capture_output=True, check=False)
    (file,) = tmp_path.glob("*.json")
    assert file.name.startswith("manager-")
    notes = [tuple(note) for note in json.loads(file.read_text())]
    calls = [(caller, entered, name) for _, what, caller, entered, name in notes if what == "call"]
    assert ("__main__.py", "cli/main.py", "<module>") in calls
    assert all(caller != entered for caller, entered, _ in calls)


def test_a_window_has_the_calls_between_two_moments() -> None:
    notes: list[Note] = [
        (1.0, "call", "", "a.py", "before"),
        (2.0, "call", "", "a.py", "first"),
        (2.5, "pipe", "", "", "send"),
        (3.0, "call", "a.py", "b.py", "second"),
        (4.0, "call", "b.py", "a.py", "after"),
    ]
    found = window(notes, 2.0, 3.0)
    assert (found.moves, found.files, found.seconds) == (2, {"a.py", "b.py"}, 1.0)


def test_a_gratuitous_frame_names_the_address_as_sender_and_target() -> None:
    vip, other = socket.inet_aton("10.77.0.200"), socket.inet_aton("10.77.0.1")
    assert gratuitous(bytes(28) + vip + bytes(6) + vip, "10.77.0.200")
    assert not gratuitous(bytes(28) + vip + bytes(6) + other, "10.77.0.200")
    assert not gratuitous(bytes(28) + vip + bytes(6) + vip, "10.77.0.1")
    assert not gratuitous(bytes(20), "10.77.0.200")


def test_the_calls_of_one_call_in_this_process_are_counted() -> None:
    objects = Objects(claim_without_class=True)
    nodes: list[object] = []
    found = entering(lambda: nodes.extend((objects.nodes, objects.nodes)))
    assert found == [("", "core/objects.py", "nodes"), ("core/objects.py", "core/persistent.py", "frozen")] * 2
    assert sys.getprofile() is None


def test_the_steps_of_a_plan_are_always_the_same() -> None:
    one, two = (planned(quick=True) for _ in range(2))
    assert [row[0] for row in one.rows] == ["a lost session", "a new Service"]
    assert one.raw == two.raw
    for event, steps, calls, _, _ in one.rows:
        assert (steps, calls) == (len(one.raw[str(event)]), sum(one.raw[str(event)].values()))
        assert "bench -> core/plan.py plan" in one.raw[str(event)]
