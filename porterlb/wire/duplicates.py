"""The duplicate address probe before first use (RFC 5227 2.1, RFC 4862 5.4, in less time): 3 probes in 200 ms."""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import Callable, Collection

from porterlb.core.model import Address

_PROBES = 3
_APART = 0.065
_VERDICT = 0.07  # after the last probe


class DuplicateProbe:
    """Probes addresses, paced, and keeps the verdicts of those that are still asked about.

    ``send`` probes one address; False: it cannot be on any segment of ours, so nobody there can hold it.
    """

    def __init__(
        self,
        rate: int,
        send: Callable[[Address], bool],
        changed: Callable[[], None],
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        self._rate = float(rate)
        self._burst = max(30.0, rate / 10)
        self._send = send
        self._changed = changed
        self._loop = loop
        self._tokens = self._burst
        self._filled = loop.time()
        self._due: list[tuple[float, int, int, Address]] = []
        self._asked: dict[bytes, Address] = {}
        self._timer: asyncio.TimerHandle | None = None
        self.claimed: dict[Address, bytes] = {}
        self.clear: set[Address] = set()

    def want(self, addresses: Collection[Address]) -> None:
        """The whole set of addresses to know about; verdicts of others are dropped, running ones go on."""
        wanted = {address.packed: address for address in addresses}
        for packed in [p for p in self._asked if p not in wanted]:
            address = self._asked.pop(packed)
            self.claimed.pop(address, None)
            self.clear.discard(address)
        now = self._loop.time()
        for packed, address in wanted.items():
            if packed not in self._asked:
                self._asked[packed] = address
                heapq.heappush(self._due, (now, 0, int(address), address))
        self._wake()

    def heard(self, address: bytes, mac: bytes) -> None:
        """Somebody says that ``address`` is at ``mac``."""
        asked = self._asked.get(address)
        if asked is not None and asked not in self.clear and asked not in self.claimed:
            self.claimed[asked] = mac
            self._changed()

    def close(self) -> None:
        self._due.clear()
        if self._timer is not None:
            self._timer.cancel()

    def _wake(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        now = self._loop.time()
        self._tokens = min(self._burst, self._tokens + (now - self._filled) * self._rate)
        self._filled = now
        decided = False
        while self._due and self._due[0][0] <= now:
            if self._tokens < 1:
                self._timer = self._loop.call_at(now + 0.005, self._wake)
                break
            _, turn, number, address = heapq.heappop(self._due)
            if address.packed not in self._asked or address in self.claimed:
                continue
            if turn < _PROBES and self._send(address):
                self._tokens -= 1
                wait = _APART if turn + 1 < _PROBES else _VERDICT
                heapq.heappush(self._due, (now + wait, turn + 1, number, address))
            else:
                self.clear.add(address)
                decided = True
        else:
            if self._due:
                self._timer = self._loop.call_at(self._due[0][0], self._wake)
        if decided:
            self._changed()
