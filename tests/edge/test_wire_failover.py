"""The effects of failed nodes, links, processes and managers. The time limits are generous; bench/ measures."""

from __future__ import annotations

import os
import signal
import socket
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from ipaddress import ip_address

import pytest

from lab.frames import mac_bytes, who_has
from lab.host import Host
from porterlb.core.hello import Hello, encode
from porterlb.core.layer2.ndp import icmpv6_checksum
from tests.edge.wire_lab import PATIENCE, Replica, Segment, neighbour, resolve, vips

pytestmark = pytest.mark.lab

V4, V6 = "10.77.0.100", "fd77::100"
ON_N3 = "10.77.0.101"


@pytest.fixture(scope="module")
def shared() -> Iterator[Segment]:
    made = Segment()
    try:
        yield made
    finally:
        made.close()


@pytest.fixture
def segment(shared: Segment) -> Segment:
    """Three nodes with a replica each, settled: processes that the previous test ended are started again."""
    shared.restore(vips((V4, ("n2", "n1", "n3")), (V6, ("n2", "n3", "n1")), (ON_N3, ("n3", "n1", "n2"))))
    return shared


def wait_for(true: Callable[[], object], what: str, patience: float = PATIENCE) -> None:
    deadline = time.monotonic() + patience
    while not true():
        assert time.monotonic() < deadline, what
        time.sleep(0.005)


def macs(segment: Segment, vip: str) -> set[str]:
    return {answer.mac for answer in who_has(segment.client, vip)}


def sources(host: Host, vip: str) -> list[tuple[str, str]]:
    """The MAC in each answer, and the MAC of its sender."""
    return [(answer.mac, answer.source) for answer in who_has(host, vip)]


def ever_dead(replica: Replica) -> set[str]:
    return {node for _, report in replica.history for node in report.dead}


def test_a_warm_cache_follows_when_a_node_goes_and_when_it_returns(segment: Segment) -> None:
    client, n1, n2, n3 = segment.client, *segment.nodes
    assert resolve(client, V4)[0] == resolve(client, V6)[0] == n2.mac
    assert resolve(client, ON_N3)[0] == n3.mac
    cut = time.monotonic()
    segment.net.carrier("n2", False)
    wait_for(lambda: neighbour(client, V4)[0] == n1.mac, "the v4 entry is that of the next candidate", 2.0)
    wait_for(lambda: neighbour(client, V6)[0] == n3.mac, "the v6 entry is that of the next candidate", 2.0)
    for name in ("n1", "n3"):
        segment.replicas[name].until(lambda r: r.report.dead == {"n2"} and "n2" not in r.report.fresh, "n2 is dead")
        first = next(at for at, report in segment.replicas[name].history if "n2" in report.dead)
        assert 0.08 < first - cut < 1.5  # 3 probes at 50 ms; not a verdict without evidence
    assert macs(segment, V4) == {n1.mac} and macs(segment, V6) == {n3.mac}
    assert neighbour(client, ON_N3)[0] == n3.mac
    segment.net.carrier("n2", True)
    wait_for(lambda: neighbour(client, V4)[0] == n2.mac, "the first candidate is back")
    for name in ("n1", "n3"):
        segment.replicas[name].until(lambda r: not r.report.dead and "n2" in r.report.fresh, "n2 is alive")
    assert ever_dead(segment.replicas["n1"]) == ever_dead(segment.replicas["n3"]) == {"n2"}


