"""A drain without losses: first the community, then withdrawal; Layer 2 moves; the last next hop stays."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from porterlb.core import drain
from porterlb.core.drain import COMMUNITY, LONG_AGO, Progress, Stages, progress
from porterlb.core.history import History
from porterlb.core.mode import ModePolicy
from porterlb.core.model import Endpoint, Node, RouteAttributes, Snapshot, TrafficPolicy
from porterlb.core.objects import Objects
from porterlb.core.parse import parse_node
from porterlb.core.plan import Plan, plan
from porterlb.core.status.build import service_status
from porterlb.core.status.state import state_of
from tests.core.stage import AUTO_VIP, BGP_VIP, LAYER2_VIP, SHOP, WEB, situation, snapshot
from tests.core.test_plan import ADDRESS, NAMES

POLICY = ModePolicy(drain_after=10.0)


def draining(of: Snapshot, *names: str) -> Snapshot:
    nodes = {name: replace(node, draining=name in names) for name, node in of.nodes.items()}
    return replace(of, nodes=nodes)


def seen_by(of: Snapshot, node: str) -> Snapshot:
    return replace(of, view=replace(of.view, node=node))


def routes(plans: Iterable[Plan], vip: object) -> dict[str, set[tuple[str, ...]]]:
    """The next hops of a VIP and their communities, as announced by all replicas."""
    names = {address: name for name, address in ADDRESS.items()}
    found: dict[str, set[tuple[str, ...]]] = {}
    for made in plans:
        for path, prefixes in made.bgp.routes.items():
            if f"{vip}/32" in prefixes:
                found.setdefault(names[path.next_hop], set()).add(path.attributes.communities)
    return found


def all_replicas(of: Snapshot, before: Mapping[str, Plan] | None, now: float) -> dict[str, Plan]:
    return {name: plan(seen_by(of, name), (before or {}).get(name), now, POLICY) for name in NAMES}


def test_routes_get_the_community_then_are_withdrawn_and_come_back() -> None:
    plain = snapshot()
    begin = all_replicas(plain, None, 0.0)
    assert routes(begin.values(), BGP_VIP) == {key: {()} for key in NAMES}
    first = all_replicas(draining(plain, "node-c"), begin, 100.0)
    for vip in (BGP_VIP, AUTO_VIP):
        expected: dict[str, set[tuple[str, ...]]] = {"node-a": {()}, "node-b": {()}, "node-c": {(COMMUNITY,)}}
        assert routes(first.values(), vip) == expected
    assert {made.wake_at for made in first.values()} == {110.0}
    still = all_replicas(draining(plain, "node-c"), first, 109.9)
    assert "node-c" in routes(still.values(), BGP_VIP)
    gone = all_replicas(draining(plain, "node-c"), still, 110.0)
    assert routes(gone.values(), BGP_VIP) == {"node-a": {()}, "node-b": {()}}
    assert {made.wake_at for made in gone.values()} == {None}
    again = all_replicas(plain, gone, 200.0)
    assert routes(again.values(), BGP_VIP) == {key: {()} for key in NAMES}
    for plans in (first, gone, again):
        assert len({made.digest for made in plans.values()}) == 1, "all replicas agree"
    assert len({plans["node-a"].digest for plans in (begin, first, gone)}) == 3, "each stage is one to acknowledge"
    assert again["node-a"].digest == begin["node-a"].digest


def test_a_replica_that_starts_withdraws_at_once_as_the_others_have() -> None:
    fresh = all_replicas(draining(snapshot(), "node-c"), None, 5.0)
    assert routes(fresh.values(), BGP_VIP) == {"node-a": {()}, "node-b": {()}}
    assert fresh["node-a"].memory.drains == {"node-c": LONG_AGO}


def test_layer2_moves_at_once_also_a_pinned_vip() -> None:
    of = snapshot(up=())
    (holder, *_) = plan(of, None, 0.0, POLICY).vips[LAYER2_VIP].candidates
    pinned = replace(of, services={k: replace(s, pinned_node=holder) for k, s in of.services.items()})
    before = plan(pinned, None, 0.0, POLICY)
    assert before.vips[LAYER2_VIP].candidates[0] == holder
    moved = plan(draining(pinned, holder), before, 1.0, POLICY).vips[LAYER2_VIP].candidates
    assert moved[0] != holder and moved[-1] == holder
    everybody = plan(draining(pinned, *NAMES), before, 1.0, POLICY).vips[LAYER2_VIP].candidates
    assert set(everybody) == set(NAMES), "somebody has to answer"


def test_whoever_places_vips_sees_a_draining_node_as_cordoned() -> None:
    shared = plan(draining(snapshot(), "node-c"), None, 0.0, POLICY).shared
    assert shared is not None and shared.topology.cordoned == {"node-c"}


def test_a_node_that_alone_can_serve_stays() -> None:
    of = snapshot()
    local = replace(of.services[WEB], traffic_policy=TrafficPolicy.LOCAL)
    of = replace(of, services={**of.services, WEB: local}, endpoints={**of.endpoints, WEB: (Endpoint("node-c"),)})
    begin = all_replicas(of, None, 0.0)
    first = all_replicas(draining(of, "node-c"), begin, 1.0)
    gone = all_replicas(draining(of, "node-c"), first, 99.0)
    assert routes(gone.values(), BGP_VIP) == {"node-c": {(COMMUNITY,)}}
    assert set(routes(gone.values(), AUTO_VIP)) == {"node-a", "node-b"}


def test_a_node_that_was_cordoned_already_drains_too() -> None:
    of = snapshot()
    of = replace(of, nodes={**of.nodes, "node-c": replace(of.nodes["node-c"], cordoned=True)})
    begin = all_replicas(of, None, 0.0)
    first = all_replicas(draining(of, "node-c"), begin, 1.0)
    assert routes(first.values(), BGP_VIP)["node-c"] == {(COMMUNITY,)}
    back = all_replicas(of, all_replicas(draining(of, "node-c"), first, 50.0), 60.0)
    assert routes(back.values(), BGP_VIP)["node-c"] == {()}


def test_many_nodes_keep_the_draining_next_hop_until_it_is_withdrawn() -> None:
    of = snapshot()
    many = {f"n{i}": Node(f"n{i}", (ADDRESS["node-a"] + 20 + i,)) for i in range(40)}
    of = replace(of, nodes={**of.nodes, **many})
    begin = plan(of, None, 0.0, POLICY)
    victim = begin.vips[BGP_VIP].next_hops[0]

    def hops(made: Plan) -> set[str]:
        return {hop for by in made.vips[BGP_VIP].announced.values() for found in by.values() for hop in found}

    first = plan(draining(of, victim), begin, 1.0, POLICY)
    assert hops(first) == hops(begin), "nothing but the community changes"
    assert hops(plan(draining(of, victim), first, 20.0, POLICY)) == hops(begin) - {victim}


@given(
    st.lists(
        st.tuples(st.frozensets(st.sampled_from(NAMES)), st.sampled_from((0.1, 4.0, 12.0)), st.booleans()),
        max_size=6,
    )
)
def test_no_vip_is_ever_without_a_next_hop_and_old_plans_change_nothing(
    story: list[tuple[frozenset[str], float, bool]],
) -> None:
    made = plan(snapshot(), None, 0.0, POLICY)
    now = 0.0
    for names, passed, bgp in story:
        now += passed
        of = draining(snapshot(up=NAMES if bgp else ()), *sorted(names))
        made = plan(of, made, now, POLICY)
        alone = plan(of, Plan(memory=made.memory), now, POLICY)
        assert made.vips[BGP_VIP].announced == alone.vips[BGP_VIP].announced
        assert made.digest == alone.digest and made.bgp.routes == alone.bgp.routes
        for vip in made.vips.values():
            assert not vip.mode.answer or vip.candidates
            for by_replica in vip.announced.values():
                assert any(by_replica.values())
                told = {hop for hops in by_replica.values() for hop in hops}
                assert (
                    told == set(NAMES)
                    or told == set(vip.next_hops) - drain.stages(made.memory.drains or {}, now, POLICY).withdrawn
                    or len(told) == 1
                )


def test_stages_of_time() -> None:
    nodes = {name: Node(name, draining=name != "b") for name in ("a", "b", "c")}
    first = drain.step({}, nodes, 5.0)
    assert first == {"a": 5.0, "c": 5.0}
    assert drain.step(first, nodes, 9.0) is first
    later = drain.step(first, {**nodes, "a": Node("a"), "b": Node("b", draining=True)}, 9.0)
    assert later == {"b": 9.0, "c": 5.0}
    assert drain.stages(later, 15.0, POLICY) == Stages(frozenset({"b"}), frozenset({"c"}))
    assert drain.wakes_at(later, 14.0, POLICY) == 15.0 and drain.wakes_at(later, 15.0, POLICY) == 19.0
    assert drain.wakes_at(later, 19.0, POLICY) is None
    assert drain.stages(first, 5.0, ModePolicy(drain_after=0)).withdrawn == {"a", "c"}


def test_the_community_is_added_once() -> None:
    at = Stages(frozenset({"a"}))
    own = RouteAttributes(("64500:1",), med=3)
    assert drain.attributes(own, "a", at) == RouteAttributes(("64500:1", COMMUNITY), med=3)
    assert drain.attributes(own, "b", at) is own
    configured = RouteAttributes((COMMUNITY,))
    assert drain.attributes(configured, "a", at) is configured


@pytest.mark.parametrize(
    ("annotation", "value", "wanted"),
    [
        ("drain.porter.kubesphere.io/v1alpha2", "true", True),
        ("drain.openelb.kubesphere.io/v1alpha2", "reboot", True),
        ("drain.porter.kubesphere.io/v1alpha2", "False", False),
        ("drain.porter.kubesphere.io/v1alpha2", "", False),
        ("drain", "true", False),
    ],
)
def test_the_annotation(annotation: str, value: str, wanted: bool) -> None:
    node = {"metadata": {"name": "a", "annotations": {annotation: value}}}
    found = parse_node(node).value
    assert found is not None and found.draining is wanted


def test_cordoned_nodes_drain_where_the_setting_says_so() -> None:
    node = {"kind": "Node", "metadata": {"name": "a"}, "spec": {"unschedulable": True}}
    for wanted in (False, True):
        objects = Objects(True, drain_cordoned=wanted)
        objects.change("Node", node)
        assert objects.nodes["a"].draining is wanted


# The remaining steps, as the replicas' state shows them


def shown(of: Snapshot, at: float, before: Plan | None = None, **more: Any) -> dict[str, dict[str, Any]]:
    return {name: state_of(situation(seen_by(of, name), before, at, **more), History(), now=at) for name in NAMES}


def test_progress_of_a_drain() -> None:
    of = snapshot()
    before = plan(of, None, 0.0, POLICY)
    assert progress("node-c", shown(of, 0.0)).unaware == NAMES
    first = progress("node-c", shown(draining(of, "node-c"), 1.0, before))
    assert first.announcing == NAMES and set(first.carried) == {str(BGP_VIP), str(AUTO_VIP)}
    assert not first.safe and not first.stuck
    states = shown(draining(of, "node-c"), 1.0)
    assert progress("node-c", states) == Progress() and progress("node-c", states).safe
    states["node-b"]["plan"]["applied"] = 0
    assert progress("node-c", states).unaware == ("node-b",)


def test_progress_where_layer2_still_answers_there() -> None:
    states = shown(draining(snapshot(), "node-c"), 1.0)
    vip = states["node-a"]["vips"][str(LAYER2_VIP)]
    vip["answering"] = {"nextHop": "node-c", "answerer": "node-a"}
    left = progress("node-c", states)
    assert left.answered == (str(LAYER2_VIP),) and not left.safe and not left.stuck
    vip["candidates"] = ["node-c"]
    assert progress("node-c", states).stuck


def test_progress_where_only_this_node_can_serve() -> None:
    of = snapshot()
    local = replace(of.services[WEB], traffic_policy=TrafficPolicy.LOCAL)
    of = replace(of, services={**of.services, WEB: local}, endpoints={**of.endpoints, WEB: (Endpoint("node-c"),)})
    left = progress("node-c", shown(draining(of, "node-c"), 1.0))
    assert left.only == left.carried == (str(BGP_VIP),) and left.stuck


def test_the_condition_does_not_miss_what_is_drained() -> None:
    known = situation(draining(snapshot(), "node-c"))
    (serving,) = (c for c in service_status(known, SHOP, None)["conditions"] if c["type"] == "Serving")
    assert "Not announced" not in serving["message"] and "node-a and node-b" in serving["message"]
