"""Established TCP connections to VIPs with constant traffic, and their final states.

Run as a program, this module is the client: it opens one connection to the echo service of each target, and reports
when all are open. Every interval, it sends a byte on each. When its standard input ends, it prints their states.
"""

from __future__ import annotations

import json
import select
import socket
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lab.host import Host
from lab.netns import LabError
from lab.process import Process

ROOT = Path(__file__).resolve().parent.parent
ECHO_PORT = 7
ALIVE, RESET, SILENT = "alive", "reset", "silent"


class Connections:
    """One connection to each of ``targets`` (which may repeat), until :meth:`report` or the end of the ``with`` block.

    ``patience``: seconds without an answer until a connection counts as silent.
    """

    def __init__(
        self, host: Host, targets: list[str], *, interval: float = 0.05, patience: float = 1.5, duration: float = 120.0
    ) -> None:
        options = {"targets": targets, "interval": interval, "patience": patience, "duration": duration}
        self.process: Process = host.start(
            "connections", [sys.executable, "-m", "lab.connections", json.dumps(options)], pipes=True, cwd=ROOT
        )
        self._line(20.0)  # all are open

    def __enter__(self) -> Connections:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.close()

    def report(self) -> list[tuple[str, str]]:
        """Ends the connections. Returns for each its target, and alive, reset or silent."""
        assert self.process.popen.stdin is not None
        self.process.popen.stdin.close()
        found = json.loads(self._line(20.0))
        self.process.wait(10.0)
        return [(target, state) for target, state in found]

    def _line(self, timeout: float) -> bytes:
        out = self.process.popen.stdout
        assert out is not None
        if not select.select([out], [], [], timeout)[0]:
            raise LabError(f"the connections did not answer within {timeout} s; log: {self.process.log}")
        line = out.readline()
        if not line:
            raise LabError(f"the connections have died: {self.process.output()[-1000:]}")
        return line


def _client(options: Mapping[str, Any]) -> None:
    targets = options["targets"]
    opened = [socket.create_connection((target, ECHO_PORT), timeout=10.0) for target in targets]
    for connection in opened:
        connection.setblocking(False)
    state = [ALIVE] * len(opened)
    heard = [time.monotonic()] * len(opened)
    print("open", flush=True)
    until = time.monotonic() + options["duration"]
    while time.monotonic() < until and not select.select([sys.stdin], [], [], options["interval"])[0]:
        for at, connection in enumerate(opened):
            if state[at] == RESET:
                continue
            try:
                connection.send(b"x")
                if connection.recv(4096):
                    heard[at] = time.monotonic()
                else:
                    state[at] = RESET
            except BlockingIOError:
                pass
            except OSError:
                state[at] = RESET
    now = time.monotonic()
    for at, last in enumerate(heard):
        if state[at] == ALIVE and now - last > options["patience"]:
            state[at] = SILENT
    print(json.dumps(list(zip(targets, state, strict=True))), flush=True)


if __name__ == "__main__":
    _client(json.loads(sys.argv[1]))
