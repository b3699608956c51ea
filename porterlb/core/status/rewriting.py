"""Another writer of a Service's status: it is written back, less and less often, and the user is told."""

from __future__ import annotations

from dataclasses import dataclass

LONGEST = 300.0
"""Seconds between two writes, at most."""
FORGET = 60.0
"""Seconds without a foreign write, beyond the pause, after which it counts as over."""
TOLD_FROM = 3
"""Foreign writes until the user is told: somebody may repair a status by hand once or twice."""


@dataclass(frozen=True, slots=True)
class Rewriting:
    """``times``: foreign writes in a row. ``until``: not to be written back before (monotonic seconds).
    ``writer``: its field manager. ``version``: of what we wrote and it undid last."""

    times: int
    until: float
    writer: str
    version: str

    def told(self, now: float) -> bool:
        return self.times >= TOLD_FROM and now < self.until + FORGET


def rewritten(before: Rewriting | None, writer: str, version: str, now: float) -> Rewriting:
    """After what we wrote in ``version`` was undone: the first time it is written back at once, then after 1, 2, 4 ...
    seconds. What the other one writes while we wait counts no more."""
    if before is not None and before.version == version:
        return before
    times = before.times + 1 if before is not None and now < before.until + FORGET else 1
    pause = 0.0 if times == 1 else min(2.0 ** (times - 2), LONGEST)
    return Rewriting(times, now + pause, writer, version)
