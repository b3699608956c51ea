"""A program of the control plane: a process of the lab that can be awaited, and restarted after its end."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from pathlib import Path
from signal import Signals

from lab.netns import Namespace
from lab.process import Process

START_LIMIT = 120.0
"""Limit, in seconds, for a program to become ready. It takes 1 to 5 s on an idle machine; the limit is for a busy
one."""


class PlaneError(Exception):
    """The control plane failed to do the requested operation. The message has the tail of the log concerned."""


class Program:
    """One program. `start()` and `stop()` can be repeated. It ends with the test run."""

    def __init__(
        self,
        name: str,
        argv: Iterable[object],
        log: Path,
        namespace: Namespace | None = None,
        cwd: Path | None = None,
    ) -> None:
        """`namespace` is the network namespace to run in; None is this process's own. Output is appended to `log`."""
        self.name = name
        self.log = log
        self._argv = [str(word) for word in argv]
        self._namespace = namespace
        self._cwd = cwd
        self._process: Process | None = None

    @property
    def pid(self) -> int:
        """The process ID. Raises PlaneError when the program is not running."""
        self.check()
        assert self._process is not None
        return self._process.pid

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.alive

    def start(self) -> None:
        """Starts the program. Does nothing if it is running."""
        if not self.running:
            self._process = Process(self.name, self._namespace, self._argv, self.log, cwd=self._cwd)

    def send(self, number: Signals) -> None:
        """Sends a signal. Does nothing if the program is not running."""
        if self._process is not None:
            self._process.signal(number)

    def stop(self) -> None:
        """Kills the program (SIGKILL) and waits for its end. May be called twice."""
        if self._process is not None:
            self._process.close()
            self._process = None

    def check(self) -> None:
        """Raises PlaneError, with the tail of the log, if the program is not running."""
        if not self.running:
            how = "not started" if self._process is None else f"exit code {self._process.returncode}"
            raise PlaneError(f"{self.name} is not running ({how}).\n{self.tail()}")

    def wait_until(self, condition: Callable[[], bool], limit: float = START_LIMIT) -> None:
        """Returns once `condition()` is true.

        Raises PlaneError when the program ends first, or when `limit` seconds have passed.
        """
        deadline = time.monotonic() + limit
        while not condition():
            self.check()
            if time.monotonic() > deadline:
                raise PlaneError(f"{self.name} is not ready after {limit:.0f} s.\n{self.tail()}")
            time.sleep(0.05)

    def tail(self, lines: int = 25) -> str:
        """The last lines of the log, with its path."""
        text = self.log.read_text(errors="replace").splitlines()[-lines:] if self.log.exists() else []
        return "\n".join([f"--- {self.log}", *text])
