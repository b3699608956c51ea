"""The destinations of recorded entries: a ring, and a reader that takes them."""

from __future__ import annotations

from typing import Generic, TypeVar

from porterlb.core.record.ring import Ring

E = TypeVar("E")


class Log(Generic[E]):
    """A recording begins with a checkpoint, and so does each segment of the ring: see :attr:`due`.

    Args:
        limit: bytes of the ring; 0: no ring.
        streams: whether a reader calls :meth:`take`.
    """

    MOST = 1 << 24
    """Maximum bytes that wait for the reader. Above it all of them are dropped, and a checkpoint comes next."""

    def __init__(self, limit: int, *, streams: bool = False) -> None:
        self._ring: Ring[E, E] | None = Ring(limit) if limit else None
        self._streams = streams
        self._begun = not streams
        self._waiting: list[E] = []
        self._bytes = 0

    @property
    def due(self) -> bool:
        """Whether a checkpoint must be made before the next entry."""
        return not self._begun or (self._ring is not None and self._ring.due)

    @property
    def size(self) -> int:
        """Bytes in the ring."""
        return self._ring.size if self._ring is not None else 0

    @property
    def full(self) -> bool:
        """Whether the ring keeps nothing, because one checkpoint takes more than half of it."""
        return self._ring is not None and self._ring.full

    def begin(self, state: E, size: int) -> None:
        """Adds a checkpoint of ``size`` bytes."""
        if self._ring is not None and self._ring.due:
            self._ring.begin(state, size)
        if not self._begun:
            self._begun = True
            self._stream(state, size)

    def add(self, entry: E, size: int) -> None:
        """Adds an entry of ``size`` bytes."""
        if self._ring is not None:
            self._ring.add(entry, size)
        if self._streams and self._begun:
            self._stream(entry, size)

    def _stream(self, entry: E, size: int) -> None:
        self._waiting.append(entry)
        self._bytes += size
        if self._bytes > self.MOST and len(self._waiting) > 1:
            self.take()
            self._begun = False

    def take(self) -> list[E]:
        """The entries since the last call."""
        taken, self._waiting, self._bytes = self._waiting, [], 0
        return taken

    def contents(self) -> list[E]:
        """All entries in the ring, starting with its oldest checkpoint."""
        if self._ring is None:
            return []
        segments = self._ring.contents()
        return [*(state for state, _ in segments[:1]), *(entry for _, entries in segments for entry in entries)]
