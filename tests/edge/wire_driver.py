"""A minimal manager for the tests of wire: the real Layer2Speaker in a namespace, controlled through pipes.

Standard input: one pickled (base64) DesiredWire per line, or ``stop``. Standard output: one pickled (monotonic time,
WireReport) per line for each report; nothing else is printed there.
"""

from __future__ import annotations

import asyncio
import base64
import pickle
import sys
import time
from collections.abc import Callable
from typing import Any

from porterlb.core.observed import WireReport
from porterlb.edge.layer2 import Layer2Speaker
from porterlb.settings import Settings


def pack(value: object) -> bytes:
    return base64.b64encode(pickle.dumps(value)) + b"\n"


def unpack(line: bytes) -> Any:
    return pickle.loads(base64.b64decode(line))


def say(report: WireReport) -> None:
    sys.stdout.buffer.write(pack((time.monotonic(), report)))
    sys.stdout.buffer.flush()


async def main(settings: Settings, key: bytes, tell: Callable[[WireReport], None]) -> None:
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader(limit=1 << 26)
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    speaker = Layer2Speaker(tell, settings=settings, key=key)
    running = asyncio.create_task(speaker.run())
    while line := await reader.readline():
        if line == b"stop\n":
            break
        speaker.want(unpack(line))
    await speaker.stop()
    await running


if __name__ == "__main__":
    values, secret = unpack(sys.argv[1].encode())
    asyncio.run(main(Settings(**values), secret, say))
