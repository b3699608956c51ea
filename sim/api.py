"""The API server: objects with versions, server-side apply of status, leases, watches that lag, outages.

The HTTP of :class:`porterlb.edge.kube.KubeCluster` is not simulated; the client here implements the protocol of
:mod:`porterlb.cluster` and fails in the ways that this protocol defines.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any

from porterlb.cluster import (
    Changed,
    Conflict,
    Deleted,
    Denied,
    Event,
    Kind,
    LeaseRecord,
    Marked,
    Obj,
    Outage,
    Replaced,
    Restored,
    Unavailable,
    lease_version,
)
from porterlb.edge.manifests.merge import applied, merged
from sim.clock import EPOCH

if TYPE_CHECKING:
    from sim.world import Process, World

NAMESPACE = "porterlb-system"
KEY = b"the key of the simulated hellos, 32 bytes"
_ANNOTATIONS = "annotations"
Key = tuple[Kind, str, str]


class Api:
    """``away``: nodes that cannot reach it; ``slow``: seconds, at most, that an answer takes; ``lag``: seconds, at
    most, that a watch is behind. ``audit`` is called before every write, with the writer and the object."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.objects: dict[Key, dict[str, Any]] = {}
        self.owners: dict[Key, dict[str, Mapping[str, Any]]] = {}
        self.leases: dict[str, LeaseRecord] = {}
        self.away: set[str] = set()
        self.slow = 0.0
        self.lag = 0.0
        self.conflicts = 0.0
        self.version = 100
        self.watches: list[Watch] = []
        self.audit: Callable[[str, str, Key, Mapping[str, Any]], None] = lambda node, owner, key, status: None
        self.marking: Callable[[str, bool], None] = lambda node, marked: None
        self.changed: Callable[[Key], None] = lambda key: None
        self.writes = 0  # writes that changed something, without leases
        self.emitted = 0

    # ---- the server's own side

    def put(self, kind: Kind, name: str, namespace: str = "", **content: Any) -> None:
        """Creates an object, or replaces its parts (metadata is merged)."""
        key = (kind, namespace, name)
        old = self.objects.get(key)
        self.version += 1
        metadata = dict(old["metadata"]) if old else self._metadata(kind, name, namespace)
        metadata.update(content.pop("metadata", {}))
        metadata["resourceVersion"] = str(self.version)
        new = {**(old or {}), **content, "metadata": metadata}
        if old is not None and old.get("spec") != new.get("spec"):
            metadata["generation"] = metadata.get("generation", 1) + 1
        self.objects[key] = new
        self._tell(kind, Changed(kind, new))
        self.changed(key)

    def _metadata(self, kind: Kind, name: str, namespace: str) -> dict[str, Any]:
        created = int(self.world.now) + int(EPOCH)
        return {
            "name": name,
            **({"namespace": namespace} if namespace else {}),
            "uid": f"{kind.plural}-{name}-{self.version}",
            "generation": 1,
            "creationTimestamp": f"2030-01-01T{created // 3600 % 24:02}:{created // 60 % 60:02}:{created % 60:02}Z",
        }

    def delete(self, kind: Kind, name: str, namespace: str = "") -> None:
        key = (kind, namespace, name)
        if self.objects.pop(key, None) is not None:
            self.owners.pop(key, None)
            self._tell(kind, Deleted(kind, namespace, name))
            self.changed(key)

    def get(self, kind: Kind, name: str, namespace: str = "") -> dict[str, Any] | None:
        return self.objects.get((kind, namespace, name))

    def all(self, kind: Kind) -> list[dict[str, Any]]:
        return [obj for (of, _, _), obj in self.objects.items() if of is kind]

    def _tell(self, kind: Kind, event: Event) -> None:
        for watch in self.watches:
            if kind in watch.kinds:
                watch.tell(kind, event)

    # ---- outages

    def cut(self, nodes: Iterable[str]) -> None:
        self.away.update(nodes)
        for watch in self.watches:
            if watch.process.node in self.away:
                watch.lose()

    def mend(self, nodes: Iterable[str]) -> None:
        self.away.difference_update(nodes)

    # ---- requests

    def request(self, process: Process, work: Callable[[], Any], deadline: float, answer: Callable[..., None]) -> None:
        """In a process: the request reaches the server after a delay, is executed, and the answer returns later."""
        world, chance = self.world, self.world.random
        there = 0.001 + 0.004 * chance.random() + self.slow * chance.random()
        back = 0.001 + 0.004 * chance.random() + self.slow * 0.5 * chance.random()
        if process.node in self.away:
            if chance.random() < 0.5:
                world.after(there, answer, None, Unavailable("connection refused"), process=process, kind=0)
            return
        if there < deadline:
            world.after(there, self._serve, process, work, back, answer)

    def _serve(self, process: Process, work: Callable[[], Any], back: float, answer: Callable[..., None]) -> None:
        if process.node in self.away:
            return
        result, error = None, None
        try:
            result = work()
        except (Conflict, Denied, Unavailable) as found:
            error = found
        if process.node not in self.away:
            self.world.after(back, answer, result, error, process=process, kind=0)

    def apply_status(self, node: str, key: Key, status: Mapping[str, Any], owner: str, version: str) -> Obj:
        old = self.objects.get(key)
        if old is None:
            raise Denied(f"there is no {key[0].kind} {key[2]}")
        if version and version != old["metadata"]["resourceVersion"]:
            raise Conflict(key[2])
        if version and self.world.random.random() < self.conflicts:
            self.put(key[0], key[2], key[1])  # another writer has just written
            raise Conflict(key[2])
        self.audit(node, owner, key, status)
        owners = applied(self.owners.get(key, {}), owner, status)
        self.owners[key] = dict(owners)
        made = merged(owners, old.get("base"))
        if made == old.get("status", {}):
            return old
        self.writes += 1
        self.world.say(f"{node}/manager", f"writes status of {key[0].kind} {key[2]} as {owner}")
        self.put(key[0], key[2], key[1], status=made)
        return self.objects[key]

    def write_lease(self, node: str, record: LeaseRecord) -> LeaseRecord:
        old = self.leases.get(record.name)
        if (old.version if old else "") != record.version:
            raise Conflict(record.name)
        key = (Kind.LEASE, NAMESPACE, record.name)
        spec = {
            "holderIdentity": record.holder,
            "leaseDurationSeconds": record.duration,
            "leaseTransitions": record.transitions,
            "renewTime": record.renewals,
        }
        self.put(Kind.LEASE, record.name, NAMESPACE, metadata={_ANNOTATIONS: dict(record.annotations)}, spec=spec)
        made = LeaseRecord(
            record.name,
            record.holder,
            record.duration,
            record.transitions,
            record.renewals,
            dict(record.annotations),
            lease_version(self.objects[key]),
        )
        self.leases[record.name] = made
        if old is None or old.holder != made.holder:
            self.world.say(f"{node}/manager", f"lease {record.name}: held by {made.holder or 'nobody'}")
        return made

    def delete_lease(self, name: str) -> None:
        self.leases.pop(name, None)
        self.delete(Kind.LEASE, name, NAMESPACE)


