"""What edge/bgp uses of the operating system: the ExaBGP process, its files, its pipes. The rest is production code.

In a site without routers, a simpler speaker applies each set at once.
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Callable
from typing import Any

import porterlb.app
import porterlb.edge.bgp.channel
import porterlb.edge.bgp.process
import porterlb.edge.bgp.run
import porterlb.edge.bgp.speaker
import porterlb.edge.bgp.speaker_state
from porterlb.core import exabgp_text as text
from porterlb.core.bgp.config import Local
from porterlb.core.desired import DesiredBgp
from porterlb.core.observed import BgpReport
from porterlb.edge.bgp import BgpSpeaker
from porterlb.edge.bgp.channel import ExabgpChannel
from porterlb.edge.bgp.process import Log
from sim.child import Child
from sim.clock import Stand
from sim.exabgp import Exabgp
from sim.sockets import Stream, world_streams
from sim.world import Process


class Speaker:
    """Applies each set at once; there are no sessions."""

    def __init__(self, report: Callable[[BgpReport], None], **more: Any) -> None:
        self._report = report
        self._wanted: asyncio.Event = asyncio.Event()
        self._token = 0

    def want(self, wanted: DesiredBgp, token: int) -> None:
        self._token = token
        self._wanted.set()

    running = True

    def hear_bfd(self, sessions: object) -> None: ...

    def beat(self) -> None: ...

    async def stop(self, *, withdraw: bool) -> None: ...

    async def run(self) -> None:
        while True:
            await self._wanted.wait()
            self._wanted.clear()
            await asyncio.sleep(0.02)
            self._report(BgpReport(applied=self._token))


class File:
    """A path in the run directory of a speaker; its files are values."""

    def __init__(self, files: dict[str, Any], name: str = "") -> None:
        self.files, self.name = files, name

    def __truediv__(self, name: str) -> File:
        return File(self.files, name)

    def mkdir(self, *arguments: Any, **more: Any) -> None: ...
    def chmod(self, mode: int) -> None: ...

    def resolve(self) -> File:
        return self

    def unlink(self, *, missing_ok: bool) -> None:
        self.files.pop(self.name, None)

    def replace(self, to: File) -> None:
        self.files[to.name] = self.files.pop(self.name)


_OPENED: dict[int, File] = {}
"""Folders by the number of their descriptor."""


def _open(folder: File, flags: int) -> int:
    number = id(folder.files)
    _OPENED[number] = folder
    return number


def _close(number: int) -> None:
    _OPENED.pop(number, None)


class Listener:
    """The socket that the API process connects to. ``process``: the manager's."""

    def __init__(self, process: Process) -> None:
        self.process = process
        self.closed = False
        self.queue: asyncio.Queue[tuple[Stream, Stream]] = asyncio.Queue()

    def bind(self, path: str) -> None:
        """``path``: ``/proc/self/fd/NUMBER/NAME``."""
        _OPENED[int(path.split("/")[4])].files["listener"] = self

    def listen(self, backlog: int) -> None: ...
    def setblocking(self, flag: bool) -> None: ...

    def arrived(self, link: Stream, pipe: Stream) -> None:
        """In the manager: an API process has connected."""
        self.queue.put_nowait((link, pipe))

    def close(self) -> None:
        self.closed = True


class _Channel(ExabgpChannel):
    """The production channel, with another way to get the descriptors."""

    @classmethod
    async def accept(cls, listener: Any, hear: Callable[[text.Said], None]) -> ExabgpChannel:
        link, pipe = await listener.queue.get()
        return cls(link, pipe.number, pipe.number, hear)


class _Log(Log):
    """ExaBGP's log: in memory only."""

    def _open(self) -> int:
        return -1


class _Stderr:
    """Ends with the process."""

    def __init__(self, child: Child) -> None:
        self._child = child

    async def readline(self) -> bytes:
        await self._child.wait()
        return b""


class _Exabgp(Child):
    """The child process, for :class:`porterlb.edge.bgp.process.Exabgp`."""

    def __init__(self, parent: Process, process: Process) -> None:
        super().__init__(parent, process)
        self.stderr = _Stderr(self)


class _Validation:
    """``exabgp validate``: accepts every file."""

    returncode = 0

    async def communicate(self) -> tuple[bytes, bytes]:
        await asyncio.sleep(0.3)
        return b"", b""


def install(host: Any) -> None:
    """Replaces names in edge/bgp. ``host``: knows the site and the calling process."""

    async def spawn(manager: int, verb: str, configuration: File) -> Any:
        if verb == "validate":
            return _Validation()
        parent: Process = host.process()
        world, site = parent.world, host.site
        process = Process(world, f"{parent.node}/exabgp", parent.node, parent.clock)
        parent.children.append(process)
        exabgp = Exabgp(process, site, configuration.files["listener"], configuration.files)
        site.exabgps[parent.node] = exabgp
        world.say(process.name, "is started")
        process.on_end.append(lambda: world.say(process.name, f"has ended (code {process.code})"))
        world.after(0.3 + 0.4 * parent.random.random(), exabgp.start, process=process)
        return _Exabgp(parent, process)

    def stream(number: int) -> Stream:
        found = world_streams(host.site.world).get(number)
        if found is None:
            raise OSError(9, "Bad file descriptor")
        return found

    def listen(family: int) -> Listener:
        return Listener(host.process())

    def speaker(report: Callable[[BgpReport], None], *, run_dir: Any, **more: Any) -> Any:
        if not host.site.routers:
            return Speaker(report)
        files: Any = File({})
        return BgpSpeaker(report, run_dir=files, **more)

    run: Any = porterlb.edge.bgp.run
    run.socket = Stand(socket, socket=listen)
    run.os = Stand(os, open=_open, close=_close)
    run.ExabgpChannel = _Channel
    run.content = lambda config, run_dir, silence_after: (config, silence_after)
    run.write = lambda content, path: path.files.__setitem__(path.name, content)
    process: Any = porterlb.edge.bgp.process
    process._spawn = spawn
    channel: Any = porterlb.edge.bgp.channel
    channel.os = Stand(
        os,
        read=lambda number, size: stream(number).recv(size),
        write=lambda number, data: stream(number).send(data),
        close=lambda number: stream(number).close(),
        set_blocking=lambda number, flag: None,
    )
    speakers: Any = porterlb.edge.bgp.speaker
    speakers.Log = _Log
    states: Any = porterlb.edge.bgp.speaker_state
    states.look = lambda desired, loaded: Local()
    app: Any = porterlb.app
    app.BgpSpeaker = speaker
