"""Gratuitous announcements after a move and from time to time, paced.

Rounds at 0, 1.1, 2.2 .. seconds: Linux ignores a second change of an entry within its locktime of 1 s, and a frame may
be lost. Then every 60 to 100 s with jitter, so that a neighbour that missed them all is not wrong for ever.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
import random
from collections import deque
from collections.abc import Callable

ROUNDS = (0.0, 1.1, 2.2, 3.3, 4.4)
REFRESH = (60.0, 100.0)
_AT_ONCE = 8  # frames a wake-up (0.1 to 0.3 ms), so that answers never wait for announcements
_PAUSE = 0.002
_AGAIN = 0.02  # after a frame that could not be sent: a round that is skipped costs its neighbours a second


class Announcer:
    """A token bucket in front of ``send``, which announces one VIP (by its packed address) if it is ours at that
    moment, and says whether it did."""

    def __init__(self, rate: int, send: Callable[[bytes], bool], loop: asyncio.AbstractEventLoop) -> None:
        self._rate = float(rate)
        self._burst = max(float(_AT_ONCE), rate / 10)  # a tenth of a second's worth at once
        self._send = send
        self._loop = loop
        self._tokens = self._burst
        self._filled = loop.time()
        self._current: dict[bytes, int] = {}
        self._numbers = itertools.count(1)
        self._later: list[tuple[float, int, bytes, int]] = []
        self._ready: tuple[deque[tuple[bytes, int, int]], ...] = (deque(), deque(), deque())
        self._timer: asyncio.TimerHandle | None = None

    def start(self, address: bytes, *, moved: bool, asked: bool) -> None:
        """Takes an address over. If its next hop has ``moved``, it is announced now; ``asked``: lately, so first.

        If not, the neighbours are right already, and a frame could do harm: it is not known yet to everybody that
        this next hop is about to be given up, and the announcement of the new one may just have been sent.
        """
        number = self._current[address] = next(self._numbers)
        if moved:
            self._ready[0 if asked else 1].append((address, number, 0))
            self._schedule(self._loop.time())
        else:
            due = self._loop.time() + random.uniform(*REFRESH)
            heapq.heappush(self._later, (due, number, address, len(ROUNDS) - 1))
            self._schedule(due)

    def stop(self, address: bytes) -> None:
        """Not ours any longer."""
        self._current.pop(address, None)

    def close(self) -> None:
        self._current.clear()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    @property
    def waiting(self) -> int:
        """Announcements that are due and not yet sent."""
        return sum(len(queue) for queue in self._ready)

    def _schedule(self, when: float) -> None:
        if self._timer is not None:
            if self._timer.when() <= when:
                return
            self._timer.cancel()
        self._timer = self._loop.call_at(when, self._wake)

    def _wake(self) -> None:
        self._timer = None
        now = self._loop.time()
        self._tokens = min(self._burst, self._tokens + (now - self._filled) * self._rate)
        self._filled = now
        later = self._later
        while later and later[0][0] <= now:
            _, number, address, turn = heapq.heappop(later)
            if self._current.get(address) == number:
                self._ready[2].append((address, number, turn))
        sent = 0
        for queue in self._ready:
            while queue and sent < _AT_ONCE and self._tokens >= 1:
                address, number, turn = queue.popleft()
                if self._current.get(address) != number:
                    continue
                sent += 1
                if not self._send(address):
                    heapq.heappush(later, (now + _AGAIN, number, address, turn))
                    continue
                self._tokens -= 1
                if turn + 1 < len(ROUNDS):
                    heapq.heappush(later, (now + ROUNDS[turn + 1] - ROUNDS[turn], number, address, turn + 1))
                else:
                    heapq.heappush(later, (now + random.uniform(*REFRESH), number, address, turn))
        if any(self._ready):
            # Nothing left in the bucket: wait for it; else only let the others in the loop have their turn.
            self._schedule(now + (_PAUSE if self._tokens < 1 else 0))
        elif later:
            self._schedule(later[0][0])
