"""Asks nodes whether their kube-proxy can deliver to a Service: the Service's health check port (KEP-3836)."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Collection

from porterlb.core.model import Address
from porterlb.core.proxy_wait import NewHop
from porterlb.health_port import healthy

log = logging.getLogger("porterlb.edge.proxy_health")

INTERVAL = 0.1
"""Seconds between two requests to one node about one Service. kube-proxy writes its rules once a second."""
AT_ONCE = 32
"""Simultaneous requests."""


class ProxyHealth:
    """Asks about the given hops until each has answered, and calls ``answered`` with those that have.

    Args:
        address: returns the address of a node, or None if it has none.
        answered: called with those hops of the last :meth:`ask` whose kube-proxy can deliver.
    """

    def __init__(self, address: Callable[[str], Address | None], answered: Callable[[frozenset[NewHop]], None]) -> None:
        self._address = address
        self._answered = answered
        self._hops: frozenset[NewHop] = frozenset()
        self._delivering: frozenset[NewHop] = frozenset()
        self._changed = asyncio.Event()

    def ask(self, hops: Collection[NewHop]) -> None:
        """The whole set of hops to ask about; hops without a port are ignored."""
        hops = frozenset(hop for hop in hops if hop.port)
        if hops != self._hops:
            self._hops = hops
            self._delivering &= hops
            self._changed.set()

    async def run(self) -> None:
        """Runs until cancelled."""
        self._changed.set()  # after a failure, hops may be left to ask about
        while True:
            await self._changed.wait()
            self._changed.clear()
            limit = asyncio.Semaphore(AT_ONCE)
            while left := self._hops - self._delivering:
                found = await asyncio.gather(*(self._delivers(limit, hop) for hop in left))
                fresh = {hop for hop, yes in zip(left, found, strict=True) if yes} & self._hops
                if fresh:
                    self._delivering |= fresh
                    self._answered(self._delivering)
                await asyncio.sleep(INTERVAL)

    async def _delivers(self, limit: asyncio.Semaphore, hop: NewHop) -> bool:
        address = self._address(hop.node)
        if address is None:
            return False
        async with limit:
            return await healthy(address, hop.port, "/")
