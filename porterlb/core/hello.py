"""Hello: the datagram by which replicas know of one another that they live. Bytes in, values out.

Layout, big-endian: ``PLBH``, version (1), flags, boot (8 bytes), sequence (8), digest (8), applied (8), then node,
leader, dead, sessions and hold-downs as length-prefixed UTF-8 texts, then HMAC-SHA256 over all before it. A receiver
takes a datagram only with the right key, from a member, with boot and sequence that rise.
"""

from __future__ import annotations

import enum
import hmac
import struct
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from hashlib import sha256

from porterlb.core.model import Member
from porterlb.core.observed import FreshReplica

MAX_DATAGRAM = 8192  # bytes; 300 names of 24 characters. Beyond it, names are left out.
_HEAD = struct.Struct(">4sBBQQQQ")
_MAGIC = b"PLBH"
_VERSION = 1
_MAC = 32
_U64 = (1 << 64) - 1


class _Flag(enum.IntFlag):
    GOODBYE = 1
    ANSWERS = 2


@dataclass(frozen=True, slots=True)
class Hello:
    """What one replica says. Integers are unsigned, 64 bits.

    ``sequence`` rises with every datagram of a boot. ``goodbye``: it stops; take over at once. ``answers``: it
    answers ARP and NDP now; False while it only listens after its start. ``dead``: nodes that it sees dead; its own
    name in it says that its link to the segment is gone. ``sessions``: established BGP sessions by peer name.
    ``hold_downs``: its hold-down states (:func:`porterlb.core.holddown.said`).
    """

    node: str
    boot: int
    sequence: int
    leader: str = ""
    sessions: frozenset[str] = frozenset()
    dead: frozenset[str] = frozenset()
    digest: int = 0
    applied: int = 0
    answers: bool = False
    goodbye: bool = False
    hold_downs: frozenset[str] = frozenset()


class Refusal(enum.StrEnum):
    """Why a datagram was not taken."""

    MALFORMED = "malformed"
    OVERSIZE = "oversize"
    WRONG_KEY = "wrong_key"
    FOREIGN = "foreign"
    REPLAY = "replay"


def encode(hello: Hello, key: bytes) -> bytes:
    """The datagram, at most MAX_DATAGRAM bytes: nodes, sessions and hold-downs that do not fit are left out."""
    flags = _Flag.GOODBYE * hello.goodbye | _Flag.ANSWERS * hello.answers
    numbers = (value & _U64 for value in (hello.boot, hello.sequence, hello.digest, hello.applied))
    data = _HEAD.pack(_MAGIC, _VERSION, flags, *numbers) + _text(hello.node) + _text(hello.leader)
    room = MAX_DATAGRAM - _MAC - len(data) - 6
    for names in (hello.dead, hello.sessions, hello.hold_downs):
        packed = _texts(names, room)
        room -= len(packed) - 2
        data += packed
    return data + hmac.digest(key, data, sha256)


def decode(data: bytes, key: bytes) -> Hello | Refusal:
    """The hello in a datagram, or why it is none. The signature is checked before anything else is looked at."""
    if len(data) > MAX_DATAGRAM:
        return Refusal.OVERSIZE
    if len(data) < _HEAD.size + _MAC or data[:4] != _MAGIC or data[4] != _VERSION:
        return Refusal.MALFORMED
    signed = data[:-_MAC]
    if not hmac.compare_digest(hmac.digest(key, signed, sha256), data[-_MAC:]):
        return Refusal.WRONG_KEY
    _, _, flags, boot, sequence, digest, applied = _HEAD.unpack_from(signed)
    reader = _Reader(signed, _HEAD.size)
    try:
        node, leader = reader.text(), reader.text()
        dead, sessions, hold_downs = reader.texts(), reader.texts(), reader.texts()
    except ValueError:
        return Refusal.MALFORMED
    if not reader.finished:
        return Refusal.MALFORMED
    answers, goodbye = bool(flags & _Flag.ANSWERS), bool(flags & _Flag.GOODBYE)
    return Hello(node, boot, sequence, leader, sessions, dead, digest, applied, answers, goodbye, hold_downs)


def _text(text: str) -> bytes:
    data = text.encode("utf-8", "replace")[:255]
    return bytes((len(data),)) + data


