"""Which tests reach which function, and which of them judge a mutation of it."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from pathlib import Path

from tests.mutants.loaded import key_of
from tests.mutants.mutations import Function


@dataclass(frozen=True, slots=True)
class Note:
    """One run of one test. ``digest``: of the file of the test. ``seconds``: of processor time, for all examples.
    ``some``: only some examples of a property test ran."""

    test: str
    digest: str
    called: tuple[str, ...]
    seconds: float
    some: bool
    failed: bool


class Reach:
    """What the notes of all tests say. A test that fails without a mutation says nothing about one.

    The other examples of a property test may call more functions: it counts for every function of the files that some
    examples have entered.
    """

    def __init__(self, notes: Iterable[Note]) -> None:
        self._seconds: dict[str, float] = {}
        self._tests: dict[str, set[str]] = {}  # by function
        self._entered: dict[str, set[str]] = {}  # by file
        for note in notes:
            if note.failed:
                continue
            self._seconds[note.test] = note.seconds
            for key in note.called:
                self._tests.setdefault(key, set()).add(note.test)
                if note.some:
                    self._entered.setdefault(key.split(":", maxsplit=1)[0], set()).add(note.test)

    def tests(self, function: Function, budget: float) -> list[str]:
        """The tests that call the function, and then those that may call it, for at most about ``budget`` seconds.
        Those named after its module are the first of each, then those of core, fast ones first."""
        module = Path(function.path).stem

        direct = self._tests.get(key_of(function), set())

        def order(test: str) -> tuple[bool, bool, bool, float, str]:
            file = test.split("::", maxsplit=1)[0]
            return test not in direct, module not in file, not file.startswith("tests/core/"), self._seconds[test], test

        chosen: list[str] = []
        spent = 0.0
        for test in sorted(direct | self._entered.get(function.path, set()), key=order):
            spent += self._seconds[test]
            if chosen and spent > budget:
                break
            chosen.append(test)
        return chosen

    def seconds(self, tests: Collection[str]) -> float:
        """The recorded duration of these tests."""
        return sum(self._seconds[test] for test in tests)
