"""The replicas' knowledge: requested in parallel, with age and source; a silent one delays no other; one history."""

from __future__ import annotations

import asyncio
import json
import os
import time
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest

from porterlb.cli.history import merged
from porterlb.cli.replicas import Asked, ask
from porterlb.cluster import Denied, NoReplica, ReplicaState
from porterlb.core.history import Entry, History, ServedBy, What, Why
from porterlb.core.history.words import as_json
from porterlb.core.known import Known
from porterlb.core.model import Mode
from porterlb.core.status.state import state_of
from porterlb.edge.manifests import ManifestsCluster
from tests.cli.conftest import Folder
from tests.core.stage import AUTO_VIP, LATER, NOW, situation, snapshot


def write(folder: Folder, node: str, state: Mapping[str, Any], age: float = 0.0) -> None:
    """Writes the state as the replica on ``node`` does."""

    async def work() -> None:
        cluster = ManifestsCluster(folder.path)
        await cluster.share_state(node, json.dumps(state))
        await cluster.share_state(node, None)
        await cluster.close()

    asyncio.run(work())
    if age:
        then = time.time() - age
        os.utime(folder.path / ".porterlb" / "replicas" / f"{node}.json", (then, then))


def state(node: str, dead: str = "", entries: tuple[Entry, ...] = ()) -> dict[str, Any]:
    live = tuple(name for name in ("node-a", "node-b", "node-c") if name != dead)
    of = snapshot(node, up=live, fresh=frozenset(live), dead=frozenset({dead} - {""}))
    made: Known = situation(of, now=LATER)
    return state_of(made, History(entries, {AUTO_VIP: ServedBy(Mode.BGP, since=LATER)}), now=0.0)


DEATH = Entry(LATER, What.NODE_DEAD, "node-c")


def test_status_names_the_dead_node_and_who_saw_it(folder: Folder) -> None:
    folder.manage()
    for node in ("node-a", "node-b"):
        write(folder, node, state(node, "node-c"))
    write(folder, "node-c", state("node-c"), age=12)
    assert folder.cli("status") == 0
    assert "2 of 3 ready; node-c is dead (seen by node-a, node-b)" in folder.out
    assert "node-a, node-b; silent: node-c" in folder.out
    assert "2 of 3 established" in folder.out and "SILENT" in folder.out
    assert "node-c does not answer probes, as node-a and node-b say." in folder.out
    assert "The replica on node-c is silent: it was heard 12 s ago." in folder.out
    assert "the API, node-a (file, " in folder.out, "each figure has its source and age"
    folder.cli("status", "-o", "json")
    data = json.loads(folder.out)
    assert [node["name"] for node in data["nodes"] if node["dead"]] == ["node-c"]
    assert [source["replica"] for source in data["sources"]] == ["node-a", "node-b"]


def test_a_replica_that_nobody_can_ask_and_another_one_hears_is_not_silent(folder: Folder) -> None:
    folder.manage()
    for node in ("node-a", "node-b"):
        write(folder, node, state(node))
    assert folder.cli("status") == 0
    assert "3 of 3 ready" in folder.out and "silent" not in folder.out
    assert "The replica on node-c could not be asked: It has not written its state." in folder.out


def test_a_plan_leaves_out_what_is_dead_now(folder: Folder) -> None:
    folder.manage()
    folder.cli("plan", "-o", "json")
    assert all("node-c" in vip["after"]["nextHops"] for vip in json.loads(folder.out)["vips"])
    for node in ("node-a", "node-b"):
        write(folder, node, state(node, "node-c"))
    assert folder.cli("plan", "-o", "json") == 0
    (web,) = json.loads(folder.out)["vips"]
    assert web["after"]["nextHops"] and "node-c" not in web["after"]["nextHops"]
    folder.cli("plan")
    assert "node-c is gone already. The plan excludes it." in folder.out


def test_since_is_since_the_last_move(folder: Folder) -> None:
    folder.manage()
    write(folder, "node-a", state("node-a") | {"vips": {"10.77.0.200": {"since": LATER}}})
    assert folder.cli("service", "list", "-o", "json") == 0
    (web,) = [row for row in json.loads(folder.out)["items"] if row["name"] == "web"]
    assert web["since"] == LATER


