"""A directory of YAML manifests behind the Cluster protocol."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import secrets
import time
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

from porterlb.cluster import (
    Broken,
    Changed,
    Deleted,
    Denied,
    Event,
    Kind,
    Labels,
    LeaseRecord,
    Marked,
    Obj,
    Outage,
    Replaced,
    ReplicaState,
    Restored,
    Tunnel,
    Unavailable,
)
from porterlb.core.doctor.installed import Installation
from porterlb.edge.manifests import events, replica_states
from porterlb.edge.manifests.documents import DocumentKey
from porterlb.edge.manifests.inotify import Inotify
from porterlb.edge.manifests.leases import Leases
from porterlb.edge.manifests.state import ManifestState
from porterlb.edge.manifests.state_dir import StateDir, outage_as_unavailable
from porterlb.edge.manifests.watch_queue import WatchQueue

log = logging.getLogger(__name__)

T = TypeVar("T")

TICK = 0.2  # seconds between two checks whether the directory still exists
POLL = 1.0  # seconds between two full scans, for changes without a notification (network file systems)
POLL_SHARE = 50  # full scans take 1/50 of the time at most
CALL = 3.0  # seconds that a call may take
FAILED_AGAIN = 60.0  # seconds between two log lines about scans that fail unexpectedly
EVENTS_PAUSE = 0.1  # seconds over which Events are collected before they are written
EVENTS_WAITING = 5000
ENDPOINTS_READY = "EndpointsReady"
"""Condition of a Node: False while the node is dead. Programs that forward traffic to pods must then skip the node."""


class ManifestsCluster:
    """See Cluster. ``read_only``: writes nothing at all, not even identities: for queries on a plain folder."""

    shares_state = True

    def __init__(self, path: str | Path, namespace: str = "porterlb-system", *, read_only: bool = False) -> None:
        self.namespace = namespace
        self._state_dir = StateDir(Path(path).absolute(), read_only=read_only)
        self._leases = Leases(self._state_dir)
        self._state = ManifestState(self._state_dir, self._leases, namespace)
        # A separate pool: threads that hang in a dead file system must not use up the shared ones.
        self._threads = ThreadPoolExecutor(max_workers=8, thread_name_prefix="manifests")
        # Another one for leases: they must not wait behind the statuses of a burst, or the leader loses its lease.
        self._lease_threads = ThreadPoolExecutor(max_workers=2, thread_name_prefix="leases")
        self._objects: dict[DocumentKey, Obj] = {}
        self._broken: dict[str, str] = {}
        self._queues: set[WatchQueue] = set()
        self._tasks: list[asyncio.Task[None]] = []
        self._looked = asyncio.Event()
        self._noticed = asyncio.Event()  # there are notices to read
        self._moved = False  # another directory is at our path
        self._inode: tuple[int, int] | None = None
        self._noticing_since = 0.0
        self._emitted: list[dict[str, Any]] = []
        self._emitter: asyncio.Task[None] | None = None
        self._failed = -FAILED_AGAIN  # when an unexpected failure was last logged

    # --- watching

    async def watch(self, kinds: Iterable[Kind]) -> AsyncIterator[Event]:
        self._start()
        await self._looked.wait()
        queue = WatchQueue(kinds)
        if self._state.trouble:
            queue.put(Outage(self._state.trouble))
        else:
            for kind in queue.kinds:
                queue.put(Replaced(kind, tuple(obj for key, obj in self._objects.items() if key.kind is kind)))
        for where, message in self._broken.items():
            queue.put(Broken(where, message))
        self._queues.add(queue)
        try:
            while True:
                yield await queue.get()
        finally:
            self._queues.discard(queue)

    def _start(self) -> None:
        if not self._tasks:
            self._tasks = [
                asyncio.create_task(self._tick(), name="manifests-tick"),
                asyncio.create_task(self._notice(), name="manifests-notice"),
            ]

    async def _tick(self) -> None:
        """Scans the directory periodically."""
        full = 0.0
        self._noticing_since = time.monotonic()
        while True:
            now = time.monotonic()
            if self._state.trouble is None or self._state.trouble:
                await self._look(None)
            elif now < full:
                await self._look(())
            else:
                await self._look(await self._survey())
                # Notifications may miss changes while they are being set up, so scan more often at first.
                young = now < self._noticing_since + 2.0
                pause = max(TICK, 2 * self._state.seconds) if young else max(POLL, POLL_SHARE * self._state.seconds)
                full = time.monotonic() + pause
            inode = self._inode_now()
            if inode != self._inode:
                self._inode = inode
                self._moved = True
                self._noticed.set()
            recheck = self._state.recheck
            await asyncio.sleep(max(0.005, min(TICK, recheck - time.monotonic() if recheck else TICK)))

    async def _notice(self) -> None:
        """Scans what the kernel reports as changed."""
        while True:
            self._moved = False
            self._noticing_since = time.monotonic()
            try:
                await self._follow(await self._call(lambda: Inotify(self._state_dir.path, self._state_dir.inside)))
            except (Unavailable, Denied) as error:
                log.debug("no notices for %s: %s", self._state_dir.path, error)
            if not self._moved:
                await asyncio.sleep(TICK)

    async def _follow(self, notices: Inotify) -> None:
        """Scans as soon as a notice arrives, until another directory is at our path. The next scan covers all files
        that change during a scan."""
        loop = asyncio.get_running_loop()
        loop.add_reader(notices.descriptor, self._noticed.set)
        try:
            while not self._moved:
                await self._noticed.wait()
                self._noticed.clear()
                paths = notices.read()
                if paths is None:
                    await self._call(notices.cover)
                if paths is None or paths:
                    await self._look(paths)
        finally:
            loop.remove_reader(notices.descriptor)
            notices.close()

    async def _survey(self) -> Iterable[Path] | None:
        """What has changed without a notice; None: this cannot be found out, and everything must be scanned."""
        try:
            return await self._call(self._state.survey, 10.0)
        except (Unavailable, Denied):
            return None

    async def _look(self, paths: Iterable[Path] | None) -> None:
        try:
            await self._call(lambda: self._state.look(paths), 10.0)
            self._looked.set()
        except (Unavailable, Denied):
            return
        except Exception:  # a bug of ours: scan again, as nothing else would
            if time.monotonic() - self._failed > FAILED_AGAIN:
                self._failed = time.monotonic()
                log.exception("looking at %s failed", self._state_dir.path)

    def _inode_now(self) -> tuple[int, int] | None:
        try:
            found = os.stat(self._state_dir.path)  # noqa: PTH116
        except OSError:
            return None
        return found.st_dev, found.st_ino

    def _deliver(self) -> None:
        """Passes on the events of the state, in order. On the event loop."""
        while self._state.events:
            event = self._state.events.popleft()
            if isinstance(event, Changed):
                metadata = event.object["metadata"]
                namespace = metadata["namespace"] if event.kind.namespaced else ""
                self._objects[DocumentKey(event.kind, namespace, metadata["name"])] = event.object
            elif isinstance(event, Deleted):
                self._objects.pop(DocumentKey(event.kind, event.namespace, event.name), None)
            elif isinstance(event, Broken):
                self._broken.pop(event.where, None)
                if event.message:
                    self._broken[event.where] = event.message
            elif isinstance(event, Outage):
                log.warning("%s", event.reason)
            elif isinstance(event, Restored):
                log.info("The directory %s is back.", self._state_dir.path)
            for queue in self._queues:
                queue.put(event)

    # --- reading

    async def objects(self, kind: Kind) -> list[Obj]:
        found = await self._call(self._state.fresh)
        return [obj for key, obj in found.items() if key.kind is kind]

    async def get(self, kind: Kind, name: str, namespace: str = "") -> Obj | None:
        found = await self._call(self._state.fresh)
        return found.get(DocumentKey(kind, namespace if kind.namespaced else "", name))

    # --- writing

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
        key = DocumentKey(kind, namespace if kind.namespaced else "", name)
        until = time.monotonic() + deadline
        return await self._call(lambda: self._state.apply_status(key, status, owner, version, until), deadline)

    async def apply(self, kind: Kind, name: str, namespace: str, body: Mapping[str, Any], *, owner: str) -> Obj:
        """Annotations are kept in .porterlb; fields of spec are changed in the manifest file itself."""
        key = DocumentKey(kind, namespace if kind.namespaced else "", name)
        unknown = body.keys() - {"apiVersion", "kind", "metadata", "spec"}
        metadata = body.get("metadata", {})
        unknown |= {f"metadata.{part}" for part in metadata.keys() - {"name", "namespace", "annotations", "uid"}}
        if unknown:
            raise Denied(f"{key}: {', '.join(sorted(unknown))} cannot be changed here: edit the manifest.")
        until = time.monotonic() + CALL

        def work() -> Obj:
            result: Obj | None = None
            if body.get("spec"):
                result = self._state.edit_spec(key, body["spec"], until)
            if "annotations" in metadata or result is None:
                wanted = {name: text for name, text in metadata.get("annotations", {}).items() if text is not None}
                result = self._state.annotate(key, wanted, owner, until)
            return result

        return await self._call(work)

    async def emit(self, kind: Kind, obj: Obj, *, type_: str, reason: str, message: str, reporter: str) -> None:
        """Written shortly afterwards; lost if the directory is unavailable for long."""
        if self._state_dir.read_only:
            raise Denied("This directory was opened for reading only.")
        self._emitted.append(events.event(kind, obj, type_=type_, reason=reason, message=message, reporter=reporter))
        del self._emitted[:-EVENTS_WAITING]
        if self._emitter is None or self._emitter.done():
            self._emitter = asyncio.create_task(self._write_events(), name="manifests-events")

    async def _write_events(self) -> None:
        while self._emitted:
            await asyncio.sleep(EVENTS_PAUSE)
            await self._flush_events()

    async def _flush_events(self) -> None:
        batch, self._emitted = events.folded(self._emitted), []
        try:
            if batch:
                await self._call(lambda: events.append(self._state_dir, batch))
        except (Unavailable, Denied) as error:
            log.debug("events are delayed: %s", error)
            self._emitted = (batch + self._emitted)[-EVENTS_WAITING:]
            await asyncio.sleep(1.0)

    async def events(self) -> list[dict[str, Any]]:
        """The Events that are stored, the oldest first."""
        return await self._call(lambda: events.read(self._state_dir))

    # --- failed nodes

    async def mark_endpoints(
        self, node: str, first: Callable[[str, Labels], bool], *, reason: str, message: str, deadline: float
    ) -> Marked:
        """See the protocol. There are no pods here: the Node's status applies to all endpoints on the node."""
        condition = {"type": ENDPOINTS_READY, "status": "False", "reason": reason, "message": message}
        await self.apply_status(Kind.NODE, node, "", {"conditions": [condition]}, owner=reason, deadline=deadline)
        return Marked(1)

    async def marking_bounded(self, deadline: float) -> bool:
        return True  # no other process writes with our rights

    async def restore_endpoints(self, node: str, *, reason: str, deadline: float) -> Marked:
        await self.apply_status(Kind.NODE, node, "", {}, owner=reason, deadline=deadline)
        return Marked(1)

    # --- leases

    async def read_lease(self, name: str) -> LeaseRecord | None:
        return await self._call(lambda: self._leases.read(name), threads=self._lease_threads)

    async def write_lease(self, record: LeaseRecord, *, deadline: float = 1.0) -> LeaseRecord:
        until = time.monotonic() + deadline
        return await self._call(lambda: self._leases.write(record, until), deadline, self._lease_threads)

    async def delete_lease(self, name: str) -> None:
        await self._call(lambda: self._leases.delete(name))

    async def leases(self) -> list[LeaseRecord]:
        return await self._call(self._leases.all)

    async def hello_key(self) -> bytes:
        def work() -> bytes:
            self._state_dir.guard()
            return self._state_dir.make_once("hello.key", secrets.token_hex(32).encode(), 0o600)

        return await self._call(work)

    # --- states of the replicas

    async def share_state(self, node: str, text: str | None) -> None:
        await self._call(lambda: replica_states.write(self._state_dir, node, text))

    async def unshare_state(self, node: str) -> None:
        await self._call(lambda: replica_states.remove(self._state_dir, node))

    async def replica_state(self, node: str) -> ReplicaState:
        return await self._call(lambda: replica_states.read(self._state_dir, node))

    async def replica_page(self, node: str, path: str) -> str:
        raise Unavailable(_unreachable(node))

    async def tunnel(self, node: str) -> Tunnel:
        raise Unavailable(_unreachable(node))

    async def installation(self) -> Installation:
        """Empty: there is no Kubernetes here."""
        return Installation()

    async def replica_texts(self, node: str) -> dict[str, str]:
        """Empty: a replica's log is where the replica was started."""
        return {}

    # --- ending

    async def close(self) -> None:
        tasks = [*self._tasks, *([self._emitter] if self._emitter else [])]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if self._emitted:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(1.0):
                    await self._flush_events()
        for threads in (self._threads, self._lease_threads):
            threads.shutdown(wait=False, cancel_futures=True)

    async def _call(
        self, work: Callable[[], T], deadline: float = CALL, threads: ThreadPoolExecutor | None = None
    ) -> T:
        """Runs blocking work; raises Unavailable when it takes too long (the work itself keeps its deadline, too)."""

        def guarded() -> T:
            with outage_as_unavailable():
                return work()

        try:
            # Not wait_for: in Python 3.11 it swallows a cancellation that arrives together with the result.
            async with asyncio.timeout(deadline):
                return await asyncio.get_running_loop().run_in_executor(threads or self._threads, guarded)
        except TimeoutError:
            raise Unavailable(f"The file system of {self._state_dir.path} does not answer.") from None
        finally:
            self._deliver()


def _unreachable(node: str) -> str:
    return f"Nothing leads to the replica on {node} but its own address: use --from URL."
