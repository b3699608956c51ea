"""Asks nodes that have returned whether their kube-proxy runs: its health port, which it opens when it starts."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection

from porterlb.core.model import Address
from porterlb.health_port import healthy

PORT = 10256
"""kube-proxy's default (healthzBindAddress), on all addresses of the node."""
PATH = "/healthz"

INTERVAL = 0.1
"""Seconds between two requests to one node."""
OWN_INTERVAL = 10.0
"""Seconds between two requests to our own node, until it has answered."""


class ProxyStart:
    """Asks the given nodes until each has answered.

    In some clusters kube-proxy cannot be asked: it listens on the loopback interface only, or another program does its
    work. Therefore no other node is asked until our own node's kube-proxy has answered once on an address of the node.

    Args:
        addresses: the InternalIPs of a node.
        answered: called with those nodes of the last :meth:`ask` that have answered; first with none, when our own node
          has answered.
    """

    def __init__(
        self,
        own: str,
        addresses: Callable[[str], Collection[Address]],
        answered: Callable[[frozenset[str]], None],
        *,
        port: int = PORT,
        own_interval: float = OWN_INTERVAL,
    ) -> None:
        self._own = own
        self._addresses = addresses
        self._answered = answered
        self._port = port
        self._own_interval = own_interval
        self._nodes: frozenset[str] = frozenset()
        self._running: frozenset[str] = frozenset()
        self._changed = asyncio.Event()

    def ask(self, nodes: Collection[str]) -> None:
        """The whole set of nodes that wait. A node that was not in the last set is asked again."""
        nodes = frozenset(nodes)
        if nodes != self._nodes:
            self._nodes = nodes
            self._running &= nodes
            self._changed.set()

    async def run(self) -> None:
        """Runs until cancelled."""
        await self._own_runs()
        self._answered(self._running)
        self._changed.set()  # nodes may already be waiting
        while True:
            await self._changed.wait()
            self._changed.clear()
            while left := self._nodes - self._running:
                found = await asyncio.gather(*(self._runs(node) for node in sorted(left)))
                fresh = {node for node, yes in zip(sorted(left), found, strict=True) if yes} & self._nodes
                if fresh:
                    self._running |= fresh
                    self._answered(self._running)
                await asyncio.sleep(INTERVAL)

    async def _own_runs(self) -> None:
        while True:
            if await self._runs(self._own):
                return
            await asyncio.sleep(self._own_interval)

    async def _runs(self, node: str) -> bool:
        return any(await asyncio.gather(*(healthy(address, self._port, PATH) for address in self._addresses(node))))
