"""``python -m tests.gate``: all tests, in three parallel lanes (`make test`).

Most tests wait: for a router, for a timer, for Kubernetes. The lab tests with whole managers are the first lane. The
other tests that wait, and then those on the Kubernetes control plane, are the second. The tests of decisions, chart,
simulator, image and texts need only the processor. They are the third lane, with the scheduling policy SCHED_IDLE
(sched(7)), and get only the remaining processor time. Kubernetes' programs and the images are built first in
that lane.

The first lane's output is shown as it arrives, that of the others at the end. Failed tests run once more when nothing
else runs (docs/decisions/second-look.md).
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
"""The tests below tests/ that need only the processor. None of them measures elapsed time."""
LAB, CLUSTER = "lab", "cluster"
PATIENCE = 1800
"""Seconds for one test of the idle lane, which may get no processor time for a while."""
SLOWEST = 15
"""The number of tests whose durations are printed, for each lane that waits: the first ones to shorten."""
BUILD = [sys.executable, "-m", "tests.cluster.prepare"]
IDLE = ["chrt", "--idle", "0"]
FAILED, NONE = 1, 5
"""Exit codes of pytest: tests failed; no test was collected. Any other code is an error of the run itself."""


@dataclass
class Part:
    """A group of tests that run in one pytest, with a separate memory for the failed ones."""

    name: str
    paths: Sequence[str]
    options: Sequence[str] = ()
    code: int = 0

    @property
    def command(self) -> list[str]:
        """The pytest command line."""
        cache = f"cache_dir={ROOT / '.pytest_cache' / self.name}"
        paths = [str((TESTS / path).relative_to(ROOT)) for path in self.paths]
        return [sys.executable, "-m", "pytest", "-o", cache, *self.options, *paths]

    def again(self) -> int:
        """Runs the failed tests once more."""
        return subprocess.run(
            [*self.command, "--last-failed", "--last-failed-no-failures", "none"], cwd=ROOT, check=False
        ).returncode


@dataclass
class Beside:
    """A lane in parallel to the first one: parts one after another. Its output goes into a file.

    ``prefix``: before each command. ``first``: a command that runs before the parts. ``after``: an event that the part
    with this name waits for.
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
        """Starts the lane."""
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
        """The folders and files of the lane's parts."""
        return [path for part in self.parts for path in part.paths]

    def join(self) -> None:
        """Waits for the end, and prints the lane's output."""
        assert self._thread is not None
        self._thread.join()
        self.output.seek(0)
        sys.stdout.flush()
        sys.stdout.buffer.write(self.output.read())
        sys.stdout.flush()

    def stop(self) -> None:
        """After an interrupt: ends the running process."""
        self._ended = True
        if self._process is not None and self._process.poll() is None:
            self._process.terminate()
            self._process.wait(30)


def main() -> int:
    """Runs all tests; 0 if each has passed, in the first or the second run."""
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
    """All other tests below tests/: a new folder or file is in the second lane."""
    found = {path.relative_to(TESTS).parts[0] for path in TESTS.glob("**/test_*.py")}
    return sorted(name for name in found if name not in {*PROCESSOR, LAB, CLUSTER})


def verdict(parts: Sequence[Part]) -> int:
    """The overall exit code: failed tests run once more, and a test that fails twice fails the run."""
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
