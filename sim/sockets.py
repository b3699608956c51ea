"""Replacements of sockets: pairs of streams, raw sockets on an interface, UDP, the table of NICs."""

from __future__ import annotations

import itertools
from collections import deque
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sim.segment import Port
    from sim.world import Process, World

PIPE = 0.00005
"""Seconds that bytes take between two processes of a node."""


class Readable:
    """Something that a loop can wait for. ``owner``: the process that reads it."""

    def __init__(self, owner: Process | None) -> None:
        self.owner = owner
        self.queue: deque[Any] = deque()
        self.open = True

    @property
    def waiting(self) -> bool:
        return bool(self.queue)

    def arrive(self, data: Any) -> None:
        """In the world: data for this socket has arrived."""
        owner = self.owner
        if not self.open or owner is None:
            return
        if owner.alive and not owner.stopped:
            owner.loop.turn(self.taken, (data,))  # as deliver()
        else:
            owner.deliver(0, self.taken, (data,))

    def taken(self, data: Any) -> None:
        """In the process: the socket is readable."""
        if not self.open:
            return
        self.queue.append(data)
        assert self.owner is not None
        readers, key = self.owner.loop.readers, id(self)
        while self.queue and (found := readers.get(key)) is not None:
            found[0](*found[1])

    def readable(self) -> None:
        """In the process: the reader is called as long as there is something to read."""
        assert self.owner is not None
        while self.queue and (found := self.owner.loop.readers.get(id(self))) is not None:
            found[0](*found[1])

    def recv(self, size: int) -> Any:
        if not self.queue:
            raise BlockingIOError
        return self.queue.popleft()

    def setblocking(self, flag: bool) -> None:
        pass

    def setsockopt(self, *arguments: Any) -> None:
        pass

    def close(self) -> None:
        self.open = False


class Stream(Readable):
    """One end of a pair of stream sockets."""

    _numbers = itertools.count(1000)

    def __init__(self, world: World, owner: Process | None) -> None:
        super().__init__(owner)
        self.world = world
        self.number = next(self._numbers)
        self.peer: Stream | None = None
        self.users = 1
        world_streams(world)[self.number] = self

    def fileno(self) -> int:
        return self.number

    def send(self, data: bytes) -> int:
        peer = self.peer
        if peer is None or not peer.open:
            raise BrokenPipeError
        self.world.after(PIPE, peer.arrive, bytes(data))
        return len(data)

    def close(self) -> None:
        self.users -= 1
        if self.users == 0 and self.open:
            self.open = False
            world_streams(self.world).pop(self.number, None)
            if self.peer is not None:
                self.world.after(PIPE, self.peer.arrive, b"")


def world_streams(world: World) -> dict[int, Stream]:
    """The open streams by their number."""
    found: dict[int, Stream] = world.__dict__.setdefault("streams", {})
    return found


def pair(world: World, owner: Process) -> tuple[Stream, Stream]:
    one, other = Stream(world, owner), Stream(world, None)
    one.peer, other.peer = other, one
    return one, other


class RawSocket(Readable):
    """An AF_PACKET socket. ``operation``: of the ARP frames, or the kind of the ICMPv6 messages, that its
    filter accepts; 0: none."""

    def __init__(self, owner: Process, port: Port, operation: int) -> None:
        super().__init__(owner)
        self.port = port
        self.operation = operation
        port.sockets.setdefault(operation, []).append(self)

    def send(self, frame: bytes) -> int:
        if not self.port.up:
            raise OSError(100, "Network is down")
        self.port.send(frame)
        return len(frame)

    def close(self) -> None:
        super().close()
        self.port.unplug(self)


class Datagram(Readable):
    """A UDP socket, bound to one port of a node."""

    def __init__(self, owner: Process, port: Port) -> None:
        super().__init__(owner)
        self.port = port
        port.datagrams.append(self)

    def bind(self, place: tuple[str, int]) -> None:
        pass

    def sendto(self, data: bytes, to: tuple[str, int]) -> int:
        if not self.port.up:
            raise OSError(101, "Network is unreachable")
        self.port.segment.datagram(self.port, to[0], data)
        return len(data)

    def close(self) -> None:
        super().close()
        if self in self.port.datagrams:
            self.port.datagrams.remove(self)
