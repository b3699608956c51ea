"""How soon after one plan the next one may be made: at once now and then, seldom in a burst.

A change that comes alone is planned at once, and so are those that follow from it. A thousand Services that come one
after the other are better planned a few at a time: each plan costs every replica the same, whatever is new in it.
"""

from __future__ import annotations

from dataclasses import dataclass

AT_ONCE = 10
"""Plans that may follow one another without a pause."""

EVERY = 0.05
"""Seconds after which one more may; in a burst the time between two plans."""


@dataclass(slots=True)
class Pace:
    """A token bucket. Times in seconds on one clock that does not go back."""

    _tokens: float = AT_ONCE
    _at: float = 0.0

    def wait(self, now: float) -> float:
        """Seconds until the next plan may be made."""
        return max(0.0, 1.0 - self._filled(now)) * EVERY

    def took(self, now: float) -> None:
        """A plan was made, whether it might be or not: an urgent one does not ask."""
        self._tokens, self._at = max(0.0, self._filled(now) - 1.0), now

    def _filled(self, now: float) -> float:
        return min(float(AT_ONCE), self._tokens + (now - self._at) / EVERY)
