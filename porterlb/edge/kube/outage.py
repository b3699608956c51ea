"""Whether the API can be reached, according to the watches: when an outage begins and ends, and when to try again.

Pure: time (monotonic seconds) and chance are arguments.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from porterlb.cluster import Kind, Outage, Restored
from porterlb.core.backoff import delay


@dataclass(slots=True, eq=False)
class OutageTracker:
    """One outage at a time. Every outage has a number; a kind is back when it was listed in that outage.

    A broken stream is not an outage, because it can be resumed where it broke. The first failed attempt is one: from
    then on it is unknown what was missed, so every kind must be listed again, even if its stream is alive.
    """

    kinds: Sequence[Kind]
    number: int = 0
    """Number of the outage, even after its end: a kind that was last listed in an earlier one must be listed again."""

    over: bool = True
    failures: int = 0
    retry_at: float = 0.0
    _missing: set[Kind] = field(default_factory=set)

    def failed(self, kind: Kind, reason: str, now: float, chance: float, after: float = 0.0) -> Outage | None:
        """An attempt to list or to watch failed. ``after``: seconds that the API asked us to wait.

        Returns the Outage if this begins one.
        """
        if now >= self.retry_at:  # attempts that were in progress together are one failure
            self.failures += 1
            self.retry_at = now + delay(self.failures, chance)
        self.retry_at = max(self.retry_at, now + after)
        self._missing.add(kind)
        if not self.over:
            return None
        self.over = False
        self.number += 1
        self._missing = set(self.kinds)
        return Outage(reason)

    def answered(self) -> None:
        """The API has answered a request."""
        self.failures = 0
        self.retry_at = 0.0

    def followed(self, kind: Kind, number: int) -> Restored | None:
        """A kind was listed in the outage of this number and is watched. Returns Restored if it was the last one.

        Listing is not enough: if the rights allow only that, outages would begin and end without a pause.
        """
        self.answered()
        if self.over or number != self.number:
            return None
        self._missing.discard(kind)
        if self._missing:
            return None
        self.over = True
        return Restored()
