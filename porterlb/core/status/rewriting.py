"""Another writer overwrites a Service's status: our status is restored at growing intervals, and the user is told."""

from __future__ import annotations

from dataclasses import dataclass

LONGEST = 300.0
"""Maximum seconds between two writes."""
FORGET = 60.0
"""Seconds without a foreign write, after the pause, until the conflict is considered over."""
TOLD_FROM = 3
"""Number of foreign writes before the user is told: an operator may repair a status manually once or twice."""


@dataclass(frozen=True, slots=True)
class Rewriting:
    """``times``: foreign writes in a row. ``until``: our status is not restored before this time (monotonic seconds).
    ``writer``: the other field manager. ``version``: of our last write that was overwritten."""

    times: int
    until: float
    writer: str
    version: str

    def told(self, now: float) -> bool:
        return self.times >= TOLD_FROM and now < self.until + FORGET


def rewritten(before: Rewriting | None, writer: str, version: str, now: float) -> Rewriting:
    """The state after our write in ``version`` was overwritten: the first time it is restored at once, then after 1, 2,
    4 ... seconds. Foreign writes during the pause are not counted."""
    if before is not None and before.version == version:
        return before
    times = before.times + 1 if before is not None and now < before.until + FORGET else 1
    pause = 0.0 if times == 1 else min(2.0 ** (times - 2), LONGEST)
    return Rewriting(times, now + pause, writer, version)
