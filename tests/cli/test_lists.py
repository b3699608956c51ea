"""Lists and status: output for people, output for programs, and the messages about wrong input."""

from __future__ import annotations

import json
import time
from datetime import UTC, datetime, timedelta

import pytest
import yaml

from porterlb.cli.lists import eip_table, peer_table
from porterlb.cli.output import Table, age, plain_view
from tests.cli.conftest import Folder
from tests.core.stage import EXPIRED, EXPIRED_WORDS, NOW


def columns(line: str) -> list[str]:
    return [cell.strip() for cell in line.split("  ") if cell.strip()]


def test_eips_that_are_served(folder: Folder) -> None:
    folder.manage()
    assert folder.cli("eip", "list", "-o", "wide") == 0
    head, pool, routed = folder.out.splitlines()[1:]
    assert columns(head) == ["NAME", "ADDRESS", "PROTOCOL", "MODE", "SINCE", "USED", "LAYER 2", "READY", "MESSAGE"]
    assert columns(pool)[:4] == ["pool", "10.77.0.200-10.77.0.210", "auto", "bgp"]
    assert columns(pool)[5:8] == ["1 of 11", "node-b 1", "True"]
    assert columns(routed)[:4] == ["routed", "172.16.0.0/29", "bgp", "-"]


def test_eips_as_json(folder: Folder) -> None:
    folder.manage()
    assert folder.cli("eip", "list", "-o", "json") == 0
    pool, _ = json.loads(folder.out)["items"]
    assert pool == {
        "name": "pool",
        "address": "10.77.0.200-10.77.0.210",
        "protocol": "auto",
        "mode": "bgp",
        "since": NOW,
        "reason": "An established session carries it.",
        "used": 1,
        "size": 11,
        "ready": "True",
        "message": "Addresses are assigned.",
        "layer2Possible": "True",
        "layer2": {"node-b": 1},
        "askers": {},
        "disabled": False,
        "problems": [],
    }


def test_peers_with_every_session_and_the_last_loss(folder: Folder) -> None:
    folder.up, folder.lost = ("node-a", "node-b"), EXPIRED
    folder.manage()
    assert folder.cli("peer", "list", "-o", "wide") == 0
    lines = [columns(line) for line in folder.out.splitlines()[2:]]
    assert lines[0][:5] == ["tor", "10.77.0.1", "64500", "node-a", "ESTABLISHED"]
    assert lines[1][:2] == ["node-b", "ESTABLISHED"]
    assert lines[2][:2] == ["node-c", "ACTIVE"]
    assert lines[2][-1].startswith(f"{EXPIRED_WORDS.rstrip('.')} (")
    folder.cli("peer", "list", "-o", "yaml")
    (tor,) = yaml.safe_load(folder.out)["items"]
    assert (tor["established"], len(tor["sessions"])) == (2, 3)
    assert tor["sessions"][2]["lastLoss"] == {"reason": EXPIRED_WORDS, "time": NOW, "count": 1}


def test_services(folder: Folder) -> None:
    folder.add_service("stuck", **{"eip.porter.kubesphere.io_v1alpha2": "nowhere"})
    folder.manage()
    assert folder.cli("service", "list", "-o", "wide") == 0
    stuck, web = [columns(line) for line in folder.out.splitlines()[2:4]]
    assert web[:4] == ["default/web", "10.77.0.200", "yes", "bgp"]
    assert stuck[:3] == ["default/stuck", "-", "no"]
    assert "nowhere" in stuck[-1]
    folder.cli("-o", "json", "service", "list")
    by_name = {row["name"]: row for row in json.loads(folder.out)["items"]}
    assert by_name["stuck"]["reason"] == "EipUnknown"
    assert by_name["web"]["addresses"] == ["10.77.0.200"]
    assert by_name["web"]["mode"] == "bgp"


def test_status_at_a_glance(folder: Folder) -> None:
    folder.manage()
    assert folder.cli("status") == 0
    for line in (
        "node-a, node-b, node-c",
        "3 of 3 ready",
        "3 of 3 established",
        "1 of 1 served: 1 by bgp, 0 by layer2",
    ):
        assert line in folder.out
    folder.cli("status", "-o", "json")
    data = json.loads(folder.out)
    assert data["leader"] == "node-a"
    assert list(data) == ["version", "leader", "replicas", "nodes", "eips", "peers", "services", "sources", "problems"]
    assert {name: data["replicas"][0][name] for name in ("node", "address", "boot", "heard")} == {
        "node": "node-a",
        "address": "10.77.0.11",
        "boot": 1,
        "heard": None,
    }


def test_status_without_a_manager_says_so(folder: Folder) -> None:
    assert folder.cli("status") == 0
    assert "none: is a manager running?" in folder.out


def test_asking_leaves_the_folder_as_it_is(folder: Folder) -> None:
    before = sorted(folder.path.rglob("*"))
    for command in (("status",), ("eip", "list"), ("peer", "list"), ("service", "list"), ("plan",), ("mode",)):
        assert folder.cli(*command) == 0
    assert sorted(folder.path.rglob("*")) == before


