"""spec.layer2 of an Eip: which nodes answer for its VIPs, on which interface, and which nodes are preferred."""

from __future__ import annotations

import json
from dataclasses import replace
from ipaddress import ip_address, ip_interface, ip_network
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from porterlb.core import layer2_choice, membership, wire_text
from porterlb.core.desired import DesiredWire, Layer2Scope, Layer2Vip
from porterlb.core.model import (
    Eip,
    Endpoint,
    Interface,
    Layer2Rules,
    Mode,
    Node,
    Preference,
    Protocol,
    Requirement,
    Selector,
    Snapshot,
    TrafficPolicy,
)
from porterlb.core.nexthops import MOST
from porterlb.core.observed import Nic
from porterlb.core.parse import parse_eip
from porterlb.core.placement import balancing
from porterlb.core.placement.census import movable
from porterlb.core.placement.policy import AT_ONCE
from porterlb.core.plan import Plan, plan
from porterlb.core.problems import Reason
from porterlb.core.status.build import eip_status
from porterlb.core.status.notices import eip_notices
from porterlb.core.whatif import Missing, what_if
from tests.core.stage import AUTO_VIP, LAYER2_VIP, POLICY, situation, snapshot
from tests.core.test_parse_eip import good
from tests.core.test_plan import NAMES

SEGMENT = ip_network("10.77.0.0/24")


def rack(*values: str) -> Selector:
    return Selector((Requirement("rack", "In", frozenset(values)),))


def with_rules(of: Snapshot | None = None, name: str = "segment", eip: Any = None, **rules: Any) -> Snapshot:
    """Racks a, b and c have one node each."""
    of = of or snapshot()
    nodes = {node: replace(known, labels={"rack": node[-1]}) for node, known in of.nodes.items()}
    changed = replace(of.eips[name], layer2=Layer2Rules(**rules), **(eip or {}))
    return replace(of, nodes=nodes, eips={**of.eips, name: changed})


def with_interfaces(of: Snapshot, **listed: dict[str, str | None]) -> Snapshot:
    """By the last letter of a node: the address of each interface; None: the interface is missing or down."""
    members = dict(of.members)
    for letter, found in listed.items():
        name = f"node-{letter}"
        up: list[tuple[str, tuple[Interface, ...]]] = [
            (nic, (ip_interface(address),) if address else ()) for nic, address in found.items() if address is not None
        ]
        lacks = tuple(sorted(nic for nic, address in found.items() if address is None))
        members[name] = replace(members[name], lacks=lacks, listed=tuple(sorted(up)))
    return replace(of, members=members)


def made(of: Snapshot) -> Plan:
    return plan(of, None, 0.0, POLICY, AT_ONCE)


def scope_of(of: Snapshot) -> Layer2Scope:
    found = made(of).wire
    return found.scopes[found.vips[LAYER2_VIP].scope]


# --- spec


def refused(**spec: Any) -> list[str]:
    parsed = parse_eip({"metadata": {"name": "x"}, "spec": {"address": "10.0.0.1", **spec}})
    assert parsed.value is None
    return [str(problem) for problem in parsed.problems]


def test_the_fields_are_read() -> None:
    spec = {
        "interfaces": ["eth0", "ens3", "eth0"],
        "nodeSelectors": [{"matchLabels": {"rack": "a"}}, {}],
        "preferred": [{"weight": 80, "nodeSelector": {"matchLabels": {"rack": "b"}}}],
    }
    rules = good({"address": "10.0.0.1", "layer2": spec}).layer2
    assert rules == Layer2Rules(("eth0", "ens3"), (rack("a"), Selector()), (Preference(80, rack("b")),))
    assert rules and rules.limits
    assert not good({"address": "10.0.0.1", "layer2": {}}).layer2
    only = Layer2Rules(preferred=(Preference(1, Selector()),))
    assert only and not only.limits


