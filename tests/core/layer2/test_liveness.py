"""The judgement about nodes, without a network: one silent node is dead, all silent is doubt, a stall is neither."""

from __future__ import annotations

import pytest

from porterlb.core.layer2.liveness import NEVER_HEARD, Liveness
from porterlb.core.layer2.targets import GATEWAY, Key, Target

INTERVAL, LIMIT = 0.05, 3
MAC = b"\2" * 6


class World:
    """Nodes that answer or not, probed tick by tick."""

    def __init__(self, *nodes: str, gateway: bool = False) -> None:
        self.liveness = Liveness(INTERVAL, LIMIT)
        self.keys = {node: Key(1, bytes([10, 0, 0, i])) for i, node in enumerate((*nodes, GATEWAY), 1)}
        names = (*nodes, GATEWAY) if gateway else nodes
        self.liveness.set_targets(Target(node, self.keys[node], node != GATEWAY) for node in names)
        self.silent: set[str] = set()
        self.now = 100.0
        self.evidence = 0.0
        self.died: list[str] = []

    def tick(self, times: int = 1, lag: float = 0.0) -> None:
        for _ in range(times):
            self.died += sorted(self.liveness.judge(self.now, lag, self.evidence).died)
            for target in self.liveness.targets.values():
                self.liveness.sent(target.key)
                if target.node not in self.silent:
                    self.liveness.heard(*target.key, MAC, self.now + 0.001)
            self.now += INTERVAL


def test_a_silent_node_dies_after_the_misses_and_revives_at_its_first_answer():
    world = World("a", "b")
    world.tick(5)
    world.silent = {"a"}
    world.tick(LIMIT)
    assert world.died == []
    world.tick()
    assert world.died == ["a"] and world.liveness.verdict.dead == {"a"} and not world.liveness.verdict.doubt
    world.silent = set()
    world.tick()
    assert world.liveness.verdict.dead == set()


def test_a_node_never_seen_has_longer_until_it_is_dead():
    world = World("a", "b")
    world.silent = {"a"}
    world.tick(NEVER_HEARD)
    assert world.died == [] and world.liveness.verdict.seen == {"b"}
    world.tick()
    assert world.died == ["a"]
    world.silent = set()
    world.tick()
    assert world.liveness.verdict.dead == set()


def test_a_starting_replica_that_hears_nobody_declares_nobody_dead():
    world = World("a", "b")
    world.silent = {"a", "b"}
    world.tick(3 * NEVER_HEARD)
    assert world.died == []


def test_silence_of_everybody_is_doubt_and_no_death():
    world = World("a", "b", gateway=True)
    world.tick(5)
    world.silent = {"a", "b", GATEWAY}
    world.tick(50)
    assert world.died == [] and world.liveness.verdict.doubt
    world.silent = set()
    world.tick(2)
    assert not world.liveness.verdict.doubt and world.died == []


def test_the_last_other_node_dies_when_the_gateway_or_a_hello_is_heard():
    world = World("a", gateway=True)
    world.tick(5)
    world.silent = {"a"}
    world.tick(10)
    assert world.died == ["a"] and not world.liveness.verdict.doubt
    alone = World("a")
    alone.tick(5)
    alone.silent = {"a"}
    alone.tick(10)
    assert alone.died == [] and alone.liveness.verdict.doubt
    for _ in range(2):  # sound is back: it gets one more probe
        assert alone.died == []
        alone.evidence = alone.now
        alone.tick()
    assert alone.died == ["a"] and not alone.liveness.verdict.doubt


def test_when_a_silence_ends_nobody_dies_of_being_heard_last():
    world = World("a", "b")
    world.tick(5)
    world.silent = {"a", "b"}
    world.tick(20)
    world.silent = {"a"}  # b's first answer comes a tick before that of a
    world.tick(1)
    world.silent = set()
    world.tick(5)
    assert world.died == [] and not world.liveness.verdict.doubt


@pytest.mark.parametrize("lag", [0.03, 2.0])
def test_a_late_judgement_says_nothing(lag):
    world = World("a", "b")
    world.tick(5)
    world.silent = {"a"}
    world.tick(50, lag=lag)
    assert world.died == []
    world.tick()
    assert world.died == ["a"]


def test_an_interface_without_carrier_blames_nobody():
    world = World("a", "b")
    world.tick(5)
    down = [Target(node, world.keys[node], True, up=False) for node in "ab"]
    world.liveness.set_targets(down)
    world.silent = {"a", "b"}
    world.tick(50)
    assert world.died == [] and world.liveness.verdict.doubt
    world.liveness.set_targets([Target(node, world.keys[node], True, up=True) for node in "ab"])
    world.silent = set()
    world.tick(5)
    assert world.died == [] and not world.liveness.verdict.doubt


def test_a_node_that_is_not_wanted_any_more_is_forgotten():
    world = World("a", "b")
    world.tick(5)
    world.silent = {"a"}
    world.tick(10)
    world.liveness.set_targets([Target("b", world.keys["b"])])
    assert world.liveness.verdict.dead == set() and world.liveness.verdict.seen == {"b"}
