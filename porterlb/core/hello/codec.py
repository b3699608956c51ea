"""The bytes of a hello.

Layout, big-endian: ``PLBH``, version (1), flags (1), boot (8), sequence (8), digest (8), applied (8); then fields, each
type (1), length (2) and value; then HMAC-SHA256 over everything before it. A reader skips unknown field types, unknown
flags, and additional bytes at the end of a known field: a later release may add all three and remain compatible. The
version changes only if readers of the previous version must not read the rest.

A datagram of a typical cluster (two segments, eight sessions, twenty dead nodes) is below 1,200 bytes, so that it is
never fragmented. Its limit is MAX_DATAGRAM. Above the limit, fields lose entries, beginning with the fields written
last: askers, negotiated, dead, suspects, hold-downs, sessions, silent nodes. The state of the segments is kept. A
sender sends its table of askers in pieces, a few per hello, so that these datagrams also stay below 1,500 bytes.
"""

from __future__ import annotations

import enum
import hmac
import struct
from collections.abc import Iterable, Iterator
from dataclasses import fields, replace
from hashlib import sha256
from ipaddress import ip_network
from operator import attrgetter

from porterlb.core.hello.value import Assignment, Hello, HelloRefusal, SegmentState
from porterlb.core.model import Network

MAX_DATAGRAM = 8192  # bytes
MOST_SEGMENTS = 16
"""Maximum segments of one sender: more are neither sent nor read. A node has one or two; every further one costs 50
bytes per datagram."""
_HEAD = struct.Struct(">4sBBQQQQ")
_SEQUENCE = 14  # offset in the head
_FIELD = struct.Struct(">BH")
_START = struct.Struct(">QQQ")
_COUNT = struct.Struct(">H")
_STAMP = struct.Struct(">I")
_MAGIC = b"PLBH"
VERSION = 2
_MAC = 32
_U64 = (1 << 64) - 1
_U32 = (1 << 32) - 1


class _Flag(enum.IntFlag):
    GOODBYE = 1
    ANSWERS = 2
    STALE = 4


_GOODBYE, _ANSWERS, _STALE = int(_Flag.GOODBYE), int(_Flag.ANSWERS), int(_Flag.STALE)


class _SegmentFlag(enum.IntFlag):
    UP = 1
    ANSWERS = 2
    ISOLATED = 4


class _Type(enum.IntEnum):
    """Field types. A number is never reused for another type."""

    NODE = 1
    LEADER = 2
    START = 3  # instance, echo, uptime
    SEGMENT = 4  # repeated, in the order of the segments
    SILENT = 5  # index of the segment, then names; repeated
    SESSIONS = 6
    HOLD_DOWNS = 7
    SUSPECT = 8  # as SILENT
    DEAD = 9
    NEGOTIATED = 10  # peer and text alternate
    KNOWN_ASKERS = 11  # number of askers
    ASKERS = 12  # IP version, VIP and node; then MAC, address and stamp of each asker; repeated


def encode(hello: Hello, key: bytes) -> bytes:
    """The datagram, at most MAX_DATAGRAM bytes; the module docstring says what is left out above the limit."""
    return Writer(key).datagram(hello)


class Writer:
    """Encodes the hellos of one sender. Most hellos differ from the previous one only in the head: their fields are not
    encoded again."""

    def __init__(self, key: bytes) -> None:
        self._key = key
        self._said: object = None
        self._fields = b""

    def datagram(self, hello: Hello) -> bytes:
        """See `encode`."""
        said = _beside_head(hello)
        if said != self._said:
            self._said, self._fields = said, _encoded(hello)
        flags = hello.goodbye * _GOODBYE | hello.answers * _ANSWERS | hello.stale * _STALE
        numbers = (hello.boot & _U64, hello.sequence & _U64, hello.digest & _U64, hello.applied & _U64)
        data = _HEAD.pack(_MAGIC, VERSION, flags, *numbers) + self._fields
        return data + hmac.digest(self._key, data, sha256)


_HEADS = ("boot", "sequence", "digest", "applied", "goodbye", "answers", "stale")
_beside_head = attrgetter(*[one.name for one in fields(Hello) if one.name not in _HEADS])


def _encoded(hello: Hello) -> bytes:
    """The fields behind the head."""
    data = bytearray()
    for kind, start, entries in _fields(hello):
        if entries is not None and not entries:
            continue
        room = MAX_DATAGRAM - _MAC - _HEAD.size - len(data) - _FIELD.size
        value = start
        for entry in entries or ():
            if len(value) + len(entry) > room:
                break
            value += entry
        if len(value) <= room:
            data += _FIELD.pack(kind, len(value)) + value
    return bytes(data)


