"""One pytest session in which all tests are imported once. Children of its process learn what each test calls, and run
the tests against a mutation."""

from __future__ import annotations

import functools
import hashlib
import importlib
import json
import signal
import sys
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from types import FrameType

import pytest
from _pytest.runner import runtestprotocol
from hypothesis import HealthCheck, Phase, settings

from tests.mutants.loaded import Loaded, import_mutated, key_of
from tests.mutants.mutations import Mutation, compiles
from tests.mutants.reach import Note, Reach
from tests.mutants.run import INVALID, Job, Outcome, enter, jobs

FLAGS = (
    "-q",
    "--assert=plain",
    "--capture=sys",
    "--timeout=0",
    "-p",
    "no:cacheprovider",
    "-m",
    "not lab and not cluster",
)

SETTINGS = "_hypothesis_internal_use_settings"  # the attribute in which hypothesis keeps a test's settings

FEW = 10
"""Examples of a property test while the calls are recorded."""

ENDLESS = 2.0
"""A mutated test may use this many seconds of processor time more than TIMES its recorded time: a mutation can make a
loop endless."""
TIMES = 10

LEARNING = 3600.0
"""Seconds of processor time for one run of all tests."""

SURVIVED, RED = 0, 1


class Plugin:
    """Gives the collected tests to ``work`` instead of running them."""

    def __init__(self, work: Callable[[list[pytest.Item]], None]) -> None:
        self._work = work

    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        if session.testsfailed:
            raise session.Interrupted("the tests cannot be collected")
        for item in session.items:
            _configure(item)
        self._work(session.items)
        return True


class Only:
    """Runs these tests, in this order, and no others."""

    def __init__(self, tests: Collection[str]) -> None:
        self._rank = {test: rank for rank, test in enumerate(tests)}

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        items[:] = sorted((one for one in items if one.nodeid in self._rank), key=lambda one: self._rank[one.nodeid])
        for item in items:
            _configure(item)


def _configure(item: pytest.Item, most: int | None = None) -> float:
    """Make a property test run at most ``most`` of its examples; returns the share of them. The first example that
    fails is enough, and a busy machine makes examples slow."""
    test = getattr(item, "obj", None)
    test = getattr(test, "__func__", test)
    if not hasattr(test, SETTINGS):
        return 1.0
    own = _OWN_SETTINGS.setdefault(test, getattr(test, SETTINGS))
    examples = min(own.max_examples, most or own.max_examples)
    phases = (Phase.explicit, Phase.generate)
    checks = list(HealthCheck)
    short = settings(own, max_examples=examples, phases=phases, database=None, suppress_health_check=checks)
    setattr(test, SETTINGS, short)
    return examples / own.max_examples


_OWN_SETTINGS: dict[object, settings] = {}
"""By test function: several items share one."""


def run_session(root: Path, core: str, files: Sequence[str], folder: Path, work: Callable[[Session], None]) -> int:
    """Import the tests of these files or folders, and give the session to ``work``; pytest's exit code."""
    enter(root)
    imported = _import(root, core)

    def begin(items: list[pytest.Item]) -> None:
        work(Session(root, core, items, imported))

    flags = [*FLAGS, f"--basetemp={folder / 'basetemp'}", "--ignore=tests/mutants"]
    return int(pytest.main([*flags, *files], plugins=[Plugin(begin)]))


def _import(root: Path, core: str) -> frozenset[str]:
    """Import core; the keys of the functions that this calls, whose results are in its modules."""
    prefix = str(root / core)
    called: set[str] = set()

    def note(frame: FrameType, event: str, _: object) -> None:
        code = frame.f_code
        if event == "call" and code.co_filename.startswith(prefix):
            called.add(f"{code.co_filename[len(str(root)) + 1 :]}:{code.co_qualname}")

    sys.setprofile(note)
    try:
        for file in sorted((root / core).rglob("*.py")):
            importlib.import_module(".".join(file.relative_to(root).with_suffix("").parts).removesuffix(".__init__"))
    finally:
        sys.setprofile(None)
    return frozenset(called)