@pytest.mark.parametrize(
    ("layer2", "sentence"),
    [
        ({"interfaces": ["eth*"]}, 'spec.layer2.interfaces: "eth*" is a list or a pattern; write each name as one'),
        ({"interfaces": ["eth0/1"]}, 'spec.layer2.interfaces: "eth0/1" is not the name of a network interface.'),
        ({"interfaces": ["can_reach:10.0.0.1"]}, "is not the name of a network interface."),
        ({"nodeSelectors": {"matchLabels": {}}}, "spec.layer2.nodeSelectors: an object is not a list."),
        ({"nodeSelectors": [{"rack": "a"}]}, 'spec.layer2.nodeSelectors[0]: "rack" is not part of a label selector'),
        ({"nodeSelectors": [None]}, "spec.layer2.nodeSelectors[0]: null is not an object."),
        ({"preferred": [{"weight": 0, "nodeSelector": {}}]}, "spec.layer2.preferred[0].weight: 0 is out of range"),
        ({"preferred": [{"weight": 101, "nodeSelector": {}}]}, "101 is out of range: it must be 1 to 100."),
        ({"preferred": [{"nodeSelector": {}}]}, "spec.layer2.preferred[0].weight: is missing"),
        ({"preferred": [{"weight": 5}]}, "spec.layer2.preferred[0].nodeSelector: is missing"),
    ],
)
def test_a_wrong_value_is_refused_with_a_sentence_that_names_the_field(layer2: Any, sentence: str) -> None:
    assert any(sentence in message for message in refused(layer2=layer2)), refused(layer2=layer2)


@pytest.mark.parametrize("interface", ["eth0", "can_reach:10.0.0.1"])
def test_the_two_fields_for_interfaces_contradict_each_other(interface: str) -> None:
    (message,) = refused(interface=interface, layer2={"interfaces": ["eth0"]})
    assert message == (
        "spec.layer2.interfaces: contradicts spec.interface: name the interfaces in one of the two fields."
    )


def test_preferences_have_no_effect_on_hosts_and_unknown_fields_are_named() -> None:
    spec = {"address": "10.0.0.1", "layer2Spread": "hosts"}
    layer2 = {"preferred": [{"weight": 5, "nodeSelector": {}}], "nodeSelector": {}}
    parsed = parse_eip({"metadata": {"name": "x"}, "spec": {**spec, "layer2": layer2}})
    assert parsed.value is not None
    preferred, unknown = parsed.problems
    assert preferred.field == "spec.layer2.preferred" and "layer2Spread: hosts" in preferred.message
    assert unknown.field == "spec.layer2.nodeSelector" and "write nodeSelectors" in unknown.message


# --- membership


def test_the_listed_interfaces_travel_in_the_membership_lease() -> None:
    nics = [
        Nic("eth0", 2, bytes(6), True, (ip_interface("10.77.0.11/24"),)),
        Nic("br0", 3, bytes(6), True),
        Nic("eth1", 4, bytes(6), False, (ip_interface("10.78.0.11/24"),)),
        Nic("eth9", 5, bytes(6), True, (ip_interface("10.79.0.11/24"),)),
    ]
    member = membership.member_here("node-a", "10.77.0.11", 7473, nics, (), (), {"eth0", "br0", "eth1"})
    assert member.listed == (("br0", ()), ("eth0", (ip_interface("10.77.0.11/24"),))) and member.lacks == ("eth1",)
    assert membership.parse("porterlb-node-a", membership.described(member)).value == member
    plain = membership.described(membership.member_here("node-a", "10.77.0.11", 7473, nics, (), ()))
    assert "listed" not in json.loads(plain[membership.ANNOTATION]), "as in earlier releases"


@pytest.mark.parametrize("listed", [["eth0"], {"eth0": ["x"]}, {"eth0": 7}, "eth0"])
def test_a_lease_with_other_content_is_refused(listed: Any) -> None:
    content = {"address": "10.0.0.1", "port": 1, "boot": 1, "subnets": [], "listed": listed}
    parsed = membership.parse("porterlb-a", {membership.ANNOTATION: json.dumps(content)})
    assert parsed.value is None and parsed.problems


