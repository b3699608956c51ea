"""The next command line, built while ExaBGP works on the last one, so that ExaBGP does not wait for us in a burst."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from porterlb.core import exabgp_text as text
from porterlb.core.bgp.difference import Batch, Difference
from porterlb.core.desired import SessionConfig


@dataclass(frozen=True, slots=True)
class Line:
    """One batch as an ExaBGP command. ``refusal``: why it cannot be expressed; then ``text`` is empty."""

    batch: Batch
    text: str = ""
    refusal: str = ""


class NextLine:
    """Builds a line ahead of time. The line is used only if the difference is unchanged, so urgent work still goes
    first."""

    def __init__(self, difference: Difference, most: int = text.MAX_PREFIXES) -> None:
        self._difference = difference
        self._most = most  # prefixes in a line
        self._line: Line | None = None
        self._made_at = 0

    def make(self, sessions: Mapping[str, SessionConfig]) -> None:
        """Makes the next line and keeps it."""
        self._line, self._made_at = self.take(sessions), self._difference.generation

    def take(self, sessions: Mapping[str, SessionConfig]) -> Line | None:
        """The next line; None if no work is left. ``sessions``: the sessions that ExaBGP has, by peer name."""
        line, self._line = self._line, None
        if line is not None:
            if self._made_at == self._difference.generation:
                return line
            self._difference.give_back(line.batch)
        batch = self._difference.next(self._most)
        if batch is None:
            return None
        verb = text.withdraw if batch.withdraw else text.announce
        try:
            return Line(batch, verb(sessions[batch.path.peer], batch.path, batch.prefixes))
        except text.Unspeakable as refusal:
            return Line(batch, refusal=str(refusal))
