"""The status page's view of /state: problems first, bounded, unchanged while there is no news."""

from __future__ import annotations

import copy
import json
from dataclasses import replace
from typing import Any

import pytest

from porterlb.core.history import Entry, History, What, Why
from porterlb.core.json_text import json_text
from porterlb.core.layer2.notices import sentence
from porterlb.core.objects import ObjectKey
from porterlb.core.observed import AddressConflict, FreshReplica, Notice, NoticeKind
from porterlb.core.problems import Problem, Reason
from porterlb.core.status import page
from porterlb.core.status.page import page_of
from porterlb.core.status.state import state_of
from tests.core.stage import AUTO_VIP, EXPIRED, LATER, LAYER2_VIP, NOW, session, situation, snapshot


def state(
    entries: tuple[Entry, ...] = (), at: float = 0.0, told: dict[str, dict[str, str]] | None = None, **more: Any
) -> dict[str, Any]:
    """``told``: the reasons for lost sessions, from the API: by peer, by node."""
    view = {name: more.pop(name) for name in ("up", "fresh", "dead", "leader", "doubt") if name in more}
    made = replace(situation(snapshot("node-a", **view), **more), losses=told or {})
    return state_of(made, History(entries), at)


def shown(of: dict[str, Any]) -> list[tuple[str, str]]:
    return [(problem["level"], f"{problem['subject']}: {problem['text']}") for problem in page_of(of)["problems"]]


def test_a_cluster_without_problems() -> None:
    view = page_of({**state(), "host": {"release": "1.2"}})
    assert view["problems"] == [] and view["problemsLeftOut"] == 0
    assert view["counts"] == {
        "services": 3, "vips": 3, "notServed": 0, "nodes": 3, "dead": 0, "replicas": 3, "live": 3, "sessions": 3,
        "established": 3,
    }  # fmt: skip
    assert (view["node"], view["leader"], view["release"], view["waitingFor"]) == ("node-a", "node-a", "1.2", "")
    assert view["nodes"]["node-b"]["replica"] == "live" and view["nodes"]["node-b"]["usable"]
    by_address = {vip["address"]: vip for vip in view["vips"]}
    auto, segment = by_address[str(AUTO_VIP)], by_address[str(LAYER2_VIP)]
    assert auto["served"] == "bgp" and auto["announced"] == auto["servedOn"] == ["node-a", "node-b", "node-c"]
    assert segment["served"] == "layer2" and segment["servedOn"] == segment["nextHops"][:1] == [segment["answerer"]]
    assert not any(vip["wrong"] for vip in view["vips"]) and segment["announced"] == []


def test_before_anything_is_known_it_says_why() -> None:
    assert page_of({"ready": False, "waitingFor": "No API."}) == {"version": 1, "waitingFor": "No API."}
    assert page_of({})["waitingFor"] == "Nothing is known yet."


def test_a_dead_node_is_named_with_those_who_found_it() -> None:
    live = ("node-a", "node-b")
    fresh = {"node-b": FreshReplica("node-b", 1, frozenset({"tor"}), dead=frozenset({"node-c"}))}
    found = state(
        up=live,
        fresh=frozenset(live),
        dead=frozenset({"node-c"}),
        wire={"dead": frozenset({"node-c"}), "fresh": fresh},
    )
    assert found["nodes"]["node-c"]["deadBy"] == ["node-a", "node-b"]
    assert found["nodes"]["node-a"]["deadBy"] == []
    lines = shown(found)
    assert lines[0] == ("error", "node-c: The node does not answer probes, as node-a, node-b found.")
    assert ("warning", "node-c: The replica is not heard.") in lines
    view = page_of(found)
    assert view["nodes"]["node-c"]["replica"] == "silent" and view["nodes"]["node-c"]["dead"]
    assert view["counts"]["dead"] == 1 and view["counts"]["live"] == 2 and view["counts"]["sessions"] == 2


