"""A token bucket: a rate with a burst."""

from __future__ import annotations


class TokenBucket:
    """``rate``: tokens per second; ``burst``: the capacity; the bucket starts full."""

    __slots__ = ("_burst", "_filled", "_rate", "_tokens")

    def __init__(self, rate: float, burst: float, now: float) -> None:
        self._rate = rate
        self._burst = burst
        self._tokens = burst
        self._filled = now

    def has(self, now: float) -> bool:
        """Whether a whole token is available at ``now``."""
        self._tokens = min(self._burst, self._tokens + max(0.0, now - self._filled) * self._rate)
        self._filled = now
        return self._tokens >= 1

    def take(self) -> None:
        """Takes one token; call `has` first."""
        self._tokens -= 1

    def give_back(self) -> None:
        """Returns a token that was not used."""
        self._tokens += 1
