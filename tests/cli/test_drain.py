"""drain and undrain: the annotation, the conditions to wait for, and the refusals."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from porterlb.cli import drain as drain_cli
from porterlb.cli.drain import ANNOTATION
from porterlb.cluster import Kind
from porterlb.core.history import History
from porterlb.core.status.state import state_of
from porterlb.edge.manifests import ManifestsCluster
from tests.cli.conftest import NODES, SERVICE, Folder
from tests.cli.test_replicas import state, write
from tests.core.stage import situation, snapshot
from tests.core.test_drain import draining


def annotation(folder: Folder, node: str) -> Any:
    async def work() -> Any:
        cluster = ManifestsCluster(folder.path, read_only=True)
        try:
            found = await cluster.get(Kind.NODE, node)
            assert found is not None
            return (found["metadata"].get("annotations") or {}).get(ANNOTATION)
        finally:
            await cluster.close()

    return asyncio.run(work())


def drained(node: str) -> dict[str, Any]:
    """The state that a replica shows when node-c is drained."""
    return state_of(situation(draining(snapshot(node), "node-c")), History(), now=0.0)


def test_a_node_is_drained_and_put_back(folder: Folder) -> None:
    folder.manage()
    for node in NODES:
        write(folder, node, drained(node))
    assert folder.cli("drain", "node-c", "--timeout", "5") == 0, folder.err
    assert "It is safe to reboot it." in folder.out and "porterlb undrain node-c" in folder.out
    assert annotation(folder, "node-c") == "true"
    folder.cli("status")
    assert "Node node-c is drained (porterlb undrain node-c)." in folder.out
    folder.cli("status", "-o", "json")
    assert [node["name"] for node in json.loads(folder.out)["nodes"] if node["draining"]] == ["node-c"]
    assert folder.cli("undrain", "node-c") == 0
    assert annotation(folder, "node-c") is None and "in service again" in folder.out


def test_what_is_waited_for_is_said(folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(drain_cli, "POLL", 0.05)
    folder.manage()
    assert folder.cli("drain", "node-c", "--timeout", "0.1") == 1
    assert "No replica can be asked whether the node is drained" in folder.err
    for node in NODES:
        write(folder, node, state(node))
    assert folder.cli("drain", "node-c", "--timeout", "0.1") == 1
    assert "Waiting for the replicas on node-a, node-b, node-c to apply it." in folder.err
    shown = drained("node-a")
    shown["vips"]["172.16.0.1"]["carried"] = {"tor": ["node-c"]}
    write(folder, "node-a", shown)
    for node in NODES[1:]:
        write(folder, node, drained(node))
    assert folder.cli("drain", "node-c", "--timeout", "0.1") == 1
    assert "After 0.1 s: Traffic still comes to node-c for 172.16.0.1." in folder.err
    shown["vips"]["172.16.0.1"]["nextHops"] = ["node-c"]
    write(folder, "node-a", shown)
    assert folder.cli("drain", "node-c", "--timeout", "5") == 1
    assert "Only node-c can serve 172.16.0.1: it is not safe to reboot it." in folder.err


def test_the_last_node_that_can_serve_is_refused(folder: Folder) -> None:
    local = SERVICE.replace("type: LoadBalancer", "type: LoadBalancer, externalTrafficPolicy: Local")
    local = local.replace("node-b, conditions: {{ready: true}}", "node-b, conditions: {{ready: false}}")
    folder.write("svc-web.yaml", local.format(name="web", annotations="{}"))
    folder.manage()
    assert folder.cli("drain", "node-a", "--timeout", "1") == 1
    assert "No other node can serve 10.77.0.200 (default/web)." in folder.err
    assert annotation(folder, "node-a") is None, "nothing was done"
    assert folder.cli("drain", "node-b", "--no-wait") == 0 and "not waited for" in folder.out
    assert folder.cli("drain", "node-a", "--no-wait", "--force") == 0


def test_names_that_nobody_knows(folder: Folder) -> None:
    assert folder.cli("drain", "node-x") == 2
    assert "There is no node 'node-x'. There are: node-a, node-b, node-c." in folder.err
    assert folder.cli("undrain", "node-x") == 2


def test_an_annotation_of_the_manifest_is_not_removed_silently(folder: Folder) -> None:
    folder.manage()
    text = (folder.path / "nodes.yaml").read_text()
    mark = f"{{name: node-b, annotations: {{{ANNOTATION}: maintenance}}}}"
    folder.write("nodes.yaml", text.replace("{name: node-b}", mark))
    assert folder.cli("undrain", "node-b") == 1
    assert "Remove it from the manifest." in folder.err
