"""`make mutants`: do the tests that need no root cover the decisions of core?

Each mutation changes one decision: a function returns at once, a comparison is flipped, a condition is negated, a
constant is changed. The tests that call the function must then fail. All runs use copies of the tree.
"""

from __future__ import annotations

import argparse
import functools
import json
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from tests.mutants import simulator
from tests.mutants.mutations import Mutation, choose, compiles, mutations
from tests.mutants.reach import Only, Reach, Recorder, record
from tests.mutants.run import Outcome, copy_tree, jobs, preload, run_tests

ROOT = Path(__file__).resolve().parents[2]
CORE = "porterlb/core"
Job = Callable[[Path], int]
Row = dict[str, object]


def main() -> int:
    arguments = _arguments()
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="porterlb-mutants-") as folder:
        copies = [Path(folder) / str(number) for number in range(arguments.workers)]
        for copy in copies:
            copy_tree(arguments.root, copy)
        every = find(copies[0])
        chosen = every if arguments.all else choose(every, arguments.seed)
        chosen = [one for one in chosen if arguments.only in f"{one.function.path}:{one.function.name}"]
        texts = {one.function.path: (copies[0] / one.function.path).read_text() for one in chosen}
        chosen = [one for one in chosen if compiles(one.applied(texts[one.function.path]))]
        if arguments.judge == "sim":
            called = simulator.reached(copies[0], sorted(texts))
            chosen = [one for one in chosen if simulator.on_the_wire(one) and simulator.calls(called, one.function)]
        if arguments.count:
            step = max(1, len(chosen) // arguments.count)
            chosen = chosen[::step][: arguments.count]
        print(f"{len(chosen)} of {len(every)} mutations", flush=True)
        if arguments.judge == "sim":
            return report(arguments, judge_by_simulator(chosen, copies, arguments.budget), began)
        reach = reached(copies, arguments.root / arguments.tests, arguments.map)
        if reach is None:
            return 2
        print(f"{time.monotonic() - began:.0f} s to learn which tests reach which function", flush=True)
        rows = judge(chosen, reach, copies, arguments.budget)
    return report(arguments, rows, began)


def report(arguments: argparse.Namespace, rows: list[Row] | None, began: float) -> int:
    """Prints and writes the table; returns the exit code."""
    if rows is None:
        return 2
    red = sum(row["outcome"] != "survived" for row in rows)
    share = red / len(rows) if rows else 1.0
    print(f"\n{red} of {len(rows)} red ({share:.1%}), {time.monotonic() - began:.0f} s, seed {arguments.seed}")
    for row in rows:
        if row["outcome"] == "survived":
            print(f"survived: {row['file']}:{row['line']} {row['function']}: {row['mutation']}")
    if arguments.json:
        arguments.json.parent.mkdir(parents=True, exist_ok=True)
        summary = {"seed": arguments.seed, "mutants": len(rows), "red": red, "share": round(share, 4), "rows": rows}
        arguments.json.write_text(json.dumps(summary, indent=1) + "\n")
    return 0 if share >= arguments.at_least else 1


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.mutants", description=__doc__)
    parser.add_argument("--all", action="store_true", help="every mutation, not one of each function")
    parser.add_argument("--seed", type=int, default=1, help="another choice of one of each function")
    parser.add_argument("--only", default="", metavar="TEXT", help="functions whose file:name contains this")
    parser.add_argument("--count", type=int, default=0, help="at most this many, spread over all files")
    parser.add_argument("--tests", default="tests", metavar="FOLDER", help="run only the tests below it")
    parser.add_argument("--root", type=Path, default=ROOT, help="the tree; it is copied, and not touched")
    parser.add_argument(
        "--judge", choices=("tests", "sim"), default="tests", help="sim: the seeds of the simulator instead of tests"
    )
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--budget", type=float, default=60.0, help="seconds of tests against one mutation")
    parser.add_argument("--at-least", type=float, default=0.95, help="share that must be red; less is exit code 1")
    parser.add_argument("--map", type=Path, help="keep what the first run of all tests tells here, and use it again")
    parser.add_argument("--json", type=Path, help="write the table here, too")
    return parser.parse_args()


def reached(copies: list[Path], folder: Path, kept: Path | None) -> Reach | None:
    """Which tests reach which function: from an earlier run, or from a new run of all tests."""
    if kept and kept.exists():
        notes = json.loads(kept.read_text())
    else:
        notes = learn(copies, folder)
        if notes is None:
            return None
        if kept:
            kept.write_text(json.dumps(notes))
    reach = Reach(notes)
    for test in sorted(reach.failed):
        print(f"left out, for it fails without a mutation in a copy of the tree: {test}", flush=True)
    preload()
    return reach


def find(root: Path) -> list[Mutation]:
    """Every mutation of core in this tree."""
    files = sorted((root / CORE).rglob("*.py"))
    return [one for file in files for one in mutations(str(file.relative_to(root)), file.read_text())]


def learn(copies: list[Path], folder: Path) -> list[dict[str, Any]] | None:
    """Run all tests without root once, shared between the copies; the recorders' notes, or None if they do not run."""
    root = next(parent for parent in (folder, *folder.parents) if (parent / CORE).is_dir())
    tests = sorted(str(file.relative_to(root)) for file in folder.rglob("test_*.py"))
    tests = [one for one in tests if not one.startswith("tests/mutants/")]
    core = [str(file.relative_to(root)) for file in sorted((root / CORE).rglob("*.py"))]
    kept = {path: (copies[0] / path).read_text() for path in core}
    for copy in copies:
        record(copy, core)
    shares = [tests[number :: len(copies)] for number in range(len(copies))]

    def note(share: list[str], copy: Path) -> int:
        recorder = Recorder()
        code = run_tests(share, recorder, first_failure=False)
        copy.with_suffix(".json").write_text(json.dumps(recorder.notes()))
        return code

    work = [functools.partial(note, share) for share in shares]
    for outcome in jobs(list[Job](work), copies, [1800.0] * len(copies)):
        if outcome.code not in (0, 1):
            print("The tests do not run, or take over 30 minutes:")
            print(Path(f"{outcome.copy}.log").read_text()[-5000:])
            return None
    for copy in copies:
        for path, source in kept.items():
            (copy / path).write_text(source)
    return [json.loads(copy.with_suffix(".json").read_text()) for copy in copies]


def judge(chosen: list[Mutation], reach: Reach, copies: list[Path], budget: float) -> list[Row] | None:
    """Run the tests against each mutation, and print a line for each; None if they fail without a mutation."""
    sources = {one.function.path: (copies[0] / one.function.path).read_text() for one in chosen}
    tests = [reach.tests(one.function, budget) for one in chosen]

    def against(mutation: Mutation | None, own: list[str], copy: Path) -> int:
        if mutation:
            (copy / mutation.function.path).write_text(mutation.applied(sources[mutation.function.path]))
        for stage in reach.stages(mutation.function, own) if mutation else [own]:
            code = run_tests(dict.fromkeys(one.split("::")[0] for one in stage), Only(stage)) if stage else 0
            if code not in (0, 5):
                return code
        return 0

    def run(mutants: list[tuple[Mutation | None, list[str]]]) -> Iterator[Outcome]:
        work = [functools.partial(against, one, own) for one, own in mutants]
        # A mutation that makes a loop endless is detected by the time limit.
        return jobs(list[Job](work), copies, [30.0 + 4 * min(budget, reach.seconds(own)) for _, own in mutants])

    for outcome in run([(None, own) for own in tests[:: max(1, len(tests) // 4)]]):
        if outcome.code != 0:
            print("The chosen tests fail without a mutation, if they run in another order or without the others.")
            print(Path(f"{outcome.copy}.log").read_text()[-5000:])
            return None
    rows: dict[int, Row] = {}
    for outcome in run(list(zip(chosen, tests, strict=True))):
        one = chosen[outcome.job]
        (outcome.copy / one.function.path).write_text(sources[one.function.path])
        said = "timed out" if outcome.code is None else "survived" if outcome.code in (0, 5) else "red"
        name = f"{one.function.path}:{one.line}"
        print(f"{said:9} {outcome.seconds:5.1f} s  {name:48} {one.function.name}: {one.words}", flush=True)
        rows[outcome.job] = {
            "file": one.function.path,
            "line": one.line,
            "function": one.function.name,
            "mutation": one.words,
            "outcome": said,
            "tests": len(tests[outcome.job]),
            "seconds": round(outcome.seconds, 1),
        }
    return [rows[job] for job in sorted(rows)]


def judge_by_simulator(chosen: list[Mutation], copies: list[Path], budget: float) -> list[Row] | None:
    """Like `judge`; None if a promise is broken without a mutation."""
    rows: list[Row] = []
    for one, outcome, words in simulator.judge(chosen, copies, budget):
        if one is None:
            if outcome.code != 0:
                print(f"The seeds fail without a mutation: {words}")
                return None
            continue
        said = "timed out" if outcome.code is None else "survived" if outcome.code == 0 else "red"
        name = f"{one.function.path}:{one.line}"
        print(
            f"{said:9} {outcome.seconds:5.1f} s  {name:48} {one.function.name}: {one.words}  {words[:90]}", flush=True
        )
        row = {"file": one.function.path, "line": one.line, "function": one.function.name, "mutation": one.words}
        rows.append({**row, "outcome": said, "noticed": words[:200], "seconds": round(outcome.seconds, 1)})
    return rows


if __name__ == "__main__":
    sys.exit(main())
