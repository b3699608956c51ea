"""The program behind `lab.attempts`: ``knocker.py '{"target": ..., "port": ...}'``. Standard library only.

Opens new TCP connections at a steady rate and records which ones were accepted in time, on one monotonic clock. Prints
``started``, continues until stdin closes or the duration is over, waits for the last attempts, and prints a JSON
report.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import sys
import time
from typing import Any

PORTS = range(32768, 60000)
"""Source ports. Each attempt uses another port until all have been used."""


def open_socket(target: str, number: int) -> socket.socket:
    """A socket with its own source port.

    Linux chooses ports from an offset that changes at random every 10 s. A client with 25 connections per second
    therefore soon reuses the port of a failed attempt. The node that forwarded that attempt keeps it in its connection
    table for 120 s (SYN_SENT), and sends a new SYN from the same port to the same pod, regardless of kube-proxy's
    current rules. These attempts fail because an earlier one did, and show nothing about the rules: see docs/modes.md.
    """
    made = socket.socket(socket.AF_INET6 if ":" in target else socket.AF_INET, socket.SOCK_STREAM)
    made.setblocking(False)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    with contextlib.suppress(OSError):  # the port is in use: the kernel chooses one
        made.bind(("", PORTS[number % len(PORTS)]))
    return made


async def knock(target: str, port: int, limit: float, number: int) -> list[float | None]:
    """[start time, seconds until it was accepted or None, source port]"""
    with open_socket(target, number) as opened:
        begun = time.monotonic()
        try:
            async with asyncio.timeout(limit):
                await asyncio.get_running_loop().sock_connect(opened, (target, port))
        except (OSError, TimeoutError):
            return [begun, None, opened.getsockname()[1]]
        return [begun, time.monotonic() - begun, opened.getsockname()[1]]


async def main(options: dict[str, Any]) -> None:
    loop = asyncio.get_running_loop()
    ended = asyncio.Event()
    loop.add_reader(sys.stdin, ended.set)
    print("started", flush=True)
    interval = float(options["interval"])
    due = loop.time()
    end = due + float(options["duration"])
    number = int(due / interval)  # derived from the time: the next run continues where this one ended
    tasks = []
    while not ended.is_set() and due < end:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(max(0.0, due - loop.time())):
                await ended.wait()
        if not ended.is_set():
            attempt = knock(options["target"], int(options["port"]), float(options["timeout"]), number)
            tasks.append(asyncio.create_task(attempt))
            due += interval
            number += 1
    print(json.dumps([await task for task in tasks]), flush=True)


asyncio.run(main(json.loads(sys.argv[1])))
