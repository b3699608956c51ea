"""``python -m bench [NAME ...] [--quick] [--only PART]``."""

from __future__ import annotations

import argparse
import importlib
import os
import sys
import time

from rich.console import Console

from bench import BENCHES, report
from lab.netns import LabError


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench", description="Benchmarks; all of them by default.")
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(BENCHES)}")
    parser.add_argument("--quick", action="store_true", help="few trials: to see that it works")
    parser.add_argument("--only", action="append", default=[], metavar="PART", help="one part of a benchmark")
    parser.add_argument("--services", type=int, default=10_000, help="of plan, and of the parts of kube with many")
    parser.add_argument("--cluster", choices=("manifests", "kube"), help="of kube: one of the two")
    one = parser.add_argument_group("one size of the plan", "for the benchmark plan; the last line is JSON")
    one.add_argument("--nodes", type=int, default=0, metavar="NODES", help="of the one size; without it a table")
    one.add_argument("--policy", choices=("Cluster", "Local"), default="Cluster")
    parser.add_argument("--loss", type=int, action="append", metavar="PERCENT", help="of liveness: random loss")
    parser.add_argument("--minutes", type=float, help="of bfd, and of liveness for each loss: how long")
    options = parser.parse_args()
    if unknown := [name for name in options.names if name not in BENCHES]:
        parser.error(f"there is no benchmark {unknown[0]}; there are {', '.join(BENCHES)}")
    console = Console(highlight=False)
    if (load := os.getloadavg()[0]) > (os.cpu_count() or 1) / 2:
        console.print(f"[yellow]The machine is busy (load {load:.1f}): latencies and gaps come out longer.")
    if options.nodes:
        if options.names != ["plan"]:
            parser.error("--nodes belongs to the benchmark plan: python -m bench plan --services 10000 --nodes 1000")
        importlib.import_module("bench.plan").single(options.services, options.nodes, options.policy)
        return 0
    for name in options.names or BENCHES:
        module = importlib.import_module(f"bench.{name}")
        parts = module.PARTS
        if name == "liveness":
            module.choose(options.loss, options.minutes)
        if name == "kube":
            module.choose(options.cluster, options.services)
        if name == "bfd":
            module.choose(options.minutes)
        if unknown := [part for part in options.only if part not in parts]:
            parser.error(f"{name} has no part {unknown[0]}; it has {', '.join(parts)}")
        tables = {}
        for part in options.only or parts:
            begun = time.monotonic()
            try:
                tables[part] = parts[part](options.quick)
            except LabError as error:
                console.print(f"[red]{name} {part}: {error}")
                return 1
            tables[part].show(console)
            console.print(f"({time.monotonic() - begun:.0f} s)\n")
            path = report.save(name, tables, quick=options.quick)
        console.print(f"Figures of single trials are in {os.path.relpath(path)}.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
