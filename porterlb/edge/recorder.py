"""Keeps the history of this replica: every entry becomes a log line, a count and, on one replica, an Event."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Collection, Mapping
from functools import partial
from typing import Protocol

from porterlb.cluster import Cluster, Kind, Obj, tell
from porterlb.core.history import Entry, History, noted, step
from porterlb.core.history.events import Event, Pending, counts, tells
from porterlb.core.history.words import sentence
from porterlb.core.known import Known
from porterlb.core.model import Address
from porterlb.core.objects import Objects
from porterlb.logs import fields

log = logging.getLogger("porterlb.history")

AGAIN = 5.0
"""Seconds until a failed comparison is tried again."""

MANY = 200
"""More VIPs than this are compared in a thread: the comparison can take 0.2 s, too long for the event loop."""

IDLE = 60.0
"""Seconds, at most, between two checks whether something is due."""


class Meter(Protocol):
    """Counts entries. See :class:`porterlb.edge.metrics.Metrics`."""

    def recorded(self, counted: Mapping[tuple[str, str], int]) -> None: ...


class Recorder:
    """Call :meth:`observe` with what is known, in the event loop; :meth:`run` is its task.

    Args:
        objects: to find the objects that Events are about.
        reporter: the reporter that the Events name.
        on_entries: called when the history has new entries.
        clock: monotonic seconds.
    """

    def __init__(
        self,
        cluster: Cluster,
        objects: Objects,
        reporter: str,
        meter: Meter,
        *,
        on_entries: Callable[[], None],
        clock: Callable[[], float],
    ) -> None:
        self._cluster = cluster
        self._objects = objects
        self._reporter = reporter
        self._meter = meter
        self._on_entries = on_entries
        self._clock = clock
        self._latest: Known | None = None
        self._touched: set[Address] = set()
        self._known: Known | None = None  # what the history was last compared with
        self._pending = Pending()
        self._news = asyncio.Event()
        self._noted: list[Entry] = []
        self.history = History()

    def observe(self, known: Known, touched: Collection[Address]) -> None:
        """Takes what is known now. ``touched``: the VIPs that are served differently since the last call."""
        self._latest = known
        self._touched.update(touched)
        self._news.set()

    def note(self, entry: Entry) -> None:
        """Adds an entry for an event that a comparison cannot find."""
        self._noted.append(entry)
        self._news.set()

    async def run(self) -> None:
        """Compares and reports until cancelled."""
        while True:
            times = [at for at in (self.history.next_at, self._pending.next_at) if at is not None]
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(max(0.0, min(times) - self._clock()) if times else IDLE):
                    await self._news.wait()
            self._news.clear()
            if self._latest is None:
                continue
            try:
                await self._compare(self._latest)
                self._pending, due = self._pending.due(self._latest, self._clock())
                mine = tells(self._latest)
                for event in due:
                    if mine or event.by_all:
                        await self._tell(event)
            except Exception:
                # A failure to report must never stop the service.
                log.exception("The history cannot be continued. A new one begins.")
                self.history, self._known, self._pending = History(), None, Pending()
                await asyncio.sleep(AGAIN)

    async def _compare(self, latest: Known) -> None:
        before, self._known = self._known, latest
        touched, self._touched = self._touched, set()
        work = partial(step, self.history, before, latest, self._clock(), touched)
        many = len(touched) > MANY or before is None
        self.history, found = await asyncio.to_thread(work) if many else work()
        notes, self._noted = tuple(self._noted), []
        self.history = noted(self.history, notes)
        fresh = (*found, *notes)
        for entry in fresh:
            level = logging.WARNING if entry.what.bad else logging.INFO
            more = {"what": entry.what.value, "why": entry.why.value, "vips": len(entry.vips)}
            log.log(level, "%s", sentence(entry), extra=fields(**{name: text for name, text in more.items() if text}))
        if fresh:
            self._meter.recorded(counts(fresh))
            self._pending = self._pending.with_more(fresh, self._clock())
            self._on_entries()

    async def _tell(self, event: Event) -> None:
        about, notice = event.about, event.notice
        obj: Obj | None = self._objects.raw(*about)
        if about.kind == Kind.LEASE.kind:
            obj = {"metadata": {"name": about.name, "namespace": self._cluster.namespace}}
        if obj is not None:
            await tell(self._cluster, about.kind, obj, notice, reporter=self._reporter)
