"""Multicast Listener Discovery (MLDv2: RFC 3810; MLDv1: RFC 2710): bytes in, values out.

A switch that snoops (RFC 4541) forwards a multicast group only to ports from which it has received such reports. Groups
are 16 bytes in network order. Messages are ICMPv6 with a zero checksum: the kernel fills it in when they are sent.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import IntEnum
from typing import NamedTuple

from porterlb.core.layer2.ndp import UNSPECIFIED, icmpv6_checksum

QUERY = 130
_REPORT_V1, _DONE_V1, _REPORT_V2 = 131, 132, 143
_ICMPV6 = 58
ALL_ROUTERS = bytes.fromhex("ff020000000000000000000000000002")
ALL_MLDV2_ROUTERS = bytes.fromhex("ff020000000000000000000000000016")
MOST_RECORDS = 60  # in one report: with its headers it fits 1,280 bytes, the minimum IPv6 MTU
HOP_BY_HOP = bytes.fromhex("3a00050200000100")
"""The hop-by-hop options of every MLD message: ICMPv6 comes next, Router Alert for MLD (RFC 2711), padding."""


class MldRecord(IntEnum):
    """What a record of a report says about a group, with no sources listed (RFC 3810 5.2.12)."""

    LISTENING = 2  # MODE_IS_EXCLUDE {}: the answer to a query
    JOINED = 4  # CHANGE_TO_EXCLUDE_MODE {}
    LEFT = 3  # CHANGE_TO_INCLUDE_MODE {}


class Query(NamedTuple):
    """An MLD query. ``group``: empty for all groups. ``within``: seconds within which to answer.

    ``robustness``: how many times to report a change (RFC 3810 9.1); 0: not given by the querier.
    """

    version: int
    group: bytes
    within: float
    robustness: int = 0


class Message(NamedTuple):
    """An ICMPv6 message and its destination multicast address; it is sent with hop limit 1 and `HOP_BY_HOP`."""

    destination: bytes
    body: bytes


def parse_query(frame: bytes) -> Query | None:
    """The valid query (RFC 3810 5.1, 6.2; checksum verified) in an untagged Ethernet frame, else None.

    Sources in a query are ignored: they make no difference to a listener that excludes none.
    """
    if (
        len(frame) < 86
        or frame[12:14] != b"\x86\xdd"
        or frame[14] >> 4 != 6
        or frame[20:22] != b"\0\1"  # hop-by-hop options, hop limit 1
        or frame[54:56] != bytes((_ICMPV6, 0))
        or not _router_alert(frame[56:62])
        or frame[62:64] != bytes((QUERY, 0))
    ):
        return None
    length = (frame[18] << 8 | frame[19]) - 8
    message = frame[62 : 62 + length]
    src, dst, group = frame[22:38], frame[38:54], frame[70:86]
    if (
        length < 24
        or 24 < length < 28
        or len(message) != length
        or src[0] != 0xFE
        or src[1] >> 6 != 2  # queries come from link-local addresses
        or dst[0] != 0xFF
        or (group != UNSPECIFIED and group[0] != 0xFF)
        or icmpv6_checksum(src, dst, message) % 0xFFFF
    ):
        return None
    code = message[4] << 8 | message[5]
    asked = b"" if group == UNSPECIFIED else group
    if length == 24:
        return Query(1, asked, code / 1000)
    if code >= 1 << 15:  # RFC 3810 5.1.3: exponent and mantissa
        code = (code & 0xFFF | 0x1000) << ((code >> 12 & 7) + 3)
    return Query(2, asked, code / 1000, message[24] & 7)


def _router_alert(options: bytes) -> bool:
    at = 0
    while at < len(options):
        if options[at] == 0:  # Pad1
            at += 1
        elif options[at : at + 4] == b"\5\2\0\0":
            return True
        elif at + 1 < len(options):
            at += 2 + options[at + 1]
        else:
            return False
    return False


def report(records: Sequence[tuple[MldRecord, bytes]]) -> Message:
    """One MLDv2 report of (kind, group) records, at most `MOST_RECORDS`."""
    body = b"".join(bytes((kind, 0, 0, 0)) + group for kind, group in records)
    return Message(ALL_MLDV2_ROUTERS, bytes((_REPORT_V2, 0, 0, 0, 0, 0)) + len(records).to_bytes(2, "big") + body)


def report_v1(kind: MldRecord, group: bytes) -> Message:
    """The same for one group and an MLDv1 querier: a report to the group itself, or Done to all routers."""
    if kind is MldRecord.LEFT:
        return Message(ALL_ROUTERS, bytes((_DONE_V1, 0, 0, 0, 0, 0, 0, 0)) + group)
    return Message(group, bytes((_REPORT_V1, 0, 0, 0, 0, 0, 0, 0)) + group)
