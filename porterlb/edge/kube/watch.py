"""One list and watch for each kind, merged into one stream of events that survives outages."""

from __future__ import annotations

import asyncio
import json
import logging
import random
import time
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import Any

from porterlb.cluster import Changed, Deleted, Denied, Event, Kind, Replaced, Unavailable
from porterlb.core.backoff import delay
from porterlb.core.depth import limited
from porterlb.edge.kube import paths
from porterlb.edge.kube.api import Api, decoded, shaped
from porterlb.edge.kube.errors import Busy, Expired, trouble
from porterlb.edge.kube.outage import OutageTracker
from porterlb.errors import PorterError

log = logging.getLogger("porterlb.kube")

QUIET = 100.0
"""Seconds of silence after which a watch is restarted: the API server sends a bookmark about every 60 s."""

LIFE = (290, 590)
"""Seconds after which we ask the server to end a watch: random between these, as in client-go."""

DOUBT = 15.0
"""Seconds, at least, between two tests, with one stream each, whether the API still works after a call has timed out.
A stopped API server keeps its connections, and its kernel answers TCP keep-alives."""

PAGE_DEADLINE = 10.0
OPEN_DEADLINE = 5.0
SETTLED = 5.0
"""Seconds. A watch that ends earlier and has brought nothing counts as failed: otherwise a server that accepts and
closes would be asked without a pause."""

DENIED_CEILING = 15.0
"""Seconds, at most, between two attempts at a kind that the API refuses: a person must add rights or CRDs."""

BUSY_TRIES = 3
"""Busy answers of the API in a row that count as an outage; before that, the watch waits as the API asks."""


@dataclass(slots=True, eq=False)
class _Followed:
    """The state of the watch of one kind."""

    kind: Kind
    path: str
    version: str = ""
    """The last resourceVersion seen; empty: the kind must be listed."""
    outage: int = -1
    """The number of the outage in which it was last listed."""
    failures: int = 0
    busy: int = 0
    heard: bool = False
    """Whether the current stream has brought anything."""
    scope: asyncio.Timeout | None = None
    """The time limit of the current stream, while it is read."""


