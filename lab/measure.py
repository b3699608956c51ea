"""Waiting for a condition, and measuring the elapsed time."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from lab.netns import LabError

T = TypeVar("T")


def wait_until(
    what: Callable[[], T], timeout: float = 10.0, message: str = "", interval: float = 0.02
) -> tuple[T, float]:
    """Calls `what` until it returns a true value.

    Args:
        timeout: seconds until LabError reports the awaited condition and the last seen value.
        message: a description of the awaited condition.
        interval: seconds between two calls.
    Returns:
        The returned value, and the elapsed seconds.
    """
    begun = time.monotonic()
    seen: object = None
    while True:
        try:
            value = what()
            seen = value
        except (LabError, OSError) as error:
            seen = error
        else:
            if value:
                return value, time.monotonic() - begun
        if time.monotonic() - begun > timeout:
            text = message or getattr(what, "__name__", "a condition")
            raise LabError(f"waited {timeout} s for: {text}. Seen last: {seen!r}")
        time.sleep(interval)


def wait_equal(
    what: Callable[[], object], wanted: object, timeout: float = 10.0, message: str = "", interval: float = 0.02
) -> float:
    """Calls `what` until it returns `wanted`. Returns the elapsed seconds. LabError shows the difference."""
    begun = time.monotonic()
    while True:
        seen: object
        try:
            seen = what()
        except (LabError, OSError) as error:
            seen = error
        if seen == wanted:
            return time.monotonic() - begun
        if time.monotonic() - begun > timeout:
            raise LabError(f"waited {timeout} s for {message or 'a value'}.\n  wanted: {wanted!r}\n  seen:   {seen!r}")
        time.sleep(interval)


@dataclass(frozen=True)
class Trials:
    """Figures of repeated trials, all in the same unit."""

    figures: tuple[float, ...]

    @property
    def worst(self) -> float:
        return max(self.figures)

    @property
    def median(self) -> float:
        ordered = sorted(self.figures)
        middle = len(ordered) // 2
        return ordered[middle] if len(ordered) % 2 else (ordered[middle - 1] + ordered[middle]) / 2

    def __str__(self) -> str:
        return f"median {self.median:.1f}, worst of {len(self.figures)}: {self.worst:.1f}"


def trials(count: int, one: Callable[[int], float]) -> Trials:
    """Runs `one` (with the argument 0, 1, ...) `count` times, and collects the returned figures."""
    figures: Sequence[float] = [one(number) for number in range(count)]
    return Trials(tuple(figures))
