"""Structured logging: one line per event, as text for people or as JSON for machines.

Modules log with the standard library (``logging.getLogger(__name__)``). The values of an event go into
``extra={"fields": {...}}``, or through :func:`fields`. Passwords are never passed to a logger.

Logging never waits for the reader of the lines. A pipe holds 64 KiB, and a reader that has stopped would block every
process that writes to it. Therefore lines are queued, a thread writes them, and lines beyond the limit are dropped and
counted.
"""

from __future__ import annotations

import contextlib
import io
import json
import logging
import os
import select
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import TextIO

WAITING_AT_MOST = 1 << 20
"""Bytes of queued lines, at most."""

LINE_AT_MOST = 32 << 10
"""Bytes of one line, at most, including its traceback."""

AT_THE_END = 1.0
"""Seconds, at most, that the process waits at its end until the last lines are written."""


def fields(**values: object) -> Mapping[str, object]:
    """The value for ``extra``: ``log.info("Session is up.", extra=fields(peer="r1"))``."""
    return {"fields": values}


def set_up(format_: str, stream: TextIO | None = None, level: str = "info") -> None:
    """Sends everything that is logged to ``stream`` (standard error). ``format_``: ``text`` or ``json``. ``level``: the
    lowest level that is written, such as ``warning``.

    Warnings and uncaught exceptions of threads and destructors go the same way: written directly, they could block.
    """
    handler = Queued(stream or sys.stderr)
    handler.setFormatter(Json() if format_ == "json" else Text())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    # At INFO, these log what we log ourselves, or nothing that helps an operator.
    for chatty in ("aiohttp.access", "kubernetes", "urllib3", "asyncio"):
        logging.getLogger(chatty).setLevel(logging.WARNING)
    logging.captureWarnings(True)
    sys.unraisablehook = _unraisable
    threading.excepthook = _in_thread


def dropped() -> int:
    """Log lines of this process that exceeded the queue, or could not be written."""
    return sum(handler.dropped for handler in logging.getLogger().handlers if isinstance(handler, Queued))


class Queued(logging.Handler):
    """Queues lines in bounded memory; a separate thread writes them. ``emit`` never blocks and never raises.

    The thread starts with the first line. A process that gives up capabilities must do so before it logs, because a
    thread keeps those that it was started with.
    """

    def __init__(self, stream: TextIO) -> None:
        super().__init__()
        self.dropped = 0
        self._write = _writer(stream)
        self._lines: deque[bytes] = deque()
        self._size = 0
        self._missed = 0  # dropped since the last line that reported it
        self._writing = False
        self._news = threading.Condition()
        self._thread: threading.Thread | None = None

    def emit(self, record: logging.LogRecord) -> None:
        try:
            line = self.format(record).encode("utf-8", "backslashreplace")
        except Exception as error:  # an argument that cannot be shown
            line = f"{type(error).__name__} in the log line {record.msg!r:.200}".encode("utf-8", "backslashreplace")
        if len(line) > LINE_AT_MOST:
            line = line[:LINE_AT_MOST] + b" ... (cut)"
        line += b"\n"
        with self._news:
            if self._size + len(line) > WAITING_AT_MOST:
                self.dropped += 1
                self._missed += 1
                return
            self._lines.append(line)
            self._size += len(line)
            if self._thread is None:
                self._thread = threading.Thread(target=self._work, name="log", daemon=True)
                self._thread.start()
            self._news.notify_all()

    def flush(self) -> None:
        """Waits until all lines are written, for a second at most."""
        until = time.monotonic() + AT_THE_END
        with self._news:
            while (self._lines or self._writing) and (left := until - time.monotonic()) > 0:
                self._news.wait(left)

    def _work(self) -> None:
        while True:
            with self._news:
                self._writing = False
                self._news.notify_all()
                while not self._lines:
                    self._news.wait()
                line = self._lines.popleft()
                self._size -= len(line)
                missed, self._missed = self._missed, 0
                self._writing = True
            if missed:
                record = logging.LogRecord(
                    "porterlb.logs", logging.WARNING, __file__, 0, "%d log lines were dropped: %s", (), None
                )
                record.args = (missed, "standard error is not read fast enough.")
                line += self.format(record).encode() + b"\n"
            try:
                self._write(line)
            except (OSError, ValueError):  # the reader is gone
                with self._news:
                    self.dropped += 1


def _writer(stream: TextIO) -> Callable[[bytes], None]:
    """Writes whole lines to a stream, without the locks of its buffers: a thread that is blocked in such a lock at the
    end of the process would block or abort the interpreter."""
    try:
        descriptor = os.dup(stream.fileno())
    except (OSError, ValueError, AttributeError, io.UnsupportedOperation):

        def to_stream(line: bytes) -> None:
            stream.write(line.decode("utf-8", "replace"))

        return to_stream

    def to_descriptor(line: bytes) -> None:
        while line:
            try:
                line = line[os.write(descriptor, line) :]
            except BlockingIOError:  # another process has made it non-blocking for all that share it
                with contextlib.suppress(InterruptedError):
                    select.select([], [descriptor], [], 1.0)

    return to_descriptor


def _unraisable(what: sys.UnraisableHookArgs) -> None:
    error = what.exc_value
    message = "%s %r"
    info = (what.exc_type, error, what.exc_traceback) if error is not None else None
    logging.getLogger("porterlb").error(message, what.err_msg or "Exception ignored in", what.object, exc_info=info)


def _in_thread(what: threading.ExceptHookArgs) -> None:
    error = what.exc_value
    info = (what.exc_type, error, what.exc_traceback) if error is not None else None
    name = what.thread.name if what.thread else "?"
    logging.getLogger("porterlb").error("the thread %s has ended", name, exc_info=info)


class Text(logging.Formatter):
    """``2026-01-31T12:00:00.123Z INFO  edge.bgp  Session is up. peer=r1 node=node-2``"""

    def format(self, record: logging.LogRecord) -> str:
        values = "".join(f" {name}={_plain(value)}" for name, value in _fields(record).items())
        line = f"{_time(record)} {record.levelname:<7} {_source(record)}  {_one_line(record.getMessage())}{values}"
        return f"{line}\n{self.formatException(record.exc_info)}" if record.exc_info else line


class Json(logging.Formatter):
    """One JSON object per line: time, level, source, message, then the fields."""

    def format(self, record: logging.LogRecord) -> str:
        event: dict[str, object] = {
            "time": _time(record),
            "level": record.levelname.lower(),
            "source": _source(record),
            "message": record.getMessage(),
        }
        # A field must not hide a value that every line has.
        event |= {name if name not in event else f"{name}_": value for name, value in _fields(record).items()}
        if record.exc_info:
            event["exception"] = self.formatException(record.exc_info)
        return json.dumps(event, default=str, ensure_ascii=False)


def _fields(record: logging.LogRecord) -> Mapping[str, object]:
    found = getattr(record, "fields", None)
    return found if isinstance(found, Mapping) else {}


def _time(record: logging.LogRecord) -> str:
    return datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _source(record: logging.LogRecord) -> str:
    return record.name.removeprefix("porterlb.")


def _one_line(text: str) -> str:
    # Text from the network or a file must not be able to forge a line.
    return text.replace("\n", "\\n").replace("\r", "\\r")


def _plain(value: object) -> str:
    text = _one_line(str(value))
    return json.dumps(text, ensure_ascii=False) if text == "" or any(c in text for c in ' "=') else text
