"""ARP (RFC 826, 5227, 5944) and IPv6 neighbour discovery (RFC 4861) on Ethernet: bytes in, values out.

Parsers return None for whatever is not exactly such a frame, and raise nothing for any input. Frames to send are made
from templates, of which the constant parts are kept and the variable ones filled in here; the templates of
:func:`arp_frame` and :func:`advertisement_frame` are the frames that scapy builds (tests compare them). MAC addresses
are 6 bytes, IP addresses 4 or 16, all in network order.
"""

from __future__ import annotations

import struct
from typing import NamedTuple

ARP_REQUEST = 1
ARP_REPLY = 2
BROADCAST = b"\xff" * 6
NO_MAC = bytes(6)
NO_IPV4 = bytes(4)
UNSPECIFIED = bytes(16)
ALL_NODES = bytes.fromhex("ff020000000000000000000000000001")
ALL_NODES_MAC = bytes.fromhex("333300000001")
_SOLICITED_NODE = bytes.fromhex("ff0200000000000000000001ff")  # and the low 24 bits of the address

_ARP_FIXED = bytes.fromhex("0806000108000604")  # EtherType, Ethernet, IPv4, lengths 6 and 4
_ARP_LAYOUT = struct.Struct(">6x6s8sH6s4s6s4s")
_ETHERTYPE_IPV6 = b"\x86\xdd"
_ICMPV6 = 58
_NS = 135
_NA = 136
_OPTION_SOURCE = 1
_OPTION_TARGET = 2
_ND_SHORTEST = 14 + 40 + 24  # Ethernet, IPv6, and a message without options


class Arp(NamedTuple):
    """An ARP packet. ``source``: the Ethernet source, which need not be the sender hardware address ``sha``."""

    source: bytes
    operation: int
    sha: bytes
    spa: bytes
    tha: bytes
    tpa: bytes


class Solicitation(NamedTuple):
    """A neighbour solicitation. ``link``: its source link-layer option, or empty. A DAD probe comes from ``::``."""

    source: bytes
    src: bytes
    dst: bytes
    target: bytes
    link: bytes


class Advertisement(NamedTuple):
    """A neighbour advertisement. ``link``: its target link-layer option, or empty."""

    source: bytes
    src: bytes
    dst: bytes
    target: bytes
    link: bytes
    solicited: bool
    override: bool


def parse_arp(frame: bytes) -> Arp | None:
    """The ARP request or reply for IPv4 in an untagged Ethernet frame (padding allowed), else None."""
    if len(frame) < _ARP_LAYOUT.size:
        return None
    source, fixed, operation, sha, spa, tha, tpa = _ARP_LAYOUT.unpack_from(frame)
    if fixed != _ARP_FIXED or operation not in (ARP_REQUEST, ARP_REPLY):
        return None
    return Arp(source, operation, sha, spa, tha, tpa)


def parse_neighbour(frame: bytes) -> Solicitation | Advertisement | None:
    """The valid solicitation or advertisement (RFC 4861 7.1.1, 7.1.2; checksum verified) in a frame, else None."""
    if (
        len(frame) < _ND_SHORTEST
        or frame[12:14] != _ETHERTYPE_IPV6
        or frame[14] >> 4 != 6
        or frame[20] != _ICMPV6  # extension headers: not from any neighbour that we want to talk to
        or frame[21] != 255  # hop limit: it has not come through a router
        or frame[55]  # code
    ):
        return None
    length = frame[18] << 8 | frame[19]
    end = 54 + length
    if length < 24 or end > len(frame):
        return None
    message = frame[54:end]
    src, dst, target = frame[22:38], frame[38:54], frame[62:78]
    if target[0] == 0xFF or (_sum(src + dst) + length + _ICMPV6 + _sum(message)) % 0xFFFF:
        return None
    kind = frame[54]
    link = _link_option(message, _OPTION_SOURCE if kind == _NS else _OPTION_TARGET)
    if link is None:
        return None
    if kind == _NS:
        if src == UNSPECIFIED and (link or dst[:13] != _SOLICITED_NODE):
            return None
        return Solicitation(frame[6:12], src, dst, target, link)
    if kind == _NA:
        flags = message[4]
        if flags & 0x40 and dst[0] == 0xFF:
            return None
        return Advertisement(frame[6:12], src, dst, target, link, bool(flags & 0x40), bool(flags & 0x20))
    return None


def _link_option(message: bytes, wanted: int) -> bytes | None:
    """The link-layer address in option ``wanted``, empty if there is none, None if the options are broken."""
    at, link = 24, b""
    while at < len(message):
        if at + 2 > len(message) or message[at + 1] == 0 or at + 8 * message[at + 1] > len(message):
            return None
        if message[at] == wanted and message[at + 1] == 1:
            link = message[at + 2 : at + 8]
        at += 8 * message[at + 1]
    return link


def _sum(data: bytes) -> int:
    """The one's complement sum of big-endian 16-bit words, not folded: 2**16 is 1 modulo 65535 (RFC 1071)."""
    if len(data) % 2:
        data += b"\0"
    return int.from_bytes(data, "big")


def icmpv6_checksum(src: bytes, dst: bytes, message: bytes) -> int:
    """The checksum (RFC 8200 8.1) of an ICMPv6 message whose checksum field is zero."""
    return 0xFFFF - (_sum(src + dst) + len(message) + _ICMPV6 + _sum(message)) % 0xFFFF


def solicited_node(address: bytes) -> bytes:
    """The solicited-node multicast address of an IPv6 address (RFC 4291 2.7.1)."""
    return _SOLICITED_NODE + address[13:]


