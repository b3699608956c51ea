"""Each test that CASES.md names exists."""

from __future__ import annotations

import re
from fnmatch import fnmatchcase
from pathlib import Path

TESTS = Path(__file__).parent
NAMED = re.compile(r"^([\w/]+\.py)?(?:::(\w+\*?))?$")


def missing(line: str) -> list[str]:
    """The tests that a line of the table names and that do not exist."""
    path, found = TESTS, []
    for text in re.findall(r"`([^`]+)`", line):
        named = NAMED.match(text)
        if not named:
            continue
        file, name = named.groups()
        path = TESTS / file if file else path
        tests = re.findall(r"def (test_\w+)", path.read_text()) if path.is_file() else []
        if not any(fnmatchcase(test, name or "test_*") for test in tests):
            found.append(text)
    return found


def test_each_test_that_a_case_names_exists() -> None:
    rows = [line for line in (TESTS / "CASES.md").read_text().splitlines() if re.match(r"\| [A-H]\d", line)]
    assert len(rows) > 30
    assert [text for row in rows for text in missing(row)] == []


def test_what_does_not_exist_is_found() -> None:
    row = "| A1 | right | `core/test_plan.py::test_a_*`, `::test_of_nobody`; `core/test_nothing.py`; `spec.conf` |"
    assert missing(row) == ["::test_of_nobody", "core/test_nothing.py"]
