"""ARP and neighbor discovery: the frames conform to the RFCs, and no input breaks the parsers."""

from __future__ import annotations

import subprocess
import sys
from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scapy.layers.inet6 import ICMPv6ND_NA, ICMPv6ND_NS, ICMPv6NDOptDstLLAddr, ICMPv6NDOptSrcLLAddr, IPv6
from scapy.layers.l2 import ARP as ScapyArp
from scapy.layers.l2 import Ether

from porterlb.core.layer2 import ndp
from porterlb.core.layer2.arp import (
    ARP_REPLY,
    ARP_REQUEST,
    BROADCAST,
    NO_IPV4,
    NO_MAC,
    Arp,
    ArpTemplate,
    arp_frame,
    parse_arp,
)
from porterlb.core.layer2.ndp import (
    ALL_NODES,
    ALL_NODES_MAC,
    UNSPECIFIED,
    Advertisement,
    NdpTemplate,
    Solicitation,
    advertisement_frame,
    parse_ndp,
    solicited_node,
)
from porterlb.core.layer2.questions import arp_question, ndp_question

ARP_FRAME = bytes.fromhex(
    "ffffffffffff020000000001080600010800060400010200000000010a4d0001000000000000000000000a4d0064"
)[:42]
# An unsolicited advertisement with Override for 2001:db8::1 at 02:00:00:00:00:01
NA_FRAME = bytes.fromhex(
    "333300000001"
    "020000000001"
    "86dd6000000000203aff"
    "20010db8000000000000000000000001"
    "ff020000000000000000000000000001"
    "880000002000000020010db80000000000000000000000010201020000000001"
)


def remade(frame: bytes, *changes: tuple[int, bytes]) -> bytes:
    """The message with replaced bytes and a corrected checksum."""
    for at, data in changes:
        frame = frame[:at] + data + frame[at + len(data) :]
    frame = frame[:56] + b"\0\0" + frame[58:]
    checksum = ndp.icmpv6_checksum(frame[22:38], frame[38:54], frame[54:])
    return frame[:56] + checksum.to_bytes(2, "big") + frame[58:]


NA_FRAME = remade(NA_FRAME)
ARP = ArpTemplate(ARP_FRAME)
TARGET = ip_address("fd00::1").packed
ND = NdpTemplate(NA_FRAME)

unicast = st.binary(min_size=6, max_size=6).filter(lambda mac: not mac[0] & 1 and mac != NO_MAC)
ipv4 = st.binary(min_size=4, max_size=4)
hosts = ipv4.filter(lambda address: not 224 <= address[0] < 240 and address[0] != 127 and address != b"\xff" * 4)
ipv6 = st.binary(min_size=16, max_size=16).filter(lambda ip: ip[0] != 0xFF and ip != UNSPECIFIED)
ipv6_hosts = ipv6.filter(lambda address: address != bytes(15) + b"\1")


def words(data: bytes) -> int:
    """RFC 1071, without optimization: the reference for the fast version."""
    total = sum(data[i] << 8 | data[i + 1] for i in range(0, len(data), 2))
    while total > 0xFFFF:
        total = (total & 0xFFFF) + (total >> 16)
    return total


def checksum_holds(frame: bytes) -> bool:
    message = frame[54:]
    return words(frame[22:54] + len(message).to_bytes(4, "big") + b"\0\0\0\x3a" + message) == 0xFFFF


def asked(frame: bytes) -> Arp:
    parsed = parse_arp(frame)
    assert parsed is not None
    return parsed


@given(unicast, unicast, ipv4, hosts)
def test_an_arp_request_is_answered_to_its_sender(own, asker, address, sender) -> None:
    request = ARP.request(asker, BROADCAST, asker, sender, address)
    assert parse_arp(request) == (asker, ARP_REQUEST, asker, sender, NO_MAC, address, BROADCAST)
    reply = ARP.answer(own, b"\2\0\0\0\0\7", address).reply(asked(request))
    assert reply is not None and len(reply) == 42
    assert reply[:6] == asker and parse_arp(reply) == (own, ARP_REPLY, b"\2\0\0\0\0\7", address, asker, sender, asker)