class Watch:
    """Follows kinds until it is closed.

    Args:
        api: the API server.
        kinds: the kinds to follow; not Secrets, which are read by name.
        namespace: the only namespace whose Leases are followed; the other kinds are followed in all namespaces.
    """

    def __init__(self, api: Api, kinds: Iterable[Kind], namespace: str) -> None:
        self._api = api
        self._followed = [
            _Followed(kind, paths.collection(kind, namespace if kind is Kind.LEASE else "")) for kind in kinds
        ]
        self._outages = OutageTracker([followed.kind for followed in self._followed])
        # Not bounded: it holds what the reader has not taken yet, and the loop that reads it coalesces.
        self._events: asyncio.Queue[Event | BaseException] = asyncio.Queue()
        self._turn = asyncio.Lock()
        self._doubted = -DOUBT

    async def events(self) -> AsyncIterator[Event]:
        """First a Replaced for each kind, then changes without end."""
        tasks = [asyncio.create_task(self._follow(one), name=f"watch {one.kind.plural}") for one in self._followed]
        for task in tasks:
            task.add_done_callback(self._ended)
        self._api.on_timeout.append(self._doubt)
        try:
            while True:
                event = await self._events.get()
                if isinstance(event, BaseException):
                    raise event
                yield event
        finally:
            self._api.on_timeout.remove(self._doubt)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    def _ended(self, task: asyncio.Task[None]) -> None:
        # A watch ends when it is cancelled, or by an error. The reader must see the error: otherwise a kind that is no
        # longer followed would go unnoticed.
        if not task.cancelled() and (error := task.exception()):
            self._events.put_nowait(error)

    def _doubt(self) -> None:
        """Restarts one watch. If that fails, there is an outage and all restart; if the API is only slow, one does."""
        now = time.monotonic()
        reading = [one for one in self._followed if one.scope and not one.scope.expired()]
        if reading and now - self._doubted >= DOUBT:
            self._doubted = now
            self._interrupt(random.choice(reading))

    async def _follow(self, one: _Followed) -> None:
        while True:
            try:
                async with self._attempt():
                    if not one.version or one.outage != self._outages.number:
                        await self._list(one)
                await self._stream(one)
            except Expired:
                one.version = ""
                one.failures += 1
                await asyncio.sleep(delay(one.failures - 1, random.random()))
            except Busy as busy:
                one.busy += 1
                if one.busy >= BUSY_TRIES or not self._outages.over:
                    self._failed(one, str(busy), busy.after)
                await asyncio.sleep(busy.after * (1 + random.random() / 2))
            except Unavailable as error:
                self._failed(one, str(error))
            except Denied as error:
                self._failed(one, str(error), refused=True)
                one.failures += 1
                await asyncio.sleep(delay(one.failures, random.random(), ceiling=DENIED_CEILING))
            except PorterError:  # a user error, such as a kubeconfig that does not exist: it has a remedy
                raise
            except Exception as error:  # a bug of ours: list again, and let the other kinds continue
                if not one.failures:
                    log.exception("following %s failed", one.kind.plural)
                self._failed(
                    one, f"The answer of the API about {one.kind.plural} cannot be used ({type(error).__name__})."
                )
                one.failures += 1
                await asyncio.sleep(delay(one.failures, random.random(), ceiling=DENIED_CEILING))

    @asynccontextmanager
    async def _attempt(self) -> AsyncIterator[None]:
        """While the API is in doubt, one kind asks and the others wait for the result."""
        async with self._turn:
            if self._outages.failures:
                await asyncio.sleep(max(0.0, self._outages.retry_at - time.monotonic()))
                yield
                return
        yield

    async def _list(self, one: _Followed) -> None:
        number = self._outages.number
        objects, one.version = await self._api.pages(one.path, deadline=PAGE_DEADLINE)
        one.outage = number
        self._outages.answered()
        self._events.put_nowait(Replaced(one.kind, tuple(shaped(one.kind, obj) for obj in objects)))

    async def _stream(self, one: _Followed) -> None:
        """Reads one watch until it ends, for whatever reason: the next one continues from there."""
        query = [
            ("watch", "true"),
            ("allowWatchBookmarks", "true"),
            ("resourceVersion", one.version),
            ("timeoutSeconds", str(random.randint(*LIFE))),
        ]
        async with self._api.stream(one.path, query, deadline=OPEN_DEADLINE) as lines:
            if one.outage != self._outages.number:
                return  # an outage was found while this began
            begun = time.monotonic()
            one.busy, one.heard = 0, False
            if restored := self._outages.followed(one.kind, one.outage):
                self._events.put_nowait(restored)
            try:
                await self._read(one, lines)
            except TimeoutError:
                # Silence, or an interruption (below). The connection may be dead without notice.
                self._api.access.distrust()
            except Unavailable:
                pass  # cut: the next attempt finds out whether the API is available
        if not one.heard and time.monotonic() - begun < SETTLED:
            one.failures += 1
            await asyncio.sleep(delay(one.failures, random.random()))
        else:
            one.failures = 0
            await asyncio.sleep(random.random() / 10)  # a server that went down has cut many watches at once

    async def _read(self, one: _Followed, lines: AsyncIterator[bytes]) -> None:
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(QUIET) as one.scope:
                async for line in lines:
                    if one.outage != self._outages.number:
                        return
                    one.scope.reschedule(loop.time() + QUIET)
                    if line:
                        self._take(one, line)
        finally:
            one.scope = None

    def _take(self, one: _Followed, line: bytes) -> None:
        """Takes one line of a watch. Raises the error that an ERROR line reports."""
        try:
            event = decoded(line)
            type_, obj = event["type"], event["object"]
            if type_ == "ERROR":
                one.version = ""  # whatever the error is, do not resume from this version
                raise trouble(int(obj.get("code") or 500), json.dumps(limited(obj)).encode(), one.path)
            version = str(obj["metadata"]["resourceVersion"])
        except (ValueError, LookupError, TypeError, AttributeError) as error:
            one.version = ""
            raise Unavailable(f"The watch of {one.path} returns unreadable data: {error!r}") from None
        if type_ == "DELETED":
            metadata: dict[str, Any] = obj["metadata"]
            self._events.put_nowait(Deleted(one.kind, metadata.get("namespace") or "", metadata["name"]))
        elif type_ != "BOOKMARK":
            self._events.put_nowait(Changed(one.kind, shaped(one.kind, obj)))
        one.version, one.heard = version, True

    def _failed(self, one: _Followed, reason: str, after: float = 0.0, *, refused: bool = False) -> None:
        one.version = ""
        outage = self._outages.failed(one.kind, reason, time.monotonic(), random.random(), after)
        if outage is None:
            return
        self._events.put_nowait(replace(outage, refused=refused))
        for other in self._followed:
            self._interrupt(other)

    def _interrupt(self, one: _Followed) -> None:
        if one.scope and not one.scope.expired():
            one.scope.reschedule(asyncio.get_running_loop().time())
