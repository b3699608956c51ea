"""Gives what this replica knows to those who cannot reach its web server: a file, where the cluster is a directory."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Mapping
from typing import Any

from porterlb.cluster import Cluster, Denied, Unavailable
from porterlb.core.json_text import json_text

log = logging.getLogger(__name__)

BEAT = 1.0
"""Seconds between two signs that the state is still as it was: a reader sees its age."""

COUNTERS = 10.0
"""Seconds, at most, that the counters in it are behind."""

PAUSE = 0.2
"""Seconds, at least, between two writes: a reader is to see a dead node within 1 s."""

SHARE = 10
"""Writing takes 1/10 of the time at most: with 10,000 VIPs one state is some 6 MB."""


class StateSharer:
    """:meth:`changed` says that there is something new; :meth:`run` is the task.

    Args:
        state: takes hold of what is known, at once; what it returns makes the JSON values that are shared, in a thread.
            None: nothing is known yet.
    """

    def __init__(
        self, cluster: Cluster, node: str, state: Callable[[], Callable[[], Mapping[str, Any]] | None]
    ) -> None:
        self._cluster = cluster
        self._node = node
        self._state = state
        self._news = asyncio.Event()

    def changed(self) -> None:
        self._news.set()

    async def run(self) -> None:
        """For ever; where nothing is to be shared it only waits."""
        if not self._cluster.shares_state:
            await asyncio.Event().wait()
        written, wrote = False, 0.0
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(BEAT):
                    await self._news.wait()
            fresh = self._news.is_set() or not written or time.monotonic() - wrote > COUNTERS
            self._news.clear()
            make = self._state() if fresh else None
            if fresh and make is None:
                continue
            began = time.monotonic()
            try:
                text = await asyncio.to_thread(_text, make) if make else None
                await self._cluster.share_state(self._node, text)
                written, wrote = True, time.monotonic() if fresh else wrote
            except (Unavailable, Denied) as error:
                log.debug("The state of this replica cannot be shared: %s", error)
                written = False
            await asyncio.sleep(max(PAUSE, SHARE * (time.monotonic() - began)))

    async def stop(self) -> None:
        """A replica that stops is not silent: it leaves nothing behind."""
        if self._cluster.shares_state:
            with contextlib.suppress(Unavailable, Denied):
                await self._cluster.unshare_state(self._node)


def _text(make: Callable[[], Mapping[str, Any]]) -> str:
    return json_text(make())