def test_our_own_stall_declares_nobody_dead_and_the_others_answer_meanwhile(segment: Segment) -> None:
    n2 = segment.replicas["n2"]
    pid = n2.wire_pid
    os.kill(pid, signal.SIGSTOP)
    try:
        for name in ("n1", "n3"):
            segment.replicas[name].until(lambda r: "n2" not in r.report.fresh, "the hello of n2 has stopped")
        answers = who_has(segment.client, V4)
        assert [(a.mac, a.source) for a in answers] == [(segment.host("n2").mac, segment.host("n1").mac)]
        time.sleep(2.0)
    finally:
        os.kill(pid, signal.SIGCONT)
    for name in ("n1", "n3"):
        segment.replicas[name].until(lambda r: "n2" in r.report.fresh, "n2 is back")
    time.sleep(0.5)
    for replica in segment.replicas.values():
        assert ever_dead(replica) == set()
        assert not replica.report.doubt
    n2.until(lambda r: set(r.report.fresh) == {"n1", "n3"}, "n2 has heard the others")
    assert [a.source for a in who_has(segment.client, V4)] == [segment.host("n2").mac]


@pytest.mark.parametrize("vip", [V4, V6])
def test_a_question_that_meets_a_stopped_answerer_is_answered_by_the_next_one(segment: Segment, vip: str) -> None:
    """The client's kernel would repeat it only after 1 s: RETRANS_TIMER of RFC 4861; Linux does the same for ARP."""
    client, n2 = segment.client, segment.replicas["n2"]
    pid = n2.wire_pid
    client.run(["ip", "neigh", "flush", "dev", "eth0"])
    os.kill(pid, signal.SIGSTOP)
    try:
        with client.socket(socket.AF_INET6 if ":" in vip else socket.AF_INET, socket.SOCK_DGRAM) as opened:
            begun = time.monotonic()
            opened.sendto(b"who are you?", (vip, 9))
        wait_for(lambda: neighbour(client, vip) == (segment.host("n2").mac, "REACHABLE"), "the client knows n2", 3.0)
        took = time.monotonic() - begun
    finally:
        os.kill(pid, signal.SIGCONT)
    n2.until(lambda r: set(r.report.fresh) == {"n1", "n3"}, "n2 has heard the others")
    segment.replicas["n1"].until(lambda r: r.answering[vip].answerer == "n2", "n2 answers again")
    assert took < 0.9, took


def test_who_is_cut_off_doubts_itself_and_changes_nothing(segment: Segment) -> None:
    n1 = segment.replicas["n1"]
    n1.until(lambda r: len(r.answering) == 3, "everything is decided")
    before = dict(n1.answering)
    segment.net.partition(["n1"])
    n1.until(lambda r: r.report.doubt, "n1 doubts itself")
    time.sleep(1.0)
    assert ever_dead(n1) == set() and n1.answering == before
    segment.replicas["n2"].until(lambda r: r.report.dead == {"n1"}, "the others go on")
    segment.net.heal()
    n1.until(lambda r: not r.report.doubt and set(r.report.fresh) == {"n2", "n3"}, "n1 is back")
    segment.replicas["n2"].until(lambda r: not r.report.dead, "n1 is alive")
    n1.until(lambda r: not r.report.dead, "n1 has heard that it is alive")
    assert ever_dead(n1) <= {"n1"}  # the others declared it dead, as their hellos say; it declares no other node dead


def test_a_partition_that_heals_leaves_one_owner_and_right_caches(segment: Segment) -> None:
    """n2 with the router on one side, the rest with the client on the other: both sides serve; afterwards only one."""
    client, router, n1, n2, n3 = segment.client, segment.router, *segment.nodes
    assert resolve(client, V4)[0] == resolve(router, V4)[0] == n2.mac
    assert resolve(client, ON_N3)[0] == resolve(router, ON_N3)[0] == n3.mac
    segment.net.partition(["n2", "router"], ["n1", "n3", "client"])
    wait_for(lambda: neighbour(client, V4)[0] == n1.mac, "the client's side has another next hop")
    wait_for(lambda: neighbour(router, ON_N3)[0] == n2.mac, "the router's side serves too")
    segment.net.heal()
    for host, vip, node in ((client, V4, n2), (router, V4, n2), (client, ON_N3, n3), (router, ON_N3, n3)):
        wait_for(lambda h=host, v=vip, n=node: neighbour(h, v)[0] == n.mac, f"{host.name} knows {vip} at {node.name}")
    for vip, node in ((V4, n2), (ON_N3, n3)):
        wait_for(lambda v=vip, n=node: sources(client, v) == [(n.mac, n.mac)], f"{node.name} alone answers for {vip}")


