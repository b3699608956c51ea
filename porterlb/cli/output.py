"""Output: tables for people, JSON and YAML for programs.

Problems come first. A table fits the width of a terminal: long cells are folded between words, and the message of a row
with a problem is on separate lines. In a pipe, lines are not folded and have no colour. ``-o wide`` shows every message
in a column.
"""

from __future__ import annotations

import json
import re
import shutil
import sys
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import zip_longest
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.text import Text

Json = Mapping[str, Any] | Sequence[Any]

TABLES = ("table", "wide")
"""Formats for people."""


@dataclass(frozen=True, slots=True)
class Table:
    """``title`` is left out if there is only one table. Cells are plain text; an empty one is shown as a dash.

    ``message``: the last cell of a row is a sentence, which is shown for rows with a problem. ``wrong``: whether each
    row has one.
    """

    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    title: str = ""
    empty: str = "Nothing."
    message: bool = False
    wrong: Sequence[bool] = ()

    def problems_only(self) -> Table:
        """The rows with a problem."""
        kept = [row for row, wrong in zip(self.rows, self.wrong, strict=True) if wrong]
        return Table(self.columns, kept, self.title, "No problem.", self.message, [True] * len(kept))


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

_NOTE, _TITLE, _HEAD = "yellow", "bold", "bold dim"

Part = tuple[str, str]
"""A text and its style; empty: none."""

VERSION = 1
"""Version of the shape of JSON and YAML output; raised when a field changes its meaning or is removed."""


def versioned(data: Json) -> dict[str, Any]:
    """``data`` with the version; a list is in ``items``."""
    return {"version": VERSION, **data} if isinstance(data, Mapping) else {"version": VERSION, "items": list(data)}


def show(output: str, data: Json, tables: Sequence[Table], notes: Sequence[str] = ()) -> None:
    """Prints ``data`` as JSON or YAML, or the notes (sentences about problems) and the tables."""
    if output == "json":
        print(json.dumps(versioned(data), indent=2, ensure_ascii=False), flush=True)
    elif output == "yaml":
        import yaml  # noqa: PLC0415  # what the format does not need is not loaded: together 40 ms

        print(yaml.safe_dump(versioned(data), sort_keys=False, allow_unicode=True), end="", flush=True)
    elif sys.stdout.isatty():
        from rich.console import Console  # noqa: PLC0415

        Console(soft_wrap=True).print(rich_view(tables, notes, wide=output == "wide"), highlight=False)
    else:
        print(plain_view(tables, notes, wide=output == "wide"), flush=True)


def show_text(output: str, data: Json, lines: Sequence[str]) -> None:
    """Prints ``data`` as JSON or YAML, or these lines."""
    if output in TABLES:
        print("\n".join(lines), flush=True)
    else:
        show(output, data, [])


def rich_view(tables: Sequence[Table], notes: Sequence[str] = (), *, wide: bool = False) -> Text:
    """For a terminal: coloured, and as wide as the terminal (-o wide: as wide as needed)."""
    width = 0 if wide else shutil.get_terminal_size().columns
    from rich.text import Text  # noqa: PLC0415

    text = Text(no_wrap=True)
    for number, line in enumerate(_view(tables, notes, width, wide=wide)):
        text.append("\n" if number else "")
        for part, style in line:
            text.append(part, style=style)
    return text


def plain_view(tables: Sequence[Table], notes: Sequence[str] = (), *, width: int = 0, wide: bool = False) -> str:
    """For a pipe: columns, two spaces apart, as in kubectl. ``width`` 0: lines are not folded."""
    lines = _view(tables, notes, width, wide=wide)
    return "\n".join("".join(part for part, _ in line).rstrip() for line in lines)


def _view(tables: Sequence[Table], notes: Sequence[str], width: int, *, wide: bool) -> list[list[Part]]:
    lines: list[list[Part]] = []
    blocks: list[list[list[Part]]] = []
    if notes:
        folded = [line for note in notes for line in _folded(note, width, "  ")]
        told: list[list[Part]] = [[(line, _NOTE)] for line in folded]
        blocks.append(told)
    for table in tables:
        shown: list[list[Part]] = [[(f"{table.title}:", _TITLE)]] if table.title else []
        shown += _table(table, width, wide=wide) if table.rows else [[(table.empty, "")]]
        blocks.append(shown)
    for number, block in enumerate(blocks):
        lines += [*([[]] if number else []), *block]
    return lines


def _table(table: Table, width: int, *, wide: bool) -> list[list[Part]]:
    own = table.message and not wide
    columns = table.columns[:-1] if own else table.columns
    cells = [[cell or "-" for cell in row[: len(columns)]] for row in table.rows]
    widths = _fitted([list(columns), *cells], width)
    lines = _row(list(columns), widths, _HEAD)
    for number, row in enumerate(cells):
        lines += _row(row, widths)
        message = str(table.rows[number][-1]) if own else ""
        if message and table.wrong[number]:
            lines += [[(f"  {line}", _NOTE)] for line in _folded(message, max(0, width - 2))]
    return lines


def _fitted(rows: Sequence[Sequence[str]], width: int) -> list[int]:
    """The widths of the columns: the widest ones become smaller until all fit, but never smaller than a word."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    least = [max(len(word) for row in rows for word in _words(row[column])) for column in range(len(rows[0]))]
    while width and sum(widths) + 2 * (len(widths) - 1) > width:
        column = max(range(len(widths)), key=lambda each: (widths[each] - least[each], widths[each]))
        if widths[column] <= least[column]:
            break
        widths[column] -= 1
    return widths


def _row(cells: Sequence[str], widths: Sequence[int], style: str = "") -> list[list[Part]]:
    """The lines of one row: as many as its longest cell needs."""
    columns = [_in_words(cell, width) for cell, width in zip(cells, widths, strict=True)]
    lines: list[list[Part]] = []
    for parts in zip_longest(*columns, fillvalue=""):
        line: list[Part] = []
        for number, (part, width) in enumerate(zip(parts, widths, strict=True)):
            gap = "  " if number < len(widths) - 1 else ""
            line += [(part, style or _COLOURS.get(part, "")), (" " * (width - len(part)) + gap, "")]
        lines.append(line)
    return lines


def _words(cell: str) -> list[str]:
    """The parts between which a cell may be folded: after a space, a comma, or the dash of a range."""
    return [word.strip() for word in re.split(r"(?<=[ ,])|(?<=[0-9a-f]-)(?=[0-9a-f])", cell) if word.strip()] or [""]


def _in_words(cell: str, width: int) -> list[str]:
    if len(cell) <= width:
        return [cell]
    lines = [""]
    for word in re.split(r"(?<=[ ,])|(?<=[0-9a-f]-)(?=[0-9a-f])", cell):
        if lines[-1] and len(f"{lines[-1]}{word}".rstrip()) > width:
            lines.append("")
        lines[-1] += word if lines[-1] else word.lstrip()
    return [line.rstrip() for line in lines]


def _folded(text: str, width: int, indent: str = "") -> Iterable[str]:
    if not width or len(text) <= width:
        return [text]
    return textwrap.wrap(text, width, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False)


def age(since: str, now: datetime | None = None) -> str:
    """How long ago an RFC 3339 time is: ``12s``, ``5m``, ``3h``, ``8d``; empty if it is not a time."""
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
