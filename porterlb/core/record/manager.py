"""The inputs and decisions of a manager, as reported by the reconcile loop.

Entries refer to the values themselves, which never change. They become text only when the recording is read, so the
loop spends no time on it and entries stay small. The size of an entry is an estimate: an entry keeps the older version
of the object or plan that it replaced in memory.
"""

from __future__ import annotations

import marshal
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, NamedTuple

from porterlb.core.allocation import ReservedMemo
from porterlb.core.doctor.redact import secrets_in, without
from porterlb.core.objects import Obj, ObjectKey
from porterlb.core.observed import WireReport
from porterlb.core.plan import Plan
from porterlb.core.record.codec import encode
from porterlb.core.record.log import Log
from porterlb.core.record.objects import recorded
from porterlb.core.record.plans import Changes, Did, changes, did

Line = dict[str, Any]

ENTRY = 250
"""Bytes of an empty entry."""
SPREAD = 5
"""Size of an API object in memory relative to its text: it consists of small dicts and strings."""
ITEM = 200
"""Bytes of one item in a report, such as a session, or an address with its answerer."""

_QUIET = ("counters",)
"""Fields of WireReport that no decision reads, and that change each second."""

REFERENCE = 10
"""Bytes for each object in a checkpoint: the checkpoint refers to objects that are in memory anyway."""


class Entry(NamedTuple):
    """``value``: see :data:`_TEXT`."""

    what: str
    at: float
    value: Any


@dataclass(frozen=True, slots=True)
class State:
    """Everything that the next plan depends on. ``raw``: API objects by kind. ``kept``: parsed objects that stay in
    force although the API has an unusable version. ``more``: other attributes of the loop by name."""

    raw: Mapping[str, Mapping[ObjectKey, Obj]]
    kept: Mapping[ObjectKey, Any]
    plan: Plan | None
    more: Mapping[str, Any]


class ManagerLog:
    """The recording of one manager. ``at`` is in monotonic seconds in all methods."""

    def __init__(self, limit: int, *, streams: bool = False) -> None:
        self.log: Log[Entry] = Log(limit, streams=streams)
        self.secrets: set[str] = set()
        self._wire: WireReport | None = None

    def note(self, what: str, at: float, value: Any = None, size: int = 0) -> None:
        """Records an input. ``size``: its approximate size in bytes."""
        self.log.add(Entry(what, at, value), ENTRY + size)

    def object(self, key: ObjectKey, obj: Obj | None, at: float) -> None:
        """An object has changed or was deleted (None)."""
        if key.kind == "Secret":
            return
        if obj is None:
            self.note("gone", at, key)
            return
        if key.kind == "BgpPeer":
            self.secrets |= secrets_in((obj,))
        try:
            size = len(marshal.dumps(dict(obj)))  # takes microseconds: implemented in C
        except ValueError:  # not plain data: from a test, or a date made by YAML
            size = 2000
        self.note("object", at, (key.kind, obj), SPREAD * size)

    def wire(self, report: WireReport, at: float) -> None:
        """Records a report of the wire process: the fields that are not the same objects as in the previous report."""
        before, self._wire = self._wire, report
        news = {
            name: value
            for name in _WIRE
            if (value := getattr(report, name)) is not getattr(before, name, self) or name == "answering"
        }
        self.note("wire", at, news, sum(ITEM * len(value) for value in news.values() if hasattr(value, "__len__")))

    def passwords(self, passwords: Mapping[str, str], at: float) -> None:
        """Records which peers have a password. The passwords are remembered, to remove them from recorded text."""
        self.secrets.update(passwords.values())
        self.note("passwords", at, tuple(sorted(passwords)))

    def begin(self, at: float, state: Callable[[], State]) -> None:
        """Planning begins. ``state``: returns everything that the plan depends on."""
        if self.log.due:
            checkpoint = state()
            self._wire = None  # the next report is recorded as a whole
            size = REFERENCE * sum(len(objects) for objects in checkpoint.raw.values())
            self.log.begin(Entry("state", at, checkpoint), size)
        self.note("begin", at)

    def planned(self, at: float, before: Plan | None, made: Plan, wire: Any, token: int) -> None:
        """A plan was made. See :func:`porterlb.core.record.plans.changes`."""
        if made is before:
            self.note("same", at)
            return
        found = changes(before, made, wire, token)
        self.note("planned", at, found, found.size)

    def lines(self, entries: Iterable[Entry]) -> Iterator[Line]:
        """The entries as JSON. May run in a thread: the referenced values do not change."""
        for what, at, value in entries:
            write = _TEXT.get(what)
            yield {"at": at, "what": what} | (write(value, self.secrets) if write is not None else {})


_WIRE = tuple(found.name for found in fields(WireReport) if found.name not in _QUIET)


def _object(value: tuple[str, Obj], _: Collection[str]) -> Line:
    kind, obj = value
    return {"kind": kind, "object": recorded(kind, obj)}


def _state(state: State, secrets: Collection[str]) -> Line:
    more = {name: encode(value, secrets) for name, value in state.more.items()}
    return {
        "raw": {kind: [recorded(kind, obj) for obj in found.values()] for kind, found in state.raw.items()},
        "kept": encode(state.kept, secrets),
        "plan": encode(_remembered(state.plan), secrets),
        "more": more,
    }


def _remembered(plan: Plan | None) -> Plan | None:
    """The plan without the parts that can be computed again from the rest with the same result."""
    if plan is None:
        return None
    allocation = replace(plan.memory.allocation, context=())  # every Service is evaluated again
    memory = replace(plan.memory, allocation=allocation, reserved=ReservedMemo())
    vips = {address: replace(vip, announced={}) for address, vip in plan.vips.items()}
    return replace(plan, vips=vips, memory=memory, uses={}, shared=None)


def _planned(found: Changes, _: Collection[str]) -> Did:
    return {"did": did(found)}


def _wire(value: Mapping[str, Any], secrets: Collection[str]) -> Line:
    return {"report": {name: encode(part, secrets) for name, part in value.items()}}


def _text(value: str, secrets: Collection[str]) -> Line:
    return {"value": without(value, secrets)}


_TEXT: Mapping[str, Callable[[Any, Collection[str]], Line]] = {
    "state": _state,
    "object": _object,
    "gone": lambda key, _: {"key": list(key)},
    "planned": _planned,
    "wire": _wire,
    "bgp": lambda report, secrets: {"report": encode(report, secrets)},
    "members": lambda members, secrets: {"members": encode(members, secrets)},
    "delivering": lambda hops, secrets: {"hops": encode(hops, secrets)},
    "proxies": lambda nodes, _: {"nodes": sorted(nodes)},
    "passwords": lambda peers, _: {"peers": list(peers)},
    "synced": _text,
    "outage": _text,
    "leader": _text,
    "failed": _text,
    "bounded": lambda bounded, _: {"value": bounded},
}
