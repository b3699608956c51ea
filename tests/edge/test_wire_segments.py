"""Liveness per segment, with real kernels: a second NIC, filtered ARP, random loss, one-way links."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace
from ipaddress import ip_address

import pytest

from lab.frames import who_has
from lab.measure import wait_until
from porterlb.core.desired import Layer2Scope
from porterlb.core.observed import Answering, Notice, NoticeKind
from porterlb.core.rendezvous import ranked
from tests.edge.wire_lab import Replica, Segment, neighbour, resolve, vips

pytestmark = pytest.mark.lab

A, B, SECOND = "10.77.0.100", "10.77.0.101", "10.79.0.100"
ON_SECOND = "10.79.0.0/24"


@pytest.fixture(scope="module")
def segment() -> Iterator[Segment]:
    """Three nodes with two NICs each; n3 serves a VIP on the second segment, n2 one on the first."""
    made = Segment(second=True)
    try:
        rows = ((A, ("n2", "n1", "n3")), (B, ("n1", "n3", "n2")), (SECOND, ("n3", "n1", "n2")))
        made.tell(vips=vips(*rows))
        made.start()
        made.settled()
        yield made
    finally:
        made.close()


@pytest.fixture(autouse=True)
def healed(segment: Segment) -> Iterator[None]:
    yield
    segment.faults.clear()
    nic = segment.host("n3").nics[1]
    segment.net.port_member(segment.host("n3").port(nic), True)
    segment.net.carrier(segment.host("n3").port(nic), True)
    for replica in segment.replicas.values():
        replica.until(lambda r: not r.report.dead_on and len(r.report.fresh) == 2, "all are well again")
        replica.history.clear()


def ever_dead(replica: Replica) -> set[str]:
    return {node for _, report in replica.history for nodes in report.dead_on.values() for node in nodes}


def macs(segment: Segment, vip: str) -> set[str]:
    client = segment.second_client if vip == SECOND else segment.client
    return {answer.mac for answer in who_has(client, vip)}


@pytest.mark.parametrize("fault", ["carrier", "vlan"])
def test_a_vip_of_the_second_nic_moves_when_that_nic_loses_its_network(segment: Segment, fault) -> None:
    client, n1, n3 = segment.second_client, segment.host("n1"), segment.host("n3")
    port = n3.port(n3.nics[1])
    assert resolve(client, SECOND)[0] == n3.nics[1].mac
    if fault == "carrier":
        segment.net.carrier(port, False)
    else:
        segment.net.port_member(port, False)
    begun = time.monotonic()
    wait_until(lambda: neighbour(client, SECOND)[0] == n1.nics[1].mac, 3.0, "the client knows n1")
    assert time.monotonic() - begun < 1.5  # 0.2 s on an idle machine; the neighbor entry has not expired
    for name in ("n1", "n2"):
        segment.replicas[name].until(lambda r: r.report.dead_on.get(ON_SECOND) == {"n3"}, "n3 is dead there")
        assert segment.replicas[name].report.dead == frozenset()  # and alive on the segment of its InternalIP
    segment.replicas["n3"].until(lambda r: r.report.dead_on.get(ON_SECOND) == {"n3"}, "n3 knows")
    assert macs(segment, SECOND) == {n1.nics[1].mac}
    (segment.net.carrier if fault == "carrier" else segment.net.port_member)(port, True)
    wait_until(lambda: neighbour(client, SECOND)[0] == n3.nics[1].mac, 5.0, "n3 serves again")


def test_arp_filtered_at_one_node_leaves_one_mac_per_vip(segment: Segment) -> None:
    """Its hellos arrive: it must not take the others' VIPs, and gives its own VIPs away (kube-proxy cannot use it)."""
    n1, n2, _ = segment.nodes
    assert resolve(segment.client, A)[0] == n2.mac
    for other in ("n1", "n3"):
        segment.faults.filter("arp", other, "n2")
    segment.replicas["n1"].until(lambda r: "n2" in r.report.dead, "n2 is dead")
    segment.replicas["n2"].until(lambda r: "n2" in r.report.dead, "n2 has learned that from the hellos")
    end = time.monotonic() + 3.0
    while time.monotonic() < end:
        assert macs(segment, A) <= {n1.mac} and macs(segment, B) == {n1.mac}
    assert ever_dead(segment.replicas["n2"]) == ever_dead(segment.replicas["n1"]) == {"n2"}
    assert neighbour(segment.client, A)[0] == n1.mac
    segment.faults.clear()
    wait_until(lambda: macs(segment, A) == {n2.mac}, 5.0, "n2 serves again")


def test_a_one_way_link_between_two_nodes_moves_nothing(segment: Segment) -> None:
    segment.faults.filter("all", "n1", "n2")
    time.sleep(3.0)
    assert [ever_dead(replica) for replica in segment.replicas.values()] == [set(), set(), set()]
    assert macs(segment, A) == {segment.host("n2").mac}


