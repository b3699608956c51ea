"""Keeps the parts of the manager running: a failure of one must end neither the others nor the process.

Every replica sees the same objects. If an object ended one replica, it would end all others too, and each of their
restarts.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Awaitable, Callable
from typing import Any

from porterlb.core.backoff import delay
from porterlb.logs import fields

log = logging.getLogger("porterlb.supervise")

LONGEST_PAUSE = 5.0
"""Seconds, at most, until a part that has failed runs again."""

STEADY = 30.0
"""Seconds of running after which the pauses are short again."""

SAY_AGAIN = 60.0
"""Seconds, at least, between two log lines, with traceback, about one kind of failure of one part."""


class Supervisor:
    """Runs parts again after unexpected failures, and counts these failures: ``failures``, by part."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.failures: dict[str, int] = {}
        self._clock = clock
        self._said: dict[tuple[str, str], float] = {}

    async def keep(self, part: str, run: Callable[[], Awaitable[None]]) -> None:
        """Runs ``run`` until it returns or we are cancelled; an exception makes it run again after a pause."""
        in_a_row = 0
        while True:
            begun = self._clock()
            try:
                return await run()
            except Exception as error:
                in_a_row = 1 if self._clock() - begun > STEADY else in_a_row + 1
                pause = delay(in_a_row, random.random(), ceiling=LONGEST_PAUSE)
                self.failed(part, error, again_in=round(pause, 1))
            await asyncio.sleep(pause)

    def contained(self, part: str, callback: Callable[..., None]) -> Callable[..., None]:
        """The callback, with its exceptions caught and counted: they must not reach its caller."""

        def call(*values: Any) -> None:
            try:
                callback(*values)
            except Exception as error:
                self.failed(part, error)

        return call

    def failed(self, part: str, error: Exception, **more: object) -> None:
        """Counts an unexpected failure and logs it; the same kind is logged only once a minute."""
        self.failures[part] = self.failures.get(part, 0) + 1
        kind = (part, type(error).__name__)
        now = self._clock()
        if now - self._said.get(kind, -SAY_AGAIN) < SAY_AGAIN:
            return
        self._said[kind] = now
        log.error("a part of the manager has failed", exc_info=error, extra=fields(part=part, **more))
