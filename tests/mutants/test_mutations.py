"""The mutations themselves: every decision function of core has one, and a test that covers a decision detects it."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from importlib.machinery import SourceFileLoader
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType

import pytest

from tests.mutants.__main__ import CORE, ROOT, find
from tests.mutants.loaded import Loaded, import_mutated
from tests.mutants.mutations import Kind, choose, compiles, functions, mutations
from tests.mutants.reach import Note, Reach
from tests.mutants.simulator import FIRST, SEEDS, on_the_wire

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

CACHED = """

@functools.lru_cache
def double(a: int) -> int:
    return a * 2
"""


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


def load(tmp_path: Path, name: str) -> tuple[ModuleType, Loaded]:
    """The module of SOURCE, with a cached function, and its functions."""
    file = tmp_path / f"{name}.py"
    file.write_text("import functools\n" + SOURCE + CACHED)
    spec = spec_from_file_location(f"porterlb.{name}", file)
    assert spec and spec.loader
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module, Loaded(tmp_path, [file.name])


def test_a_mutation_in_memory_reaches_who_imported_the_function_and_results_that_were_kept(tmp_path: Path) -> None:
    module, loaded = load(tmp_path, "memory")
    imported, door = module.names, module.Door(True)
    assert (imported(), door.push(1, 5), module.double(2)) == (("b",), 6, 4)
    for one in mutations("memory.py", loaded.sources["memory.py"]):
        if one.words in (
            "returns at once: return ()",
            "constant changed: 2 -> 3",
            "comparison flipped: force > LIMIT -> (force <= LIMIT)",
        ):
            loaded.apply(one)
    assert (imported(), door.push(1, 5), module.double(2)) == ((), 5, 6)


def test_calls_are_recorded_once_for_each_start(tmp_path: Path) -> None:
    module, loaded = load(tmp_path, "calls")
    recording = loaded.recording()
    recording.start()
    door = module.Door(True)
    assert [door.push(4, 5), door.push(4, 5)] == [5, 5]
    assert recording.called() == ["calls.py:Door.__init__", "calls.py:Door.push"]
    recording.start()
    assert (module.double(2), door.push(4, 5)) == (4, 5)
    assert recording.called() == ["calls.py:Door.push", "calls.py:double"]


def test_a_module_that_is_imported_later_has_the_mutation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(SourceFileLoader, "get_code", SourceFileLoader.get_code)
    source = "import functools\n" + SOURCE + CACHED
    (tmp_path / "later.py").write_text(source)
    (one,) = [one for one in mutations("later.py", source) if one.words == "constant changed: 2 -> 3"]
    import_mutated(tmp_path, one)
    module, _ = load(tmp_path, "later")
    assert module.double(2) == 6


def test_the_tests_of_a_function_are_those_that_call_it_then_those_whose_other_examples_may() -> None:
    (push,) = [one for one, _ in functions("core/door.py", ast.parse(SOURCE)) if one.name == "Door.push"]

    def note(test: str, *called: str, seconds: float = 1.0, some: bool = False, failed: bool = False) -> Note:
        return Note(f"tests/{test}", "", tuple(f"core/{one}" for one in called), seconds, some, failed)

    reach = Reach(
        [
            note("test_far.py::test_fast", "door.py:Door.push"),
            note("core/test_house.py::test_slow", "door.py:Door.push", seconds=3),
            note("core/test_house.py::test_fast", "door.py:Door.push"),
            note("core/test_door.py::test_push", "door.py:Door.push", seconds=2),
            note("core/test_door.py::test_fails", "door.py:Door.push", failed=True),
            note("core/test_door.py::test_some_examples", "door.py:names", some=True),
            note("core/test_door.py::test_names", "door.py:names"),
            note("core/test_wall.py::test_some_examples", "wall.py:names", some=True),
        ]
    )
    order = [
        "tests/core/test_door.py::test_push",
        "tests/core/test_house.py::test_fast",
        "tests/core/test_house.py::test_slow",
        "tests/test_far.py::test_fast",
        "tests/core/test_door.py::test_some_examples",
    ]
    assert reach.tests(push, 60) == order
    assert reach.tests(push, 6) == order[:3]
    assert reach.tests(push, 0.1) == order[:1]
    assert reach.seconds(order) == 8


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
        "def held(a: int) -> bool:\n    return a > 1\n\n\ndef free(a: int) -> bool:\n    return a > 1\n\n\n"
        "def early(a: int) -> bool:\n    return a > 1\n\n\nEARLY = early(2)\n\n\n"
        "def rare(a: int) -> int:\n    while a > 500:\n        a = 0\n    return a\n\n\n"
        "def enter(a: int) -> int:\n    return rare(a) if a > 500 else 0\n"
    )
    (tests / "test_small.py").write_text(
        "from hypothesis import given, settings\nfrom hypothesis import strategies as st\n\n"
        "from porterlb.core.small import EARLY, early, enter, free, held\n\n\n"
        "def test_held() -> None:\n    assert held(2) and not held(1)\n    free(3)\n\n\n"
        "def test_early() -> None:\n    early(2)\n    assert EARLY\n\n\n"
        "@settings(max_examples=300)\n@given(st.integers(1, 520))\n"
        "def test_rare(a) -> None:\n    assert enter(a) == 0\n"
    )
    (tmp_path / "pyproject.toml").write_text('[tool.pytest.ini_options]\nmarkers = ["lab", "cluster"]\n')
    subprocess.run(["git", "init", "-q", str(tmp_path)], check=True)
    command = [sys.executable, "-m", "tests.mutants", "--all", "--root", str(tmp_path), "--json", str(tmp_path / "out")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=900)
    assert done.returncode == 1, done.stdout + done.stderr
    rows = json.loads((tmp_path / "out").read_text())["rows"]
    outcomes = {row["function"]: set[str]() for row in rows}
    for row in rows:
        outcomes[row["function"]].add(row["outcome"])
    assert outcomes["held"] == {"red"} and outcomes["free"] == {"survived"}
    assert outcomes["early"] == {"red", "survived"}  # the constant may be 2 for this test
    assert "red" in outcomes["rare"]  # few examples reach it
    assert "survived: porterlb/core/small.py:6 free" in done.stdout
    survivors = sum(row["outcome"] == "survived" for row in rows)
    again = subprocess.run(
        [*command, "--keep", "red"], cwd=ROOT, capture_output=True, text=True, check=False, timeout=900
    )
    assert f"{len(rows)} of {len(rows)} mutations, {survivors} to be judged" in again.stdout
    kept = json.loads((tmp_path / "out").read_text())["rows"]
    assert [row["name"] for row in kept] == [row["name"] for row in rows]
    # Other examples may find a mutation of `rare` that survived the first time.
    assert [row["outcome"] for row in kept if row["function"] != "rare"] == [
        row["outcome"] for row in rows if row["function"] != "rare"
    ]


def test_the_simulator_judges_what_decides_about_the_wire() -> None:
    wire, read = (
        mutations(path, SOURCE)[0] for path in ("porterlb/core/layer2/serving.py", "porterlb/core/status/serving.py")
    )
    assert on_the_wire(wire) and not on_the_wire(read)


def test_the_simulator_judges_with_fifty_seeds_the_fast_ones_first() -> None:
    assert len(set(SEEDS)) == len(SEEDS) == 50 and SEEDS[: len(FIRST)] == FIRST