def test_hellos_filtered_everywhere_leave_one_mac_per_vip_and_a_failover(segment: Segment) -> None:
    segment.faults.filter("hello")
    for replica in segment.replicas.values():
        replica.until(lambda r: not r.report.fresh, "no hello is heard")
    assert macs(segment, A) == {segment.host("n2").mac}
    assert [ever_dead(replica) for replica in segment.replicas.values()] == [set(), set(), set()]
    segment.net.carrier("n2", False)
    wait_until(lambda: macs(segment, A) == {segment.host("n1").mac}, 3.0, "n1 serves")
    segment.net.carrier("n2", True)


def test_g7_two_replicas_that_answer_for_one_vip_settle_within_a_second(segment: Segment) -> None:
    """Only n1 is given another order, which no plan does. Each of the two names the other in a notice."""
    n1, n2 = segment.host("n1"), segment.host("n2")
    assert macs(segment, A) == {n2.mac}
    rows = ((A, ("n1", "n2", "n3")), (B, ("n1", "n3", "n2")), (SECOND, ("n3", "n1", "n2")))
    other = replace(segment.wanted, digest=segment.wanted.digest + 1, vips=vips(*rows))
    segment.replicas["n1"].want(other)
    segment.replicas["n1"].until(lambda r: r.report.applied == other.digest, "n1 has the other order")
    begun = time.monotonic()
    winner = ranked(A, ["n1", "n2"])[0]
    wait_until(lambda: macs(segment, A) == {segment.host(winner).mac}, 3.0, "one MAC, that of the first in rank")
    assert time.monotonic() - begun < 2.0  # 0.4 s on an idle machine
    loser = ({"n1", "n2"} - {winner}).pop()
    segment.replicas[loser].until(
        lambda r: Notice(NoticeKind.TWO_ANSWERS, A, (winner,)) in r.report.notices, "the loser says who answers"
    )
    end = time.monotonic() + 1.5
    while time.monotonic() < end:
        assert macs(segment, A) <= {n1.mac, n2.mac} and len(macs(segment, A)) == 1
    segment.tell()
    wait_until(lambda: macs(segment, A) == {n2.mac}, 5.0, "n2 serves again")


@pytest.mark.parametrize("percent", [3, 10])
def test_random_loss_kills_nobody(segment: Segment, percent) -> None:
    """``python -m bench liveness`` runs this for ten minutes."""
    time.sleep(1.1)  # counters are reported once per second
    before = {name: replica.report.counters.get("deaths", 0) for name, replica in segment.replicas.items()}
    segment.faults.loss(percent)
    time.sleep(12.0)
    segment.faults.clear()
    assert [ever_dead(replica) for replica in segment.replicas.values()] == [set(), set(), set()]
    time.sleep(1.1)
    assert before == {name: replica.report.counters.get("deaths", 0) for name, replica in segment.replicas.items()}
    assert {str(vip): answer.next_hop for vip, answer in segment.replicas["n1"].answering.items()} == {
        A: "n2",
        B: "n1",
        SECOND: "n3",
    }
    assert ip_address(A) in segment.wanted.vips


def test_a_scope_chooses_the_nodes_and_the_interface_that_answer(segment: Segment) -> None:
    """n1 leads, and may not answer. eth1 is listed first, and is on a segment other than A's."""
    before, n3 = segment.wanted.vips, segment.host("n3")
    scope = Layer2Scope(frozenset({"n2", "n3"}), ("eth1", "eth0"))
    rows = vips((A, ("n3", "n2")), (SECOND, ("n3", "n2")), scope="pool")
    segment.tell(vips={**before, **rows}, scopes={"pool": scope})
    wait_until(lambda: macs(segment, A) == {n3.mac}, 5.0, "n3 answers on its eth0")
    wait_until(lambda: macs(segment, SECOND) == {n3.nics[1].mac}, 5.0, "n3 answers on its eth1")
    segment.tell(scopes={"pool": replace(scope, nodes=frozenset({"n2"}))})
    for name in ("n1", "n2"):
        segment.replicas[name].until(lambda r: r.answering[A] == Answering("n3", "n2"), "n2 answers on behalf of n3")
    assert macs(segment, A) == {n3.mac}
    segment.tell(scopes={"pool": replace(scope, interfaces=("eth1",), strict=True)})
    wait_until(lambda: not macs(segment, A), 5.0, "eth1 is not on the segment of A")
    assert macs(segment, SECOND) == {n3.nics[1].mac}
    segment.tell(vips=before, scopes={})
    segment.settled()
    wait_until(lambda: macs(segment, A) == {segment.host("n2").mac}, 5.0, "n2 serves again")
