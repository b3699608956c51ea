"""``porterlb rebalance``, and the commands that show the placement."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from porterlb.cluster import Kind
from porterlb.core.status.writes import LEADER
from porterlb.edge.manifests import ManifestsCluster
from tests.cli.conftest import Folder


@pytest.fixture
def balanced(folder: Folder) -> Folder:
    """Six Services with an endpoint on node-a and one on node-b."""
    for number in range(5):
        folder.add_service(f"more-{number}")
    folder.manage(3)
    return folder


@pytest.fixture
def lopsided(balanced: Folder) -> Folder:
    """All Services are on node-a."""

    async def record() -> None:
        cluster = ManifestsCluster(balanced.path)
        try:
            obj = await cluster.get(Kind.EIP, "pool")
            assert obj is not None
            status = {**obj["status"], "layer2NextHops": dict.fromkeys(obj["status"]["layer2NextHops"], "node-a")}
            await cluster.apply_status(Kind.EIP, "pool", "", status, owner=LEADER)
        finally:
            await cluster.close()

    asyncio.run(record())
    return balanced


def answer(folder: Folder, *args: str) -> Any:
    assert folder.cli(*args, "-o", "json") == 0, folder.err
    return json.loads(folder.out)


def vips(data: Any) -> dict[str, int]:
    return {name: node["vips"] for name, node in data["placement"]["nodes"].items()}


def test_nothing_to_move(balanced: Folder) -> None:
    data = answer(balanced, "rebalance")
    assert vips(data) == {"node-a": 3, "node-b": 3, "node-c": 0}
    assert (data["moves"], data["request"], data["done"]) == ([], "", False)
    assert balanced.cli("rebalance", "--yes") == 0
    assert "Nothing to move." in balanced.out
    assert "The VIPs are as even as their candidates allow." in balanced.out


def test_the_moves_are_shown_with_the_reason_and_nothing_is_changed(lopsided: Folder) -> None:
    data = answer(lopsided, "rebalance")
    assert vips(data) == {"node-a": 6, "node-b": 0, "node-c": 0}
    assert data["placement"]["imbalance"] == 3.0 and data["after"] == {"node-a": 3, "node-b": 3, "node-c": 0}
    assert len(data["moves"]) == 3
    for move in data["moves"]:
        assert (move["from"], move["to"], move["why"]) == ("node-a", "node-b", "node-a carries 6, node-b 0")
        assert move["addresses"][0].startswith("10.77.0.2") and move["service"].startswith("default/")
    lopsided.manage()
    assert lopsided.cli("rebalance") == 0
    assert "Nodes (fullest 3.00 times the mean):" in lopsided.out
    assert "Nothing was changed. porterlb rebalance --yes moves 3 Services." in lopsided.out
    assert vips(answer(lopsided, "rebalance")) == {"node-a": 6, "node-b": 0, "node-c": 0}


def test_yes_asks_the_leader_and_waits_until_it_has_moved_them(lopsided: Folder) -> None:
    with lopsided.managed():
        data = answer(lopsided, "rebalance", "--yes", "--timeout", "60")
    assert data["done"] and data["request"]
    assert vips(answer(lopsided, "rebalance")) == {"node-a": 3, "node-b": 3, "node-c": 0}


def test_the_protocol_that_was_switched_by_hand_stays(lopsided: Folder) -> None:
    """With the same field manager, the command would release the fields that it omits."""
    assert lopsided.cli("mode", "layer2", "--no-wait") == 0
    assert lopsided.cli("rebalance", "--yes", "--no-wait") == 0
    assert "The leader was asked to move 3 Services." in lopsided.out
    (pool, _) = answer(lopsided, "eip", "list")["items"]
    assert pool["protocol"] == "layer2"


def test_no_leader_carries_it_out_in_time(lopsided: Folder) -> None:
    assert lopsided.cli("rebalance", "--yes", "--timeout", "0.3") == 1
    assert lopsided.err.startswith("porterlb: The leader has not finished within 0.3 s; it goes on.")


def test_status_lists_and_plan_show_the_vips_of_each_node(lopsided: Folder) -> None:
    assert lopsided.cli("status") == 0
    assert "VIPs: node-a 6, node-b 0, node-c 0" in lopsided.out
    assert [node["vips"] for node in answer(lopsided, "status")["nodes"]] == [6, 0, 0]
    assert lopsided.cli("eip", "list", "-o", "wide") == 0
    assert "LAYER 2" in lopsided.out and "node-a 6" in lopsided.out
    assert lopsided.cli("eip", "list") == 0
    assert "LAYER 2" not in lopsided.out
    data = answer(lopsided, "plan", "--without-node", "node-a")
    assert {name: node["vips"] for name, node in data["placement"]["before"]["nodes"].items()}["node-a"] == 6
    after = {name: node["vips"] for name, node in data["placement"]["after"]["nodes"].items()}
    assert after == {"node-b": 6, "node-c": 0}
    assert lopsided.cli("plan") == 0
    assert "Layer 2 placement (3.00 times the mean on the fullest node):" in lopsided.out
