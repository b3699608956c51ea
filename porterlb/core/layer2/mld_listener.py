"""When a host reports the multicast groups that it listens to (RFC 3810 6, RFC 2710 4). Times in seconds.

docs/decisions/solicited-node-groups.md says why the kernel does not do this. A pending report holds only its groups:
whether each group is joined is looked up when the report is sent, so that it is correct at that time.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable, Iterator

from porterlb.core.layer2.mld import MOST_RECORDS, Message, MldRecord, Query, report, report_v1

_GATHER = 0.01  # changes within this time share a report
_AGAIN = 1.0  # a change is repeated within this time: the Unsolicited Report Interval (RFC 3810 9.11)
_ROBUSTNESS = 2  # how many times a change is reported if the querier gives no number (9.1)
_OLDER_QUERIER = 260.0  # MLDv1 is used for this time after an MLDv1 query (9.12 with the default intervals)
_SHORTEST = 0.1  # minimum time to answer a query in: limits how often all groups are reported


class MldListener:
    """The listener side of MLD on one interface. ``chance``: returns a new number in [0, 1) with each call."""

    def __init__(self, chance: Callable[[], float]) -> None:
        self._chance = chance
        self.groups: set[bytes] = set()
        self._robustness = _ROBUSTNESS
        self._v1_until = 0.0
        self._fresh: dict[bytes, None] = {}  # groups that have changed, in that order
        self._fresh_at = 0.0
        self._changes: list[tuple[float, int, tuple[bytes, ...], int]] = []  # heap: when, serial, groups, reports left
        self._serial = 0
        self._round: list[tuple[float, tuple[bytes, ...]]] = []  # the remaining part of the answer to a general query
        self._asked: list[tuple[float, bytes]] = []  # heap: when, group; answers to queries for a group
        self._waiting: set[bytes] = set()  # the groups in `_asked`

    def join(self, group: bytes, now: float) -> None:
        if group not in self.groups:
            self.groups.add(group)
            self._changed((group,), now)

    def leave(self, group: bytes, now: float) -> None:
        if group in self.groups:
            self.groups.remove(group)
            self._changed((group,), now)

    def rejoin(self, now: float) -> None:
        """Reports all groups again: the switch on the other side may have changed, or may have missed reports."""
        self._changed(self.groups, now)

    def heard(self, query: Query, now: float) -> None:
        if query.version == 1:
            self._v1_until = now + _OLDER_QUERIER
        elif query.robustness:
            self._robustness = query.robustness
        within = max(query.within, _SHORTEST)
        if not query.group:
            if not self._round or self._round[0][0] > now + within:
                self._round = sorted(
                    ((now + self._chance() * within, chunk) for chunk in _chunks(self.groups)), reverse=True
                )
        elif query.group in self.groups and query.group not in self._waiting:
            self._waiting.add(query.group)
            heapq.heappush(self._asked, (now + self._chance() * within, query.group))

    @property
    def next_at(self) -> float | None:
        """When the next report is due; None: not before another event."""
        times = [self._fresh_at] if self._fresh else []
        times += [heap[0][0] for heap in (self._changes, self._asked) if heap]
        times += [self._round[-1][0]] if self._round else []
        return min(times, default=None)

    def due(self, now: float) -> list[Message]:
        """A part of the messages to send now, so that thousands of reports delay nothing else; then check `next_at`."""
        if self._fresh and self._fresh_at <= now:
            for chunk in _chunks(self._fresh):
                self._later(now, chunk, self._robustness)
            self._fresh.clear()
        if self._changes and self._changes[0][0] <= now:
            _, _, groups, left = heapq.heappop(self._changes)
            if left > 1:
                self._later(now + self._chance() * _AGAIN, groups, left - 1)
            return self._say([(MldRecord.JOINED if g in self.groups else MldRecord.LEFT, g) for g in groups], now)
        groups = ()
        if self._asked and self._asked[0][0] <= now:
            groups = (heapq.heappop(self._asked)[1],)
            self._waiting.difference_update(groups)
        elif self._round and self._round[-1][0] <= now:
            groups = self._round.pop()[1]
        return self._say([(MldRecord.LISTENING, group) for group in groups if group in self.groups], now)

    def _changed(self, groups: Iterable[bytes], now: float) -> None:
        if not self._fresh:
            self._fresh_at = now + _GATHER
        self._fresh.update(dict.fromkeys(groups))

    def _later(self, at: float, groups: tuple[bytes, ...], left: int) -> None:
        self._serial += 1
        heapq.heappush(self._changes, (at, self._serial, groups, left))

    def _say(self, records: list[tuple[MldRecord, bytes]], now: float) -> list[Message]:
        if now < self._v1_until:
            return [report_v1(kind, group) for kind, group in records]
        return [report(records)] if records else []


def _chunks(groups: Iterable[bytes]) -> Iterator[tuple[bytes, ...]]:
    ordered = tuple(groups)
    for at in range(0, len(ordered), MOST_RECORDS):
        yield ordered[at : at + MOST_RECORDS]
