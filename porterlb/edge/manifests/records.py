"""What we store about each object beside its manifest: identity, status by owner, annotations, the last good version.

One JSON file per object, .porterlb/status/<Kind>/[<namespace>_]<name>.json, replaced atomically under a short lock.
The last good version is kept so that an object survives if its manifest is broken while the manager restarts.
"""

from __future__ import annotations

import contextlib
import datetime
import hashlib
import json
import os
import time
import uuid
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from porterlb.cluster import Kind
from porterlb.core.depth import MOST, limited
from porterlb.edge.manifests import merge
from porterlb.edge.manifests.documents import OWN_STATUS, Document, DocumentKey
from porterlb.edge.manifests.state_dir import StateDir, signature_of

_LOCK_WAIT = 1.0  # seconds; the lock is held for some 100 µs


@dataclass(frozen=True, slots=True)
class ManifestRecord:
    """``revision`` increases with each change of the record, and so with each change of the manifest.

    ``annotations``: name -> {value, owner, base}; base is the manifest's own value when ours was written: if the
    manifest's value changes later, it counts again. ``shape``: digest of all but metadata and status. ``source`` and
    ``of``: as in :class:`Document`, when the object last changed.
    """

    uid: str
    created: str
    generation: int = 1
    shape: str = ""
    digest: str = ""
    revision: int = 1
    file: str = ""
    line: int = 0
    source: str = ""
    of: int = 0
    object: Mapping[str, Any] = field(default_factory=dict)
    owners: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    annotations: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)


class ManifestRecords:
    """The records of a directory, with a cache. Blocking; used by one thread at a time."""

    def __init__(self, state_dir: StateDir) -> None:
        self._state_dir = state_dir
        self._folders = {kind: state_dir.inside / "status" / kind.kind for kind in Kind}
        self._cache: dict[DocumentKey, tuple[tuple[int, int, int], ManifestRecord]] = {}

    def path(self, key: DocumentKey) -> Path:
        name = f"{key.namespace}_{key.name}" if key.namespace else key.name
        return self._folders[key.kind] / f"{name}.json"

    def key_of(self, path: Path) -> DocumentKey | None:
        """The object that a file in .porterlb/status describes."""
        kind = next((kind for kind in Kind if kind.kind == path.parent.name), None)
        if kind is None or path.suffix != ".json":
            return None
        namespace, _, name = path.stem.rpartition("_")
        return DocumentKey(kind, namespace, name)

    def read(self, key: DocumentKey) -> ManifestRecord | None:
        """The record as it is now, or None. A damaged record counts as none: it is created again."""
        path = self.path(key)
        try:
            known = self._cache.get(key)
            if known and known[0] == signature_of(path.stat()):
                return known[1]
            with path.open("rb") as file:
                signature = signature_of(os.fstat(file.fileno()))
                record = _record(file.read())
        except FileNotFoundError:
            self._cache.pop(key, None)
            return None
        except (ValueError, TypeError, AttributeError, RecursionError):
            return None
        self._cache[key] = (signature, record)
        return record

    def keys(self) -> list[DocumentKey]:
        """The keys of all existing records."""
        found = []
        for kind in Kind:
            with contextlib.suppress(FileNotFoundError):
                for entry in os.scandir(self._folders[kind]):
                    key = self.key_of(Path(entry.path))
                    if key:
                        found.append(key)
        return found

    def changed(self, keys: Iterable[DocumentKey]) -> list[Path]:
        """The records of ``keys`` that are not as they were when they were read. Changes nothing, and may run beside
        other methods."""
        found = []
        for key in keys:
            path, known = self.path(key), self._cache.get(key)
            try:
                same = known is not None and known[0] == signature_of(path.stat())
            except FileNotFoundError:
                same = known is None
            if not same:
                found.append(path)
        return found

    def synced(self, document: Document) -> ManifestRecord:
        """The record of a manifest, created or updated if needed. Raises OSError or Unavailable."""
        record = self.read(document.key)
        if record and record.digest == document.digest and record.file == document.file:
            return record
        if self._state_dir.read_only:
            return self._advanced(record, document)
        return self.change(document.key, lambda old: self._advanced(old, document), time.monotonic() + _LOCK_WAIT)

    def change(
        self,
        key: DocumentKey,
        make: Callable[[ManifestRecord | None], ManifestRecord],
        until: float,
        check: Callable[[], None] = lambda: None,
    ) -> ManifestRecord:
        """Reads, lets ``make`` decide, and writes, with the object locked. Writes nothing if nothing has changed.

        ``check`` is called immediately before the write and may raise.
        """
        with self._state_dir.locked(str(key), until):
            old = self.read(key)
            new = make(old)
            if new == old:
                return new
            new = replace(new, revision=(old.revision if old else 0) + 1)
            mode = 0o600 if key.kind is Kind.SECRET else 0o644
            content = json.dumps({name: getattr(new, name) for name in ManifestRecord.__slots__}, separators=(",", ":"))
            check()
            self._state_dir.replace(self.path(key), content.encode(), mode)
            return self.read(key) or new

    def drop(self, key: DocumentKey, digest: str) -> None:
        """Forgets a deleted object, unless it has come back with other content since."""
        with self._state_dir.locked(str(key), time.monotonic() + _LOCK_WAIT):
            record = self.read(key)
            if record and record.digest == digest:
                self.path(key).unlink(missing_ok=True)
                self._cache.pop(key, None)

    def _advanced(self, old: ManifestRecord | None, document: Document) -> ManifestRecord:
        shape = _shape(document.object)
        if old is None:
            made_up = uuid.uuid5(uuid.NAMESPACE_URL, str(document.key))  # the same each time, as nothing is stored
            old = ManifestRecord(
                uid=str(made_up if self._state_dir.read_only else uuid.uuid4()),
                created=datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
                generation=0,
            )
        if old.digest == document.digest and old.file == document.file:
            return old
        return replace(
            old,
            generation=old.generation + (shape != old.shape),
            shape=shape,
            digest=document.digest,
            file=document.file,
            line=document.line,
            source=document.source,
            of=document.of,
            object=document.object,
        )