def test_sessions_that_are_down_say_why_and_on_which_nodes() -> None:
    down = {"sessions": {"tor": session(up=False, loss=EXPIRED, losses=1)}}
    found = state(up=("node-b",), bgp=down, told={"tor": {"node-c": "the port is filtered."}})
    assert found["peers"]["tor"]["sessions"]["node-b"] == {"established": True, "why": ""}
    assert not found["peers"]["tor"]["sessions"]["node-a"]["established"]
    lines = shown(found)
    assert ("warning", "node-c: No session with tor: the port is filtered.") in lines
    assert any(line.startswith("node-a: No session with tor: ") and level == "warning" for level, line in lines)
    all_down = shown(state(up=(), bgp=down))
    assert any(level == "error" and "No session with tor" in line for level, line in all_down)


def test_a_peer_that_is_switched_off_is_no_problem() -> None:
    of = snapshot("node-a", up=())
    of = replace(of, peers={"tor": replace(of.peers["tor"], admin_down=True)})
    found = state_of(situation(of), History(), 0.0)
    assert found["peers"]["tor"]["sessions"] == {}


def test_every_kind_of_problem_is_shown_and_errors_come_first() -> None:
    notice = Notice(NoticeKind.WRONG_KEY, "10.77.0.0/24", ("node-b",))
    found = state(
        wire={
            "conflicts": {AUTO_VIP: AddressConflict(AUTO_VIP, bytes(6), 0.0)},
            "claimed": {LAYER2_VIP: bytes(6)},
            "notices": (notice,),
            "trouble": "The wire process does not run.",
        },
        outage="timed out.",
        broken={"a.yaml:3": "is no YAML."},
        problems={ObjectKey("Eip", "", "bad"): (Problem(Reason.INVALID_ADDRESS, "is wrong.", "spec.address"),)},
        doubt=True,
    )
    found["wire"]["doubt"] = True
    found["bgp"]["trouble"] = "ExaBGP does not start."
    found["bgp"]["rejected"] = [{"peer": "tor", "nextHop": "10.0.0.1", "prefix": "10.0.0.0/32", "words": "no"}]
    found["services"]["default/new"] = {"addresses": [], "eips": [], "problems": ["No Eip."], "atNodeDeath": ""}
    found["eips"]["auto"]["problems"] = ["Full."]
    found["peers"]["tor"]["problems"] = ["matches no node."]
    lines = shown(found)
    levels = [level for level, _ in lines]
    assert levels == sorted(levels), "errors first"
    for line in (
        ("error", "API: The API is unavailable: timed out."),
        ("error", "node-a: This replica hears no other host, and changes nothing until it does."),
        ("error", "Layer 2: The wire process does not run."),
        ("error", "BGP: ExaBGP does not start."),
        ("error", f"{AUTO_VIP}: A foreign host (00:00:00:00:00:00) claims the address."),
        ("warning", f"{LAYER2_VIP}: A foreign host (00:00:00:00:00:00) had the address when it was to be assigned."),
        ("warning", "Service default/new: No Eip."),
        ("warning", "Eip auto: Full."),
        ("warning", "BgpPeer tor: matches no node."),
        ("warning", "Eip bad: spec.address: is wrong."),
        ("warning", f"Layer 2: {sentence(notice)}"),
        ("warning", "tor: ExaBGP refused 10.0.0.0/32: no"),
        ("warning", "a.yaml:3: is no YAML."),
    ):
        assert line in lines, line
    (conflict,) = [vip for vip in page_of(found)["vips"] if vip["address"] == str(AUTO_VIP)]
    assert conflict["wrong"] and page_of(found)["vips"][0] == conflict, "what has a problem comes first"


def test_a_vip_whose_traffic_reaches_a_dead_node_has_a_problem() -> None:
    found = state()
    found["nodes"]["node-b"]["dead"] = True
    wrong = {vip["address"] for vip in page_of(found)["vips"] if vip["wrong"]}
    assert wrong == {a for a, vip in found["vips"].items() if "node-b" in vip["servedOn"]} and wrong


