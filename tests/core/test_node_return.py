"""A returning node receives traffic after its hello and a delay for its kube-proxy, while other next hops exist."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from porterlb.core.model import Endpoint, Node, TrafficPolicy, View
from porterlb.core.nexthops import unusable_nodes, usable_nodes
from porterlb.core.node_return import BOOT, PODS_WITHIN, Returns, exempt_nodes, step
from porterlb.core.plan import plan
from tests.core.stage import LAYER2_VIP, MAIL, POLICY
from tests.core.test_plan import NAMES, cluster

DELAY = 1.5
C = frozenset({"c"})


def returned(at: float = 10.0, fresh: frozenset[str] = frozenset("ab")) -> Returns:
    dead = step(Returns(), C, "abc", "ab", at - 5.0, DELAY)
    return step(dead, frozenset(), "abc", fresh, at, DELAY)


def test_nothing_waits_that_never_died() -> None:
    assert step(Returns(), frozenset(), "abc", "abc", 0.0, DELAY).settling == frozenset()


def test_a_returned_node_waits_for_its_replica_and_then_for_its_kube_proxy() -> None:
    state = returned()
    assert state.settling == C and state.wakes_at(DELAY) == 10.0 + PODS_WITHIN
    state = step(state, frozenset(), "abc", "abc", 14.0, DELAY)
    assert state.settling == C and state.wakes_at(DELAY) == 14.0 + DELAY
    assert step(state, frozenset(), "abc", "abc", 15.4, DELAY).settling == C
    assert step(state, frozenset(), "abc", "abc", 14.0 + DELAY, DELAY).settling == frozenset()


def test_our_own_return_is_not_waited_for_while_the_api_is_away() -> None:
    assert exempt_nodes("c", True) == C
    assert exempt_nodes("c", False) == frozenset()
    dead = step(Returns(), C, "abc", "abc", 5.0, DELAY)
    assert step(dead, frozenset(), "abc", "abc", 10.0, DELAY, exempt=C).settling == frozenset()
    assert step(dead, frozenset(), "abc", "abc", 10.0, DELAY, exempt="a").settling == C


def test_a_replica_that_falls_silent_again_is_waited_for_again() -> None:
    state = step(returned(), frozenset(), "abc", "abc", 14.0, DELAY)
    state = step(state, frozenset(), "abc", "ab", 15.0, DELAY)
    assert step(state, frozenset(), "abc", "ab", 20.0, DELAY).settling == C


def test_the_wait_for_a_replica_is_bounded() -> None:
    assert step(returned(), frozenset(), "abc", "ab", 10.0 + PODS_WITHIN, DELAY).settling == frozenset()


def test_a_node_without_a_replica_waits_for_its_kube_proxy_only() -> None:
    state = step(Returns({"c": 0.0}), frozenset(), "ab", "ab", 10.0, DELAY)
    assert state.wakes_at(DELAY) == 10.0 + DELAY


def test_a_node_waits_for_its_kube_proxy_to_run_where_that_can_be_asked() -> None:
    state = step(Returns({"c": 0.0}), frozenset(), "ab", "ab", 10.0, DELAY, frozenset())
    assert state.wakes_at(DELAY) == 10.0 + PODS_WITHIN
    state = step(state, frozenset(), "ab", "ab", 20.0, DELAY, C)
    assert state.settling == C and state.wakes_at(DELAY) == 20.0 + DELAY
    assert step(state, frozenset(), "ab", "ab", 20.0 + DELAY, DELAY, C).settling == frozenset()
    both = step(returned(), frozenset(), "abc", "ab", 20.0, DELAY, C)
    assert both.wakes_at(DELAY) == 10.0 + PODS_WITHIN, "its replica is waited for as well"


def test_the_wait_for_a_kube_proxy_is_bounded() -> None:
    state = step(Returns({"c": 0.0}), frozenset(), "ab", "ab", 10.0, DELAY, frozenset())
    assert step(state, frozenset(), "ab", "ab", 10.0 + PODS_WITHIN, DELAY, frozenset()).settling == frozenset()


def test_a_node_that_dies_again_begins_anew() -> None:
    state = step(returned(), C, "abc", "ab", 11.0, DELAY)
    assert state.settling == frozenset() and set(state.dead) == C
    assert step(state, frozenset(), "abc", "abc", 12.0, DELAY).wakes_at(DELAY) == 12.0 + DELAY


def test_a_node_that_was_dead_for_less_than_a_boot_does_not_wait() -> None:
    """Found by the simulator, seed 55: one replica saw a node dead for 10 ms, and then served its VIP for
    seconds."""
    dead = step(Returns(), C, "abc", "ab", 10.0, DELAY)
    assert step(dead, C, "abc", "ab", 11.0, DELAY).dead == {"c": 10.0}
    assert step(dead, frozenset(), "abc", "ab", 10.0 + BOOT - 0.1, DELAY).settling == frozenset()
    assert step(dead, frozenset(), "abc", "ab", 10.0 + BOOT, DELAY).settling == C


def test_a_node_that_was_dead_when_the_replica_started_may_have_booted() -> None:
    """Found by the simulator, seeds 1005 and 329: a replica that had just started placed a VIP on a booting node at
    once. The others had seen the node die and waited. A replica may learn seconds after its start that the node is
    dead: from its own probes, or from the hello of another replica."""
    for at in (10.6, 10.0 + 2 * BOOT):
        state = step(Returns(), frozenset(), "abc", "ab", 10.0, DELAY)
        dead = step(state, C, "abc", "ab", at, DELAY, unheard=C)
        assert step(dead, frozenset(), "abc", "ab", at + 0.4, DELAY).settling == C


def test_a_node_that_answered_and_died_soon_after_the_start_died_now() -> None:
    state = step(Returns(), frozenset(), "abc", "ab", 10.0, DELAY)
    dead = step(state, C, "abc", "ab", 10.6, DELAY, unheard="b")
    assert step(dead, frozenset(), "abc", "ab", 11.0, DELAY).settling == frozenset()


@given(st.lists(st.tuples(st.sets(st.sampled_from("abc")), st.sets(st.sampled_from("abc")), st.floats(0.01, 20.0))))
def test_who_waits_is_alive_was_dead_and_does_not_wait_for_ever(steps: list[tuple[set[str], set[str], float]]) -> None:
    state, now, ever = Returns(), 0.0, set[str]()
    for dead, fresh, pause in steps:
        now += pause
        ever |= dead
        state = step(state, frozenset(dead), "abc", fresh, now, DELAY)
        assert not state.settling & dead and state.settling <= ever
        assert all(now - found.since < PODS_WITHIN + DELAY for found in state.waiting.values() if not found.runs)
    assert step(state, frozenset(), "abc", "", now + PODS_WITHIN + DELAY, DELAY).settling <= set(state.dead)


def test_the_plan_leaves_it_out_while_there_is_another_node() -> None:
    nodes = {name: Node(name) for name in NAMES}
    view = View("node-a", settling=frozenset({"node-c"}))
    assert usable_nodes(nodes, view) == {"node-a", "node-b"}
    assert "kube-proxy" in unusable_nodes(nodes, view)["node-c"]
    assert usable_nodes(nodes, View("node-a", settling=frozenset(NAMES))) == set(NAMES)
    alone = View("node-a", dead=frozenset({"node-a", "node-b"}), settling=frozenset({"node-c"}))
    assert usable_nodes(nodes, alone) == {"node-c"}
    made = plan(cluster(settling=frozenset({"node-c"})), None, 0.0, POLICY)
    for vip in made.vips.values():
        assert "node-c" not in vip.next_hops and "node-c" not in vip.candidates


def test_the_only_endpoint_of_policy_local_is_used_at_once_also_where_it_has_just_returned() -> None:
    snap = cluster(settling=frozenset({"node-c"}))
    local = replace(snap.services[MAIL], traffic_policy=TrafficPolicy.LOCAL)
    endpoints = {**snap.endpoints, MAIL: (Endpoint("node-c"),)}
    snap = replace(snap, services={**snap.services, MAIL: local}, endpoints=endpoints)
    first = plan(snap, None, 0.0, POLICY)
    assert first.vips[LAYER2_VIP].next_hops == ("node-c",)
    dead = replace(snap, view=replace(snap.view, settling=frozenset(), dead=frozenset({"node-c"})))
    assert plan(dead, first, 1.0, POLICY).vips[LAYER2_VIP].next_hops == ()
    two = replace(snap, endpoints={**snap.endpoints, MAIL: (Endpoint("node-c"), Endpoint("node-b"))})
    assert plan(two, None, 0.0, POLICY).vips[LAYER2_VIP].next_hops == ("node-b",)