def test_a_stopped_manager_hands_over_without_a_gap(segment: Segment) -> None:
    """While n2 stops, its VIP is requested all the time: n2 answers until another replica does, with the same MAC."""
    n2 = segment.replicas["n2"]
    assert [answer.source for answer in who_has(segment.client, V4)] == [segment.host("n2").mac]
    n2.stop()
    sources, longest, last = [], 0.0, time.monotonic()
    end = last + 1.0
    while time.monotonic() < end:
        answers = who_has(segment.client, V4, timeout=0.02)
        sources += [answer.source for answer in answers]
        assert {answer.mac for answer in answers} <= {segment.host("n2").mac}
        if answers:
            longest, last = max(longest, time.monotonic() - last), time.monotonic()
    assert longest < 0.18  # a question takes 20 ms; without the goodbye it would be hello_fresh, 200 ms, or more
    assert sources[-1] == segment.host("n1").mac
    assert n2.process.wait(5) == 0
    for name in ("n1", "n3"):
        assert ever_dead(segment.replicas[name]) == set()


def test_a_killed_manager_takes_its_wire_process_along_and_the_others_are_told(segment: Segment) -> None:
    n2 = segment.replicas["n2"]
    pid = n2.wire_pid
    n2.process.kill()
    segment.replicas["n1"].until(lambda r: "n2" not in r.report.fresh, "n2 has said goodbye")
    wait_for(lambda: not os.path.exists(f"/proc/{pid}"), "the wire process has ended")  # noqa: PTH110
    segment.replicas["n1"].until(lambda r: r.answering[V4].answerer == "n1", "the leader answers")
    assert [(a.mac, a.source) for a in who_has(segment.client, V4)] == [
        (segment.host("n2").mac, segment.host("n1").mac)
    ]


def test_a_killed_wire_process_is_started_again_and_told_everything(segment: Segment) -> None:
    n2 = segment.replicas["n2"]
    os.kill(n2.wire_pid, signal.SIGKILL)
    n2.until(lambda r: r.report.restarts == 1 and r.report.trouble != "", "it is reported")
    n2.until(lambda r: r.report.trouble == "" and r.report.applied == segment.wanted.digest, "it is back")
    segment.replicas["n1"].until(lambda r: r.answering[V4].answerer == "n2", "n2 answers again")
    assert [(a.mac, a.source) for a in who_has(segment.client, V4)] == [
        (segment.host("n2").mac, segment.host("n2").mac)
    ]
    assert ever_dead(segment.replicas["n1"]) == set()


def test_a_manager_that_hangs_is_replaced_until_it_is_back() -> None:
    made = Segment(nodes=2)
    try:
        made.tell(vips=vips((V4, ("n2", "n1"))))
        made.start(silence_after=1.5)
        made.settled()
        n1, n2 = made.replicas["n1"], made.replicas["n2"]
        n2.process.stop()
        try:
            n1.until(lambda r: "n2" not in r.report.fresh and r.answering[V4].answerer == "n1", "n2 is silent")
            time.sleep(0.3)
            assert [a.source for a in who_has(made.client, V4)] == [made.host("n1").mac]
        finally:
            n2.process.cont()
        n1.until(lambda r: "n2" in r.report.fresh and r.answering[V4].answerer == "n2", "n2 is back")
        assert [a.source for a in who_has(made.client, V4)] == [made.host("n2").mac]
    finally:
        made.close()


