"""A next hop is used once its node's kube-proxy can deliver, if another next hop exists until then."""

from __future__ import annotations

from porterlb.core.model import Endpoint, Service, ServiceKey, TrafficPolicy
from porterlb.core.proxy_wait import Endpoints, NewHop, ProxyPolicy, ProxyWait, settled, step, wakes_at

POLICY = ProxyPolicy(delay=1.5, limit=5.0)
KEY = ServiceKey("default", "web")
LOCAL = Service(KEY, traffic_policy=TrafficPolicy.LOCAL, health_check_port=30123)
NO_PORT = Service(KEY, traffic_policy=TrafficPolicy.LOCAL)
NOTHING: frozenset[str] = frozenset()


def at(*nodes: str) -> Endpoints:
    return {KEY: tuple(Endpoint(node) for node in nodes)}


def started(endpoints: Endpoints, service: Service = LOCAL, dead: frozenset[str] = NOTHING) -> ProxyWait:
    return step(None, {KEY: service}, endpoints, dead, (), 0.0, POLICY)


def ready(state: ProxyWait) -> set[str]:
    return {endpoint.node for endpoint in settled(state, {})[KEY] if endpoint.ready}


def test_at_the_start_every_next_hop_is_settled() -> None:
    assert ready(started(at("a", "b"))) == {"a", "b"}


def test_a_new_next_hop_waits_for_its_health_check() -> None:
    services, now = {KEY: LOCAL}, at("a", "b")
    state = step(started(at("a")), services, now, NOTHING, (), 1.0, POLICY)
    assert ready(state) == {"a"}
    assert list(state.waiting) == [NewHop(KEY, "b", 30123)]
    assert wakes_at(state, POLICY) == 6.0
    assert ready(step(state, services, now, NOTHING, (), 5.9, POLICY)) == {"a"}
    assert ready(step(state, services, now, NOTHING, [NewHop(KEY, "b", 30123)], 1.1, POLICY)) == {"a", "b"}


def test_the_wait_is_bounded() -> None:
    state = step(started(at("a")), {KEY: LOCAL}, at("a", "b"), NOTHING, (), 1.0, POLICY)
    state = step(state, {KEY: LOCAL}, state.endpoints, NOTHING, (), 6.0, POLICY)
    assert ready(state) == {"a", "b"} and wakes_at(state, POLICY) is None


def test_without_a_health_check_port_a_delay_decides() -> None:
    services, now = {KEY: NO_PORT}, at("a", "b")
    state = step(started(at("a"), NO_PORT), services, now, NOTHING, (), 1.0, POLICY)
    assert ready(step(state, services, now, NOTHING, (), 2.4, POLICY)) == {"a"}
    assert ready(step(state, services, now, NOTHING, (), 2.5, POLICY)) == {"a", "b"}


def test_the_only_next_hop_never_waits() -> None:
    state = step(started(at("a")), {KEY: LOCAL}, at("b"), NOTHING, (), 1.0, POLICY)
    assert ready(state) == {"b"}


def test_a_next_hop_that_waits_is_used_when_the_others_die() -> None:
    state = step(started(at("a")), {KEY: LOCAL}, at("a", "b"), NOTHING, (), 1.0, POLICY)
    state = step(state, {KEY: LOCAL}, state.endpoints, frozenset("a"), (), 1.2, POLICY)
    assert "b" in ready(state)


def test_a_held_back_endpoint_is_not_used_as_a_terminating_one() -> None:
    found = {KEY: (Endpoint("a"), Endpoint("b", serving=True, terminating=True))}
    state = step(started(at("a")), {KEY: LOCAL}, found, NOTHING, (), 1.0, POLICY)
    assert not any(e.serving for e in settled(state, {})[KEY] if e.node == "b")


def test_a_node_that_returns_waits_again() -> None:
    both = at("a", "b")
    state = step(started(both), {KEY: LOCAL}, both, frozenset("b"), (), 1.0, POLICY)
    assert not state.waiting
    state = step(state, {KEY: LOCAL}, both, NOTHING, (), 2.0, POLICY)
    assert ready(state) == {"a"}


def test_a_node_that_is_exempt_does_not_wait_when_it_returns() -> None:
    both = at("a", "b")
    state = step(started(both), {KEY: LOCAL}, both, frozenset("b"), (), 1.0, POLICY)
    assert ready(step(state, {KEY: LOCAL}, both, NOTHING, (), 2.0, POLICY, exempt="b")) == {"a", "b"}
    assert ready(step(state, {KEY: LOCAL}, both, NOTHING, (), 2.0, POLICY, exempt="a")) == {"a"}


def test_a_node_that_dies_while_it_waits_begins_anew() -> None:
    state = step(started(at("a")), {KEY: LOCAL}, at("a", "b"), NOTHING, (), 1.0, POLICY)
    state = step(state, {KEY: LOCAL}, state.endpoints, frozenset("b"), (), 2.0, POLICY)
    assert not state.waiting
    state = step(state, {KEY: LOCAL}, state.endpoints, NOTHING, (), 3.0, POLICY)
    assert state.waiting == {NewHop(KEY, "b", 30123): 3.0}


def test_policy_cluster_and_new_services_do_not_wait() -> None:
    cluster = Service(KEY, health_check_port=0)
    assert not step(started(at("a"), cluster), {KEY: cluster}, at("a", "b"), NOTHING, (), 1.0, POLICY).waiting
    assert not step(ProxyWait(), {KEY: LOCAL}, at("a", "b"), NOTHING, (), 1.0, POLICY).waiting


def test_a_service_or_endpoint_that_goes_is_forgotten() -> None:
    state = step(started(at("a")), {KEY: LOCAL}, at("a", "b"), NOTHING, (), 1.0, POLICY)
    assert not step(state, {KEY: LOCAL}, at("a"), NOTHING, (), 1.1, POLICY).waiting
    assert not step(state, {}, state.endpoints, NOTHING, (), 1.1, POLICY).waiting


def test_equal_results_stay_the_same_objects() -> None:
    state = step(started(at("a")), {KEY: LOCAL}, at("a", "b"), NOTHING, (), 1.0, POLICY)
    first = settled(state, {})
    assert settled(state, first)[KEY] is first[KEY]
    settled_state = started(at("a"))
    assert settled(settled_state, {}) is settled_state.endpoints
