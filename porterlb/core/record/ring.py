"""The most recent entries, in a bounded number of bytes, always with a state from which to replay them.

The entries are kept in segments. Each segment begins with a checkpoint: the state before its first entry. When the
limit is reached, the oldest segment is dropped as a whole, so the rest can be replayed.
"""

from __future__ import annotations

from collections import deque
from typing import Generic, TypeVar

C = TypeVar("C")
E = TypeVar("E")

SEGMENTS = 4
"""Segments that fill the limit. Up to a quarter of the history is dropped at once, and each quarter needs a
checkpoint."""


class Segment(Generic[C, E]):
    def __init__(self, checkpoint: C, size: int) -> None:
        self.checkpoint = checkpoint
        self.entries: list[E] = []
        self.size = size
        self.begun = size  # bytes of the checkpoint


class Ring(Generic[C, E]):
    """Before each :meth:`add`, call :meth:`begin` if :attr:`due` is set and a checkpoint can be made.

    Args:
        limit: bytes, as counted by the caller.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._segments: deque[Segment[C, E]] = deque()
        self.size = 0
        self.full = False
        """Whether a checkpoint was too large; then nothing is kept."""

    @property
    def due(self) -> bool:
        """Whether a new segment should begin. Until then the newest segment continues, up to the limit."""
        return not self.full and (not self._segments or self._filled(self._segments[-1]))

    def _filled(self, segment: Segment[C, E]) -> bool:
        return (segment.size - segment.begun) * SEGMENTS > self._limit

    def begin(self, checkpoint: C, size: int) -> None:
        """Begins a new segment. ``size``: bytes of the checkpoint. If it takes more than half of the limit, the ring
        keeps nothing from then on: there is no room for entries."""
        if 2 * size > self._limit:
            self.full = True
            self._segments.clear()
            self.size = 0
            return
        self._segments.append(Segment(checkpoint, size))
        self.size += size
        self._trim()

    def add(self, entry: E, size: int) -> None:
        """Adds an entry of ``size`` bytes. It is dropped while there is no segment."""
        if not self._segments:
            return
        newest = self._segments[-1]
        newest.entries.append(entry)
        newest.size += size
        self.size += size
        if self.size > self._limit:
            self._trim()

    def _trim(self) -> None:
        while self.size > self._limit and len(self._segments) > 1:
            self.size -= self._segments.popleft().size
        if self.size > self._limit:  # no checkpoint could be made for a long time: start again
            self._segments.clear()
            self.size = 0

    def contents(self) -> list[tuple[C, list[E]]]:
        """The segments, oldest first, with copies of their lists."""
        return [(segment.checkpoint, list(segment.entries)) for segment in self._segments]
