"""Which Events are written, and when: repeats are counted, and frequent repeats are delayed.

Pure: time is an argument, in seconds, monotonic.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field

BURST = 10
"""Events about one object that may be written at once: as many as its life has steps."""

REFILL = 30.0
"""Seconds until an object may have one more Event: a flapping session causes at most 120 writes an hour."""

REMEMBERED = 4096
"""Series and objects that are remembered; the one that has been quiet longest is forgotten first."""

SERIES_LIFE = 1800.0
"""Seconds of quiet after which a repeat counts as new: shorter than the hour for which the API keeps Events."""


@dataclass(frozen=True, slots=True)
class Series:
    """What makes two Events the same. ``about``: identifies the object."""

    about: str
    type_: str
    reason: str
    message: str
    reporter: str


@dataclass(frozen=True, slots=True)
class EventWrite:
    """One write: a new Event if ``name`` is empty, otherwise the count of an existing one. ``count``: times seen."""

    series: Series
    name: str
    count: int


@dataclass(slots=True)
class _Seen:
    count: int = 0
    written: int = 0
    name: str = ""
    last: float = 0.0


@dataclass(slots=True)
class _Bucket:
    tokens: float
    at: float


@dataclass(slots=True, eq=False)
class EventSeries:
    """Remembers which Events happened and were written. Call ``told`` for each Event, ``due`` for the next write, and
    ``wrote`` after it."""

    _series: OrderedDict[Series, _Seen] = field(default_factory=OrderedDict)
    _buckets: OrderedDict[str, _Bucket] = field(default_factory=OrderedDict)
    _waiting: OrderedDict[Series, None] = field(default_factory=OrderedDict)

    def told(self, series: Series, now: float) -> None:
        """Records that an Event has happened (again)."""
        seen = self._series.get(series)
        if seen is None or now - seen.last > SERIES_LIFE:
            seen = self._series[series] = _Seen()
        seen.count += 1
        seen.last = now
        self._series.move_to_end(series)
        self._waiting[series] = None
        while len(self._series) > REMEMBERED:
            forgotten, _ = self._series.popitem(last=False)
            self._waiting.pop(forgotten, None)

    def due(self, now: float) -> EventWrite | None:
        """The oldest write that may be made now; it costs its object one token."""
        for series in self._waiting:
            if self._take(series.about, now):
                del self._waiting[series]
                seen = self._series[series]
                return EventWrite(series, seen.name, seen.count)
        return None

    def wrote(self, write: EventWrite, name: str) -> None:
        """The write was made, to the Event of this name; empty: that Event is gone, so write a new one."""
        seen = self._series.get(write.series)
        if seen is None:
            return
        seen.name = name
        seen.written = write.count if name else 0
        if seen.count > seen.written:
            self._waiting[write.series] = None

    def pause(self, now: float) -> float | None:
        """Seconds until something may be due; None: nothing waits."""
        waits = [self._wait(series.about, now) for series in self._waiting]
        return min(waits, default=None)

    def _wait(self, about: str, now: float) -> float:
        bucket = self._buckets.get(about)
        if bucket is None:
            return 0.0
        tokens = bucket.tokens + (now - bucket.at) / REFILL
        return max(0.0, (1.0 - tokens) * REFILL)

    def _take(self, about: str, now: float) -> bool:
        bucket = self._buckets.get(about) or _Bucket(BURST, now)
        tokens = min(float(BURST), bucket.tokens + (now - bucket.at) / REFILL)
        taken = tokens >= 1.0 - 1e-9  # a wait of exactly the time that `pause` gave is enough
        self._buckets[about] = _Bucket(tokens - 1 if taken else tokens, now)
        self._buckets.move_to_end(about)
        while len(self._buckets) > REMEMBERED:
            self._buckets.popitem(last=False)
        return taken
