"""The recording of a manager and its wire process: written to a file continuously, or returned on request."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import signal
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import TextIO

from porterlb.core.record import file
from porterlb.core.record.manager import Entry, ManagerLog
from porterlb.errors import PorterError
from porterlb.logs import fields
from porterlb.settings import Settings

logger = logging.getLogger("porterlb.recording")

EVERY = 0.5
"""Seconds between two writes to the file."""

WIRE_WITHIN = 10.0
"""Seconds in which the wire process must give its recording: with 10,000 VIPs it needs about 1 s."""

LARGEST = 1 << 30
"""Bytes after which a file is not continued. Three idle replicas write some 2 GB a day each."""


class Recording:
    """The recording of this replica.

    Args:
        wire: asks the wire process for its part, given a timeout in seconds; returns lines of JSON.
    """

    def __init__(self, settings: Settings, release: str, wire: Callable[[float], Awaitable[list[str]]]) -> None:
        self._settings = settings
        self._release = release
        self._wire = wire
        self._streamed: list[str] = []
        self._dumps: set[asyncio.Task[None]] = set()
        self.log: ManagerLog | None = None
        """None: nothing is recorded."""
        if settings.record or settings.record_ring:
            self.log = ManagerLog(settings.record_ring, streams=bool(settings.record))

    # ---- the recording in memory

    async def text(self) -> str:
        """The recording in memory, in the format of a file."""
        header = self._header()
        if self.log is None or not self._settings.record_ring:
            header["missing"] = "the setting record_ring is 0: nothing is kept in memory"
            return f"{file.dumps(header)}\n"
        try:
            wire = await self._wire(WIRE_WITHIN)
        except TimeoutError:
            wire, header["missing"] = [], "the wire process did not give its recording in time"
        if wire == [file.FULL] or self.log.log.full:
            header["missing"] = "there are too many objects for record_ring: set a larger one, or use --record"
            wire = [] if wire == [file.FULL] else wire
        return await asyncio.to_thread(self._whole, self.log, header, wire)

    @staticmethod
    def _whole(log: ManagerLog, header: file.Line, wire: Iterable[str]) -> str:
        lines = file.merged(log.lines(log.log.contents()), map(json.loads, wire))
        return "".join(f"{file.dumps(line)}\n" for line in (header, *lines))

    async def dump(self) -> None:
        """Writes the recording in memory to a new file in the folder for temporary files, and logs its path."""
        try:
            text = await self.text()
            path = await asyncio.to_thread(self._new_file, text)
        except OSError as error:
            logger.error("the recording cannot be written", extra=fields(reason=error.strerror or error))
        else:
            logger.info("the recording is written", extra=fields(file=path, bytes=len(text)))

    def _new_file(self, text: str) -> Path:
        name = f"porterlb-{self._settings.node}-{datetime.now(UTC):%Y%m%dT%H%M%SZ}.jsonl"
        path = Path(tempfile.gettempdir()) / name
        with _opened(path) as out:
            out.write(text)
        return path

    def _header(self) -> file.Line:
        return file.header(self._release, asdict(self._settings), time.time(), time.monotonic())

    # ---- the file

    def streamed(self, texts: list[str]) -> None:
        """Takes what the wire process has recorded, line by line."""
        self._streamed += texts

    async def run(self) -> None:
        """Writes the file of the setting ``record``, and the recording in memory upon SIGUSR1, until cancelled. Raises
        PorterError when the file cannot be opened."""
        asyncio.get_running_loop().add_signal_handler(signal.SIGUSR1, self._asked)
        if not self._settings.record or self.log is None:
            await asyncio.Event().wait()
            return
        path = Path(self._settings.record)
        try:
            out = _opened(path)
        except OSError as error:
            raise PorterError(
                f"The recording cannot be written to {path}: {error.strerror or error}.",
                "Give another FILE with --record, in a folder that the manager may write to.",
            ) from None
        with out:
            out.write(f"{file.dumps(self._header())}\n")
            try:
                await self._write(self.log, out, path)
            finally:
                with contextlib.suppress(OSError):
                    out.write(_news(self.log, self.log.log.take(), self._take_streamed()))

    def _asked(self) -> None:
        if not self._dumps:
            task = asyncio.create_task(self.dump(), name="dump")
            self._dumps.add(task)
            task.add_done_callback(self._dumps.discard)

    async def _write(self, log: ManagerLog, out: TextIO, path: Path) -> None:
        written = 0
        while written < LARGEST:
            await asyncio.sleep(EVERY)
            try:
                text = await asyncio.to_thread(_news, log, log.log.take(), self._take_streamed())
                written += await asyncio.to_thread(_written, out, text)
            except OSError as error:
                logger.error("the recording ends", extra=fields(file=path, reason=error.strerror or error))
                break
        else:
            logger.warning("the recording ends: its file is full", extra=fields(file=path, bytes=written))
        while True:  # new entries are discarded
            await asyncio.sleep(EVERY)
            log.log.take()
            self._streamed.clear()

    def _take_streamed(self) -> list[str]:
        taken, self._streamed = self._streamed, []
        return taken


def _news(log: ManagerLog, entries: Iterable[Entry], wire: Iterable[str]) -> str:
    """The new lines of each process in its own order: a reader merges them."""
    manager = ({"by": file.MANAGER, **line} for line in log.lines(entries))
    theirs = ({"by": file.WIRE, **json.loads(text)} for text in wire)
    return "".join(f"{file.dumps(line)}\n" for lines in (manager, theirs) for line in lines)


def _opened(path: Path) -> TextIO:
    """A new file that only its owner may read. The file of the previous run is kept as ``FILE.1``."""
    with contextlib.suppress(FileNotFoundError):
        path.rename(path.with_name(f"{path.name}.1"))
    number = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600)
    return os.fdopen(number, "w", encoding="utf-8")


def _written(out: TextIO, text: str) -> int:
    out.write(text)
    out.flush()
    return len(text)
