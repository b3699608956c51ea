"""ARP for IPv4 on Ethernet (RFC 826, 5227, 5944): bytes in, values out.

The parser returns None for any other frame, and raises nothing for any input. Frames to send are made from a template:
a complete frame whose constant parts are kept and whose variable parts are filled in here. MAC addresses are 6 bytes,
IP addresses 4, all in network order.
"""

from __future__ import annotations

import struct
from typing import NamedTuple

ARP_REQUEST = 1
ARP_REPLY = 2
BROADCAST = b"\xff" * 6
NO_MAC = bytes(6)
NO_IPV4 = bytes(4)
LIMITED_BROADCAST = b"\xff" * 4

_ARP_FIXED = bytes.fromhex("0806000108000604")  # EtherType, Ethernet, IPv4, lengths 6 and 4
_ARP_LAYOUT = struct.Struct(">6s6s8sH6s4s6s4s")


class Arp(NamedTuple):
    """An ARP packet. ``source``: the Ethernet source, which need not be the sender hardware address ``mac``.

    ``sender``, ``target``: the protocol addresses. ``target_mac``: the target hardware address. ``destination``: the
    Ethernet destination.
    """

    source: bytes
    operation: int
    mac: bytes
    sender: bytes
    target_mac: bytes
    target: bytes
    destination: bytes = BROADCAST


def parse_arp(frame: bytes) -> Arp | None:
    """The ARP request or reply for IPv4 in an untagged Ethernet frame (padding allowed), else None."""
    if len(frame) < _ARP_LAYOUT.size:
        return None
    destination, source, fixed, operation, sha, spa, tha, tpa = _ARP_LAYOUT.unpack_from(frame)
    if fixed != _ARP_FIXED or operation not in (ARP_REQUEST, ARP_REPLY):
        return None
    return Arp(source, operation, sha, spa, tha, tpa, destination)


def arp_frame() -> bytes:
    """A complete ARP request, from which to make an :class:`ArpTemplate`."""
    mac, address = bytes.fromhex("020000000001"), bytes((192, 0, 2, 1))
    return BROADCAST + mac + _ARP_FIXED + b"\0\1" + mac + address + NO_MAC + address


class ArpTemplate:
    """Makes ARP frames. Raises ValueError when the template frame is not ARP for IPv4 over Ethernet."""

    __slots__ = ("_fixed",)

    def __init__(self, frame: bytes) -> None:
        if parse_arp(frame) is None:
            raise ValueError("the template is no ARP frame")
        self._fixed = frame[12:21]

    def request(self, source: bytes, destination: bytes, sha: bytes, spa: bytes, tpa: bytes) -> bytes:
        """A request; with ``spa`` 0.0.0.0 an RFC 5227 probe."""
        return destination + source + self._fixed + b"\1" + sha + spa + NO_MAC + tpa

    def gratuitous(self, source: bytes, mac: bytes, address: bytes, destination: bytes = BROADCAST) -> bytes:
        """Says to all or to one host that ``address`` is at ``mac``. The request form: Linux accepts it even within
        its locktime of 1 s."""
        return destination + source + self._fixed + b"\1" + mac + address + NO_MAC + address

    def answer(self, source: bytes, mac: bytes, address: bytes) -> ArpAnswer:
        """The prepared answer to requests for ``address``: it is at ``mac``."""
        return ArpAnswer(source + self._fixed + b"\2" + mac + address)


class ArpAnswer:
    """Turns requests for one address into replies."""

    __slots__ = ("_middle",)

    def __init__(self, middle: bytes) -> None:
        self._middle = middle

    def reply(self, request: Arp) -> bytes | None:
        """The reply; None if the sender cannot be answered: its MAC is not a unicast address, or its IPv4 address is
        multicast, loopback or the limited broadcast. A request from 0.0.0.0 is a probe (RFC 5227) and is answered."""
        mac, sender = request.mac, request.sender
        if mac[0] & 1 or mac == NO_MAC or 224 <= sender[0] < 240 or sender[0] == 127 or sender == LIMITED_BROADCAST:
            return None
        return mac + self._middle + mac + sender
