"""Plans of clusters with more nodes than a VIP uses: every part that could change is planned again."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace
from ipaddress import ip_address, ip_interface
from operator import attrgetter

from hypothesis import example, given, settings
from hypothesis import strategies as st

from porterlb.core.announce import COPIES, FEW, Announcers, Arrangement, Reach
from porterlb.core.bgp.negotiated import Negotiated
from porterlb.core.desired import Path
from porterlb.core.model import (
    BgpConf,
    Endpoint,
    Member,
    Node,
    Peer,
    Service,
    ServiceKey,
    Snapshot,
    TrafficPolicy,
    View,
)
from porterlb.core.nexthops import MOST
from porterlb.core.persistent import PersistentMap, editing
from porterlb.core.plan import BATCH, Plan, plan, plan_steps
from tests.core.test_plan import PARTS, POLICY, eip, service

NODES = [f"n{i:02}" for i in range(24)]
ADDRESS = {name: ip_address(f"10.77.0.{i + 11}") for i, name in enumerate(NODES)}
VIPS = {f"s{i}": f"10.77.{i % 2}.{i + 100}" for i in range(12)}


def agreed(add_path: int, families: tuple[int, ...] = (4,)) -> Negotiated:
    return Negotiated(families, (4,) if add_path else (), hold_time=9)


def fleet(add_path: int = 8) -> Snapshot:
    """24 nodes, two routers, pools on and off the segment."""
    pools = (eip("on", "10.77.0.100", "10.77.0.150"), eip("off", "10.77.1.100", "10.77.1.150"))
    services = [
        service(name, held, TrafficPolicy.LOCAL if i % 5 == 4 else TrafficPolicy.CLUSTER)
        for i, (name, held) in enumerate(VIPS.items())
    ]
    peers = [Peer(f"r{i}", ip_address(f"10.77.0.{i}"), 64500, add_path=add_path, families=(4,)) for i in (1, 2)]
    return Snapshot(
        View(
            NODES[0],
            fresh=frozenset(NODES),
            sessions=frozenset((name, peer.name) for name in NODES for peer in peers),
            leader=NODES[0],
            negotiated={(name, peer.name): agreed(add_path) for name in NODES for peer in peers},
        ),
        nodes={name: Node(name, (ADDRESS[name],)) for name in NODES},
        services=PersistentMap((s.key, s) for s in services),
        endpoints=PersistentMap((s.key, tuple(map(Endpoint, NODES[i : i + 3]))) for i, s in enumerate(services)),
        eips={pool.name: pool for pool in pools},
        peers={peer.name: peer for peer in peers},
        conf=BgpConf(local_as=64512),
        members={name: Member(name, str(at), 7473, 1, (ip_interface(f"{at}/24"),)) for name, at in ADDRESS.items()},
    )


names = st.sampled_from(NODES[1:])
events = st.one_of(
    st.tuples(
        st.sampled_from(["node", "replica", "cordon", "r1", "r2", "excluded", "less", "none", "renumbered"]), names
    ),
    st.tuples(st.sampled_from(["endpoints", "policy", "pin", "service"]), st.sampled_from(list(VIPS)), names),
    st.tuples(st.sampled_from(["standby", "leader"])),
)


def after(seen: Snapshot, event: tuple[str, ...]) -> Snapshot:
    """The snapshot after one more event (or its reversal)."""
    view, what = seen.view, event[0]
    match event:
        case ("node", node):
            gone = {node} & view.fresh
            sessions = {s for s in view.sessions if s[0] != node} | (
                set() if gone else {(node, peer) for peer in seen.peers}
            )
            known = {session: of for session, of in view.negotiated.items() if session[0] != node}
            if not gone:
                known |= {(node, peer.name): agreed(peer.add_path) for peer in seen.peers.values()}
            view = replace(view, fresh=view.fresh ^ {node}, sessions=frozenset(sessions), negotiated=known)
            return replace(seen, view=replace(view, dead=frozenset(NODES) - view.fresh))
        case ("replica", node):
            return replace(seen, view=replace(view, fresh=view.fresh ^ {node}))
        case ("r1" | "r2", node):
            return replace(seen, view=replace(view, sessions=view.sessions ^ {(node, what)}))
        case ("less" | "none", node):  # its session with r1 has no add-path, or no family of ours
            other = agreed(0) if what == "less" else agreed(0, (6,))
            usual = agreed(seen.peers["r1"].add_path)
            now = other if view.negotiated.get((node, "r1"), usual) == usual else usual
            return replace(seen, view=replace(view, negotiated={**view.negotiated, (node, "r1"): now}))
        case ("renumbered", node):
            here, there = ADDRESS[node], ip_address(int(ADDRESS[node]) + 100)
            now_at = there if seen.nodes[node].addresses == (here,) else here
            return replace(seen, nodes={**seen.nodes, node: replace(seen.nodes[node], addresses=(now_at,))})
        case ("cordon" | "excluded", node):
            field = "cordoned" if what == "cordon" else "excluded"
            changed = replace(seen.nodes[node], **{field: not getattr(seen.nodes[node], field)})  # type: ignore[arg-type]
            return replace(seen, nodes={**seen.nodes, node: changed})
        case ("standby",):
            pool = seen.eips["on"]
            return replace(seen, eips={**seen.eips, "on": replace(pool, layer2_standby=not pool.layer2_standby)})
        case ("leader",):
            return replace(seen, view=replace(view, leader=NODES[0] if view.leader != NODES[0] else NODES[1]))
        case (_, name, node):
            key = ServiceKey("default", name)
            services, endpoints = editing(seen.services), editing(seen.endpoints)
            if what == "endpoints":
                endpoints[key] = (Endpoint(node),)
            elif what == "service" and key in services:
                del services[key]
            else:
                old: Service = services.get(key) or service(name, VIPS[name])
                flipped = TrafficPolicy.LOCAL if old.traffic_policy is TrafficPolicy.CLUSTER else TrafficPolicy.CLUSTER
                services[key] = replace(
                    old,
                    pinned_node=node if what == "pin" else old.pinned_node,
                    traffic_policy=flipped if what == "policy" else old.traffic_policy,
                )
            return replace(seen, services=services.frozen(), endpoints=endpoints.frozen())
    raise AssertionError(event)


@settings(max_examples=15, deadline=None)
@example([("renumbered", "n03"), ("renumbered", "n04")], 8)
@example([("node", "n03"), ("cordon", "n03"), ("node", "n01")], 8)  # a plan in between without any arrangement
@given(st.lists(events, min_size=1, max_size=8), st.sampled_from([0, 4, 8]))
def test_incremental_plans_of_many_nodes_are_whole_plans(story: list[tuple[str, ...]], add_path: int) -> None:
    seen = fleet(add_path)
    short = plan(seen, None, 0.0, POLICY)
    whole = short
    for now, event in enumerate(story, 1):
        seen = after(seen, event)
        short = plan(seen, short, now * 0.3, POLICY)
        whole = plan(seen, Plan(memory=whole.memory), now * 0.3, POLICY)
        for part in PARTS:
            assert attrgetter(part)(short) == attrgetter(part)(whole), (part, event)


@settings(max_examples=15, deadline=None)
@given(st.lists(events, max_size=6), st.sampled_from([0, 8]))
def test_every_next_hop_of_many_is_announced_by_live_replicas_on_other_nodes(
    story: list[tuple[str, ...]], add_path: int
) -> None:
    seen = fleet(add_path)
    for event in story:
        seen = after(seen, event)
    made = plan(seen, None, 0.0, POLICY)
    for vip in made.vips.values():
        services = [seen.services[key] for key in vip.services]
        if services[0].traffic_policy is TrafficPolicy.CLUSTER and vip.next_hops:
            assert len(vip.next_hops) == MOST or set(vip.next_hops) == made.shared.topology.usable  # type: ignore[union-attr]
        assert len(vip.candidates) <= MOST and set(vip.candidates) <= set(vip.next_hops)
        for peer, by_replica in vip.announced.items():
            speakers = made.shared.peering.speakers[peer]  # type: ignore[union-attr]
            counts = dict.fromkeys(vip.next_hops, 0)
            for replica, hops in by_replica.items():
                assert replica in speakers and replica not in hops and len(hops) <= max(1, add_path)
                for hop in hops:
                    counts[hop] += 1
            assert all(1 <= count <= COPIES for count in counts.values()), counts


def test_what_each_replica_announces_itself_is_what_all_expect_of_it() -> None:
    seen = fleet(0)
    for node in NODES[:6]:
        made = plan(replace(seen, view=replace(seen.view, node=node)), None, 0.0, POLICY)
        for vip in made.vips.values():
            for peer, by_replica in vip.announced.items():
                own = {ADDRESS[hop] for hop in by_replica.get(node, ())}
                assert own == {path.next_hop for path in vip.paths if path.peer == peer}
                assert own == {
                    p.next_hop for p, held in made.bgp.routes.items() if p.peer == peer and vip.prefix in held
                }


def test_a_replica_that_is_lost_concerns_only_the_next_hops_that_it_announced() -> None:
    seen = fleet()
    reach = Reach(seen.peers["r1"], 4, {name: (at,) for name, at in ADDRESS.items()}, seen.members)
    before = Announcers(reach, NODES)
    found = {hop: before.of(hop) for hop in NODES}
    less = Announcers(reach, [name for name in NODES if name != "n05"], before)
    assert less.differing(before) == {hop for hop in NODES if "n05" in found[hop]}
    anew = Announcers(reach, [name for name in NODES if name != "n05"])
    assert all(less.of(hop) == anew.of(hop) for hop in NODES)
    again = Announcers(reach, NODES, less)
    assert all(again.of(hop) == found[hop] for hop in NODES), "a replica that comes may be the best one for any hop"
    assert all(hop not in before.of(hop) and len(set(before.of(hop))) == MOST for hop in NODES)
    assert before.own("n05") == {hop for hop in NODES if "n05" in found[hop]}
    assert Arrangement(before, ("n01", "n02"), 1) == Arrangement(before, ("n01", "n02"), 1) != {}
    assert len(Arrangement(before, ("n01", "n02"), 1)) == len(list(Arrangement(before, ("n01", "n02"), 1))) > 0
    assert len(NODES) > FEW


@settings(max_examples=40, deadline=None)
@given(
    st.sets(st.sampled_from(NODES), min_size=2),
    st.lists(st.sampled_from(NODES), unique=True, min_size=1, max_size=MOST),
    st.sampled_from([1, 2, 5, 16, 32]),
)
def test_the_share_of_one_replica_is_its_part_of_the_arrangement(
    replicas: set[str], hops: list[str], capacity: int
) -> None:
    seen = fleet()
    reach = Reach(seen.peers["r1"], 4, {name: (at,) for name, at in ADDRESS.items()}, seen.members)
    announcers = Announcers(reach, sorted(replicas))
    arranged = announcers.arrange(hops, capacity)
    for replica in sorted(replicas):
        assert set(announcers.share(replica, tuple(hops), capacity)) == set(arranged.get(replica, ()))
    held = [hop for share in arranged.values() for hop in share]
    assert all(len(share) <= capacity for share in arranged.values())
    assert all(held.count(hop) <= COPIES for hop in hops)
    if len(replicas) * capacity > len(hops) + 1 and len(replicas) > FEW:
        assert set(held) == set(hops)


def test_peers_that_all_replicas_reach_in_the_same_way_have_the_same_announcers() -> None:
    seen = fleet()
    peering = plan(seen, None, 0.0, POLICY).shared.peering  # type: ignore[union-attr]
    assert peering.announcers("r1", 4) is peering.announcers("r2", 4)
    lost = after(seen, ("r1", "n05"))
    peering = plan(lost, None, 0.0, POLICY).shared.peering  # type: ignore[union-attr]
    assert peering.announcers("r1", 4) is not peering.announcers("r2", 4)
    far = replace(seen.peers["r2"], address=ip_address("10.99.0.1"))
    peering = plan(replace(seen, peers={**seen.peers, "r2": far}), None, 0.0, POLICY).shared.peering  # type: ignore[union-attr]
    assert peering.announcers("r1", 4) is not peering.announcers("r2", 4)


def test_a_plan_in_steps_is_the_plan_and_lets_others_run() -> None:
    seen = many(3 * BATCH)
    steps, count = plan_steps(seen, None, 0.0, POLICY), 0
    while True:
        try:
            next(steps)
            count += 1
        except StopIteration as done:
            made = done.value
            break
    at_once = plan(seen, None, 0.0, POLICY)
    different = [part for part in PARTS if attrgetter(part)(made) != attrgetter(part)(at_once)]
    assert not different and count >= 3


def many(count: int) -> Snapshot:
    """The fleet with additional Services of policy Cluster."""
    seen = fleet(0)
    held = {ServiceKey("default", f"many-{i}"): str(ip_address(int(ip_address("10.78.0.0")) + i)) for i in range(count)}
    return replace(
        seen,
        services=PersistentMap(
            {**seen.services, **{key: service(key.name, at, TrafficPolicy.CLUSTER) for key, at in held.items()}}
        ),
        endpoints=PersistentMap({**seen.endpoints, **{key: (Endpoint(NODES[5]),) for key in held}}),
        eips={**seen.eips, "many": eip("many", "10.78.0.0", "10.78.3.255")},
    )


@settings(max_examples=4, deadline=None)
@example("n08", False)
@given(st.sampled_from(["n01", "n04", "n08", "n15", "n18"]), st.booleans())
def test_routes_to_a_lost_node_change_before_the_plan_is_complete(node: str, with_replica: bool) -> None:
    seen = many(4 * BATCH)
    before = plan(seen, None, 0.0, POLICY)
    if with_replica:
        gone = after(seen, ("node", node))
    else:
        gone = replace(seen, view=replace(seen.view, dead=frozenset({node})))
    early, steps = [], plan_steps(gone, before, 1.0, POLICY)
    while True:
        try:
            step = next(steps)
            if step is not None:
                early.append(step)
        except StopIteration as done:
            made: Plan = done.value
            break
    assert made.bgp == plan(gone, before, 1.0, POLICY).bgp
    concerned = {
        prefix for path, held in before.bgp.routes.items() if path.next_hop == ADDRESS[node] for prefix in held
    }
    assert concerned, "this replica announces some VIPs with that next hop"
    (first,) = early
    assert first.sessions == before.bgp.sessions and first.negotiated == before.bgp.negotiated
    assert all(path.next_hop != ADDRESS[node] for path in first.routes)

    def routes_of(routes: Mapping[Path, Collection[str]], those: bool) -> set[tuple[Path, str]]:
        return {(path, one) for path, held in routes.items() for one in held if (one in concerned) is those}

    assert routes_of(first.routes, True) == routes_of(made.bgp.routes, True), "as in the complete plan"
    assert routes_of(first.routes, False) == routes_of(before.bgp.routes, False), "as before"


def test_no_routes_are_sent_early_if_the_plan_is_short_or_no_node_is_lost() -> None:
    seen = many(4 * BATCH)
    before = plan(seen, None, 0.0, POLICY)
    other = after(seen, ("r1", "n05"))
    few = fleet(0)
    lost = after(few, ("node", "n05"))
    for snapshot, previous in ((seen, None), (other, before), (lost, plan(few, None, 0.0, POLICY))):
        steps = plan_steps(snapshot, previous, 1.0, POLICY)
        assert all(step is None for step in steps)


def test_a_node_with_another_address_has_another_reach() -> None:
    seen = fleet()
    made, again = (plan(seen, None, 0.0, POLICY).shared for _ in range(2))
    moved = plan(after(seen, ("renumbered", "n03")), None, 0.0, POLICY).shared
    assert made is not None and again is not None and moved is not None
    assert again.peering.same_reach(made.peering) and not moved.peering.same_reach(made.peering)
