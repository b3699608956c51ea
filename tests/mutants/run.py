"""Runs pytest in child processes, in copies of the tree, and never in the tree itself."""

from __future__ import annotations

import contextlib
import importlib
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

# The packages of the tree: a child imports them from its copy, whatever its parent has loaded.
OWN = ("porterlb", "tests", "lab", "bench", "sim")
PRELOADED = ("hypothesis.strategies", "yaml", "jsonschema", "click", "prometheus_client")
WITHOUT_ROOT = ("-q", "-x", "--assert=plain", "-p", "no:cacheprovider", "-m", "not lab and not cluster")

PATIENCE = 10
"""A job may take this many times longer than on an idle machine."""


def processor_time(pid: int) -> float:
    """The processor time that a process has used, in seconds."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()
    except OSError:  # it has ended
        return 0.0
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def copy_tree(root: Path, to: Path) -> None:
    """The files that git tracks and the new files of the tree, including uncommitted edits."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=root,
        check=True,
        capture_output=True,
    )
    for name in filter(None, listed.stdout.decode().split("\0")):
        if (root / name).is_file():
            (to / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(root / name, to / name)


@dataclass(slots=True)
class Child:
    """A running job of a copy of the tree."""

    pid: int
    copy: Path
    job: int
    begun: float  # monotonic
    limit: float  # seconds of processor time

    @property
    def late(self) -> bool:
        """Whether its time is up. On a busy machine it gets little processor time, which does not count as late."""
        used = processor_time(self.pid)
        return used > self.limit or time.monotonic() - self.begun > PATIENCE * self.limit


@dataclass(frozen=True, slots=True)
class Outcome:
    """``code``: pytest's exit code, None if the time was up. ``seconds``: wall-clock time."""

    job: int
    copy: Path
    code: int | None
    seconds: float


def jobs(work: list[Callable[[Path], int]], copies: list[Path], limits: list[float]) -> Iterator[Outcome]:
    """Run each job in a separate process, one at a time in each copy; yields the outcomes.

    The next job starts in a copy when the caller asks for the next outcome: until then the caller may restore the copy.

    ``limits``: seconds of processor time for each job; the wall-clock limit is PATIENCE times that. A job that exceeds
    a limit is ended, with the processes that it started.
    """
    free, waiting, running = list(copies), list(range(len(work))), list[Child]()
    try:
        while waiting or running:
            while free and waiting:
                job, copy = waiting.pop(0), free.pop(0)
                running.append(Child(_start(work[job], copy), copy, job, time.monotonic(), limits[job]))
            for child in list(running):
                done, status = os.waitpid(child.pid, os.WNOHANG)
                if not done and not child.late:
                    continue
                _end(child.pid, reap=not done)
                running.remove(child)
                free.append(child.copy)
                code = os.waitstatus_to_exitcode(status) if done else None
                yield Outcome(child.job, child.copy, code, time.monotonic() - child.begun)
            time.sleep(0.02)
    finally:
        for child in running:
            _end(child.pid, reap=True)


def _end(pid: int, *, reap: bool) -> None:
    """The child leads its own process group."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(pid, signal.SIGKILL)
    if reap:
        os.waitpid(pid, 0)


def _start(job: Callable[[Path], int], copy: Path) -> int:
    sys.stdout.flush()
    pid = os.fork()
    if pid:
        with contextlib.suppress(OSError):
            os.setpgid(pid, pid)
        return pid
    code = 70
    try:
        os.setpgid(0, 0)
        _enter(copy)
        code = job(copy)
    finally:
        sys.stdout.flush()
        os._exit(code)


def _enter(copy: Path) -> None:
    """Make this process behave as if it was started in the copy."""
    out = os.open(f"{copy}.log", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
    for stream in (1, 2):
        os.dup2(out, stream)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.chdir(copy)
    os.environ.update(CI="true", PYTHONPATH=str(copy), PYTHONDONTWRITEBYTECODE="1")
    sys.dont_write_bytecode = True
    sys.path[:] = [str(copy), *(one for one in sys.path if one not in ("", os.environ.get("PWD")))]
    for name in [one for one in sys.modules if one.split(".")[0] in OWN]:
        del sys.modules[name]
    importlib.invalidate_caches()


def preload() -> None:
    """Import the modules that most tests need once, for all children. Not asyncio: its state belongs to one process."""
    for name in PRELOADED:
        importlib.import_module(name)


def run_tests(files: Iterable[str], *plugins: object, first_failure: bool = True) -> int:
    """Run the tests of these files in this process; pytest's exit code."""
    flags = [one for one in WITHOUT_ROOT if first_failure or one != "-x"]
    return int(pytest.main([*flags, *files], plugins=list(plugins)))