def _texts(names: Iterable[str], room: int) -> bytes:
    packed, count = b"", 0
    for name in sorted(names):
        item = _text(name)
        if len(packed) + len(item) > room:
            break
        packed += item
        count += 1
    return count.to_bytes(2, "big") + packed


class _Reader:
    """Reads texts from a signed datagram; raises ValueError where it ends too early or is not UTF-8."""

    def __init__(self, data: bytes, at: int) -> None:
        self._data = data
        self._at = at

    @property
    def finished(self) -> bool:
        return self._at == len(self._data)

    def _take(self, count: int) -> bytes:
        piece = self._data[self._at : self._at + count]
        if len(piece) != count:
            raise ValueError("short")
        self._at += count
        return piece

    def text(self) -> str:
        return self._take(self._take(1)[0]).decode()

    def texts(self) -> frozenset[str]:
        return frozenset([self.text() for _ in range(int.from_bytes(self._take(2), "big"))])


@dataclass(frozen=True, slots=True)
class Change:
    """What a datagram changed. ``news``: anything but its sequence is different from the one before.

    ``came`` / ``left``: the replica was not fresh before / has said goodbye.
    """

    hello: Hello
    came: bool = False
    left: bool = False
    news: bool = False


class Receiver:
    """What is known of the other replicas by their hellos. Times: monotonic seconds, as arguments.

    A goodbye ends a replica's freshness at once; a later hello brings it back. Boot numbers never go back: the
    larger of what a hello and what the membership said is the floor.
    """

    def __init__(self, node: str, key: bytes, fresh_for: float) -> None:
        self._node = node
        self._key = key
        self._fresh_for = fresh_for
        self._members: Mapping[str, Member] = {}
        self._last: dict[str, Hello] = {}  # also of replicas that are not fresh: against replays
        self._heard: dict[str, float] = {}  # of fresh ones

    def set_members(self, members: Mapping[str, Member]) -> frozenset[str]:
        """Replaces the membership; returns the fresh replicas that are members no longer."""
        self._members = members
        gone = frozenset(node for node in self._heard if node not in members)
        for node in gone:
            del self._heard[node]
        return gone

    def receive(self, data: bytes, now: float) -> Change | Refusal:
        """Takes a datagram, or says why not."""
        hello = decode(data, self._key)
        if isinstance(hello, Refusal):
            return hello
        member = self._members.get(hello.node)
        if member is None or hello.node == self._node:
            return Refusal.FOREIGN
        last = self._last.get(hello.node)
        if hello.boot < member.boot:
            return Refusal.REPLAY
        if last is not None and (hello.boot, hello.sequence) <= (last.boot, last.sequence):
            return Refusal.REPLAY
        self._last[hello.node] = hello
        if hello.goodbye:
            return Change(hello, left=self._heard.pop(hello.node, None) is not None)
        came = hello.node not in self._heard
        self._heard[hello.node] = now
        return Change(hello, came=came, news=came or last is None or _content(last) != _content(hello))

    def expire(self, now: float) -> frozenset[str]:
        """Forgets replicas that were silent for too long; returns them."""
        gone = frozenset(node for node, at in self._heard.items() if now >= at + self._fresh_for)
        for node in gone:
            del self._heard[node]
        return gone

    def next_expiry(self) -> float | None:
        """When the first fresh replica is to be forgotten if nothing more is heard of it."""
        return min(self._heard.values()) + self._fresh_for if self._heard else None

    def last(self, node: str) -> Hello | None:
        """The last hello of a fresh replica."""
        return self._last[node] if node in self._heard else None

    @property
    def hellos(self) -> tuple[Hello, ...]:
        """The last hello of each fresh replica."""
        return tuple([self._last[node] for node in self._heard])

    def heard_since(self, moment: float) -> tuple[Hello, ...]:
        """The last hello of each fresh replica that has said one at ``moment`` or later."""
        return tuple([self._last[node] for node, at in self._heard.items() if at >= moment])

    @property
    def fresh(self) -> dict[str, FreshReplica]:
        """The fresh replicas, without ourselves."""
        return {
            h.node: FreshReplica(h.node, h.boot, h.sessions, h.leader, h.dead, h.digest, h.applied, h.hold_downs)
            for h in self.hellos
        }


def _content(h: Hello) -> tuple[object, ...]:
    return (h.boot, h.leader, h.sessions, h.dead, h.digest, h.applied, h.answers, h.hold_downs)