class Watch:
    """One watch of a process. Events of one kind keep their order."""

    def __init__(self, api: Api, process: Process, kinds: Iterable[Kind]) -> None:
        self.api = api
        self.process = process
        self.kinds = tuple(kinds)
        self.feed: asyncio.Queue[Event] = asyncio.Queue()
        self.broken = True
        self.number = 0  # the number of the connection
        self._last: dict[Kind, float] = {}

    def tell(self, kind: Kind, event: Event) -> None:
        if self.broken or not self.process.alive:
            return
        self._send(kind, event)

    def _send(self, kind: Kind | None, event: Event) -> None:
        world = self.api.world
        at = world.now + 0.001 + 0.004 * world.random.random() + self.api.lag * world.random.random()
        if kind is not None:
            at = self._last[kind] = max(at, self._last.get(kind, 0.0))
        else:
            at = max([at, *self._last.values()])
        world.at(at, self._take, self.number, event, process=self.process, kind=0)

    def _take(self, number: int, event: Event) -> None:
        if number == self.number:
            self.feed.put_nowait(event)

    def lose(self) -> None:
        """The connection is cut; the client notices that, and tries again until it succeeds."""
        if self.broken:
            return
        self.broken = True
        self.number += 1
        world = self.api.world
        notices = 0.2 + 2.0 * world.random.random()
        outage = Outage("The API server does not answer.")
        world.after(notices, self._take, self.number, outage, process=self.process, kind=0)
        world.after(notices, self._again)

    def _again(self) -> None:
        if not self.process.alive:
            return
        if self.process.node in self.api.away or self.process.stopped:
            self.api.world.after(0.2 + 0.8 * self.api.world.random.random(), self._again)
            return
        self.connect()
        self._send(None, Restored())

    def connect(self) -> None:
        """Lists, and follows from there."""
        self.broken = False
        for kind in self.kinds:
            self._send(kind, Replaced(kind, tuple(self.api.all(kind))))


