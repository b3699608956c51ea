"""Supervises the wire process: starts it again when it dies, tells it the whole wanted set, hands its reports on."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import socket
import sys
import threading
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from porterlb.core import wire_text
from porterlb.core.desired import DesiredWire, Layer2Vip
from porterlb.core.model import Address
from porterlb.core.observed import WireReport
from porterlb.core.persistent import Editor, differing
from porterlb.core.wire_text import WireConfig
from porterlb.settings import Settings

log = logging.getLogger("porterlb.layer2")

BEAT = 1.0
"""Seconds between two beats from the manager's own loop."""
SILENT = 5.0
"""A wire process that has not reported for so long (it does so every second) is ended and started again."""
STALLED = 1.0
"""A timeout that comes so many seconds late says that the manager did not run, and nothing of the wire process."""
START_WITHIN = 30.0
"""Seconds until its first report: a busy machine may take longer than SILENT to start a Python process."""
_FIRST_PAUSE, _LONGEST_PAUSE = 0.1, 5.0
_STEADY = 10.0  # seconds of life after which the pause before a restart is short again
_STOP_WITHIN = 2.0
_LINE = 1 << 22


class WireSilent(Exception):
    """The wire process does not report any longer."""


class Layer2Speaker:
    """The Layer 2 speaker of a manager.

    Args:
        report: called in the loop with each new report, as soon as it is there. All fields are whole, except
            ``answering``: VIPs that changed since the report before (after a restart of the process: all of them).
        settings: of the manager.
        key: of the hellos. It goes through the pipe, never through arguments or the environment.
    """

    def __init__(self, report: Callable[[WireReport], None], *, settings: Settings, key: bytes) -> None:
        self._report = report
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
        )
        self._log = (settings.log_format, settings.log_level)
        self._lock = threading.Lock()
        self._beats: socket.socket | None = None  # of the present process; it hears each byte as a beat
        self._wanted: DesiredWire | None = None
        self._news = asyncio.Event()
        self._last = WireReport()
        self._stopping = asyncio.Event()
        self._process: asyncio.subprocess.Process | None = None
        self._alive = False  # the present process has reported

    @property
    def pid(self) -> int | None:
        """Of the running wire process."""
        return self._process.pid if self._process is not None and self._process.returncode is None else None

    def want(self, wanted: DesiredWire) -> None:
        """The whole wanted set; returns at once. The newest one counts."""
        self._wanted = wanted
        self._news.set()

    def beat(self) -> None:
        """Tells the process that the manager is alive; from any thread. Beats are given by the loop anyway: this is
        for whoever knows that a busy loop is alive."""
        with self._lock, contextlib.suppress(OSError):
            if self._beats is not None:
                self._beats.send(b".")

    async def stop(self) -> None:
        """Hands over: the process tells the others, answers a moment longer, and ends. Then run() returns."""
        self._stopping.set()

    async def run(self) -> None:
        """Until stop(), or until it is cancelled; then the process has ended too."""
        pause, restarts = _FIRST_PAUSE, 0
        loop = asyncio.get_running_loop()
        while not self._stopping.is_set():
            begun = loop.time()
            why = await self._one_life()
            if self._stopping.is_set():
                return
            restarts += 1
            log.warning("the wire process has ended (%s); starting it again in %.1f s", why, pause)
            self._tell(replace(self._last, trouble=f"the wire process has ended: {why}", restarts=restarts, applied=0))
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._stopping.wait(), pause)
            pause = _FIRST_PAUSE if loop.time() - begun > _STEADY else min(2 * pause, _LONGEST_PAUSE)

    async def _one_life(self) -> str:
        """Starts one process and stays with it to its end; says why it ended."""
        ours, theirs = socket.socketpair()
        beats, heard = socket.socketpair()
        argv = (sys.executable, "-m", "porterlb.wire", *self._log, str(heard.fileno()))
        try:
            process = self._process = await asyncio.create_subprocess_exec(
                *argv, stdin=theirs.fileno(), stdout=asyncio.subprocess.DEVNULL, pass_fds=(heard.fileno(),)
            )
        except OSError as error:
            ours.close()
            beats.close()
            return f"it could not be started: {error.strerror or error}"
        finally:
            theirs.close()
            heard.close()
        beats.setblocking(False)
        with self._lock:
            self._beats = beats
        reader, writer = await asyncio.open_connection(sock=ours, limit=_LINE)
        self._alive = False
        writer.write(wire_text.config_line(self._config))
        tasks: set[asyncio.Task[Any]] = {
            asyncio.create_task(self._read(reader), name="wire-reports"),
            asyncio.create_task(self._write(writer), name="wire-wanted"),
            asyncio.create_task(self._keep_beating(), name="wire-beat"),
            asyncio.create_task(self._stopping.wait(), name="wire-stop"),
        }
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            errors = [failure for task in done if (failure := task.exception()) is not None]
            if self._stopping.is_set():
                writer.write(wire_text.STOP)
            elif any(isinstance(failure, WireSilent) for failure in errors):
                process.kill()
            with contextlib.suppress(TimeoutError):
                code = await asyncio.wait_for(process.wait(), _STOP_WITHIN)
                return str(errors[0]) if errors else f"exit code {code}" if code >= 0 else f"signal {-code}"
            process.kill()
            await process.wait()
            return "it did not stop in time"
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            if process.returncode is None:  # cancelled: SIGTERM hands over as the message does
                with contextlib.suppress(ProcessLookupError):
                    process.terminate()
            writer.close()
            with self._lock:
                self._beats = None
                beats.close()

    async def _read(self, reader: asyncio.StreamReader) -> None:
        """Hands reports on until the process closes its end. Raises WireSilent when none comes for too long."""
        loop = asyncio.get_running_loop()
        while True:
            limit = SILENT if self._alive else START_WITHIN
            until = loop.time() + limit
            try:
                async with asyncio.timeout(limit):
                    data = await reader.readline()
            except TimeoutError:
                if loop.time() - until > STALLED:
                    continue  # the manager itself was stopped: the wire process may have reported meanwhile
                raise WireSilent(f"no report for {limit:.0f} s") from None
            if not data:
                return
            changes = wire_text.read_report(json.loads(data))
            changes.setdefault("answering", {})
            if not self._alive:
                self._alive = True
                changes.setdefault("trouble", "")
            self._tell(replace(self._last, **changes))

    async def _write(self, writer: asyncio.StreamWriter) -> None:
        """Brings the process to what is wanted, in pieces; a newer wanted set is taken up between two pieces."""
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
        self._report(report)
