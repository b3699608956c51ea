"""Gratuitous announcements after a move and at intervals, paced.

Rounds at 0, 1.1, 2.2 .. seconds: Linux ignores a second change of an entry within its locktime of 1 s, and a frame may
be lost. Then every 60 to 100 s with jitter, to correct a neighbour that missed all earlier rounds.
"""

from __future__ import annotations

import heapq
import itertools
from collections import deque
from collections.abc import Callable

from porterlb.core.layer2.bucket import TokenBucket

ROUNDS = (0.0, 1.1, 2.2, 3.3, 4.4)
REFRESH = (60.0, 100.0)
_ONCE = len(ROUNDS)  # in place of a round
AT_ONCE = 8  # frames per wake-up (0.1 to 0.3 ms), so that answers never wait for announcements
PAUSE = 0.002  # seconds until the bucket is checked again
AGAIN = 0.02  # seconds after a frame that could not be sent: a skipped round costs its neighbours a second


class Announcer:
    """Decides when each VIP is announced, by its packed address, or told to one asker (see `Spread`).

    ``chance``: returns a new number in [0, 1) with each call.

    Call `due` at `next_at`, try to send what it returns, and call `done` for each.
    """

    def __init__(self, rate: int, chance: Callable[[], float], now: float) -> None:
        self._bucket = TokenBucket(float(rate), max(float(AT_ONCE), rate / 10), now)  # burst: the frames of 0.1 s
        self._chance = chance
        self._current: dict[bytes, int] = {}
        self._numbers = itertools.count()
        self._later: list[tuple[float, int, bytes, int]] = []  # heap: when, number, address, round
        self._ready: tuple[deque[tuple[bytes, int, int]], ...] = (deque(), deque(), deque())
        self._tried: dict[bytes, tuple[int, int]] = {}  # number and round of what `due` has returned
        self._blocked_until = 0.0

    def start(self, address: bytes, *, moved: bool, asked: bool, now: float, once: bool = False) -> None:
        """Starts to announce an address. ``moved``: its next hop changed, so it is announced now.

        ``asked``: it was asked for recently, so it goes first. ``once``: it is announced once and not repeated.

        Without ``moved`` the neighbours already have the right entry, and a frame could do harm: another replica may
        be about to replace this next hop, and may just have announced the new one.
        """
        number = self._current[address] = next(self._numbers)
        if moved:
            self._ready[0 if asked else 1].append((address, number, _ONCE if once else 0))
        else:
            heapq.heappush(self._later, (self._refresh(now), number, address, len(ROUNDS) - 1))

    def stop(self, address: bytes) -> None:
        """The address is no longer ours."""
        self._current.pop(address, None)

    def close(self) -> None:
        self._current.clear()

    @property
    def waiting(self) -> int:
        """Announcements that are due and not yet tried."""
        return sum(len(queue) for queue in self._ready)

    @property
    def next_at(self) -> float | None:
        """When `due` has something to return; not in the future if it has something now."""
        if any(self._ready):
            return self._blocked_until
        return self._later[0][0] if self._later else None

    def due(self, now: float) -> list[bytes]:
        """The addresses to announce now, at most AT_ONCE: recently asked ones first, repetitions last."""
        later = self._later
        while later and later[0][0] <= now:
            _, number, address, turn = heapq.heappop(later)
            if self._current.get(address) == number:
                self._ready[2].append((address, number, turn))
        chosen: list[bytes] = []
        self._blocked_until = now
        for queue in self._ready:
            while queue and len(chosen) < AT_ONCE:
                if not self._bucket.has(now):
                    self._blocked_until = now + PAUSE
                    return chosen
                address, number, turn = queue.popleft()
                if self._current.get(address) == number:
                    self._bucket.take()
                    self._tried[address] = (number, turn)
                    chosen.append(address)
        return chosen

    def done(self, address: bytes, sent: bool, now: float) -> None:
        """An announcement that `due` returned was sent, or could not be sent."""
        tried = self._tried.pop(address, None)
        if not sent:
            self._bucket.give_back()
        if tried is None or self._current.get(address) != tried[0]:
            return
        number, turn = tried
        if not sent:
            heapq.heappush(self._later, (now + AGAIN, number, address, turn))
        elif turn == _ONCE:
            del self._current[address]
        elif turn + 1 < len(ROUNDS):
            heapq.heappush(self._later, (now + ROUNDS[turn + 1] - ROUNDS[turn], number, address, turn + 1))
        else:
            heapq.heappush(self._later, (self._refresh(now), number, address, turn))

    def _refresh(self, now: float) -> float:
        return now + REFRESH[0] + self._chance() * (REFRESH[1] - REFRESH[0])
