"""Waiting for something to become true, and measuring how long it took."""

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
    """Call `what` until it returns something true.

    Args:
        timeout: seconds after which LabError says what was awaited and what was last seen.
        message: what is awaited, in words.
        interval: seconds between two calls.
    Returns:
        What it returned, and the seconds that it took.
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
    """Call `what` until it returns `wanted`; returns the seconds that it took. LabError shows the difference."""
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
    """Run `one` (with the argument 0, 1, ...) `count` times, and collect the figures that it returns."""
    figures: Sequence[float] = [one(number) for number in range(count)]
    return Trials(tuple(figures))