def last_good(key: DocumentKey, record: ManifestRecord) -> Document:
    """The manifest as it was when it was last good."""
    return Document(key, record.object, record.file, record.line, record.digest, record.source, record.of)


def composed(document: Document, record: ManifestRecord) -> dict[str, Any]:
    """The object as the API would show it: manifest, identity, our annotations, status of all owners. It shares parts
    with both, and nothing may change them."""
    obj = dict(document.object)
    metadata: dict[str, Any] = dict(obj["metadata"])
    own = metadata.get("annotations", {})
    annotations = dict(own)
    for name, entry in record.annotations.items():
        if own.get(name) == entry.get("base"):
            annotations[name] = entry["value"]
    if annotations:
        metadata["annotations"] = annotations
    metadata.update(
        uid=record.uid,
        resourceVersion=str(record.revision),
        generation=record.generation,
        creationTimestamp=record.created,
    )
    obj["metadata"] = metadata
    base = document.object.get("status") if document.key.kind in OWN_STATUS else None
    status = merge.merged(record.owners, base)
    if status:
        obj["status"] = status
    writers = [owner for owner, own in sorted(record.owners.items()) if own.get("loadBalancer")]
    if others := [owner for owner in writers if not owner.startswith("porterlb")]:
        metadata["managedFields"] = [{"manager": owner} for owner in others]
    return obj


def annotated(record: ManifestRecord, owner: str, wanted: Mapping[str, str]) -> ManifestRecord:
    """The record after ``owner`` has applied these annotations and given up its other ones."""
    own = record.object.get("metadata", {}).get("annotations", {})
    kept = {name: entry for name, entry in record.annotations.items() if entry["owner"] != owner or name in wanted}
    for name, value in wanted.items():
        old = kept.get(name)
        if old and old["value"] == value and old["base"] == own.get(name):
            kept[name] = {**old, "owner": owner}
        else:
            kept[name] = {"value": value, "owner": owner, "base": own.get(name)}
    return replace(record, annotations=kept)


def _record(content: bytes) -> ManifestRecord:
    """The record in a file. Raises ValueError, TypeError, AttributeError or RecursionError if it is damaged."""
    fields = json.loads(content)
    if content.count(b"{") + content.count(b"[") > MOST:
        fields = limited(fields)
    record = ManifestRecord(**fields)
    parts = (record.object, record.owners, record.annotations, *record.owners.values(), *record.annotations.values())
    texts = (record.uid, record.created, record.shape, record.digest, record.file, record.source)
    numbers = (record.generation, record.revision, record.line, record.of)
    whole = all(isinstance(part, dict) for part in parts) and all(isinstance(text, str) for text in texts)
    if not whole or not all(isinstance(number, int) for number in numbers):
        raise ValueError("a field has another type")
    if not all({"value", "owner", "base"} <= entry.keys() for entry in record.annotations.values()):
        raise ValueError("an annotation is not whole")
    return record


def _shape(obj: Mapping[str, Any]) -> str:
    content = {name: value for name, value in obj.items() if name not in ("metadata", "status")}
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]
