"""The content of our own hello, and when it is sent at once."""

from __future__ import annotations

from dataclasses import replace

import pytest

from porterlb.core.hello import Hello
from porterlb.core.layer2 import actions as act
from porterlb.core.layer2.serving import LISTEN
from tests.core.layer2.world import World


def said(actions: list[act.Action]) -> list[Hello]:
    return [action.hello for action in actions if isinstance(action, act.Say)]


@pytest.fixture
def world() -> World:
    made = World("n1", "n2")
    made.vips(("10.0.0.100", ("n1", "n2")))
    made.run(LISTEN + 0.5)
    return made


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("leader", "n2"),
        ("sessions", frozenset({"tor"})),
        ("hold_downs", frozenset({"narrow"})),
        ("negotiated", {"tor": "4"}),
    ],
)
def test_what_others_decide_by_is_said_at_once_when_it_changes(world: World, field: str, value: object) -> None:
    layer2 = world.replicas["n1"].layer2
    assert said(layer2.want(world.wanted, world.now)) == []
    (hello,) = said(layer2.want(replace(world.wanted, **{field: value}), world.now))  # type: ignore[arg-type]
    assert getattr(hello, field) == value and hello.answers


def test_nothing_is_said_before_we_are_a_member(world: World) -> None:
    layer2 = world.replicas["n1"].layer2
    others = {name: member for name, member in world.wanted.members.items() if name != "n1"}
    assert said(layer2.want(replace(world.wanted, members=others, leader="n2"), world.now)) == []


def test_where_an_interface_cannot_be_opened_we_say_that_we_do_not_answer(world: World) -> None:
    layer2 = world.replicas["n1"].layer2
    (hello,) = said(layer2.interface_failed(1, "no", world.now))
    assert not hello.answers and not any(state.answers for state in hello.segments)


def test_a_replica_is_given_up_when_its_hellos_stop_though_its_node_answers(world: World) -> None:
    """An answer to our probes shows that our own link works."""
    world.hung = {"n1"}
    world.run(0.35)
    assert set(world.answers("10.0.0.100")) == {"n2"}
