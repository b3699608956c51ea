"""The free addresses of one Eip and one IP version, longest free first, in constant time for any size of pool.

An address is a *code* here: its integer value, with bit 128 set for IPv6, so that both versions fit into one dict
or one sorted list, and comparing means comparing integers. No function lists a pool: a /64 costs the same as a /32.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import deque
from collections.abc import Container, Iterable
from ipaddress import IPv4Address, IPv6Address

from porterlb.core.model import Address, AddressRange

_V6 = 1 << 128

REMEMBERED = 65_536
"""Maximum number of freed addresses that a pool remembers. More than the size of common IPv4 pools, and at most about
10 MB. Forgotten addresses are found again when the cursor has passed through the ranges once more."""


def encode(address: Address) -> int:
    """The code of an address."""
    return int(address) if address.version == 4 else int(address) | _V6


def decode(code: int) -> Address:
    """The address of a code."""
    return IPv6Address(code ^ _V6) if code & _V6 else IPv4Address(code)


def version_of(code: int) -> int:
    """4 or 6."""
    return 6 if code & _V6 else 4


def encode_ranges(ranges: Iterable[AddressRange]) -> tuple[tuple[int, int], ...]:
    """Ranges as (first, last) codes, sorted: IPv4 before IPv6."""
    return tuple(sorted((encode(first), encode(last)) for first, last in ranges))


class Pool:
    """Finds the address in the sorted, disjoint ``ranges`` (of codes) that has been free for the longest time.

    Addresses that were never used come first, in order, from a cursor; then the released ones, the first released
    first. The pool does not store owners: the caller passes ``taken`` with each request, and calls :meth:`release` when
    an address that it had taken is free again.
    """

    __slots__ = ("_cursor", "_forgotten", "_freed", "_index", "_queue", "ranges")

    def __init__(self, ranges: tuple[tuple[int, int], ...]) -> None:
        self.ranges = ranges
        self._index = 0  # the range that the cursor is in
        self._cursor = ranges[0][0] if ranges else 0
        self._freed: dict[int, float] = {}  # code: when it was released
        self._queue: deque[tuple[int, float]] = deque()  # the same in order; entries that differ from _freed are stale
        self._forgotten = False  # a freed address was forgotten: the cursor must start again

    def copy(self) -> Pool:
        """An independent pool in the same state."""
        other = Pool(self.ranges)
        other._index, other._cursor, other._forgotten = self._index, self._cursor, self._forgotten
        other._freed, other._queue = self._freed.copy(), self._queue.copy()
        return other

    def reshaped(self, ranges: tuple[tuple[int, int], ...], freed: Iterable[tuple[int, float]] = ()) -> Pool:
        """A pool with other ranges that remembers when the remaining addresses were released.

        ``freed``: additional ones, with their times; for addresses that this pool knows, its own times apply.
        """
        known = {code: at for code, at in freed if code not in self._freed}
        known.update((code, at) for code, at in self._queue if self._freed.get(code) == at)
        other = Pool(ranges)
        starts = [first for first, _ in ranges]
        for code, at in sorted(known.items(), key=lambda entry: entry[1]):
            index = bisect_right(starts, code) - 1
            if index >= 0 and code <= ranges[index][1]:
                other._freed[code] = at
                other._queue.append((code, at))
        return other

    def release(self, code: int, now: float) -> None:
        """Marks the address as free from ``now`` on (monotonic seconds)."""
        self._freed[code] = now
        self._queue.append((code, now))
        if len(self._queue) > 2 * len(self._freed) + 64:  # mostly stale: addresses requested by name repeatedly
            self._queue = deque(entry for entry in self._queue if self._freed.get(entry[0]) == entry[1])
        while len(self._freed) > REMEMBERED:
            oldest, freed = self._queue.popleft()
            if self._freed.get(oldest) == freed:
                del self._freed[oldest]
                self._forgotten = True

    def longest_free(self, taken: Container[int], barred: Container[int] = ()) -> int | None:
        """The address that has been free for the longest time, or None. Repeated calls return the same until it is
        taken.

        Each address is skipped only once, so the time is constant over the life of the pool.
        """
        code = self._never_used(taken, barred)
        if code is None:
            code = self._given_back(taken, barred)
        if code is None and self._forgotten:
            self._forgotten = False
            self._index, self._cursor = 0, self.ranges[0][0]
            code = self._never_used(taken, barred)
        return code

    def _never_used(self, taken: Container[int], barred: Container[int]) -> int | None:
        freed = self._freed
        while self._index < len(self.ranges):
            last = self.ranges[self._index][1]
            cursor = self._cursor
            while cursor <= last and (cursor in taken or cursor in freed or cursor in barred):
                cursor += 1
            self._cursor = cursor
            if cursor <= last:
                return cursor
            self._index += 1
            if self._index < len(self.ranges):
                self._cursor = self.ranges[self._index][0]
        return None

    def _given_back(self, taken: Container[int], barred: Container[int]) -> int | None:
        while self._queue:
            code, freed = self._queue[0]
            if self._freed.get(code) == freed:
                if code not in taken and code not in barred:
                    return code
                del self._freed[code]  # its owner will release it
            self._queue.popleft()
        return None
