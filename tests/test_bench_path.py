"""bench/path.py counts as documented: calls that enter another file, only in the processes of a replica."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

from bench.path import gratuitous, window
from bench.path_trace import FOLDER, Note

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
