"""The simulator as the judge: a mutation is detected if a promise is broken, or something fails, with a seed."""

from __future__ import annotations

import functools
import json
import os
import subprocess
import sys
from collections.abc import Callable, Collection, Iterator
from pathlib import Path

from tests.mutants.mutations import Function, Mutation
from tests.mutants.reach import RECORDER, key_of, record
from tests.mutants.run import Outcome, jobs

SEEDS = (1000032, 1000034, 1000035, 1000037)
"""Fast ones first; 1000037 has BGP. Together they use 15 s of processor time."""

SECONDS = 120.0
"""Simulated seconds of each seed."""

ONLY_READ = ("status/", "doctor/", "record/", "history/", "parse/", "words", "sentences", "problems", "known.py")
"""Parts of core that decide only texts for people, and nothing on the wire."""

_RUN = """
import ipaddress, json, logging, sys
ipaddress.IPv6Address.__hash__ = lambda address: hash((int(address), address.scope_id or ""))
logging.disable(logging.CRITICAL)
from sim.run import run
for seed in json.loads(sys.argv[1]):
    found = run(seed, float(sys.argv[2])).violation
    if found is not None:
        print(f"seed {seed}: {found}")
        sys.exit(1)
"""

_NOTE = f"""
import {RECORDER}, json, pathlib, sys
sys.exit = lambda code: None
{_RUN}
pathlib.Path(sys.argv[3]).write_text(json.dumps(sorted({RECORDER}.CALLED)))
"""


def command(code: str, *more: str, seeds: Collection[int] = SEEDS) -> list[str]:
    return [sys.executable, "-c", code, json.dumps(list(seeds)), str(SECONDS), *more]


def environment(copy: Path) -> dict[str, str]:
    """Makes the order of sets the same in each run of a seed."""
    return {**os.environ, "PYTHONHASHSEED": "0", "PYTHONPATH": str(copy), "PYTHONDONTWRITEBYTECODE": "1"}


def on_the_wire(mutation: Mutation) -> bool:
    return not any(part in mutation.function.path for part in ONLY_READ)


def reached(copy: Path, core: Collection[str], seeds: Collection[int] = SEEDS) -> set[str]:
    """The functions of core that the seeds call; see `key_of`."""
    kept = {path: (copy / path).read_text() for path in core}
    record(copy, core)
    notes = copy.with_suffix(".called")
    try:
        subprocess.run(command(_NOTE, str(notes), seeds=seeds), cwd=copy, env=environment(copy), check=True)
    finally:
        for path, source in kept.items():
            (copy / path).write_text(source)
    return set(json.loads(notes.read_text()))


def judge(chosen: list[Mutation], copies: list[Path], budget: float) -> Iterator[tuple[Mutation | None, Outcome, str]]:
    """Yields the outcome of each mutation, and the last line of its output. The first outcome is that of the
    unchanged tree. ``budget``: seconds of processor time for each."""
    sources = {one.function.path: (copies[0] / one.function.path).read_text() for one in chosen}

    def against(mutation: Mutation | None, copy: Path) -> int:
        if mutation is not None:
            (copy / mutation.function.path).write_text(mutation.applied(sources[mutation.function.path]))
        run = command(_RUN)
        os.execve(run[0], run, environment(copy))

    every: list[Mutation | None] = [None, *chosen]
    work: list[Callable[[Path], int]] = [functools.partial(against, one) for one in every]
    for outcome in jobs(work, copies, [budget] * len(work)):
        mutation = every[outcome.job]
        said = Path(f"{outcome.copy}.log").read_text(errors="replace").strip().splitlines()
        if mutation is not None:
            path = mutation.function.path
            (outcome.copy / path).write_text(sources[path])
        yield mutation, outcome, said[-1] if said else ""


def calls(called: Collection[str], function: Function) -> bool:
    return key_of(function) in called
