"""The objects of a directory as the API would show them: manifests and records together, kept up to date."""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from porterlb.cluster import (
    Broken,
    Changed,
    Conflict,
    Deleted,
    Denied,
    Event,
    Kind,
    Outage,
    Replaced,
    Restored,
    Unavailable,
)
from porterlb.edge.manifests import edit, merge, schema
from porterlb.edge.manifests.directory import GRACE, Directory
from porterlb.edge.manifests.documents import CUSTOM, Document, DocumentKey
from porterlb.edge.manifests.leases import Leases, as_object
from porterlb.edge.manifests.records import ManifestRecord, ManifestRecords, annotated, composed, last_good
from porterlb.edge.manifests.state_dir import StateDir

log = logging.getLogger(__name__)

Object = dict[str, Any]


class ManifestState:
    """Blocking: its methods run in threads, one at a time except :meth:`survey`. ``events`` is drained by the event
    loop."""

    def __init__(self, state_dir: StateDir, leases: Leases, namespace: str) -> None:
        self.trouble: str | None = None  # None: not scanned yet; empty: no trouble
        self.recheck: float | None = None  # monotonic: scan again then in any case
        self.seconds = 0.0  # duration of the last survey
        self.events: deque[Event] = deque()
        self._state_dir = state_dir
        self._leases = leases
        self._namespace = namespace
        self._records = ManifestRecords(state_dir)
        self._directory = Directory(state_dir.path)
        self._mutex = threading.Lock()
        self._objects: dict[DocumentKey, Object] = {}
        self._lease_keys: set[DocumentKey] = set()  # of the leases in _objects
        self._unsynced: dict[DocumentKey, Document | None] = {}
        self._problems: dict[str, str] = {}
        self._seeded = False

    # --- observing

    def look(self, paths: Iterable[Path] | None = None, wait: float = 5.0) -> str:
        """Scans what has changed (``paths``, or everything). Returns why the directory cannot be used, or ''."""
        with self._alone(wait):
            return self._look(paths)

    def survey(self) -> list[Path]:
        """The files that have changed without a notice, for :meth:`look`. Other methods may run meanwhile: with many
        files this takes long, and a change that was noticed must not wait for it. Raises OSError."""
        started = time.monotonic()
        keys = [key for key in self._objects.copy() if key.kind is not Kind.LEASE]
        found = [*self._directory.changed(), *self._records.changed(keys), self._state_dir.inside / "leases"]
        self.seconds = time.monotonic() - started
        return found

    def fresh(self, wait: float = 5.0) -> dict[DocumentKey, Object]:
        """All objects as they are now. Raises Unavailable."""
        with self._alone(wait):
            trouble = self._look(None)
            if trouble:
                raise Unavailable(trouble)
            return dict(self._objects)

    def _look(self, paths: Iterable[Path] | None) -> str:
        started = time.monotonic()
        paths = None if self.trouble is None or self.trouble else paths
        trouble = self._state_dir.trouble(in_use=bool(self._objects))
        if not trouble:
            try:
                trouble = self._bring_up_to_date(paths, started)
            except OSError as error:
                trouble = f"The directory {self._state_dir.path} cannot be read: {error.strerror}."
        if trouble and trouble != self.trouble:
            self.events.append(Outage(trouble))
        elif self.trouble and not trouble:
            for kind in Kind:
                self.events.append(Replaced(kind, tuple(o for key, o in self._objects.items() if key.kind is kind)))
            self.events.append(Restored())
        self.trouble = trouble
        return trouble

    def _bring_up_to_date(self, paths: Iterable[Path] | None, now: float) -> str:
        """Reads the manifests (``paths``: those that changed; None: all), and brings objects and records in line.

        Returns the trouble that prevents this, as a sentence; empty when there is none.
        """
        first = not self._seeded
        if first:
            records = {key: self._records.read(key) for key in self._records.keys()}  # noqa: SIM118 — no mapping
            self._directory.seed(last_good(key, record) for key, record in records.items() if record and record.object)
        touched = self._directory.read(None if paths is None else self._manifests_of(paths))
        # The mount may have vanished while we were reading: then nothing that was read counts.
        trouble = self._state_dir.trouble(in_use=bool(self._objects or self._directory.published))
        if trouble:
            return trouble
        changed = self._directory.resolve(touched, now, 0.0 if first else GRACE)
        if first:
            changed = {**dict.fromkeys(self._directory.published), **changed}
            self._seeded = True
        for key, before in {**changed, **self._unsynced}.items():
            self._sync(key, before)
        self._look_at_records(() if first else paths)  # the first time, all of them were read right now
        if first or paths is None or any(path.is_relative_to(self._state_dir.inside / "leases") for path in paths):
            self._look_at_leases()
        self._tell_problems()
        self.recheck = self._next_look(now)
        return ""

    def _manifests_of(self, paths: Iterable[Path]) -> list[Path]:
        """``paths`` without those in our own state directory."""
        return [path for path in paths if not path.is_relative_to(self._state_dir.inside)]

    def _next_look(self, now: float) -> float | None:
        """When to scan again even if no file changes (monotonic); None: no need to."""
        times = [self._directory.recheck, now + GRACE if self._unsynced else None]
        return min((at for at in times if at is not None), default=None)

    def _sync(self, key: DocumentKey, before: Document | None) -> None:
        """Brings record and object in line with the manifest; what fails now is tried again later."""
        document = self._directory.published.get(key)
        try:
            if document:
                self._show(key, composed(document, self._records.synced(document)))
            else:
                if before and not self._state_dir.read_only:
                    self._records.drop(key, before.digest)
                self._show(key, None)
            self._unsynced.pop(key, None)
        except Exception as error:
            if not isinstance(error, OSError | Unavailable | Denied):  # a bug of ours, in one object
                log.exception("%s cannot be brought up to date", key)
            self._unsynced.setdefault(key, before)

    def _look_at_records(self, paths: Iterable[Path] | None) -> None:
        if paths is None:
            keys: Iterable[DocumentKey] = [key for key in self._objects if key.kind is not Kind.LEASE]
        else:
            folder = self._state_dir.inside / "status"
            keys = [key for p in paths if p.is_relative_to(folder) and (key := self._records.key_of(p))]
        for key in keys:
            document = self._directory.published.get(key)
            if document and key in self._objects and key not in self._unsynced:
                record = self._records.read(key)
                if record is None:
                    self._sync(key, None)
                elif str(record.revision) != self._objects[key]["metadata"]["resourceVersion"]:
                    self._show(key, composed(document, record))

    def _look_at_leases(self) -> None:
        found = {
            DocumentKey(Kind.LEASE, self._namespace, record.name): as_object(record, self._namespace)
            for record in self._leases.all()
        }
        for key in self._lease_keys - found.keys():
            self._show(key, None)
        self._lease_keys = set(found)
        for key, obj in found.items():
            self._show(key, obj)

    def _show(self, key: DocumentKey, obj: Object | None) -> None:
        if obj is None:
            if self._objects.pop(key, None) is not None:
                self.events.append(Deleted(key.kind, key.namespace, key.name))
        elif self._objects.get(key) != obj:
            self._objects[key] = obj
            self.events.append(Changed(key.kind, obj))

    def _tell_problems(self) -> None:
        found = self._directory.problems()
        for where in self._problems.keys() - found.keys():
            self.events.append(Broken(where, ""))
        for where, message in found.items():
            if self._problems.get(where) != message:
                self.events.append(Broken(where, message))
        self._problems = found

    # --- writing

    def apply_status(
        self, key: DocumentKey, fields: Mapping[str, Any], owner: str, version: str, until: float
    ) -> Object:
        """See Cluster.apply_status; ``until``: monotonic."""
        fields = schema.without_nulls(fields)
        fault = schema.judge_status(key.kind.kind, fields) if key.kind in CUSTOM else None
        if fault:
            raise Denied(f"{key}: {fault.message}")

        def make(record: ManifestRecord) -> ManifestRecord:
            return replace(record, owners=merge.applied(record.owners, owner, fields))

        return self._write(key, make, version, until)

    def annotate(self, key: DocumentKey, annotations: Mapping[str, str], owner: str, until: float) -> Object:
        """Stores annotations in the record, beside the manifest."""
        return self._write(key, lambda record: annotated(record, owner, annotations), "", until)

    def edit_spec(self, key: DocumentKey, spec: Mapping[str, Any], until: float) -> Object:
        """Changes fields of spec in the manifest file itself. Raises Denied, Conflict."""
        with self._alone(until - time.monotonic()):
            self._refresh(key)
            document = self._known(key)
            with self._state_dir.locked(document.file, until):
                edit.rewrite(self._state_dir.path / document.file, document, spec)
            self._look([self._state_dir.path / document.file])
            return self._objects[key]

    def _write(
        self, key: DocumentKey, make: Callable[[ManifestRecord], ManifestRecord], version: str, until: float
    ) -> Object:
        with self._alone(until - time.monotonic()):
            self._state_dir.guard()
            self._refresh(key)
            document = self._known(key)

            def checked(record: ManifestRecord | None) -> ManifestRecord:
                if record is None:
                    raise Conflict(f"{key} was deleted meanwhile.")
                if version and version != str(record.revision):
                    raise Conflict(f"{key} was changed since version {version}.")
                return make(record)

            def in_time() -> None:
                self._state_dir.guard()
                if time.monotonic() > until:
                    raise Unavailable("The deadline of this write has passed.")

            record = self._records.change(key, checked, until, in_time)
            self._show(key, composed(document, record))
            return self._objects[key]

    def _refresh(self, key: DocumentKey) -> None:
        """Makes sure that a write is checked against the current manifest, not against one that is some ms old."""
        document = self._directory.published.get(key)
        trouble = self._look([self._state_dir.path / document.file, self._records.path(key)] if document else None)
        if trouble:
            raise Unavailable(trouble)

    def _known(self, key: DocumentKey) -> Document:
        document = self._directory.published.get(key)
        if document is None or key not in self._objects:
            raise Denied(f"There is no {key}.")
        return document

    @contextlib.contextmanager
    def _alone(self, wait: float) -> Iterator[None]:
        if not self._mutex.acquire(timeout=max(0.0, wait)):
            raise Unavailable(f"The file system of {self._state_dir.path} does not answer.")
        try:
            yield
        finally:
            self._mutex.release()
