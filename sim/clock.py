"""Clocks and random numbers of the calling process."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import Any

EPOCH = 1_900_000_000.0
"""The wall clock when a simulation begins."""


class Stand:
    """A module with some of its names replaced."""

    def __init__(self, module: Any, **names: Any) -> None:
        own = dir(type(self))
        self.__dict__.update({name: value for name, value in vars(module).items() if name not in own}, **names)


class Clock(Stand):
    """Replaces the module ``time``. Work takes no time here."""

    def __init__(self, host: Any) -> None:
        super().__init__(time)
        self._host = host

    def monotonic(self) -> float:
        return self._host.now()  # type: ignore[no-any-return]

    perf_counter = monotonic

    def clock_gettime(self, which: int) -> float:
        return self.monotonic()

    def time(self) -> float:
        return EPOCH + float(self._host.site.world.now)


class Chance:
    """Replaces the module ``random``."""

    def __init__(self, host: Any) -> None:
        self._host = host

    def random(self) -> float:
        return float(self._host.process().random.random())

    def uniform(self, low: float, high: float) -> float:
        return float(self._host.process().random.uniform(low, high))

    def getrandbits(self, count: int) -> int:
        return int(self._host.process().random.getrandbits(count))


class Secrets:
    """Replaces the module ``secrets``."""

    def __init__(self, host: Any) -> None:
        self._host = host

    def token_hex(self, count: int) -> str:
        return f"{self._host.process().random.getrandbits(8 * count):0{2 * count}x}"

    def randbits(self, count: int) -> int:
        return int(self._host.process().random.getrandbits(count))


class Dates:
    """Replaces the class ``datetime``."""

    def __init__(self, host: Any) -> None:
        self._host = host

    def now(self, zone: Any = UTC) -> datetime:
        return datetime.fromtimestamp(EPOCH + float(self._host.site.world.now), zone)