# --- nodes


def test_only_nodes_that_a_selector_selects_serve_and_bgp_is_not_affected() -> None:
    of = with_rules(name="auto", node_selectors=(rack("b"), rack("c")))
    found = made(of)
    vip = found.vips[AUTO_VIP]
    assert set(vip.candidates) == {"node-b", "node-c"} and set(vip.best) == {"node-b", "node-c"}
    assert vip.place in vip.candidates
    assert set(vip.next_hops) == set(NAMES) and vip.mode.mode is Mode.BGP
    assert vip.announced == made(snapshot()).vips[AUTO_VIP].announced
    wire = found.wire.vips[AUTO_VIP]
    assert wire.scope == "auto 10.77.0.0/24"
    assert found.wire.scopes[wire.scope] == Layer2Scope(frozenset({"node-b", "node-c"}))
    assert found.eips["auto"].left_out == {"node-a": "does not match spec.layer2.nodeSelectors"}


def test_an_eip_without_rules_has_the_digest_and_the_text_of_earlier_releases() -> None:
    one, two = made(snapshot()), made(with_rules(name="auto", node_selectors=(rack("b"),)))
    assert one.vips[LAYER2_VIP].digest == two.vips[LAYER2_VIP].digest
    assert one.vips[AUTO_VIP].digest != two.vips[AUTO_VIP].digest
    assert one.wire.scopes == {} and b"scopes" not in wire_text.state_line(one.wire)
    vip = Layer2Vip(LAYER2_VIP, ("b", "a"), "eth0")
    assert b'"set":[["%s",["b","a"],"eth0",""]]' % str(LAYER2_VIP).encode() in wire_text.vips_line([vip], [])


def test_the_wire_process_is_told_the_scopes() -> None:
    scopes = {"pool": Layer2Scope(frozenset({"b", "a"}), ("eth0", "eth1"), True), "other": Layer2Scope()}
    read = wire_text.read_state(json.loads(wire_text.state_line(DesiredWire(scopes=scopes))))
    assert read.scopes == scopes
    vip = Layer2Vip(LAYER2_VIP, ("b",), scope="pool")
    assert b'["b"],"","",[],"pool"]' in wire_text.vips_line([vip], [])


def test_a_pinned_node_outside_the_selectors_is_no_candidate() -> None:
    of = with_rules(node_selectors=(rack("b"),))
    services = {key: replace(service, pinned_node="node-a") for key, service in of.services.items()}
    assert made(replace(of, services=services)).vips[LAYER2_VIP].candidates == ("node-b",)


def test_a_draining_node_that_alone_is_allowed_goes_on() -> None:
    of = with_rules(node_selectors=(rack("b"),))
    drained = replace(of.nodes["node-b"], cordoned=True, draining=True)
    found = made(replace(of, nodes={**of.nodes, "node-b": drained}))
    assert found.vips[LAYER2_VIP].candidates == ("node-b",)


def test_the_hosts_of_a_spread_vip_are_shared_by_the_selected_nodes() -> None:
    of = with_rules(eip={"layer2_spread": True}, node_selectors=(rack("a", "c"),))
    vip = made(of).wire.vips[LAYER2_VIP]
    assert vip.takers == ("node-a", "node-c") and set(vip.candidates) == {"node-a", "node-c"}


