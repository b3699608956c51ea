"""The records that the program and the wire process share in maps: bytes and values."""

from __future__ import annotations

import struct

from porterlb.core.layer2.arp import ARP_REQUEST, NO_MAC, Arp
from porterlb.core.layer2.ndp import Solicitation
from porterlb.core.layer2.questions import Question

MAPPED = bytes(10) + b"\xff\xff"
"""An IPv4 address in a key follows these 12 bytes (RFC 4291 2.5.5.2)."""

KEY_SIZE = 16
_ENTRY = struct.Struct("<6s6s4xQ")
ENTRY_SIZE = _ENTRY.size
ENTRY_MAC, ENTRY_SOURCE, ENTRY_REPORTED = 0, 6, 16
"""Offsets in an entry: the MAC to answer with, the Ethernet source, and when a question was last reported (ns)."""

STATE_SIZE = 16
STATE_UNTIL, STATE_ANSWERED = 0, 8
"""Offsets in the state, 8 bytes each: until when the program answers (CLOCK_MONOTONIC, ns), and its answers."""

_ASKED = struct.Struct("<16s16s6s2x")
ASKED_SIZE = _ASKED.size
ASKED_TARGET, ASKED_SENDER, ASKED_MAC = 0, 16, 32

REPORT_EVERY = 10.0
"""Seconds after which another question for the same VIP is reported: a sixth of the time for which a VIP counts as
asked for."""


def key(address: bytes) -> bytes:
    """The key of a packed address, IPv4 or IPv6."""
    return address if len(address) == KEY_SIZE else MAPPED + address


def entry(mac: bytes, source: bytes) -> bytes:
    """A VIP is at ``mac``; answers have the Ethernet source ``source``."""
    return _ENTRY.pack(mac, source, 0)


def reported(record: bytes) -> Question:
    """The question in a record that the program has reported. It does not contain the frame's destination."""
    target, sender, mac = _ASKED.unpack(record)
    if target.startswith(MAPPED):
        return Arp(mac, ARP_REQUEST, mac, sender[len(MAPPED) :], NO_MAC, target[len(MAPPED) :])
    return Solicitation(mac, sender, target, target, mac)
