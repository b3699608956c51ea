"""``porterlb replay``: what was decided and why, from a recording."""

from __future__ import annotations

import re
import shutil
import sys
import textwrap
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, TextIO

import click

from porterlb.cli.options import Options, output_option, pass_options
from porterlb.cli.output import show
from porterlb.core.record import file, words
from porterlb.core.record.codec import NotRecordable
from porterlb.errors import PorterError
from porterlb.release import release

DIFFERENT = 3
"""Exit code: this release decides differently."""

SHOWN = 5
"""Decisions that differ, printed in full; all are in JSON."""

_ROUTINE = frozenset(("say", "report", "announce", "check", "late", "burst"))
"""Rows of the wire process that are printed with --all only: they follow from other rows, or repeat them."""

_DURATION = re.compile(r"(\d+(?:\.\d+)?)(s|m|h)")
_UNITS = {"s": 1, "m": 60, "h": 3600}


@click.command()
@click.argument("path", metavar="FILE", type=click.Path(exists=True, dir_okay=False, allow_dash=True, path_type=Path))
@click.option("--until", metavar="TIME", help="Stop there: 90s (after the beginning), or an RFC 3339 time.")
@click.option("--vip", metavar="ADDRESS", help="Print decisions about this address only.")
@click.option("--all", "everything", is_flag=True, help="Also print inputs and decisions that are routine.")
@click.option("--step", is_flag=True, help="Wait for Enter after each moment at which something was decided.")
@output_option
@pass_options
@click.pass_context
def replay(
    ctx: click.Context,
    options: Options,
    /,
    path: Path,
    until: str | None,
    vip: str | None,
    everything: bool,
    step: bool,
) -> None:
    """Run a recording through the decisions of this release, and print what was decided and why.

    FILE is what `porterlb manager --record`, SIGUSR1 or /record gave; "-" reads it from standard input. Exit code 3:
    this release decides otherwise than the one that was recorded.
    """
    try:
        with _opened(path) as source:
            found = _Replay(source, until, vip, everything=everything)
            if options.output in ("json", "yaml"):
                items = list(found.items())
                show(options.output, found.as_json(items), [])
            else:
                found.show(step=step and sys.stdin.isatty())
    except (file.NotARecording, NotRecordable) as error:
        raise PorterError(f"{path} cannot be replayed: {error}.", "Give a file that PorterLB recorded.") from None
    except UnicodeDecodeError:
        raise PorterError(f"{path} is no text.", "Give a file that PorterLB recorded.") from None
    ctx.exit(DIFFERENT if found.different else 0)


def _opened(path: Path) -> TextIO:
    return sys.stdin if str(path) == "-" else path.open(encoding="utf-8")


