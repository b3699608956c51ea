"""Which nodes may receive traffic, and in which order."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from ipaddress import ip_address, ip_interface, ip_network

from hypothesis import given
from hypothesis import strategies as st

from porterlb.core.model import Endpoint, Member, Node, Ready, Service, ServiceKey, TrafficPolicy, View
from porterlb.core.nexthops import MOST, layer2_order, next_hops, segments, tiers, usable_nodes
from porterlb.core.problems import Reason
from porterlb.core.rendezvous import ranked

NODES = {name: Node(name, (ip_address(f"10.77.0.{i + 11}"),)) for i, name in enumerate(["node-a", "node-b", "node-c"])}
ALL = frozenset(NODES)
SERVICE = Service(ServiceKey("default", "web"))


def with_node(name: str, **changes: object) -> dict[str, Node]:
    return NODES | {name: replace(NODES[name], **changes)}  # type: ignore[arg-type]


def test_what_makes_a_node_unusable() -> None:
    view = View("node-a")
    for changes in (
        {"ready": Ready.FALSE},
        {"ready": Ready.UNKNOWN},
        {"network_unavailable": True},
        {"excluded": True},
        {"out_of_service": True},
    ):
        assert usable_nodes(with_node("node-b", **changes), view) == {"node-a", "node-c"}, changes
    assert usable_nodes(NODES, View("node-a", dead=frozenset({"node-b"}))) == {"node-a", "node-c"}
    assert usable_nodes(with_node("node-b", cordoned=True), view) == ALL


def test_a_sick_control_plane_takes_no_node_away() -> None:
    sick = {name: replace(node, ready=Ready.UNKNOWN) for name, node in NODES.items()}
    assert usable_nodes(sick, View("node-a")) == ALL
    assert usable_nodes(sick, View("node-a", dead=frozenset({"node-c"}))) == {"node-a", "node-b"}


def test_doubt_about_ourselves_believes_no_probe() -> None:
    assert usable_nodes(NODES, View("node-a", dead=ALL - {"node-a"}, doubt=True)) == ALL


def test_local_takes_nodes_with_a_ready_endpoint_only() -> None:
    endpoints = [Endpoint("node-b"), Endpoint("node-c", ready=False)]
    assert next_hops(TrafficPolicy.LOCAL, endpoints, ALL).nodes == {"node-b"}
    assert next_hops(TrafficPolicy.CLUSTER, endpoints, ALL).nodes == ALL
    gone = next_hops(TrafficPolicy.LOCAL, endpoints, ALL - {"node-b"})
    assert gone.nodes == frozenset() and gone.problem is not None and gone.problem.reason is Reason.NO_USABLE_NODE


def test_where_kube_proxy_prefers_the_same_node_traffic_goes_to_the_endpoints() -> None:
    """KEP-3015: each ready endpoint has a hint for its own node."""
    b, c = Endpoint("node-b", same_node=True), Endpoint("node-c", same_node=True)
    assert next_hops(TrafficPolicy.CLUSTER, [b, c], ALL).nodes == {"node-b", "node-c"}
    assert next_hops(TrafficPolicy.CLUSTER, [b, c], ALL - {"node-b"}).nodes == {"node-c"}
    assert next_hops(TrafficPolicy.CLUSTER, [b, replace(c, ready=False)], ALL).nodes == {"node-b"}
    nowhere = next_hops(TrafficPolicy.CLUSTER, [b], frozenset({"node-a"}))
    assert nowhere.nodes == {"node-a"}, "no usable node has one: as without the hints, unlike Local"
    mixed = next_hops(TrafficPolicy.CLUSTER, [b, Endpoint("node-c")], ALL)
    assert mixed.nodes == ALL, "kube-proxy honours the hints only where all endpoints have them"
    old = [b, Endpoint("node-c", ready=False, serving=False)]
    assert next_hops(TrafficPolicy.CLUSTER, old, ALL).nodes == {"node-b"}, "endpoints that are not ready do not count"


def test_no_ready_endpoint_no_next_hop() -> None:
    for endpoints in ([], [Endpoint("node-a", ready=False, serving=False)]):
        found = next_hops(TrafficPolicy.CLUSTER, endpoints, ALL)
        assert (
            found.nodes == frozenset()
            and found.problem is not None
            and found.problem.reason is Reason.NO_READY_ENDPOINT
        )


def test_terminating_endpoints_serve_when_nothing_else_is_left() -> None:
    leaving = Endpoint("node-a", ready=False, serving=True, terminating=True)
    assert next_hops(TrafficPolicy.LOCAL, [leaving], ALL).nodes == {"node-a"}
    assert next_hops(TrafficPolicy.LOCAL, [leaving, Endpoint("node-b")], ALL).nodes == {"node-b"}


def test_order_prefers_pin_then_endpoints_then_replicas_and_cordoned_last() -> None:
    hops, none = next_hops(TrafficPolicy.CLUSTER, [Endpoint("node-c")], ALL), frozenset[str]()
    key = str(SERVICE.key)
    first, second = (name for name in ranked(key, ALL) if name != "node-c")
    assert layer2_order(SERVICE, hops, ALL, none) == ("node-c", first, second)
    assert layer2_order(SERVICE, hops, frozenset({second}), none) == ("node-c", second, first)
    assert layer2_order(replace(SERVICE, pinned_node=second), hops, ALL, none) == (second, "node-c", first)
    assert layer2_order(SERVICE, hops, ALL, frozenset({"node-c"})) == (first, second, "node-c")


MANY = [f"n{i}" for i in range(40)]
subsets = st.frozensets(st.sampled_from(MANY))


@given(subsets, subsets, subsets, st.lists(st.sampled_from(MANY), max_size=20), st.sampled_from(["", *MANY[:5]]))
def test_a_node_that_is_not_picked_may_go_without_changing_anything(
    present: frozenset[str], replicas: frozenset[str], cordoned: frozenset[str], at: list[str], pinned: str
) -> None:
    service = replace(SERVICE, held=(ip_address("10.77.0.201"),), pinned_node=pinned)
    endpoints = [Endpoint(node) for node in ["n0", *at]]

    def order(usable: frozenset[str]) -> tuple[str, ...]:
        hops = next_hops(TrafficPolicy.CLUSTER, endpoints, usable)
        return layer2_order(service, hops, replicas, cordoned, tiers(usable, present, replicas, cordoned), many=True)

    usable = frozenset(MANY)
    found = order(usable)
    assert len(found) == len(set(found)) == MOST
    while spare := sorted(usable - set(found)):
        usable -= {spare[0]}
        assert order(usable) == found
    if pinned:
        assert found[0] == pinned
    best = {*present - cordoned, pinned} - {""}
    assert len(best & set(found)) >= min(len(best), MOST - 1)
    nearest = set(at) & present - cordoned
    assert len(nearest & set(found)) >= min(len(nearest), MOST - 1)


def test_the_picks_of_many_blocks_are_spread_over_the_nodes() -> None:
    usable = frozenset(f"n{i}" for i in range(100))
    hops = next_hops(TrafficPolicy.CLUSTER, [Endpoint("elsewhere"), Endpoint("n0")], usable)
    among = tiers(usable, usable, usable, frozenset())
    counts: Counter[str] = Counter()
    firsts: Counter[str] = Counter()
    for i in range(4096):
        service = replace(SERVICE, held=(ip_address(0x0A000000 + i),))
        found = layer2_order(service, replace(hops, endpoints=frozenset()), usable, frozenset(), among, many=True)
        counts.update(found)
        firsts[found[0]] += 1
    assert max(counts.values()) < 2.5 * 4096 * MOST / 100 and max(firsts.values()) < 2.5 * 4096 / 100
    assert len(firsts) == 100


def test_segments_come_from_members_and_hold_the_nodes_on_them() -> None:
    member = Member("node-a", "10.77.0.11", 1, 1, (ip_interface("10.77.0.11/24"), ip_interface("192.168.9.1/24")))
    found = segments(NODES, {"node-a": member})
    assert found.of(ip_address("10.77.0.200")) == ip_network("10.77.0.0/24")
    assert found.of(ip_address("172.16.0.1")) is None
    assert found.nodes_on(ip_network("10.77.0.0/24")) == ALL
    assert found.nodes_on(ip_network("192.168.9.0/24")) == {"node-a"}


def test_the_sentence_says_what_was_asked_for() -> None:
    for policy, word in ((TrafficPolicy.LOCAL, "Local"), (TrafficPolicy.CLUSTER, "No node is usable")):
        problem = next_hops(policy, [Endpoint("node-a")], frozenset()).problem
        assert problem is not None and word in problem.message


def test_only_where_any_node_will_do_some_of_them_are_enough() -> None:
    usable = frozenset(MANY)
    far = next_hops(TrafficPolicy.CLUSTER, [Endpoint("n1")], usable)
    assert far.anywhere and not next_hops(TrafficPolicy.LOCAL, [Endpoint(name) for name in MANY], usable).anywhere
    stays = next_hops(TrafficPolicy.CLUSTER, [Endpoint(name, same_node=True) for name in MANY], usable)
    assert stays.nodes == usable and not stays.anywhere
    assert len(layer2_order(SERVICE, stays, usable, frozenset(), many=True)) == len(MANY)
