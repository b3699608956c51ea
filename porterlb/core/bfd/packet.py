"""BFD Control packets (RFC 5880, 4.1): bytes and values."""

from __future__ import annotations

import enum
import struct
from dataclasses import dataclass

from porterlb.core.bfd.values import BfdState

VERSION = 1
LENGTH = 24
"""Bytes of a packet without authentication."""

_FORM = struct.Struct("!BBBBIIIII")
_POLL, _FINAL, _INDEPENDENT, _AUTHENTICATED, _DEMAND, _MULTIPOINT = 0x20, 0x10, 0x08, 0x04, 0x02, 0x01


class Discard(enum.StrEnum):
    """Why a packet is discarded (RFC 5880, 6.8.6, in the order given there)."""

    SHORT = "short"
    VERSION = "version"
    LENGTH = "length"
    MULTIPLIER = "multiplier"
    MULTIPOINT = "multipoint"
    MY_DISCRIMINATOR = "my_discriminator"
    YOUR_DISCRIMINATOR = "your_discriminator"
    NO_SESSION = "no_session"
    AUTHENTICATED = "authenticated"
    POLL_AND_FINAL = "poll_and_final"
    TTL = "ttl"


@dataclass(frozen=True, slots=True)
class Packet:
    """Intervals in microseconds. ``state`` and ``diagnostic`` are those of the sender."""

    state: BfdState
    my_discriminator: int
    your_discriminator: int
    multiplier: int
    min_transmit: int
    min_receive: int
    diagnostic: int = 0
    poll: bool = False
    final: bool = False
    demand: bool = False
    min_echo_receive: int = 0

    def encode(self) -> bytes:
        flags = (_POLL if self.poll else 0) | (_FINAL if self.final else 0) | (_DEMAND if self.demand else 0)
        return _FORM.pack(
            VERSION << 5 | self.diagnostic,
            self.state << 6 | flags,
            self.multiplier,
            LENGTH,
            self.my_discriminator,
            self.your_discriminator,
            self.min_transmit,
            self.min_receive,
            self.min_echo_receive,
        )


def decode(data: bytes) -> Packet | Discard:
    """Decodes any bytes; never raises. It does not check whether the session exists."""
    if len(data) < LENGTH:
        return Discard.SHORT
    first, second, multiplier, length, mine, yours, transmit, receive, echo = _FORM.unpack_from(data)
    if first >> 5 != VERSION:
        return Discard.VERSION
    if length < LENGTH or length > len(data):
        return Discard.LENGTH
    if multiplier == 0:
        return Discard.MULTIPLIER
    if second & _MULTIPOINT:
        return Discard.MULTIPOINT
    if mine == 0:
        return Discard.MY_DISCRIMINATOR
    state = BfdState(second >> 6)
    if yours == 0 and state not in (BfdState.DOWN, BfdState.ADMIN_DOWN):
        return Discard.YOUR_DISCRIMINATOR
    if second & _AUTHENTICATED:
        return Discard.AUTHENTICATED
    poll, final = bool(second & _POLL), bool(second & _FINAL)
    if poll and final:
        return Discard.POLL_AND_FINAL
    demand = bool(second & _DEMAND)
    return Packet(state, mine, yours, multiplier, transmit, receive, first & 0x1F, poll, final, demand, echo)