def test_an_interface_that_changes_its_mac_goes_and_returns(segment: Segment) -> None:
    n2, client = segment.host("n2"), segment.client
    restarts = segment.replicas["n2"].report.restarts
    assert resolve(client, V4)[0] == n2.mac
    new = "02:77:00:00:01:99"
    n2.ns.ip(f"link set eth0 address {new}")
    wait_for(lambda: neighbour(client, V4)[0] == new, "the client knows the new MAC")
    wait_for(lambda: macs(segment, V4) == {new}, "the new MAC is answered")
    n2.ns.ip("link set eth0 down")
    wait_for(lambda: macs(segment, V4) == {segment.host("n1").mac}, "another node serves")
    n2.ns.ip("link set eth0 up")
    wait_for(lambda: macs(segment, V4) == {new}, "it serves again")
    assert segment.replicas["n2"].report.restarts == restarts


# ---- foreign hosts


def test_addresses_are_probed_before_their_first_use(segment: Segment) -> None:
    free4, free6, off = ip_address("10.77.0.180"), ip_address("fd77::180"), ip_address("192.0.2.9")
    taken4, taken6, own = (
        ip_address(segment.client.v4),
        ip_address(segment.client.v6),
        ip_address(segment.host("n1").v4),
    )
    node = ip_address(segment.host("n3").v4)
    begun = time.monotonic()
    segment.tell(check=frozenset({free4, free6, off, taken4, taken6, own, node}))
    n1 = segment.replicas["n1"]
    n1.until(lambda r: len(r.report.clear) + len(r.report.claimed) == 7, "every address has a verdict")
    assert time.monotonic() - begun < 3.0
    assert n1.report.clear == {free4, free6, off}
    client = mac_bytes(segment.client.mac)
    assert n1.report.claimed == {
        taken4: client,
        taken6: client,
        own: mac_bytes(segment.host("n1").mac),
        node: mac_bytes(segment.host("n3").mac),
    }
    segment.tell(check=frozenset())
    n1.until(lambda r: not r.report.clear and not r.report.claimed, "verdicts go with the question")


def test_a_rival_is_reported_and_defended_against(segment: Segment) -> None:
    client = segment.client
    frame = (
        b"\xff" * 6
        + mac_bytes(client.mac)
        + bytes.fromhex("08060001080006040001")
        + mac_bytes(client.mac)
        + ip_address(V4).packed
        + bytes(6)
        + ip_address(V4).packed
    )
    na = bytes.fromhex("8800000020000000") + ip_address(V6).packed + b"\2\1" + mac_bytes(client.mac)
    all_nodes = ip_address("ff02::1").packed
    checksum = icmpv6_checksum(ip_address(V6).packed, all_nodes, na).to_bytes(2, "big")
    claim6 = (
        bytes.fromhex("333300000001")
        + mac_bytes(client.mac)
        + bytes.fromhex("86dd6000000000203aff")
        + ip_address(V6).packed
        + all_nodes
        + na[:2]
        + checksum
        + na[4:]
    )
    resolve(segment.router, V4)
    before = {name: replica.report.counters.get("defences", 0) for name, replica in segment.replicas.items()}
    opened = client.ns.call(lambda: socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0))
    client.ns.call(lambda: opened.bind(("eth0", 0)))
    with opened:
        opened.send(frame)
        opened.send(claim6)
    for replica in segment.replicas.values():
        replica.until(lambda r: set(r.report.conflicts) == {ip_address(V4), ip_address(V6)}, "the rival is reported")
        assert {rival.mac for rival in replica.report.conflicts.values()} == {mac_bytes(client.mac)}
    wait_for(lambda: neighbour(segment.router, V4)[0] == segment.host("n2").mac, "the router's entry is right again")
    n1, n2 = segment.replicas["n1"], segment.replicas["n2"]
    n2.until(lambda r: r.report.counters.get("defences", 0) - before["n2"] == 2, "both are defended, once")
    # Only the answerer defends. On a busy machine, n1 answers while it has no fresh hello of n2.
    here = {ip_address(V4), ip_address(V6)}
    answered = any(
        report.answering[vip].answerer == "n1" for _, report in n1.history for vip in here & report.answering.keys()
    )
    assert answered or n1.report.counters.get("defences", 0) == before["n1"]


