"""`make mutants`: do the tests that need no root cover the decisions of core?

Each mutation changes one decision: a function returns at once, a comparison is flipped, a condition is negated, a
constant is changed. The tests that call the function must then fail. The tests are imported once; each mutation is
made in the memory of a child process, and no file of the tree is touched.
"""

from __future__ import annotations

import argparse
import ast
import hashlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from tests.mutants import simulator
from tests.mutants.loaded import key_of
from tests.mutants.mutations import Mutation, choose, functions, mutations
from tests.mutants.reach import Reach
from tests.mutants.run import INVALID, Outcome
from tests.mutants.session import SURVIVED, Session, run_session

ROOT = Path(__file__).resolve().parents[2]
CORE = "porterlb/core"
CONTROLS = 4
"""Before the mutations are judged, the tests of this many of them run without a mutation, and must pass."""

Row = dict[str, object]


def main() -> int:
    arguments = _arguments()
    if os.environ.get("PYTHONHASHSEED") != "0":  # the order of sets is the same in each run
        os.execve(sys.executable, sys.orig_argv, {**os.environ, "PYTHONHASHSEED": "0"})
    begun = time.monotonic()
    root: Path = arguments.root.resolve()
    every = find(root)
    chosen = every if arguments.all else choose(every, arguments.seed)
    chosen = [one for one in chosen if arguments.only in key_of(one.function)]
    with tempfile.TemporaryDirectory(prefix="porterlb-mutants-") as name:
        folder = Path(name)
        logs = [folder / f"{number}.log" for number in range(arguments.workers)]
        if arguments.judge == "sim":
            called = simulator.reached(root, sorted({one.function.path for one in chosen}), logs[0])
            chosen = [one for one in chosen if simulator.on_the_wire(one) and key_of(one.function) in called]
        if arguments.count:
            step = max(1, len(chosen) // arguments.count)
            chosen = chosen[::step][: arguments.count]
        table = Table(root, chosen, arguments.seed, arguments.json)
        if arguments.keep:
            table.keep(survivors=arguments.keep == "all")
        print(f"{len(chosen)} of {len(every)} mutations, {len(table.left)} to be judged", flush=True)
        if arguments.judge == "sim":
            complete = judge_by_simulator(root, table, logs, arguments.budget)
        else:
            complete = judge(root, table, logs, folder, arguments)
    if not complete:
        return 2
    print(f"\n{table.summary()}, {time.monotonic() - begun:.0f} s, seed {arguments.seed}")
    for line in table.survivors():
        print(line)
    return 0 if table.share >= arguments.at_least else 1


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.mutants", description=__doc__)
    parser.add_argument("--all", action="store_true", help="every mutation, not one of each function")
    parser.add_argument("--seed", type=int, default=1, help="another choice of one of each function")
    parser.add_argument("--only", default="", metavar="TEXT", help="functions whose file:name contains this")
    parser.add_argument("--count", type=int, default=0, help="at most this many, spread over all files")
    parser.add_argument("--tests", nargs="+", default=["tests"], metavar="PATH", help="run only these tests")
    parser.add_argument("--root", type=Path, default=ROOT, help="the tree")
    parser.add_argument(
        "--judge", choices=("tests", "sim"), default="tests", help="sim: the seeds of the simulator instead of tests"
    )
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--budget", type=float, default=60.0, help="seconds of tests against one mutation")
    parser.add_argument("--at-least", type=float, default=0.95, help="share that must be red; less is exit code 1")
    parser.add_argument("--map", type=Path, help="keep what each test calls here, and learn only what is new next time")
    parser.add_argument("--json", type=Path, help="write the table here after each mutation")
    parser.add_argument(
        "--keep", choices=("red", "all"), help="go on with the table of --json: judge again what is not red, or nothing"
    )
    return parser.parse_args()


def find(root: Path) -> list[Mutation]:
    """Every mutation of core in this tree."""
    files = sorted((root / CORE).rglob("*.py"))
    return [one for file in files for one in mutations(str(file.relative_to(root)), file.read_text())]


class Table:
    """The outcomes of the chosen mutations. The file is rewritten after each one, so that a run can be continued.

    A mutation that is no valid Python is left out: it would be red for an irrelevant reason.
    """

    def __init__(self, root: Path, chosen: list[Mutation], seed: int, file: Path | None) -> None:
        self._chosen, self._seed, self._file = list(chosen), seed, file
        self._rows: dict[str, Row] = {}
        self._digests: dict[str, str] = {}
        for path in {one.function.path for one in chosen}:
            for function, node in functions(path, ast.parse((root / path).read_text())):
                self._digests[key_of(function)] = hashlib.sha256(ast.unparse(node).encode()).hexdigest()[:12]
        self._commit = _commit(root)

    @property
    def left(self) -> list[Mutation]:
        """The mutations without an outcome."""
        return [one for one in self._chosen if self._name(one) not in self._rows]

    def keep(self, *, survivors: bool) -> None:
        """Take over the rows of the file whose functions are unchanged."""
        rows = json.loads(self._file.read_text())["rows"] if self._file and self._file.exists() else []
        names = {self._name(one) for one in self._chosen}
        for row in rows:
            if row["name"] in names and (survivors or row["outcome"] != "survived"):
                self._rows[row["name"]] = row

    def add(self, one: Mutation, outcome: Outcome, **more: object) -> None:
        if outcome.code == INVALID:
            self._chosen.remove(one)
            return
        said = "timed out" if outcome.code is None else "survived" if outcome.code == SURVIVED else "red"
        place = f"{one.function.path}:{one.line}"
        print(f"{said:9} {outcome.seconds:5.1f} s  {place:48} {one.function.name}: {one.words}  {outcome.said[:90]}")
        sys.stdout.flush()
        self._rows[self._name(one)] = {
            "name": self._name(one),
            "file": one.function.path,
            "line": one.line,
            "function": one.function.name,
            "mutation": one.words,
            "outcome": said,
            "noticed": outcome.said[:200] if said == "red" else "",
            "seconds": round(outcome.seconds, 1),
            "commit": self._commit,
            **more,
        }
        if self._file:
            self._file.parent.mkdir(parents=True, exist_ok=True)
            partial = self._file.with_suffix(".partial")
            rows = [self._rows[self._name(one)] for one in self._chosen if self._name(one) in self._rows]
            numbers = {"seed": self._seed, "mutants": len(rows), "red": self._red, "share": round(self.share, 4)}
            partial.write_text(json.dumps({**numbers, "rows": rows}, indent=1) + "\n")
            partial.replace(self._file)

    def _name(self, one: Mutation) -> str:
        """Stays the same while the function is unchanged, also if lines are added before it."""
        key = key_of(one.function)
        place = f"{one.line - one.function.line}.{one.column}"
        return f"{key} {self._digests[key]} {place} {one.words}"

    @property
    def _red(self) -> int:
        return sum(row["outcome"] != "survived" for row in self._rows.values())

    @property
    def share(self) -> float:
        return self._red / len(self._rows) if self._rows else 1.0

    def summary(self) -> str:
        return f"{self._red} of {len(self._rows)} red ({self.share:.1%})"

    def survivors(self) -> Iterator[str]:
        for one in self._chosen:
            row = self._rows[self._name(one)]
            if row["outcome"] == "survived":
                yield f"survived: {one.function.path}:{one.line} {one.function.name}: {one.words}"


def _commit(root: Path) -> str:
    """The commit of the tree, with a mark if files were edited since."""
    command = ["git", "describe", "--always", "--dirty", "--exclude=*"]
    return subprocess.run(command, cwd=root, check=False, capture_output=True, text=True).stdout.strip()


def judge(root: Path, table: Table, logs: list[Path], folder: Path, arguments: argparse.Namespace) -> bool:
    """Run the tests against each mutation that is left; whether it was possible."""
    complete = False

    def work(session: Session) -> None:
        nonlocal complete
        begun = time.monotonic()
        notes = session.learn(logs, arguments.map.resolve() if arguments.map else folder / "map")
        if notes is None:
            return
        print(f"{time.monotonic() - begun:.0f} s to learn which tests reach which function", flush=True)
        for note in notes:
            if note.failed:
                print(f"left out, for it fails without a mutation: {note.test}", flush=True)
        reach = Reach(notes)
        left = table.left
        for outcome, tests in session.control(left[:: max(1, len(left) // CONTROLS)], reach, logs, arguments.budget):
            if outcome.code != 0:
                print(f"The chosen tests fail without a mutation: {outcome.said} ({len(tests)} tests)")
                return
        for outcome, tests in session.judge(left, reach, logs, arguments.budget):
            table.add(left[outcome.job], outcome, tests=len(tests))
        complete = True

    code = run_session(root, CORE, arguments.tests, folder, work)
    if not complete:
        print(f"pytest's exit code is {code}")
    return complete


def judge_by_simulator(root: Path, table: Table, logs: list[Path], budget: float) -> bool:
    """Like `judge`; False if a promise is broken without a mutation."""
    for one, outcome in simulator.judge(root, table.left, logs, budget):
        if one is not None:
            table.add(one, outcome)
        elif outcome.code != 0:
            print(f"The seeds fail without a mutation: {outcome.said}")
            return False
    return True


if __name__ == "__main__":
    sys.exit(main())
