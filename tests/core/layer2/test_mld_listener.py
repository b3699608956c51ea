"""The MLD listener: a switch that learns groups only from reports knows our groups after any sequence of events."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from porterlb.core.layer2.mld import ALL_MLDV2_ROUTERS, ALL_ROUTERS, MOST_RECORDS, Message, MldRecord, Query
from porterlb.core.layer2.mld_listener import MldListener

GROUPS = [bytes.fromhex("ff0200000000000000000001ff") + number.to_bytes(3, "big") for number in range(12_000)]
GENERAL = Query(2, b"", 1.0, 2)


def read(message: Message) -> list[tuple[MldRecord, bytes]]:
    """(kind, group) of a message of either version."""
    kind, body = message.body[0], message.body
    if kind == 143:
        assert message.destination == ALL_MLDV2_ROUTERS
        count = int.from_bytes(body[6:8], "big")
        assert 0 < count <= MOST_RECORDS and len(body) == 8 + 20 * count
        return [(MldRecord(body[at]), body[at + 4 : at + 20]) for at in range(8, len(body), 20)]
    assert kind in (131, 132) and message.destination == (body[8:] if kind == 131 else ALL_ROUTERS)
    return [(MldRecord.JOINED if kind == 131 else MldRecord.LEFT, body[8:])]


class World:
    """A listener, its clock, and all its messages: (when, kind, group)."""

    def __init__(self, seed: int = 1) -> None:
        self.listener = MldListener(random.Random(seed).random)
        self.now = 100.0
        self.said: list[tuple[float, MldRecord, bytes]] = []
        self.messages: list[Message] = []

    def until(self, end: float) -> None:
        """Advances the time as the wire process does: the listener runs when a message is due, never before."""
        for _ in range(1_000_000):
            at = self.listener.next_at
            if at is None or at > end:
                break
            self.now = max(self.now, at)
            messages = self.listener.due(self.now)
            self.messages += messages
            self.said += [(self.now, kind, group) for message in messages for kind, group in read(message)]
        else:
            raise AssertionError("it never stops talking")
        self.now = end

    def wait(self, seconds: float) -> list[tuple[MldRecord, bytes]]:
        """The messages of this period."""
        before = len(self.said)
        self.until(self.now + seconds)
        return [(kind, group) for _, kind, group in self.said[before:]]


def test_silent_until_there_is_something_to_say() -> None:
    world = World()
    world.listener.heard(GENERAL, world.now)
    world.listener.heard(Query(2, GROUPS[0], 1.0, 2), world.now)
    world.listener.leave(GROUPS[0], world.now)
    assert world.wait(60.0) == [] and world.listener.next_at is None


def test_a_join_and_a_leave_are_told_at_once_and_once_more() -> None:
    world = World()
    world.listener.join(GROUPS[0], world.now)
    world.listener.join(GROUPS[0], world.now)
    assert world.wait(0.02) == [(MldRecord.JOINED, GROUPS[0])]
    assert world.wait(1.0) == [(MldRecord.JOINED, GROUPS[0])]
    assert world.wait(600.0) == []
    world.listener.leave(GROUPS[0], world.now)
    assert world.wait(0.02) == [(MldRecord.LEFT, GROUPS[0])]
    assert world.wait(1.0) == [(MldRecord.LEFT, GROUPS[0])]
    assert world.listener.next_at is None


def test_as_often_as_the_querier_wants_it() -> None:
    world = World()
    world.listener.heard(GENERAL._replace(robustness=5), world.now)
    world.listener.join(GROUPS[0], world.now)
    assert world.wait(10.0) == [(MldRecord.JOINED, GROUPS[0])] * 5


def test_a_leave_between_the_two_times_of_a_join_is_the_last_word() -> None:
    world = World()
    world.listener.join(GROUPS[0], world.now)
    world.wait(0.02)
    world.listener.leave(GROUPS[0], world.now)
    assert {kind for kind, _ in world.wait(5.0)} == {MldRecord.LEFT}


def test_ten_thousand_joins_share_reports_and_no_turn_takes_all() -> None:
    world = World()
    for group in GROUPS[:10_000]:
        world.listener.join(group, world.now)
    assert len(world.listener.due(world.now)) == 0
    world.wait(0.011)
    assert {group for _, _, group in world.said} == set(GROUPS[:10_000])
    assert len(world.messages) == -(-10_000 // MOST_RECORDS)
    world.wait(1.0)
    assert len(world.said) == 20_000


@pytest.mark.parametrize("count", [1, 10_000])
def test_a_general_query_is_answered_in_full_and_in_time(count) -> None:
    world = World()
    for group in GROUPS[:count]:
        world.listener.join(group, world.now)
    world.wait(5.0)
    world.listener.heard(GENERAL, world.now)
    assert sorted(world.wait(1.0)) == sorted((MldRecord.LISTENING, group) for group in GROUPS[:count])
    assert world.listener.next_at is None
    times = [when for when, _, _ in world.said[-count:]]
    assert count == 1 or max(times) - min(times) > 0.8  # not all at the same moment


def test_a_query_for_a_group_is_answered_for_it_alone() -> None:
    world = World()
    for group in GROUPS[:100]:
        world.listener.join(group, world.now)
    world.wait(5.0)
    for group in (GROUPS[7], GROUPS[7], GROUPS[500]):
        world.listener.heard(Query(2, group, 0.5, 2), world.now)
    assert world.wait(0.5) == [(MldRecord.LISTENING, GROUPS[7])]
    world.listener.heard(Query(2, GROUPS[7], 0.5, 2), world.now)
    assert world.wait(0.5) == [(MldRecord.LISTENING, GROUPS[7])]


def test_the_first_version_for_as_long_as_its_querier_may_be_there() -> None:
    world = World()
    world.listener.join(GROUPS[0], world.now)
    world.listener.heard(Query(1, b"", 10.0), world.now)
    world.wait(10.0)
    assert {message.body[0] for message in world.messages} == {131}
    world.listener.leave(GROUPS[0], world.now)
    world.wait(5.0)
    assert {message.body[0] for message in world.messages[-2:]} == {132}
    world.wait(260.0)
    world.listener.join(GROUPS[1], world.now)
    world.wait(5.0)
    assert {message.body[0] for message in world.messages[-2:]} == {143}


@pytest.mark.parametrize("query", [Query(2, b"", 0.0, 7), Query(1, b"", 0.0), Query(2, GROUPS[3], 0.0, 7)])
def test_a_flood_of_queries_is_answered_a_few_times_a_second(query) -> None:
    world = World()
    for group in GROUPS[:200]:
        world.listener.join(group, world.now)
    world.wait(10.0)
    begun, before = world.now, len(world.said)
    while world.now < begun + 1.0:
        world.listener.heard(query, world.now)
        world.wait(0.0005)
    # Random delays of up to 0.1 s: a round of four reports takes 0.08 s on average, one for a single group 0.05 s
    assert len(world.said) - before <= (20 * 200 if not query.group else 40)


@pytest.mark.parametrize("within", [0.0, 10.0])
def test_queries_that_never_end_put_no_answer_off(within) -> None:
    world = World()
    for group in GROUPS[:200]:
        world.listener.join(group, world.now)
    world.wait(10.0)
    begun = len(world.said)
    for _ in range(1100):
        world.listener.heard(Query(2, b"", within, 2), world.now)
        world.wait(0.01)
    assert {group for _, _, group in world.said[begun:]} == set(GROUPS[:200])


def test_all_is_told_anew_where_the_cable_may_end_elsewhere() -> None:
    world = World()
    for group in GROUPS[:70]:
        world.listener.join(group, world.now)
    world.wait(5.0)
    world.listener.rejoin(world.now)
    assert set(world.wait(0.02)) == {(MldRecord.JOINED, group) for group in GROUPS[:70]}


class Switch:
    """The group table of a snooping switch for our port: RFC 4541, with the timers of RFC 3810 (robustness 2)."""

    INTERVAL, WITHIN = 20.0, 1.0

    def __init__(self) -> None:
        self.believed: dict[bytes, float] = {}

    def hear(self, when: float, kind: MldRecord, group: bytes) -> None:
        if kind is MldRecord.LEFT:
            self.believed.pop(group, None)
        else:
            self.believed[group] = when + 2 * self.INTERVAL + self.WITHIN

    def at(self, now: float) -> set[bytes]:
        return {group for group, end in self.believed.items() if end >= now}


_STEPS = st.lists(
    st.tuples(st.sampled_from(["join", "leave", "rejoin", "specific"]), st.integers(0, 9), st.floats(0.0, 30.0)),
    max_size=30,
)


@given(_STEPS, st.integers(0, 1000), st.sampled_from([1, 2]), st.booleans())
def test_a_switch_believes_what_is_true_after_any_story(steps, seed, version, lossy) -> None:
    """Also if every second report is lost (a querier asks for robustness 2 to cover that)."""
    world, switch = World(seed), Switch()
    wanted: set[bytes] = set()
    asked = world.now
    heard = 0

    def passing(end: float) -> None:
        nonlocal asked, heard
        while world.now < end:
            world.until(min(end, asked))
            if world.now >= asked:
                world.listener.heard(Query(version, b"", Switch.WITHIN, 2 if version == 2 else 0), world.now)
                asked += Switch.INTERVAL
        for at in range(heard, len(world.said)):
            if not lossy or at % 2 == 0:
                switch.hear(*world.said[at])
        heard = len(world.said)

    for what, number, pause in steps:
        group = GROUPS[number]
        if what == "join":
            world.listener.join(group, world.now)
            wanted.add(group)
        elif what == "leave":
            world.listener.leave(group, world.now)
            wanted.discard(group)
        elif what == "rejoin":
            world.listener.rejoin(world.now)
        else:
            world.listener.heard(Query(version, group, 0.5, 2), world.now)
        passing(world.now + pause)
        if not lossy and pause > 0.1:
            assert switch.at(world.now) == wanted
    passing(world.now + 2 * Switch.INTERVAL + 2)
    if not lossy:
        assert switch.at(world.now) == wanted
