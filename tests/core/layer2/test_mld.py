"""MLD messages: scapy parses our reports, we parse its queries; no input breaks the parser."""

from __future__ import annotations

from ipaddress import IPv6Address

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scapy.layers.inet6 import (
    ICMPv6MLDMultAddrRec,
    ICMPv6MLDone,
    ICMPv6MLQuery,
    ICMPv6MLQuery2,
    ICMPv6MLReport,
    ICMPv6MLReport2,
    IPv6,
    IPv6ExtHdrHopByHop,
    RouterAlert,
)
from scapy.layers.l2 import Ether
from scapy.packet import Packet

from porterlb.core.layer2.mld import (
    ALL_MLDV2_ROUTERS,
    ALL_ROUTERS,
    MOST_RECORDS,
    MldRecord,
    Query,
    parse_query,
    report,
    report_v1,
)

GROUP = IPv6Address("ff02::1:ff00:100")
OPTIONS = IPv6ExtHdrHopByHop(options=[RouterAlert()])


def asked(
    query: Packet, *, options: Packet = OPTIONS, src: str = "fe80::1", dst: str = "ff02::1", hlim: int = 1
) -> bytes:
    return bytes(Ether(src="02:00:00:00:00:01") / IPv6(src=src, dst=dst, hlim=hlim) / options / query)


def test_queries_of_both_versions() -> None:
    assert parse_query(asked(ICMPv6MLQuery(mrd=10000))) == Query(1, b"", 10.0)
    assert parse_query(asked(ICMPv6MLQuery(mrd=1000, mladdr=str(GROUP)), dst=str(GROUP))) == Query(1, GROUP.packed, 1.0)
    assert parse_query(asked(ICMPv6MLQuery2(mrd=500, QRV=3, QQIC=125))) == Query(2, b"", 0.5, 3)
    with_sources = ICMPv6MLQuery2(mladdr=str(GROUP), sources=["2001:db8::1", "2001:db8::2"], mrd=1000, QRV=2)
    assert parse_query(asked(with_sources, dst=str(GROUP))) == Query(2, GROUP.packed, 1.0, 2)


@pytest.mark.parametrize(
    "code, seconds", [(32767, 32.767), (0x8000, 32.768), (0xABCD, (0x1BCD << 5) / 1000), (0xFFFF, 8387.584)]
)
def test_the_response_code_is_an_exponent_and_a_mantissa_when_it_is_large(code, seconds) -> None:
    query = parse_query(asked(ICMPv6MLQuery2(mrd=code)))
    assert query is not None and query.within == pytest.approx(seconds)


def test_padding_around_the_alert_and_after_the_packet_is_no_matter() -> None:
    frame = asked(ICMPv6MLQuery2(mrd=500, QRV=2))
    options = b"\0\0\5\2\0\0"
    assert parse_query(frame[:56] + options + frame[62:] + bytes(7)) == Query(2, b"", 0.5, 2)


@pytest.mark.parametrize(
    "frame",
    [
        asked(ICMPv6MLQuery2(), hlim=255),
        asked(ICMPv6MLQuery2(), src="2001:db8::1"),
        asked(ICMPv6MLQuery2(), src="::"),
        asked(ICMPv6MLQuery2(), dst="fe80::2"),
        asked(ICMPv6MLQuery2(mladdr="2001:db8::5")),
        asked(ICMPv6MLQuery2(), options=IPv6ExtHdrHopByHop()),
        asked(ICMPv6MLQuery2(), options=IPv6ExtHdrHopByHop(options=[RouterAlert(value=1)])),
        asked(ICMPv6MLQuery2(cksum=1)),
        asked(ICMPv6MLQuery2(code=1)),
        asked(ICMPv6MLReport()),
        bytes(Ether() / IPv6(src="fe80::1", dst="ff02::1", hlim=1) / ICMPv6MLQuery2()),
    ],
)
def test_what_is_not_quite_a_query_is_none(frame) -> None:
    assert parse_query(frame) is None


@given(st.binary(max_size=200))
def test_random_frames_are_no_query(frame) -> None:
    assert parse_query(frame) is None


@given(st.data())
def test_a_damaged_query_is_none_or_says_what_a_query_can_say(data) -> None:
    frame = bytearray(asked(ICMPv6MLQuery2(mrd=500, QRV=2)))
    for at in data.draw(st.lists(st.integers(12, len(frame) - 1), max_size=4)):
        frame[at] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(0, len(frame)))
    query = parse_query(bytes(frame[:cut]))
    if query is not None:
        assert query.version in (1, 2) and 0 <= query.within < 10_000 and 0 <= query.robustness <= 7


@given(
    st.lists(
        st.tuples(st.sampled_from(MldRecord), st.binary(min_size=3, max_size=3)), min_size=1, max_size=MOST_RECORDS
    )
)
def test_a_report_is_what_scapy_makes_of_its_records(rows) -> None:
    records = [(kind, GROUP.packed[:13] + low) for kind, low in rows]
    message = report(records)
    made = [ICMPv6MLDMultAddrRec(rtype=int(kind), dst=str(IPv6Address(group)), sources=[]) for kind, group in records]
    assert message.destination == ALL_MLDV2_ROUTERS and len(message.body) + 48 <= 1280
    assert message.body == bytes(ICMPv6MLReport2(records=made, cksum=0))


def test_scapy_reads_reports_of_the_first_version() -> None:
    for kind in (MldRecord.JOINED, MldRecord.LISTENING):
        message = report_v1(kind, GROUP.packed)
        assert message.destination == GROUP.packed and ICMPv6MLReport(message.body).mladdr == str(GROUP)
    left = report_v1(MldRecord.LEFT, GROUP.packed)
    assert left.destination == ALL_ROUTERS and ICMPv6MLDone(left.body).mladdr == str(GROUP)
