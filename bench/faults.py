"""The time for which each fault of lab/fault_matrix.py disturbs service, by router. ``python -m bench faults [--only
ROUTER]``"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from bench.report import Table
from lab.chaos import Chaos
from lab.cluster import Lab
from lab.fault_matrix import CASES, judge
from lab.measure import Trials
from lab.netns import LabError
from lab.routers import KINDS

TRIALS = 5


def with_router(router: str, quick: bool) -> Table:
    count = 1 if quick else TRIALS
    table = Table(
        f"Seconds until each VIP has one MAC or right next hops, or a condition names the cause ({router})",
        ("fault", "limit", "median", "worst", "failed"),
        notes=[f"{count} trials of each; 0 where nothing was ever wrong"],
    )
    with Lab(nodes=3, routers=[router], pod_servers=False, second=True) as lab:
        chaos = Chaos(lab, seed=13)
        chaos.prepare()
        for case in CASES:
            taken: list[float] = []
            errors: list[str] = []
            for _ in range(count):
                try:
                    taken.append(judge(chaos, case))
                except LabError as error:
                    errors.append(str(error))
                    chaos.settle(foreign=False)
            found = Trials(tuple(taken)) if taken else None
            row = (case.name, case.within, found.median if found else "", found.worst if found else "", len(errors))
            table.rows.append(row)
            table.raw[case.name] = [*taken, *errors]
    return table


PARTS: dict[str, Callable[[bool], Table]] = {router: partial(with_router, router) for router in sorted(KINDS)}