@given(unicast, unicast, ipv4)
def test_gratuitous_arp_is_the_request_form_with_our_own_ethernet_source(own, mac, address) -> None:
    frame = ARP.gratuitous(own, mac, address)
    assert frame[:6] == BROADCAST
    assert parse_arp(frame) == (own, ARP_REQUEST, mac, address, NO_MAC, address, BROADCAST)


def test_a_probe_is_answered_and_a_sender_that_is_no_host_is_not() -> None:
    answer = ARP.answer(b"\2" * 6, b"\2" * 6, b"\x0a\0\0\1")
    probe = ARP.request(b"\4" * 6, BROADCAST, b"\4" * 6, NO_IPV4, b"\x0a\0\0\1")
    assert answer.reply(asked(probe)) is not None
    for mac in (BROADCAST, NO_MAC, b"\x01\0\x5e\0\0\1"):
        assert answer.reply(asked(ARP.request(b"\4" * 6, BROADCAST, mac, b"\x0a\0\0\2", b"\x0a\0\0\1"))) is None


@pytest.mark.parametrize("sender", ["224.0.0.1", "239.255.255.255", "255.255.255.255", "127.0.0.1", "127.255.0.1"])
def test_arp_is_not_answered_to_a_sender_that_is_no_unicast_address(sender) -> None:
    answer = ARP.answer(b"\2" * 6, b"\2" * 6, b"\x0a\0\0\1")
    request = ARP.request(b"\4" * 6, BROADCAST, b"\4" * 6, ip_address(sender).packed, b"\x0a\0\0\1")
    assert answer.reply(asked(request)) is None


@pytest.mark.parametrize("sender", ["10.0.0.2", "169.254.1.1", "223.255.255.255", "240.0.0.1", "0.0.0.0"])
def test_arp_is_answered_to_every_unicast_sender(sender) -> None:
    answer = ARP.answer(b"\2" * 6, b"\2" * 6, b"\x0a\0\0\1")
    request = ARP.request(b"\4" * 6, BROADCAST, b"\4" * 6, ip_address(sender).packed, b"\x0a\0\0\1")
    assert answer.reply(asked(request)) is not None


def test_ndp_is_not_answered_to_a_sender_that_is_no_unicast_address() -> None:
    answer = ND.answer(b"\2" * 6, b"\2" * 6, TARGET)
    question = Solicitation(b"\4" * 6, ip_address("fd00::9").packed, solicited_node(TARGET), TARGET, b"\4" * 6)
    assert answer.reply(question) is not None
    for sender in ("ff02::1", "::1"):
        assert answer.reply(question._replace(sender=ip_address(sender).packed)) is None
    for mac in (BROADCAST, NO_MAC):
        assert answer.reply(question._replace(mac=mac)) is None


@given(unicast, unicast, ipv6_hosts, ipv6, st.booleans())
def test_a_solicitation_is_answered_with_a_checksum_that_holds(own, asker, src, target, direct) -> None:
    frame = ND.solicitation(asker, src, target, own if direct else b"")
    asked = parse_ndp(frame)
    assert isinstance(asked, Solicitation) and checksum_holds(frame)
    assert tuple(asked) == (asker, src, target if direct else solicited_node(target), target, asker)
    reply = ND.answer(own, b"\2\0\0\0\0\7", target).reply(asked)
    assert reply is not None and reply[:6] == asker and checksum_holds(reply)
    assert parse_ndp(reply) == (own, target, src, target, b"\2\0\0\0\0\7", True, True)
    # without the source link-layer option, the answer goes to the Ethernet source
    assert ND.answer(own, own, target).reply(asked._replace(mac=b"")) == ND.answer(own, own, target).reply(asked)


