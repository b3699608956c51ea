"""Where VIPs are placed, when next hops are recorded, and when VIPs are moved: a small cluster over time."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import pytest

from porterlb.core.objects import ObjectKey
from porterlb.core.placement.policy import PlacementPolicy
from porterlb.core.plan import plan
from tests.core.placement_world import FAST, POLICY, World, key

N1, N2, N3 = NODES = ("n1", "n2", "n3")
MANY = [f"svc-{number}" for number in range(24)]
MORE = [f"more-{number}" for number in range(12)]


def even(world: World) -> bool:
    return max(world.counts()) - min(world.counts()) <= 1


def settled(world: World) -> World:
    world.run(15, step=3)
    assert world.placement.settling.settled
    return world


# The five scenarios in which VIPs accumulate on some nodes


def test_services_that_are_created_once_the_replicas_run_are_spread_evenly() -> None:
    world = settled(World(NODES, NODES))
    world.serve(*MANY)
    world.run(3)
    assert world.counts() == [8, 8, 8] and set(world.recorded().values()) == set(NODES)


@pytest.mark.parametrize("apart", [2, 9, 10, 11, 19])
@pytest.mark.parametrize("order", [NODES, (N3, N1, N2)])
def test_a_cluster_that_is_switched_on_ends_balanced(apart: int, order: tuple[str, ...]) -> None:
    world = World(NODES, order[:1])
    world.serve(*MANY)
    world.run(apart)
    for name in order[1:]:
        world.replicas.append(name)
        world.run(apart)
    world.run(65, step=5)
    assert world.counts() == [8, 8, 8] and len(world.recorded()) == 24


def test_nodes_that_were_away_one_after_another_get_their_share_back_after_the_quiet_time() -> None:
    world = settled(World(NODES, NODES))
    world.serve(*MANY)
    world.run(3)
    for name in (N2, N3):
        world.dead.add(name)
        world.replicas.remove(name)
        world.run(4)
        assert name not in world.recorded().values()
        world.dead.remove(name)
        world.replicas.append(name)
        world.run(4)
    assert not even(world)
    moved = sum(count - 8 for count in world.counts() if count > 8)
    before = world.places()
    world.run(50, step=5)
    assert world.places() == before  # not before rebalance_after
    world.run(40)
    assert world.counts() == [8, 8, 8]
    assert sum(before[name] != node for name, node in world.places().items()) == moved


def test_a_third_replica_gets_its_share() -> None:
    world = World(NODES, (N1, N2))
    world.run(65, step=5)
    world.serve(*MANY)
    world.run(3)
    assert world.counts() == [12, 12, 0]
    world.replicas.append(N3)
    world.run(3)
    assert world.counts() == [12, 12, 0]
    world.serve(*MORE)
    world.run(3)
    assert world.counts() == [12, 12, 12]  # new VIPs go to the node with the fewest


# Placement


def test_a_new_vip_goes_to_the_least_loaded_node_and_equals_are_decided_by_rendezvous() -> None:
    world = settled(World(NODES, NODES))
    for number in range(9):
        before = world.counts()
        world.serve(f"one-{number}")
        world.run(2)
        (node,) = [name for name, was, is_ in zip(NODES, before, world.counts(), strict=True) if was != is_]
        equals = [name for name, count in zip(NODES, before, strict=True) if count == min(before)]
        vip = next(v for v in world.plans[N1].vips.values() if v.services == (key(f"one-{number}"),))
        assert node == next(name for name in vip.best if name in equals)


def test_a_new_vip_is_recorded_together_with_its_allocation() -> None:
    """The record prevents an answer from another node first."""
    world = settled(World(NODES, NODES))
    world.serve("first")
    made = world.tick()
    assert not made.vips and set(world.placement.decided) == {key("first")}
    assert list(world.recorded().values()) == list(world.placement.decided.values())
    world.tick()
    assert world.places() == {"first": world.recorded()["10.77.0.100"]}
    assert not world.placement.decided


def test_weights_and_capacities_count() -> None:
    world = settled(World(NODES, NODES))
    world.serve("heavy", weight="6")
    world.run(2)
    world.serve(*MANY[:12])
    world.run(2)
    heavy = world.places()["heavy"]
    assert sorted(world.counts()) == [1, 6, 6] and world.counts()[NODES.index(heavy)] == 1

    world = World(NODES, NODES)
    world.node(N2, capacity="2")
    settled(world).serve(*MANY)
    world.run(2)
    assert world.counts() == [6, 12, 6]


def test_only_the_best_candidates_are_considered() -> None:
    world = settled(World(NODES, NODES))
    world.serve(*MANY[:6], at=[N1], policy="Local")
    world.serve(*MANY[6:12], at=[N1, N2])
    world.node(N3, cordoned=True)
    world.run(2)
    assert world.counts() == [6, 6, 0]


def test_without_a_leader_and_for_other_replicas_the_order_decides() -> None:
    world = World(NODES, NODES)
    world.serve("web")
    world.run(12)
    world.leader = "elsewhere"
    of = world.snapshot(N1)
    services = {k: replace(service, pinned_node="") for k, service in of.services.items()}
    made = plan(replace(of, services=services), None, 0.0, POLICY, FAST)
    (vip,) = made.vips.values()
    assert vip.place == vip.best[0] and made.memory.placement and not made.memory.placement.decided


def test_every_replica_plans_the_same_place() -> None:
    world = settled(World(NODES, NODES, everyone=True))
    world.serve(*MANY)
    world.run(3)
    world.tick()
    assert world.places(N1) == world.places(N2) == world.places(N3)
    assert len({made.digest for made in world.plans.values()}) == 1


# Records


def test_a_rolling_restart_moves_no_vip() -> None:
    world = settled(World(NODES, NODES, everyone=True))
    world.serve(*MANY)
    world.run(3)
    before, records = world.places(), world.recorded()
    for name in NODES:
        world.replicas.remove(name)
        world.plans.pop(name)
        if world.leader == name:
            world.leader = world.replicas[0]
        world.run(3)
        assert world.places() == before
        world.replicas.append(name)
        world.run(3)
        assert world.places() == before
    world.run(100, step=5)
    assert world.places() == before and world.recorded() == records


def test_all_nodes_lose_power_and_return_one_after_another() -> None:
    world = settled(World(NODES, NODES))
    world.serve(*MANY)
    world.run(3)
    before = world.places()
    world.plans.clear()
    world.dead, world.replicas, world.leader = {N2, N3}, [N1], N1
    world.run(20)
    assert world.counts() == [24, 0, 0]
    for name in (N2, N3):
        world.dead.remove(name)
        world.replicas.append(name)
        world.run(20)
    world.run(40)
    assert world.places() == before


def test_a_node_that_is_away_for_a_moment_takes_nothing_back() -> None:
    world = settled(World(NODES, NODES))
    world.serve(*MANY)
    world.run(3)
    world.dead.add(N3)
    world.run(2)
    moved = world.places()
    assert N3 not in moved.values()
    world.dead.remove(N3)
    world.run(30)
    assert world.places() == moved


def test_while_the_api_is_away_nothing_is_decided() -> None:
    world = settled(World(NODES, NODES))
    world.serve(*MANY)
    world.run(3)
    world.outage = True
    world.serve("late")
    for _ in range(40):
        world.tick(5)
    assert not world.placement.decided and not world.placement.moves
    world.outage = False
    world.run(3)
    assert sorted(world.counts()) == [8, 8, 9]


# Rebalancing


def lopsided(policy: PlacementPolicy = FAST) -> World:
    """24 VIPs; none is on the third node, which has become usable."""
    world = World(NODES, (N1, N2), policy)
    world.run(65, step=5)
    world.serve(*MANY)
    world.run(3)
    world.replicas.append(N3)
    world.tick()
    assert world.counts() == [12, 12, 0]
    return world


def test_rebalancing_waits_moves_one_at_a_time_and_no_more_than_needed() -> None:
    world = lopsided()
    last, moves = world.places(), []
    for second in range(1, 120):
        world.tick(1)
        world.tick()
        now = world.places()
        changed = [name for name in now if now[name] != last[name]]
        moves += [(second, name) for name in changed]
        assert len(changed) <= 1
        last = now
    assert world.counts() == [8, 8, 8] and len(moves) == 8
    assert moves[0][0] == 60 and [b[0] - a[0] for a, b in pairwise(moves)] == [1] * 7


def test_vips_that_nobody_asked_for_lately_are_moved_first() -> None:
    world = lopsided()
    first = [vip for vip in world.plans[N1].vips.values() if vip.place == N1]
    quiet = {vip.services[0].name for vip in sorted(first, key=lambda vip: int(vip.address))[-4:]}
    world.asked = frozenset(v.address for v in world.plans[N1].vips.values() if v.services[0].name not in quiet)
    before = world.places()
    world.run(62)
    moved = {name for name, node in world.places().items() if before[name] != node}
    assert moved and moved <= quiet


def test_a_move_is_not_followed_by_another_before_it_is_recorded() -> None:
    world = lopsided()
    world.run(59)
    for _ in range(10):
        world.tick(1, write=False)
        assert len(world.placement.decided) <= 1
    assert len(world.placement.decided) == 1
    world.tick()
    world.run(20)
    assert world.counts() == [8, 8, 8]


@pytest.mark.parametrize("event", ["cordon", "death", "replica", "outage"])
def test_an_event_stops_the_moves(event: str) -> None:
    world = lopsided()
    world.run(62)
    if event == "cordon":
        world.node(N3, cordoned=True)
    elif event == "death":
        world.dead.add(N3)
        world.replicas.remove(N3)
    elif event == "replica":
        world.replicas.remove(N2)
    else:
        world.outage = True
    world.run(2)
    before = world.places()
    world.run(57, step=3)
    assert world.places() == before and not world.placement.moves
    if event in ("cordon", "outage"):
        world.run(60, step=5)
        assert world.places() == before


def test_nothing_moves_in_doubt() -> None:
    world = lopsided()
    world.run(62)
    world.doubt = True
    before = world.places()
    world.run(120, step=5)
    assert world.places() == before


def test_nothing_moves_in_manual_until_it_is_asked_for() -> None:
    world = lopsided(replace(FAST, automatic=False))
    before = world.places()
    world.run(200, step=5)
    assert world.places() == before
    world.change("Eip", "pool", metadata={"annotations": {"rebalance.porter.kubesphere.io/v1alpha1": "r1"}})
    world.run(30)
    assert world.counts() == [8, 8, 8]
    assert (world.objects.raw("Eip", "", "pool") or {})["status"]["rebalanced"] == "r1"
    world.run(2)
    assert world.objects.eips["pool"].rebalance == ""  # the request has been answered
    world.restart(N1)
    world.replicas.append(world.replicas.pop(0))
    world.leader = N2
    world.serve(*MORE, at=[N1])
    world.run(100, step=5)
    assert world.counts() == [20, 8, 8]  # a request counts once


def test_a_request_also_evens_out_what_is_left_alone_by_itself() -> None:
    """9 VIPs instead of 8 do not reach 25%."""
    world = settled(World(NODES, NODES, replace(FAST, rebalance_after=60)))
    world.serve(*MANY)
    world.run(3)
    for name in [n for n, node in world.places().items() if node == N1][:2]:
        world.objects.delete("Service", "default", name)
    world.run(100, step=5)
    assert world.counts() == [6, 8, 8]
    world.change("Eip", "pool", metadata={"annotations": {"rebalance.porter.kubesphere.io/v1alpha1": "r2"}})
    world.run(5)
    assert sorted(world.counts()) == [7, 7, 8]


def test_an_uncordoned_node_gets_its_share_without_the_long_wait() -> None:
    world = World(NODES, NODES, replace(FAST, rebalance_after=600))
    world.node(N3, cordoned=True)
    settled(world).serve(*MANY)
    world.run(3)
    assert world.counts() == [12, 12, 0]
    world.node(N3)
    world.run(9)
    assert world.counts() == [12, 12, 0]
    world.run(12)
    assert world.counts() == [8, 8, 8]


def test_nothing_is_moved_towards_a_cordoned_node() -> None:
    world = lopsided()
    world.node(N3, cordoned=True)
    world.run(200, step=5)
    assert world.counts() == [12, 12, 0]


def test_the_mode_from_bgp_and_back_keeps_the_placement() -> None:
    world = settled(World(NODES, NODES))
    world.serve(*MANY)
    world.run(3)
    before = world.places()
    for protocol in ("bgp", "layer2"):
        world.change("Eip", "pool", spec={"address": "10.77.0.100-10.77.0.229", "protocol": protocol})
        world.run(5)
    assert world.places() == before


@pytest.mark.parametrize("text", ["0", "1001", "-1", "1.5", "many", "\u0663", " "])
def test_a_weight_that_cannot_be_is_refused_in_one_line(text: str) -> None:
    world = World(NODES, NODES)
    world.serve("web", weight=text)
    assert world.objects.services[key("web")].weight == 1
    problems = world.objects.problems.get(ObjectKey("Service", "default", "web"), ())
    assert [problem.field for problem in problems] == (
        ["metadata.annotations[weight.porter.kubesphere.io/v1alpha1]"] if text.strip() else []
    )
    assert all("is not a whole number from 1 to 1000" in problem.message and not problem.fatal for problem in problems)


@pytest.mark.parametrize(
    ("text", "capacity"),
    [("0.1", 10), ("2", 200), ("1.25", 125), ("100", 10000)]
    + [(text, 100) for text in ("0", "0.05", "101", "-1", "NaN", "Infinity", "much", "1e400")],
)
def test_a_capacity_is_a_number_and_anything_else_is_refused_in_one_line(text: str, capacity: int) -> None:
    world = World(NODES, NODES)
    world.node(N1, capacity=text)
    assert world.objects.nodes[N1].capacity == capacity
    problems = world.objects.problems.get(ObjectKey("Node", "", N1), ())
    assert len(problems) == (capacity == 100)
    for problem in problems:
        assert problem.field == "metadata.annotations[capacity.porter.kubesphere.io/v1alpha1]" and not problem.fatal
        assert "is not a number from 0.1 to 100: the node counts with the capacity 1." in problem.message