def multicast_mac(group: bytes) -> bytes:
    """The Ethernet address of an IPv6 multicast group (RFC 2464 7)."""
    return b"\x33\x33" + group[12:]


def arp_frame() -> bytes:
    """A complete ARP request, to make an :class:`ArpTemplate` of."""
    mac, address = bytes.fromhex("020000000001"), bytes((192, 0, 2, 1))
    return BROADCAST + mac + _ARP_FIXED + b"\0\1" + mac + address + NO_MAC + address


def advertisement_frame() -> bytes:
    """A complete unsolicited advertisement, to make a :class:`NeighbourTemplate` of."""
    mac, address = bytes.fromhex("020000000001"), bytes.fromhex("20010db8000000000000000000000001")
    message = bytes((_NA, 0, 0, 0, 0x20, 0, 0, 0)) + address + bytes((_OPTION_TARGET, 1)) + mac
    checksum = icmpv6_checksum(address, ALL_NODES, message).to_bytes(2, "big")
    header = b"\x60\0\0\0" + len(message).to_bytes(2, "big") + bytes((_ICMPV6, 255)) + address + ALL_NODES
    return ALL_NODES_MAC + mac + _ETHERTYPE_IPV6 + header + message[:2] + checksum + message[4:]


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

    def gratuitous(self, source: bytes, mac: bytes, address: bytes) -> bytes:
        """``address`` is at ``mac``, to all: the request form, which Linux takes over also in its locktime of 1 s."""
        return BROADCAST + source + self._fixed + b"\1" + mac + address + NO_MAC + address

    def answer(self, source: bytes, mac: bytes, address: bytes) -> ArpAnswer:
        """The ready answer to requests for ``address``: it is at ``mac``."""
        return ArpAnswer(source + self._fixed + b"\2" + mac + address)


class ArpAnswer:
    """Turns requests for one address into replies."""

    __slots__ = ("_middle",)

    def __init__(self, middle: bytes) -> None:
        self._middle = middle

    def reply(self, request: bytes) -> bytes | None:
        """The reply to a frame that is an ARP request; None where the sender's MAC is no unicast address."""
        sha = request[22:28]
        if len(sha) != 6 or sha[0] & 1 or sha == NO_MAC:
            return None
        return sha + self._middle + sha + request[28:32]


class NeighbourTemplate:
    """Makes solicitations and advertisements. Raises ValueError when the template frame is not one."""

    __slots__ = ("_head",)

    def __init__(self, frame: bytes) -> None:
        if parse_neighbour(frame) is None:
            raise ValueError("the template is no neighbour discovery frame")
        self._head = frame[12:18]  # EtherType, version, traffic class, flow label

    def _frame(self, source: bytes, destination: bytes, src: bytes, dst: bytes, message: bytes) -> bytes:
        checksum = icmpv6_checksum(src, dst, message).to_bytes(2, "big")
        header = self._head + len(message).to_bytes(2, "big") + b"\x3a\xff" + src + dst
        return destination + source + header + message[:2] + checksum + message[4:]

    def solicitation(self, source: bytes, src: bytes, target: bytes, destination: bytes = b"") -> bytes:
        """Who has ``target``? To its solicited-node group, or to ``destination`` (a MAC). From ``::``: a DAD probe."""
        dst = target if destination else solicited_node(target)
        message = bytes((_NS, 0, 0, 0, 0, 0, 0, 0)) + target
        if src != UNSPECIFIED:
            message += bytes((_OPTION_SOURCE, 1)) + source
        return self._frame(source, destination or multicast_mac(dst), src, dst, message)

    def unsolicited(self, source: bytes, mac: bytes, address: bytes) -> bytes:
        """``address`` is at ``mac``, to all nodes, with Override: without it, caches keep what they have."""
        message = bytes((_NA, 0, 0, 0, 0x20, 0, 0, 0)) + address + bytes((_OPTION_TARGET, 1)) + mac
        return self._frame(source, ALL_NODES_MAC, address, ALL_NODES, message)

    def answer(self, source: bytes, mac: bytes, address: bytes) -> NeighbourAnswer:
        """The ready answer to solicitations for ``address``: it is at ``mac``."""
        message = bytes((_NA, 0, 0, 0, 0x60, 0, 0, 0)) + address + bytes((_OPTION_TARGET, 1)) + mac
        header = source + self._head + b"\0\x20\x3a\xff" + address
        partial = _sum(address + message) + len(message) + _ICMPV6
        return NeighbourAnswer(header, message[4:], partial % 0xFFFF, self.unsolicited(source, mac, address))


class NeighbourAnswer:
    """Turns solicitations for one address into advertisements."""

    __slots__ = ("_body", "_header", "_partial", "_to_all")

    def __init__(self, header: bytes, body: bytes, partial: int, to_all: bytes) -> None:
        self._header = header
        self._body = body
        self._partial = partial
        self._to_all = to_all

    def reply(self, solicitation: Solicitation) -> bytes | None:
        """The advertisement: to the asker's MAC (option, else the Ethernet source), or to all after a DAD probe."""
        src = solicitation.src
        if src == UNSPECIFIED:
            return self._to_all
        mac = solicitation.link or solicitation.source
        if mac[0] & 1 or src[0] == 0xFF:
            return None
        checksum = 0xFFFF - (self._partial + _sum(src)) % 0xFFFF
        return mac + self._header + src + b"\x88\0" + checksum.to_bytes(2, "big") + self._body
