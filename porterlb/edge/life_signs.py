"""When nodes that their segment has lost showed last that they live: core/node_failure decides with it."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable, Collection

from porterlb.core.model import Address

PORT = 10250
"""The kubelet's. A kernel without a program on the port answers too: it refuses the connection."""

TIMEOUT = 0.1
"""Seconds for an answer: the nodes are a few milliseconds apart, and several attempts fit into Rules.confirm."""

OFTEN, OFTEN_FOR, SELDOM = 0.02, 2.0, 1.0
"""Seconds between two attempts: first often, for the decision is near; later for the undoing only."""


class LifeSigns:
    """Asks nodes by TCP, and is told of the signs that replicas write to the API.

    Args:
        addresses: the InternalIPs of a node.
        on_sign: called after each sign, from the event loop.
    """

    def __init__(
        self,
        addresses: Callable[[str], Collection[Address]],
        on_sign: Callable[[], None],
        *,
        connect: Callable[[Address], Awaitable[bool]] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._addresses = addresses
        self._on_sign = on_sign
        self._connect = connect or answers
        self._clock = clock
        self._asked: dict[str, asyncio.Task[None]] = {}
        self.signs: dict[str, float] = {}
        """By node, monotonic seconds."""

    def heard(self, node: str) -> None:
        """The node lives."""
        self.signs[node] = self._clock()
        self._on_sign()

    def ask(self, nodes: Collection[str]) -> None:
        """The whole set of nodes to ask, again and again. To be called in the event loop."""
        for node in self._asked.keys() - set(nodes):
            self._asked.pop(node).cancel()
        for node in set(nodes) - self._asked.keys():
            self._asked[node] = asyncio.create_task(self._keep_asking(node), name=f"life-sign {node}")

    async def _keep_asking(self, node: str) -> None:
        begun = self._clock()
        while True:
            found = await asyncio.gather(*(self._connect(address) for address in self._addresses(node)))
            if any(found):
                self.heard(node)
            early = self._clock() < begun + OFTEN_FOR and not any(found)
            await asyncio.sleep(OFTEN if early else SELDOM)


async def answers(address: Address) -> bool:
    """Whether a host answers TCP, be it with a refusal."""
    try:
        async with asyncio.timeout(TIMEOUT):
            _, writer = await asyncio.open_connection(str(address), PORT)
    except ConnectionRefusedError:
        return True
    except (OSError, TimeoutError):
        return False
    writer.close()
    with contextlib.suppress(OSError):
        await writer.wait_closed()
    return True
