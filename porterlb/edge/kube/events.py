"""Writes Events (events.k8s.io/v1) one by one, in the background."""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any

from porterlb.cluster import Conflict, Denied, Kind, Obj, Unavailable
from porterlb.core.backoff import delay
from porterlb.edge.kube import micro_time, paths
from porterlb.edge.kube.api import MERGE, Api, Request
from porterlb.edge.kube.errors import Expired, Missing
from porterlb.edge.kube.event_series import REMEMBERED, EventSeries, EventWrite, Series

log = logging.getLogger("porterlb.kube")

PACE = 0.04
"""Seconds between two writes: with a thousand Services at once, Events must not delay the status of the Services."""

DEADLINE = 5.0
LAST_WORDS = 1.0
"""Seconds at the end for the remaining writes."""

CONTROLLER = "porterlb"

NOTE_AT_MOST = 1024
REASON_AT_MOST = 128
INSTANCE_AT_MOST = 128
"""Bytes: limits of the API."""


@dataclass(slots=True, eq=False)
class EventWriter:
    """Events are best effort: a write is repeated until the API answers; a refused Event is logged and dropped."""

    api: Api
    _told: EventSeries = field(default_factory=EventSeries)
    _regarding: OrderedDict[str, Mapping[str, Any]] = field(default_factory=OrderedDict)
    _news: asyncio.Event = field(default_factory=asyncio.Event)
    _task: asyncio.Task[None] | None = None
    _idle: asyncio.Event = field(default_factory=asyncio.Event)

    def tell(self, kind: Kind, obj: Obj, *, type_: str, reason: str, message: str, reporter: str) -> None:
        """Notes an Event about an object; returns at once."""
        metadata: Mapping[str, Any] = obj.get("metadata") or {}
        regarding = {
            "apiVersion": kind.api_version,
            "kind": kind.kind,
            "name": str(metadata.get("name") or ""),
            "namespace": str(metadata.get("namespace") or ""),
            "uid": str(metadata.get("uid") or ""),
        }
        about = "/".join(regarding.values())
        self._regarding[about] = {key: value for key, value in regarding.items() if value}
        self._regarding.move_to_end(about)
        while len(self._regarding) > 2 * REMEMBERED:
            self._regarding.popitem(last=False)
        series = Series(about, type_, reason[:REASON_AT_MOST], _cut(message, NOTE_AT_MOST), reporter[:INSTANCE_AT_MOST])
        self._told.told(series, time.monotonic())
        self._news.set()
        self._idle.clear()
        if self._task is None:
            self._task = asyncio.create_task(self._work(), name="events")

    async def close(self) -> None:
        """Writes the remaining Events that are due, for a second at most, and stops."""
        if self._task is None:
            return
        try:
            async with asyncio.timeout(LAST_WORDS):
                await self._idle.wait()
        except TimeoutError:
            log.warning("Some Events could not be written before the end.")
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
        self._task = None

    async def _work(self) -> None:
        while True:
            write = self._told.due(time.monotonic())
            if write is None:
                self._idle.set()  # the rest waits for its rate limit, and close() does not wait for that
                self._news.clear()
                await self._wait(self._told.pause(time.monotonic()))
                continue
            name = write.name
            try:
                name = await self._write(write)
            except Exception:  # a bug of ours, in one Event
                log.exception("the Event %s about %s cannot be written", write.series.reason, write.series.about)
            self._told.wrote(write, name)
            await asyncio.sleep(PACE)

    async def _wait(self, seconds: float | None) -> None:
        try:
            async with asyncio.timeout(seconds):
                await self._news.wait()
        except TimeoutError:
            pass

    async def _write(self, write: EventWrite) -> str:
        """Writes until the API has answered; returns the Event's name, empty if it is gone or a new one was refused."""
        now = time.time_ns() // 1000
        event = self._event(write, now)
        failures = 0
        while True:
            try:
                if write.name:
                    path = paths.events(event["metadata"]["namespace"], write.name)
                    request = Request("PATCH", path, body=_series(write, now), content_type=MERGE)
                    await self.api.call(request, DEADLINE)
                    return write.name
                path = paths.events(event["metadata"]["namespace"])
                await self.api.call(Request("POST", path, body=event), DEADLINE)
            except (Unavailable, Expired) as error:
                failures += 1
                log.debug("An Event is delayed: %s", error)
                await asyncio.sleep(delay(failures, random.random()))
                continue
            except Conflict:
                pass  # only we use this name: an attempt that timed out has succeeded
            except Missing:
                return ""  # the API keeps Events for an hour; or the namespace is gone
            except Denied as error:
                log.warning("The Event %s about %s was refused: %s", write.series.reason, write.series.about, error)
                return write.name
            return str(event["metadata"]["name"])

    def _event(self, write: EventWrite, now: int) -> dict[str, Any]:
        series = write.series
        regarding = self._regarding[series.about]
        digest = sha256(repr(series).encode()).hexdigest()[:8]
        event: dict[str, Any] = {
            "apiVersion": "events.k8s.io/v1",
            "kind": "Event",
            "metadata": {
                "name": f"{regarding['name'][:220].rstrip('-.')}.{digest}{now:x}",
                # Events about objects without a namespace belong in "default".
                "namespace": regarding.get("namespace", "default"),
            },
            "eventTime": micro_time.write(now),
            "reportingController": CONTROLLER,
            "reportingInstance": series.reporter,
            "regarding": regarding,
            "type": series.type_,
            "reason": series.reason,
            "action": series.reason,
            "note": series.message,
        }
        if write.count > 1:
            event |= _series(write, now)
        return event


def _series(write: EventWrite, now: int) -> dict[str, Any]:
    return {"series": {"count": write.count, "lastObservedTime": micro_time.write(now)}}


def _cut(text: str, size: int) -> str:
    """At most ``size`` bytes of UTF-8, cut at a character's boundary."""
    return text.encode()[:size].decode("utf-8", "ignore")
