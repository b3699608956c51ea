"""Structured logging: one line an event, as text for people or as JSON for machines.

Modules log with the standard library (``logging.getLogger(__name__)``); what belongs to an event as a value goes into
``extra={"fields": {...}}``, or through :func:`fields`. Passwords are never given to a logger.
"""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import TextIO


def fields(**values: object) -> Mapping[str, object]:
    """What to give as ``extra``: ``log.info("Session is up.", extra=fields(peer="r1"))``."""
    return {"fields": values}


def set_up(format_: str, stream: TextIO | None = None, level: int = logging.INFO) -> None:
    """Sends everything that is logged to ``stream`` (standard error). ``format_``: ``text`` or ``json``."""
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(Json() if format_ == "json" else Text())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
    # These say at INFO what we say ourselves, or nothing that helps an operator.
    for chatty in ("aiohttp.access", "kubernetes", "urllib3", "watchfiles", "asyncio"):
        logging.getLogger(chatty).setLevel(logging.WARNING)


class Text(logging.Formatter):
    """``2026-01-31T12:00:00.123Z INFO  edge.bgp  Session is up. peer=r1 node=node-2``"""

    def format(self, record: logging.LogRecord) -> str:
        values = "".join(f" {name}={_plain(value)}" for name, value in _fields(record).items())
        line = f"{_time(record)} {record.levelname:<7} {_source(record)}  {_one_line(record.getMessage())}{values}"
        return f"{line}\n{self.formatException(record.exc_info)}" if record.exc_info else line


class Json(logging.Formatter):
    """One JSON object a line: time, level, source, message, then the fields."""

    def format(self, record: logging.LogRecord) -> str:
        event: dict[str, object] = {
            "time": _time(record),
            "level": record.levelname.lower(),
            "source": _source(record),
            "message": record.getMessage(),
        }
        # A field must not hide what every line has.
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
    # What the network or a file says must not be able to forge a line of its own.
    return text.replace("\n", "\\n").replace("\r", "\\r")


def _plain(value: object) -> str:
    text = _one_line(str(value))
    return json.dumps(text, ensure_ascii=False) if text == "" or any(c in text for c in ' "=') else text
