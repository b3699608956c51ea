"""No input makes a reader raise: a few seconds of coverage-guided fuzzing; `make fuzz` runs longer."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest

from tests.fuzz.__main__ import NAMES, OUT, ROOT

SECONDS = 15
SLOW = 300
"""Seconds for one input: these tests run at idle priority."""
LEAST = 300
"""Inputs. An idle processor does thousands per second; these tests get only the remaining processor time."""


def fuzz(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "tests.fuzz", "--slow", str(SLOW), *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=600)


@pytest.mark.parametrize("name", NAMES)
def test_no_input_makes_a_reader_raise(name: str) -> None:
    done = fuzz(name, "--seconds", str(SECONDS))
    assert done.returncode == 0, done.stdout + done.stderr
    found = re.fullmatch(rf"{name}: ([\d,]+) inputs, no fault\n", done.stdout)
    assert found, done.stdout
    assert int(found[1].replace(",", "")) >= LEAST


def test_a_fault_is_found_and_its_input_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """A reader that raises for one value of a byte, like a reader with a missing check."""
    monkeypatch.setenv("PORTERLB_FUZZ_PLANTED", "1")
    done = fuzz("bfd", "--seconds", "60")
    assert done.returncode != 0
    assert done.stdout.endswith("FAULT\n")
    (kept,) = OUT.glob("bfd-crash-*")
    try:
        assert "planted" in done.stderr
        again = fuzz("bfd", "--input", str(kept))
        assert again.returncode != 0 and "planted" in again.stderr
        monkeypatch.delenv("PORTERLB_FUZZ_PLANTED")
        assert fuzz("bfd", "--input", str(kept)).returncode == 0
    finally:
        kept.unlink()
