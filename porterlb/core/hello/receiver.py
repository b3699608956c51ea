"""Which hellos are accepted, and which replicas are fresh. Times: monotonic seconds, as arguments."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from operator import attrgetter

from porterlb.core.hello import codec
from porterlb.core.hello.value import Hello, HelloRefusal
from porterlb.core.model import Member
from porterlb.core.observed import FreshReplica


@dataclass(frozen=True, slots=True)
class Change:
    """What a datagram changed. ``came``: the replica was not fresh before. ``left``: the replica sent a goodbye.

    ``news``: the contents differ from the previous hello. This excludes the sequence, the findings about other nodes
    (suspect, silent, contacts; :class:`porterlb.core.layer2.failure_detector.FailureDetector` reads them in every
    hello) and askers (read by :class:`porterlb.core.layer2.spread.Spread`).
    """

    hello: Hello
    came: bool = False
    left: bool = False
    news: bool = False


class Receiver:
    """What is known about the other replicas from their hellos. Times: monotonic seconds, as arguments.

    A goodbye ends a replica's freshness immediately; a later hello restores it. Boot numbers never decrease: the
    minimum is the larger of the boot numbers in the last hello and in the membership. A member that leaves the
    membership is forgotten: when it returns, only its Lease gives the minimum (the node's clock may have been set
    back).
    """

    def __init__(self, node: str, key: bytes, fresh_for: float) -> None:
        self._node = node
        self._key = key
        self._fresh_for = fresh_for
        self._members: Mapping[str, Member] = {}
        self._last: dict[str, Hello] = {}  # also of replicas that are not fresh: to detect replays
        self._heard: dict[str, float] = {}  # of fresh replicas
        self._parsed: dict[bytes, Hello] = {}  # by content, one per member
        self._contents: dict[str, bytes] = {}

    def set_members(self, members: Mapping[str, Member]) -> frozenset[str]:
        """Replaces the membership; returns the fresh replicas that are no longer members."""
        self._members = members
        self._last = {node: last for node, last in self._last.items() if node in members}
        for node in self._contents.keys() - members.keys():
            self._parsed.pop(self._contents.pop(node), None)
        gone = frozenset(node for node in self._heard if node not in members)
        for node in gone:
            del self._heard[node]
        return gone

    def receive(self, data: bytes, now: float) -> Change | HelloRefusal:
        """Accepts a datagram, or returns why it is refused."""
        hello = self._read(data)
        if isinstance(hello, HelloRefusal):
            return hello
        if hello.node == self._node:
            return HelloRefusal.OWN_NAME
        member = self._members.get(hello.node)
        if member is None:
            return HelloRefusal.FOREIGN
        last = self._last.get(hello.node)
        if hello.boot < member.boot:
            return HelloRefusal.REPLAY
        if last is not None and (hello.boot, hello.sequence) <= (last.boot, last.sequence):
            return HelloRefusal.REPLAY
        self._last[hello.node] = hello
        if last is not None and _same(last, hello) and hello.node in self._heard and not hello.goodbye:
            self._heard[hello.node] = now
            return Change(hello)
        if hello.goodbye:
            return Change(hello, left=self._heard.pop(hello.node, None) is not None)
        came = hello.node not in self._heard
        self._heard[hello.node] = now
        return Change(hello, came=came, news=came or last is None or _content(last) != _content(hello))

    def _read(self, data: bytes) -> Hello | HelloRefusal:
        """Reads a hello. Most hellos differ from the sender's previous one only in the sequence number: they are not
        parsed again."""
        signed = codec.verified(data, self._key)
        if isinstance(signed, HelloRefusal):
            return signed
        content = codec.content(signed)
        known = self._parsed.get(content)
        if known is not None:
            return known.numbered(codec.sequence(signed))
        hello = codec.read(signed)
        # Assignments differ in each hello.
        if isinstance(hello, Hello) and hello.node in self._members and not hello.assignments:
            self._parsed.pop(self._contents.get(hello.node, b""), None)
            self._contents[hello.node], self._parsed[content] = content, hello
        return hello

    def expire(self, now: float) -> frozenset[str]:
        """Forgets replicas that were silent for too long; returns them."""
        gone = frozenset(node for node, at in self._heard.items() if now >= at + self._fresh_for)
        for node in gone:
            del self._heard[node]
        return gone

    def next_expiry(self) -> float | None:
        """When the next fresh replica expires, unless it is heard again."""
        return min(self._heard.values()) + self._fresh_for if self._heard else None

    def last(self, node: str) -> Hello | None:
        """The last hello of a fresh replica."""
        return self._last[node] if node in self._heard else None

    @property
    def hellos(self) -> tuple[Hello, ...]:
        """The last hello of each fresh replica."""
        return tuple([self._last[node] for node in self._heard])

    def heard_since(self, moment: float) -> tuple[Hello, ...]:
        """The last hello of each fresh replica that sent one at ``moment`` or later."""
        return tuple([self._last[node] for node, at in self._heard.items() if at >= moment])

    @property
    def fresh(self) -> dict[str, FreshReplica]:
        """The fresh replicas, without ourselves."""
        return {
            h.node: FreshReplica(
                h.node, h.boot, h.sessions, h.leader, h.dead, h.digest, h.applied, h.hold_downs, h.negotiated, h.stale
            )
            for h in self.hellos
        }


def _same(last: Hello, hello: Hello) -> bool:
    """Whether two hellos are equal, without the sequence and askers: so are most hellos of a sender that follow one
    another. Their parts are the same objects then (:meth:`Receiver._read`)."""
    return _parts(last) == _parts(hello)


_parts = attrgetter(*[one.name for one in fields(Hello) if one.name not in ("sequence", "assignments", "known_askers")])


def _content(h: Hello) -> tuple[object, ...]:
    """The parts that other replicas act on, without the sender's findings about other nodes."""
    said = (h.boot, h.leader, h.sessions, h.dead, h.digest, h.applied, h.answers, h.stale, h.hold_downs)
    segments = tuple((s.subnets, s.up, s.isolated, s.answers, s.mac) for s in h.segments)
    return (*said, segments, h.negotiated, h.instance, h.echo)
