"""Shares this replica's state with readers that cannot reach its web server: a file, if the cluster is a directory."""

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
"""Seconds between two signs that the state is unchanged: a reader sees the state's age."""

COUNTERS = 10.0
"""Seconds, at most, by which the counters in the state are out of date."""

PAUSE = 0.2
"""Seconds, at least, between two writes: a reader must see a dead node within 1 s."""

SHARE = 10
"""Writing takes 1/10 of the time at most: with 10,000 VIPs one state is some 6 MB."""


class StateSharer:
    """:meth:`changed` reports that the state has changed; :meth:`run` is the task.

    Args:
        state: captures what is known, at once; the function that it returns makes the JSON values to share, in a
            thread. None: nothing is known yet.
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
        """Runs until cancelled; only waits if the cluster shares no state."""
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
        """Removes the shared state, so that a replica that has stopped does not look like a silent one."""
        if self._cluster.shares_state:
            with contextlib.suppress(Unavailable, Denied):
                await self._cluster.unshare_state(self._node)


def _text(make: Callable[[], Mapping[str, Any]]) -> str:
    return json_text(make())