@pytest.mark.parametrize(
    ("labels", "replicas", "reason"),
    [({"rack": "x"}, NAMES, Reason.NO_NODE), ({"rack": "a"}, ("node-b", "node-c"), Reason.NO_REPLICA)],
)
def test_selectors_without_a_node_or_a_replica_are_said(
    labels: dict[str, str], replicas: tuple[str, ...], reason: Reason
) -> None:
    of = with_rules(node_selectors=(rack("a"),))
    nodes = {**of.nodes, "node-a": replace(of.nodes["node-a"], labels=labels)}
    of = replace(of, nodes=nodes, members={name: of.members[name] for name in replicas})
    found = made(of)
    eip = found.eips["segment"]
    (problem,) = eip.problems
    assert eip.layer2_possible is False and "spec.layer2.nodeSelectors" in eip.layer2_reason
    assert (problem.reason, problem.field, problem.fatal) == (reason, "spec.layer2.nodeSelectors", False)
    vip = found.vips[LAYER2_VIP]
    assert not vip.candidates and not vip.on_link and LAYER2_VIP not in found.wire.vips
    (why,) = vip.problems
    assert why.reason is Reason.OFF_SEGMENT and "spec.layer2 of the Eip segment" in why.message


def test_an_address_off_every_segment_says_that_and_not_the_selectors() -> None:
    of = with_rules(name="routed", eip={"protocol": Protocol.LAYER2}, node_selectors=(rack("a"),))
    (why,) = made(of).vips[ip_address("172.16.0.1")].problems
    assert "no connected subnet" in why.message


def test_the_scope_of_an_eip_that_names_a_router_or_an_interface_is_told() -> None:
    for eip in ({"can_reach": ip_address("10.77.0.1")}, {"interface": "eth0"}):
        found = made(with_rules(name="routed", eip={**eip, "protocol": Protocol.LAYER2}, node_selectors=(rack("a"),)))
        vip = found.wire.vips[ip_address("172.16.0.1")]
        assert vip.candidates == ("node-a",) and found.wire.scopes[vip.scope].nodes == {"node-a"}


# --- preferences


def test_the_weights_of_all_matching_terms_are_added() -> None:
    terms = (Preference(40, rack("a", "b")), Preference(30, rack("b")), Preference(60, rack("c")))
    nodes = with_rules().nodes
    rules = Layer2Rules(preferred=terms)
    selected = layer2_choice.selected([Eip("x", (), layer2=rules)], nodes)
    found = layer2_choice.choice(rules, None, nodes, {}, selected)
    assert found.weights == {"node-a": 40, "node-b": 70, "node-c": 60} and not found.left_out
    vip = made(with_rules(preferred=terms)).vips[LAYER2_VIP]
    assert vip.candidates == ("node-b", "node-c", "node-a") and vip.best == ("node-b",)
    assert made(with_rules(preferred=terms)).wire.scopes == {} and vip.layer2 is not None and vip.layer2.scope == ""


def test_endpoints_replicas_and_cordons_count_before_preferences() -> None:
    of = with_rules(preferred=(Preference(100, rack("a")),))
    key = next(key for key, service in of.services.items() if service.has(LAYER2_VIP))
    assert made(of).vips[LAYER2_VIP].candidates[0] == "node-a"
    remote = replace(of, endpoints={**of.endpoints, key: (Endpoint("node-b"), Endpoint("node-c"))})
    assert made(remote).vips[LAYER2_VIP].candidates[-1] == "node-a"
    cordoned = replace(of, nodes={**of.nodes, "node-a": replace(of.nodes["node-a"], cordoned=True)})
    vip = made(cordoned).vips[LAYER2_VIP]
    assert vip.candidates[-1] == "node-a" and "node-a" not in vip.best
    silent = made(replace(of, view=replace(of.view, node="node-b", fresh=frozenset({"node-b", "node-c"}))))
    assert silent.vips[LAYER2_VIP].candidates[-1] == "node-a"


def test_a_recorded_node_stays_and_no_move_goes_to_a_less_preferred_node() -> None:
    of = with_rules(preferred=(Preference(100, rack("a", "b")),))
    services = {key: replace(service, pinned_node="node-c") for key, service in of.services.items()}
    found = made(replace(of, services=services))
    assert found.vips[LAYER2_VIP].place == "node-c" and set(found.vips[LAYER2_VIP].best) == {"node-a", "node-b"}
    services = {key: replace(service, pinned_node="node-a") for key, service in of.services.items()}
    found = made(replace(of, services=services))
    units = movable({LAYER2_VIP: found.vips[LAYER2_VIP]}, frozenset())
    assert balancing.moves(units, {"node-a": 1, "node-b": 1, "node-c": 10000}) == {}


