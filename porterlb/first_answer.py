"""The wait for the first answer of the cluster, before the manager is made."""

from __future__ import annotations

import asyncio
import logging
import random

from porterlb.cluster import Cluster, Denied, Unavailable
from porterlb.core.backoff import delay
from porterlb.logs import fields

log = logging.getLogger("porterlb.first_answer")

ASK_AGAIN = 2.0
"""Seconds, at most, between two attempts to reach the API at the start: the cluster waits for this replica."""

LAST_ANSWER = 1.0
"""Seconds to wait for the API after being told to stop. With an answer, the manager starts and ends in order, so that
routers drop the routes of its predecessor; see FIRST_SESSIONS in porterlb/app.py."""


class FirstAnswer:
    """The first request: for the key of the hellos. ``why``: what we wait for, a sentence."""

    def __init__(self, cluster: Cluster, name: str) -> None:
        """``name``: of the cluster, for the log."""
        self.why = "The API has not answered yet."
        self._cluster = cluster
        self._name = name

    async def key(self, stop: asyncio.Event) -> bytes | None:
        """The key; None when told to stop while the cluster does not answer.

        Waits while the cluster is unavailable or rights are missing: if we ended, Kubernetes would only restart us,
        with growing delays. Raises PorterError for errors that waiting does not resolve: no kubeconfig, no such Secret.
        """
        asking = asyncio.create_task(self._cluster.hello_key(), name="hello-key")
        stopping = asyncio.create_task(stop.wait(), name="stop")
        failures = 0
        try:
            while True:
                await asyncio.wait([asking, stopping], return_when=asyncio.FIRST_COMPLETED)
                if stopping.done():
                    await asyncio.wait([asking], timeout=LAST_ANSWER)
                    return asking.result() if asking.done() and not asking.exception() else None
                try:
                    return asking.result()
                except (Unavailable, Denied) as error:
                    failures += 1
                    self._waits(error)
                pause = delay(failures, random.random(), ceiling=ASK_AGAIN)
                asking = asyncio.create_task(self._later(pause), name="hello-key")
        finally:
            for task in (asking, stopping):
                task.cancel()
            await asyncio.gather(asking, stopping, return_exceptions=True)

    def _waits(self, error: Exception) -> None:
        why = f"The API cannot be used yet: {error}"
        if why != self.why:
            self.why = why
            log.warning("waiting for the API", extra=fields(cluster=self._name, reason=error))

    async def _later(self, seconds: float) -> bytes:
        await asyncio.sleep(seconds)
        return await self._cluster.hello_key()
