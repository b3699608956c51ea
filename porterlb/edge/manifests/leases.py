"""Leases as files: compare-and-swap without a lock.

A lease is a folder, and each version of it is a file named by its number: .porterlb/leases/<name>/<number>.json.
Version n+1 is created with link(2), which fails if the file exists: of several writers that have seen n, one succeeds.
No lock is held, so a process that is stopped at any point blocks no other. (The short flock of the design would stay
locked if its process were stopped while it holds it.)
"""

from __future__ import annotations

import contextlib
import datetime
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from porterlb.cluster import Conflict, Denied, Kind, LeaseRecord
from porterlb.core.names import NAME_RULE, is_name
from porterlb.edge.manifests.state_dir import StateDir

KEPT = 8
"""Versions that are kept. A listing that runs during writes may miss the newest ones, but never all of them."""


class Leases:
    """Blocking; stateless, so that any number of threads may use it."""

    def __init__(self, state_dir: StateDir) -> None:
        self._state_dir = state_dir

    def read(self, name: str) -> LeaseRecord | None:
        """The newest version, or None. Raises OSError."""
        self._state_dir.guard(writing=False)
        return self._latest(name)[1]

    def all(self) -> list[LeaseRecord]:
        """Every lease. Raises OSError."""
        self._state_dir.guard(writing=False)
        try:
            names = sorted(entry.name for entry in os.scandir(self._state_dir.inside / "leases") if is_name(entry.name))
        except FileNotFoundError:
            if self._state_dir.read_only and not self._state_dir.identity:
                return []
            raise
        return [record for name in names if (record := self.read(name))]

    def write(self, record: LeaseRecord, until: float) -> LeaseRecord:
        """Creates or replaces; writes nothing after ``until`` (monotonic). Raises Conflict, Unavailable, OSError."""
        self._state_dir.guard()
        number, current = self._latest(record.name)
        if record.version != (current.version if current else ""):
            raise Conflict(f"The lease {record.name} was changed by another process.")
        content = {
            "holder": record.holder,
            "duration": record.duration,
            "transitions": record.transitions,
            "renewals": record.renewals,
            "annotations": dict(record.annotations),
            "written": datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
        }
        return self._append(record.name, number + 1, content, until) or record

    def delete(self, name: str) -> None:
        """Deletes a lease. The numbers continue, so that a late writer cannot match an old one. Raises OSError."""
        self._state_dir.guard()
        number, current = self._latest(name)
        if current:
            with contextlib.suppress(Conflict):
                self._append(name, number + 1, {"deleted": True}, float("inf"))

    def _append(self, name: str, number: int, content: Mapping[str, Any], until: float) -> LeaseRecord | None:
        folder = self._folder(name)
        folder.mkdir(exist_ok=True)
        try:
            self._state_dir.link_new(folder / f"{number}.json", json.dumps(content).encode(), until=until)
        except FileExistsError:
            raise Conflict(f"The lease {name} was changed by another process.") from None
        numbers = self._numbers(folder)
        if numbers and numbers[-1] > number:
            # Either another writer has followed us already, or we have created an old number that had been removed.
            # The writer must read again in both cases.
            if numbers[-1] - number >= KEPT:
                (folder / f"{number}.json").unlink(missing_ok=True)
            raise Conflict(f"The lease {name} was changed by another process.")
        for old in numbers[:-KEPT]:
            (folder / f"{old}.json").unlink(missing_ok=True)
        return _record(name, number, content)

    def _latest(self, name: str) -> tuple[int, LeaseRecord | None]:
        folder = self._folder(name)
        for _ in range(5):
            numbers = self._numbers(folder)
            if not numbers:
                return 0, None
            with contextlib.suppress(FileNotFoundError):  # it was removed meanwhile: there are newer ones
                content = (folder / f"{numbers[-1]}.json").read_bytes()
                return numbers[-1], _read(name, numbers[-1], content)
        raise FileNotFoundError(2, "The lease changes too fast to be read", str(folder))

    def _folder(self, name: str) -> Path:
        if not is_name(name):
            raise Denied(f"{name[:60]!r} is not the name of a Lease: {NAME_RULE}.")
        return self._state_dir.inside / "leases" / name

    @staticmethod
    def _numbers(folder: Path) -> list[int]:
        try:
            return sorted(int(entry.name[:-5]) for entry in os.scandir(folder) if entry.name[:-5].isdigit())
        except FileNotFoundError:
            return []


def _read(name: str, number: int, content: bytes) -> LeaseRecord | None:
    """A version of a lease as it was written. A damaged one has no holder: the next writer replaces it."""
    try:
        return _record(name, number, json.loads(content))
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError):
        return LeaseRecord(name=name, holder="", duration=0.0, version=str(number))


def _record(name: str, number: int, content: Mapping[str, Any]) -> LeaseRecord | None:
    if content.get("deleted"):
        return None
    return LeaseRecord(
        name=name,
        holder=str(content["holder"]),
        duration=float(content["duration"]),
        transitions=int(content["transitions"]),
        renewals=int(content["renewals"]),
        annotations={str(key): str(text) for key, text in content["annotations"].items()},
        version=str(number),
    )


def as_object(record: LeaseRecord, namespace: str) -> dict[str, Any]:
    """The lease as the API would show it (coordination.k8s.io/v1)."""
    return {
        "apiVersion": Kind.LEASE.api_version,
        "kind": Kind.LEASE.kind,
        "metadata": {
            "name": record.name,
            "namespace": namespace,
            "resourceVersion": record.version,
            "annotations": dict(record.annotations),
        },
        "spec": {
            "holderIdentity": record.holder,
            "leaseDurationSeconds": max(1, round(record.duration)),
            "leaseTransitions": record.transitions,
        },
    }
