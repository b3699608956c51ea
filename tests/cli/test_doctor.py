"""The command: exit codes, JSON, the collected data, and a bundle without secrets."""

from __future__ import annotations

import json
import tarfile
from dataclasses import replace
from pathlib import Path
from typing import Any

from porterlb.cli import bundle
from porterlb.cli.doctor import ERRORS, HEALTHY, WARNINGS, facts_of, lines
from porterlb.cli.loading import load
from porterlb.cli.replicas import Asked
from porterlb.cluster import ReplicaState
from porterlb.core.doctor.examine import examine
from porterlb.core.doctor.facts import Facts
from porterlb.core.doctor.finding import Check, Finding, Severity
from porterlb.core.doctor.redact import REDACTED, redacted, secrets_in, without
from porterlb.edge.manifests import ManifestsCluster
from porterlb.release import release
from tests.cli.conftest import NODES, Folder
from tests.cli.test_replicas import write
from tests.core.test_doctor import state

SECRET = "pa55-of-the-router"

OLD_PEER = f"""
apiVersion: network.kubesphere.io/v1alpha2
kind: BgpPeer
metadata:
  name: old
  annotations:
    kubectl.kubernetes.io/last-applied-configuration: '{{"spec":{{"conf":{{"authPassword":"{SECRET}"}}}}}}'
spec:
  conf: {{neighborAddress: 10.77.0.2, peerAs: 64500, authPassword: {SECRET}}}
"""


def running(folder: Folder) -> None:
    folder.manage()
    for node in NODES:
        shown = state(node)
        write(folder, node, {**shown, "host": {**shown["host"], "release": release()}})


def test_a_healthy_cluster(folder: Folder) -> None:
    running(folder)
    assert folder.cli("doctor") == HEALTHY, folder.out
    assert folder.out == "Nothing is wrong (3 replicas asked).\n"
    assert folder.cli("doctor", "-o", "json") == HEALTHY
    assert json.loads(folder.out)["verdict"] == "healthy"


def test_errors_and_warnings_have_their_exit_codes(folder: Folder) -> None:
    running(folder)
    folder.write("typo.yaml", OLD_PEER.replace("10.77.0.2", "10.77.0.300"))
    assert folder.cli("doctor") == ERRORS
    assert folder.out.startswith("ERROR BgpPeer old: spec.conf.neighborAddress"), folder.out
    assert "To do:" in folder.out
    folder.write("typo.yaml", OLD_PEER)
    assert folder.cli("doctor", "-o", "json") == WARNINGS
    data = json.loads(folder.out)
    assert data["verdict"] == "warning" and data["findings"][0]["check"] == "objects"
    assert set(data["findings"][0]) == {"check", "severity", "where", "what", "do"}


def test_without_a_manager_and_without_an_api(folder: Folder) -> None:
    assert folder.cli("doctor") == ERRORS and "No manager runs" in folder.out
    folder.path.rename(folder.path / ".." / f"{folder.path.name}-gone")
    assert folder.cli("doctor") == ERRORS and folder.out.startswith("ERROR API server: The API cannot be reached")


async def collected(folder: Folder, **more: Any) -> Facts:
    cluster = ManifestsCluster(folder.path, read_only=True)
    try:
        found = await load(cluster)
    finally:
        await cluster.close()
    states = {node: ReplicaState(node, state(node) | more, 0.0, "port-forward") for node in NODES}
    return facts_of(found, Asked(states))


def test_ranges_and_clocks_come_from_the_objects_and_the_replicas(folder: Folder) -> None:
    import asyncio  # noqa: PLC0415
    import time  # noqa: PLC0415

    folder.manage()
    folder.write(
        "more.yaml",
        """
apiVersion: v1
kind: Node
metadata: {name: node-d}
spec: {podCIDRs: [10.244.3.0/24, "fd00:10::/64"]}
---
apiVersion: v1
kind: Service
metadata: {name: dns, namespace: default}
spec: {clusterIPs: [10.77.0.205]}
---
apiVersion: v1
kind: Service
metadata: {name: headless, namespace: default}
spec: {clusterIPs: [None]}
""",
    )
    facts = asyncio.run(collected(folder, clock=time.time() + 30))
    assert [str(network) for network in facts.ranges] == ["10.77.0.205/32", "10.244.3.0/24", "fd00:10::/64"]
    assert all(29 < ahead <= 30 for ahead in facts.clocks.values()) and len(facts.clocks) == 3
    checks = {finding.check for finding in examine(facts)}
    assert {Check.POOLS, Check.CLOCKS} <= checks


def test_the_bundle_has_everything_and_no_secret(folder: Folder, tmp_path: Path) -> None:
    running(folder)
    folder.write("old.yaml", OLD_PEER)
    file = tmp_path / "report.tar.gz"
    assert folder.cli("doctor", "--bundle", str(file)) == WARNINGS
    assert "names and addresses are in it" in folder.err
    assert file.stat().st_mode & 0o777 == 0o600
    with tarfile.open(file) as archive:
        texts = {m.name: archive.extractfile(m).read().decode() for m in archive.getmembers()}  # type: ignore[union-attr]
    names = {name.removeprefix(f"{bundle.FOLDER}/") for name in texts}
    assert {"doctor.json", "objects/bgppeers.json", "states/node-a.json", "leases.json"} <= names
    assert json.loads(texts[f"{bundle.FOLDER}/objects/bgppeers.json"])[0]["metadata"]["name"] == "old"
    key = (
        (folder.path / ".porterlb" / "hello.key").read_text() if (folder.path / ".porterlb/hello.key").exists() else ""
    )
    whole = "\n".join(texts.values())
    assert SECRET not in whole and REDACTED in whole
    assert not key or key not in whole


def test_secrets_are_taken_out_of_logs_too() -> None:
    found = bundle.contents({"findings": []}, None, Asked(), {"node-a/p.log": f"peer old password {SECRET} refused"})
    assert SECRET in found["replicas/node-a/p.log"], "nobody has called it a secret"
    peer = {"spec": {"conf": {"authPassword": SECRET, "authPasswordSecret": {"name": "router", "key": "k"}}}}
    secrets = secrets_in([peer, [{"token": "ab"}, {"apiKey": f"{SECRET}-longer"}]])
    assert secrets == {SECRET, f"{SECRET}-longer"}, "names of Secrets are none, and two letters are in every text"
    assert without(f"x {SECRET}-longer y {SECRET}", secrets) == f"x {REDACTED} y {REDACTED}"
    shown = redacted(peer)
    assert shown["spec"]["conf"] == {"authPassword": REDACTED, "authPasswordSecret": {"name": "router", "key": "k"}}
    assert redacted({"managedFields": [1], "passwordless": True, "n": [{"token": "x"}]}) == {
        "passwordless": True,
        "n": [{"token": REDACTED}],
    }


def test_a_bundle_that_cannot_be_written(folder: Folder, tmp_path: Path) -> None:
    running(folder)
    assert folder.cli("doctor", "--bundle", str(tmp_path / "no" / "file")) == 1
    assert "cannot be written" in folder.err


def test_lines_fit_a_terminal_and_words_stay_whole() -> None:
    long = Finding(Check.API, Severity.ERROR, "API server", "word " * 40 + "end.", "do " * 40 + "it.")
    shown = lines((long,), replace(Facts(), states={"node-a": {}}), 80)
    assert all(len(line) <= 80 for line in shown) and shown[-1] == "1 error, 0 warnings (1 replica asked)."
    assert lines((long,), Facts())[0].endswith("end.")
