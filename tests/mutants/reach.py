"""Which tests reach which functions: in a copy of the tree, each function of core records its calls."""

from __future__ import annotations

import ast
import sys
import time
from collections.abc import Collection, Generator, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

from tests.mutants.mutations import Function, functions

RECORDER = "porterlb_mutants_recorder"

FEW = 5
"""Examples of a property test while the calls are recorded."""

SETTINGS = "_hypothesis_internal_use_settings"  # the attribute in which hypothesis keeps a test's settings


def recorded(path: str, source: str) -> str:
    """The source, with a call of the recorder at the start of each function."""
    found = functions(path, source)
    lines = source.splitlines(keepends=True)
    for function, node in sorted(found, key=lambda one: -one[0].line):
        body = node.body[1:] if ast.get_docstring(node, clean=False) is not None else node.body
        first = body[0]
        if first.lineno == node.lineno:
            continue
        start = min([first.lineno, *(one.lineno for one in getattr(first, "decorator_list", ()))])
        lines.insert(start - 1, f"{' ' * first.col_offset}_CALLED.add({key_of(function)!r})\n")
    # Every call executes this: a module-level name costs a fifth of an import.
    begin = _after_futures(source)
    lines.insert(begin, f"from {RECORDER} import CALLED as _CALLED\n")
    return "".join(lines)


def _after_futures(source: str) -> int:
    """The line after the docstring and the imports from __future__, counted from 0."""
    end = 0
    for node in ast.parse(source).body:
        docstring = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
        if not docstring and not (isinstance(node, ast.ImportFrom) and node.module == "__future__"):
            break
        end = node.end_lineno or 0
    return end


def key_of(function: Function) -> str:
    """The recorder's name for the function."""
    return f"{function.path}:{function.name}"


class Recorder:
    """A pytest plugin that records which functions each test has called, and the seconds of processor time used.

    Calls by a fixture of a wider scope count for the test that created it.
    """

    def __init__(self) -> None:
        self.CALLED: set[str] = set()
        self.imported: set[str] = set()  # called before the first test, by imports
        self.called: dict[str, list[str]] = {}
        self.seconds: dict[str, float] = {}
        self.failed: set[str] = set()
        self._examples: dict[str, int] = {}
        sys.modules[RECORDER] = self  # type: ignore[assignment]

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        """A property test runs few examples: they call the same functions as many examples."""
        for item in items:
            test = getattr(item, "obj", None)
            test = getattr(test, "__func__", test)
            found = getattr(test, SETTINGS, None)
            if found is None or test is None:
                continue
            original = getattr(test, "_examples_before", found.max_examples)
            test._examples_before = original
            self._examples[item.nodeid] = original
            setattr(test, SETTINGS, settings(found, max_examples=min(original, FEW)))

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Generator[None, object, object]:
        if not self.called:
            self.imported |= self.CALLED
        self.CALLED.clear()
        begun = time.process_time()  # the wall clock is no measure on a busy machine
        try:
            return (yield)
        finally:
            self.called[item.nodeid] = sorted(self.CALLED)
            more = max(1.0, self._examples.get(item.nodeid, FEW) / FEW)
            self.seconds[item.nodeid] = (time.process_time() - begun) * more

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.failed:
            self.failed.add(report.nodeid)

    def notes(self) -> dict[str, object]:
        """The input of :class:`Reach`, for JSON. A failed test is omitted: it says nothing about a mutation."""
        passed = {test: keys for test, keys in self.called.items() if test not in self.failed}
        return {
            "called": passed,
            "imported": sorted(self.imported),
            "seconds": self.seconds,
            "failed": sorted(self.failed),
        }


class Reach:
    """The merged notes of all runs."""

    def __init__(self, notes: list[dict[str, Any]]) -> None:
        self._seconds: dict[str, float] = {}
        self._tests: dict[str, list[str]] = {}
        self.failed: set[str] = set()
        for note in notes:
            self._seconds.update(note["seconds"])
            self.failed.update(note["failed"])
            for test, keys in note["called"].items():
                for key in [*keys, *note["imported"]]:
                    self._tests.setdefault(key, []).append(test)

    def tests(self, function: Function, budget: float) -> list[str]:
        """The tests that call the function: those named after its module first, then those of core, fast ones first,
        for at most about ``budget`` seconds. Tests of one file stay together because of their fixtures."""
        own = self._tests.get(key_of(function), [])
        files: dict[str, list[str]] = {}
        for test in sorted(own, key=lambda one: (self._seconds.get(one, 0.0), one)):
            files.setdefault(test.split("::")[0], []).append(test)

        module = Path(function.path).stem

        def cost(file: str) -> tuple[bool, bool, float, str]:
            seconds = sum(self._seconds.get(one, 0.0) for one in files[file])
            return module not in file, not file.startswith("tests/core/"), seconds, file

        chosen: list[str] = []
        spent = 0.0
        for file in sorted(files, key=cost):
            for test in files[file]:
                spent += self._seconds.get(test, 0.0)
                if chosen and spent > budget:
                    return chosen
                chosen.append(test)
        return chosen

    def stages(self, function: Function, tests: Sequence[str]) -> list[list[str]]:
        """The tests in two runs: those named after the module, which detect most mutations, then the others."""
        module = Path(function.path).stem
        named = [test for test in tests if module in test.split("::")[0]]
        return [stage for stage in (named, [test for test in tests if test not in set(named)]) if stage]

    def seconds(self, tests: Collection[str]) -> float:
        """The recorded duration of these tests."""
        return sum(self._seconds.get(one, 0.0) for one in tests)


class Only:
    """A pytest plugin that runs these tests, in this order, and no others."""

    def __init__(self, tests: Collection[str]) -> None:
        self._rank = {test: rank for rank, test in enumerate(tests)}

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        items[:] = sorted((one for one in items if one.nodeid in self._rank), key=lambda one: self._rank[one.nodeid])


def record(root: Path, paths: Collection[str]) -> None:
    """Make the functions of these files in the copied tree record their calls.

    Programs that a test starts import the recorder from the copy, where its records are not read.
    """
    (root / f"{RECORDER}.py").write_text("CALLED: set[str] = set()\n")
    for path in paths:
        file = root / path
        file.write_text(recorded(path, file.read_text()))
