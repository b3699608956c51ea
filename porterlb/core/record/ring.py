"""What happened lately, in a bounded number of bytes, always with a state to begin from.

The entries are kept in segments. Each segment begins with a checkpoint: the state before its first entry. When the
limit is reached the oldest segment is forgotten as a whole, so what is left can be replayed.
"""

from __future__ import annotations

from collections import deque
from typing import Generic, TypeVar

C = TypeVar("C")
E = TypeVar("E")

SEGMENTS = 4
"""Segments that fill the limit: up to a quarter of the history goes at once, and a checkpoint is made that often."""


class Segment(Generic[C, E]):
    def __init__(self, checkpoint: C, size: int) -> None:
        self.checkpoint = checkpoint
        self.entries: list[E] = []
        self.size = size
        self.begun = size  # bytes of the checkpoint


class Ring(Generic[C, E]):
    """Before each :meth:`add`, call :meth:`begin` where :attr:`due` says so and a checkpoint can be made.

    Args:
        limit: bytes, as the caller counts them.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._segments: deque[Segment[C, E]] = deque()
        self.size = 0
        self.full = False
        """Whether a checkpoint was too large. Nothing is kept then."""

    @property
    def due(self) -> bool:
        """Whether a new segment is to begin. Without it the newest segment goes on, up to the limit."""
        return not self.full and (not self._segments or self._filled(self._segments[-1]))

    def _filled(self, segment: Segment[C, E]) -> bool:
        return (segment.size - segment.begun) * SEGMENTS > self._limit

    def begin(self, checkpoint: C, size: int) -> None:
        """A new segment. ``size``: bytes of the checkpoint. One that takes more than half of the limit ends the ring:
        there is no room for entries."""
        if 2 * size > self._limit:
            self.full = True
            self._segments.clear()
            self.size = 0
            return
        self._segments.append(Segment(checkpoint, size))
        self.size += size
        self._trim()

    def add(self, entry: E, size: int) -> None:
        """An entry of so many bytes. It is lost while there is no segment."""
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
        if self.size > self._limit:  # no checkpoint could be made for long: begin anew
            self._segments.clear()
            self.size = 0

    def contents(self) -> list[tuple[C, list[E]]]:
        """The segments, the oldest first; copies of their lists."""
        return [(segment.checkpoint, list(segment.entries)) for segment in self._segments]