def many(count: int = 40) -> Snapshot:
    """A cluster with more nodes than a VIP has next hops; nodes 30 and above are in rack z."""
    of = snapshot()
    names = [f"n{at:02}" for at in range(count)]
    address = {name: f"10.77.0.{at + 10}" for at, name in enumerate(names)}
    nodes = {
        name: Node(name, (ip_address(address[name]),), labels={"rack": "z" if at >= 30 else "y"})
        for at, name in enumerate(names)
    }
    base = of.members["node-a"]
    members = {
        name: replace(base, node=name, address=address[name], subnets=(ip_interface(f"{address[name]}/24"),))
        for name in names
    }
    endpoints = {key: tuple(map(Endpoint, names)) for key in of.services}
    view = replace(of.view, node="n00", leader="n00", fresh=frozenset(names), sessions=frozenset())
    return replace(of, nodes=nodes, members=members, endpoints=endpoints, view=view)


def of_rack(of: Snapshot, **rules: Any) -> Snapshot:
    return replace(of, eips={**of.eips, "segment": replace(of.eips["segment"], layer2=Layer2Rules(**rules))})


@pytest.mark.parametrize("near", [True, False])
def test_the_nodes_are_chosen_before_the_first_sixteen(near: bool) -> None:
    base = many()
    if not near:
        base = replace(base, endpoints={key: (Endpoint("n00"),) for key in base.services})
    chosen = made(of_rack(base, node_selectors=(rack("z"),))).vips[LAYER2_VIP]
    assert set(chosen.candidates) == {f"n{at}" for at in range(30, 40)}
    preferred = made(of_rack(base, preferred=(Preference(5, rack("z")),))).vips[LAYER2_VIP]
    assert len(preferred.candidates) == MOST
    first = preferred.candidates[0 if near else 1 :][:10]
    assert set(first) == {f"n{at}" for at in range(30, 40)}
    assert made(base).vips[LAYER2_VIP].next_hops == chosen.next_hops, "BGP has the same"


def test_the_loss_of_a_chosen_node_that_is_no_next_hop_is_noticed() -> None:
    of = of_rack(many(), node_selectors=(rack("z"),))
    before = made(of)
    vip = before.vips[LAYER2_VIP]
    lost = next(name for name in vip.candidates if name not in vip.next_hops)
    seen = replace(of, view=replace(of.view, dead=frozenset({lost}), fresh=of.view.fresh - {lost}))
    short = plan(seen, before, 0.1, POLICY, AT_ONCE)
    whole = plan(seen, Plan(memory=before.memory), 0.1, POLICY, AT_ONCE)
    assert lost not in short.vips[LAYER2_VIP].candidates
    assert (short.vips, short.wire, short.digest) == (whole.vips, whole.wire, whole.digest)


# --- interfaces


def test_each_node_serves_on_its_own_interface() -> None:
    of = with_interfaces(
        with_rules(interfaces=("eth0", "ens3")),
        a={"eth0": "10.77.0.11/24", "ens3": None},
        b={"eth0": None, "ens3": "10.77.0.12/24"},
        c={"eth0": None, "ens3": None},
    )
    found = made(of)
    assert set(found.vips[LAYER2_VIP].candidates) == {"node-a", "node-b"}
    assert scope_of(of) == Layer2Scope(frozenset({"node-a", "node-b"}), ("eth0", "ens3"), True)
    (problem,) = found.eips["segment"].problems
    assert problem.reason is Reason.NO_INTERFACE and problem.field == "spec.layer2.interfaces" and not problem.fatal
    assert problem.message.startswith("node-c (has no interface eth0 or ens3 that is up): no part in Layer 2")
    assert found.eips["segment"].layer2_possible


