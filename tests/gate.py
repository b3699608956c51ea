"""``python -m tests.gate``: all tests, in three lanes beside each other (`make test`).

Most tests wait: for a router, for a timer, for Kubernetes. Those of the lab with whole managers are the first lane; the
other ones that wait, and then those on the Kubernetes control plane, are the second. The tests of decisions, chart,
simulator, image and texts need the processor only. They are the third lane, with the scheduling policy SCHED_IDLE
(sched(7)), so they get only what the others leave. Kubernetes' programs and the images are built first in that lane.

The first lane's output is shown as it comes, that of the others at the end. Tests that failed run once more when
nothing else runs (docs/decisions/second-look.md).
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

ROOT = Path(__file__).resolve().parents[1]
TESTS = ROOT / "tests"
PROCESSOR = ("chart", "core", "fuzz", "image", "mutants", "sim", "test_docs.py", "test_release.py", "test_wheel.py")
"""What needs the processor only, below tests/. Nothing there measures elapsed time."""
LAB, CLUSTER = "lab", "cluster"
PATIENCE = 1800
"""Seconds for one test of the idle lane, which may get no processor for a while."""
SLOWEST = 15
"""Tests of each lane that waits whose durations are printed: those to shorten first."""
BUILD = [sys.executable, "-m", "tests.cluster.prepare"]
IDLE = ["chrt", "--idle", "0"]
FAILED, NONE = 1, 5
"""Exit codes of pytest: tests have failed, no test was collected. Another one is an error of the run itself."""


@dataclass
class Part:
    """Some tests that run in one pytest, with a memory of their own for those that failed."""

    name: str
    paths: Sequence[str]
    options: Sequence[str] = ()
    code: int = 0

    @property
    def command(self) -> list[str]:
        """The command line."""
        cache = f"cache_dir={ROOT / '.pytest_cache' / self.name}"
        paths = [str((TESTS / path).relative_to(ROOT)) for path in self.paths]
        return [sys.executable, "-m", "pytest", "-o", cache, *self.options, *paths]

    def again(self) -> int:
        """Runs the tests that failed once more."""
        return subprocess.run(
            [*self.command, "--last-failed", "--last-failed-no-failures", "none"], cwd=ROOT, check=False
        ).returncode


@dataclass
class Beside:
    """A lane beside the first one: parts one after another. Its output goes into a file.

    ``prefix``: before each command. ``first``: a command that runs before the parts. ``after``: what the part with this
    name waits for.
    """

    parts: Sequence[Part]
    output: IO[bytes]
    prefix: Sequence[str] = ()
    first: Sequence[str] = ()
    after: Mapping[str, threading.Event] = field(default_factory=dict)
    started: threading.Event = field(default_factory=threading.Event)
    first_done: threading.Event = field(default_factory=threading.Event)
    _thread: threading.Thread | None = None
    _process: subprocess.Popen[bytes] | None = None
    _ended: bool = False

    def start(self) -> None:
        """Begins."""
        name = self.parts[0].name
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        if self.first:
            self._call(self.first)
        self.first_done.set()
        for part in self.parts:
            if part.name in self.after:
                self.after[part.name].wait()
            part.code = self._call(part.command)

    def _call(self, command: Sequence[str]) -> int:
        if self._ended:
            return FAILED
        line = [*self.prefix, *command]
        self._process = subprocess.Popen(line, cwd=ROOT, stdout=self.output, stderr=subprocess.STDOUT)
        self.started.set()
        return self._process.wait()

    @property
    def names(self) -> list[str]:
        """The folders and files of its parts."""
        return [path for part in self.parts for path in part.paths]

    def join(self) -> None:
        """Waits for the end, and prints what the lane has printed."""
        assert self._thread is not None
        self._thread.join()
        self.output.seek(0)
        sys.stdout.flush()
        sys.stdout.buffer.write(self.output.read())
        sys.stdout.flush()

    def stop(self) -> None:
        """After an interrupt: ends what runs."""
        self._ended = True
        if self._process is not None and self._process.poll() is None:
            self._process.terminate()
            self._process.wait(30)


def main() -> int:
    """Runs all tests; 0 when each has passed, at the second run at the latest."""
    parser = argparse.ArgumentParser(prog="python -m tests.gate", description="All tests, in three lanes.")
    parser.add_argument("--without-cluster", action="store_true", help="not those on the Kubernetes control plane")
    without = parser.parse_args().without_cluster
    only = ("-m", "not cluster") if without else ()
    slowest = (*only, f"--durations={SLOWEST}")
    lab, waiting = Part(LAB, [LAB], slowest), Part("waiting", others(), slowest)
    cluster = Part(CLUSTER, [CLUSTER], slowest)
    processor = Part("processor", PROCESSOR, (*only, "-o", f"timeout={PATIENCE}"))
    began = time.monotonic()
    with tempfile.TemporaryFile() as first, tempfile.TemporaryFile() as second:
        idle = Beside([processor], second, IDLE, first=() if without else BUILD)
        beside = Beside([waiting, *([] if without else [cluster])], first, after={CLUSTER: idle.first_done})
        try:
            idle.start()
            beside.start()
            names = [*beside.names, *PROCESSOR]
            _say(f"Beside the tests of {LAB}: {', '.join(names)}. Their output comes at the end.")
            lab.code = subprocess.run(lab.command, cwd=ROOT, check=False).returncode
            _say(f"The tests that ran beside these: {', '.join(beside.names)}.")
            beside.join()
            _say("The tests that ran at idle priority:")
            idle.join()
        finally:
            beside.stop()
            idle.stop()
    code = verdict([lab, waiting, cluster, processor])
    minutes = (time.monotonic() - began) / 60
    _say(f"{'All tests have passed' if code == 0 else 'Tests have failed'}, {minutes:.0f} minutes.")
    return code


def others() -> list[str]:
    """What else is below tests/: a folder or file that is new is in the second lane."""
    found = {path.relative_to(TESTS).parts[0] for path in TESTS.glob("**/test_*.py")}
    return sorted(name for name in found if name not in {*PROCESSOR, LAB, CLUSTER})


def verdict(parts: Sequence[Part]) -> int:
    """Exit code of the whole: failed tests run once more, and what fails twice fails."""
    codes = [part.code for part in parts if part.code not in {0, NONE}]
    if not codes:
        return 0
    if any(code != FAILED for code in codes):
        return max(FAILED, *codes)
    _say("THE TESTS ABOVE HAVE FAILED. Once more, each on its own; what fails twice fails.")
    return max(part.again() for part in parts if part.code == FAILED)


def _say(sentence: str) -> None:
    print(f"\n{sentence}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
