"""The live data of the status page: server-sent events (WHATWG HTML, section 9.2), limited in number, rate and size.

``event: page`` has everything to show, as JSON (:mod:`porterlb.core.status.page`): at once, and again whenever it
differs from the last one. ``event: beat`` comes in between and means that nothing newer is known.

One text is made for all readers, in a thread, and only while there are readers. A slow reader misses texts and delays
no other reader: there is no queue.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncGenerator, Callable, Mapping
from typing import Any

from porterlb.core.json_text import json_text
from porterlb.core.status.page import page_of

STREAMS = 8
"""Simultaneous readers. Each open page is one."""

PAUSE = 0.5
"""Seconds, at least, between two texts: a person reads no faster, and a dead node must be shown within 1 s."""

SHARE = 3
"""Making texts takes a third of the time at most."""

BEAT = 2.0
"""Seconds, at most, without an event: a longer gap tells the reader that the connection is lost."""

RETRY = 1000
"""Milliseconds until a browser reconnects."""

_BEAT = b"event: beat\ndata: {}\n\n"


class StateStream:
    """Args:
    state: captures what is known, at once; the function that it returns makes the JSON values of /state, in a thread.
    """

    def __init__(self, state: Callable[[], Callable[[], Mapping[str, Any]]]) -> None:
        self._state = state
        self._readers = 0
        self._news = asyncio.Event()
        self._news.set()
        self._making = asyncio.Lock()
        self._not_before = 0.0
        self._frame = b""
        self._waiting = True
        self._number = 0

    @property
    def full(self) -> bool:
        """Whether no further reader is accepted."""
        return self._readers >= STREAMS

    def changed(self) -> None:
        """There may be something new to show."""
        self._news.set()

    async def frames(self) -> AsyncGenerator[bytes, None]:
        """Events for one reader, without end."""
        self._readers += 1
        try:
            yield b"retry: %d\n\n" % RETRY
            sent, at = 0, time.monotonic()
            while True:
                if self._news.is_set() or self._making.locked():
                    await self._made()
                if self._number != sent:
                    sent, at = self._number, time.monotonic()
                    yield self._frame
                elif time.monotonic() - at >= BEAT:
                    at = time.monotonic()
                    yield _BEAT
                else:
                    await self._wait(at + BEAT - time.monotonic())
        finally:
            self._readers -= 1

    async def _wait(self, seconds: float) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._news.wait()
                return
        if self._waiting:  # what the replica waits for changes without notice
            self._news.set()

    async def _made(self) -> None:
        """Makes the newest text, unless another reader has done so meanwhile."""
        async with self._making:
            if not self._news.is_set():
                return
            await asyncio.sleep(max(0.0, self._not_before - time.monotonic()))
            self._news.clear()
            began = time.monotonic()
            try:
                frame, self._waiting = await asyncio.to_thread(_frame, self._state())
            except BaseException:
                self._news.set()  # for the next reader
                raise
            ended = time.monotonic()
            self._not_before = began + max(PAUSE, SHARE * (ended - began))
            if frame != self._frame:
                self._frame = frame
                self._number += 1


def _frame(make: Callable[[], Mapping[str, Any]]) -> tuple[bytes, bool]:
    """An event, and whether nothing is known yet."""
    shown = page_of(make())
    return b"event: page\ndata: " + json_text(shown).encode() + b"\n\n", bool(shown["waitingFor"])
