"""Helpers for the tests of the manifests cluster: a folder, hand-written manifests, and bounded waits."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from porterlb.cluster import Broken, Changed, Deleted, Event, Kind, Outage, Replaced, Restored
from porterlb.edge.manifests import ManifestsCluster

EIP = """\
# The office pool
apiVersion: network.kubesphere.io/v1alpha2
kind: Eip
metadata:
  name: pool
spec:
  address: 192.0.2.0/28   # sixteen
  protocol: auto  # may change
"""

SERVICE = """\
apiVersion: v1
kind: Service
metadata:
  name: {name}
  namespace: shop
spec:
  type: LoadBalancer
  ports:
    - port: {port}
      protocol: TCP
  selector: {{app: web}}
"""


def service(name: str, port: int = 80) -> str:
    return SERVICE.format(name=name, port=port)


class Watcher:
    """Reads a watch in the background and keeps its results: events, and the objects that follow from them."""

    def __init__(self, cluster: ManifestsCluster, *kinds: Kind) -> None:
        self.events: list[Event] = []
        self.objects: dict[tuple[Kind, str, str], Any] = {}
        self.broken: dict[str, str] = {}
        self.outage = ""
        self.restored = 0
        self._kinds = kinds
        self._stream: AsyncIterator[Event] = cluster.watch(kinds)
        self._news = asyncio.Event()
        self.task = asyncio.create_task(self._read())

    async def _read(self) -> None:
        async for event in self._stream:
            self.events.append(event)
            match event:
                case Replaced(kind, objects):
                    self.objects = {k: v for k, v in self.objects.items() if k[0] is not kind}
                    for obj in objects:
                        self.objects[(kind, *_names(obj))] = obj
                case Changed(kind, obj):
                    self.objects[(kind, *_names(obj))] = obj
                case Deleted(kind, namespace, name):
                    self.objects.pop((kind, namespace, name), None)
                case Broken(where, message):
                    self.broken.pop(where, None)
                    if message:
                        self.broken[where] = message
                case Outage(reason):
                    self.outage = reason
                case Restored():
                    self.outage = ""
                    self.restored += 1
            self._news.set()

    def get(self, kind: Kind, name: str, namespace: str = "") -> Any:
        return self.objects.get((kind, namespace, name))

    async def until(self, true: Callable[[], Any], seconds: float = 20.0) -> Any:
        async with asyncio.timeout(seconds):
            while not (result := true()):
                if self.task.done():
                    self.task.result()
                self._news.clear()
                await self._news.wait()
        return result

    async def started(self) -> None:
        await self.until(
            lambda: {e.kind for e in self.events if isinstance(e, Replaced)} >= set(self._kinds) or self.outage
        )


def _names(obj: Any) -> tuple[str, str]:
    return obj["metadata"].get("namespace", ""), obj["metadata"]["name"]


@asynccontextmanager
async def opened(path: Path, *kinds: Kind, read_only: bool = False) -> AsyncIterator[tuple[ManifestsCluster, Watcher]]:
    cluster = ManifestsCluster(path, read_only=read_only)
    watcher = Watcher(cluster, *(kinds or (Kind.SERVICE, Kind.EIP)))
    try:
        await watcher.started()
        yield cluster, watcher
    finally:
        watcher.task.cancel()
        await asyncio.gather(watcher.task, return_exceptions=True)
        await cluster.close()