def test_an_interface_on_another_segment_does_not_serve_while_one_is_on_the_segment() -> None:
    of = with_interfaces(
        with_rules(interfaces=("eth0", "ens3")),
        a={"eth0": "10.77.0.11/24", "ens3": "10.78.0.11/24"},
        b={"eth0": "10.78.0.12/24", "ens3": None},
        c={"eth0": "10.78.0.13/24", "ens3": "10.79.0.13/24"},
    )
    found = made(of)
    assert found.vips[LAYER2_VIP].candidates == ("node-a",) and scope_of(of).nodes == {"node-a"}
    out = found.eips["segment"].left_out
    assert out["node-b"] == "has no interface of the list on 10.77.0.0/24 (eth0 is elsewhere)"
    assert out["node-c"] == "has no interface of the list on 10.77.0.0/24 (ens3, eth0 are elsewhere)"


def test_without_a_listed_interface_on_the_segment_each_node_uses_the_first_that_is_up() -> None:
    of = with_interfaces(
        with_rules(interfaces=("vlan9",)), a={"vlan9": ""}, b={"vlan9": "10.78.0.12/24"}, c={"vlan9": None}
    )
    assert set(made(of).vips[LAYER2_VIP].candidates) == {"node-a", "node-b"} and not scope_of(of).strict


def test_a_node_that_has_not_reported_its_interfaces_yet_goes_on() -> None:
    of = with_interfaces(with_rules(interfaces=("eth0",)), a={"eth0": "10.77.0.11/24"})
    assert set(made(of).vips[LAYER2_VIP].candidates) == set(NAMES)
    gone = replace(of, members={name: of.members[name] for name in ("node-a", "node-b")})
    assert "node-c" in made(gone).vips[LAYER2_VIP].candidates, "its interfaces are unknown, and it is on the segment"
    assert scope_of(gone).nodes == {"node-a", "node-b"}


def test_without_any_such_interface_the_eip_cannot_be_served() -> None:
    nowhere: dict[str, str | None] = {"eth0": None}
    of = with_interfaces(with_rules(interfaces=("eth0",)), a=nowhere, b=nowhere, c=nowhere)
    found = made(of)
    assert found.eips["segment"].layer2_possible is False and LAYER2_VIP not in found.wire.vips
    assert "spec.layer2 of the Eip segment" in found.vips[LAYER2_VIP].problems[0].message


def test_a_node_that_is_dead_on_the_segment_is_no_candidate() -> None:
    nics: dict[str, dict[str, str | None]] = {x: {"eth0": f"10.77.0.{11 + at}/24"} for at, x in enumerate("abc")}
    of = with_interfaces(with_rules(interfaces=("eth0",)), **nics)
    seen = replace(of, view=replace(of.view, dead_on=frozenset({("node-b", SEGMENT)})))
    assert set(made(seen).vips[LAYER2_VIP].candidates) == {"node-a", "node-c"}


# --- user-visible state


def test_a_missing_interface_is_a_condition_and_one_event() -> None:
    of = with_rules(interfaces=("eth0",))
    good_one = with_interfaces(of, a={"eth0": "10.77.0.11/24"}, b={"eth0": "10.77.0.12/24"})
    bad = with_interfaces(good_one, b={"eth0": None})
    fine = eip_status(situation(good_one), "segment", None)
    status = eip_status(situation(bad), "segment", fine)
    ready = next(c for c in status["conditions"] if c["type"] == "Ready")
    assert (ready["status"], ready["reason"]) == ("True", "InterfaceMissing") and "node-b (has no" in ready["message"]
    (notice,) = eip_notices(fine, status)
    assert notice.warning and notice.reason == "InterfaceMissing" and "node-b" in notice.message
    assert eip_notices(status, status) == []
    worse = eip_status(situation(with_interfaces(bad, c={"eth0": None})), "segment", status)
    assert [notice.reason for notice in eip_notices(status, worse)] == ["InterfaceMissing"]


