"""The shortest list of faults that still breaks the same promise (ddmin, Zeller and Hildebrandt 2002)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from sim.faults import Fault
from sim.run import Result, run

Attempt = Callable[[int, float, list[Fault]], Result]
"""Runs a seed for a number of seconds with these faults."""


def shrink(
    failed: Result, seconds: float, say: Callable[[str], None], most: int = 80, attempt: Attempt = run
) -> Result:
    """Runs the seed again with fewer and shorter faults, ``most`` times at most."""
    assert failed.violation is not None
    promise, best, left = failed.violation.promise, failed, most

    def breaks(faults: list[Fault]) -> Result | None:
        nonlocal left
        left -= 1
        tried = attempt(failed.seed, seconds, faults)
        return tried if tried.violation is not None and tried.violation.promise == promise else None

    faults = [fault for fault in failed.faults if fault.at <= failed.violation.at]
    parts = 2
    while len(faults) > 1 and left > 0:
        size = max(1, len(faults) // parts)
        for begin in range(0, len(faults), size):
            fewer = faults[:begin] + faults[begin + size :]
            found = breaks(fewer) if left > 0 else None
            if found is not None:
                faults, best, parts = fewer, found, max(2, parts - 1)
                break
        else:
            if size == 1:
                break
            parts = min(len(faults), parts * 2)
    for number, fault in enumerate(faults):
        for seconds_less in (fault.seconds / 8, fault.seconds / 2):
            if fault.seconds < 0.2 or left <= 0:
                break
            shorter = [*faults[:number], replace(fault, seconds=round(seconds_less, 3)), *faults[number + 1 :]]
            found = breaks(shorter)
            if found is not None:
                faults, best = shorter, found
                break
    say(f"shrunk to {len(faults)} faults in {most - left} runs")
    return best
