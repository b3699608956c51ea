"""Which replicas count as voters on a node, which of them find it silent, and which hear it."""

from __future__ import annotations

import json
from ipaddress import ip_address, ip_network

import pytest

from porterlb.core.hello import GATEWAY, SegmentState
from porterlb.core.layer2.votes import alone, votes
from porterlb.core.observed import Votes
from porterlb.core.wire_text import read_report, report_line
from tests.core.layer2.world import World

FIRST, SECOND = ip_network("10.0.0.0/24"), ip_network("10.1.0.0/24")
NODES = {name: (ip_address(f"10.0.0.{number}"),) for number, name in enumerate("abcd", 1)}


def on(
    subnet: object = FIRST,
    *,
    silent: str = "",
    suspect: str = "",
    contacts: tuple[str, ...] = (GATEWAY,),
    up: bool = True,
) -> SegmentState:
    return SegmentState(
        (subnet,),  # type: ignore[arg-type]
        up=up,
        contacts=contacts,
        silent=frozenset(silent),
        suspect=frozenset(suspect),
    )


def of(voters: str, silent: str, heard: str = "") -> Votes:
    return Votes(frozenset(voters), frozenset(silent), frozenset(heard))


def test_nobody_votes_where_nobody_finds_a_node_silent() -> None:
    assert votes({"a": [on()], "b": [on(suspect="c")]}, NODES) == {}


def test_silence_suspicion_and_hearing_are_counted_apart() -> None:
    said = {"a": [on(silent="c")], "b": [on(suspect="c")], "d": [on()]}
    assert votes(said, NODES) == {"c": of("abd", "a", "d")}
    assert votes({**said, "d": [on(silent="c")]}, NODES) == {"c": of("abd", "ad")}


def test_the_nodes_own_replica_has_no_vote() -> None:
    assert votes({"a": [on(silent="c")], "c": [on(silent="a")]}, NODES) == {"a": of("c", "c"), "c": of("a", "a")}


@pytest.mark.parametrize(
    "mute",
    [
        on(contacts=("c",)),  # only the node in question has answered it: its own link may be at fault
        on(contacts=()),
        on(up=False),
        on(SECOND),
    ],
)
def test_who_cannot_tell_has_no_vote(mute: SegmentState) -> None:
    assert votes({"a": [on(silent="c")], "b": [mute]}, NODES)["c"].voters == frozenset("a")


def test_who_hears_the_node_on_another_segment_says_so() -> None:
    assert votes({"a": [on(silent="c")], "b": [on(SECOND, contacts=("c",))]}, NODES)["c"] == of("a", "a", "b")
    doubted = {"a": [on(silent="c")], "b": [on(SECOND, contacts=("c",), suspect="c")]}
    assert votes(doubted, NODES)["c"] == of("a", "a"), "the contact is older than the suspicion"


def test_silence_on_another_segment_than_that_of_the_internal_ip_is_no_vote() -> None:
    assert votes({"a": [on(), on(SECOND, silent="c")], "b": [on(), on(SECOND, silent="c")]}, NODES) == {}


def test_nodes_that_the_api_does_not_know_have_no_votes() -> None:
    assert votes({"a": [on(silent="x")]}, NODES) == {}


def test_the_votes_reach_the_manager_as_they_are() -> None:
    found = {"c": of("abd", "ab", "d")}
    assert read_report(json.loads(report_line({"votes": found}))) == {"votes": found}


def test_who_hears_less_than_half_of_the_others_is_alone() -> None:
    assert alone("bc", {"b": False, "c": False}, "bc") and not alone("bc", {"b": True, "c": False}, "")
    assert alone("bcd", {"b": True, "c": False, "d": False}, "bcd"), "two of four: the other two may vote"
    assert not alone("bcde", {"b": True, "c": True, "d": False, "e": False}, ""), "three of five are the majority"
    assert not alone("b", {"b": False}, ""), "one alone has no majority"
    assert alone("bc", {}, "") and not alone("bc", {}, "b"), "who is not probed counts by its hellos"


def test_a_replica_reports_the_votes_on_a_node_that_loses_its_power_and_their_end() -> None:
    world = World("n1", "n2", "n3", "n4")
    world.vips(("10.0.0.100", ("n1",)))
    world.run(3.0)
    world.cut.add("n4")
    world.hung.add("n4")
    world.run(0.4)
    three = frozenset({"n1", "n2", "n3"})
    for name in three:
        assert world.replicas[name].report["votes"] == {"n4": Votes(three, three)}
    world.cut.clear()
    world.hung.clear()
    world.run(0.5)
    assert world.replicas["n1"].report["votes"] == {}


def test_each_side_of_a_partition_votes_on_the_other_and_who_is_alone_does_not() -> None:
    world = World("n1", "n2", "n3")
    world.vips(("10.0.0.100", ("n1",)))
    world.run(3.0)
    world.cut.add("n3")
    world.run(0.4)
    assert world.replicas["n1"].report["votes"] == {"n3": Votes(frozenset({"n1", "n2"}), frozenset({"n1", "n2"}))}
    assert world.replicas["n3"].report.get("votes", {}) == {}


def test_who_is_cut_off_knows_it_before_the_others_hold_it_for_dead() -> None:
    world = World("n1", "n2", "n3")
    world.vips(("10.0.0.100", ("n1",)))
    world.run(3.0)
    world.cut.add("n3")
    for _ in range(40):
        world.run(0.01)
        if world.replicas["n3"].report.get("alone"):
            break
    assert world.replicas["n3"].report["alone"] and not world.replicas["n1"].report.get("votes")
    world.run(0.4)
    assert world.replicas["n1"].report["votes"] and not world.replicas["n1"].report.get("alone")
    world.cut.clear()
    world.run(0.3)
    assert not world.replicas["n3"].report["alone"]