WRONG = {
    "Eip far": ("kind: Eip\nmetadata: {name: far}\nspec: {address: 10.0.0.300}", "eip", "10.0.0.300"),
    "Eip back": ("kind: Eip\nmetadata: {name: back}\nspec: {address: 10.0.0.9-10.0.0.1}", "eip", "10.0.0.9-10.0.0.1"),
    "BgpPeer mute": (
        "kind: BgpPeer\nmetadata: {name: mute}\nspec: {conf: {neighborAddress: 10.0.0.1}}",
        "peer",
        "peerAs",
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_object_is_one_clear_sentence(folder: Folder, name: str) -> None:
    text, kind, word = WRONG[name]
    folder.write("wrong.yaml", f"apiVersion: network.kubesphere.io/v1alpha2\n{text}\n")
    folder.manage()
    for command in ((kind, "list"), ("status",)):
        assert folder.cli(*command) == 0
        told = [line for line in folder.out.splitlines() if line.startswith(f"{name}: ")]
        assert len(told) == 1, folder.out
        assert word in told[0]
        assert "Traceback" not in folder.out + folder.err
    folder.cli("service", "list")
    assert "default/web  10.77.0.200" in folder.out, "everything else goes on"


def test_overlapping_eips_are_told(folder: Folder) -> None:
    folder.manage()
    time.sleep(1.1)  # creation times have a resolution of 1 s, as in the API
    text = (
        "apiVersion: network.kubesphere.io/v1alpha2\nkind: Eip\nmetadata: {name: twin}\nspec: {address: 10.77.0.205}\n"
    )
    folder.write("twin.yaml", text)
    folder.manage()
    folder.cli("eip", "list", "-o", "wide")
    twin = next(line for line in folder.out.splitlines() if line.startswith("twin"))
    assert "False" in twin and "pool" in twin


def test_a_broken_file_is_one_clear_sentence(folder: Folder) -> None:
    folder.manage()
    folder.write("svc-web.yaml", "kind: Service\n  metadata: [\n")
    for command in ("eip list", "service list", "status"):
        assert folder.cli(*command.split()) == 0
        told = [line for line in folder.out.splitlines() if line.startswith("svc-web.yaml:")]
        assert len(told) == 1, folder.out
    assert "default/web" in folder.out, "the last good one stays"


def test_a_directory_that_is_not_there(folder: Folder, capsys: pytest.CaptureFixture[str]) -> None:
    from porterlb.cli.main import run  # noqa: PLC0415

    assert run(["--cluster", f"dir:{folder.path}/nowhere", "status"]) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("porterlb: The cluster cannot be reached: ")
    assert err.count("\n") == 1


# --- formatting


def test_columns_are_aligned_and_empty_cells_shown() -> None:
    table = Table(("NAME", "MODE"), [("pool", "bgp"), ("a-long-name", "")], "Eips")
    assert plain_view([table], ["Note."]) == "Note.\n\nEips:\nNAME         MODE\npool         bgp\na-long-name  -"
    assert plain_view([Table(("NAME",), [], empty="There is none.")]) == "There is none."


def test_ages() -> None:
    now = datetime(2026, 1, 31, 12, tzinfo=UTC)
    for seconds, shown in ((0, "0s"), (119, "119s"), (120, "2m"), (7300, "2h"), (300000, "3d")):
        assert age((now - timedelta(seconds=seconds)).isoformat(), now) == shown
    assert age((now + timedelta(seconds=5)).isoformat(), now) == "0s"
    assert (age("", now), age("soon", now)) == ("", "")


def test_the_number_of_addresses_of_an_ipv6_pool_fits_into_a_table() -> None:
    row = {
        "name": "pool",
        "address": "fd77::/64",
        "protocol": "bgp",
        "mode": "",
        "since": "",
        "used": 0,
        "size": 2**63 - 1,
        "ready": "True",
        "message": "",
        "disabled": False,
        "problems": [],
    }
    assert "0 of 9.2e18" in eip_table([row]).rows[0]
    assert "0 of 1048576" in eip_table([row | {"size": 1 << 20}]).rows[0]


def test_a_router_that_was_found_is_listed_with_its_interface() -> None:
    rows = [
        {
            "name": "leaf",
            "address": "eth1",
            "as": 64500,
            "sessions": [
                {
                    "node": f"node-{letter}",
                    "router": f"fe80::{letter}%eth1",
                    "state": "ESTABLISHED",
                    "since": NOW,
                    "announced": 2,
                    "reason": "",
                    "lastLoss": None,
                }
                for letter in "ab"
            ],
        }
    ]
    lines = peer_table(rows).rows
    assert [tuple(line[:2]) for line in lines] == [("leaf", "fe80::a%eth1"), (" ", "fe80::b%eth1")]
