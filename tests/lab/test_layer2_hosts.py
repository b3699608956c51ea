"""`layer2Spread: hosts` with complete managers: a next hop for each host, through BGP and back, without the API."""

from __future__ import annotations

import time
from collections import Counter
from contextlib import ExitStack
from typing import Any

import pytest

from lab.backend import DirBackend
from lab.client import Client
from lab.measure import wait_until
from lab.stream import Report
from tests.edge.wire_lab import neighbour
from tests.lab.mode_scenes import ModeStage

pytestmark = [pytest.mark.lab, pytest.mark.timeout(240)]

HOSTS = 6
WITHIN = 1000.0  # in ms; bench/spread.py measures it


def hosts_of(on: ModeStage) -> list[Client]:
    hosts = [on.lab.add_host(f"h{number}", 150 + number) for number in range(HOSTS)]
    return [host for host in hosts if isinstance(host, Client)]


def resolve(on: ModeStage, hosts: list[Client]) -> dict[tuple[str, str], str]:
    """The node in each host's neighbor entry, by host and VIP, after each host has sent a request and received an
    answer."""
    for host in hosts:
        for vip in on.vips["hosts"]:
            wait_until(lambda host=host, vip=vip: host.reaches(vip), 5.0, f"{host.name} to reach {vip}")
    return entries(on, hosts)


def entries(on: ModeStage, hosts: list[Client]) -> dict[tuple[str, str], str]:
    names = {node.mac: node.name for node in on.lab.nodes}
    return {(host.name, vip): names.get(neighbour(host, vip)[0], "") for host in hosts for vip in on.vips["hosts"]}


def during(on: ModeStage, hosts: list[Client], what: Any, after: float) -> dict[tuple[str, str], Report]:
    """The reports of each host for each VIP before, during and ``after`` seconds after an action."""
    with ExitStack() as stack:
        streams = {host.name: stack.enter_context(host.stream(on.vips["hosts"], interval=0.02)) for host in hosts}
        what(after)
        reports = {name: stream.report() for name, stream in streams.items()}
    return {(name, vip): report.only(vip) for name, report in reports.items() for vip in on.vips["hosts"]}


def shares(found: dict[tuple[str, str], str], vip: str) -> list[int]:
    return sorted(Counter(node for (_, of), node in found.items() if of == vip).values())


def test_hosts_share_the_nodes_through_a_fallback_and_a_dead_leader_without_the_api() -> None:
    with ModeStage(pools=("hosts",)) as on:
        hosts = hosts_of(on)
        on.lose("killed")
        on.wait_mode("layer2", "hosts")
        before = resolve(on, hosts)
        for vip in on.vips["hosts"]:
            assert shares(before, vip) == [2, 2, 2], before
        condition = next(
            c for c in on.lab.backend.status("Eip", "hosts")["conditions"] if c["type"] == "Layer2Possible"
        )
        assert "share 3 next hops" in condition["message"]
        seen = wait_until(
            lambda: [row for row in on.json_of("eip", "list") if sum(row["askers"].values()) >= 2 * HOSTS],
            20.0,  # hosts are counted every 10 s
        )[0]
        assert seen[0]["askers"] == {node.name: 4 for node in on.lab.nodes}

        on.give_back("killed")
        on.wait_mode("bgp", "hosts")
        on.lose("killed")
        on.wait_mode("layer2", "hosts")
        assert resolve(on, hosts) == before  # the same next hops as before

        leader = on.lab.leader()
        assert isinstance(on.lab.backend, DirBackend)
        for node in on.lab.nodes:
            on.lab.backend.cut(node.name)

        def leader_dies(after: float) -> None:
            time.sleep(0.5)
            on.lab.node(leader).power_off()
            time.sleep(after)

        reports = during(on, hosts, leader_dies, 2.0)
        after = entries(on, hosts)
        gaps = [report.worst_gap_ms for key, report in reports.items() if before[key] == leader]
        others = [report.lost for key, report in reports.items() if before[key] != leader]
        print(f"hosts of {leader}: {max(gaps):.0f} ms at worst; lost by others: {sum(others)}")
        assert max(gaps) < WITHIN and not sum(others)
        assert {key for key in before if before[key] != after[key]} == {key for key in before if before[key] == leader}
