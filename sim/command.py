"""The command line: many seeds on all cores, with progress; failures shrunk and shown as timelines; the ledger."""

from __future__ import annotations

import argparse
import csv
import gc
import json
import logging
import multiprocessing
import subprocess
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path

from sim.faults import Fault
from sim.run import RING, Result, prepare, run
from sim.scenario import play
from sim.scenarios import SCENARIOS
from sim.shrink import shrink

LEDGER = Path(__file__).with_name("ledger.csv")
RECORDINGS = Path(__file__).parents[1] / "build" / "recordings"
FIELDS = ("date", "commit", "first", "seeds", "seconds", "hours", "faults", "violations", "failed_seeds")


def command(argv: Sequence[str]) -> int:
    options = _options(argv)
    logging.disable(logging.CRITICAL if not options.timeline and not options.faults else logging.NOTSET)
    first = options.first if options.first is not None else (_next_seed() if options.go_on else 1)
    if options.scenarios:
        _scenarios(options.first if options.first is not None else 1)
        return 0
    if options.faults or (options.timeline and options.seeds == 1):
        faults = [Fault(**one) for one in json.loads(options.faults.read_text())] if options.faults else None
        more = {"recordings": options.recordings, "ring": options.ring}
        result = run(first, options.seconds, faults, timeline=True, **more)
        tell(result)
        return 0 if result.violation is None else 1
    began = time.monotonic()
    jobs = options.jobs or multiprocessing.cpu_count()
    results: list[Result] = []
    worst: Counter[str] = Counter()
    failed: list[Result] = []
    for result in _all(range(first, first + options.seeds), options.seconds, jobs):
        results.append(result)
        for promise, seconds in result.worst.items():
            worst[promise] = max(worst[promise], seconds)  # type: ignore[assignment]
        if result.violation is not None:
            failed.append(result)
            print(f"\rseed {result.seed}: {result.violation}", flush=True)
            if not options.all:
                break
        _progress(results, options.seeds, began)
    print()
    simulated = sum(result.seconds for result in results)
    spent = time.monotonic() - began
    begun = sum(result.begun for result in results)
    print(
        f"{len(results)} seeds, {simulated / 3600:.2f} simulated hours in {spent:.0f} s "
        f"({simulated / spent:.0f} simulated hours per hour), {begun} faults, {len(failed)} violations"
    )
    count = max(1, len(results))
    print(
        f"each seed: {sum(result.events for result in results) / count:.0f} events, "
        f"{sum(result.processor for result in results) / count:.1f} s of processor time"
    )
    print(
        "longest without a violation: "
        + ", ".join(f"{name} {seconds:.2f} s" for name, seconds in sorted(worst.items()))
    )
    if options.go_on:
        _write(first, results, options.seconds, failed)
    for result in failed[: 1 if not options.all else 3]:
        shortest = result if options.no_shrink else shrink(result, options.seconds, print)
        logging.disable(logging.NOTSET)
        folder = RECORDINGS / f"sim-{result.seed}"
        tell(run(result.seed, options.seconds, list(shortest.faults), timeline=True, recordings=folder))
        print(f"Recordings of every replica: {folder}. Read them with `porterlb replay FILE`.")
        logging.disable(logging.CRITICAL)
    return 1 if failed else 0


def _options(argv: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m sim", description="Replicas on a virtual clock, with faults.", allow_abbrev=False
    )
    parser.add_argument("--seeds", type=int, default=20, help="how many seeds to run (20)")
    parser.add_argument("--first", type=int, help="the first seed (1)")
    parser.add_argument("--seed", type=int, help="this seed only: --first SEED --seeds 1")
    parser.add_argument("--seconds", type=float, default=120.0, help="simulated seconds of each seed (120)")
    parser.add_argument("--jobs", type=int, default=0, help="Python processes (one for each core)")
    parser.add_argument(
        "--continue", dest="go_on", action="store_true", help="begin behind the ledger's last seed and add to it"
    )
    parser.add_argument("--faults", type=Path, help="a JSON list of faults to run instead of those of the seed")
    parser.add_argument(
        "--scenarios", action="store_true", help="run the scenarios that the lab runs too; one JSON line each"
    )
    parser.add_argument("--timeline", action="store_true", help="print what happened, also without a violation")
    parser.add_argument("--recordings", type=Path, help="with --faults or --timeline: a folder for recordings")
    parser.add_argument("--ring", type=int, default=RING, help="bytes of a recording of each process")
    parser.add_argument("--no-shrink", action="store_true", help="do not look for the shortest history")
    parser.add_argument("--all", action="store_true", help="go on after a violation")
    options = parser.parse_args(argv)
    if options.seed is not None:
        if options.first is not None or options.go_on:
            parser.error("--seed runs one seed: leave out --first and --continue")
        options.first, options.seeds = options.seed, 1
    return options


def _scenarios(seed: int) -> None:
    for scenario in SCENARIOS:
        seen = play(scenario, seed)
        row = {"moves": sorted(seen.moves), "loses": sorted(seen.loses), "leader": seen.leader, "gaps": seen.gaps}
        print(json.dumps({"scenario": scenario.name, **row}), flush=True)


def _all(seeds: Iterable[int], seconds: float, jobs: int) -> Iterator[Result]:
    if jobs == 1:
        for seed in seeds:
            yield run(seed, seconds)
        return
    prepare()
    gc.freeze()  # the modules are shared with the processes, and never scanned
    with multiprocessing.get_context("fork").Pool(jobs, maxtasksperchild=8) as pool:
        yield from pool.imap_unordered(_one, [(seed, seconds) for seed in seeds])


def _one(work: tuple[int, float]) -> Result:
    return run(*work)


def _progress(results: list[Result], seeds: int, began: float) -> None:
    simulated = sum(result.seconds for result in results)
    print(f"\r{len(results)}/{seeds} seeds, {simulated / (time.monotonic() - began):.0f} x", end="", flush=True)


def tell(result: Result) -> None:
    """Prints the faults, the timeline and the violation."""
    print(f"\nseed {result.seed}: the faults")
    print(json.dumps([fault.json() for fault in result.faults]))
    for at, who, text in result.timeline:
        print(f"{at:9.3f}  {who:12}  {text}")
    print(f"           {result.violation or 'no violation'}")


def _next_seed() -> int:
    if not LEDGER.exists():
        return 1
    with LEDGER.open() as file:
        return max([int(row["first"]) + int(row["seeds"]) for row in csv.DictReader(file)], default=1)


def _write(first: int, results: list[Result], seconds: float, failed: list[Result]) -> None:
    commit = subprocess.run(["git", "rev-parse", "--short=10", "HEAD"], capture_output=True, text=True, check=False)
    fresh = not LEDGER.exists()
    with LEDGER.open("a", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        if fresh:
            writer.writerow(FIELDS)
        hours = sum(result.seconds for result in results) / 3600
        begun = sum(result.begun for result in results)
        date = datetime.now(UTC).strftime("%Y-%m-%d")
        seeds = " ".join(str(result.seed) for result in failed)
        row = (date, commit.stdout.strip(), first, len(results), seconds, f"{hours:.3f}", begun, len(failed), seeds)
        writer.writerow(row)
