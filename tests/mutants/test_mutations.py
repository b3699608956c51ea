"""The mutations themselves: every decision function of core has one, and a test that covers a decision detects it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from tests.mutants.__main__ import CORE, ROOT, find
from tests.mutants.mutations import Kind, choose, compiles, functions, mutations
from tests.mutants.reach import key_of, recorded
from tests.mutants.simulator import calls, on_the_wire

SOURCE = '''
"""Text."""

LIMIT = 3


class Door:
    """A door."""

    def __init__(self, open_: bool) -> None:
        self.open = open_

    def push(self, force: float, state: float) -> float:
        """Pushes."""
        assert force >= 0, f"{force < 0}"
        if self.open and not force > LIMIT:
            return state + 1
        return state

    def __repr__(self) -> str:
        return "Door" if self.open else "Wall"


def names() -> tuple[str, ...]:
    return tuple(name for name in ("a", "b") if name != "a")


def stub() -> None:
    """Nothing."""
'''


def test_what_is_changed() -> None:
    found = mutations("door.py", SOURCE)
    assert {(one.function.name, one.kind, one.was.strip(), one.text.split(";")[0].strip()) for one in found} == {
        ("Door.push", Kind.RETURN, "", "return force"),
        ("Door.push", Kind.BOOLEAN, "self.open and not force > LIMIT", "(self.open or not force > LIMIT)"),
        ("Door.push", Kind.BOOLEAN, "not force > LIMIT", "bool(force > LIMIT)"),
        ("Door.push", Kind.COMPARISON, "force > LIMIT", "(force <= LIMIT)"),
        ("Door.push", Kind.CONSTANT, "1", "2"),
        ("names", Kind.RETURN, "", "return ()"),
        ("names", Kind.COMPARISON, "name != 'a'".replace("'", '"'), "(name == 'a')"),
    }
    for one in found:
        changed = one.applied(SOURCE)
        assert changed != SOURCE
        compile(changed, "door.py", "exec")


def test_the_recorder_is_called_by_every_function() -> None:
    text = recorded("door.py", SOURCE)
    compile(text, "door.py", "exec")
    assert text.count("_CALLED.add") == len(functions("door.py", SOURCE)) == 3


def test_every_function_of_core_that_decides_has_a_mutation_and_the_choice_is_the_same_each_time() -> None:
    every = find(ROOT)
    chosen = choose(every, 1)
    assert len(chosen) >= 40 and chosen == choose(every, 1) != choose(every, 2)
    assert {one.function for one in every if one.function.public} <= {one.function for one in chosen}
    assert {one.kind for one in chosen} == set(Kind)
    sample = chosen[::20]
    assert all(compiles(one.applied((ROOT / one.function.path).read_text())) for one in sample)


def test_a_decision_without_a_test_survives_and_one_with_a_test_does_not(tmp_path: Path) -> None:
    """The whole tool, applied to a tree of two functions."""
    core, tests = tmp_path / CORE, tmp_path / "tests"
    core.mkdir(parents=True)
    tests.mkdir()
    for folder in (core, core.parent, tests):
        (folder / "__init__.py").write_text("")
    (core / "small.py").write_text(
        "def held(a: int) -> bool:\n    return a > 1\n\n\ndef free(a: int) -> bool:\n    return a > 1\n"
    )
    (tests / "test_small.py").write_text(
        "from porterlb.core.small import free, held\n\n\n"
        "def test_held() -> None:\n    assert held(2) and not held(1)\n    free(3)\n"
    )
    (tmp_path / "pyproject.toml").write_text('[tool.pytest.ini_options]\nmarkers = ["lab", "cluster"]\n')
    subprocess.run(["git", "init", "-q", str(tmp_path)], check=True)
    command = [sys.executable, "-m", "tests.mutants", "--all", "--root", str(tmp_path), "--json", str(tmp_path / "out")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 1, done.stdout + done.stderr
    rows = json.loads((tmp_path / "out").read_text())["rows"]
    assert {(row["function"], row["outcome"]) for row in rows} == {("held", "red"), ("free", "survived")}
    assert len(rows) == 8 and "survived: porterlb/core/small.py:6 free" in done.stdout


def test_the_simulator_judges_what_decides_about_the_wire_and_is_called() -> None:
    (serving,) = [one for one in functions("porterlb/core/layer2/serving.py", SOURCE) if one[0].name == "Door.push"]
    assert calls([key_of(serving[0])], serving[0]) and not calls([], serving[0])
    wire, read = (
        mutations(path, SOURCE)[0] for path in ("porterlb/core/layer2/serving.py", "porterlb/core/status/serving.py")
    )
    assert on_the_wire(wire) and not on_the_wire(read)
