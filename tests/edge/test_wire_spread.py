"""One VIP over several nodes, with a next hop for each host: twelve Linux hosts and two routers, IPv4 and IPv6."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from lab.frames import who_has
from tests.edge.crowd import NODES, V4, V6, Crowd, spread_vips

pytestmark = [pytest.mark.lab, pytest.mark.timeout(120)]

BOTH = (V4, V6)
WITHIN = 1.0  # seconds; bench/spread.py measures


@pytest.fixture(scope="module")
def shared() -> Iterator[Crowd]:
    made = Crowd(12, routers=2)
    try:
        yield made
    finally:
        made.close()


@pytest.fixture
def crowd(shared: Crowd) -> Crowd:
    """All replicas run, and every host has resolved both VIPs."""
    shared.segment.restore(spread_vips())
    shared.resolve()
    shared.wait_known()
    return shared


def entries(crowd: Crowd) -> dict[str, dict[str, str]]:
    return {vip: crowd.entries(vip) for vip in BOTH}


def on(found: dict[str, dict[str, str]], node: str) -> set[tuple[str, str]]:
    return {(vip, host) for vip in BOTH for host, at in found[vip].items() if at == node}


def test_hosts_that_ask_at_once_are_spread_evenly_and_keep_their_next_hop(crowd: Crowd) -> None:
    for vip in BOTH:
        assert sorted(crowd.shares(vip).values()) == [4, 5, 5], crowd.shares(vip)
    before = entries(crowd)
    for host in crowd.hosts:  # their entries are verified by unicast repeatedly
        for version in (4, 6):
            path = f"net/ipv{version}/neigh/eth0"
            host.ns.sysctl({f"{path}/base_reachable_time_ms": 1000, f"{path}/delay_first_probe_time": 1})
    lost = crowd.ping(6.0).lost()
    assert not sum(one.count for one in lost) and entries(crowd) == before
    crowd.forget()
    crowd.resolve()
    assert entries(crowd) == before


def test_the_hosts_of_a_dead_node_move_at_once_and_no_other_host_loses_anything(crowd: Crowd) -> None:
    before = entries(crowd)
    pings = crowd.ping(3.0)
    time.sleep(1.0)
    crowd.segment.net.carrier("n2", False)
    lost = pings.lost()
    after = entries(crowd)
    victims = on(before, "n2")
    assert victims and not on(after, "n2")
    assert {(v, h) for v in BOTH for h in before[v] if before[v][h] != after[v][h]} == victims
    moved = [one for one in lost if (one.vip, one.host) in victims]
    others = [one for one in lost if (one.vip, one.host) not in victims]
    print(f"{len(victims)} hosts of n2: {max(one.longest for one in moved) * 1000:.0f} ms at worst")
    assert max(one.longest for one in moved) < WITHIN and not sum(one.count for one in others)
    crowd.segment.net.carrier("n2", True)
    for name in ("n1", "n3"):
        crowd.segment.replicas[name].until(lambda r: not r.report.dead and "n2" in r.report.fresh, "n2 is alive")
    time.sleep(1.5)
    assert entries(crowd) == after  # it takes no host back


@pytest.mark.parametrize("node", ["n3", "n1"], ids=["a replica", "the replica of the leader"])
def test_a_replica_that_dies_costs_nobody_anything_and_neither_does_its_return(crowd: Crowd, node: str) -> None:
    before = entries(crowd)
    pings = crowd.ping(4.0)
    time.sleep(0.5)
    crowd.segment.replicas[node].close()
    time.sleep(1.0)
    crowd.segment.restore(spread_vips())
    assert not sum(one.count for one in pings.lost())
    crowd.wait_known()
    crowd.forget()  # if an entry was verified while its replica was away, the kernel drops it, now or soon
    crowd.resolve()
    assert entries(crowd) == before


def test_each_host_hears_one_answer_and_a_new_host_goes_to_the_emptiest_node(crowd: Crowd) -> None:
    client = crowd.segment.client
    for vip in BOTH:
        assert len({answer.mac for answer in who_has(client, vip)}) == 1
        assert len(who_has(client, vip)) == 1
    assert {node.name for node in crowd.segment.nodes} == set(NODES)
