"""Status: the state of the wire in sentences; times that move only after a change; never a password."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from ipaddress import ip_address
from typing import Any

import pytest

from porterlb.core.bgp.negotiated import Negotiated
from porterlb.core.bgp.reasons import Loss, LossKind, Refusal, RefusalKind, Trouble, TroubleKind
from porterlb.core.desired import Path
from porterlb.core.known import Known
from porterlb.core.model import (
    AddressRange,
    AdvertiseRule,
    Endpoint,
    Mode,
    Node,
    Peer,
    Protocol,
    Ready,
    Requirement,
    Selector,
    ServiceKey,
    Snapshot,
)
from porterlb.core.node_failure import Marking
from porterlb.core.objects import ObjectKey
from porterlb.core.observed import AddressConflict, FreshReplica
from porterlb.core.placement.policy import AT_ONCE
from porterlb.core.plan import plan
from porterlb.core.problems import Problem, Reason
from porterlb.core.sentences import listed
from porterlb.core.status import conditions
from porterlb.core.status.build import conf_status, eip_status, service_status
from porterlb.core.status.notices import eip_notices, object_notices, service_notices, session_notices
from porterlb.core.status.peer import negotiated_of, own_entry, peer_conditions
from porterlb.core.status.serving import Acknowledged, served_now
from porterlb.core.status.writes import service_write
from tests.core.stage import (
    AUTO_VIP,
    BGP_VIP,
    EXPIRED,
    EXPIRED_WORDS,
    LATER,
    LAYER2_VIP,
    MAIL,
    NOW,
    POLICY,
    SHOP,
    WEB,
    seen,
    situation,
    snapshot,
    with_protocol,
)


def find(status: Mapping[str, Any], type_: str) -> Mapping[str, Any]:
    found = conditions.find(status["conditions"], type_)
    assert found is not None, f"there is no condition {type_}"
    return found


# --- Service


def test_a_service_that_bgp_serves() -> None:
    status = service_status(situation(snapshot()), WEB, None)
    assert status["loadBalancer"] == {"ingress": [{"ip": "172.16.0.1", "ipMode": "VIP"}]}
    assigned, serving = find(status, "AddressAssigned"), find(status, "Serving")
    assert (assigned["status"], assigned["reason"]) == ("True", "Assigned")
    assert assigned["message"] == "172.16.0.1 from Eip routed is assigned."
    assert (serving["status"], serving["reason"]) == ("True", "BGP")
    assert serving["message"] == "172.16.0.1 is served by BGP: tor has next hops node-a, node-b and node-c."
    assert serving["lastTransitionTime"] == NOW


def test_a_service_that_layer2_serves() -> None:
    serving = find(service_status(situation(snapshot()), MAIL, None), "Serving")
    assert (serving["status"], serving["reason"]) == ("True", "Layer2")
    assert serving["message"].startswith("10.77.0.221 is served by Layer 2 on node-")


def test_an_answer_on_behalf_of_another_node_is_told() -> None:
    made = situation(snapshot(), answerer="node-b")
    on_wire = made.on_wire[LAYER2_VIP]
    assert on_wire.answered is not None
    text = find(service_status(made, MAIL, None), "Serving")["message"]
    if on_wire.answered.next_hop != "node-b":
        assert text.endswith(f"on {on_wire.answered.next_hop}, answered by node-b.")


def test_planned_is_not_served() -> None:
    """Promise 4: no replica has acknowledged the plan yet."""
    made = situation(snapshot(), applied=12345)
    serving = find(service_status(made, WEB, None), "Serving")
    assert serving["status"] == "False"
    assert serving["reason"] == "NotYetServed"


def test_one_replica_that_has_it_on_the_wire_is_enough() -> None:
    of = snapshot()
    made = plan(of, None, 0.0, POLICY)
    saw = seen(made, of, applied=12345)
    fresh = dict(saw.wire.fresh)
    fresh["node-b"] = replace(fresh["node-b"], applied=made.digest)
    saw = replace(saw, wire=replace(saw.wire, fresh=fresh))
    served = served_now(made.vips[BGP_VIP], saw, Acknowledged().updated(saw))
    assert served.mode is Mode.BGP
    assert set(served.next_hops) == set(made.vips[BGP_VIP].announced["tor"]["node-b"])


def test_what_was_acknowledged_stays_so_while_another_plan_is_under_way() -> None:
    of = snapshot()
    first = plan(of, None, 0.0, POLICY)
    acknowledged = Acknowledged().updated(seen(first, of))
    without = {key: value for key, value in of.services.items() if key != SHOP}
    changed = replace(of, services=without)
    second = plan(changed, first, 1.0, POLICY)
    assert second.digest != first.digest
    saw = seen(second, changed, applied=first.digest)
    now = acknowledged.updated(saw)
    assert served_now(second.vips[BGP_VIP], saw, now).mode is Mode.BGP


def test_a_replica_that_began_anew_has_acknowledged_nothing() -> None:
    of = snapshot()
    made = plan(of, None, 0.0, POLICY)
    saw = seen(made, of)
    acknowledged = Acknowledged().updated(saw)
    again = {name: FreshReplica(name, 2, frozenset({"tor"}), applied=7) for name in saw.wire.fresh}
    later = replace(saw, wire=replace(saw.wire, fresh=again), applied=0)
    assert served_now(made.vips[BGP_VIP], later, acknowledged.updated(later)).mode is Mode.NONE


def test_a_replica_that_is_not_heard_announces_nothing() -> None:
    of = snapshot()
    made = plan(of, None, 0.0, POLICY)
    saw = seen(made, of)
    acknowledged = Acknowledged().updated(saw)
    alone = replace(saw, wire=replace(saw.wire, fresh={}), applied=0)
    assert served_now(made.vips[BGP_VIP], alone, acknowledged.updated(alone)).mode is Mode.NONE


def test_a_session_that_is_down_carries_nothing() -> None:
    of = snapshot()
    made = plan(of, None, 0.0, POLICY)
    saw = seen(made, snapshot(up=()))
    served = served_now(made.vips[BGP_VIP], saw, Acknowledged().updated(saw))
    assert (served.mode, served.carried) == (Mode.NONE, {})


def test_a_refused_route_is_not_served_and_named() -> None:
    of = snapshot(fresh=frozenset({"node-a"}), up=("node-a",))
    made = plan(of, None, 0.0, POLICY)
    rejected = {(Path("tor", ip_address(f"10.77.0.{host}")), "172.16.0.1/32"): "no such family" for host in (11, 12)}
    status = service_status(situation(of, bgp={"rejected": rejected}), WEB, None)
    serving = find(status, "Serving")
    assert "tor has next hop node-c." in serving["message"]
    assert "The route to 10.77.0.11 is not announced to tor: no such family." in serving["message"]
    assert set(made.vips[BGP_VIP].announced["tor"]["node-a"]) == {"node-a", "node-b", "node-c"}


def test_an_answerer_that_is_gone_answers_nothing() -> None:
    made = situation(snapshot(), answerer="node-z")
    assert find(service_status(made, MAIL, None), "Serving")["status"] == "False"


def test_a_next_hop_that_is_dead_is_not_served() -> None:
    of = snapshot()
    hop = situation(of).on_wire[LAYER2_VIP].next_hops[0]
    made = situation(of, wire={"dead": frozenset({hop})})
    assert made.on_wire[LAYER2_VIP].mode is Mode.NONE


def test_no_ready_endpoint_is_the_reason() -> None:
    of = replace(snapshot(), endpoints={WEB: (Endpoint("node-a", ready=False, serving=False),)})
    serving = find(service_status(situation(of), WEB, None), "Serving")
    assert (serving["status"], serving["reason"]) == ("False", "NoReadyEndpoint")
    assert serving["message"].startswith("172.16.0.1 is not served: ")


def test_why_the_session_is_lost_is_told() -> None:
    of = snapshot(up=())
    made = replace(situation(of), losses={"tor": {"node-a": "hold timer expired", "node-b": "hold timer expired"}})
    serving = find(service_status(made, WEB, None), "Serving")
    assert serving["reason"] == "NoSession"
    assert "node-a, node-b lost tor: hold timer expired." in serving["message"]


def test_what_is_missing_is_told() -> None:
    of = snapshot(up=("node-a",), fresh=frozenset({"node-a"}))
    of = replace(of, peers={"tor": replace(of.peers["tor"], add_path=0)})
    text = find(service_status(situation(of), WEB, None), "Serving")["message"]
    assert "Not announced: node-" in text


def test_next_hops_that_no_rule_allows_are_not_missing() -> None:
    of = snapshot()
    rack = Selector((Requirement("rack", "In", frozenset({"b"})),))
    nodes = {**of.nodes, "node-b": replace(of.nodes["node-b"], labels={"rack": "b"})}
    only = replace(of.peers["tor"], advertise=(AdvertiseRule(node_selector=rack),))
    text = find(service_status(situation(replace(of, nodes=nodes, peers={"tor": only})), WEB, None), "Serving")
    assert "tor has next hop node-b" in text["message"]
    assert "Not announced" not in text["message"]


def test_a_second_peer_without_a_session_is_told() -> None:
    of = snapshot()
    other = Peer("spine", ip_address("10.77.0.2"), 64501, families=(4,))
    made = situation(replace(of, peers={**of.peers, "spine": other}))
    text = find(service_status(made, WEB, None), "Serving")["message"]
    assert "tor has next hops" in text
    assert "No session with spine." in text


def test_a_rival_is_told_and_the_service_goes_on() -> None:
    conflicts = {AUTO_VIP: AddressConflict(AUTO_VIP, bytes.fromhex("02000000aa01"), 0.0)}
    made = situation(snapshot(), wire={"conflicts": conflicts})
    serving = find(service_status(made, SHOP, None), "Serving")
    assert (serving["status"], serving["reason"]) == ("True", "AddressConflict")
    assert "A foreign host (02:00:00:00:aa:01) claims the address." in serving["message"]


def test_a_refused_service_is_told_why() -> None:
    of = snapshot()
    greedy = replace(of.services[WEB], key=ServiceKey("default", "greedy"), uid="g", held=(), wanted_eip="nowhere")
    of = replace(of, services={**of.services, greedy.key: greedy})
    status = service_status(situation(of), greedy.key, None)
    assigned = find(status, "AddressAssigned")
    assert (assigned["status"], assigned["reason"]) == ("False", "EipUnknown")
    assert "nowhere" in assigned["message"]
    assert "loadBalancer" not in status
    assert find(status, "Serving")["reason"] == "NoAddress"


def test_an_address_is_written_only_once_it_is_known_to_be_free() -> None:
    of = snapshot()
    new = replace(of.services[SHOP], key=ServiceKey("default", "new"), uid="n", held=(), wanted_eip="auto")
    of = replace(of, services={**of.services, new.key: new})
    made = situation(of)
    address = made.plan.services[new.key].addresses[0]
    probing = service_status(replace(made, unchecked=frozenset({address})), new.key, None)
    assert "loadBalancer" not in probing
    assert find(probing, "AddressAssigned")["reason"] == "Probing"
    given = service_status(made, new.key, probing)
    assert given["loadBalancer"]["ingress"][0]["ip"] == str(address)
    assert find(given, "Serving")["reason"] == "Pending"


def test_a_service_that_cannot_be_read_says_so() -> None:
    problem = Problem(Reason.INVALID_ADDRESS, '"10.0.0.300" is not an IP address.', "spec.loadBalancerIP")
    made = replace(situation(snapshot()), problems={ObjectKey("Service", "default", "bad"): (problem,)})
    assigned = find(service_status(made, ServiceKey("default", "bad"), None), "AddressAssigned")
    assert (assigned["reason"], assigned["message"]) == (
        "InvalidAddress",
        'spec.loadBalancerIP: "10.0.0.300" is not an IP address.',
    )


# --- times


def test_times_move_only_with_the_status() -> None:
    first = service_status(situation(snapshot()), WEB, None)
    same = service_status(situation(snapshot(), now=LATER), WEB, first)
    assert same == first
    message = service_status(situation(snapshot(up=("node-a",)), now=LATER), WEB, first)
    assert find(message, "Serving")["lastTransitionTime"] == NOW
    lost = service_status(situation(snapshot(up=()), now=LATER), WEB, first)
    assert find(lost, "Serving")["lastTransitionTime"] == LATER
    assert find(lost, "AddressAssigned")["lastTransitionTime"] == NOW


def test_odd_old_status_is_survived() -> None:
    for odd in ({"conditions": "x"}, {"conditions": [3, {"type": "Serving"}]}, {"conditions": None}, {}):
        assert find(service_status(situation(snapshot()), WEB, odd), "Serving")["status"] == "True"
        assert eip_status(situation(snapshot()), "auto", odd | {"mode": {}})["ready"]
        own_entry(situation(snapshot()), "tor", odd | {"nodesPeerStatus": {"node-a": {}}})


# --- Eip


def test_an_eip() -> None:
    status = eip_status(situation(snapshot()), "auto", None)
    shown = {
        name: status[name] for name in ("occupied", "usage", "poolSize", "firstIP", "lastIP", "ready", "v4", "used")
    }
    assert shown == {
        "occupied": False,
        "usage": 1,
        "poolSize": 16,
        "firstIP": "10.77.0.200",
        "lastIP": "10.77.0.215",
        "ready": True,
        "v4": True,
        "used": {"10.77.0.201": "default/shop"},
    }
    assert find(status, "Ready")["status"] == "True"
    assert find(status, "Conflicting")["status"] == "False"
    assert find(status, "Layer2Possible")["status"] == "True"


def test_a_v6_pool_is_shown_as_far_as_numbers_go() -> None:
    of = snapshot()
    big = replace(
        of.eips["auto"], ranges=(AddressRange(ip_address("fd00::"), ip_address("fd00::ffff:ffff:ffff:ffff")),)
    )
    status = eip_status(situation(replace(of, eips={"auto": big}, services={})), "auto", None)
    assert status["poolSize"] == 2**63 - 1
    assert status["v4"] is False
    assert "used" not in status


def test_an_eip_that_cannot_be_read() -> None:
    problem = Problem(Reason.INVALID_ADDRESS, '"10.0.0.300" is not an IP address.', "spec.address")
    made = replace(situation(snapshot()), problems={ObjectKey("Eip", "", "bad"): (problem,)})
    status = eip_status(made, "bad", None)
    assert status["ready"] is False
    ready = find(status, "Ready")
    assert (ready["status"], ready["reason"]) == ("False", "InvalidAddress")


def test_an_eip_that_overlaps_with_an_older_one() -> None:
    of = snapshot()
    younger = replace(of.eips["auto"], name="younger", created="2026-06-01")
    status = eip_status(situation(replace(of, eips={**of.eips, "younger": younger})), "younger", None)
    assert status["ready"] is False
    conflicting = find(status, "Conflicting")
    assert (conflicting["status"], conflicting["reason"]) == ("True", "Overlapping")
    assert "auto" in conflicting["message"]


def test_layer2_off_the_segment_is_told_from_the_start() -> None:
    of = with_protocol(snapshot(), "routed", Protocol.AUTO)
    possible = find(eip_status(situation(of), "routed", None), "Layer2Possible")
    assert (possible["status"], possible["reason"]) == ("False", "OffSegment")
    assert "Layer2Possible" not in {c["type"] for c in eip_status(situation(snapshot()), "routed", None)["conditions"]}


# --- mode


def test_the_mode_of_an_eip_and_its_history() -> None:
    of = snapshot()
    first = situation(of)
    status = eip_status(first, "auto", None)
    assert status["mode"] == {
        "protocol": "auto",
        "served": "bgp",
        "since": NOW,
        "cause": "SessionEstablished",
        "reason": "An established session carries it.",
        "vips": {"bgp": 1, "layer2": 0, "none": 0},
        "waiting": 0,
    }
    lost = situation(snapshot(up=()), first.plan, at=5.0, now=LATER)
    lost = replace(lost, losses={"tor": {"node-a": "the peer was shut down (maintenance)"}})
    after = eip_status(lost, "auto", status)
    assert (after["mode"]["served"], after["mode"]["since"]) == ("layer2", LATER)
    assert after["mode"]["reason"] == (
        "No established session carries it. node-a lost tor: the peer was shut down (maintenance)."
    )
    assert after["mode"]["history"] == [
        {
            "time": LATER,
            "before": "bgp",
            "after": "layer2",
            "cause": "NoSession",
            "reason": after["mode"]["reason"],
        }
    ]
    assert [notice.reason for notice in eip_notices(status, after)] == ["ModeChanged"]
    assert eip_notices(after, after) == []


def test_the_first_address_of_a_pool_is_no_change_of_mode() -> None:
    of = snapshot()
    empty = eip_status(situation(replace(of, services={})), "auto", None)
    assert (empty["mode"]["served"], empty["mode"]["vips"]) == ("none", {"bgp": 0, "layer2": 0, "none": 0})
    first = eip_status(situation(of, now=LATER), "auto", empty)
    assert (first["mode"]["served"], first["mode"]["since"]) == ("bgp", LATER)
    gone = eip_status(situation(replace(of, services={}), now=LATER), "auto", first)
    for status in (first, gone):
        assert "history" not in status["mode"]
    assert eip_notices(empty, first) == eip_notices(first, gone) == []


def test_the_history_is_bounded() -> None:
    old: Mapping[str, Any] | None = None
    made = None
    for turn in range(40):
        up = ("node-a", "node-b", "node-c") if turn % 2 == 0 else ()
        made = situation(snapshot(up=up), at=float(turn), now=f"2026-01-31T12:{turn:02}:00Z")
        old = eip_status(made, "auto", old)
    assert old is not None
    history = old["mode"]["history"]
    assert len(history) == 10
    assert history[0]["time"] == "2026-01-31T12:39:00Z"


def test_a_switch_by_hand_is_seen_only_once_it_is_on_the_wire() -> None:
    first = situation(snapshot())
    before = eip_status(first, "auto", None)
    of = with_protocol(snapshot(), "auto", Protocol.LAYER2)
    under_way = situation(of, first.plan, at=1.0, now=LATER, answerer="")
    status = eip_status(under_way, "auto", before)
    assert status["mode"]["protocol"] == "layer2"
    assert status["mode"]["waiting"] == 1
    assert status["mode"]["observedGeneration"] == 1
    both = situation(of, first.plan, at=1.0, now=LATER)
    status = eip_status(both, "auto", status)
    assert (status["mode"]["served"], status["mode"]["waiting"]) == ("layer2", 1), "the routes are still out"
    assert "previous path stays active" in status["mode"]["reason"]
    done = eip_status(situation(of, both.plan, at=1.1 + POLICY.overlap, now=LATER), "auto", status)
    assert (done["mode"]["served"], done["mode"]["waiting"]) == ("layer2", 0)
    assert done["mode"]["reason"] == "spec.protocol is layer2."


def test_vips_with_a_protocol_of_their_own_are_not_waited_for() -> None:
    of = snapshot()
    stubborn = replace(of.services[SHOP], protocol=Protocol.LAYER2)
    made = situation(replace(of, services={**of.services, SHOP: stubborn}))
    assert eip_status(made, "auto", None)["mode"]["vips"] == {"bgp": 0, "layer2": 0, "none": 0}


# --- BgpPeer and BgpConf


def test_the_entry_of_the_own_node() -> None:
    made = situation(snapshot())
    announced = sum(len(prefixes) for prefixes in made.plan.bgp.routes.values())
    assert announced > 0
    assert own_entry(made, "tor", None)["nodesPeerStatus"] == {
        "node-a": {
            "peerState": {
                "sessionState": "ESTABLISHED",
                "neighborAddress": "10.77.0.1",
                "peerAs": 64500,
                "localAs": 64512,
                "adminState": "UP",
            },
            "timersState": {"holdTime": "9", "keepaliveInterval": "3", "uptime": NOW},
            "announced": announced,
        }
    }


def test_the_last_loss_is_kept() -> None:
    first = own_entry(situation(snapshot()), "tor", None)
    lost = situation(snapshot(up=()), now=LATER, loss=EXPIRED, losses=1)
    second = own_entry(lost, "tor", first)
    loss = {"reason": EXPIRED_WORDS, "time": LATER, "count": 1}
    assert second["nodesPeerStatus"]["node-a"]["lastLoss"] == loss
    assert second["nodesPeerStatus"]["node-a"]["timersState"]["downtime"] == LATER
    assert [notice.reason for notice in session_notices("node-a", "tor", first, second)] == ["SessionLost"]
    back = own_entry(situation(snapshot(), now="2026-02-01T00:00:00Z", loss=EXPIRED, losses=1), "tor", second)
    assert back["nodesPeerStatus"]["node-a"]["lastLoss"]["time"] == LATER
    assert [notice.reason for notice in session_notices("node-a", "tor", second, back)] == ["SessionEstablished"]
    assert session_notices("node-a", "tor", back, back) == []
    # The replica starts again and counts from zero: its knowledge of the last loss stays.
    fresh = own_entry(situation(snapshot(), now="2026-02-02T00:00:00Z"), "tor", back)
    assert fresh["nodesPeerStatus"]["node-a"]["lastLoss"] == loss | {"count": 0}


def test_no_entry_where_no_session_is_wanted() -> None:
    of = snapshot()
    selected = replace(of.peers["tor"], node_selector=_selector("rack", "r1"))
    assert own_entry(situation(replace(of, peers={"tor": selected})), "tor", None) == {}


def _selector(key: str, value: str) -> Any:
    from porterlb.core.model import Requirement, Selector  # noqa: PLC0415

    return Selector((Requirement(key, "In", frozenset({value})),))


def test_a_peer_is_ready_with_all_of_its_sessions() -> None:
    whole = peer_conditions(situation(snapshot()), "tor", None)
    assert (whole["sessions"], find(whole, "Ready")["status"]) == ("3/3", "True")
    some = peer_conditions(situation(snapshot(up=("node-b",))), "tor", None)
    ready = find(some, "Ready")
    assert (some["sessions"], ready["status"], ready["reason"]) == ("1/3", "False", "Degraded")
    assert ready["message"] == "1 of 3 sessions established. Down: node-a and node-c."
    assert object_notices(whole, some) == [], "the sessions are told of one by one"
    nothing = peer_conditions(situation(snapshot(up=()), loss=Loss(LossKind.RESET)), "tor", None)
    none = find(nothing, "Ready")
    assert (nothing["sessions"], none["status"], none["reason"]) == ("0/3", "False", "NoSession")
    assert "node-a (The TCP connection was reset by the peer)" in none["message"]


def test_routes_are_counted_once_an_established_session_was_sent_them() -> None:
    of = snapshot()

    def announced(known: Known, old: Mapping[str, Any] | None) -> int:
        entry = own_entry(known, "tor", old)["nodesPeerStatus"]["node-a"]["announced"]
        assert isinstance(entry, int)
        return entry

    made = situation(of)
    wanted = sum(len(prefixes) for prefixes in made.plan.bgp.routes.values())
    assert wanted > 0
    assert announced(situation(of, applied=12345), None) == 0, "planned, and not applied"
    assert announced(made, None) == wanted
    before = own_entry(made, "tor", None)
    assert announced(situation(of, applied=12345), before) == wanted, "a new plan takes nothing back"
    down = replace(made, bgp=replace(made.bgp, sessions={"tor": replace(made.bgp.sessions["tor"], state="connect")}))
    assert announced(down, before) == 0, "the router has nothing without a session"


@pytest.mark.parametrize("kind", ["Service", "Eip", "BgpPeer", "BgpConf"])
def test_a_refused_edit_is_reported_with_its_generation(kind: str) -> None:
    """The refused object is the one that was judged; the object in force is older."""
    name = {"Service": "shop", "Eip": "auto", "BgpPeer": "tor", "BgpConf": "default"}[kind]
    key = ObjectKey(kind, "default" if kind == "Service" else "", name)
    wrong = (Problem(Reason.INVALID_FIELD, "is wrong."), Problem(Reason.KEPT, "The last one stays.", fatal=False))
    made = replace(situation(snapshot()), problems={key: wrong}, generations={key: 2})
    status = {
        "Service": lambda: service_status(made, ServiceKey("default", name), None),
        "Eip": lambda: eip_status(made, name, None),
        "BgpPeer": lambda: peer_conditions(made, name, None),
        "BgpConf": lambda: conf_status(made, name, None),
    }[kind]()
    assert {condition["observedGeneration"] for condition in status["conditions"]} == {2}
    unusable = replace(made, snapshot=replace(made.snapshot, eips={}))
    if kind == "Eip":
        assert find(eip_status(unusable, name, None), "Ready")["observedGeneration"] == 2


@pytest.mark.parametrize(
    ("change", "reason"),
    [({"admin_down": True}, "AdminDown"), ({"node_selector": _selector("rack", "r9")}, "NoNode")],
)
def test_a_peer_that_wants_no_session(change: dict[str, Any], reason: str) -> None:
    of = snapshot()
    made = situation(replace(of, peers={"tor": replace(of.peers["tor"], **change)}))
    assert find(peer_conditions(made, "tor", None), "Ready")["reason"] == reason


def test_a_peer_without_an_as_of_our_own() -> None:
    of = snapshot()
    made = situation(replace(of, conf=replace(of.conf, local_as=0)))
    status = peer_conditions(made, "tor", None)
    assert find(status, "Ready")["reason"] == "NoLocalAS"
    assert [notice.reason for notice in object_notices(None, status)] == ["NoLocalAS"]
    assert object_notices(status, status) == []


def test_the_conf_of_each_replica() -> None:
    made = replace(situation(snapshot()), generations={ObjectKey("BgpConf", "", "default"): 3})
    status = conf_status(made, "default", None)
    assert status["nodesConfStatus"]["node-b"] == {"routerId": "10.77.0.12", "as": 64512}
    assert set(status["nodesConfStatus"]) == {"node-a", "node-b", "node-c"}
    assert find(status, "Ready")["observedGeneration"] == 3


def test_a_wrong_edit_of_the_conf_shows_what_stays_in_force() -> None:
    wrong = Problem(Reason.INVALID_FIELD, "is not a number.", "spec.as")
    kept = Problem(Reason.KEPT, "The last version stays in force.", fatal=False)
    made = situation(snapshot())
    key = ObjectKey("BgpConf", "", "default")
    status = conf_status(replace(made, problems={key: (wrong, kept)}), "default", None)
    assert find(status, "Ready")["status"] == "False"
    assert set(status["nodesConfStatus"]) == {"node-a", "node-b", "node-c"}
    assert "nodesConfStatus" not in conf_status(replace(made, problems={key: (wrong,)}), "default", None)


def test_a_password_is_nowhere() -> None:
    secret = "correct-horse-battery"
    of = snapshot()
    made = situation(replace(of, peers={"tor": replace(of.peers["tor"], password=secret)}))
    assert made.plan.bgp.sessions["tor"].password == secret
    everything = [
        own_entry(made, "tor", None),
        peer_conditions(made, "tor", None),
        conf_status(made, "default", None),
        eip_status(made, "auto", None),
        service_status(made, WEB, None),
    ]
    assert secret not in json.dumps(everything)


# --- Events


def test_events_once_a_change() -> None:
    made = situation(snapshot())
    status = service_status(made, WEB, None)
    assert [notice.reason for notice in service_notices(None, status)] == ["AddressAssigned", "Serving"]
    assert service_notices(status, status) == []
    lost = service_status(situation(snapshot(up=())), WEB, status)
    assert [(n.reason, n.type_) for n in service_notices(status, lost)] == [("NotServing", "Warning")]
    assert [n.reason for n in service_notices(lost, status)] == ["Serving"]


def test_a_refusal_is_told_once_for_each_reason() -> None:
    def refused(reason: str) -> dict[str, Any]:
        return {"conditions": [{"type": "AddressAssigned", "status": "False", "reason": reason, "message": "x"}]}

    assert [n.reason for n in service_notices(None, refused("EipUnknown"))] == ["EipUnknown"]
    assert service_notices(refused("EipUnknown"), refused("EipUnknown")) == []
    assert [n.reason for n in service_notices(refused("EipUnknown"), refused("EipDisabled"))] == ["EipDisabled"]
    assert service_notices(None, refused("NotLeader")) == []


def test_lists_in_sentences() -> None:
    assert [listed([]), listed(["a"]), listed(["a", "b"]), listed("abc")] == ["", "a", "a and b", "a, b and c"]


def test_everything_is_json() -> None:
    made: Known = situation(replace(snapshot(), nodes=_with_a_sick_node(snapshot())))
    for status in (eip_status(made, "auto", None), service_status(made, SHOP, None), own_entry(made, "tor", None)):
        assert json.loads(json.dumps(status)) == status


def _with_a_sick_node(of: Snapshot) -> dict[str, Node]:
    return {**of.nodes, "node-c": replace(of.nodes["node-c"], ready=Ready.UNKNOWN)}


def test_a_vip_that_waits_longer_for_bgp_says_why() -> None:
    """A prefix limit: the sessions are lost each time the routes are announced."""
    made, now = plan(snapshot(), None, 0.0, POLICY, AT_ONCE), 0.0
    for _ in range(3):
        made = plan(snapshot(up=()), made, now := now + 1, POLICY, AT_ONCE)
        made = plan(snapshot(), made, now := now + 1, POLICY, AT_ONCE)
        waiting, at = made, now
        made = plan(snapshot(), made, now := made.wake_at or 0.0, POLICY, AT_ONCE)
    text = find(service_status(situation(snapshot(), waiting, at), SHOP, None), "Serving")["message"]
    assert "is served by Layer 2" in text
    assert "1.0 s after they were announced, 3 times in a row" in text and "prefix limit" in text


def test_a_service_whose_pods_would_not_be_marked_is_told_what_a_nodes_death_costs() -> None:
    def message(marking: Marking, endpoints: list[Endpoint]) -> str:
        base = snapshot()
        of = replace(base, endpoints={**base.endpoints, SHOP: tuple(endpoints)})
        status = service_status(replace(situation(of), marking=marking), SHOP, None)
        return str(next(c["message"] for c in status["conditions"] if c["type"] == "Serving"))

    spread = [Endpoint("node-a"), Endpoint("node-b")]
    for off in (Marking.OFF, Marking.UNBOUNDED):
        assert off.value in message(off, spread)
    assert "When a node dies" not in message(Marking.ON, spread)
    same = [replace(endpoint, same_node=True) for endpoint in spread]
    assert "When a node dies" not in message(Marking.OFF, same)


def test_what_was_negotiated_and_what_a_session_lacks_is_told() -> None:
    of = snapshot()
    made = situation(of)
    tor = made.bgp.sessions["tor"]
    partly = replace(tor, negotiated=Negotiated((4,), (), 6, True, True, True, "10.77.0.1"))
    known = replace(made, bgp=replace(made.bgp, sessions={"tor": partly}))
    entry = own_entry(known, "tor", None)["nodesPeerStatus"]["node-a"]
    assert entry["negotiated"] == {
        "families": ["AFI_IP"],
        "addPath": [],
        "holdTime": 6,
        "gracefulRestart": True,
        "fourOctetAs": True,
        "routeRefresh": True,
        "extendedNextHop": False,
        "tcpMd5": False,
    }
    assert entry["peerState"]["routerId"] == "10.77.0.1"
    assert entry["timersState"]["negotiatedHoldTime"] == "6"
    assert entry["timersState"]["keepaliveInterval"] == "2", "a third of what was negotiated"
    assert "did not negotiate add-path" in entry["reason"]
    status = own_entry(known, "tor", None)
    assert (
        "node-a: The router did not negotiate add-path"
        in find(peer_conditions(known, "tor", status), "Ready")["message"]
    )
    assert negotiated_of(status, "node-a", None) == Negotiated((4,), ())
    assert negotiated_of(None, "node-a", of.peers["tor"]) == Negotiated((4,), (4,), 9, True, True)


def test_prefixes_that_the_limit_withholds_are_counted() -> None:
    of = snapshot()
    made = situation(replace(of, peers={"tor": replace(of.peers["tor"], max_prefixes=2)}))
    known = replace(made, bgp=replace(made.bgp, withheld={"tor": 3}))
    status = own_entry(known, "tor", None)
    sentence = "spec.maxPrefixesSent is 2: 3 more prefixes are not announced by this node."
    assert status["nodesPeerStatus"]["node-a"]["reason"] == sentence
    assert f"node-a: {sentence}" in find(peer_conditions(known, "tor", status), "Ready")["message"]


def test_the_answer_to_the_last_attempt_reaches_the_condition() -> None:
    made = situation(snapshot(up=()), loss=Loss(LossKind.REMOVED, local=True), losses=1)
    attempt = Loss(LossKind.NOTIFICATION, 2, 2, local=True)
    tried = replace(made.bgp.sessions["tor"], attempt=attempt)
    known = replace(made, bgp=replace(made.bgp, sessions={"tor": tried}))
    assert "bad peer AS (2/2)" in own_entry(known, "tor", None)["nodesPeerStatus"]["node-a"]["reason"]
    assert "bad peer AS (2/2)" in find(peer_conditions(known, "tor", None), "Ready")["message"]


def test_what_keeps_a_peer_out_on_a_node_reaches_the_condition() -> None:
    made = situation(snapshot(up=()))
    refusal = Refusal(RefusalKind.PORT_PRIVILEGED, None, 179)
    refused = replace(made.bgp.sessions["tor"], refusal=refusal)
    known = replace(made, bgp=replace(made.bgp, sessions={"tor": refused}))
    assert "bgp.listenOnPrivilegedPort=true" in find(peer_conditions(known, "tor", None), "Ready")["message"]
    trouble = Trouble(TroubleKind.RELOAD_FAILED, text="No space left on device")
    broken = replace(made, bgp=replace(made.bgp, sessions={}, trouble=trouble))
    assert "No space left" in own_entry(broken, "tor", None)["nodesPeerStatus"]["node-a"]["reason"]


def test_a_leader_in_doubt_leaves_alone_what_its_plan_does_not_know_yet() -> None:
    """The replica was in doubt when the Service came: its plan is older. Then the leader died; now the replica is
    the leader."""
    now = snapshot(doubt=True)
    older = replace(now, services={key: service for key, service in now.services.items() if key != MAIL})
    kept = plan(replace(older, view=replace(older.view, doubt=False)), None, 0.0, POLICY, AT_ONCE)
    assert plan(now, kept, 1.0, POLICY, AT_ONCE) is kept
    known = seen(kept, now, leading=True)
    given = {"loadBalancer": {"ingress": [{"ip": str(LAYER2_VIP)}]}}
    assert service_write(known, MAIL, lambda key: {"metadata": {"name": "mail"}, "status": given}) is None
    assert service_write(known, SHOP, lambda key: {"metadata": {"name": "shop"}}) is not None
    record = {"used": {str(LAYER2_VIP): "default/mail", "10.77.0.222": "default/gone"}}
    status = eip_status(known, "segment", record)
    assert status["used"][str(LAYER2_VIP)] == "default/mail" and "10.77.0.222" not in status["used"]
    assert status["usage"] == len(status["used"])
    certain = replace(known, snapshot=replace(now, view=replace(now.view, doubt=False)))
    assert str(LAYER2_VIP) not in eip_status(certain, "segment", record).get("used", {})
