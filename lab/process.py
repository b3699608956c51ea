"""A process of the lab: started in a namespace, with a log file, ended by its PID. It never outlives the lab.

The kernel kills it when the lab's process dies (PR_SET_PDEATHSIG). That signal is bound to the *thread* that started
the child. Therefore, one thread that lives as long as this process starts all of them.
"""

from __future__ import annotations

import contextlib
import os
import queue
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from lab import netns
from lab.netns import LabError, Namespace

PopenBytes = subprocess.Popen[bytes]
_Job = tuple[Callable[[], PopenBytes], Namespace | None, "queue.SimpleQueue[PopenBytes | BaseException]"]

_jobs: queue.SimpleQueue[_Job] = queue.SimpleQueue()
_lock = threading.Lock()
_thread: threading.Thread | None = None


def _serve_jobs() -> None:
    home = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    while True:
        job, namespace, answer = _jobs.get()
        try:
            if namespace is not None:
                netns.enter(namespace.path)
            answer.put(job())
        except BaseException as error:
            answer.put(error)
        finally:
            netns.enter(Path(f"/proc/thread-self/fd/{home}"))


def _on_starter_thread(job: Callable[[], PopenBytes], namespace: Namespace | None) -> PopenBytes:
    global _thread  # noqa: PLW0603 - one starter thread for the whole process, made when first needed
    with _lock:
        if _thread is None or not _thread.is_alive():
            _thread = threading.Thread(target=_serve_jobs, name="lab-starter", daemon=True)
            _thread.start()
    answer: queue.SimpleQueue[PopenBytes | BaseException] = queue.SimpleQueue()
    _jobs.put((job, namespace, answer))
    result = answer.get()
    if isinstance(result, BaseException):
        raise result
    return result


class Process:
    """A running command. Its output goes to `log`; with `pipes`, stdin and stdout are pipes instead.

    Args:
        namespace: the namespace to run in; None for the namespace of the lab's own process.
        argv: the command.
        log: file for stdout and stderr, opened for appending.
        env: additions to this process's environment.
    """

    def __init__(
        self,
        name: str,
        namespace: Namespace | None,
        argv: list[str],
        log: Path,
        *,
        env: Mapping[str, str] | None = None,
        pipes: bool = False,
        cwd: Path | None = None,
    ) -> None:
        self.name = name
        self.argv = argv
        self.log = log
        self.namespace = namespace
        log.parent.mkdir(parents=True, exist_ok=True)
        full = ["setpriv", "--pdeathsig", "KILL", "--", *argv]

        def start() -> PopenBytes:
            with log.open("ab") as output:
                return subprocess.Popen(
                    full,
                    stdin=subprocess.PIPE if pipes else subprocess.DEVNULL,
                    stdout=subprocess.PIPE if pipes else output,
                    stderr=output,
                    env={**os.environ, **(env or {})},
                    cwd=cwd,
                    start_new_session=True,  # ctrl-C in a terminal reaches the lab, which ends them in order
                )

        self.popen = _on_starter_thread(start, namespace)
        self.pid = self.popen.pid

    def __repr__(self) -> str:
        return f"Process({self.name}, pid {self.pid})"

    @property
    def alive(self) -> bool:
        return self.popen.poll() is None

    @property
    def returncode(self) -> int | None:
        """Exit code; negative: the signal that ended the process; None: it is running."""
        return self.popen.poll()

    def output(self) -> str:
        """The current contents of its log file."""
        return self.log.read_text(errors="replace") if self.log.exists() else ""

    def signal(self, number: int) -> None:
        if self.alive:
            self.popen.send_signal(number)

    def kill(self) -> None:
        """Sends SIGKILL, and waits until the process has ended."""
        self.signal(signal.SIGKILL)
        self.wait(10.0)

    def stop(self) -> None:
        """SIGSTOP: the process exists, but does not run. Its children continue; see `descendants`."""
        self.signal(signal.SIGSTOP)

    def cont(self) -> None:
        """SIGCONT: the process continues after `stop`."""
        self.signal(signal.SIGCONT)

    def terminate(self, timeout: float = 10.0) -> int:
        """Sends SIGTERM, and waits. Returns the exit code. A process that does not end within `timeout` seconds is
        killed: LabError.

        A stopped process is continued, as systemd does; otherwise, it could not handle the signal.
        """
        self.signal(signal.SIGTERM)
        self.signal(signal.SIGCONT)
        try:
            return self.wait(timeout)
        except LabError:
            self.kill()
            raise

    def wait(self, timeout: float) -> int:
        """Exit code. Raises LabError if the process still runs after `timeout` seconds."""
        try:
            return self.popen.wait(timeout)
        except subprocess.TimeoutExpired:
            raise LabError(f"{self.name} (pid {self.pid}) still runs after {timeout} s; log: {self.log}") from None

    def close(self) -> None:
        """Kills the process and closes the pipes. The lab calls this at its end."""
        self.signal(signal.SIGKILL)
        with contextlib.suppress(LabError):
            self.wait(10.0)
        for pipe in (self.popen.stdin, self.popen.stdout):
            if pipe is not None:
                with contextlib.suppress(OSError):
                    pipe.close()

    def descendants(self) -> list[tuple[int, str]]:
        """(PID, command line) of its children and their descendants, e.g. the speakers of a manager."""
        return descendants(self.pid)

    def find(self, text: str) -> int:
        """The PID of the first descendant whose command line contains `text`. Raises LabError if there is none."""
        family = self.descendants()
        for pid, command in family:
            if text in command:
                return pid
        raise LabError(f"{self.name} has no child with {text!r} in its command line, only {family}")


def descendants(pid: int) -> list[tuple[int, str]]:
    """(PID, command line) of all live descendants of `pid`, parents first."""
    found: list[tuple[int, str]] = []
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        with contextlib.suppress(OSError):
            for child in task.read_text().split():
                command = Path(f"/proc/{child}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
                found.append((int(child), command.strip()))
                found.extend(descendants(int(child)))
    return found


def kill_in_namespaces(names: list[str], patience: float = 5.0) -> None:
    """Sends SIGKILL to all processes in these namespaces, until none is left (children may be started in the
    meantime)."""
    deadline = time.monotonic() + patience
    while pids := netns.processes_in(names):
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        if time.monotonic() > deadline:
            raise LabError(f"processes {pids} in {names} do not die")
        time.sleep(0.002)
