"""Events in .porterlb/events.jsonl: one JSON object per line, the newest last, repeats counted, bounded in size."""

from __future__ import annotations

import contextlib
import datetime
import json
import time
from collections import OrderedDict
from collections.abc import Mapping
from typing import Any

from porterlb.cluster import Kind, Obj
from porterlb.edge.manifests.state_dir import StateDir

KEPT = 1000
IDENTITY = ("type", "reason", "message", "kind", "namespace", "name", "reporter")


def event(kind: Kind, obj: Obj, *, type_: str, reason: str, message: str, reporter: str) -> dict[str, Any]:
    """The entry for one line."""
    now = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    metadata: Mapping[str, Any] = obj.get("metadata", {})
    return {
        "firstTimestamp": now,
        "lastTimestamp": now,
        "count": 1,
        "type": type_,
        "reason": reason,
        "message": message,
        "kind": kind.kind,
        "namespace": metadata.get("namespace", ""),
        "name": metadata.get("name", ""),
        "reporter": reporter,
    }


def folded(entries: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Repeats become one entry with a count, at the place of the latest; at most KEPT stay."""
    found: OrderedDict[tuple[Any, ...], dict[str, Any]] = OrderedDict()
    for entry in entries:
        identity = tuple(entry.get(name) for name in IDENTITY)
        old = found.pop(identity, None)
        if old:
            entry = {**entry, "firstTimestamp": old["firstTimestamp"], "count": old["count"] + entry["count"]}  # noqa: PLW2901
        found[identity] = entry
    return list(found.values())[-KEPT:]


def append(state_dir: StateDir, entries: list[dict[str, Any]], until: float | None = None) -> None:
    """Adds events to the file. Blocking. Raises OSError or Unavailable."""
    state_dir.guard()
    path = state_dir.inside / "events.jsonl"
    with state_dir.locked("events", until or time.monotonic() + 1.0):
        state_dir.replace(
            path, "".join(json.dumps(entry) + "\n" for entry in folded(read(state_dir) + entries)).encode()
        )


def read(state_dir: StateDir) -> list[dict[str, Any]]:
    """The events, the oldest first; damaged lines are left out. Blocking."""
    found = []
    with contextlib.suppress(FileNotFoundError):
        for line in (state_dir.inside / "events.jsonl").read_text(encoding="utf-8").splitlines():
            with contextlib.suppress(ValueError, RecursionError):
                entry = json.loads(line)
                if isinstance(entry, dict) and isinstance(entry.get("count"), int) and "firstTimestamp" in entry:
                    found.append(entry)
    return found