class Session:
    """The collected tests. A value that a test module computes when it is imported is that of the unchanged code."""

    def __init__(self, root: Path, core: str, items: list[pytest.Item], imported: frozenset[str]) -> None:
        self._root = root
        self._items = {item.nodeid: item for item in items}
        self._imported = imported
        self._loaded = Loaded(root, sorted(str(one.relative_to(root)) for one in (root / core).rglob("*.py")))
        self._digests: dict[str, str] = {}

    def learn(self, logs: list[Path], kept: Path) -> list[Note] | None:
        """What each test calls. ``kept`` is the file with the notes of earlier runs: only tests without a note, or of
        a file that has changed since, run. None if a child fails."""
        notes = self._notes(kept)
        items = [item for test, item in self._items.items() if test not in notes]

        def share(number: int) -> int:
            recording = self._loaded.recording()
            with kept.open("a") as out:
                for item, following in _pairs(items[number :: len(logs)]):
                    part = _configure(item, FEW)
                    self._loaded.clear_caches()
                    begun = time.process_time()  # the wall clock is no measure on a busy machine
                    recording.start()
                    failed = any(one.failed for one in runtestprotocol(item, log=False, nextitem=following))
                    seconds = round((time.process_time() - begun) / part, 4)
                    called = tuple(recording.called())
                    digest = self._digest(item.nodeid)
                    note = Note(item.nodeid, digest, called, seconds, some=part < 1, failed=failed)
                    out.write(json.dumps(asdict(note)) + "\n")
                    out.flush()
            return 0

        work: list[Job] = [functools.partial(share, number) for number in range(len(logs))]
        for outcome in jobs(work, logs, [LEARNING] * len(work)) if items else ():
            if outcome.code != 0:
                print(f"The tests do not run: {outcome.said}", flush=True)
                return None
        return list(self._notes(kept).values())

    def _notes(self, kept: Path) -> dict[str, Note]:
        """The notes of tests that are collected and whose files are unchanged."""
        lines = kept.read_text().splitlines() if kept.exists() else []
        notes = (Note(**json.loads(line)) for line in lines)
        return {one.test: one for one in notes if one.test in self._items and one.digest == self._digest(one.test)}

    def _digest(self, test: str) -> str:
        file = test.split("::", maxsplit=1)[0]
        if file not in self._digests:
            self._digests[file] = hashlib.sha256((self._root / file).read_bytes()).hexdigest()[:12]
        return self._digests[file]

    def judge(
        self, mutations: Sequence[Mutation], reach: Reach, logs: list[Path], budget: float
    ) -> Iterator[tuple[Outcome, list[str]]]:
        """Run the tests that reach it against each mutation; yields the outcomes with the tests. The last line that a
        child writes is the test that has failed."""
        return self._run(self._against, mutations, reach, logs, budget)

    def control(
        self, mutations: Sequence[Mutation], reach: Reach, logs: list[Path], budget: float
    ) -> Iterator[tuple[Outcome, list[str]]]:
        """The same without the mutations."""
        return self._run(lambda _, tests, reach: self._first_failure(tests, reach), mutations, reach, logs, budget)

    def _run(
        self,
        against: Callable[[Mutation, Sequence[str], Reach], int],
        mutations: Sequence[Mutation],
        reach: Reach,
        logs: list[Path],
        budget: float,
    ) -> Iterator[tuple[Outcome, list[str]]]:
        tests = [reach.tests(one.function, budget) for one in mutations]
        limits = [30.0 + 2 * reach.seconds(own) for own in tests]
        work: list[Job] = [
            functools.partial(against, one, own, reach) for one, own in zip(mutations, tests, strict=True)
        ]
        for outcome in jobs(work, logs, limits):
            yield outcome, tests[outcome.job]

    def _against(self, mutation: Mutation, tests: Sequence[str], reach: Reach) -> int:
        if not compiles(mutation.applied(self._loaded.sources[mutation.function.path])):
            return INVALID
        objects = self._loaded.objects(mutation.function)
        if objects:
            self._loaded.apply(mutation)
            if self._first_failure(tests, reach) == RED:
                return RED
        if tests and (not objects or key_of(mutation.function) in self._imported):
            return self._imported_anew(mutation, tests)
        return SURVIVED

    def _first_failure(self, tests: Sequence[str], reach: Reach) -> int:
        """Run these tests until one fails."""
        for item, following in _pairs([self._items[test] for test in tests]):
            # SIGPROF ends the process.
            signal.setitimer(signal.ITIMER_PROF, ENDLESS + TIMES * reach.seconds([item.nodeid]))
            if any(one.failed for one in runtestprotocol(item, log=False, nextitem=following)):
                print(f"\n{item.nodeid}")
                return RED
        signal.setitimer(signal.ITIMER_PROF, 0)
        return SURVIVED

    def _imported_anew(self, mutation: Mutation, tests: Sequence[str]) -> int:
        """Import everything with the mutation, and run the tests in another session."""
        enter(self._root)
        import_mutated(self._root, mutation)
        files = list(dict.fromkeys(test.split("::")[0] for test in tests))
        code = pytest.main([*FLAGS, "-x", *files], plugins=[Only(tests)])
        print(f"\nimported anew: exit code {int(code)}")
        return SURVIVED if code in (pytest.ExitCode.OK, pytest.ExitCode.NO_TESTS_COLLECTED) else RED


def _pairs(items: Sequence[pytest.Item]) -> Iterator[tuple[pytest.Item, pytest.Item | None]]:
    """Each test with the next one, for whose fixtures pytest asks."""
    return zip(items, [*items[1:], None], strict=False)
