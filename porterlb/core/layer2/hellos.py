"""The hellos of the other replicas: which ones are accepted, and when a replica is given up."""

from __future__ import annotations

from collections.abc import Mapping

from porterlb.core.hello import Change, Hello, HelloRefusal, Receiver
from porterlb.core.model import Member
from porterlb.core.observed import FreshReplica


class Hellos:
    """`Receiver` validates datagrams; this class decides when silence counts. Times: monotonic seconds.

    Args:
        interval: seconds between the hellos of a replica.
        fresh_for: seconds after which a silent replica is given up.
    """

    def __init__(self, node: str, key: bytes, interval: float, fresh_for: float) -> None:
        self._interval = interval
        self._fresh_for = fresh_for
        self._receiver = Receiver(node, key, fresh_for)
        self._sequence = 0
        self._expire_at: float | None = None
        self.last_heard = float("-inf")

    @property
    def fresh(self) -> dict[str, FreshReplica]:
        return self._receiver.fresh

    @property
    def last(self) -> tuple[Hello, ...]:
        """The last hello of each fresh replica."""
        return self._receiver.hellos

    def last_of(self, node: str) -> Hello | None:
        """The last hello of a fresh replica; None: it is not fresh."""
        return self._receiver.last(node)

    def heard_since(self, moment: float) -> tuple[Hello, ...]:
        """As ``last``, but only hellos received at ``moment`` or later."""
        return self._receiver.heard_since(moment)

    @property
    def next_at(self) -> float | None:
        """When to call `expire`; process received hellos first."""
        return self._expire_at

    def next_sequence(self, now: float) -> int:
        """The number of our next hello. It keeps rising after a restart of the process in the same boot."""
        self._sequence = max(self._sequence + 1, int(now * 1e9))
        return self._sequence

    def set_members(self, members: Mapping[str, Member]) -> frozenset[str]:
        """Replaces the membership; returns the fresh replicas that are no longer members."""
        return self._receiver.set_members(members)

    def receive(self, data: bytes, now: float) -> Change | HelloRefusal:
        """Accepts a datagram, or returns why it is refused."""
        change = self._receiver.receive(data, now)
        if isinstance(change, Change):
            self.last_heard = now
            if self._expire_at is None:
                self._expire_at = self._receiver.next_expiry()
        return change

    def expire(self, now: float, others_heard: float, doubt: bool) -> frozenset[str]:
        """The replicas to give up now: none if we stalled or while nothing at all is heard.

        Args:
            others_heard: when anything other than a hello was last heard. While nothing is heard, our own link is
                probably at fault, and no replica is given up for another two ``fresh_for``.
            doubt: whether we are in doubt: then no replica is given up.
        """
        due, self._expire_at = self._expire_at, None
        expires = self._receiver.next_expiry()
        if due is None or expires is None:
            return frozenset()
        stalled = now - due > self._interval / 2
        latest = max(self.last_heard, others_heard)
        total_silence = latest <= expires - self._fresh_for + self._interval and now < expires + 2 * self._fresh_for
        if expires <= now and (stalled or total_silence or doubt):
            self._expire_at = now + self._interval / 2
            return frozenset()
        gone = self._receiver.expire(now)
        self._expire_at = self._receiver.next_expiry()
        return gone
