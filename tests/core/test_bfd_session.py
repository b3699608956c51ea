"""The BFD state machine: RFC 5880, 6.8; also two of them with a bad network between them."""

from __future__ import annotations

import random
from dataclasses import replace
from ipaddress import ip_address

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from porterlb.core.bfd.packet import LENGTH, Discard, Packet, decode
from porterlb.core.bfd.session import FAREWELLS, SLOW, Session
from porterlb.core.bfd.sessions import BfdSessions
from porterlb.core.bfd.values import BfdSettings, BfdState, BfdTarget, Diagnostic

FAST = BfdSettings(3, 50, 50)
ROUTER, NODE = ip_address("10.0.0.1"), ip_address("10.0.0.2")
HELLO = Packet(BfdState.DOWN, 7, 0, 3, SLOW, 50_000)


def up(settings: BfdSettings = FAST) -> Session:
    """A session that is Up at 0.0 with a router of 50 ms x 3."""
    session = Session(settings, 42, 0.0)
    session.receive(HELLO, 0.0, 1.0)
    session.receive(replace(HELLO, state=BfdState.INIT, your_discriminator=42), 0.0, 1.0)
    session.receive(replace(HELLO, state=BfdState.UP, your_discriminator=42, min_transmit=50_000), 0.0, 1.0)
    assert session.state is BfdState.UP
    return session


# --- BFD packets


def test_a_packet_is_the_same_after_encoding_and_decoding() -> None:
    packet = Packet(BfdState.UP, 1, 2, 3, 50_000, 60_000, Diagnostic.NEIGHBOR_DOWN, poll=True, demand=True)
    assert packet.encode().hex() == "23e203180000000100000002" + "0000c350" + "0000ea60" + "00000000"
    assert decode(packet.encode()) == packet
    assert decode(replace(packet, poll=False, final=True).encode()) == replace(packet, poll=False, final=True)
    assert decode(packet.encode() + b"padding") == packet


@pytest.mark.parametrize(
    ("at", "value", "why"),
    [
        (0, 0x40, Discard.VERSION),
        (3, 23, Discard.LENGTH),
        (3, 25, Discard.LENGTH),
        (2, 0, Discard.MULTIPLIER),
        (1, 0xC1, Discard.MULTIPOINT),
        (7, 0, Discard.MY_DISCRIMINATOR),
        (11, 0, Discard.YOUR_DISCRIMINATOR),
        (1, 0xC4, Discard.AUTHENTICATED),
        (1, 0xF0, Discard.POLL_AND_FINAL),
    ],
)
def test_what_rfc_5880_discards(at: int, value: int, why: Discard) -> None:
    data = bytearray(Packet(BfdState.UP, 1, 2, 3, 50_000, 50_000).encode())
    data[at] = value
    assert decode(bytes(data)) is why


def test_a_router_that_does_not_know_us_yet_is_down_or_admin_down() -> None:
    for state in BfdState:
        found = decode(Packet(state, 1, 0, 3, 1, 1).encode())
        assert isinstance(found, Packet) == (state in (BfdState.DOWN, BfdState.ADMIN_DOWN))
    assert decode(Packet(BfdState.UP, 1, 2, 3, 1, 1).encode()[: LENGTH - 1]) is Discard.SHORT


@given(st.binary(max_size=64), st.integers(0, 255), st.booleans())
def test_no_bytes_raise_and_none_brings_a_session_up(data: bytes, ttl: int, multihop: bool) -> None:
    sessions = BfdSessions(lambda: 0.5)
    sessions.want([BfdTarget("tor", ROUTER, settings=FAST)], 0.0)
    sessions.receive(data, ROUTER, ttl, 1.0, multihop=multihop)
    assert not sessions.reports["tor"].up


# --- one session


def test_three_way_handshake() -> None:
    session = Session(FAST, 42, 0.0)
    (first,) = session.wake(0.0, 1.0)
    assert (first.state, first.your_discriminator, first.min_transmit, first.min_receive) == (
        BfdState.DOWN,
        0,
        SLOW,
        50_000,
    )
    (second,) = session.receive(HELLO, 0.1, 1.0)
    assert (second.state, second.your_discriminator, session.state) == (BfdState.INIT, 7, BfdState.INIT)
    (third,) = session.receive(replace(HELLO, state=BfdState.UP, your_discriminator=42), 0.2, 1.0)
    assert (third.state, third.poll, third.min_transmit) == (BfdState.UP, True, 50_000)
    assert session.report.transitions == 1