@given(unicast, unicast, ipv6)
def test_a_dad_probe_is_answered_to_all_nodes(own, asker, target) -> None:
    frame = ND.solicitation(asker, UNSPECIFIED, target)
    asked = parse_ndp(frame)
    assert isinstance(asked, Solicitation) and asked.mac == b"" and checksum_holds(frame)
    reply = ND.answer(own, own, target).reply(asked)
    assert reply is not None and reply[:6] == ALL_NODES_MAC and checksum_holds(reply)
    assert parse_ndp(reply) == (own, target, ALL_NODES, target, own, False, True)
    assert reply == ND.unsolicited(own, own, target)


@given(st.binary(max_size=600))
def test_no_bytes_make_the_parsers_raise(data) -> None:
    parse_arp(data)
    parse_ndp(data)


@given(st.sampled_from([ARP_FRAME, NA_FRAME]), st.data())
def test_a_changed_byte_gives_none_or_a_value_of_the_right_shape(frame, data) -> None:
    at = data.draw(st.integers(0, len(frame) - 1))
    changed = frame[:at] + bytes([data.draw(st.integers(0, 255))]) + frame[at + 1 :]
    arp, said = parse_arp(changed), parse_ndp(changed)
    if arp is not None:
        assert [len(part) for part in (arp.source, arp.mac, arp.sender, arp.target_mac, arp.target)] == [6, 6, 4, 6, 4]
    if said is not None:
        assert checksum_holds(changed) and len(said.target) == 16 and len(said.mac) in (0, 6)


@pytest.mark.parametrize("frame", [ARP_FRAME, NA_FRAME])
def test_truncated_tagged_and_empty_frames_are_nothing(frame) -> None:
    for size in range(len(frame)):
        assert parse_arp(frame[:size]) is None and parse_ndp(frame[:size]) is None
    tagged = frame[:12] + b"\x81\0\0\5" + frame[12:]
    assert parse_arp(tagged) is None and parse_ndp(tagged) is None


def test_padding_is_allowed() -> None:
    assert parse_arp(ARP_FRAME + bytes(18)) == parse_arp(ARP_FRAME)
    assert parse_ndp(NA_FRAME + bytes(100)) == parse_ndp(NA_FRAME)


@pytest.mark.parametrize(
    ("what", "changes"),
    [
        ("came through a router", [(21, b"\xfe")]),
        ("code is not 0", [(55, b"\1")]),
        ("target is multicast", [(62, b"\xff")]),
        ("solicited, but to a multicast address", [(58, b"\x60")]),
        ("an option of length 0", [(79, b"\0")]),
        ("an option longer than the message", [(79, b"\2")]),
        ("not ICMPv6", [(20, b"\x11")]),
        ("not IP version 6", [(14, b"\x40")]),
        ("another ICMPv6 type", [(54, b"\x86")]),
    ],
)
def test_what_rfc_4861_forbids_is_nothing(what, changes) -> None:
    assert isinstance(parse_ndp(remade(NA_FRAME)), Advertisement)
    assert parse_ndp(remade(NA_FRAME, *changes)) is None, what


def test_a_wrong_checksum_is_nothing() -> None:
    assert parse_ndp(NA_FRAME[:56] + bytes([NA_FRAME[56] ^ 1]) + NA_FRAME[57:]) is None


def test_templates_that_are_something_else_are_refused() -> None:
    with pytest.raises(ValueError, match="ARP"):
        ArpTemplate(NA_FRAME)
    with pytest.raises(ValueError, match="neighbour"):
        NdpTemplate(ARP_FRAME)


def test_f8_the_templates_are_what_scapy_builds() -> None:
    mac = "02:00:00:00:00:01"
    arp = Ether(src=mac, dst="ff:ff:ff:ff:ff:ff") / ScapyArp(
        op="who-has", hwsrc=mac, psrc="192.0.2.1", pdst="192.0.2.1"
    )
    advertisement = (
        Ether(src=mac, dst="33:33:00:00:00:01")
        / IPv6(src="2001:db8::1", dst="ff02::1", hlim=255)
        / ICMPv6ND_NA(tgt="2001:db8::1", R=0, S=0, O=1)
        / ICMPv6NDOptDstLLAddr(lladdr=mac)
    )
    assert arp_frame() == bytes(arp)
    assert advertisement_frame() == bytes(advertisement)


