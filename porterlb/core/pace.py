"""The minimum time between plans: none after single changes, longer in a burst.

A single change and the changes that follow from it are planned at once. If a thousand Services arrive one after the
other, it is better to plan a few at a time, because each plan costs every replica the same, however little is new.
"""

from __future__ import annotations

from dataclasses import dataclass

AT_ONCE = 10
"""Plans that may follow one another without a pause."""

EVERY = 0.05
"""Seconds after which one more plan may follow; in a burst, the time between two plans."""


@dataclass(slots=True)
class Pace:
    """A token bucket. Times in seconds on one clock that does not go back."""

    _tokens: float = AT_ONCE
    _at: float = 0.0

    def wait(self, now: float) -> float:
        """Seconds until the next plan may be made."""
        return max(0.0, 1.0 - self._filled(now)) * EVERY

    def took(self, now: float) -> None:
        """Records that a plan was made, even if the pace did not allow it: urgent plans do not check."""
        self._tokens, self._at = max(0.0, self._filled(now) - 1.0), now

    def _filled(self, now: float) -> float:
        return min(float(AT_ONCE), self._tokens + (now - self._at) / EVERY)
