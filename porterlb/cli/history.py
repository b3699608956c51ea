"""``porterlb history``: what happened, as the replicas saw it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import click

from porterlb.cli.completion import names
from porterlb.cli.loading import load
from porterlb.cli.options import Options, query
from porterlb.cli.output import Table, show
from porterlb.cli.replicas import Asked, ask, read
from porterlb.cluster import Cluster
from porterlb.errors import PorterError

Row = dict[str, Any]

SAME = 2.0
"""Seconds within which equal entries of two replicas count as one event that both saw. NTP keeps their clocks."""

SHOWN = 50
"""Number of rows in the table, the newest; JSON has all."""

_SAME = ("what", "subject", "before", "after", "why", "cause")

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


@click.command()
@click.option("--vip", metavar="ADDRESS", help="Only entries about this address.")
@click.option("--node", metavar="NAME", shell_complete=names("Node"), help="Only entries about this node.")
@click.option("--since", metavar="TIME", help="Only newer entries: 90s, 15m, 2h, 1d, or an RFC 3339 time.")
@click.option("--from", "source", metavar="URL", help="Query one replica only: http://127.0.0.1:7472 on its node.")
@query
def history(options: Options, *, vip: str | None, node: str | None, since: str | None, source: str | None) -> None:
    """Show past events: moves of addresses, nodes, sessions, leaders. The newest entry is first."""
    begin = _begin(since, datetime.now(UTC)) if since else None
    asked = _one(source) if source else options.ask(_all)
    rows = [row for row in merged(asked) if _wanted(row, vip, node, begin)]
    lines = [(row["time"], ", ".join(row["seenBy"]), row["message"]) for row in rows[:SHOWN]]
    notes = [f"The replica on {name} is not asked: {why}." for name, why in sorted(asked.silent.items())]
    if len(rows) > SHOWN:
        notes.insert(0, f"{len(rows) - SHOWN} older entries: -o json shows all.")
    show(options.output, rows, [Table(("TIME", "SEEN BY", "WHAT"), lines, "", "Nothing has happened.")], notes)


def _one(url: str) -> Asked:
    state = read(url)
    return Asked({state.node: state})


async def _all(cluster: Cluster) -> Asked:
    found = await load(cluster)
    asked = await ask(cluster, found.members)
    if not asked.states:
        why = "; ".join(f"{node}: {reason}" for node, reason in sorted(asked.silent.items()))
        remedy = "On a node: porterlb history --from http://127.0.0.1:7472."
        raise PorterError(f"No replica can be asked ({why or 'there is none'}).", remedy)
    return asked


def merged(asked: Asked) -> list[Row]:
    """The entries of all replicas, the newest first; an event that several saw is one row, with the first time."""
    entries = [
        (str(entry.get("time", "")), node, entry)
        for node, state in sorted(asked.states.items())
        for entry in state.state.get("history") or ()
    ]
    rows: list[Row] = []
    open_: dict[tuple[str, ...], list[Row]] = {}
    for _, node, entry in sorted(entries, key=lambda found: (found[0], found[1])):
        same = tuple(str(entry.get(name)) for name in _SAME)
        row = next((row for row in open_.get(same, ()) if _is_same(row, entry, node)), None)
        if row is None:
            row = {**entry, "seenBy": [node]}
            rows.append(row)
            open_.setdefault(same, []).insert(0, row)
        else:
            row["seenBy"].append(node)
            if len(entry.get("vips") or ()) > len(row.get("vips") or ()):
                row.update({name: entry[name] for name in ("vips", "count", "message")}, time=row["time"])
    return sorted(rows, key=lambda row: str(row["time"]), reverse=True)


def _is_same(row: Mapping[str, Any], entry: Mapping[str, Any], node: str) -> bool:
    ours, theirs = set(row.get("vips") or ()), set(entry.get("vips") or ())
    if node in row["seenBy"] or ((ours or theirs) and ours.isdisjoint(theirs)):
        return False
    try:
        first, second = (datetime.fromisoformat(str(each["time"])) for each in (row, entry))
    except ValueError:
        return False
    return abs((second - first).total_seconds()) <= SAME


def _wanted(row: Row, vip: str | None, node: str | None, begin: datetime | None) -> bool:
    if vip is not None and vip not in row.get("vips", ()):
        return False
    if node is not None and node not in _nodes(row):
        return False
    if begin is None:
        return True
    try:
        return datetime.fromisoformat(str(row["time"])) >= begin
    except ValueError:
        return True


def _nodes(row: Row) -> Iterable[str]:
    return [str(row.get("subject")), str(row.get("cause")), *row.get("before", ()), *row.get("after", ())]


def _begin(text: str, now: datetime) -> datetime:
    match = re.fullmatch(r"(\d+)([smhd])", text)
    if match:
        return now - timedelta(seconds=int(match[1]) * _UNITS[match[2]])
    try:
        then = datetime.fromisoformat(text)
    except ValueError:
        remedy = "Write for example 15m or 2026-01-31T12:00:00Z."
        raise PorterError(f"--since: {text!r} is not a time.", remedy, exit_code=2) from None
    return then if then.tzinfo else then.replace(tzinfo=UTC)
