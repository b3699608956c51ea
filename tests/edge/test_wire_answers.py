"""The answers that clients get: real kernels resolve VIPs, v4 and v6; frames that are no question have no effect."""

from __future__ import annotations

import random
import socket
import time
from collections.abc import Iterator
from dataclasses import replace
from ipaddress import IPv4Address, IPv6Address, ip_address
from pathlib import Path

import pytest

from lab.frames import arp_request, mac_bytes, solicitation, who_has
from porterlb.core.layer2.ndp import icmpv6_checksum
from tests.edge.wire_lab import PATIENCE, Replica, Segment, neighbour, resolve, vips

pytestmark = pytest.mark.lab

V4, V6, BEHALF4, BEHALF6 = "10.77.0.100", "fd77::100", "10.77.0.101", "fd77::101"


@pytest.fixture(scope="module", params=["userspace", "kernel"])
def segment(request: pytest.FixtureRequest) -> Iterator[Segment]:
    """Three nodes; n3 has no replica, and the leader n1 answers for it. A snooping switch: groups must be joined."""
    made = Segment(snooping=True)
    try:
        made.tell(
            vips=vips((V4, ("n2", "n1")), (V6, ("n2", "n1")), (BEHALF4, ("n3", "n2")), (BEHALF6, ("n3", "n2"))),
            members={name: member for name, member in made.members().items() if name != "n3"},
        )
        made.start(["n1", "n2"], answers=request.param)
        made.settled()
        expected = {"eth0": ""} if request.param == "kernel" else {}
        for replica in made.replicas.values():
            replica.until(lambda r: r.report.in_kernel == expected, "the kernel answers, or is not asked")
        yield made
    finally:
        made.close()


def shows(text: str) -> bytes:
    return ip_address(text).packed


@pytest.mark.parametrize("vip", [V4, V6])
def test_a_kernel_resolves_a_vip_to_the_node_that_serves_it(segment: Segment, vip: str) -> None:
    assert resolve(segment.client, vip) == (segment.host("n2").mac, "REACHABLE")


@pytest.mark.parametrize("vip", [BEHALF4, BEHALF6])
def test_a_node_without_a_replica_is_answered_for(segment: Segment, vip: str) -> None:
    assert resolve(segment.client, vip) == (segment.host("n3").mac, "REACHABLE")


@pytest.mark.parametrize("vip", [V4, V6, BEHALF4, BEHALF6])
def test_there_is_one_answer_from_the_answerers_own_mac(segment: Segment, vip: str) -> None:
    answers = who_has(segment.client, vip)
    source = segment.host("n2" if vip in (V4, V6) else "n1").mac
    target = segment.host("n2" if vip in (V4, V6) else "n3").mac
    assert [(answer.mac, answer.source) for answer in answers] == [(target, source)]


@pytest.mark.parametrize("vip", [V4, V6])
def test_a_unicast_recheck_is_answered(segment: Segment, vip: str) -> None:
    client, node = segment.client, segment.host("n2")
    assert resolve(client, vip)[1] == "REACHABLE"
    client.run(["ip", "neigh", "change", vip, "dev", "eth0", "lladdr", node.mac, "nud", "probe"])
    deadline = time.monotonic() + PATIENCE
    while neighbour(client, vip)[1] != "REACHABLE":
        assert neighbour(client, vip)[1] != "FAILED" and time.monotonic() < deadline
        time.sleep(0.05)
    assert neighbour(client, vip) == (node.mac, "REACHABLE")


def raw(segment: Segment, ethertype: int) -> socket.socket:
    host = segment.client
    opened = host.ns.call(lambda: socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ethertype)))
    host.ns.call(lambda: opened.bind(("eth0", ethertype)))
    opened.settimeout(2.0)
    return opened


def answer_to(opened: socket.socket, question: bytes, kind: bytes, at: int) -> bytes:
    """The first frame after ``question`` with ``kind`` at an offset that does not come from the asker."""
    opened.send(question)
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        frame, info = opened.recvfrom(2048)
        if info[2] != socket.PACKET_OUTGOING and frame[at : at + len(kind)] == kind:
            return frame
    raise AssertionError("no answer")


def test_an_arp_probe_is_answered_so_that_the_prober_keeps_off(segment: Segment) -> None:
    client = segment.client
    with raw(segment, 0x0806) as opened:
        question = arp_request(client.mac, "0.0.0.0", IPv4Address(V4))
        frame = answer_to(opened, question, b"\0\2", 20)
    assert frame[:6] == mac_bytes(client.mac)
    assert frame[22:32] == mac_bytes(segment.host("n2").mac) + shows(V4)