@pytest.mark.parametrize(
    ("ours", "theirs", "then"),
    [
        (BfdState.DOWN, BfdState.UP, BfdState.DOWN),
        (BfdState.DOWN, BfdState.INIT, BfdState.UP),
        (BfdState.DOWN, BfdState.ADMIN_DOWN, BfdState.DOWN),
        (BfdState.INIT, BfdState.DOWN, BfdState.INIT),
        (BfdState.INIT, BfdState.INIT, BfdState.UP),
        (BfdState.INIT, BfdState.ADMIN_DOWN, BfdState.DOWN),
        (BfdState.UP, BfdState.INIT, BfdState.UP),
        (BfdState.UP, BfdState.UP, BfdState.UP),
        (BfdState.UP, BfdState.DOWN, BfdState.DOWN),
        (BfdState.UP, BfdState.ADMIN_DOWN, BfdState.DOWN),
    ],
)
def test_transitions(ours: BfdState, theirs: BfdState, then: BfdState) -> None:
    session = up() if ours is BfdState.UP else Session(FAST, 42, 0.0)
    if ours is BfdState.INIT:
        session.receive(HELLO, 0.0, 1.0)
    session.receive(replace(HELLO, state=theirs, your_discriminator=42), 0.01, 1.0)
    assert session.state is then


def test_packets_are_slow_until_up_and_then_as_configured() -> None:
    session = Session(FAST, 42, 0.0)
    session.wake(0.0, 0.0)
    assert session.next_at == pytest.approx(0.75)
    session.wake(0.75, 1.0)
    assert session.next_at == pytest.approx(1.75)
    session = up()
    session.send_at = 0.0
    session.wake(0.0, 0.0)
    assert session.send_at == pytest.approx(0.0375)
    session.wake(0.0376, 1.0)
    assert session.send_at == pytest.approx(0.0876)


def test_the_slower_side_decides() -> None:
    session = up(BfdSettings(3, 50, 100))
    session.receive(Packet(BfdState.UP, 7, 42, 5, min_transmit=30_000, min_receive=200_000, final=True), 1.0, 1.0)
    assert session.report.transmit_interval == 200_000
    assert session.report.detection_time == 5 * 100_000
    session.receive(Packet(BfdState.UP, 7, 42, 5, min_transmit=300_000, min_receive=0), 1.0, 1.0)
    assert session.report.detection_time == 5 * 300_000
    assert session.send_at is None  # a router that wants no packets gets none


def test_silence_for_the_detection_time_is_a_failure() -> None:
    session = up()
    assert session.detect_at == pytest.approx(0.15)
    session.wake(0.149, 1.0)
    assert session.state is BfdState.UP
    (said,) = session.wake(0.151, 1.0)
    assert (said.state, said.diagnostic, said.your_discriminator) == (BfdState.DOWN, Diagnostic.DETECTION_EXPIRED, 0)
    assert said.min_transmit == SLOW
    assert (session.report.failures, session.report.transitions) == (1, 2)
    assert session.detect_at is None
    session.receive(HELLO, 2.0, 1.0)
    assert session.state is BfdState.INIT


def test_a_router_that_says_down_is_a_failure_and_admin_down_is_none() -> None:
    session = up()
    session.receive(replace(HELLO, your_discriminator=42), 0.1, 1.0)
    assert (session.state, session.diagnostic, session.failures) == (BfdState.DOWN, Diagnostic.NEIGHBOR_DOWN, 1)
    session = up()
    session.receive(replace(HELLO, state=BfdState.ADMIN_DOWN, your_discriminator=42), 0.1, 1.0)
    assert (session.state, session.diagnostic, session.failures) == (BfdState.DOWN, Diagnostic.NEIGHBOR_DOWN, 0)
    assert session.report.permits_bgp
    session.wake(100.0, 1.0)
    assert session.failures == 0


def test_a_poll_is_answered_at_once_and_ours_ends_with_the_final() -> None:
    session = up()
    session.send_at = 0.04
    (final,) = session.receive(Packet(BfdState.UP, 7, 42, 3, 50_000, 50_000, poll=True), 0.01, 1.0)
    assert final.final and not final.poll
    assert session.send_at == 0.04
    (periodic,) = session.wake(0.04, 1.0)
    assert periodic.poll
    session.receive(Packet(BfdState.UP, 7, 42, 3, 50_000, 50_000, final=True), 0.05, 1.0)
    (periodic,) = session.wake(session.send_at or 0.0, 1.0)
    assert not periodic.poll