def test_a_plan_says_who_is_left_out_and_why() -> None:
    of = with_rules(node_selectors=(rack("b", "c"),))
    result = what_if(of, Missing(nodes=frozenset({"node-b"})), POLICY)
    assert result.left_out == {"segment": {"node-a": "does not match spec.layer2.nodeSelectors"}}
    planned = next(vip for vip in result.vips if vip.address == LAYER2_VIP)
    assert planned.after is not None and planned.after.next_hops == ("node-c",)


# --- properties

RACKS = st.lists(st.sets(st.sampled_from("abc"), min_size=1).map(lambda found: rack(*sorted(found))), max_size=2)
ADDRESSES = st.sampled_from([None, "", "10.77.0.{}/24", "10.78.0.{}/24"])


@st.composite
def situations(draw: st.DrawFn) -> Snapshot:
    of = with_rules(
        eip={"layer2_spread": draw(st.booleans())},
        interfaces=tuple(draw(st.lists(st.sampled_from(["eth0", "ens3"]), unique=True))),
        node_selectors=tuple(draw(RACKS)),
        preferred=tuple(Preference(draw(st.integers(1, 100)), selector) for selector in draw(RACKS)),
    )
    for at, letter in enumerate("abc"):
        nics = draw(st.dictionaries(st.sampled_from(["eth0", "ens3"]), ADDRESSES))
        of = with_interfaces(of, **{letter: {n: a and a.format(11 + at) for n, a in nics.items()}})
    key = next(key for key, service in of.services.items() if service.has(LAYER2_VIP))
    service = replace(
        of.services[key],
        traffic_policy=draw(st.sampled_from(TrafficPolicy)),
        pinned_node=draw(st.sampled_from(["", *NAMES])),
    )
    nodes = {name: replace(node, cordoned=draw(st.booleans())) for name, node in of.nodes.items()}
    dead = draw(st.sets(st.sampled_from(NAMES[1:])))
    at_nodes = draw(st.sets(st.sampled_from(NAMES)))
    return replace(
        of,
        nodes=nodes,
        services={**of.services, key: service},
        endpoints={**of.endpoints, key: tuple(map(Endpoint, sorted(at_nodes)))},
        view=replace(of.view, dead=frozenset(dead), fresh=of.view.fresh - dead),
        members={name: of.members[name] for name in draw(st.sets(st.sampled_from(NAMES)))},
    )


@given(st.lists(situations(), min_size=1, max_size=4))
def test_no_node_outside_the_rules_is_planned_and_a_plan_from_changes_is_the_whole_plan(story: list[Snapshot]) -> None:
    before: Plan | None = None
    for now, of in enumerate(story):
        short = plan(of, before, now / 10, POLICY, AT_ONCE)
        whole = plan(of, Plan(memory=before.memory) if before else None, now / 10, POLICY, AT_ONCE)
        assert (short.vips, short.eips, short.wire, short.digest) == (whole.vips, whole.eips, whole.wire, whole.digest)
        before = short
        vip, rules = short.vips[LAYER2_VIP], of.eips["segment"].layer2
        allowed = {
            name
            for name, node in of.nodes.items()
            if not rules.node_selectors or any(selector.matches(node.labels) for selector in rules.node_selectors)
        }
        if rules.interfaces:
            allowed -= {name for name, member in of.members.items() if set(rules.interfaces) <= set(member.lacks)}
        told = short.wire.vips.get(LAYER2_VIP)
        chosen = {*vip.candidates, *vip.best, *vip.takers, vip.place or min(allowed, default="")} - {""}
        assert chosen <= allowed and set(vip.best) <= set(vip.candidates)
        if told is not None and rules.limits:
            scope = short.wire.scopes[told.scope]
            assert scope.nodes <= allowed and scope.interfaces == rules.interfaces
