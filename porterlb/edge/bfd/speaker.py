"""Supervises the BFD process: runs it while there are sessions, tells it the whole set, hands its reports on."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import socket
import sys
import threading
from collections.abc import Callable, Mapping

from porterlb.core.bfd import text
from porterlb.core.bfd.totals import Totals
from porterlb.core.bfd.values import BfdSession, BfdTarget
from porterlb.settings import Settings

log = logging.getLogger("porterlb.bfd")

SILENT = 5.0
"""A BFD process that has not reported for so long (it does so every second) is ended and started again."""
ONCE_MORE = 1.5
"""Seconds that it gets after that: after a stall of the manager, a report comes at once."""
START_WITHIN = 30.0
"""Seconds until its first report: a busy machine may take longer than SILENT to start a Python process."""
_FIRST_PAUSE, _LONGEST_PAUSE = 0.1, 5.0
_STEADY = 10.0  # seconds of life after which the pause before a restart is short again
_STOP_WITHIN = 1.0
_LINE = 1 << 20


async def _end(process: asyncio.subprocess.Process) -> None:
    with contextlib.suppress(ProcessLookupError):
        process.terminate()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(process.wait(), _STOP_WITHIN)
            return
        process.kill()
        await process.wait()


class BfdSilent(Exception):
    """The BFD process does not report any longer."""


class BfdSpeaker:
    """The BFD sessions of a manager. Without any wanted session there is no process.

    Args:
        report: called in the loop with all sessions, by peer name, at each change.
        settings: of the manager.
    """

    def __init__(self, report: Callable[[Mapping[str, BfdSession]], None], *, settings: Settings) -> None:
        self._report = report
        self._silence_after = settings.silence_after
        self._log_format = settings.log_format
        self._lock = threading.Lock()
        self._beats: socket.socket | None = None  # of the present process; it hears each byte as a beat
        self._wanted: Mapping[str, BfdTarget] = {}
        self._news = asyncio.Event()
        self._totals = Totals()
        self._last: Mapping[str, BfdSession] = {}
        self._stopping = False
        self._process: asyncio.subprocess.Process | None = None
        self._ended = asyncio.Event()
        self._ended.set()  # until a process runs

    @property
    def pid(self) -> int | None:
        """Of the running process."""
        return self._process.pid if self._process is not None and self._process.returncode is None else None

    def want(self, targets: Mapping[str, BfdTarget]) -> None:
        """The whole set, by peer name; returns at once."""
        if targets != self._wanted:
            self._wanted = dict(targets)
            self._news.set()

    def beat(self) -> None:
        """Tells the process that the manager and ExaBGP are alive; from any thread. Without beats for silence_after
        it tells the routers AdminDown."""
        with self._lock, contextlib.suppress(OSError):
            if self._beats is not None:
                self._beats.send(b".")

    async def stop(self) -> None:
        """Tells the routers AdminDown and ends the process."""
        self._stopping = True
        self._news.set()
        await self._ended.wait()

    async def run(self) -> None:
        """Until it is cancelled; then the process has ended too."""
        pause = _FIRST_PAUSE
        loop = asyncio.get_running_loop()
        while True:
            if self._stopping or not self._wanted:
                self._tell({})
                self._news.clear()
                await self._news.wait()
                continue
            begun = loop.time()
            why = await self._one_life()
            if not why:
                continue
            log.warning("the BFD process has ended (%s); starting it again in %.1f s", why, pause)
            self._tell(self._totals.ended(self._wanted, why))
            await asyncio.sleep(pause)
            pause = _FIRST_PAUSE if loop.time() - begun > _STEADY else min(2 * pause, _LONGEST_PAUSE)

    async def _one_life(self) -> str:
        """Starts one process and stays with it to its end; says why it ended, or nothing if that was wanted."""
        ours, theirs = socket.socketpair()
        beats, heard = socket.socketpair()
        argv = (sys.executable, "-m", "porterlb.bfd", self._log_format, str(heard.fileno()), str(self._silence_after))
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
        self._ended.clear()
        beats.setblocking(False)
        with self._lock:
            self._beats = beats
        reader, writer = await asyncio.open_connection(sock=ours, limit=_LINE)
        reading = asyncio.create_task(self._read(reader), name="bfd-reports")
        writing = asyncio.create_task(self._write(writer), name="bfd-wanted")
        try:
            done, _ = await asyncio.wait((reading, writing), return_when=asyncio.FIRST_COMPLETED)
            errors = [failure for task in done if (failure := task.exception()) is not None]
            if any(isinstance(failure, BfdSilent) for failure in errors):
                process.kill()
            with contextlib.suppress(TimeoutError):
                code = await asyncio.wait_for(process.wait(), _STOP_WITHIN)
                if writing in done and not errors:
                    return ""
                return str(errors[0]) if errors else f"exit code {code}" if code >= 0 else f"signal {-code}"
            process.kill()
            await process.wait()
            return "it did not stop in time"
        finally:
            for task in (reading, writing):
                task.cancel()
            await asyncio.gather(reading, writing, return_exceptions=True)
            if process.returncode is None:  # cancelled: SIGTERM tells the routers as the message does
                await _end(process)
            writer.close()
            with self._lock:
                self._beats = None
                beats.close()
            self._ended.set()

    async def _read(self, reader: asyncio.StreamReader) -> None:
        """Hands reports on until the process closes its end. Raises BfdSilent when none comes for too long."""
        limit, late = START_WITHIN, False
        while True:
            try:
                async with asyncio.timeout(ONCE_MORE if late else limit):
                    data = await reader.readline()
            except TimeoutError:
                if not late:
                    late = True  # the manager itself may have been stopped: then the report lies in the pipe
                    continue
                raise BfdSilent(f"no report for {limit:.0f} s") from None
            if not data:
                return
            limit, late = SILENT, False
            report = text.read_report(json.loads(data))
            self._tell(self._totals.heard(report.sessions))

    async def _write(self, writer: asyncio.StreamWriter) -> None:
        """Tells what is wanted; returns once that is nothing."""
        while True:
            self._news.clear()
            if self._stopping or not self._wanted:
                writer.write(text.STOP)
                await writer.drain()
                return
            writer.write(text.want_line(self._wanted.values()))
            await writer.drain()
            await self._news.wait()

    def _tell(self, sessions: Mapping[str, BfdSession]) -> None:
        if sessions != self._last:
            self._last = sessions
            self._report(sessions)