def test_one_replica_without_the_api(folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = state("node-a", "node-c") | {"outage": "The API does not answer."}
    monkeypatch.setattr("porterlb.cli.status.read", lambda url: ReplicaState("node-a", seen, 0.0, url))
    assert folder.cli("status", "--from", "http://127.0.0.1:7472") == 0
    assert "2 of 3 ready; node-c is dead (seen by node-a)" in folder.out
    assert "The API is unavailable: The API does not answer." in folder.out
    assert "2 of 2 established" in folder.out
    seen["nodes"]["node-c"]["deadBy"] = ["node-a", "node-b"]
    assert folder.cli("status", "--from", "http://127.0.0.1:7472") == 0
    assert "node-c is dead (seen by node-a, node-b)" in folder.out
    assert "node-c does not answer probes (seen by node-a, node-b)." in " ".join(folder.out.split())
    assert "the API," not in folder.out and "node-a (http://127.0.0.1:7472" in folder.out


def test_an_address_where_nobody_listens(folder: Folder) -> None:
    assert folder.cli("status", "--from", "http://127.0.0.1:1") == 1
    assert "http://127.0.0.1:1 cannot be read" in folder.err and "Run it on a node" in folder.err


def test_all_replicas_are_asked_at_once_and_a_hanging_one_hinders_nobody() -> None:
    class Slow:
        async def replica_state(self, node: str) -> ReplicaState:
            if node == "hangs":
                await asyncio.sleep(60)
            if node == "refused":
                raise Denied("no right to port-forward.")
            if node == "gone":
                raise NoReplica("There is no pod.")
            await asyncio.sleep(0.1)
            return ReplicaState(node, {"vips": {}} if node != "young" else {"waitingFor": "the API."}, 0.0, "x")

    began = time.monotonic()
    nodes = ["hangs", "refused", "gone", "young", *(f"n{number}" for number in range(20))]
    asked = asyncio.run(ask(Slow(), nodes, 0.5))  # type: ignore[arg-type]
    assert time.monotonic() - began < 2.0, "not one after the other (2.4 s)"
    assert len(asked.states) == 20
    assert asked.silent == {
        "hangs": "it has not answered within 0.5 s",
        "refused": "no right to port-forward",
        "gone": "There is no pod",
        "young": "the API",
    }
    assert asked.gone == {"gone"}


def test_history_of_all_replicas_is_one(folder: Folder) -> None:
    move = Entry(LATER, What.VIP_MOVED, "", ("node-c",), ("node-a",), Why.NODE_DEAD, "node-c", "layer2", (AUTO_VIP,))
    later = replace(DEATH, time=LATER.replace(":00Z", ":01Z"))
    folder.manage()
    up = Entry(NOW, What.SESSION_UP, "tor", cause="node-a")
    write(folder, "node-a", state("node-a", "node-c", (up, DEATH, move)))
    write(folder, "node-b", state("node-b", "node-c", (later,)))
    assert folder.cli("history") == 0
    lines = folder.out.splitlines()
    assert sum("Node node-c does not" in line for line in lines) == 1
    assert any(line.startswith(LATER) and "node-a, node-b" in line for line in lines)
    assert folder.cli("history", "--vip", str(AUTO_VIP), "-o", "json") == 0
    assert [row["what"] for row in json.loads(folder.out)["items"]] == ["VipMoved"]
    assert folder.cli("history", "--node", "node-c", "-o", "json") == 0
    assert {row["what"] for row in json.loads(folder.out)["items"]} == {"VipMoved", "NodeDead"}
    assert folder.cli("history", "--since", LATER, "-o", "json") == 0
    assert {row["what"] for row in json.loads(folder.out)["items"]} == {"VipMoved", "NodeDead"}
    assert folder.cli("history", "--since", "1s", "-o", "json") == 0
    assert json.loads(folder.out)["items"] == []
    assert folder.cli("history", "--since", "soon") == 2


def test_what_is_alike_and_long_apart_is_not_one() -> None:
    again = replace(DEATH, time="2026-01-31T13:00:00Z")
    states = {
        "node-a": ReplicaState("node-a", {"history": [as_json(DEATH), as_json(again)]}, 0.0, "file"),
        "node-b": ReplicaState("node-b", {"history": [as_json(again)]}, 0.0, "file"),
    }
    assert [(row["time"], row["seenBy"]) for row in merged(Asked(states))] == [
        ("2026-01-31T13:00:00Z", ["node-a", "node-b"]),
        (LATER, ["node-a"]),
    ]


def test_without_replicas_there_is_no_history(folder: Folder) -> None:
    assert folder.cli("history") == 1
    assert "No replica can be asked" in folder.err
