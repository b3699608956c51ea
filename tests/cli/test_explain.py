"""explain: a verdict with an exit code, and the reason of each step as the manager decided it."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from porterlb.cli.explain import DEGRADED, NOT_SERVED, SERVED, Explanation, explained
from porterlb.cli.replicas import Asked
from porterlb.cluster import ReplicaState
from porterlb.core.history import Entry, History, What, Why
from porterlb.core.known import Known
from porterlb.core.model import Endpoint
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
