"""Layer 2 VIPs stay spread over the nodes: at creation, at the start of a cluster, after failures, on request.

The delays in the settings are short here. tests/core/test_placement.py has the real ones on a virtual clock.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections import Counter
from typing import Any

import pytest

from lab.backend import DirBackend
from lab.connections import ALIVE, Connections
from lab.measure import wait_until
from tests.lab.scenarios import Stage

pytestmark = [pytest.mark.lab, pytest.mark.timeout(240)]

MANY = 24
NODES = ("node-a", "node-b", "node-c")


def stage(*options: str, replicas: tuple[str, ...] = NODES) -> Stage:
    return Stage(replicas=replicas, options=("--rebalance-pace", "0.2", *options))


def placed(on: Stage, count: int) -> dict[str, str]:
    """The node of each VIP, once all VIPs are answered by a live replica and recorded there; otherwise empty."""
    leader = on.lab.leader()
    vips = on.lab.state(leader).get("vips", {}) if leader else {}
    found = {
        vip: known["answering"]["nextHop"]
        for vip, known in vips.items()
        if known["answering"] and known["answering"]["answerer"] and known["answering"]["nextHop"] == known["recorded"]
    }
    return found if len(found) == count else {}


def is_fresh(on: Stage, name: str) -> bool:
    """Whether the leader hears a replica. A leader that has just started knows no replica."""
    replica = on.lab.state(on.leader()).get("replicas", {}).get(name)
    return bool(replica and replica["fresh"])


def wait_counts(on: Stage, count: int, wanted: tuple[int, ...], timeout: float) -> dict[str, str]:
    """Waits until the nodes serve these numbers of VIPs, in any order of the nodes."""

    def as_wanted() -> dict[str, str]:
        found = placed(on, count)
        counts = Counter(found.values())
        return found if sorted(counts[name] for name in NODES) == sorted(wanted) else {}

    return wait_until(as_wanted, timeout, f"VIPs per node: {wanted}", interval=0.1)[0]


def rebalance(on: Stage, *arguments: str) -> Any:
    assert isinstance(on.lab.backend, DirBackend)
    argv = [sys.executable, "-m", "porterlb", "--cluster", f"dir:{on.lab.backend.folder}", "rebalance", "-o", "json"]
    done = subprocess.run([*argv, *arguments], capture_output=True, text=True, timeout=90, check=True)
    return json.loads(done.stdout)


def test_a_third_replica_gets_its_share_on_request_and_connections_to_other_vips_live_on() -> None:
    with stage("--rebalance", "manual", replicas=("node-a", "node-b")) as on:
        time.sleep(6.5)  # node-c has no replica: the longest wait, six times --settle-after
        on.write_many(MANY)
        wait_counts(on, MANY, (12, 12, 0), 40.0)
        on.start("node-c")
        wait_until(lambda: "node-c" in on.lab.state("node-a")["replicas"], 20.0, "the third replica", interval=0.1)
        before = placed(on, MANY)
        shown = rebalance(on)
        assert len(shown["moves"]) == 8 and placed(on, MANY) == before  # shown only

        several = [vip for vip in before for _ in range(3)][:60]
        with Connections(on.lab.segment_client, several) as connections:
            assert rebalance(on, "--yes")["done"]
            after = wait_counts(on, MANY, (8, 8, 8), 20.0)
            time.sleep(2.0)
            became = connections.report()
        # VIPs without recent requests move first. These may have changed since the plan was shown.
        moved = {vip for vip in after if after[vip] != before[vip]}
        assert len(moved) == 8
        broken = [vip for vip, state in became if state != ALIVE]
        print(f"60 connections through a rebalance of 8 VIPs of 24: {len(broken)} broken")
        assert set(broken) <= moved

        on.write_many(12, "more")
        wait_counts(on, MANY + 12, (12, 12, 12), 40.0)


def test_services_that_are_created_later_are_spread_evenly_at_once() -> None:
    with stage("--rebalance", "manual") as on:
        wait_until(lambda: len(on.lab.state("node-a").get("replicas", {})) == 3, 20.0, "three replicas", interval=0.1)
        time.sleep(3.0)  # settled
        on.write_many(MANY)
        wait_counts(on, MANY, (8, 8, 8), 40.0)


def test_a_start_one_after_another_ends_balanced_and_so_do_absences_one_after_another() -> None:
    with stage("--rebalance-after", "12", "--settle-after", "2", replicas=()) as on:
        on.write_many(MANY)
        for name in NODES:
            on.start(name)
            time.sleep(3.0)
        wait_counts(on, MANY, (8, 8, 8), 40.0)

        for name in NODES:  # one of them is the leader's node
            on.lab.node(name).power_off()
            on.wait_moved(name)
            on.lab.node(name).power_on()
            wait_until(
                lambda name=name: on.lab.state(on.leader()).get("replicas", {}).get(name, {}).get("fresh"),
                20.0,
                f"{name} to be back",
            )
        before, _ = wait_until(lambda: placed(on, MANY), 10.0, "every VIP to be recorded", interval=0.1)
        counts = Counter(before.values())
        assert max(counts.values()) - min(counts[name] for name in NODES) > 1, counts
        after = wait_counts(on, MANY, (8, 8, 8), 40.0)  # automatically
        least = sum(count - 8 for count in counts.values() if count > 8)
        assert sum(after[vip] != node for vip, node in before.items()) == least
