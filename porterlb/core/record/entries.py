"""The entries of the wire process, packed and as JSON.

There are about 200 per second, so entries are packed: the event (1 byte), the time (8 bytes), and its data. Hellos are
recorded without their signatures, but with the result of the verification: a recording has no key, and needs none.
"""

from __future__ import annotations

import enum
import json
import pickle
import struct
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from porterlb.core.hello import HelloRefusal, codec
from porterlb.core.record.codec import encode

Line = dict[str, Any]

HEAD = struct.Struct("<Bd")
ONE = struct.Struct("<d")
TWO = struct.Struct("<dd")
HEARD = struct.Struct("<I6s")
ASKED = struct.Struct("<dB")
_SIGNATURE = 32


class What(enum.IntEnum):
    """The events of :class:`porterlb.core.layer2.engine.Layer2`. DID: its decisions on the previous event. STATE: its
    complete state. ASKED: a host asks for a VIP."""

    STATE = 0
    DID = 1
    OTHER = 2
    PROBE = 3
    PROBED = 4
    TICK = 5
    CHORES = 6
    WAKE = 7
    STEP = 8
    BEAT = 9
    HELLO = 10
    HEARD = 11
    CLAIMED = 12
    ANNOUNCED = 13
    ASKED = 14


def entry(what: What, now: float, rest: bytes = b"") -> bytes:
    return HEAD.pack(what, now) + rest


def lines(entries: Iterable[bytes], key: bytes) -> Iterator[Line]:
    """The entries as JSON, each with the decisions that followed. ``key``: the hello key."""
    last: Line | None = None
    for one in entries:
        what, now = HEAD.unpack_from(one)
        rest = one[HEAD.size :]
        if what == What.DID:
            if last is not None:
                last["did"] = json.loads(rest)
            continue
        if last is not None:
            yield last
        if what == What.OTHER:
            name, *arguments = json.loads(rest)
            last = {"at": now, "what": name, "with": arguments}
        else:
            last = {"at": now, "what": What(what).name.lower()}
            last |= _hello(rest, key) if what == What.HELLO else _READ[What(what)](rest)
    if last is not None:
        yield last


def _hello(data: bytes, key: bytes) -> Line:
    """A datagram: the signed part, or the refused data, cut to the maximum length of a hello and with the signature
    zeroed."""
    found = codec.verified(data, key)
    if isinstance(found, bytes) or found is HelloRefusal.VERSION:
        return {"signed": data[:-_SIGNATURE].hex()}
    kept = data[: codec.MAX_DATAGRAM + 1]
    return {"refused": (kept[:-_SIGNATURE] + bytes(min(_SIGNATURE, len(kept)))).hex()}


def _asked(rest: bytes) -> Line:
    asked, size = ASKED.unpack_from(rest)
    packed, question = rest[ASKED.size : ASKED.size + size], rest[ASKED.size + size :]
    return {"last": encode(asked), "address": packed.hex(), "question": json.loads(question) if question else None}


def _heard(rest: bytes) -> Line:
    nic, mac = HEARD.unpack_from(rest)
    return {"nic": nic, "mac": mac.hex(), "address": rest[HEARD.size :].hex()}


_READ: Mapping[What, Callable[[bytes], Line]] = {
    What.STATE: lambda rest: {"state": encode(pickle.loads(rest))},  # noqa: S301  # this process made it
    What.PROBE: lambda rest: dict(zip(("lag", "link"), TWO.unpack(rest), strict=True)),
    What.PROBED: lambda rest: {"nics": list(struct.unpack(f"<{len(rest) // 4}I", rest))},
    What.TICK: lambda _: {},
    What.CHORES: lambda rest: {"lag": ONE.unpack(rest)[0]},
    What.WAKE: lambda rest: {"link": ONE.unpack(rest)[0]},
    What.STEP: lambda _: {},
    What.BEAT: lambda _: {},
    What.HEARD: _heard,
    What.CLAIMED: lambda rest: {"mac": rest[:6].hex(), "address": rest[6:].hex()},
    What.ANNOUNCED: lambda rest: {"sent": bool(rest[0] & 1), "defence": rest[0] > 1, "address": rest[1:].hex()},
    What.ASKED: _asked,
}
