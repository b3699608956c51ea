"""Writes docs/cli.md and docs/metrics.md from the commands and metrics of the program.

python docs/reference.py          # writes the pages
python docs/reference.py --check  # exit code 1 where they are not what would be written
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import click
from prometheus_client.metrics_core import Metric

from porterlb.cli.main import COMMANDS, cli
from porterlb.core.known import Known
from porterlb.core.mode import ModePolicy
from porterlb.core.model import Snapshot, View
from porterlb.core.plan import plan
from porterlb.edge.metrics import Faults, Metrics

DOCS = Path(__file__).parent
MADE = "<!-- Made by docs/reference.py from the program. Run `make generate` after a change. -->"

CLI = f"""\
# Command line

{MADE}

`porterlb` is also installed as `kubectl-porterlb`, so `kubectl porterlb` runs it. Without `--cluster` it uses the
current context of kubectl. `-o json` prints stable fields for programs.

Exit codes: 0 success, 1 error, 2 wrong usage, 130 interrupted. `explain`: 3 degraded, 4 not served. `doctor`: 3
warnings, 4 errors.
"""

METRICS = f"""\
# Metrics

{MADE}

Each replica serves these at `/metrics` of its HTTP listener, in the text format of Prometheus. Totals of the cluster
are reported by the leader only. [Alerts](alerts.md) are built on them.

| metric | type | labels | meaning |
|---|---|---|---|
"""


def commands() -> str:
    """The page of the command line."""
    root = click.Context(cli, info_name="porterlb")
    parts = [CLI, "## porterlb\n", _options(cli, root)]
    for name in COMMANDS:
        command = cli.get_command(root, name)
        assert command is not None
        parts += _command(command, click.Context(command, info_name=name, parent=root))
    return "\n".join(parts)


def _command(command: click.Command, context: click.Context) -> Iterator[str]:
    yield f"## {context.command_path}\n"
    yield f"    {context.command_path} {' '.join(command.collect_usage_pieces(context))}\n"
    text = (command.help or "").replace("\b\n", "").strip()
    yield "\n".join(line.strip() for line in text.splitlines()) + "\n"
    yield _options(command, context)
    if isinstance(command, click.Group):
        for name in command.list_commands(context):
            below = command.get_command(context, name)
            assert below is not None
            yield from _command(below, click.Context(below, info_name=name, parent=context))


def _options(command: click.Command, context: click.Context) -> str:
    records = [record for option in command.params if (record := option.get_help_record(context))]
    if not records:
        return ""
    rows = [f"| `{_cell(names)}` | {_cell(text)} |" for names, text in records]
    return "\n".join(["| option | meaning |", "|---|---|", *rows, ""])


def _cell(text: str) -> str:
    return " ".join(text.replace("|", "\\|").split())


def metrics() -> str:
    """The page of the metrics."""
    snapshot = Snapshot(View(""))
    known = Known(snapshot, plan(snapshot, None, 0.0, ModePolicy()))
    made = Metrics(lambda: known, lambda: 0.0)
    made.registry.register(Faults(lambda: {}, lambda: 0))
    rows = [_row(made, metric) for metric in sorted(made.registry.collect(), key=lambda metric: metric.name)]
    return METRICS + "\n".join(rows) + "\n"


def _row(made: Metrics, metric: Metric) -> str:
    name = f"{metric.name}_total" if metric.type == "counter" else metric.name
    labels = ", ".join(f"`{label}`" for label in _labels(made, metric))
    return f"| `{name}` | {metric.type} | {labels} | {_cell(metric.documentation)} |"


def _labels(made: Metrics, metric: Metric) -> tuple[str, ...]:
    """Of a metric without samples too."""
    names = getattr(metric, "_labelnames", ())
    for collector in list(made.registry._collector_to_names):
        if getattr(collector, "_name", None) == metric.name:
            names = getattr(collector, "_labelnames", ())
    return tuple(names)


PAGES = {"cli.md": commands, "metrics.md": metrics}


def main() -> int:
    """Writes or checks the pages."""
    stale = (
        [name for name, make in PAGES.items() if (DOCS / name).read_text() != make()] if "--check" in sys.argv else []
    )
    if stale:
        print(f"docs/{stale[0]} is not what docs/reference.py makes: run make generate.", file=sys.stderr)
        return 1
    if "--check" not in sys.argv:
        for name, make in PAGES.items():
            (DOCS / name).write_text(make())
    return 0


if __name__ == "__main__":
    sys.exit(main())