def test_longer_intervals_are_used_after_the_router_has_agreed() -> None:
    session = up(BfdSettings(3, 50, 100))
    agreed = Packet(BfdState.UP, 7, 42, 3, 50_000, 50_000, final=True)
    session.receive(agreed, 0.0, 1.0)
    session.change(BfdSettings(3, 200, 60), 0.1, 1.0)
    assert (session.report.transmit_interval, session.report.detection_time) == (50_000, 300_000)
    (said,) = session.wake(session.send_at or 0.0, 1.0)
    assert (said.poll, said.min_transmit, said.min_receive) == (True, 200_000, 60_000)
    session.receive(replace(agreed, final=False), 0.2, 1.0)
    assert session.report.transmit_interval == 50_000
    session.receive(agreed, 0.2, 1.0)
    assert (session.report.transmit_interval, session.report.detection_time) == (200_000, 180_000)


def test_passive_waits_for_the_router_and_again_after_it_was_lost() -> None:
    session = Session(replace(FAST, passive=True), 42, 0.0)
    assert session.next_at is None
    assert session.receive(HELLO, 1.0, 1.0)
    session.wake(1000.0, 1.0)
    assert (session.state, session.next_at) == (BfdState.DOWN, None)


def test_a_router_in_demand_mode_gets_no_periodic_packets() -> None:
    session = up()
    session.receive(Packet(BfdState.UP, 7, 42, 3, 50_000, 50_000, final=True, demand=True), 0.1, 1.0)
    assert session.send_at is None
    assert session.receive(Packet(BfdState.UP, 7, 42, 3, 50_000, 50_000, poll=True, demand=True), 0.2, 1.0)
    assert session.send_at is None
    session.change(BfdSettings(3, 100, 50), 0.21, 1.0)  # polls are repeated until they are answered
    (poll,) = session.wake(session.send_at or 0.0, 1.0)
    assert poll.poll and session.send_at is not None
    session.receive(Packet(BfdState.UP, 7, 42, 3, 50_000, 50_000, final=True, demand=True), 0.3, 1.0)
    assert session.send_at is None


def test_admin_down_is_said_three_times_and_ignores_the_router() -> None:
    session = up()
    session.disable(1.0)
    said: list[Packet] = []
    for _ in range(FAREWELLS):
        assert session.send_at is not None
        said += session.wake(session.send_at, 1.0)
    assert [(p.state, p.diagnostic) for p in said] == [(BfdState.ADMIN_DOWN, Diagnostic.ADMIN_DOWN)] * FAREWELLS
    assert said and session.send_at is not None and session.send_at > 2.0
    assert session.receive(replace(HELLO, state=BfdState.INIT, your_discriminator=42), 2.0, 1.0) == ()
    assert (session.state, session.failures) == (BfdState.ADMIN_DOWN, 0)
    session.enable(3.0)
    assert (session.state, session.next_at) == (BfdState.DOWN, 3.0)
    (first,) = session.wake(3.0, 1.0)
    assert first.your_discriminator == 0  # the router has started again, too


# --- two sessions


class Pair:
    """Two sets of sessions, and a network between them that loses, delays, duplicates and reorders packets."""

    def __init__(self, seed: int, one: BfdSettings, other: BfdSettings, loss: float, *, odd: bool) -> None:
        self.chance = random.Random(seed)
        self.ends = [BfdSessions(self.chance.random), BfdSessions(self.chance.random)]
        self.addresses = [NODE, ROUTER]
        self.loss, self.odd = loss, odd
        self.air: list[tuple[float, int, bytes]] = []
        self.now = 0.0
        self.ends[0].want([BfdTarget("x", ROUTER, settings=one)], 0.0)
        self.ends[1].want([BfdTarget("x", NODE, settings=other)], 0.0)

    def states(self) -> list[BfdState]:
        return [end.reports["x"].state for end in self.ends]

    def failures(self) -> int:
        return sum(end.reports["x"].failures for end in self.ends)

    def run(self, until: float, *, deaf: bool = False) -> None:
        while True:
            times = [at for end in self.ends if (at := end.next_at) is not None]
            times += [at for at, _, _ in self.air]
            if not times or min(times) > until:
                self.now = until
                return
            self.now = max(self.now, min(times))
            due = sorted(item for item in self.air if item[0] <= self.now)
            self.air = [item for item in self.air if item[0] > self.now]
            for _, to, data in due:
                if not deaf:
                    source = self.addresses[1 - to]
                    self._send(to, self.ends[to].receive(data, source, 255, self.now, multihop=False))
            for number, end in enumerate(self.ends):
                self._send(number, end.wake(self.now))

    def _send(self, sender: int, sends: list) -> None:  # type: ignore[type-arg]
        for send in sends:
            if self.chance.random() < self.loss:
                continue
            for _ in range(2 if self.odd and self.chance.random() < 0.2 else 1):
                delay = self.chance.uniform(0.0001, 0.02) if self.odd else 0.0005
                self.air.append((self.now + delay, 1 - sender, send.data))


