"""A token bucket: a rate with a burst."""

from __future__ import annotations


class TokenBucket:
    """``rate``: tokens a second; ``burst``: the most that it holds, and what it begins with."""

    __slots__ = ("_burst", "_filled", "_rate", "_tokens")

    def __init__(self, rate: float, burst: float, now: float) -> None:
        self._rate = rate
        self._burst = burst
        self._tokens = burst
        self._filled = now

    def has(self, now: float) -> bool:
        """Whether a whole token is there at ``now``."""
        self._tokens = min(self._burst, self._tokens + max(0.0, now - self._filled) * self._rate)
        self._filled = now
        return self._tokens >= 1

    def take(self) -> None:
        """One token; ask `has` first."""
        self._tokens -= 1

    def give_back(self) -> None:
        """A token that was taken for nothing."""
        self._tokens += 1
