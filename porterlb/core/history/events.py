"""The Events for the history. They are grouped: for example, the death of a node with 1,000 VIPs is one Event on the
node, with a count.

Pure: entries go in, and come out as Events after HOLD. Every replica has the same history; one of them creates the
Events (:func:`tells`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from porterlb.core.history.entries import Entry, What, Why
from porterlb.core.history.words import sentence
from porterlb.core.known import Known
from porterlb.core.model import Address
from porterlb.core.objects import ObjectKey
from porterlb.core.status.notices import Notice

HOLD = 1.0
"""Seconds from the first entry until Events are made: the moves caused by a node's death follow within 0.4 s."""

SINGLE = 5
"""Maximum number of VIPs with the same move that each get an Event on their Service; more get one on their Eip."""

LEASE = "porterlb"
"""The Lease of the leader."""

_OF_NODES = {
    What.NODE_DEAD: Why.NODE_DEAD,
    What.NODE_BACK: Why.NODE_BACK,
    What.NODE_DRAINS: Why.NODE_DRAINS,
    What.NODE_UNDRAINED: Why.NODE_UNDRAINED,
    What.REPLICA_SILENT: Why.REPLICA_SILENT,
    What.REPLICA_BACK: Why.NONE,
}

_WITH_NODE = {What.REPLICA_SILENT: What.NODE_DEAD, What.REPLICA_BACK: What.NODE_BACK}
"""A node's death or return implies the same for its replica: one Event is enough."""

_TOLD = frozenset({*_OF_NODES, What.VIP_MOVED, What.LEADER, What.NOTICED})
"""Entries without another Event: the status writer makes those for sessions, conflicts, modes of pools and Services."""


@dataclass(frozen=True, slots=True)
class Event:
    """``about``: the object. A Lease is in the release namespace, which is unknown here: its namespace is empty.
    ``by_all``: every replica that knows of it creates the Event; otherwise only one replica does (:func:`tells`)."""

    about: ObjectKey
    notice: Notice
    by_all: bool = False


@dataclass(frozen=True, slots=True)
class Pending:
    """Entries without an Event yet. ``since``: when the first one was added (monotonic seconds)."""

    entries: tuple[Entry, ...] = ()
    since: float = 0.0

    @property
    def next_at(self) -> float | None:
        return self.since + HOLD if self.entries else None

    def with_more(self, entries: Iterable[Entry], now: float) -> Pending:
        told = tuple(entry for entry in entries if entry.what in _TOLD)
        if not told:
            return self
        return Pending((*self.entries, *told), self.since if self.entries else now)

    def due(self, known: Known, now: float) -> tuple[Pending, tuple[Event, ...]]:
        """What is left, and the Events to create now."""
        if self.next_at is None or now < self.next_at:
            return self, ()
        return Pending(), tuple(events(self.entries, known))


def tells(known: Known) -> bool:
    """Whether this replica creates the Events: the leader does while it is live, else the first live replica.

    That needs no API. Replicas with different views of the live ones may both create an Event, or briefly none does.
    """
    view = known.snapshot.view
    live = known.live - view.dead
    leader = view.leader if view.leader in live else min(live, default="")
    return leader == known.node


def events(entries: Iterable[Entry], known: Known) -> Iterable[Event]:
    """One Event per node for what happened to it, with the count of its VIPs; separate Events for other moves."""
    entries = list(entries)
    explained: set[int] = set()
    happened = {(entry.what, entry.subject) for entry in entries}
    for entry in entries:
        if entry.what not in _OF_NODES or (_WITH_NODE.get(entry.what), entry.subject) in happened:
            continue
        moves = [
            (number, move)
            for number, move in enumerate(entries)
            if move.what is What.VIP_MOVED and move.cause == entry.subject and move.why is _OF_NODES[entry.what]
        ]
        explained.update(number for number, _ in moves)
        text = f"{sentence(entry)} {_moved(move for _, move in moves)}".strip()
        yield Event(ObjectKey("Node", "", entry.subject), Notice(entry.what.bad, entry.what.value, text))
    for number, entry in enumerate(entries):
        if entry.what is What.LEADER:
            yield Event(ObjectKey("Lease", "", LEASE), Notice(False, entry.what.value, sentence(entry)))
        elif entry.what is What.VIP_MOVED and number not in explained:
            yield from _of_vips(entry, known)
        elif entry.what is What.NOTICED:
            yield from _of_notice(entry, known)


def _of_notice(entry: Entry, known: Known) -> Iterable[Event]:
    """Events on the Services of the VIP, or on the nodes of the notice. Possibly only this replica knows a notice about
    its own node."""
    notice = Notice(True, entry.cause, sentence(entry))
    for address in entry.vips:
        vip = known.plan.vips.get(address)
        yield from (Event(ObjectKey("Service", *key), notice, by_all=True) for key in (vip.services if vip else ()))
    if not entry.vips:
        for node in entry.before[:SINGLE]:
            yield Event(ObjectKey("Node", "", node), notice, by_all=node == known.node)


def _moved(moves: Iterable[Entry]) -> str:
    """The moves as text: ``1000 addresses moved: 500 to node-a, 500 to node-b.``"""
    to: Counter[str] = Counter()
    for move in moves:
        to[", ".join(move.after) or "nobody"] += len(move.vips)
    if not to:
        return ""
    total = sum(to.values())
    addresses = "1 address" if total == 1 else f"{total} addresses"
    return f"{addresses} moved: {', '.join(f'{count} to {hops}' for hops, count in sorted(to.items()))}."


def _of_vips(entry: Entry, known: Known) -> Iterable[Event]:
    by_object: dict[ObjectKey, list[Address]] = {}
    for address in entry.vips:
        vip = known.plan.vips.get(address)
        if vip is not None and len(entry.vips) <= SINGLE:
            for service in vip.services:
                by_object.setdefault(ObjectKey("Service", *service), []).append(address)
        elif vip is not None:
            by_object.setdefault(ObjectKey("Eip", "", vip.eip), []).append(address)
    for key, addresses in by_object.items():
        notice = Notice(entry.what.bad, entry.what.value, sentence(_only(entry, addresses)))
        yield Event(key, notice)


def _only(entry: Entry, addresses: Iterable[Address]) -> Entry:
    return Entry(
        entry.time, entry.what, entry.subject, entry.before, entry.after, entry.why, entry.cause, entry.detail,
        tuple(addresses),
    )  # fmt: skip


def counts(entries: Iterable[Entry]) -> Mapping[tuple[str, str], int]:
    """The number of entries by what and why, for counters; each VIP of an entry counts."""
    found: Counter[tuple[str, str]] = Counter()
    for entry in entries:
        found[(entry.what.value, entry.why.value)] += max(1, len(entry.vips))
    return found
