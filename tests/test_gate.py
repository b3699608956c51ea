"""The gate runs every test, and a test that fails twice fails it."""

from __future__ import annotations

import sys
import threading
from pathlib import Path

import pytest

from lab.measure import wait_until
from tests import gate


class Told(gate.Part):
    """A part whose second run ends with a given code."""

    second = 0

    def again(self) -> int:
        """No second run."""
        return self.second


def told(code: int, second: int = 0) -> Told:
    part = Told("x", [], (), code)
    part.second = second
    return part


def test_every_test_file_is_in_one_lane() -> None:
    assert all((gate.TESTS / name).exists() for name in (*gate.PROCESSOR, gate.LAB, gate.CLUSTER))
    lanes = [*gate.others(), *gate.PROCESSOR, gate.LAB, gate.CLUSTER]
    files = {path.relative_to(gate.TESTS).parts[0] for path in gate.TESTS.glob("**/test_*.py")}
    assert sorted(lanes) == sorted(files)


@pytest.mark.parametrize(
    ("parts", "code"),
    [
        ([told(0), told(gate.NONE)], 0),
        ([told(0), told(gate.FAILED, second=0)], 0),
        ([told(gate.FAILED, second=0), told(gate.FAILED, second=1)], 1),
        ([told(2), told(0)], 2),  # interrupted, or a wrong option
        ([told(2), told(gate.FAILED, second=0)], 2),
        ([told(-15), told(0)], 1),  # killed
    ],
)
def test_what_fails_twice_fails(parts: list[gate.Part], code: int) -> None:
    assert gate.verdict(parts) == code


def test_the_second_run_is_of_failed_tests_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One test fails at first. Another test may run only once."""
    (tmp_path / "tests").mkdir()
    (tmp_path / "tests" / "test_one.py").write_text(
        "from pathlib import Path\n"
        "def test_once():\n    with Path('once').open('x'): pass\n"
        "def test_twice():\n    with Path('twice').open('a') as f: print(file=f)\n"
        "    assert len(Path('twice').read_text()) == 2\n"
    )
    monkeypatch.setattr(gate, "ROOT", tmp_path)
    monkeypatch.setattr(gate, "TESTS", tmp_path / "tests")
    part = gate.Part("one", ["test_one.py"])
    with (tmp_path / "output").open("w+b") as output:
        beside = gate.Beside([part], output, gate.IDLE)
        beside.start()
        beside.join()
    assert part.code == gate.FAILED
    assert gate.verdict([part]) == 0
    assert (tmp_path / "twice").read_text() == "\n\n"


def test_a_lane_that_is_stopped_starts_nothing_more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gate, "BUILD", [sys.executable, "-c", "import time; time.sleep(60)"])
    with (tmp_path / "output").open("w+b") as output:
        beside = gate.Beside([gate.Part("none", ["core"])], output, first=gate.BUILD)
        beside.start()
        beside.started.wait(20)
        beside.stop()
        beside.join()
        assert not output.read()
    assert beside.parts[0].code == gate.FAILED


def test_a_part_waits_for_what_it_needs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The tests on the control plane wait for the build of Kubernetes' programs."""
    (tmp_path / "tests").mkdir()
    for name in ("one", "two"):
        test = f"from pathlib import Path\ndef test_it():\n    Path('{name}').touch()\n"
        (tmp_path / "tests" / f"test_{name}.py").write_text(test)
    monkeypatch.setattr(gate, "ROOT", tmp_path)
    monkeypatch.setattr(gate, "TESTS", tmp_path / "tests")
    built = threading.Event()
    parts = [gate.Part(name, [f"test_{name}.py"]) for name in ("one", "two")]
    with (tmp_path / "output").open("w+b") as output:
        beside = gate.Beside(parts, output, after={"two": built})
        beside.start()
        wait_until((tmp_path / "one").exists, 30, "the first part")
        assert not (tmp_path / "two").exists()
        built.set()
        beside.join()
    assert (tmp_path / "two").exists()
    assert [part.code for part in parts] == [0, 0]