def test_failovers_make_no_rivals(segment: Segment) -> None:
    segment.net.carrier("n2", False)
    segment.replicas["n1"].until(lambda r: "n2" in r.report.dead, "n2 is dead")
    segment.net.carrier("n2", True)
    segment.replicas["n1"].until(lambda r: not r.report.dead, "n2 is alive")
    time.sleep(1.0)
    ours = {mac_bytes(host.mac) for host in segment.nodes}
    for replica in segment.replicas.values():
        assert not any(rival.mac in ours for _, report in replica.history for rival in report.conflicts.values())


def test_hellos_without_the_key_and_replayed_ones_are_refused(segment: Segment) -> None:
    n1, n3 = segment.replicas["n1"], segment.replicas["n3"]
    host = segment.host("n1")
    sniffer = host.ns.call(lambda: socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(0x0800)))
    recorded = b""
    with sniffer:
        sniffer.settimeout(2.0)
        while not recorded:
            packet = sniffer.recv(4096)
            if packet[9] == socket.IPPROTO_UDP and packet[12:16] == ip_address(segment.host("n3").v4).packed:
                recorded = packet[28:]
    n3.process.close()  # n3 sends its goodbye and ends
    n1.until(lambda r: "n3" not in r.report.fresh, "n3 is gone")
    gone = time.monotonic()
    before = n1.report.counters
    boot = segment.wanted.members["n3"].boot
    forged = encode(Hello("n3", boot, time.monotonic_ns() + 10**12, answers=True), b"not the key of this cluster")
    sender = segment.client.ns.call(lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
    with sender:
        for _ in range(20):
            for datagram in (recorded, forged, b"nonsense", bytes(20000)):
                sender.sendto(datagram, (host.v4, 7473))
            time.sleep(0.02)

    def rose(name: str) -> bool:
        return n1.report.counters.get(name, 0) > before.get(name, 0)

    n1.until(lambda _: rose("hellos_replay") and rose("hellos_wrong_key") and rose("hellos_malformed"), "all refused")
    assert all("n3" not in report.fresh for at, report in n1.history if at > gone)
    assert rose("hellos_oversize")


def test_a_replica_with_another_key_is_nobody(segment: Segment) -> None:
    stranger = segment.replicas["n3"]
    stranger.process.close()
    segment.replicas["n1"].until(lambda r: "n3" not in r.report.fresh, "n3 is gone")
    made = segment.replicas["n3"] = Replica(segment.host("n3"), b"the key of another cluster entirely")
    made.ended = True
    made.want(replace(segment.wanted, digest=99))
    made.until(lambda r: r.report.applied == 99, "it runs")
    time.sleep(0.5)
    assert "n3" not in segment.replicas["n1"].report.fresh and not made.report.fresh


def test_ten_thousand_vips(segment: Segment) -> None:
    first = int(ip_address("10.99.0.0"))
    many = {ip_address(first + i): ("n2", "n1", "n3") for i in range(10_000)}
    rows = vips(*((str(address), candidates) for address, candidates in many.items()), interface="eth0")
    begun = time.monotonic()
    wanted = segment.tell(vips=dict(segment.wanted.vips) | rows)
    for replica in segment.replicas.values():
        replica.until(lambda r: r.report.applied == wanted.digest, "all are taken over", 30.0)
    assert time.monotonic() - begun < 30.0
    for address in ("10.99.0.0", "10.99.20.5", "10.99.39.15", V4):
        assert macs(segment, address) == {segment.host("n2").mac}
    assert all(ever_dead(replica) == set() for replica in segment.replicas.values())
