"""The kernel filters of the wire process, run by a classic BPF interpreter: which frames wake the process."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address, ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lab.frames import arp_request, solicitation
from porterlb.core.layer2.arp import ARP_REPLY, ARP_REQUEST
from porterlb.wire import packet

OWN = ("10.77.0.11", "10.77.0.12", "192.0.2.1")
OWN6 = ("fd77::11", "fe80::1")
TO_US, BROADCASTED, MULTICAST, TO_OTHERS = range(4)
ARP, NDP = packet.arp_program(ARP_REQUEST), packet.ndp_program(135)


def passes(program: packet.Program, frame: bytes, kind: int) -> bool:
    """The kernel's decision about a frame of this packet type."""
    value, at = 0, 0
    while True:
        code, true, false, k = program[at]
        at += 1
        size = {0x20: 4, 0x28: 2, 0x30: 1}.get(code)
        if size is not None and k == 0xFFFFF004:
            value = kind
        elif size is not None:
            if k + size > len(frame):
                return False
            value = int.from_bytes(frame[k : k + size], "big")
        elif code == 0x80:
            value = len(frame)
        elif code == 0x05:
            at += k
        elif code in (0x15, 0x25):
            at += true if (value == k if code == 0x15 else value > k) else false
        else:
            assert code == 0x06
            return k > 0


def question(target: str, operation: int = ARP_REQUEST) -> bytes:
    frame = arp_request("02:00:00:00:00:02", "10.77.0.99", IPv4Address(target))
    return frame[:20] + operation.to_bytes(2, "big") + frame[22:]


def packed(text: str) -> bytes:
    return ip_address(text).packed


@pytest.mark.parametrize("count", [0, 1, 2, 3])
@pytest.mark.parametrize("kind", [TO_US, BROADCASTED, MULTICAST, TO_OTHERS])
@given(st.sampled_from([*OWN, "10.77.0.100", "10.77.0.111", "0.0.0.0"]))
def test_arp_questions_for_this_node_alone_are_left_to_the_kernel(count: int, kind: int, target: str) -> None:
    own = [packed(text) for text in OWN[:count]]
    left = packed(target) in own and kind == TO_US
    answered, counted = packet.without(ARP, 38, own), packet.only(ARP, 38, own)
    frame = question(target)
    assert passes(ARP, frame, kind) is (kind != TO_OTHERS)
    assert passes(answered, frame, kind) is (kind != TO_OTHERS and not left)
    assert passes(counted, frame, kind) is left
    reply = question(target, ARP_REPLY)
    assert not passes(answered, reply, kind) and not passes(counted, reply, kind)
    assert not passes(answered, frame[:40], kind) and not passes(counted, frame[:40], kind)


@pytest.mark.parametrize("count", [0, 1, 2])
@pytest.mark.parametrize("kind", [TO_US, MULTICAST, TO_OTHERS])
@pytest.mark.parametrize("target", [*OWN6, "fd77::100", "fd77::", "fd78::11", "fd77:0:1::11"])
def test_solicitations_for_this_node_alone_are_left_to_the_kernel(count: int, kind: int, target: str) -> None:
    own = [packed(text) for text in OWN6[:count]]
    left = packed(target) in own and kind == TO_US
    frame = solicitation("02:00:00:00:00:02", "fd77::99", IPv6Address(target))
    assert passes(NDP, frame, kind) is (kind != TO_OTHERS)
    assert passes(packet.without(NDP, 62, own), frame, kind) is (kind != TO_OTHERS and not left)
    assert passes(packet.only(NDP, 62, own), frame, kind) is left


def test_the_filter_for_the_most_addresses_is_short_enough() -> None:
    most = [n.to_bytes(16, "big") for n in range(64)]
    assert len(packet.without(NDP, 62, most)) < 4096
    assert all(0 <= jump < 256 for _, true, false, _ in packet.only(NDP, 62, most) for jump in (true, false))