def many(number: int, **more: Any) -> dict[str, Any]:
    found = state()
    vip = {**found["vips"][str(AUTO_VIP)], **more}
    return {**found, "vips": {f"10.{n >> 16}.{n >> 8 & 255}.{n & 255}": vip for n in range(number)}}


def test_what_many_have_alike_is_one_problem() -> None:
    lines = shown(many(40, served="none", problems=["No usable node."]))
    assert lines == [
        ("error", "10.0.0.0, 10.0.0.1, 10.0.0.2, 10.0.0.3, 10.0.0.4 and 35 more: Not served. No usable node.")
    ]
    assert shown(many(2, problems=["Slow."])) == [("warning", "10.0.0.0, 10.0.0.1: Slow.")]


def test_the_order_is_that_of_the_addresses() -> None:
    found = many(0)
    vip = state()["vips"][str(AUTO_VIP)]
    found["vips"] = dict.fromkeys(("fd00::1", "10.0.0.10", "10.0.0.9"), vip)
    assert [vip["address"] for vip in page_of(found)["vips"]] == ["10.0.0.9", "10.0.0.10", "fd00::1"]


def test_its_size_is_bounded_and_says_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    view = page_of(many(page.VIPS + 7))
    assert (len(view["vips"]), view["vipsLeftOut"]) == (page.VIPS, 7)
    assert len(json_text(view)) < 4_000_000
    monkeypatch.setattr(page, "MENTIONS", 90)  # 9 names each
    view = page_of(many(20))
    assert (len(view["vips"]), view["vipsLeftOut"]) == (10, 10)
    found = state(broken={f"{n}.yaml": f"{n}" for n in range(page.PROBLEMS + 3)})
    view = page_of(found)
    assert (len(view["problems"]), view["problemsLeftOut"]) == (page.PROBLEMS, 3)


def test_the_last_moves_are_shown_and_the_rest_does_not_displace_them() -> None:
    move = Entry(LATER, What.VIP_MOVED, "", ("node-c",), ("node-a",), Why.NODE_DEAD, "node-c", "layer2", (AUTO_VIP,))
    flap = Entry(LATER, What.SESSION_DOWN, "tor", cause="node-a")
    entries = (*[replace(move, time=NOW)] * 30, *[move] * 90, *[flap] * 200)
    found = page_of(state(entries))["history"]
    assert [entry["move"] for entry in found] == [False] * 100 + [True] * 100
    assert (found[0]["what"], found[0]["bad"]) == ("SessionDown", True)
    assert found[100]["time"] == LATER and found[-1]["time"] == NOW and not found[-1]["bad"]
    assert "moved from node-c to node-a" in found[-1]["message"]


def test_it_is_equal_while_there_is_nothing_new() -> None:
    before, after = state(), state(at=60.0, now=LATER)
    after["clock"], after["wire"]["counters"] = 99.0, {"answers": 7}
    assert json.dumps(before) != json.dumps(after)
    assert page_of(before) == page_of(after)


def test_it_changes_nothing_in_the_state_and_is_json() -> None:
    found = state(wire={"conflicts": {AUTO_VIP: AddressConflict(AUTO_VIP, bytes(6), 0.0)}}, broken={"b": "x"})
    before = copy.deepcopy(found)
    view = page_of(found)
    assert found == before and json.loads(json.dumps(view)) == view


def test_json_text_is_that_of_the_standard_library() -> None:
    odd = {
        "b": [1, {"z": None, "a": "\n\u2028"}],
        "a": {"y": {1: 2}, "x": []},
        "c": "é",
        "d": {},
        "e": 1.5,
        "f": {3: 4},
    }
    for value in (state(), page_of(state()), odd, {}):
        assert json_text(value) == json.dumps(value, sort_keys=True)
