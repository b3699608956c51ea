"""Answers: tables for people, JSON and YAML for programs.

In a terminal tables are drawn by rich, and fit its width; in a pipe they are plain columns, whole and without colour.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import yaml
from rich.console import Console, Group, RenderableType
from rich.table import Table as RichTable
from rich.text import Text

Json = Mapping[str, Any] | Sequence[Any]


@dataclass(frozen=True, slots=True)
class Table:
    """``title`` is left out where there is one table only. Cells are plain text; an empty one is shown as a dash."""

    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    title: str = ""
    empty: str = "Nothing."


_COLOURS: Mapping[str, str] = {
    "bgp": "green",
    "layer2": "cyan",
    "mixed": "yellow",
    "none": "red",
    "True": "green",
    "yes": "green",
    "no": "red",
    "False": "red",
    "ESTABLISHED": "green",
}


VERSION = 1
"""Of the shape of JSON and YAML answers; raised when something changes its meaning or goes away."""


def versioned(data: Json) -> dict[str, Any]:
    """An answer with its version; a list is in ``items``."""
    return {"version": VERSION, **data} if isinstance(data, Mapping) else {"version": VERSION, "items": list(data)}


def show(output: str, data: Json, tables: Sequence[Table], notes: Sequence[str] = ()) -> None:
    """Prints ``data`` as JSON or YAML, or the tables with the notes (sentences) below them."""
    if output == "json":
        print(json.dumps(versioned(data), indent=2, ensure_ascii=False), flush=True)
    elif output == "yaml":
        print(yaml.safe_dump(versioned(data), sort_keys=False, allow_unicode=True), end="", flush=True)
    elif sys.stdout.isatty():
        Console().print(rich_view(tables, notes))
    else:
        print(plain_view(tables, notes), flush=True)


def show_text(output: str, data: Json, lines: Sequence[str]) -> None:
    """Prints ``data`` as JSON or YAML, or these lines."""
    if output == "table":
        print("\n".join(lines), flush=True)
    else:
        show(output, data, [])


def rich_view(tables: Sequence[Table], notes: Sequence[str] = ()) -> RenderableType:
    """For a terminal."""
    parts: list[RenderableType] = []
    for table in tables:
        if table.title:
            parts.append(Text(f"\n{table.title}" if parts else table.title, style="bold"))
        if not table.rows:
            parts.append(Text(table.empty, style="dim"))
            continue
        drawn = RichTable(box=None, pad_edge=False, header_style="bold dim", padding=(0, 2, 0, 0))
        for name in table.columns:
            drawn.add_column(name, overflow="fold", no_wrap=name in ("NAME", "ADDRESS", "MODE", "SINCE", "AS"))
        for row in table.rows:
            drawn.add_row(*(Text(cell or "-", style=_COLOURS.get(cell, "")) for cell in row))
        parts.append(drawn)
    if notes:
        parts.append(Text("\n" + "\n".join(notes), style="yellow"))
    return Group(*parts)


def plain_view(tables: Sequence[Table], notes: Sequence[str] = ()) -> str:
    """For a pipe: columns, two spaces apart, as kubectl has them."""
    parts: list[str] = []
    for table in tables:
        lines = [f"{table.title}:"] if table.title else []
        if table.rows:
            cells = [list(table.columns), *([cell or "-" for cell in row] for row in table.rows)]
            widths = [max(len(row[column]) for row in cells) for column in range(len(table.columns))]
            lines += ["  ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)).rstrip() for row in cells]
        else:
            lines.append(table.empty)
        parts.append("\n".join(lines))
    if notes:
        parts.append("\n".join(notes))
    return "\n\n".join(parts)


def age(since: str, now: datetime | None = None) -> str:
    """How long ago an RFC 3339 time is: ``12s``, ``5m``, ``3h``, ``8d``; empty where it is not a time."""
    try:
        then = datetime.fromisoformat(since)
    except ValueError:
        return ""
    if then.tzinfo is None:
        then = then.replace(tzinfo=UTC)
    seconds = max(0, int(((now or datetime.now(UTC)) - then).total_seconds()))
    for size, letter in ((86400, "d"), (3600, "h"), (60, "m")):
        if seconds >= 2 * size:
            return f"{seconds // size}{letter}"
    return f"{seconds}s"