def test_duplicate_address_detection_of_a_kernel_finds_a_vip_taken(segment: Segment) -> None:
    client = segment.client
    client.ns.sysctl({"net/ipv6/conf/eth0/accept_dad": 1, "net/ipv6/conf/eth0/dad_transmits": 1})
    try:
        client.ns.ip(f"address add {V6}/128 dev eth0")
        deadline = time.monotonic() + PATIENCE
        while "dadfailed" not in client.run(["ip", "-6", "address", "show", "dev", "eth0"]).stdout:
            assert time.monotonic() < deadline, "the kernel took an address that is in use"
            time.sleep(0.05)
    finally:
        client.ns.ip(f"address del {V6}/128 dev eth0")
        client.ns.sysctl({"net/ipv6/conf/eth0/accept_dad": 0, "net/ipv6/conf/eth0/dad_transmits": 0})


def test_a_solicitation_without_a_source_option_is_answered_to_the_ethernet_source(segment: Segment) -> None:
    client = segment.client
    with_option = solicitation(client.mac, client.v6, IPv6Address(V6))
    message = with_option[54:56] + b"\0\0" + with_option[58:78]
    checksum = icmpv6_checksum(with_option[22:38], with_option[38:54], message).to_bytes(2, "big")
    question = with_option[:18] + b"\0\x18" + with_option[20:54] + message[:2] + checksum + message[4:]
    with raw(segment, 0x86DD) as opened:
        frame = answer_to(opened, question, b"\x88\0", 54)
    assert frame[:6] == mac_bytes(client.mac) and frame[80:86] == mac_bytes(segment.host("n2").mac)


def test_frames_that_are_no_question_change_nothing(segment: Segment) -> None:
    """VLAN-tagged, truncated, oversized and random frames; afterwards the state is the same, no process has died."""
    client, chance = segment.client, random.Random(7)
    arp = arp_request(client.mac, client.v4, IPv4Address(V4))
    nd = solicitation(client.mac, client.v6, IPv6Address(V6))
    frames = []
    for good in (arp, nd):
        for tag in (b"\x81\x00\x00\x05", b"\x88\xa8\x00\x05\x81\x00\x00\x06"):
            frames.append(good[:12] + tag + good[12:])
        frames += [good[:size] for size in range(14, len(good))]
        for _ in range(300):
            at = chance.randrange(14, len(good))
            frames.append(good[:at] + chance.randbytes(chance.randrange(1, 8)) + good[at + 1 :] + chance.randbytes(900))
        frames += [good[:14] + chance.randbytes(chance.randrange(0, 1400)) for _ in range(300)]
    pids = {name: replica.wire_pid for name, replica in segment.replicas.items()}
    with raw(segment, 0x0806) as opened:
        for frame in frames:
            opened.send(frame)
    # a tagged question must get no untagged answer
    with raw(segment, 0x0806) as opened:
        opened.settimeout(0.3)
        opened.send(arp[:12] + b"\x81\x00\x00\x05" + arp[12:])
        with pytest.raises(TimeoutError):
            while True:
                frame, info = opened.recvfrom(2048)
                if info[2] != socket.PACKET_OUTGOING:
                    assert frame[20:22] != b"\0\2" or frame[28:32] != shows(V4)
    for vip, node in ((V4, "n2"), (V6, "n2"), (BEHALF4, "n3")):
        assert [answer.mac for answer in who_has(client, vip)] == [segment.host(node).mac]
    for name, replica in segment.replicas.items():
        assert replica.wire_pid == pids[name] and replica.report.restarts == 0 and not replica.report.dead


def test_an_address_that_is_no_vip_is_not_answered(segment: Segment) -> None:
    assert who_has(segment.client, "10.77.0.150") == []
    assert who_has(segment.client, "fd77::150") == []


def test_a_vip_that_is_not_wanted_any_more_is_not_answered(segment: Segment) -> None:
    extra = "10.77.0.102"
    before = dict(segment.wanted.vips)
    try:
        for rows, answerer in ((vips((extra, ("n1",))), "n1"), (vips((extra, ("n2",))), "n2"), ({}, "")):
            wanted = segment.tell(vips=before | rows)
            for replica in segment.replicas.values():
                replica.until(lambda r, d=wanted.digest: r.report.applied == d, "applied")
                if answerer:  # the former one answers until it hears that the next one has the plan
                    replica.until(lambda r, a=answerer: r.answering[extra].answerer == a, f"{answerer} answers")
            expected = [segment.host(answerer).mac] if answerer else []
            assert [answer.mac for answer in who_has(segment.client, extra)] == expected
    finally:
        segment.tell(vips=before)


def test_the_process_that_answers_needs_no_more_than_net_raw(segment: Segment) -> None:
    host, extra = segment.host("n3"), "10.77.0.103"
    replica = Replica(host, prefix=("setpriv", "--bounding-set", "-all,+net_raw", "--inh-caps", "-all"))
    try:
        replica.want(replace(segment.wanted, members=segment.members(), vips=vips((extra, ("n3",))), leader="n3"))
        replica.until(lambda r: extra in r.answering and r.answering[extra].answerer == "n3", "it answers")
        status = Path(f"/proc/{replica.wire_pid}/status").read_text()
        assert "CapEff:\t0000000000002000" in status  # CAP_NET_RAW, bit 13
        assert replica.report.trouble == ""
        assert [answer.mac for answer in who_has(segment.client, extra)] == [host.mac]
    finally:
        replica.close()
