"""``porterlb plan``: the result of a change, computed by the manager's own code."""

from __future__ import annotations

import json

import pytest

from tests.cli.conftest import Folder


def test_what_is_planned_now(folder: Folder) -> None:
    folder.manage()
    assert folder.cli("plan") == 0
    assert "10.77.0.200  default/web  bgp   node-a, node-b, node-c" in folder.out


def test_without_a_node(folder: Folder) -> None:
    folder.manage()
    assert folder.cli("plan", "--without-node", "node-b", "-o", "json") == 0
    data = json.loads(folder.out)
    assert data["without"] == {"nodes": ["node-b"], "peers": [], "replicas": []}
    (vip,) = data["vips"]
    assert vip["changed"]
    assert vip["before"]["nextHops"] == ["node-a", "node-b", "node-c"]
    assert (vip["after"]["mode"], vip["after"]["nextHops"]) == ("bgp", ["node-a", "node-c"])


def test_without_the_only_peer_layer2_takes_over(folder: Folder) -> None:
    folder.manage()
    assert folder.cli("plan", "--without-peer", "tor") == 0
    line = next(line for line in folder.out.splitlines() if line.startswith("10.77.0.200"))
    cells = [cell.strip() for cell in line.split("  ") if cell.strip()]
    assert (cells[2], cells[4]) == ("bgp", "layer2")
    assert cells[5].startswith("node-") and "," not in cells[5]


def test_without_one_replica_nothing_changes_for_traffic(folder: Folder) -> None:
    folder.manage()
    assert folder.cli("plan", "--without-replica", "node-a") == 0
    assert "Nothing changes for any address." in folder.out


def test_without_all_replicas_nobody_serves(folder: Folder) -> None:
    folder.manage()
    args = [word for name in ("node-a", "node-b", "node-c") for word in ("--without-replica", name)]
    assert folder.cli("plan", *args, "-o", "json") == 0
    after = json.loads(folder.out)["vips"][0]["after"]
    assert after == {
        "mode": "none",
        "nextHops": [],
        "peers": [],
        "why": "No replica is left to announce it or to answer for it.",
    }


def test_services_without_an_address_are_told_why(folder: Folder) -> None:
    folder.add_service("stuck", **{"eip.porter.kubesphere.io_v1alpha2": "nowhere"})
    folder.manage()
    assert folder.cli("plan", "-o", "json") == 0
    (refused,) = json.loads(folder.out)["refused"]
    assert (refused["service"], refused["reason"]) == ("default/stuck", "EipUnknown")


def test_new_services_would_get_an_address(folder: Folder) -> None:
    folder.manage()
    folder.add_service("late")
    assert folder.cli("plan", "-o", "json") == 0
    (new,) = json.loads(folder.out)["new"]
    assert (new["service"], len(new["addresses"])) == ("default/late", 1)


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("--without-node", "There is no node 'x'. There are: node-a, node-b, node-c."),
        ("--without-peer", "There is no BgpPeer 'x'. There are: tor."),
        ("--without-replica", "There is no replica 'x'. There are: node-a, node-b, node-c."),
    ],
)
def test_unknown_names_are_usage_errors(folder: Folder, option: str, message: str) -> None:
    folder.manage()
    assert folder.cli("plan", option, "x") == 2
    assert folder.err == f"porterlb: {message}\n"


def test_d5_a_missing_secret_is_shown_as_the_manager_refuses_it(folder: Folder) -> None:
    peer = """
apiVersion: network.kubesphere.io/v1alpha2
kind: BgpPeer
metadata: {name: secured}
spec:
  conf: {neighborAddress: 10.77.0.2, peerAs: 64500, authPasswordSecret: {name: router, key: password}}
"""
    (folder.path / "secured.yaml").write_text(peer)
    folder.manage()
    assert folder.cli("plan") == 0
    wanted = "There is no key 'password' in the Secret porterlb-system/router: no session."
    assert f"BgpPeer secured: spec.conf.authPasswordSecret: {wanted}" in " ".join((folder.out + folder.err).split())
    secret = "apiVersion: v1\nkind: Secret\nmetadata: {name: router, namespace: porterlb-system}\nstringData: "
    (folder.path / "secret.yaml").write_text(f"{secret}{{password: x}}\n")
    assert folder.cli("plan") == 0
    assert "Secret porterlb-system/router" not in folder.out + folder.err
