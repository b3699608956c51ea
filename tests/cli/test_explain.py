"""explain: a verdict with an exit code, and the reason for each step of the manager's decision."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from porterlb.cli.explain import DEGRADED, NOT_SERVED, SERVED, Explanation, askable, explained
from porterlb.cli.replicas import Asked
from porterlb.cluster import ReplicaState
from porterlb.core.history import Entry, History, What, Why
from porterlb.core.known import Known
from porterlb.core.layer2.inquiry import Answer, Outcome
from porterlb.core.model import Endpoint, Layer2Rules, Requirement, Selector
from porterlb.core.node_failure import Marking
from porterlb.core.observed import AddressConflict
from porterlb.core.status.state import state_of
from porterlb.errors import PorterError
from tests.cli.conftest import Folder
from tests.cli.test_replicas import state, write
from tests.core.stage import AUTO_VIP, LATER, LAYER2_VIP, SHOP, situation, snapshot
from tests.core.test_drain import draining
from tests.core.test_plan import NAMES


def asked(*known: Known, history: History | None = None) -> Asked:
    states = [state_of(each, history or History(), now=0.0) for each in known]
    return Asked({each["node"]: ReplicaState(each["node"], each, 0.2, "file") for each in states})


def texts(made: Explanation, step: str) -> list[str]:
    return [text for name, text in made.steps if name.strip() == step]


def test_a_service_that_is_served() -> None:
    made = explained("default/shop", asked(situation(snapshot())), None)
    assert (made.code, made.verdict, made.problems) == (SERVED, "served", [])
    assert texts(made, "Address") == ["10.77.0.201 from Eip auto"]
    assert texts(made, "Nodes") == ["3 usable"]
    (peer,) = texts(made, "peer tor")
    assert "announces" in peer and "the router has node-a, node-b, node-c" in peer
    assert "node-a (file, 0.2 s old)" in texts(made, "Source")[0]
    assert explained(str(AUTO_VIP), asked(situation(snapshot())), None).name == "default/shop"


def test_a_dead_node_is_named_as_left_out_with_the_move() -> None:
    live = NAMES[:2]
    dead = situation(snapshot(up=live, fresh=frozenset(live), dead=frozenset({NAMES[2]})))
    move = Entry(LATER, What.VIP_MOVED, "", NAMES, live, Why.NODE_DEAD, NAMES[2], "bgp", (AUTO_VIP,))
    made = explained("default/shop", asked(dead, history=History((move,))), None)
    assert texts(made, "Nodes") == ["2 usable; left out: node-c does not answer probes"]
    assert texts(made, "History")[0].endswith("because node-c does not answer probes.")
    assert made.code == SERVED


def test_the_cost_of_a_nodes_death_is_told_where_no_pods_are_marked() -> None:
    base = snapshot()
    of = replace(base, endpoints={**base.endpoints, SHOP: (Endpoint("node-a"), Endpoint("node-b"))})
    made = explained("default/shop", asked(replace(situation(of), marking=Marking.OFF)), None)
    assert texts(made, "Node's death") == [Marking.OFF.value]
    assert (made.code, made.problems) == (SERVED, []), "it is served, and this is no fault"
    unbounded = explained("default/shop", asked(replace(situation(of), marking=Marking.UNBOUNDED)), None)
    assert "is not enforced" in texts(unbounded, "Node's death")[0]
    assert texts(explained("default/shop", asked(situation(of)), None), "Node's death") == []


def test_nodes_that_the_eip_excludes_are_named_with_the_reason() -> None:
    base = snapshot()
    auto = replace(base.eips["auto"], layer2=Layer2Rules(node_selectors=(Selector((Requirement("x", "Exists"),)),)))
    labelled = {**base.nodes, "node-a": replace(base.nodes["node-a"], labels={"x": ""})}
    made = explained(
        "default/shop", asked(situation(replace(base, nodes=labelled, eips={**base.eips, "auto": auto}))), None
    )
    assert texts(made, "left out") == ["in Layer 2: node-b, node-c (does not match spec.layer2.nodeSelectors)"]
    assert made.code == SERVED
    assert texts(explained("default/shop", asked(situation(base)), None), "left out") == []


def test_a_drained_node_is_named() -> None:
    made = explained("default/shop", asked(situation(draining(snapshot(), "node-c"))), None)
    assert texts(made, "Drained") == ["node-c (next hop of nothing that others serve)"]
    assert made.code == SERVED
    assert texts(explained("default/shop", asked(situation(snapshot())), None), "Drained") == []


def test_what_is_degraded_or_not_served() -> None:
    rival = {"conflicts": {AUTO_VIP: AddressConflict(AUTO_VIP, bytes(6), 1.0)}}
    made = explained("default/shop", asked(situation(snapshot(), wire=rival)), None)
    assert made.code == DEGRADED and "claims 10.77.0.201" in made.problems[0]
    silent = explained("default/web", asked(situation(snapshot(up=()))), None)
    assert silent.code == NOT_SERVED and "No BGP session that carries it is established." in silent.problems
    of = snapshot()
    stuck = replace(of.services[SHOP], key=SHOP._replace(name="stuck"), held=(), wanted_eip="nowhere")
    made = explained("default/stuck", asked(situation(replace(of, services={stuck.key: stuck}))), None)
    assert made.code == NOT_SERVED and any("nowhere" in problem for problem in made.problems)


def test_replicas_that_see_different_next_hops_are_named() -> None:
    one, two = situation(snapshot("node-a")), situation(snapshot("node-b"))
    served = two.on_wire[LAYER2_VIP]
    assert served.answered is not None
    other = next(name for name in NAMES if name != served.answered.next_hop)
    moved = replace(served, answered=replace(served.answered, next_hop=other))
    two = replace(two, on_wire={**two.on_wire, LAYER2_VIP: moved})
    made = explained("default/mail", asked(one, two), None)
    assert made.code == DEGRADED and "Replicas see different next hops" in made.problems[0]


def test_a_route_that_the_router_lacks_is_degraded() -> None:
    known = situation(snapshot(up=("node-a", "node-b")))
    state: dict[str, Any] = state_of(known, History(), now=0.0)
    vip = state["vips"]["172.16.0.1"]
    vip["carried"] = {"tor": vip["carried"]["tor"][:1]}
    made = explained("default/web", Asked({"node-a": ReplicaState("node-a", state, 0.0, "file")}), None)
    assert made.code == DEGRADED and made.problems[0].startswith("tor lacks next hop ")


def layer2_state() -> tuple[dict[str, Any], str, str]:
    """The state of a replica, the next hop of the Layer 2 VIP, and another node."""
    seen: dict[str, Any] = state_of(situation(snapshot()), History(), now=0.0)
    hop = seen["vips"][str(LAYER2_VIP)]["answering"]["nextHop"]
    seen["vips"][str(LAYER2_VIP)]["answering"]["answerer"] = hop
    return seen, hop, next(name for name in NAMES if name != hop)


def test_what_the_segment_answers_is_compared_with_the_plan() -> None:
    seen, hop, other = layer2_state()
    one = Asked({"node-a": ReplicaState("node-a", seen, 0.0, "file")})
    assert askable("default/mail", one) == askable(str(LAYER2_VIP), one) == [str(LAYER2_VIP)]
    assert askable("default/web", one) == [], "BGP only"

    def heard(*answers: Answer) -> list[Outcome]:
        return [Outcome(str(LAYER2_VIP), "eth0", None, answers)]

    right, wrong = Answer(b"\2" * 6, hop, 0.001), Answer(b"\4" * 6, "", 0.002)
    made = explained("default/mail", one, None, {other: heard(right), hop: heard()})
    assert (made.code, [row.asker for row in made.seen]) == (SERVED, [other]), "the answerer hears nothing, rightly"
    assert texts(made, "segment") == [f"{other} asked on eth0: 02:02:02:02:02:02 ({hop}) after 1.0 ms (as planned)"]
    made = explained("default/mail", one, None, {hop: heard()})
    assert made.code == SERVED and "does not hear its own answer" in texts(made, "segment")[0]
    made = explained("default/mail", one, None, {other: heard(right, wrong)})
    assert made.code == DEGRADED and "A foreign host (04:04:04:04:04:04) answers" in made.problems[0]
    made = explained("default/mail", one, None, {other: heard()})
    assert made.code == DEGRADED and made.problems[0].startswith(f"Nobody answers for {LAYER2_VIP} on eth0 of {other}")
    made = explained("default/mail", one, None, {other: "there is no pod"})
    assert made.code == SERVED and texts(made, "segment") == [f"{other} cannot be asked: there is no pod"]
    assert texts(explained("default/mail", one, None), "segment") == []
    (text,) = texts(explained("default/web", one, None, {}), "segment")
    assert text == "not asked: no replica answers for the address in Layer 2"


def test_the_command_asks_the_segment_by_the_replica_that_it_was_given(
    folder: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen, hop, _ = layer2_state()
    monkeypatch.setattr("porterlb.cli.explain.read", lambda url: ReplicaState("node-x", seen, 0.0, url))
    inquiries = []

    def ask_at(url: str, node: str, addresses: list[str]) -> dict[str, list[Outcome]]:
        inquiries.append((url, node, addresses))
        return {node: [Outcome(str(LAYER2_VIP), "eth0", None, (Answer(b"\2" * 6, "node-x", 0.001),))]}

    monkeypatch.setattr("porterlb.cli.explain.ask_at", ask_at)
    url = "http://127.0.0.1:7472"
    assert folder.cli("explain", "default/mail", "--wire", "--from", url, "-o", "json") == DEGRADED
    assert inquiries == [(url, "node-x", [str(LAYER2_VIP)])]
    data = json.loads(folder.out)
    (row,) = data["segment"]
    assert (row["verdict"], row["planned"]["nextHops"]) == ("otherNode", [hop])
    assert row["answers"] == [{"mac": "02:02:02:02:02:02", "node": "node-x", "after": 1.0}]
    assert folder.cli("explain", "default/mail", "--from", url, "-o", "json") == SERVED
    assert "segment" not in json.loads(folder.out) and len(inquiries) == 1
    assert folder.cli("explain", "default/web", "--wire", "--from", url) == SERVED
    assert "not asked: no replica answers" in folder.out and len(inquiries) == 1


def test_where_nothing_leads_to_a_replica_one_line_says_so(folder: Folder) -> None:
    folder.manage()
    seen, hop, other = layer2_state()
    for name in (hop, other):
        write(folder, name, seen | {"node": name})
    folder.cli("explain", "default/mail", "--wire")
    line = f"{other} cannot be asked: Nothing leads to the replica on {other} but its own address: use --from URL"
    assert line in " ".join(folder.out.split())


def test_a_name_that_nobody_knows() -> None:
    with pytest.raises(PorterError, match="Is it default/shop") as error:
        explained("prod/shop", asked(situation(snapshot())), None)
    assert error.value.exit_code == 2


def test_the_command(folder: Folder) -> None:
    folder.manage()
    assert folder.cli("explain", "default/web") == 1
    assert "No replica can be asked" in folder.err
    write(folder, "node-a", state("node-a"))
    assert folder.cli("explain", "default/web", "-o", "json") == SERVED
    data = json.loads(folder.out)
    assert data["verdict"] == "served"
    assert any(step["step"] == "Endpoints" and " ready" in step["text"] for step in data["steps"])
    assert folder.cli("explain", "default/web") == SERVED
    assert "Verdict" in folder.out
