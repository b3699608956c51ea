"""The program that answers in the kernel, run by an interpreter and compared with the answers of user space."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address, ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lab.frames import arp_request, solicitation
from porterlb.core.ebpf import records
from porterlb.core.ebpf.records import REPORT_EVERY
from porterlb.core.layer2.ndp import icmpv6_checksum
from porterlb.core.layer2.questions import arp_question, ndp_question
from porterlb.wire.templates import Templates
from tests.core.ebpf_machine import TO_OTHERS, Kernel

OWN, HOP, CLIENT = bytes.fromhex("02000000aa01"), bytes.fromhex("02000000bb02"), "02:00:00:00:cc:03"
VIP4, VIP6 = ip_address("10.77.0.100").packed, ip_address("fd77::100").packed
OTHER4, OTHER6 = ip_address("10.77.0.101").packed, ip_address("fd77::101").packed
SECOND = 10**9
TEMPLATES = Templates()


def ready() -> Kernel:
    kernel = Kernel()
    for vip in (VIP4, OTHER4, VIP6, OTHER6):
        kernel.own(vip, HOP, OWN)
    kernel.lease(kernel.now + SECOND)
    return kernel


def asks4(sender: str = "10.77.0.200", target: bytes = VIP4) -> bytes:
    return arp_request(CLIENT, sender, IPv4Address(target))


def asks6(sender: str = "fd77::200", target: bytes = VIP6) -> bytes:
    return solicitation(CLIENT, sender, IPv6Address(target))


def by_user_space(frame: bytes) -> bytes | None:
    """The answer of user space, if it owns the target."""
    if frame[12:14] == b"\x08\x06":
        arp = arp_question(frame)
        return arp and TEMPLATES.arp.answer(OWN, HOP, arp.target).reply(arp)
    ndp = ndp_question(frame)
    return ndp and TEMPLATES.ndp.answer(OWN, HOP, ndp.target).reply(ndp)


QUESTIONS = pytest.mark.parametrize("frame", [asks4(), asks6(), asks4() + bytes(18)], ids=["arp", "ndp", "padded"])


@QUESTIONS
def test_the_answer_is_that_of_user_space(frame: bytes) -> None:
    kernel = ready()
    answer, expected = kernel.receive(frame), by_user_space(frame)
    assert answer is not None and expected is not None
    assert answer[: len(expected)] == expected and len(answer) == len(frame)
    assert kernel.answered == 1


@QUESTIONS
@pytest.mark.parametrize(
    ("lasts", "answers"),
    [(1, True), (0, True), (-1, False), (-(10**12), False)],
    ids=["before", "at", "after", "never"],
)
def test_the_lease_ends(frame: bytes, lasts: int, answers: bool) -> None:
    kernel = ready()
    kernel.lease(kernel.now + lasts)
    assert (kernel.receive(frame) is not None) == answers
    assert (kernel.answered, len(kernel.asked)) == ((1, 1) if answers else (0, 0))


@QUESTIONS
def test_what_is_not_for_us_is_passed_on(frame: bytes) -> None:
    kernel = ready()
    assert kernel.receive(frame, kind=TO_OTHERS) is None
    assert kernel.receive(frame, tagged=True) is None
    assert kernel.receive(frame, readable=41 if frame[12:14] == b"\x08\x06" else 85) is None
    kernel.entries.clear()
    assert kernel.receive(frame) is None


@QUESTIONS
def test_a_frame_that_cannot_be_changed_is_passed_on(frame: bytes) -> None:
    kernel = ready()
    kernel.writable = False
    assert kernel.receive(frame) is None and kernel.answered == 0


@QUESTIONS
def test_an_entry_that_was_removed_or_replaced_is_not_used(frame: bytes) -> None:
    kernel, mac = ready(), bytes.fromhex("02000000dd04")
    address = VIP4 if frame[12:14] == b"\x08\x06" else VIP6
    kernel.own(address, mac, OWN)
    answer = kernel.receive(frame)
    assert answer is not None and mac in answer and HOP not in answer
    del kernel.entries[records.key(address)]
    assert kernel.receive(frame) is None


@pytest.mark.parametrize("frame", [asks4("0.0.0.0"), asks4("10.77.0.101"), asks4("10.77.0.100")])
def test_probes_and_claims_reach_user_space(frame: bytes) -> None:
    kernel = ready()
    assert kernel.receive(frame) is None and not kernel.asked


@pytest.mark.parametrize("frame", [asks6("fd77::101"), asks6("fd77::100")])
def test_claims_of_ipv6_reach_user_space(frame: bytes) -> None:
    kernel = ready()
    assert kernel.receive(frame) is None and not kernel.asked


def changed(frame: bytes, offset: int, data: bytes, *, sums: bool = True) -> bytes:
    """The frame with other bytes, and with a correct ICMPv6 checksum."""
    frame = frame[:offset] + data + frame[offset + len(data) :]
    if sums and frame[12:14] == b"\x86\xdd":
        message = frame[54:56] + b"\0\0" + frame[58:86]
        frame = frame[:56] + icmpv6_checksum(frame[22:38], frame[38:54], message).to_bytes(2, "big") + frame[58:]
    return frame


UNUSUAL = {
    "arp: another hardware": changed(asks4(), 15, b"\6"),
    "arp: another protocol": changed(asks4(), 16, b"\x86"),
    "arp: other lengths": changed(asks4(), 18, b"\x08"),
    "arp: a reply": changed(asks4(), 21, b"\2"),
    "arp: a group as sender": changed(asks4(), 22, b"\x03"),
    "arp: no sender": changed(asks4(), 22, bytes(6)),
    "arp: multicast": asks4("224.0.0.1"),
    "arp: last multicast": asks4("239.255.255.255"),
    "arp: loopback": asks4("127.0.0.1"),
    "arp: broadcast": asks4("255.255.255.255"),
    "arp: too long": asks4() + bytes(23),
    "ndp: another version": changed(asks6(), 14, b"\x50"),
    "ndp: a shorter payload": changed(asks6(), 18, b"\0\x18"),
    "ndp: hop limit": changed(asks6(), 21, b"\xfe"),
    "ndp: another protocol": changed(asks6(), 20, b"\x11"),
    "ndp: an advertisement": changed(asks6(), 54, b"\x88"),
    "ndp: a code": changed(asks6(), 55, b"\1"),
    "ndp: another option": changed(asks6(), 78, b"\x02"),
    "ndp: a longer option": changed(asks6(), 79, b"\x02"),
    "ndp: a group as sender": changed(asks6(), 80, b"\x33"),
    "ndp: no sender": changed(asks6(), 80, bytes(6)),
    "ndp: multicast": asks6("ff02::1"),
    "ndp: loopback": asks6("::1"),
    "ndp: a probe": changed(asks6(), 22, bytes(16)),
    "ndp: checksum": changed(asks6(), 57, bytes([asks6()[57] ^ 1]), sums=False),
    "ndp: longer than its payload": asks6() + b"\0",
    "ip": changed(asks4(), 12, b"\x08\0"),
}


@pytest.mark.parametrize("name", UNUSUAL)
def test_only_plain_questions_are_answered(name: str) -> None:
    kernel = ready()
    assert kernel.receive(UNUSUAL[name]) is None and not kernel.asked and kernel.answered == 0


def test_a_multicast_target_is_never_answered() -> None:
    kernel, group = ready(), ip_address("ff02::5").packed
    kernel.own(group, HOP, OWN)
    assert kernel.receive(changed(asks6(), 62, group)) is None


@pytest.mark.parametrize(("sender", "kept"), [("126.0.0.1", 4), ("223.255.255.255", 4), ("240.0.0.1", 4), ("1::1", 6)])
def test_the_neighbours_of_unusual_senders_are_answered(sender: str, kept: int) -> None:
    assert ready().receive(asks4(sender) if kept == 4 else asks6(sender)) is not None


@pytest.mark.parametrize("head", [b"\x6c\0\0\0", b"\x6f\xff\xff\xff"], ids=["network control", "flow label"])
def test_the_traffic_class_of_the_question_does_not_matter(head: bytes) -> None:
    frame = changed(asks6(), 14, head)
    assert ready().receive(frame) == by_user_space(frame)


@QUESTIONS
def test_a_question_is_reported_once_in_a_while(frame: bytes) -> None:
    kernel = ready()
    begun = kernel.now
    kernel.lease(begun + 100 * SECOND)
    seen = []
    for after in (0.0, 1.0, REPORT_EVERY - 0.001, REPORT_EVERY, REPORT_EVERY + 1, 2 * REPORT_EVERY):
        kernel.now = begun + int(after * SECOND)
        assert kernel.receive(frame) is not None
        seen.append(len(kernel.asked))
    assert seen == [1, 1, 1, 2, 2, 3]
    question, said = records.reported(kernel.asked[0]), arp_question(frame) or ndp_question(frame)
    assert said is not None and type(question) is type(said)
    assert (question.target, question.sender, question.mac) == (said.target, said.sender, said.mac)


@QUESTIONS
def test_a_question_that_finds_no_room_is_answered_and_reported_later(frame: bytes) -> None:
    kernel = ready()
    kernel.room = 0
    assert kernel.receive(frame) is not None
    kernel.room = 1
    assert kernel.receive(frame) is not None and len(kernel.asked) == 1


macs = st.binary(min_size=6, max_size=6)


@given(st.ip_addresses(v=4), macs, st.binary(max_size=4), st.integers(14, 41))
def test_what_the_kernel_answers_user_space_answers_equally_arp(
    sender: IPv4Address, mac: bytes, noise: bytes, at: int
) -> None:
    frame = arp_request(mac.hex(":"), str(sender), IPv4Address(VIP4))
    for candidate in (frame, (frame[:at] + noise + frame[at + len(noise) :])[: len(frame)]):
        answer = ready().receive(candidate)
        assert answer is None or answer == by_user_space(candidate)


@given(st.ip_addresses(v=6), macs, st.binary(max_size=8), st.integers(14, 85))
def test_what_the_kernel_answers_user_space_answers_equally_ndp(
    sender: IPv6Address, mac: bytes, noise: bytes, at: int
) -> None:
    frame = solicitation(mac.hex(":"), str(sender), IPv6Address(VIP6))
    for candidate in (frame, changed((frame[:at] + noise + frame[at + len(noise) :])[: len(frame)], 0, b"")):
        answer = ready().receive(candidate)
        assert answer is None or answer == by_user_space(candidate)


def test_the_checksum_zero_is_sent_as_its_other_form() -> None:
    """Of 65,536 senders that differ in 16 bits, one gives the checksum 0, which user space sends as 0xffff."""
    kernel = ready()
    answer = kernel.receive(asks6())
    assert answer is not None
    have = int.from_bytes(answer[56:58], "big")
    sender = bytearray(ip_address("fd77::200").packed)
    word = int.from_bytes(sender[8:10], "big")
    sender[8:10] = ((word + have) % 0xFFFF).to_bytes(2, "big")
    frame = asks6(str(ip_address(bytes(sender))))
    answer = kernel.receive(frame)
    assert answer is not None and answer[56:58] == b"\xff\xff" and answer == by_user_space(frame)
