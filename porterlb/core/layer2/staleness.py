"""Whether our wanted set may be outdated: its manager has no API, or is silent.

Such a replica does not know of VIPs that have moved to its node since. It says so in its hellos, and the replicas that
are up to date answer for its node too, with the same MAC.
"""

from __future__ import annotations

SILENT = 2.5
"""Seconds without a message of the manager: more than two of its beats (:data:`porterlb.pulse.EVERY`)."""
SETTLE = 1.0
"""Seconds after the cause has ended: the manager makes a plan first."""


class Staleness:
    """Call `check` every quarter of a second. Times: monotonic seconds."""

    def __init__(self, now: float) -> None:
        self._beat = now
        self._until = float("-inf")
        self._outage = False
        self.stale = False

    def beat(self, now: float) -> None:
        """A message of the manager arrived."""
        if now - self._beat > SILENT and self.stale:
            self._until = now + SETTLE
        self._beat = now

    def outage(self, outage: bool, now: float) -> None:
        """Whether the API is unavailable, as the manager says."""
        if self._outage and not outage:
            self._until = now + SETTLE
        self._outage = outage

    def check(self, now: float, lag: float) -> bool:
        """Updates ``stale``; returns whether it changed. ``lag``: shows that our own process stalled."""
        silent = now - self._beat > SILENT and lag < SILENT / 2
        stale = silent or self._outage or now < self._until
        changed, self.stale = stale != self.stale, stale
        return changed