class Client:
    """The Cluster of one manager."""

    namespace = NAMESPACE
    shares_state = False

    def __init__(self, api: Api, process: Process) -> None:
        self._api = api
        self._process = process

    async def _call(self, work: Callable[[], Any], deadline: float = 3.0) -> Any:
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()

        def answer(result: Any, error: Exception | None) -> None:
            if not future.done():
                if error is not None:
                    future.set_exception(error)
                else:
                    future.set_result(result)

        self._api.request(self._process, work, deadline, answer)
        try:
            async with asyncio.timeout(deadline):
                return await future
        except TimeoutError:
            raise Unavailable("The API server does not answer in time.") from None

    async def watch(self, kinds: Iterable[Kind]) -> AsyncIterator[Event]:
        watch = Watch(self._api, self._process, kinds)
        self._api.watches.append(watch)
        self._process.on_end.append(lambda: self._api.watches.remove(watch) if watch in self._api.watches else None)
        if self._process.node in self._api.away:
            watch.feed.put_nowait(Outage("The API server cannot be reached."))
            self._api.world.after(0.5, watch._again)
        else:
            self._api.world.after(0.003, watch.connect)
        try:
            while True:
                yield await watch.feed.get()
        finally:
            if watch in self._api.watches:
                self._api.watches.remove(watch)

    async def objects(self, kind: Kind) -> list[Obj]:
        found: list[Obj] = await self._call(lambda: self._api.all(kind))
        return found

    async def get(self, kind: Kind, name: str, namespace: str = "") -> Obj | None:
        found: Obj | None = await self._call(lambda: self._api.get(kind, name, namespace))
        return found

    async def apply_status(
        self,
        kind: Kind,
        name: str,
        namespace: str,
        status: Mapping[str, Any],
        *,
        owner: str,
        version: str = "",
        deadline: float = 2.0,
    ) -> Obj:
        api, node, key = self._api, self._process.node, (kind, namespace, name)
        found: Obj = await self._call(lambda: api.apply_status(node, key, status, owner, version), deadline)
        return found

    async def apply(self, kind: Kind, name: str, namespace: str, body: Mapping[str, Any], *, owner: str) -> Obj:
        raise Denied("the managers change nothing but status")

    async def emit(self, kind: Kind, obj: Obj, *, type_: str, reason: str, message: str, reporter: str) -> None:
        def count() -> None:
            self._api.emitted += 1

        await self._call(count)

    async def read_lease(self, name: str) -> LeaseRecord | None:
        found: LeaseRecord | None = await self._call(lambda: self._api.leases.get(name))
        return found

    async def write_lease(self, record: LeaseRecord, *, deadline: float = 1.0) -> LeaseRecord:
        made: LeaseRecord = await self._call(lambda: self._api.write_lease(self._process.node, record), deadline)
        return made

    async def delete_lease(self, name: str) -> None:
        await self._call(lambda: self._api.delete_lease(name))

    async def leases(self) -> list[LeaseRecord]:
        found: list[LeaseRecord] = await self._call(lambda: list(self._api.leases.values()))
        return found

    async def mark_endpoints(self, node: str, first: Any, *, reason: str, message: str, deadline: float) -> Marked:
        await self._call(lambda: self._api.marking(node, True), deadline)
        return Marked(1)

    async def marking_bounded(self, deadline: float) -> bool:
        await self._call(lambda: None, deadline)
        return True

    async def restore_endpoints(self, node: str, *, reason: str, deadline: float) -> Marked:
        await self._call(lambda: self._api.marking(node, False), deadline)
        return Marked(1)

    async def hello_key(self) -> bytes:
        await self._call(lambda: None)
        return KEY

    async def share_state(self, node: str, text: str | None) -> None: ...
    async def unshare_state(self, node: str) -> None: ...

    async def replica_state(self, node: str) -> Any:
        raise Unavailable("not here")

    async def installation(self) -> Any:
        raise Unavailable("not here")

    async def replica_page(self, node: str, path: str) -> str:
        raise Unavailable("not here")

    async def tunnel(self, node: str) -> Any:
        raise Unavailable("not here")

    async def replica_texts(self, node: str) -> Mapping[str, str]:
        raise Unavailable("not here")

    async def close(self) -> None: ...
