"""The effect of a peer's rules (spec.advertise) on a VIP: next hops and attributes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from ipaddress import ip_address
from typing import Any

import pytest

from porterlb.core.bgp.advertise import EVERYTHING, Told, conflict, selected, told
from porterlb.core.model import (
    AdvertiseRule,
    Eip,
    Node,
    Peer,
    Requirement,
    RouteAttributes,
    Selector,
    Snapshot,
)
from porterlb.core.plan import Plan, plan
from porterlb.core.problems import Reason
from tests.core.stage import BGP_VIP, POLICY
from tests.core.test_plan import NAMES, cluster

PLAIN, GOLD = RouteAttributes(), Eip("gold", ())
NODES = {name: Node(name, labels={"rack": name[-1]}) for name in NAMES}


def labelled(key: str, *values: str) -> Selector:
    return Selector((Requirement(key, "In", frozenset(values)),))


def rule(*eips: str, racks: str = "", names: tuple[str, ...] = (), **attributes: Any) -> AdvertiseRule:
    return AdvertiseRule(
        frozenset(eips),
        node_selector=labelled("rack", *racks) if racks else None,
        attributes=RouteAttributes(**attributes),
        community_names=names,
    )


def tell(*rules: AdvertiseRule, eip: Eip = GOLD, union: bool = False, **names: str) -> Told | None:
    peer = Peer("tor", ip_address("10.77.0.1"), 64500, advertise=rules, advertise_union=union)
    return told(peer, eip, 4, [], selected([peer], NODES), names)


def by_node(of: Told | None) -> Mapping[str, RouteAttributes | None]:
    assert of is not None
    return {name: dict(of.routes(name)).get(0) for name in NAMES}


def test_the_first_matching_rule_gives_the_attributes() -> None:
    gold = RouteAttributes(communities=("64500:1",))
    silver = AdvertiseRule(eip_selector=labelled("tier", "silver"))
    rules = (rule("gold", communities=("64500:1",)), silver)
    assert by_node(tell(*rules)) == dict.fromkeys(NAMES, gold)
    assert by_node(tell(*rules, eip=Eip("x", (), labels={"tier": "silver"}))) == dict.fromkeys(NAMES, PLAIN)
    assert tell(*rules, eip=Eip("lead", ())) is None
    assert tell() is EVERYTHING


def test_a_rule_for_certain_nodes_is_for_these_next_hops_only() -> None:
    a, bc = RouteAttributes(med=1), RouteAttributes(med=2)
    of = tell(rule(racks="a", med=1), rule(racks="bc", med=2))
    assert by_node(of) == {"node-a": a, "node-b": bc, "node-c": bc}
    only = tell(rule(racks="b", med=1))
    assert by_node(only) == {"node-a": None, "node-b": a, "node-c": None}
    assert only is not None
    assert only.allowed(("node-c", "node-b", "node-a")) == ("node-b",)
    rest = tell(rule(racks="a", med=1), rule(med=2))
    assert by_node(rest) == {"node-a": a, "node-b": bc, "node-c": bc}
    assert rest is not None
    assert rest.nodes is None


def test_a_union_joins_the_communities_of_all_rules() -> None:
    rules = (
        rule(communities=("64500:1",), med=5),
        rule(racks="b", communities=("no-export", "64500:1"), large_communities=("1:2:3",), local_pref=7, prepend=2),
        rule("lead", communities=("64500:9",)),
    )
    both = RouteAttributes(("64500:1", "no-export"), ("1:2:3",), local_pref=7, med=5, prepend=2)
    one = RouteAttributes(("64500:1",), med=5)
    assert by_node(tell(*rules, union=True)) == {"node-a": one, "node-b": both, "node-c": one}
    assert by_node(tell(*rules)) == dict.fromkeys(NAMES, one)


@pytest.mark.parametrize(
    ("one", "other", "found"),
    [
        (rule(med=1), rule(med=2), (0, 1, "med")),
        (rule(med=0), rule(med=2), (0, 1, "med")),
        (rule(local_pref=1), rule(local_pref=2), (0, 1, "localPref")),
        (rule(prepend=1), rule(prepend=2), (0, 1, "asPathPrepend")),
        (rule("a", med=1), rule("a", "b", med=2), (0, 1, "med")),
        (rule("a", med=1), rule("b", med=2), None),
        (rule(med=1), rule(med=1), None),
        (rule(med=1), rule(), None),
        (rule(prepend=1), rule(prepend=0), None),
    ],
)
def test_rules_that_contradict_each_other(
    one: AdvertiseRule, other: AdvertiseRule, found: tuple[int, int, str] | None
) -> None:
    assert conflict((one, other)) == found


def test_communities_by_name() -> None:
    named = rule(communities=("64500:1",), names=("east", "wide"))
    want = RouteAttributes(("64500:1", "64500:2"), ("1:2:3",))
    assert by_node(tell(named, east="64500:2", wide="1:2:3")) == dict.fromkeys(NAMES, want)
    assert tell(named, east="64500:2") is None, "a route without the community may go further than it is meant to"
    assert by_node(tell(named, rule(med=1), east="64500:2")) == dict.fromkeys(NAMES, RouteAttributes(med=1))


def changed(of: Snapshot, *rules: AdvertiseRule, **conf: Any) -> Snapshot:
    nodes = {name: replace(node, labels={"rack": name[-1]}) for name, node in of.nodes.items()}
    tor = replace(of.peers["tor"], advertise=rules)
    return replace(of, nodes=nodes, peers={"tor": tor}, conf=replace(of.conf, **conf))


def hops(made: Plan) -> set[str]:
    announced = made.vips[BGP_VIP].announced.get("tor", {})
    return {hop for found in announced.values() for hop in found}


def up(**more: Any) -> Snapshot:
    return cluster(sessions=frozenset((name, "tor") for name in NAMES), **more)


def test_the_plan_announces_only_next_hops_that_a_rule_allows() -> None:
    made = plan(changed(up(), rule(racks="bc")), None, 0.0, POLICY)
    assert hops(made) == {"node-b", "node-c"}
    assert {str(path.next_hop) for path in made.bgp.routes if path.peer == "tor"} <= {"10.77.0.12", "10.77.0.13"}


def test_a_label_that_changes_moves_the_next_hops() -> None:
    of = changed(up(), rule(racks="b"))
    first = plan(of, None, 0.0, POLICY)
    assert hops(first) == {"node-b"}
    moved = {**of.nodes, "node-a": replace(of.nodes["node-a"], labels={"rack": "b"})}
    assert hops(plan(replace(of, nodes=moved), first, 1.0, POLICY)) == {"node-a", "node-b"}


def test_a_vip_without_an_allowed_next_hop_says_so() -> None:
    made = plan(changed(up(), rule(racks="z")), None, 0.0, POLICY)
    vip = made.vips[BGP_VIP]
    assert not hops(made)
    (problem,) = vip.problems
    assert problem.reason is Reason.NO_PEER
    assert "select none of its next hops" in problem.message
    (told_of_peer,) = made.peers["tor"]
    assert (told_of_peer.field, told_of_peer.fatal) == ("spec.advertise[0].nodeSelector", False)


def test_a_name_that_the_conf_defines_is_announced_and_another_one_is_refused() -> None:
    of = changed(up(), rule(names=("east",)), communities={"east": "64500:2"})
    made = plan(of, None, 0.0, POLICY)
    assert {path.attributes.communities for path in made.bgp.routes} == {("64500:2",)}
    gone = plan(replace(of, conf=replace(of.conf, communities={})), made, 1.0, POLICY)
    assert not gone.bgp.routes
    (problem,) = gone.peers["tor"]
    assert problem.reason is Reason.COMMUNITY_UNKNOWN
    assert "'east' is neither a well-known community nor one of spec.communities" in problem.message
