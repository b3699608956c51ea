"""The simulator as the judge: a mutation is detected if a promise is broken, or something fails, with a seed."""

from __future__ import annotations

import functools
import importlib
import ipaddress
import json
import logging
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path

from tests.mutants.loaded import Loaded, import_mutated
from tests.mutants.mutations import Mutation, compiles
from tests.mutants.run import INVALID, Job, Outcome, enter, jobs

FIRST = (1000032, 1000034, 1000035, 1000037)
"""Fast seeds that call most of what the simulator calls at all; 1000037 has BGP. The unchanged tree runs these."""

SEEDS = (*FIRST, *(seed for seed in range(1000031, 1000081) if seed not in FIRST))
"""The seeds against a mutation, until one notices it."""

SECONDS = 120.0
"""Simulated seconds of each seed."""

LEARNING = 600.0
"""Seconds of processor time for one run of all seeds with recorded calls."""

ONLY_READ = ("status/", "doctor/", "record/", "history/", "parse/", "words", "sentences", "problems", "known.py")
"""Parts of core that decide only texts for people, and nothing on the wire."""


def on_the_wire(mutation: Mutation) -> bool:
    return not any(part in mutation.function.path for part in ONLY_READ)


def _prepare() -> None:
    """Makes a seed the same in each run, together with PYTHONHASHSEED=0."""
    setattr(ipaddress.IPv6Address, "__hash__", lambda address: hash((int(address), address.scope_id or "")))  # noqa: B010  # mypy takes no assignment
    logging.disable(logging.CRITICAL)


def _seeds(seeds: Collection[int]) -> int:
    """The exit code: 1 if a promise is broken."""
    run = importlib.import_module("sim.run").run
    for seed in seeds:
        found = run(seed, SECONDS).violation
        if found is not None:
            print(f"seed {seed}: {found}")
            return 1
    return 0


def reached(root: Path, core: Sequence[str], log: Path, seeds: Collection[int] = FIRST) -> set[str]:
    """The functions of core that the seeds call; see `key_of`."""
    notes = log.with_suffix(".called")

    def note() -> int:
        enter(root)
        _prepare()
        importlib.import_module("sim.run")
        recording = Loaded(root, core).recording()
        recording.start()
        code = _seeds(seeds)
        notes.write_text(json.dumps(recording.called()))
        return code

    (outcome,) = jobs([note], [log], [LEARNING])
    if outcome.code is None or not notes.exists():
        raise RuntimeError(f"the seeds do not run: {outcome.said}")
    return set(json.loads(notes.read_text()))


def judge(
    root: Path, chosen: list[Mutation], logs: list[Path], budget: float
) -> Iterator[tuple[Mutation | None, Outcome]]:
    """Yields the outcome of each mutation. The first outcome is that of the unchanged tree. ``budget``: seconds of
    processor time for each seed."""

    def against(mutation: Mutation | None) -> int:
        enter(root)
        if mutation is not None:
            if not compiles(mutation.applied((root / mutation.function.path).read_text())):
                return INVALID
            import_mutated(root, mutation)
        _prepare()
        return _seeds(FIRST if mutation is None else SEEDS)

    every: list[Mutation | None] = [None, *chosen]
    work: list[Job] = [functools.partial(against, one) for one in every]
    for outcome in jobs(work, logs, [budget * len(SEEDS)] * len(work)):
        yield every[outcome.job], outcome