SETTINGS = st.builds(BfdSettings, st.integers(2, 5), st.integers(50, 300), st.integers(50, 300), passive=st.just(False))


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32), SETTINGS, SETTINGS, st.booleans())
def test_two_ends_come_up_in_time_whatever_their_settings_and_stay_up(
    seed: int, one: BfdSettings, other: BfdSettings, passive: bool
) -> None:
    pair = Pair(seed, replace(one, passive=passive), other, 0.0, odd=False)
    pair.run(3.0)
    assert pair.states() == [BfdState.UP, BfdState.UP]
    pair.run(8.0)
    assert (pair.states(), pair.failures()) == ([BfdState.UP, BfdState.UP], 0)
    longest = max(end.reports["x"].detection_time for end in pair.ends) / 1e6
    pair.run(8.0 + longest + 0.01, deaf=True)
    assert BfdState.UP not in pair.states()
    pair.run(14.0 + longest)
    assert pair.states() == [BfdState.UP, BfdState.UP]


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32), st.floats(0, 0.3))
def test_loss_duplication_and_reordering_never_leave_two_ends_apart_for_ever(seed: int, loss: float) -> None:
    pair = Pair(seed, FAST, BfdSettings(4, 60, 70), loss, odd=True)
    pair.run(10.0)
    pair.loss, pair.odd = 0.0, False
    pair.run(20.0)
    assert pair.states() == [BfdState.UP, BfdState.UP]


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**32))
def test_admin_down_of_one_end_is_no_failure_of_the_other(seed: int) -> None:
    pair = Pair(seed, FAST, FAST, 0.0, odd=False)
    pair.run(3.0)
    pair.ends[0].hold(pair.now)
    pair.run(5.0)
    assert (pair.states(), pair.failures()) == ([BfdState.ADMIN_DOWN, BfdState.DOWN], 0)
    assert pair.ends[1].reports["x"].permits_bgp
    pair.ends[0].release(pair.now)
    pair.run(9.0)
    assert (pair.states(), pair.failures()) == ([BfdState.UP, BfdState.UP], 0)


def test_a_session_that_becomes_active_sends_at_once_and_one_that_sends_keeps_its_time() -> None:
    passive = Session(replace(FAST, passive=True), 42, 0.0)
    assert (passive.send_at, passive.report.transmit_interval) == (None, 0)
    passive.change(replace(FAST, passive=True), 1.0, 1.0)
    assert passive.send_at is None
    passive.change(FAST, 2.0, 1.0)
    assert passive.send_at == 2.0
    active = Session(FAST, 42, 0.0)
    active.wake(0.0, 1.0)
    due = active.send_at
    active.change(replace(FAST, detect_multiplier=5), 0.1, 1.0)
    assert due and active.send_at == due


def test_a_session_that_is_enabled_again_says_no_more_farewells() -> None:
    session = up()
    session.disable(1.0)
    assert session.farewells == FAREWELLS
    session.enable(1.0)
    assert (session.state, session.farewells, session.send_at) == (BfdState.DOWN, 0, 1.0)
    session.wake(1.0, 1.0)
    assert session.send_at == pytest.approx(1.0 + SLOW / 1e6)


# --- all sessions of a process