def _fields(hello: Hello) -> Iterator[tuple[_Type, bytes, list[bytes] | None]]:
    """Type, beginning and entries of each field, the most important first. Entries may be left out from the end; a
    field with an empty list is left out. None: this type of field has no entries."""
    segments = hello.segments[:MOST_SEGMENTS]
    yield _Type.NODE, _text(hello.node), None
    yield _Type.LEADER, _text(hello.leader), None
    yield _Type.START, _START.pack(hello.instance & _U64, hello.echo & _U64, hello.uptime & _U64), None
    for segment in segments:
        yield _Type.SEGMENT, _segment(segment), None
    for index, segment in enumerate(segments):
        yield _Type.SILENT, bytes((index,)), _texts(segment.silent)
    yield _Type.SESSIONS, b"", _texts(hello.sessions)
    yield _Type.HOLD_DOWNS, b"", _texts(hello.hold_downs)
    for index, segment in enumerate(segments):
        yield _Type.SUSPECT, bytes((index,)), _texts(segment.suspect)
    yield _Type.DEAD, b"", _texts(hello.dead)
    yield _Type.NEGOTIATED, b"", [_text(peer) + _text(text) for peer, text in sorted(hello.negotiated.items())]
    if hello.known_askers:
        yield _Type.KNOWN_ASKERS, _COUNT.pack(min(hello.known_askers, 0xFFFF)), None
    yield from _assignments(hello.assignments)


def _assignments(assignments: Iterable[Assignment]) -> Iterator[tuple[_Type, bytes, list[bytes]]]:
    """A field for each VIP and node, in the order of their first askers."""
    fields: dict[tuple[bytes, str], list[bytes]] = {}
    for one in assignments:
        packed = one.asker + one.address + _STAMP.pack(one.stamp & _U32)
        fields.setdefault((one.vip, one.node), []).append(packed)
    for (vip, node), entries in fields.items():
        yield _Type.ASKERS, bytes((4 if len(vip) == 4 else 6,)) + vip + _text(node), entries


def _segment(segment: SegmentState) -> bytes:
    flags = _SegmentFlag.UP * segment.up | _SegmentFlag.ANSWERS * segment.answers
    flags |= _SegmentFlag.ISOLATED * segment.isolated
    contacts = segment.contacts[:2]
    subnets = segment.subnets[:255]
    packed = bytes((flags,)) + segment.mac[:6].ljust(6, b"\0") + bytes((len(subnets),))
    for subnet in subnets:
        packed += bytes((subnet.version, subnet.prefixlen)) + subnet.network_address.packed
    return packed + bytes((len(contacts),)) + b"".join(map(_text, contacts))


def _text(text: str) -> bytes:
    data = text.encode("utf-8", "replace")[:255]
    return bytes((len(data),)) + data


def _texts(names: Iterable[str]) -> list[bytes]:
    return [_text(name) for name in sorted(names)]


def decode(data: bytes, key: bytes) -> Hello | HelloRefusal:
    """The hello in a datagram, or why it is refused. The signature is checked before any field is read."""
    opened = verified(data, key)
    return opened if isinstance(opened, HelloRefusal) else read(opened)


def verified(data: bytes, key: bytes) -> bytes | HelloRefusal:
    """The datagram without its signature, if the signature matches the key."""
    if len(data) > MAX_DATAGRAM:
        return HelloRefusal.OVERSIZE
    if len(data) < _HEAD.size + _MAC or data[:4] != _MAGIC:
        return HelloRefusal.MALFORMED
    signed = data[:-_MAC]
    if not hmac.compare_digest(hmac.digest(key, signed, sha256), data[-_MAC:]):
        return HelloRefusal.WRONG_KEY
    return signed if signed[4] == VERSION else HelloRefusal.VERSION


def claimed_node(data: bytes) -> str:
    """The node named in a refused datagram; empty: none. The name is not authenticated."""
    at = _HEAD.size + _FIELD.size
    if len(data) <= at or data[_HEAD.size] != _Type.NODE:
        return ""
    return data[at + 1 : at + 1 + data[at]].decode(errors="replace")


def content(signed: bytes) -> bytes:
    """Everything except the sequence number: hellos with the same content differ only in that number."""
    return signed[:_SEQUENCE] + signed[_SEQUENCE + 8 :]


def sequence(signed: bytes) -> int:
    return int.from_bytes(signed[_SEQUENCE : _SEQUENCE + 8], "big")


def read(signed: bytes) -> Hello | HelloRefusal:
    """The hello in a verified datagram."""
    try:
        return _hello(signed)
    except (ValueError, struct.error):
        return HelloRefusal.MALFORMED


