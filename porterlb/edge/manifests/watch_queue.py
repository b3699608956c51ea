"""The events that a reader of a watch has not taken yet: bounded by the number of objects, however slow the reader."""

from __future__ import annotations

import asyncio
from collections.abc import Hashable, Iterable

from porterlb.cluster import Broken, Changed, Deleted, Event, Kind, Outage, Replaced, Restored


class WatchQueue:
    """Keeps the latest event about each topic, in the order of the latest change. One event loop."""

    def __init__(self, kinds: Iterable[Kind]) -> None:
        self.kinds = tuple(dict.fromkeys(kinds))
        self._pending: dict[Hashable, Event] = {}
        self._some = asyncio.Event()

    def put(self, event: Event) -> None:
        if isinstance(event, (Replaced, Changed, Deleted)) and event.kind not in self.kinds:
            return
        if isinstance(event, Replaced):
            for topic in [t for t in self._pending if isinstance(t, tuple) and t[:2] == ("object", event.kind)]:
                del self._pending[topic]
        about = _topic(event)
        self._pending.pop(about, None)
        self._pending[about] = event
        self._some.set()

    async def get(self) -> Event:
        while not self._pending:
            self._some.clear()
            await self._some.wait()
        topic = next(iter(self._pending))
        return self._pending.pop(topic)


def _topic(event: Event) -> Hashable:
    if isinstance(event, Changed):
        metadata = event.object["metadata"]
        return ("object", event.kind, metadata.get("namespace", ""), metadata["name"])
    if isinstance(event, Deleted):
        return ("object", event.kind, event.namespace, event.name)
    if isinstance(event, Replaced):
        return ("kind", event.kind)
    if isinstance(event, Broken):
        return ("broken", event.where)
    assert isinstance(event, (Outage, Restored))
    return "api"
