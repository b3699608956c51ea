"""Tells the speakers that the manager is alive: from a thread, as long as the event loop still turns.

The speakers go silent when their manager hangs. A loop that is busy for a long time, with a plan for many thousand
Services, does not hang, but beats from the loop itself would stop, and every replica that plans the same would go
silent at the same time. Therefore a thread sends the beats, and watches the loop. A process that is stopped (SIGSTOP)
has no running threads; if the loop is permanently stuck, the beats end after ``stuck_after``.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections.abc import Callable, Sequence

EVERY = 1.0
"""Seconds between two beats."""

TURN = 0.25
"""Seconds between two signs of life of the loop."""


class Pulse:
    """Beats while :meth:`run` runs.

    Args:
        beats: called in the thread, once every :data:`EVERY`; they must not block. Their exceptions are ignored.
        stuck_after: seconds without a turn of the loop after which it counts as stuck.
    """

    def __init__(
        self,
        beats: Sequence[Callable[[], None]],
        stuck_after: float,
        *,
        every: float = EVERY,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._beats = beats
        self._stuck_after = stuck_after
        self._every = every
        self._clock = clock
        self._turned = 0.0
        self._over = threading.Event()

    async def run(self) -> None:
        """Runs until cancelled."""
        self._over.clear()
        self.turned()
        thread = threading.Thread(target=self._beat, name="pulse", daemon=True)
        thread.start()
        try:
            while True:
                self.turned()
                await asyncio.sleep(min(TURN, self._every))
        finally:
            self._over.set()

    def turned(self) -> None:
        """Records that the loop turns."""
        self._turned = self._clock()

    @property
    def alive(self) -> bool:
        """Whether the loop has turned within ``stuck_after``."""
        return self._clock() - self._turned < self._stuck_after

    def _beat(self) -> None:
        while True:
            if self.alive:
                for beat in self._beats:
                    with contextlib.suppress(Exception):
                        beat()
            if self._over.wait(self._every):
                return
