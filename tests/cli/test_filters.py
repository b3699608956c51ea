"""The content of a list: filters, 80 columns, and the output for a user with few rights."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import pytest

from porterlb.cli import options
from porterlb.cli.filters import Filter, eip_wrong, peer_wrong, service_wrong
from porterlb.cli.main import run
from porterlb.cli.output import Table, plain_view
from porterlb.cluster import Denied, Kind, LeaseRecord, Outage
from tests.cli.conftest import NODES, SERVICE, Folder
from tests.cli.test_replicas import state, write

BROKEN = {"eip.porter.kubesphere.io_v1alpha2": "an-eip-with-a-long-name-that-nobody-has-created"}


def names(folder: Folder) -> list[str]:
    return [row["name"] for row in json.loads(folder.out)["items"]]


def session(node: str, state: str = "ESTABLISHED") -> dict[str, Any]:
    return {"node": node, "state": state}


SESSIONS = [session("a"), session("b", "IDLE")]
PEER: dict[str, Any] = {"name": "tor", "ready": "True", "problems": [], "sessions": SESSIONS}


def test_services_of_a_namespace_an_eip_or_with_a_problem(folder: Folder) -> None:
    folder.add_service("stuck", **BROKEN)
    folder.write("other.yaml", SERVICE.format(name="far", annotations="{}").replace("default", "shop"))
    folder.manage()
    asked = ("service", "list", "-o", "json")
    for args, expected in (
        ((), ["stuck", "web", "far"]),
        (("-A", "-n", "shop"), ["stuck", "web", "far"]),
        (("-n", "shop"), ["far"]),
        (("--eip", "pool"), ["web", "far"]),
        (("--eip", "routed"), []),
        (("--problems",), ["stuck"]),
        (("-n", "shop", "--problems"), []),
    ):
        assert folder.cli(*asked, *args) == 0
        assert names(folder) == expected, args
    assert folder.cli("service", "list", "--eip", "x") == 2
    assert "There is no Eip 'x'. There are: pool, routed." in folder.err


def test_services_whose_traffic_comes_to_a_node(folder: Folder) -> None:
    folder.manage()
    assert folder.cli("service", "list", "--node", "node-a") == 1
    assert "No replica can be asked for the next hops (--node)." in folder.err
    for node in NODES:
        shown = state(node)
        vip = {**shown["vips"]["172.16.0.1"], "served": "bgp", "carried": {"tor": ["node-a", "node-b"]}}
        write(folder, node, {**shown, "vips": {"10.77.0.200": vip}})
    for node, expected in (("node-a", ["web"]), ("node-c", [])):
        assert folder.cli("service", "list", "--node", node, "-o", "json") == 0
        assert names(folder) == expected
    assert folder.cli("service", "list", "--node", "node-x") == 2


def test_eips_and_peers(folder: Folder) -> None:
    folder.up = ("node-a", "node-b")
    folder.manage()
    assert folder.cli("eip", "list", "--eip", "routed", "-o", "json") == 0 and names(folder) == ["routed"]
    assert folder.cli("eip", "list", "--problems", "-o", "json") == 0 and names(folder) == []
    assert folder.cli("peer", "list", "--problems", "-o", "json") == 0
    (tor,) = json.loads(folder.out)["items"]
    assert [each["node"] for each in tor["sessions"]] == ["node-c"]
    assert folder.cli("peer", "list", "--node", "node-a", "--problems", "-o", "json") == 0 and names(folder) == []


def test_what_counts_as_a_problem() -> None:
    service = {"serving": "True", "problems": []}
    assert not service_wrong(service)
    assert service_wrong({**service, "serving": None}) and service_wrong({**service, "problems": [1]})
    pool = {"ready": "True", "problems": [], "used": 1, "mode": "bgp"}
    assert not eip_wrong(pool) and not eip_wrong({**pool, "used": 0, "mode": "none"})
    assert eip_wrong({**pool, "mode": "none"}) and eip_wrong({**pool, "ready": "False"})
    assert peer_wrong(PEER) and not peer_wrong({**PEER, "sessions": [session("a")]})
    assert peer_wrong({**PEER, "sessions": []}) and peer_wrong({**PEER, "sessions": [session("a")], "ready": "False"})
    lonely = {**PEER, "sessions": []}
    assert Filter(problems=True).peers([lonely]) == [lonely] and Filter(node="a").peers([lonely]) == []


def test_status_shows_the_problems_only(folder: Folder) -> None:
    folder.up = ("node-a", "node-b")
    folder.add_service("stuck", **BROKEN)
    folder.manage()
    assert folder.cli("status", "--problems") == 0
    assert "default/stuck" in folder.out and "default/web" not in folder.out and "Leader" not in folder.out
    assert "node-c" in folder.out
    assert folder.cli("status", "-n", "nowhere", "-o", "json") == 0
    data = json.loads(folder.out)
    assert data["services"]["list"] == [] and data["services"]["total"] == 2, "the counts are those of everything"


def test_a_terminal_of_80_columns_shows_every_problem_of_40_services(
    folder: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(40):
        folder.add_service(f"service-with-a-name-{number}", **(BROKEN if number % 13 == 0 else {}))
    folder.write("typo.yaml", "apiVersion: network.kubesphere.io/v1alpha2\nkind: Eip\nmetadata: {name: typo}\nspec: {}")
    folder.manage()
    from porterlb.cli import status  # noqa: PLC0415

    shown: list[str] = []

    def as_terminal(output: str, data: object, tables: list[Table], notes: list[str]) -> None:
        shown.append(plain_view(tables, notes, width=80))

    monkeypatch.setattr(status, "show", as_terminal)
    assert folder.cli("status") == 0
    assert folder.cli("status", "--problems") == 0
    whole, problems = (text.splitlines() for text in shown)
    for lines in (whole, problems):
        assert max(map(len, lines)) <= 80, max(lines, key=len)
        text = " ".join(" ".join(lines).split())
        for number in (0, 13, 26, 39):
            assert f"default/service-with-a-name-{number}" in text
        assert "an-eip-with-a-long-name-that-nobody-has-created" in text, "no word is broken"
    typo = next(number for number, line in enumerate(whole) if "Eip typo" in line)
    assert typo < whole.index(next(line for line in whole if line.startswith("WHAT"))), "problems come first"


def test_cells_are_folded_between_words() -> None:
    table = Table(
        ("NAME", "ADDRESS", "MESSAGE"),
        [("pool", "10.77.0.200-10.77.0.215,fd00:77::100-fd00:77::1ff", "It is bad."), ("ok", "10.0.0.1", "Fine.")],
        message=True,
        wrong=(True, False),
    )
    assert plain_view([table], width=32).splitlines() == [
        "NAME  ADDRESS",
        "pool  10.77.0.200-10.77.0.215,",
        "      fd00:77::100-fd00:77::1ff",
        "  It is bad.",
        "ok    10.0.0.1",
    ]
    assert "Fine." in plain_view([table], wide=True) and "It is bad." in plain_view([table], wide=True)
    assert table.problems_only().rows == [table.rows[0]]
    word = "a" * 90
    assert plain_view([Table(("NAME",), [(word,)])], width=80).splitlines()[1] == word, "a name is never broken"


class Limited:
    """An API that refuses some kinds."""

    namespace = "porterlb-system"

    def __init__(self, refused: frozenset[Kind]) -> None:
        self.refused = refused

    async def watch(self, kinds: object) -> AsyncIterator[Outage]:
        yield Outage("nodes is forbidden.", refused=True)

    async def objects(self, kind: Kind) -> list[dict[str, Any]]:
        if kind in self.refused:
            raise Denied(f"{kind.plural} is forbidden: the user jane cannot list it.")
        if kind is not Kind.SERVICE:
            return []
        spec = {"type": "LoadBalancer", "ports": [{"port": 80}]}
        return [{"metadata": {"name": "web", "namespace": "default"}, "spec": spec}]

    async def leases(self) -> list[LeaseRecord]:
        raise Denied("leases is forbidden: the user jane cannot list it.")

    async def close(self) -> None:
        pass


def test_with_few_rights_an_answer_has_what_can_be_read(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    refused = frozenset({Kind.NODE, Kind.NAMESPACE, Kind.BGP_PEER})
    monkeypatch.setattr(options, "open_cluster", lambda *_, **__: Limited(refused))
    assert run(["service", "list"]) == 0
    shown = capsys.readouterr().out
    assert "default/web" in shown
    for plural in ("nodes", "namespaces", "bgppeers", "leases"):
        assert f"Not read: {plural}: {plural} is forbidden: the user jane cannot list it." in shown
    assert run(["status"]) == 0
    assert run(["peer", "list"]) == 1
    assert "refuses: bgppeers is forbidden: the user jane cannot list it." in capsys.readouterr().err
    assert run(["plan"]) == 1, "a plan of half of the objects would be wrong"
    monkeypatch.setattr(options, "open_cluster", lambda *_, **__: Limited(frozenset(Kind)))
    assert run(["service", "list"]) == 1
