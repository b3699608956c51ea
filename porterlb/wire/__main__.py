"""``python -m porterlb.wire``: started by the manager, with one end of a stream socket as its standard input."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import gc
import os
import signal
import socket
import sys
from collections.abc import Mapping
from typing import Any

from porterlb import logs
from porterlb.capabilities import Capability, keep_only
from porterlb.core import wire_text
from porterlb.core.ebpf import KERNEL, USER_SPACE
from porterlb.wire.channel import ManagerChannel
from porterlb.wire.kernel_answers import Loader, start_loader
from porterlb.wire.process import WireProcess
from porterlb.wire.templates import Templates

_PR_SET_PDEATHSIG = 1


async def _serve(pipe: socket.socket, beats: socket.socket, requests: socket.socket | None, *, required: bool) -> None:
    loop = asyncio.get_running_loop()
    loader = Loader(requests, required=required, loop=loop) if requests is not None else None
    early: list[Mapping[str, Any]] = []
    config: asyncio.Future[wire_text.WireConfig] = loop.create_future()
    over = asyncio.Event()
    process: WireProcess | None = None

    def take(message: Mapping[str, Any]) -> None:
        if message.get("t") == "config" and not config.done():
            config.set_result(wire_text.read_config(message))
        elif process is None:
            early.append(message)
        else:
            process.take(message)

    def stop() -> None:
        over.set()
        if process is not None:
            process.stop()

    channel = ManagerChannel(pipe, take, stop, loop)
    loop.add_signal_handler(signal.SIGTERM, stop)
    loop.add_signal_handler(signal.SIGINT, stop)

    ending = asyncio.create_task(over.wait())
    first: set[asyncio.Future[Any]] = {config, ending}
    await asyncio.wait(first, return_when=asyncio.FIRST_COMPLETED)
    ending.cancel()
    if over.is_set():
        return
    process = WireProcess(config.result(), channel, Templates(), loop, loader)
    channel.report(applied=0)
    for message in early:
        process.take(message)
    gc.freeze()
    beats.setblocking(False)
    loop.add_reader(beats, _heard, beats, process, loop)
    await process.run()
    channel.close()


def _heard(beats: socket.socket, process: WireProcess, loop: asyncio.AbstractEventLoop) -> None:
    with contextlib.suppress(BlockingIOError):
        if beats.recv(4096):
            process.beat()
        else:
            loop.remove_reader(beats)


def main() -> int:
    answers = sys.argv[3] if len(sys.argv) > 3 else USER_SPACE
    requests = start_loader() if answers != USER_SPACE else None  # it needs capabilities that we give up
    keep_only(Capability.NET_RAW)
    parent = os.getppid()
    # When the manager ends, even if it is killed, we get SIGTERM, so that the other replicas are told.
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != parent:
        return 0
    try:
        log_format, log_level, beat = sys.argv[1], sys.argv[2], int(sys.argv[4])
        pipe, beats = socket.socket(fileno=os.dup(0)), socket.socket(fileno=beat)
    except (IndexError, ValueError, OSError):
        print("porterlb.wire is started by `porterlb manager`, not by hand.", file=sys.stderr)
        return 2
    try:
        logs.set_up(log_format, level=log_level)
        asyncio.run(_serve(pipe, beats, requests, required=answers == KERNEL))
    except (OSError, RuntimeError) as error:
        print(f"porterlb.wire: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
