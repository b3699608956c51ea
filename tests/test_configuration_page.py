"""Reference pages agree with the program: schemas, settings, commands, metrics, reasons."""

from __future__ import annotations

import re
import runpy
from pathlib import Path

import pytest

from porterlb.core.history.entries import What
from porterlb.core.problems import Reason

DOCS = Path(__file__).parents[1] / "docs"


def test_the_page_is_the_generators() -> None:
    maker = runpy.run_path(str(DOCS / "configuration.py"))
    assert (DOCS / "configuration.md").read_text() == maker["page"](), "run: python docs/configuration.py"


def test_every_field_of_spec_and_status_has_a_meaning() -> None:
    page = runpy.run_path(str(DOCS / "configuration.py"))["page"]()
    rows = [line for line in page.splitlines() if line.startswith(("| `", "| --"))]
    assert len(rows) > 150
    without = [row for row in rows if not row.rstrip("| ").split("|")[-1].strip()]
    assert without == []
    for known in ("`conf.authPasswordSecret.name`", "`--lease-duration`", "`address` *"):
        assert known in page


@pytest.mark.parametrize("name", ["cli.md", "metrics.md"])
def test_the_reference_is_what_the_program_says(name: str) -> None:
    pages = runpy.run_path(str(DOCS / "reference.py"))["PAGES"]
    assert (DOCS / name).read_text() == pages[name](), "run: make generate"


def test_every_command_option_and_metric_has_a_meaning() -> None:
    for name, least in (("cli.md", 100), ("metrics.md", 30)):
        rows = [line for line in (DOCS / name).read_text().splitlines() if line.startswith("| `")]
        assert len(rows) >= least
        assert [row for row in rows if not row.rstrip("| ").rpartition("|")[2].strip()] == []


def test_every_reason_is_explained() -> None:
    rows = [line for line in (DOCS / "reasons.md").read_text().splitlines() if line.startswith("| `")]
    named = {name for row in rows for name in re.findall(r"`([A-Z]\w+)`", row.split("|")[1])}
    missing = {reason.value for reason in (*Reason, *What)} - named
    assert missing == set()
