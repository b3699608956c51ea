"""Calls a function at a steady pace, directly from the event loop's timer.

A task that sleeps takes two turns of the event loop for each call; with 40 calls/s that was a visible part of an idle
process.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable


class Ticker:
    """Calls ``do(now, lag)`` each ``interval`` seconds, the first time at once, until closed or ``do`` raises.

    If a call is late by more than half an interval, the next one follows a whole interval later: every probe has that
    long to be answered before it is judged. ``failed`` is set to the exception of ``do``.
    """

    def __init__(self, interval: float, do: Callable[[float, float], None], loop: asyncio.AbstractEventLoop) -> None:
        self._interval = interval
        self._do = do
        self._loop = loop
        self._due = loop.time()
        self.failed: asyncio.Future[None] = loop.create_future()
        self._timer = loop.call_at(self._due, self._tick)

    def _tick(self) -> None:
        now, due = self._loop.time(), self._due
        try:
            self._do(now, now - due)
        except Exception as error:
            if not self.failed.done():
                self.failed.set_exception(error)
            return
        self._due = due + self._interval if now - due <= self._interval / 2 else now + self._interval
        self._timer = self._loop.call_at(self._due, self._tick)

    def close(self) -> None:
        self._timer.cancel()
        self.failed.cancel()