class _Replay:
    """One run. ``different``: how many decisions differ now."""

    def __init__(self, source: Iterable[str], until: str | None, vip: str | None, *, everything: bool) -> None:
        from porterlb.replay import replayed  # noqa: PLC0415  # with the planner

        self.header, self._steps = replayed(source)
        self._offset = float(self.header.get("wall", 0.0)) - float(self.header.get("clock", 0.0))
        self._until, self._vip, self._everything = until, vip, everything
        self._begin: float | None = None
        self._end = 0.0
        self._fresh: Any = None
        self.plans = self.events = self.different = 0

    def items(self) -> Iterator[dict[str, Any]]:
        """Every moment with a decision, or with an input that a user would want to see."""
        waiting: list[words.Said] = []
        for step in self._steps:
            at = float(step.line["at"])
            if self._begin is None:
                self._begin = at
                end = _end(self._until, at, self._offset)
            if end is not None and at > end:
                return
            self._end = at
            manager = step.line["by"] == file.MANAGER
            self.plans += manager and step.line["what"] in ("planned", "failed")
            self.events += not manager
            self.different += step.differs
            if manager and step.known is None:
                waiting += words.came_in(step.line)
                continue
            said = self._said(step)
            if not said and not step.differs:
                continue
            item = {"time": self._time(at), "at": at, "by": step.line["by"], "decided": [text for _, text in said]}
            if manager:
                item["after"], waiting = [text for _, text in waiting], []
            if step.differs:
                item["then"], item["now"] = step.line.get("did"), step.did
            elif self._everything:
                item["rows"] = step.did
            yield item

    def _said(self, step: Any) -> list[words.Said]:
        if not step.did:
            return []
        if step.line["by"] == file.MANAGER:
            said = words.planned(step.did, step.before, step.known)
        else:
            said = words.wire(row for row in step.did if self._everything or self._matters(row))
        return [one for one in said if self._vip is None or one[0] == self._vip]

    def _matters(self, row: list[Any]) -> bool:
        """Whether a decision of the wire process is neither routine nor a repetition."""
        if row[:2] == ["report", "fresh"]:
            before, self._fresh = self._fresh, row[2]
            return bool(before != row[2])
        return row[0] not in _ROUTINE or row[:2] in (["report", "dead"], ["report", "doubt"])

    def _time(self, at: float) -> str:
        moment = datetime.fromtimestamp(at + self._offset, UTC)
        return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")

    # ---- output

    def as_json(self, items: list[dict[str, Any]]) -> dict[str, Any]:
        return {
            "node": self.header.get("node", ""),
            "recordedBy": self.header.get("release", ""),
            "replayedBy": release(),
            "from": self._time(self._begin or 0.0),
            "to": self._time(self._end),
            "plans": self.plans,
            "events": self.events,
            "different": self.different,
            "moments": items,
        }

    def show(self, *, step: bool) -> None:
        width = shutil.get_terminal_size().columns if sys.stdout.isatty() else 0
        _print(f"Recording of {self.header.get('node')}, porterlb {self.header.get('release')}.", width)
        if self.header.get("missing"):
            _print(f"Incomplete: {self.header['missing']}.", width)
        shown = 0
        for item in self.items():
            head = f"{item['time'][11:-1]} {item['by']:7} "
            for text in (*(f"({cause})" for cause in item.get("after", ())), *item["decided"]):
                _print(f"{head}{text}", width, len(head))
                head = " " * len(head)
            if "now" in item or "then" in item:
                shown += 1
                if shown <= SHOWN:
                    _print(f"{head}DIFFERS. Recorded: {item['then']}. Now: {item['now']}.", width, len(head))
            if step:
                click.prompt("Enter: next", default="", show_default=False, prompt_suffix=" ", err=True)
        _print(self._summary(), width)

    def _summary(self) -> str:
        if self._begin is None:
            return "The recording is empty: it has a header and nothing else."
        if self._end < self._begin:
            return "The recording begins after that time."
        replayed = f"{self.plans} plans and {self.events} Layer 2 events in {self._end - self._begin:.1f} s replayed"
        if not self.different:
            return f"{replayed}: every decision is as recorded."
        other = f" It was recorded by {self.header.get('release')}, and this is {release()}."
        return f"{replayed}: {self.different} decisions differ.{other}"


def _end(until: str | None, begin: float, offset: float) -> float | None:
    """The end in monotonic seconds; None: no end."""
    if until is None:
        return None
    match = _DURATION.fullmatch(until)
    if match:
        return begin + float(match[1]) * _UNITS[match[2]]
    try:
        moment = datetime.fromisoformat(until)
    except ValueError:
        remedy = "Write for example 90s or 2026-01-31T12:00:00Z."
        raise PorterError(f"--until: {until!r} is not a time.", remedy, exit_code=2) from None
    moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return (moment - datetime.fromtimestamp(0, UTC)) / timedelta(seconds=1) - offset


def _print(text: str, width: int, indent: int = 2) -> None:
    if width:
        text = "\n".join(
            textwrap.wrap(text, width, subsequent_indent=" " * indent, break_long_words=False, break_on_hyphens=False)
        )
    print(text, flush=True)