def test_which_session_a_packet_belongs_to() -> None:
    sessions = BfdSessions(lambda: 0.5)
    single = BfdTarget("single", ROUTER, settings=FAST)
    far = BfdTarget("far", ROUTER, multihop=True, settings=replace(FAST, minimum_ttl=250))
    sessions.want([single, far], 0.0)
    hello = HELLO.encode()
    assert sessions.receive(hello, NODE, 255, 0.0, multihop=False) == []
    assert sessions.receive(replace(HELLO, your_discriminator=99).encode(), ROUTER, 255, 0.0, multihop=False) == []
    assert sessions.receive(hello, ROUTER, 254, 0.0, multihop=False) == []
    assert sessions.receive(hello, ROUTER, 249, 0.0, multihop=True) == []
    assert sessions.discarded == {Discard.NO_SESSION: 2, Discard.TTL: 2}
    assert [send.peer for send in sessions.receive(hello, ROUTER, 255, 0.0, multihop=False)] == ["single"]
    assert [send.peer for send in sessions.receive(hello, ROUTER, 250, 0.0, multihop=True)] == ["far"]
    numbers = {decode(send.data).my_discriminator for send in sessions.wake(5.0)}  # type: ignore[union-attr]
    assert len(numbers) == 2


def test_a_peer_that_is_removed_is_told_and_then_gone() -> None:
    sessions = BfdSessions(lambda: 0.5)
    sessions.want([BfdTarget("a", ROUTER, settings=FAST), BfdTarget("b", NODE, settings=FAST)], 0.0)
    sessions.receive(HELLO.encode(), ROUTER, 255, 0.0, multihop=False)
    sessions.want([], 1.0)
    assert (sessions.reports, set(sessions.targets)) == ({}, {"a"})  # b has received no packet
    said = []
    while sessions.next_at is not None:
        said += sessions.wake(sessions.next_at)
    assert len(said) == FAREWELLS
    assert not sessions.targets


def test_other_settings_keep_the_session_and_another_address_does_not() -> None:
    sessions = BfdSessions(random.Random(1).random)
    target = BfdTarget("a", ROUTER, settings=FAST)
    sessions.want([target], 0.0)
    sessions.receive(HELLO.encode(), ROUTER, 255, 0.0, multihop=False)
    sessions.want([replace(target, settings=BfdSettings())], 1.0)
    assert sessions.reports["a"].state is BfdState.INIT
    sessions.want([replace(target, local_address=NODE)], 1.0)
    assert sessions.reports["a"].state is BfdState.DOWN


def test_while_held_a_new_session_is_silent() -> None:
    sessions = BfdSessions(lambda: 0.5)
    assert not sessions.held
    sessions.hold(0.0)
    assert sessions.held
    sessions.want([BfdTarget("a", ROUTER, settings=FAST)], 0.0)
    assert (sessions.reports["a"].state, sessions.next_at, sessions.silent) == (BfdState.ADMIN_DOWN, None, True)
    sessions.release(1.0)
    assert (sessions.next_at, sessions.silent, sessions.held) == (1.0, False, False)


def test_the_end_of_a_hold_does_not_bring_back_a_session_that_leaves() -> None:
    sessions = BfdSessions(lambda: 0.5)
    target = BfdTarget("a", ROUTER, settings=FAST)
    sessions.want([target], 0.0)
    sessions.receive(HELLO.encode(), ROUTER, 255, 0.0, multihop=False)
    sessions.want([], 1.0)
    sessions.hold(1.0)
    sessions.want([target], 1.0)
    assert sessions.reports["a"].state is BfdState.ADMIN_DOWN  # wanted again, but held
    sessions.want([], 1.0)
    sessions.release(1.0)
    (said,) = sessions.wake(1.0)
    packet = decode(said.data)
    assert isinstance(packet, Packet) and packet.state is BfdState.ADMIN_DOWN
    sessions.want([target], 1.0)
    assert sessions.reports["a"].state is BfdState.DOWN


def test_a_change_of_state_is_to_be_reported_and_a_packet_without_one_is_not() -> None:
    sessions = BfdSessions(lambda: 0.5)
    sessions.want([BfdTarget("a", ROUTER, settings=FAST)], 0.0)
    assert sessions.changed
    for said, changed in (
        (HELLO, True),
        (HELLO, False),
        (replace(HELLO, state=BfdState.UP, your_discriminator=0), False),
    ):
        sessions.changed = False
        sessions.receive(said.encode(), ROUTER, 255, 0.0, multihop=False)
        assert sessions.changed is changed
    sessions.changed = False
    sessions.wake(0.5)
    assert not sessions.changed
    sessions.wake(10.0)  # the detection time is over
    assert sessions.reports["a"].state is BfdState.DOWN and sessions.changed
