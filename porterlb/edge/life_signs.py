"""When nodes that do not answer on their segment last showed a sign of life: input for core/node_failure."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable, Collection

from porterlb.core.model import Address

PORT = 10250
"""The kubelet's. A kernel without a program on the port answers too: it refuses the connection."""

TIMEOUT = 0.1
"""Seconds for an answer: a round trip takes a few milliseconds, and several attempts fit into Rules.confirm."""

OFTEN, OFTEN_FOR, SELDOM = 0.02, 2.0, 1.0
"""Seconds. The attempts are ``OFTEN`` apart for ``OFTEN_FOR``, because the decision is imminent, or until an answer;
then ``SELDOM`` apart, only to notice when the decision must be undone."""


class LifeSigns:
    """Asks nodes for signs of life by TCP, and takes those that replicas write to the API.

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
        """Records a sign of life of the node."""
        self.signs[node] = self._clock()
        self._on_sign()

    def ask(self, nodes: Collection[str]) -> None:
        """The whole set of nodes to ask repeatedly. Call it in the event loop."""
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
    """Whether a host answers TCP, even if it refuses the connection."""
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
