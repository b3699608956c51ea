"""Settings of all tests."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Generator
from pathlib import Path

import pytest
from hypothesis import settings

# On a busy machine single examples are slow, which says nothing about the code. In the gate the examples are the same
# in each run: the gate judges a change, and its result must not depend on random examples.
settings.register_profile("tests", deadline=None, derandomize=bool(os.environ.get("CI")))
settings.load_profile("tests")

RECORDINGS = Path(__file__).parents[1] / "build" / "recordings"
"""A failed test in a lab leaves its managers' recordings here: ``porterlb replay FILE`` reads them."""


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if report.failed and "lab.cluster" in sys.modules:
        from lab import recordings  # noqa: PLC0415  # only where a lab is running

        folder = RECORDINGS / re.sub(r"[^A-Za-z0-9_.-]+", "_", item.nodeid)[-150:]
        saved = recordings.save(folder)
        if saved:
            report.sections.append(("recordings", f"{folder}: {', '.join(path.name for path in saved)}"))
    return report
