"""IPv6 neighbour discovery (RFC 4861) on Ethernet: bytes in, values out.

Parsers return None for any other frame, and raise nothing for any input. Frames to send are made from a template: a
complete frame whose constant parts are kept and whose variable parts are filled in here. MAC addresses are 6 bytes, IP
addresses 16, all in network order.
"""

from __future__ import annotations

from typing import NamedTuple

UNSPECIFIED = bytes(16)
ALL_NODES = bytes.fromhex("ff020000000000000000000000000001")
ALL_NODES_MAC = bytes.fromhex("333300000001")
_NO_MAC = bytes(6)
_LOOPBACK = bytes(15) + b"\1"
_SOLICITED_NODE = bytes.fromhex("ff0200000000000000000001ff")  # followed by the low 24 bits of the address

_ETHERTYPE_IPV6 = b"\x86\xdd"
_ICMPV6 = 58
_NS = 135
_NA = 136
_OPTION_SOURCE = 1
_OPTION_TARGET = 2
_ND_SHORTEST = 14 + 40 + 24  # Ethernet, IPv6, and a message without options


class Solicitation(NamedTuple):
    """A neighbour solicitation. ``mac``: its source link-layer option, or empty. A DAD probe comes from ``::``.

    ``source``: the Ethernet source. ``sender``, ``destination``: the IPv6 addresses.
    """

    source: bytes
    sender: bytes
    destination: bytes
    target: bytes
    mac: bytes


class Advertisement(NamedTuple):
    """A neighbour advertisement. ``mac``: its target link-layer option, or empty."""

    source: bytes
    sender: bytes
    destination: bytes
    target: bytes
    mac: bytes
    solicited: bool
    override: bool


def parse_ndp(frame: bytes) -> Solicitation | Advertisement | None:
    """The valid solicitation or advertisement (RFC 4861 7.1.1, 7.1.2; checksum verified) in a frame, else None."""
    if (
        len(frame) < _ND_SHORTEST
        or frame[12:14] != _ETHERTYPE_IPV6
        or frame[14] >> 4 != 6
        or frame[20] != _ICMPV6  # extension headers: neighbours that we serve do not use them
        or frame[21] != 255  # hop limit: the frame was forwarded by a router
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
    """The link-layer address in option ``wanted``; empty: none; None: the options are malformed."""
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


def advertisement_frame() -> bytes:
    """A complete unsolicited advertisement, from which to make an :class:`NdpTemplate`."""
    mac, address = bytes.fromhex("020000000001"), bytes.fromhex("20010db8000000000000000000000001")
    message = bytes((_NA, 0, 0, 0, 0x20, 0, 0, 0)) + address + bytes((_OPTION_TARGET, 1)) + mac
    checksum = icmpv6_checksum(address, ALL_NODES, message).to_bytes(2, "big")
    header = b"\x60\0\0\0" + len(message).to_bytes(2, "big") + bytes((_ICMPV6, 255)) + address + ALL_NODES
    return ALL_NODES_MAC + mac + _ETHERTYPE_IPV6 + header + message[:2] + checksum + message[4:]


class NdpTemplate:
    """Makes solicitations and advertisements. Raises ValueError when the template frame is not one."""

    __slots__ = ("_head",)

    def __init__(self, frame: bytes) -> None:
        if parse_ndp(frame) is None:
            raise ValueError("the template is no neighbour discovery frame")
        self._head = frame[12:18]  # EtherType, version, traffic class, flow label

    def _frame(self, source: bytes, destination: bytes, src: bytes, dst: bytes, message: bytes) -> bytes:
        checksum = icmpv6_checksum(src, dst, message).to_bytes(2, "big")
        header = self._head + len(message).to_bytes(2, "big") + b"\x3a\xff" + src + dst
        return destination + source + header + message[:2] + checksum + message[4:]

    def solicitation(self, source: bytes, src: bytes, target: bytes, destination: bytes = b"") -> bytes:
        """A solicitation for ``target``, to its solicited-node group or to the MAC ``destination``. From ``::``: a DAD
        probe."""
        dst = target if destination else solicited_node(target)
        message = bytes((_NS, 0, 0, 0, 0, 0, 0, 0)) + target
        if src != UNSPECIFIED:
            message += bytes((_OPTION_SOURCE, 1)) + source
        return self._frame(source, destination or multicast_mac(dst), src, dst, message)

    def unsolicited(
        self, source: bytes, mac: bytes, address: bytes, destination: bytes = ALL_NODES_MAC, dst: bytes = ALL_NODES
    ) -> bytes:
        """Says that ``address`` is at ``mac``, with Override: without it, caches keep their entries. To all nodes, or
        to the host with the MAC ``destination`` and the address ``dst``."""
        message = bytes((_NA, 0, 0, 0, 0x20, 0, 0, 0)) + address + bytes((_OPTION_TARGET, 1)) + mac
        return self._frame(source, destination, address, dst, message)

    def answer(self, source: bytes, mac: bytes, address: bytes) -> NdpAnswer:
        """The prepared answer to solicitations for ``address``: it is at ``mac``."""
        message = bytes((_NA, 0, 0, 0, 0x60, 0, 0, 0)) + address + bytes((_OPTION_TARGET, 1)) + mac
        header = source + self._head + b"\0\x20\x3a\xff" + address
        partial = _sum(address + message) + len(message) + _ICMPV6
        return NdpAnswer(header, message[4:], partial % 0xFFFF, self.unsolicited(source, mac, address))


class NdpAnswer:
    """Turns solicitations for one address into advertisements."""

    __slots__ = ("_body", "_header", "_partial", "_to_all")

    def __init__(self, header: bytes, body: bytes, partial: int, to_all: bytes) -> None:
        self._header = header
        self._body = body
        self._partial = partial
        self._to_all = to_all

    def reply(self, solicitation: Solicitation) -> bytes | None:
        """The advertisement: to the asker's MAC (option, else the Ethernet source), or to all after a DAD probe."""
        src = solicitation.sender
        if src == UNSPECIFIED:
            return self._to_all
        mac = solicitation.mac or solicitation.source
        if mac[0] & 1 or mac == _NO_MAC or src[0] == 0xFF or src == _LOOPBACK:
            return None
        checksum = 0xFFFF - (self._partial + _sum(src)) % 0xFFFF
        return mac + self._header + src + b"\x88\0" + checksum.to_bytes(2, "big") + self._body
