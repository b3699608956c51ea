"""Questions for the VIPs that we answer, once another replica begins to answer or is heard again.

While two replicas do not hear each other, both may answer for a VIP, and their plans may differ for some further
seconds. Neither of them announces the VIP again in that time, so the double answer would go unnoticed. Therefore each
asks once for each VIP that it answers: the other replica's answer is a claim, which `DoubleAnswers` resolves. Times:
monotonic seconds, as arguments.
"""

from __future__ import annotations

from collections.abc import Iterable

from porterlb.core.layer2.bucket import TokenBucket

AT_ONCE = 8  # questions per wake-up, so that answers never wait for them
PAUSE = 0.005  # seconds until the next questions


class Reunion:
    """Which replicas answer, and the VIPs still to ask for. Call `due` at `next_at`.

    Args:
        rate: questions per second.
    """

    def __init__(self, rate: int, now: float) -> None:
        self._bucket = TokenBucket(float(rate), max(float(AT_ONCE), rate / 10), now)
        self._answering: set[str] = set()
        self._to_ask: dict[bytes, None] = {}
        self._at = now

    @property
    def next_at(self) -> float | None:
        return self._at if self._to_ask else None

    def said(self, node: str, answers: bool, ours: Iterable[bytes], now: float) -> None:
        """A replica said whether it answers. ``ours``: the VIPs that we answer."""
        if not answers:
            self._answering.discard(node)
        elif node not in self._answering:
            self._answering.add(node)
            if not self._to_ask:
                self._at = now
            self._to_ask.update(dict.fromkeys(ours))

    def left(self, node: str) -> None:
        """A replica is no longer heard."""
        self._answering.discard(node)

    def due(self, now: float) -> tuple[bytes, ...]:
        """The VIPs to ask for now. The caller leaves out VIPs that are no longer ours."""
        if not self._to_ask or now < self._at:
            return ()
        found: list[bytes] = []
        while self._to_ask and len(found) < AT_ONCE and self._bucket.has(now):
            self._bucket.take()
            address = next(iter(self._to_ask))
            del self._to_ask[address]
            found.append(address)
        self._at = now + PAUSE
        return tuple(found)
