"""Runs jobs in child processes of this one, which share what it has imported."""

from __future__ import annotations

import contextlib
import ctypes
import importlib
import os
import select
import signal
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

Job = Callable[[], int]

INVALID = 3
"""The exit code of a job whose mutation is no valid Python."""

OWN = ("porterlb", "tests", "lab", "bench", "sim")
"""The packages of the tree."""

PR_SET_PDEATHSIG = 1
"""prctl(2): the signal that a child gets when its parent ends."""

LOOK = 0.5
"""Seconds between two looks at the processor time of the jobs."""

PATIENCE = 600.0
"""A job that has waited this many seconds without using the processor has hung."""


def processor_time(pid: int) -> tuple[float, bool]:
    """The processor time that a process has used, in seconds, and whether it could use more now."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()
    except OSError:  # it has ended
        return 0.0, False
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK"), fields[0] == "R"


@dataclass(slots=True)
class Child:
    """A running job. ``log``: the file for its output, which no other running job uses."""

    pid: int
    log: Path
    job: int
    begun: float  # monotonic
    limit: float  # seconds of processor time
    used: float = 0.0  # seconds of processor time
    waits_since: float = 0.0  # monotonic; 0: it does not wait

    def late(self) -> bool:
        """Whether its time is up. On a busy machine it gets little processor time, which does not count as late."""
        before = self.used
        self.used, runnable = processor_time(self.pid)
        now = time.monotonic()
        if runnable or self.used != before:
            self.waits_since = 0.0
        elif not self.waits_since:
            self.waits_since = now
        return self.used > self.limit or (self.waits_since > 0 and now - self.waits_since > PATIENCE)


@dataclass(frozen=True, slots=True)
class Outcome:
    """``code``: the job's exit code, None if the time was up. ``seconds``: wall-clock time. ``said``: the last line of
    its output."""

    job: int
    code: int | None
    seconds: float
    said: str


def jobs(work: list[Job], logs: list[Path], limits: list[float]) -> Iterator[Outcome]:
    """Run each job in a process of its own, as many at a time as there are log files; yields the outcomes.

    ``limits``: seconds of processor time for each job. A job that exceeds its limit or has hung is ended, with the
    processes that it started.
    """
    free, waiting, running = list(logs), list(range(len(work))), list[Child]()
    try:
        while waiting or running:
            while free and waiting:
                job, log = waiting.pop(0), free.pop(0)
                running.append(Child(_start(work[job], log), log, job, time.monotonic(), limits[job]))
            ended = _wait([child.pid for child in running])
            for child in list(running):
                if child.pid not in ended and not child.late():
                    continue
                done, status = os.waitpid(child.pid, os.WNOHANG)
                _end(child.pid, reap=not done)
                running.remove(child)
                free.append(child.log)
                code = os.waitstatus_to_exitcode(status) if done else None
                if code == -signal.SIGPROF:
                    code = None
                lines = child.log.read_text(errors="replace").strip().splitlines()
                seconds = time.monotonic() - child.begun
                yield Outcome(child.job, code, seconds, lines[-1] if lines else "")
    finally:
        for child in running:
            _end(child.pid, reap=True)


def _wait(pids: list[int]) -> set[int]:
    """The processes that have ended, after at most LOOK seconds."""
    files = {os.pidfd_open(pid): pid for pid in pids}
    try:
        return {files[file] for file in select.select(list(files), [], [], LOOK)[0]}
    finally:
        for file in files:
            os.close(file)


def _end(pid: int, *, reap: bool) -> None:
    """The child leads its own process group."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(pid, signal.SIGKILL)
    if reap:
        os.waitpid(pid, 0)


def _start(job: Job, log: Path) -> int:
    sys.stdout.flush()
    pid = os.fork()
    if pid:
        with contextlib.suppress(OSError):
            os.setpgid(pid, pid)
        return pid
    code = 70
    try:
        os.setpgid(0, 0)
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        out = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
        for stream in (1, 2):
            os.dup2(out, stream)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        sys.stdout = sys.stderr = os.fdopen(1, "w", closefd=False)
        code = job()
    finally:
        sys.stdout.flush()
        os._exit(code)


def enter(root: Path) -> None:
    """Make this process import the packages of the tree from ``root``, and anew."""
    os.chdir(root)
    os.environ.update(CI="true", PYTHONPATH=str(root))
    sys.path[:] = [str(root), *(one for one in sys.path if one not in ("", os.environ.get("PWD")))]
    for name in [one for one in sys.modules if one.split(".")[0] in OWN]:
        del sys.modules[name]
    importlib.invalidate_caches()
