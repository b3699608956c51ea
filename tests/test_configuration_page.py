"""The page on configuration is what the schemas and the settings say."""

from __future__ import annotations

import runpy
from pathlib import Path

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
