"""A VIP that the plan moves is answered at every moment, even if the next replica learns of the move late."""

from __future__ import annotations

from types import SimpleNamespace as Of
from typing import Any

import pytest

from porterlb.core.layer2.handover import PATIENCE, Handover
from porterlb.core.layer2.serving import LISTEN
from porterlb.core.layer2.staleness import SETTLE, SILENT
from tests.core.layer2.test_engine import ORDER, PACKED, A, B, question
from tests.core.layer2.world import NIC, World, mac_of

OTHER = ("n1", "n2", "n3")


@pytest.fixture
def world() -> World:
    """Three replicas that serve; n2 holds A and B."""
    made = World("n1", "n2", "n3")
    made.vips((A, ORDER), (B, ORDER))
    made.run(LISTEN + 0.5)
    assert made.answers(A) == {"n2": mac_of("n2")}
    return made


def move(world: World, *late: str) -> None:
    """The plan moves A to n1. ``late``: replicas that have not received the plan yet."""
    world.quiet = set(late)
    world.vips((A, OTHER), (B, ORDER))
    world.quiet = set()


def test_the_answerer_continues_until_the_next_one_has_the_plan(world: World) -> None:
    move(world, "n1")
    for _ in range(20):
        world.tick()
        assert world.answers(A) == {"n2": mac_of("n2")}
    assert world.replicas["n2"].answering[A].answerer == "n2", "what is reported is what is answered"
    world.tell("n1")
    world.run(0.02)
    assert world.answers(A) == {"n1": mac_of("n1")}
    assert world.answers(B) == {"n2": mac_of("n2")}


def test_a_replica_that_has_the_plan_first_takes_over_at_once(world: World) -> None:
    move(world, "n2", "n3")
    world.run(0.05)
    assert "n1" in world.answers(A)
    world.tell("n2")
    world.run(0.02)
    assert world.answers(A) == {"n1": mac_of("n1")}


def test_all_replicas_at_once_leave_no_moment_without_an_answer(world: World) -> None:
    move(world)
    for _ in range(30):
        assert world.answers(A)
        world.tick()
    assert world.answers(A) == {"n1": mac_of("n1")}


def test_an_announcement_of_the_next_hop_ends_the_wait(world: World) -> None:
    move(world, "n1")
    world.run(0.05)
    n2 = world.replicas["n2"]
    n2.layer2.claimed(PACKED, mac_of("n1"), world.now)
    world.tick()
    assert world.answers(A) == {}, "the plan of n1 is assumed to name n1: it announces the VIP"


def test_a_next_replica_that_is_silent_or_dead_is_not_waited_for(world: World) -> None:
    world.hung = {"n1"}  # its node answers probes
    world.run(0.5)
    move(world, "n1")
    world.run(0.05)
    (answer,) = world.answers(A).values()
    assert answer == mac_of("n1")


def test_our_own_death_ends_the_wait(world: World) -> None:
    move(world, "n1")
    world.cut = {"n2"}
    world.run(0.5)
    world.tell("n1")
    world.run(0.1)
    assert world.answers(A) == {"n1": mac_of("n1")}


def test_after_the_patience_the_plan_counts_and_nothing_is_due_any_more(world: World) -> None:
    move(world, "n1")
    world.run(PATIENCE - 0.1)
    assert world.answers(A) == {"n2": mac_of("n2")}
    world.run(0.2)
    assert world.answers(A) == {}, "n1 has a manager and the API: it should have had the plan"
    waits = [replica.layer2.next_at for replica in world.replicas.values()]
    assert all(at is None or at > world.now for at in waits)


def test_a_vip_that_is_no_longer_wanted_is_not_waited_for(world: World) -> None:
    move(world, "n1")
    world.run(0.05)
    world.vips((B, ORDER))
    world.run(0.1)
    assert world.answers(A) == {}
    assert all(at is None or at > world.now for at in (r.layer2.next_at for r in world.replicas.values()))


def test_a_moment_without_a_manager_costs_nothing_because_staleness_is_said_before_the_patience_ends(
    world: World,
) -> None:
    world.quiet = {"n1"}
    world.run(1.0)
    world.vips((A, OTHER), (B, ORDER))
    for _ in range(round((SILENT + SETTLE) / 0.01)):
        world.tick()
        assert world.answers(A)
    assert set(world.answers(A).values()) == {mac_of("n1")}


def test_a_node_that_joins_a_spread_vip_takes_no_hosts_before_its_replica_has_the_plan() -> None:
    made = World("n1", "n2", "n3")
    made.vips((A, ("n2", "n3")), spread=True)
    made.run(LISTEN + 0.5)
    made.quiet = {"n1"}
    made.vips((A, OTHER), spread=True)
    made.quiet = set()
    made.run(0.05)
    answered = [_asked(made, host) for host in range(100, 130)]
    assert set(map(len, answered)) == {1}
    assert {mac for macs in answered for mac in macs} == {mac_of("n2"), mac_of("n3")}
    made.tell("n1")
    made.run(0.2)
    later = [_asked(made, host) for host in range(130, 160)]
    assert {mac for macs in later for mac in macs} == {mac_of("n1"), mac_of("n2"), mac_of("n3")}


def _asked(world: World, host: int) -> list[bytes]:
    """The answers to a host's question for A after 0.2 s, the time in which unknown hosts are assigned."""
    asker = question(A, f"10.0.0.{host}")._replace(mac=b"\x0a" * 5 + bytes([host]))
    macs = [replica.layer2.asked(NIC, asker, world.now) for replica in world.replicas.values()]
    world.run(0.2)
    return [mac for mac in macs if mac]


def test_the_first_wait_ends_first() -> None:
    around: Any = Of(own="n1", wanted=Of(digest=2))
    hellos: Any = Of(last_of=lambda node: Of(digest=1))  # neither has our plan
    handover = Handover(around, hellos)
    assert handover.next_at is None
    assert handover.waits("a", "n2", 10.0) and handover.waits("b", "n3", 11.0)
    assert handover.next_at == 10.0 + PATIENCE
    assert not handover.announced("c", 12.0), "we do not wait for it"
    assert handover.announced("b", 12.0), "its new node claims it"
    assert not handover.waits("b", "n3", 12.0)
    assert list(handover.due(10.0 + PATIENCE)) == ["a"]
    assert not handover.waits("a", "n2", 10.0 + PATIENCE) and handover.next_at is None
