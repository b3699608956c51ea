"""A child process of the manager: restarted when it dies, sent beats, and ended when it no longer reports.

It runs as ``python -m MODULE ARGUMENT... FD``, with one end of a stream socket as its standard input: JSON lines in
both directions. FD is one end of a second socket, on which each byte is a sign of life of the manager.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import sys
import threading
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

SILENT = 5.0
"""Seconds without a report (there is one every second) after which the process is ended."""

START_WITHIN = 30.0
"""Seconds until its first report: a busy machine may take longer than SILENT to start a Python process."""

ONCE_MORE = 1.5
"""Additional seconds after either limit: if the manager itself did not run, the report is already in the pipe."""

FIRST_PAUSE, LONGEST_PAUSE = 0.1, 5.0
"""Seconds before the process is started again: the pauses double while it runs for less than STEADY."""

STEADY = 10.0
"""Seconds of running after which the next pause is short again."""


Tell = Callable[[asyncio.StreamWriter], Coroutine[Any, Any, None]]


class Silent(Exception):
    """The process no longer reports."""


class ChildProcess:
    """One process at a time; :meth:`live` runs it once, from its start to its end.

    Args:
        module: the module that Python runs.
        arguments: its arguments; the descriptor for the beats follows them.
        hear: called in the event loop with each report.
        goodbye: the line that tells it to end; SIGTERM has the same effect.
        stop_within: seconds that it has to end.
        longest: bytes of its longest line.
    """

    def __init__(
        self,
        module: str,
        arguments: Sequence[str],
        hear: Callable[[Any], None],
        *,
        goodbye: bytes,
        stop_within: float,
        longest: int,
    ) -> None:
        self._command = (sys.executable, "-m", module, *arguments)
        self._hear = hear
        self._goodbye = goodbye
        self._stop_within = stop_within
        self._longest = longest
        self._lock = threading.Lock()
        self._beats: socket.socket | None = None  # to the current process
        self._process: asyncio.subprocess.Process | None = None
        self._pause = 0.0  # before the current process

    @property
    def pid(self) -> int | None:
        """The process ID of the running process."""
        return self._process.pid if self._process is not None and self._process.returncode is None else None

    def beat(self) -> None:
        """Tells the process that the manager is alive; callable from any thread."""
        with self._lock, contextlib.suppress(OSError):
            if self._beats is not None:
                self._beats.send(b".")

    async def live(self, tell: Tell, until: asyncio.Event) -> tuple[str, float]:
        """Starts a process and returns when it has ended.

        Args:
            tell: writes to the process what it must know; runs until cancelled.
            until: once set, the process is told to end.
        Returns:
            Why it has ended (empty if it was told to end), and the seconds until it may be started again.
        """
        begun = asyncio.get_running_loop().time()
        why = await self._one_life(tell, until)
        lived = asyncio.get_running_loop().time() - begun
        self._pause = (
            FIRST_PAUSE if lived > STEADY or not why else min(max(FIRST_PAUSE, 2 * self._pause), LONGEST_PAUSE)
        )
        return why, self._pause

    async def _one_life(self, tell: Tell, until: asyncio.Event) -> str:
        ours, theirs = socket.socketpair()
        beats, heard = socket.socketpair()
        try:
            process = self._process = await asyncio.create_subprocess_exec(
                *self._command,
                str(heard.fileno()),
                stdin=theirs.fileno(),
                stdout=asyncio.subprocess.DEVNULL,
                pass_fds=(heard.fileno(),),
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
        reader, writer = await asyncio.open_connection(sock=ours, limit=self._longest)
        end = asyncio.create_task(until.wait(), name="end")
        tasks: set[asyncio.Task[Any]] = {
            asyncio.create_task(self._read(reader), name="reports"),
            asyncio.create_task(tell(writer), name="wanted"),
            end,
        }
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            told = end in done
            found = [failure for task in done if (failure := task.exception()) is not None]
            errors = [failure for failure in found if not isinstance(failure, OSError)]  # else the exit code says more
            if told:
                writer.write(self._goodbye)
            elif any(isinstance(failure, Silent) for failure in errors):
                process.kill()
            with contextlib.suppress(TimeoutError):
                code = await asyncio.wait_for(process.wait(), self._stop_within)
                if told:
                    return ""
                return str(errors[0]) if errors else f"exit code {code}" if code >= 0 else f"signal {-code}"
            process.kill()
            await process.wait()
            return "it did not stop in time"
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            if process.returncode is None:  # cancelled
                await self._end(process)
            writer.close()
            with self._lock:
                self._beats = None
                beats.close()

    async def _end(self, process: asyncio.subprocess.Process) -> None:
        with contextlib.suppress(ProcessLookupError):
            process.terminate()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(process.wait(), self._stop_within)
                return
            process.kill()
            await process.wait()

    async def _read(self, reader: asyncio.StreamReader) -> None:
        """Passes reports on until the process closes its end. Raises Silent when there is none for too long."""
        limit, late = START_WITHIN, False
        while True:
            try:
                async with asyncio.timeout(ONCE_MORE if late else limit):
                    data = await reader.readline()
            except TimeoutError:
                if not late:
                    late = True
                    continue
                raise Silent(f"no report for {limit:.0f} s") from None
            if not data:
                return
            limit, late = SILENT, False
            self._hear(json.loads(data))