def test_f8_the_wire_process_does_not_import_scapy() -> None:
    """The import read every address of the host: with thousands on kube-ipvs0 the process did not start."""
    code = (
        "import sys, porterlb.wire.__main__, porterlb.wire.templates as t; t.Templates(); print('scapy' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == "False"


def solicitation(src: bytes, dst: bytes, target: bytes, option: bytes = b"") -> bytes:
    message = bytes((135, 0, 0, 0, 0, 0, 0, 0)) + target + option
    header = b"\x60\0\0\0" + len(message).to_bytes(2, "big") + bytes((58, 255)) + src + dst
    return remade(ndp.multicast_mac(dst) + bytes.fromhex("020000000009") + b"\x86\xdd" + header + message)


def test_an_advertisement_is_solicited_and_overrides() -> None:
    """RFC 4861, 4.4: without Override a cache keeps its MAC; an unsolicited advertisement is not Solicited."""
    target, asker = ip_address("2001:db8::1").packed, ip_address("2001:db8::9").packed
    question = ndp_question(solicitation(asker, solicited_node(target), target))
    assert question is not None
    answer = ND.answer(b"\2" * 6, b"\2" * 6, target)
    reply = answer.reply(question)
    assert reply is not None and (reply[54], reply[58]) == (136, 0x60)
    to_all = answer.reply(question._replace(sender=UNSPECIFIED))
    assert to_all is not None and (to_all[54], to_all[58]) == (136, 0x20)


def test_a_probe_for_a_duplicate_has_no_address_to_answer_to_and_goes_to_the_group_of_its_target() -> None:
    """RFC 4861 7.1.1."""
    target = bytes.fromhex("20010db8000000000000000000000001")
    group = solicited_node(target)
    assert isinstance(parse_ndp(solicitation(UNSPECIFIED, group, target)), Solicitation)
    option = bytes((1, 1)) + bytes.fromhex("020000000009")
    assert parse_ndp(solicitation(UNSPECIFIED, group, target, option)) is None
    assert parse_ndp(solicitation(UNSPECIFIED, ALL_NODES, target)) is None


@pytest.mark.parametrize(
    ("source", "src", "answered"),
    [
        ("020000000009", "20010db8000000000000000000000009", True),
        ("030000000009", "20010db8000000000000000000000009", False),
        ("020000000009", "ff020000000000000000000000000001", False),
    ],
)
def test_nothing_is_sent_to_a_group_in_the_name_of_a_host(source: str, src: str, answered: bool) -> None:
    target = bytes.fromhex("20010db8000000000000000000000001")
    asked = Solicitation(bytes.fromhex(source), bytes.fromhex(src), solicited_node(target), target, b"")
    own = bytes.fromhex("020000000001")
    answer = ND.answer(own, own, target)
    assert (answer.reply(asked) is not None) is answered


def test_only_questions_are_questions() -> None:
    asked = (
        Ether(src="02:00:00:00:00:01", dst="33:33:ff:00:00:64")
        / IPv6(src="fd00::1", dst="ff02::1:ff00:64", hlim=255)
        / ICMPv6ND_NS(tgt="fd00::64")
        / ICMPv6NDOptSrcLLAddr(lladdr="02:00:00:00:00:01")
    )
    question = ndp_question(bytes(asked))
    assert question is not None and question.target == ip_address("fd00::64").packed
    assert ndp_question(NA_FRAME) is None and arp_question(NA_FRAME) is None
    assert arp_question(ARP_FRAME) is not None and ndp_question(ARP_FRAME) is None
    reply = ARP_FRAME[:20] + ARP_REPLY.to_bytes(2, "big") + ARP_FRAME[22:]
    assert arp_question(reply) is None
