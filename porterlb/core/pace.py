"""The minimum time between plans, and between looks at the statuses: none after single changes, longer in a burst.

A single change and the changes that follow from it are planned at once. If a thousand Services arrive one after the
other, it is better to plan a few at a time, because each plan costs every replica the same, however little is new.
"""

from __future__ import annotations

AT_ONCE = 10
"""Plans that may follow one another without a pause."""

EVERY = 0.05
"""Seconds after which one more plan may follow; in a burst, the time between two plans."""


class Pace:
    """A token bucket. Times in seconds on one clock that does not go back.

    ``at_once``: runs that may follow one another without a pause. ``every``: seconds after which one more may follow.
    """

    def __init__(self, at_once: int = AT_ONCE, every: float = EVERY) -> None:
        self._at_once, self._every = float(at_once), every
        self._tokens, self._at = self._at_once, 0.0

    def wait(self, now: float) -> float:
        """Seconds until the next run may begin."""
        return max(0.0, 1.0 - self._filled(now)) * self._every

    def took(self, now: float) -> None:
        """Records a run, even if the pace did not allow it: urgent plans do not check."""
        self._tokens, self._at = max(0.0, self._filled(now) - 1.0), now

    def _filled(self, now: float) -> float:
        return min(self._at_once, self._tokens + (now - self._at) / self._every)
