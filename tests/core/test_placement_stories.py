"""Invariants of placement and rebalancing over random sequences: nodes, replicas, Services, weights, leaders."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from porterlb.core.model import Snapshot
from porterlb.core.placement.overview import rebalancing
from porterlb.core.plan import plan
from tests.core.placement_world import FAST, POLICY, World

NODES = ("n1", "n2", "n3")
MANUAL = replace(FAST, automatic=False)
ASK = "rebalance.porter.kubesphere.io/v1alpha1"

EVENTS = st.one_of(
    st.tuples(st.just("serve"), st.integers(0, 9), st.sets(st.sampled_from(NODES)), st.sampled_from(["1", "1", "3"])),
    st.tuples(st.just("spread"), st.integers(1, 4)),
    st.tuples(st.just("delete"), st.integers(0, 9)),
    st.tuples(st.just("endpoints"), st.integers(0, 9), st.sets(st.sampled_from(NODES), min_size=1)),
    st.tuples(st.sampled_from(["die", "return", "cordon", "uncordon"]), st.sampled_from(NODES)),
    st.tuples(st.sampled_from(["leave", "join", "lead"]), st.sampled_from(NODES)),
    st.tuples(st.just("wait"), st.sampled_from([1, 5, 15, 70])),
)


def happen(world: World, event: tuple) -> None:  # type: ignore[type-arg]
    match event:
        case ("serve", number, at, weight):
            world.serve(f"s{number}", at=sorted(at), policy="Local" if at else "Cluster", weight=weight)
        case ("spread", count):
            world.serve(*[f"t{world.version}-{number}" for number in range(count)])
        case ("delete", number):
            world.objects.delete("Service", "default", f"s{number}")
        case ("endpoints", number, at):
            world.endpoints(f"s{number}", *sorted(at))
        case ("die", name):
            if len(world.dead) < 2:
                world.dead.add(name)
                leave(world, name)
        case ("return", name):
            world.dead.discard(name)
            join(world, name)
        case ("cordon", name):
            world.node(name, cordoned=True)
        case ("uncordon", name):
            world.node(name)
        case ("leave", name):
            leave(world, name)
        case ("join", name):
            if name not in world.dead:
                join(world, name)
        case ("lead", name):
            if name in world.replicas:
                world.leader = name
        case ("wait", seconds):
            world.run(seconds, step=max(1, seconds / 5))


def leave(world: World, name: str) -> None:
    if world.replicas != [name] and name in world.replicas:
        world.replicas.remove(name)
        world.restart(name)
        if world.leader == name:
            world.leader = world.replicas[0]


def join(world: World, name: str) -> None:
    if name not in world.replicas:
        world.replicas.append(name)


def told(events: list[tuple], policy: object = MANUAL) -> World:  # type: ignore[type-arg]
    world = World(NODES, NODES, policy)  # type: ignore[arg-type]
    world.run(15, step=5)
    world.serve(*[f"u{number}" for number in range(6)])
    for event in events:
        happen(world, event)
        world.run(2)
    return world


stories = st.lists(EVENTS, min_size=3, max_size=12)
quickly = settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])


@given(stories)
@quickly
def test_without_a_request_nothing_moves_in_manual_and_with_one_nothing_is_left_to_move(events: list) -> None:  # type: ignore[type-arg]
    world = told(events)
    for name in NODES:
        happen(world, ("return", name))
        happen(world, ("uncordon", name))
    world.run(70, step=5)  # settled; a leader of the sequence may have just started
    before, records = world.places(), world.recorded()
    world.run(800, step=100)
    assert (world.places(), world.recorded()) == (before, records)

    least = len(rebalancing(world.plans[world.leader]))
    world.change("Eip", "pool", metadata={"annotations": {ASK: "now"}})
    world.run(12, step=3)
    for _ in range(3 * least + 4):
        world.tick(1)
    assert (world.objects.raw("Eip", "", "pool") or {})["status"].get("rebalanced") == "now"
    assert sum(before[name] != node for name, node in world.places().items()) == least
    assert rebalancing(world.plans[world.leader]) == ()


@given(stories, st.randoms())
@quickly
def test_equal_inputs_give_equal_placement_on_every_replica_whatever_the_order(events: list, chance: object) -> None:  # type: ignore[type-arg]
    world = told(events)
    world.tick(1)
    of = world.snapshot(world.leader)

    def shuffled(mapping: dict[Any, Any]) -> dict[Any, Any]:
        items = list(mapping.items())
        chance.shuffle(items)  # type: ignore[attr-defined]
        return dict(items)

    parts = ("nodes", "services", "endpoints", "eips", "members")
    changes: dict[str, Any] = {part: shuffled(dict(getattr(of, part))) for part in parts}
    mixed: Snapshot = replace(of, **changes)
    previous = world.plans[world.leader]
    one, two = (plan(s, previous, world.now + 700, POLICY, FAST) for s in (of, mixed))
    assert one.memory.placement == two.memory.placement and one.digest == two.digest
    fresh = [plan(s, None, world.now, POLICY, replace(FAST, settle_after=0)) for s in (of, mixed)]
    assert fresh[0].memory.placement == fresh[1].memory.placement
    for name in world.replicas:  # all replicas choose the same answerers, because all follow the record
        other = plan(world.snapshot(name), None, world.now, POLICY, FAST)
        assert {a: vip.candidates for a, vip in other.vips.items()} == {a: v.candidates for a, v in one.vips.items()}


@given(st.lists(st.tuples(st.just("spread"), st.integers(1, 6)), min_size=1, max_size=6))
@quickly
def test_vips_that_may_be_anywhere_differ_by_one_at_most(events: list) -> None:  # type: ignore[type-arg]
    world = told(events)
    assert max(world.counts()) - min(world.counts()) <= 1
