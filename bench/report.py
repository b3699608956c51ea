"""The results of a benchmark: tables for the screen, and the same data as JSON."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table as RichTable

RESULTS = Path(__file__).with_name("results")

Cell = str | int | float


@dataclass
class Table:
    """One table. Each row has as many cells as ``columns``. Floats are rounded for the screen only.

    ``raw``: the single figures behind the rows, for the JSON. ``notes``: the information that a reader needs to assess
    the figures.
    """

    title: str
    columns: Sequence[str]
    rows: list[Sequence[Cell]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    raw: dict[str, Any] = field(default_factory=dict)

    def add_ratio(self, title: str, column: str, who: str, anchor: Callable[[str], str]) -> None:
        """Adds a column: the figure of each row, divided by the figure of its anchor, a row of the same run.

        Args:
            column: the column with the figures.
            who: the column with the names of what was measured.
            anchor: the name of the anchor of a name; empty if it has none.
        """
        name, figure = list(self.columns).index(who), list(self.columns).index(column)
        figures = {str(row[name]): row[figure] for row in self.rows}
        self.columns = [*self.columns, title]
        self.rows = [[*row, quotient(row[figure], figures.get(anchor(str(row[name])), ""))] for row in self.rows]

    def show(self, console: Console) -> None:
        table = RichTable(title=self.title, title_justify="left", caption="\n".join(self.notes), caption_justify="left")
        for number, column in enumerate(self.columns):
            table.add_column(column, justify="right" if number else "left")
        for row in self.rows:
            table.add_row(*map(text, row))
        console.print(table)


def quotient(figure: Cell, anchor: Cell) -> Cell:
    """Empty if one of both is no figure, or if the anchor is 0."""
    return figure / anchor if isinstance(figure, int | float) and isinstance(anchor, int | float) and anchor else ""


def text(cell: Cell) -> str:
    """The text of a cell for the screen."""
    if isinstance(cell, float):
        return f"{cell:,.0f}" if abs(cell) >= 100 else f"{cell:.3g}"
    return f"{cell:,}" if isinstance(cell, int) else cell


def machine() -> Mapping[str, Any]:
    """The machine on which the figures were measured."""
    return {
        "at": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "processors": os.cpu_count(),
        "load": os.getloadavg()[0],
    }


def save(name: str, tables: Mapping[str, Table], *, quick: bool) -> Path:
    """Writes bench/results/NAME.json. Parts that were not run this time are kept."""
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{name}.json"
    parts = json.loads(path.read_text())["parts"] if path.exists() else {}
    parts |= {part: {**asdict(table), "quick": quick, "machine": machine()} for part, table in tables.items()}
    path.write_text(json.dumps({"bench": name, "parts": parts}, indent=1) + "\n")
    return path


def percentile(figures: Sequence[float], share: float) -> float:
    """The figure below which a share ``share`` (0 to 1) of the figures lies; 0 if there are no figures."""
    ordered = sorted(figures)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else 0.0
