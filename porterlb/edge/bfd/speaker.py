"""Runs the BFD process while there are sessions: sends it the whole set, and passes its reports on."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from porterlb.child_process import ChildProcess
from porterlb.core.bfd import text
from porterlb.core.bfd.totals import Totals
from porterlb.core.bfd.values import BfdSession, BfdTarget
from porterlb.core.scope import scope_of
from porterlb.interface_address import interface_address
from porterlb.settings import Settings

log = logging.getLogger("porterlb.bfd")

_STOP_WITHIN = 1.0
_LONGEST_LINE = 1 << 20


def _from_interface(target: BfdTarget) -> BfdTarget:
    """Towards a link-local address, the kernel uses the link-local address of its interface: the one that the router
    knows."""
    if not target.interface:
        return target
    source = None if scope_of(target.address) else interface_address(target.interface, target.address.version)
    return replace(target, local_address=source, interface="")


class BfdSpeaker:
    """The BFD sessions of a manager. Without any wanted session there is no process.

    Args:
        report: called in the event loop with all sessions, by peer name, at each change.
        settings: the manager's settings.
    """

    def __init__(self, report: Callable[[Mapping[str, BfdSession]], None], *, settings: Settings) -> None:
        self._report = report
        self._process = ChildProcess(
            "porterlb.bfd",
            (settings.log_format, str(settings.silence_after)),
            self._heard,
            goodbye=text.STOP,
            stop_within=_STOP_WITHIN,
            longest=_LONGEST_LINE,
        )
        self._wanted: Mapping[str, BfdTarget] = {}
        self._news = asyncio.Event()
        self._none_wanted = asyncio.Event()
        self._none_wanted.set()
        self._totals = Totals()
        self._last: Mapping[str, BfdSession] = {}
        self._stopping = False
        self._ended = asyncio.Event()
        self._ended.set()  # until a process runs

    @property
    def pid(self) -> int | None:
        """The process ID of the running process."""
        return self._process.pid

    def want(self, targets: Mapping[str, BfdTarget]) -> None:
        """The whole wanted set, by peer name; returns at once."""
        wanted = {name: _from_interface(target) for name, target in targets.items()}
        if wanted != self._wanted:
            self._wanted = wanted
            self._changed()

    def beat(self) -> None:
        """Tells the process that the manager and ExaBGP are alive; callable from any thread. Without a beat for
        silence_after, the process sends the routers AdminDown."""
        self._process.beat()

    async def stop(self) -> None:
        """Sends the routers AdminDown and ends the process."""
        self._stopping = True
        self._changed()
        await self._ended.wait()

    async def run(self) -> None:
        """Runs until cancelled; then the process has ended too."""
        while True:
            if self._none_wanted.is_set():
                self._tell({})
                self._news.clear()
                await self._news.wait()
                continue
            self._ended.clear()
            try:
                why, pause = await self._process.live(self._write, self._none_wanted)
            finally:
                self._ended.set()
            if not why:
                continue
            log.warning("the BFD process has ended (%s); starting it again in %.1f s", why, pause)
            self._tell(self._totals.ended(self._wanted, why))
            await asyncio.sleep(pause)

    def _changed(self) -> None:
        if self._wanted and not self._stopping:
            self._none_wanted.clear()
        else:
            self._none_wanted.set()
        self._news.set()

    async def _write(self, writer: asyncio.StreamWriter) -> None:
        """Sends the process the wanted set at each change."""
        while True:
            self._news.clear()
            writer.write(text.want_line(self._wanted.values()))
            await writer.drain()
            await self._news.wait()

    def _heard(self, message: Any) -> None:
        self._tell(self._totals.heard(text.read_report(message).sessions))

    def _tell(self, sessions: Mapping[str, BfdSession]) -> None:
        if sessions != self._last:
            self._last = sessions
            self._report(sessions)
