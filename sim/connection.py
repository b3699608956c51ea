"""A TCP connection between ExaBGP on a node and a router: ordered and reliable, as long as both hosts live.

What cannot be carried is sent again later and later, as a kernel does. A host that does not know the connection answers
with a reset.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sim.router import Router
    from sim.segment import Port
    from sim.world import Process

Message = tuple[Any, ...]
"""The kind of a message, then its content. ``fin`` and ``reset`` are those of TCP."""

FIRST, LONGEST = 0.2, 4.0
"""Seconds until something is sent again: at first, and at most."""


class Pipe:
    """One direction."""

    def __init__(self, source: Port, to: Port, passes: Callable[[], bool], deliver: Callable[[Message], None]) -> None:
        self._source, self._to, self._passes, self._deliver = source, to, passes, deliver
        self._world = source.world
        self._queue: deque[Message] = deque()
        self._busy = False

    def push(self, *message: Any) -> None:
        self._queue.append(message)
        if not self._busy:
            self._busy = True
            self._world.after(0.0002 + 0.0003 * self._world.random.random(), self._carry, FIRST)

    def _carry(self, again: float) -> None:
        if not self._source.powered:  # its kernel forgot everything
            self._queue.clear()
            self._busy = False
        elif not self._passes():
            self._world.after(again, self._carry, min(2 * again, LONGEST))
        else:
            self._busy = False
            while self._queue:
                self._deliver(self._queue.popleft())


class Connection:
    """``near``: called in ExaBGP's process with each message of the router."""

    def __init__(
        self, router: Router, port: Port, process: Process, near: Callable[[Connection, Message], None]
    ) -> None:
        self.router, self.node = router, port.name
        self._port, self._process, self._near = port, process, near
        self.up = Pipe(port, router.port, self._passes, lambda message: router.receive(self, message))
        self.down = Pipe(router.port, port, self._passes, self._to_speaker)

    def _passes(self) -> bool:
        """Whether a segment and its acknowledgement get through now."""
        router = self.router
        return router.reachable(self.node) and not router.port.segment.loses(self.node, router.port.name)

    def _to_speaker(self, message: Message) -> None:
        if self._process.alive:
            self._process.world.at(self._process.world.now, self._near, self, message, process=self._process, kind=0)
        elif message[0] != "reset":
            self.up.push("reset")