def _hello(signed: bytes) -> Hello:
    _, _, flags, boot, number, digest, applied = _HEAD.unpack_from(signed)
    names: dict[_Type, frozenset[str]] = {}
    one: dict[_Type, str] = {}
    segments: list[SegmentState] = []
    votes: dict[tuple[_Type, int], frozenset[str]] = {}
    negotiated: dict[str, str] = {}
    assignments: list[Assignment] = []
    instance = echo = uptime = known_askers = 0
    outer = _Reader(signed, _HEAD.size)
    while not outer.finished:
        kind, length = _FIELD.unpack(outer.take(_FIELD.size))
        field = _Reader(outer.take(length), 0)
        match kind:
            case _Type.NODE | _Type.LEADER:
                one[_Type(kind)] = field.text()
            case _Type.START:
                instance, echo, uptime = _START.unpack(field.take(_START.size))
            case _Type.SEGMENT if len(segments) < MOST_SEGMENTS:
                segments.append(_read_segment(field))
            case _Type.SILENT | _Type.SUSPECT:
                index = field.number()
                votes[_Type(kind), index] = field.texts()
            case _Type.SESSIONS | _Type.HOLD_DOWNS | _Type.DEAD:
                names[_Type(kind)] = field.texts()
            case _Type.NEGOTIATED:
                while not field.finished:
                    peer = field.text()
                    negotiated[peer] = field.text()
            case _Type.KNOWN_ASKERS:
                (known_askers,) = _COUNT.unpack(field.take(_COUNT.size))
            case _Type.ASKERS:
                assignments += _read_assignments(field)
            case _:  # field of a later release, or one segment too many
                continue
    if not one.get(_Type.NODE):
        raise ValueError("no node")
    nobody: frozenset[str] = frozenset()
    return Hello(
        node=one[_Type.NODE],
        boot=boot,
        sequence=number,
        leader=one.get(_Type.LEADER, ""),
        sessions=names.get(_Type.SESSIONS, nobody),
        dead=names.get(_Type.DEAD, nobody),
        digest=digest,
        applied=applied,
        answers=bool(flags & _Flag.ANSWERS),
        goodbye=bool(flags & _Flag.GOODBYE),
        hold_downs=names.get(_Type.HOLD_DOWNS, nobody),
        segments=tuple(
            replace(
                s,
                suspect=votes.get((_Type.SUSPECT, index), nobody),
                silent=votes.get((_Type.SILENT, index), nobody),
            )
            for index, s in enumerate(segments)
        ),
        negotiated=negotiated,
        instance=instance,
        echo=echo,
        uptime=uptime,
        assignments=tuple(assignments),
        known_askers=known_askers,
        stale=bool(flags & _Flag.STALE),
    )


def _read_assignments(field: _Reader) -> Iterator[Assignment]:
    size = _size(field.number())
    vip, node = field.take(size), field.text()
    while not field.finished:
        asker, address = field.take(6), field.take(size)
        yield Assignment(vip, asker, address, node, *_STAMP.unpack(field.take(_STAMP.size)))


def _read_segment(field: _Reader) -> SegmentState:
    flags, mac = field.number(), field.take(6)
    subnets = tuple([_read_subnet(field) for _ in range(field.number())])
    contacts = tuple([field.text() for _ in range(field.number())])
    return SegmentState(
        subnets,
        up=bool(flags & _SegmentFlag.UP),
        isolated=bool(flags & _SegmentFlag.ISOLATED),
        answers=bool(flags & _SegmentFlag.ANSWERS),
        mac=mac,
        contacts=contacts[:2],
    )


def _read_subnet(field: _Reader) -> Network:
    version, prefix = field.number(), field.number()
    return ip_network((field.take(_size(version)), prefix))


def _size(version: int) -> int:
    """The length of an address in bytes."""
    if version not in (4, 6):
        raise ValueError("IP version")
    return 4 if version == 4 else 16


class _Reader:
    """Reads from a signed datagram; raises ValueError if it ends too early or is not UTF-8."""

    def __init__(self, data: bytes, at: int) -> None:
        self._data = data
        self._at = at

    @property
    def finished(self) -> bool:
        return self._at >= len(self._data)

    def take(self, count: int) -> bytes:
        piece = self._data[self._at : self._at + count]
        if len(piece) != count:
            raise ValueError("short")
        self._at += count
        return piece

    def number(self) -> int:
        return self.take(1)[0]

    def text(self) -> str:
        return self.take(self.number()).decode()

    def texts(self) -> frozenset[str]:
        found = set()
        while not self.finished:
            found.add(self.text())
        return frozenset(found)
