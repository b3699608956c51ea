"""The program behind `lab.attempts`: ``knocker.py '{"target": ..., "port": ...}'``. Standard library only.

Opens a new TCP connection at a steady pace and notes which ones were accepted in time, on one monotonic clock. Prints
``started``, goes on until stdin closes or the duration is over, waits for the last ones, prints a JSON report.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
import time
from typing import Any


async def knock(target: str, port: int, limit: float) -> list[float | None]:
    """[when it began, seconds until it was accepted or None]"""
    begun = time.monotonic()
    try:
        async with asyncio.timeout(limit):
            _, writer = await asyncio.open_connection(target, port)
    except (OSError, TimeoutError):
        return [begun, None]
    took = time.monotonic() - begun
    writer.close()
    with contextlib.suppress(OSError):
        await writer.wait_closed()
    return [begun, took]


async def main(options: dict[str, Any]) -> None:
    loop = asyncio.get_running_loop()
    ended = asyncio.Event()
    loop.add_reader(sys.stdin, ended.set)
    print("started", flush=True)
    due = loop.time()
    end = due + float(options["duration"])
    tasks = []
    while not ended.is_set() and due < end:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(max(0.0, due - loop.time())):
                await ended.wait()
        if not ended.is_set():
            attempt = knock(options["target"], int(options["port"]), float(options["timeout"]))
            tasks.append(asyncio.create_task(attempt))
            due += float(options["interval"])
    print(json.dumps([await task for task in tasks]), flush=True)


asyncio.run(main(json.loads(sys.argv[1])))
