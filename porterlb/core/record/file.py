"""The file of a recording: JSON lines, first a header, then the lines of the manager and its wire process.

Each line has ``by`` (the process), ``at`` (monotonic seconds; all processes of a node share that clock) and ``what``.
A reader skips unknown fields. ``format`` changes only if an older reader would misread the file.
"""

from __future__ import annotations

import heapq
import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

Line = dict[str, Any]

FORMAT = 1
MANAGER, WIRE = "manager", "wire"

FULL = '{"at":0.0,"what":"full"}'
"""The line that the wire process returns if its ring keeps nothing, because its state is too large."""


class NotARecording(ValueError):
    """The message says what is wrong."""


def header(release: str, settings: Mapping[str, Any], wall: float, clock: float) -> Line:
    """``wall``: seconds since 1970 at ``clock`` monotonic seconds."""
    return {
        "porterlb": "recording",
        "format": FORMAT,
        "release": release,
        "node": settings.get("node", ""),
        "settings": dict(settings),
        "wall": round(wall, 6),
        "clock": clock,
    }


def dumps(line: Line) -> str:
    return json.dumps(line, separators=(",", ":"), ensure_ascii=True)


def merged(manager: Iterable[Line], wire: Iterable[Line]) -> Iterator[Line]:
    """The lines of both processes by time. Each process keeps its own order, also for equal times."""
    for by, line in heapq.merge(((MANAGER, one) for one in manager), ((WIRE, one) for one in wire), key=_at):
        yield {"by": by, **line}


def _at(pair: tuple[str, Line]) -> float:
    return float(pair[1]["at"])


def read(texts: Iterable[str]) -> tuple[Line, Iterator[Line]]:
    """The header, and the lines in replay order. Raises NotARecording."""
    source = iter(texts)
    first = _parsed(next(source, ""), 1)
    if first.get("porterlb") != "recording":
        raise NotARecording("this is not a recording of PorterLB: its first line is no header")
    if first.get("format") != FORMAT:
        raise NotARecording(f"its format is {first.get('format')!r}, and this release reads {FORMAT}")
    return first, _ordered(source)


def _ordered(source: Iterable[str]) -> Iterator[Line]:
    by: dict[str, list[Line]] = {MANAGER: [], WIRE: []}
    for number, text in enumerate(source, 2):
        if not text.strip():
            continue
        if not text.endswith("\n") and not text.rstrip().endswith("}"):
            break  # the last line of a file that is still being written, or whose writer was killed
        line = _parsed(text, number)
        if line.get("by") in by and isinstance(line.get("at"), int | float) and isinstance(line.get("what"), str):
            by[line["by"]].append(line)
        else:
            raise NotARecording(f"line {number} is not of a recording")
    yield from merged(by[MANAGER], by[WIRE])


def _parsed(text: str, number: int) -> Line:
    try:
        found = json.loads(text)
    except ValueError as error:
        raise NotARecording(f"line {number} is no JSON: {error}") from None
    if not isinstance(found, dict):
        raise NotARecording(f"line {number} is no JSON object")
    return found
