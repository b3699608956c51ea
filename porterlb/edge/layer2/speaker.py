"""Runs the wire process: sends it the whole wanted set, and passes its reports on."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Any

from porterlb.child_process import ChildProcess
from porterlb.core import wire_text
from porterlb.core.desired import DesiredWire, Layer2Vip
from porterlb.core.layer2.inquiry import Outcome
from porterlb.core.model import Address
from porterlb.core.observed import WireReport
from porterlb.core.persistent import Editor, differing
from porterlb.core.wire_text import WireConfig
from porterlb.settings import Settings

log = logging.getLogger("porterlb.layer2")

BEAT = 1.0
"""Seconds between two beats from the manager's own loop."""
_STOP_WITHIN = 2.0
_LONGEST_LINE = 1 << 22


class Layer2Speaker:
    """The Layer 2 speaker of a manager.

    Args:
        report: called in the event loop with each new report as soon as it arrives. All fields are complete, except
            ``answering``: the VIPs that have changed since the last report (after a restart of the process: all VIPs).
        settings: the manager's settings.
        key: the key of the hellos. It is passed through the pipe, never in arguments or the environment.
        recorded: called with new lines of the process's recording, if the whole run is recorded.
    """

    def __init__(
        self,
        report: Callable[[WireReport], None],
        *,
        settings: Settings,
        key: bytes,
        recorded: Callable[[list[str]], None] | None = None,
    ) -> None:
        self._report = report
        self._recorded = recorded
        self._config = WireConfig(
            node=settings.node,
            key=key,
            hello_address=settings.hello_address,
            hello_port=settings.hello_port,
            hello_interval=settings.hello_interval,
            hello_fresh=settings.hello_fresh,
            probe_interval=settings.probe_interval,
            probe_misses=settings.probe_misses,
            gratuitous_rate=settings.gratuitous_rate,
            silence_after=settings.silence_after,
            record_ring=settings.record_ring,
            record_stream=recorded is not None and bool(settings.record),
        )
        self._process = ChildProcess(
            "porterlb.wire",
            (settings.log_format, settings.log_level, settings.answers),
            self._heard,
            goodbye=wire_text.STOP,
            stop_within=_STOP_WITHIN,
            longest=_LONGEST_LINE,
        )
        self._wanted: DesiredWire | None = None
        self._news = asyncio.Event()
        self._last = WireReport()
        self._ever_heard: frozenset[str] = frozenset()  # nodes whose replica any process of ours has heard
        self._stopping = asyncio.Event()
        self._alive = False  # whether the current process has reported
        self._writer: asyncio.StreamWriter | None = None  # to the current process
        self._asked: asyncio.Future[list[str]] | None = None  # for its recording
        self._pieces: list[str] = []
        self._asking = asyncio.Lock()
        self._inquiries = 0
        self._outcomes: asyncio.Future[list[Outcome]] | None = None  # of the latest inquiry
        self._part = ""  # the incomplete last line of the stream

    @property
    def pid(self) -> int | None:
        """The process ID of the running wire process."""
        return self._process.pid

    def want(self, wanted: DesiredWire) -> None:
        """The whole wanted set; returns at once. The newest one counts."""
        self._wanted = wanted
        self._news.set()

    def beat(self) -> None:
        """Tells the process that the manager is alive; callable from any thread. The event loop also beats: this is for
        callers that know that a busy loop is alive."""
        self._process.beat()

    async def recording(self, within: float) -> list[str]:
        """What the process has recorded in memory, as lines of JSON; empty while there is no process. Raises
        TimeoutError after ``within`` seconds, or when the process ends meanwhile."""
        if self._writer is None:
            return []
        if self._asked is None or self._asked.done():
            self._pieces = []
            self._asked = asyncio.get_running_loop().create_future()
            self._writer.write(wire_text.RECORD)
        async with asyncio.timeout(within):
            return await asyncio.shield(self._asked)

    async def ask(self, addresses: Iterable[Address], within: float) -> list[Outcome]:
        """Asks the segment which hosts answer for these VIPs. One inquiry at a time; others wait. Raises TimeoutError
        after ``within`` seconds, or if there is no process."""
        async with asyncio.timeout(within), self._asking:
            if self._writer is None:
                raise TimeoutError("the wire process does not run")
            self._inquiries += 1
            self._outcomes = asyncio.get_running_loop().create_future()
            self._writer.write(wire_text.ask_line(self._inquiries, addresses))
            return await self._outcomes

    def _take_answers(self, message: Mapping[str, Any]) -> None:
        if message["number"] == self._inquiries and self._outcomes is not None and not self._outcomes.done():
            self._outcomes.set_result(wire_text.read_answers(message))

    def _take_recorded(self, message: Mapping[str, Any]) -> None:
        """A piece of what :meth:`recording` asked for."""
        self._pieces.append(message["text"])
        if message["last"] and self._asked is not None and not self._asked.done():
            self._asked.set_result("".join(self._pieces).splitlines())

    def _take_streamed(self, text: str) -> None:
        *whole, self._part = (self._part + text).split("\n")
        if self._recorded is not None and whole:
            self._recorded(whole)

    def _forget_recording(self) -> None:
        """The process has ended."""
        self._writer, self._part = None, ""
        if self._outcomes is not None and not self._outcomes.done():
            self._outcomes.set_exception(TimeoutError("the wire process has ended"))
        if self._asked is not None and not self._asked.done():
            self._asked.set_exception(TimeoutError("the wire process has ended"))
            self._asked.exception()  # possibly no caller waits any longer

    async def stop(self) -> None:
        """Hands over: the process tells the other replicas, answers a moment longer, and ends. Then run() returns."""
        self._stopping.set()

    async def run(self) -> None:
        """Runs until stop() or until cancelled; then the process has ended too."""
        beating = asyncio.create_task(self._keep_beating(), name="wire-beat")
        try:
            await self._keep_running()
        finally:
            beating.cancel()

    async def _keep_running(self) -> None:
        restarts = 0
        while not self._stopping.is_set():
            why, pause = await self._process.live(self._write, self._stopping)
            self._forget_recording()
            if self._stopping.is_set():
                return
            restarts += 1
            log.warning("the wire process has ended (%s); starting it again in %.1f s", why, pause)
            self._tell(replace(self._last, trouble=f"the wire process has ended: {why}", restarts=restarts, applied=0))
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._stopping.wait(), pause)

    def _heard(self, message: Any) -> None:
        if message["t"] == "recorded":
            self._take_recorded(message)
            return
        if message["t"] == "streamed":
            self._take_streamed(message["text"])
            return
        if message["t"] == "answers":
            self._take_answers(message)
            return
        changes = wire_text.read_report(message)
        changes.setdefault("answering", {})
        if not self._alive:
            self._alive = True
            changes.setdefault("trouble", "")
        self._tell(replace(self._last, **changes))

    async def _write(self, writer: asyncio.StreamWriter) -> None:
        """Sends the process the wanted set, in pieces; switches to a newer wanted set between two pieces."""
        self._alive = False
        self._writer = writer
        writer.write(wire_text.config_line(replace(self._config, heard=tuple(sorted(self._ever_heard)))))
        sent: Editor[Address, Layer2Vip] = Editor()
        state = b""
        seen: DesiredWire | None = None
        applied: int | None = None
        while True:
            if self._wanted is None or self._wanted is seen:
                self._news.clear()
                await self._news.wait()
                continue
            wanted = seen = self._wanted
            line = wire_text.state_line(wanted)
            if line != state:
                writer.write(line)
                state = line
            different = differing(sent.frozen(), wanted.vips)
            gone = [address for address in different if address not in wanted.vips]
            changed = [wanted.vips[address] for address in different if address in wanted.vips]
            while (gone or changed) and self._wanted is wanted:
                piece, gone = gone[: wire_text.PIECE], gone[wire_text.PIECE :]
                room = wire_text.PIECE - len(piece)
                news, changed = changed[:room], changed[room:]
                writer.write(wire_text.vips_line(news, piece))
                applied = None  # the digest may be the same: it does not contain the interface of a VIP
                for address in piece:
                    del sent[address]
                sent.update((vip.address, vip) for vip in news)
                await writer.drain()
                await asyncio.sleep(0)
            if self._wanted is wanted and applied != wanted.digest:
                applied = wanted.digest
                writer.write(wire_text.applied_line(applied))
            await writer.drain()

    async def _keep_beating(self) -> None:
        while True:
            self.beat()
            await asyncio.sleep(BEAT)

    def _tell(self, report: WireReport) -> None:
        self._last = report
        self._ever_heard |= report.fresh.keys()
        self._report(report)
