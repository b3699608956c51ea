"""New TCP connections to a VIP at a steady rate, and the failed ones: the view of a client without a connection."""

from __future__ import annotations

import json
import select
import sys
from dataclasses import dataclass
from pathlib import Path

from lab.host import Host
from lab.netns import LabError
from lab.process import Process

KNOCKER = Path(__file__).with_name("knocker.py")


@dataclass(frozen=True)
class Attempts:
    """`failed`: the start time of each failed attempt (``time.monotonic()``); the others were accepted in time."""

    count: int
    failed: tuple[float, ...]

    def since(self, moment: float) -> str:
        """A description: the number of failed attempts, and the time after `moment` until which they failed (the start
        of the last failed attempt; the last few are listed individually)."""
        when = sorted(begun - moment for begun in self.failed)
        until = f", until {when[-1]:.2f} s after it ({', '.join(f'{at:.2f}' for at in when[-8:])})" if when else ""
        return f"{len(self.failed)} of {self.count} new connections failed{until}"

    def last(self, moment: float) -> float:
        """Seconds from `moment` to the start of the last failed attempt; 0 if none failed."""
        return max((begun - moment for begun in self.failed), default=0.0)


class Knocking:
    """The running attempts. Use it as a context manager, and request the `report` before the block ends."""

    def __init__(self, host: Host, vip: str, port: int, interval: float, timeout: float, duration: float) -> None:
        self._timeout = timeout
        options = {"target": vip, "port": port, "interval": interval, "timeout": timeout, "duration": duration}
        argv = [sys.executable, "-I", "-S", str(KNOCKER), json.dumps(options)]
        self.process: Process = host.start("knocker", argv, pipes=True)
        self._line(10.0)  # "started"

    def __enter__(self) -> Knocking:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.close()

    def report(self) -> Attempts:
        """Ends the attempts, waits for the last ones, and returns the result."""
        assert self.process.popen.stdin is not None
        self.process.popen.stdin.close()
        found = json.loads(self._line(self._timeout + 20.0))
        return Attempts(len(found), tuple(begun for begun, took, _ in found if took is None))

    def _line(self, timeout: float) -> bytes:
        out = self.process.popen.stdout
        assert out is not None
        if not select.select([out], [], [], timeout)[0]:
            raise LabError(f"the attempts did not answer within {timeout} s; log: {self.process.log}")
        line = out.readline()
        if not line:
            raise LabError(f"the attempts have died: {self.process.output()[-1000:]}")
        return line
