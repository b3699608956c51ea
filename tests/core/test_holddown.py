"""The hold-down of BGP: the replicas exchange their states, and all reach the same decision."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from porterlb.core.holddown import (
    LONGEST_WAIT,
    SOON,
    HoldDown,
    ModePolicy,
    Phase,
    SessionsSeen,
    advance,
    furthest,
    heard,
    inherited,
    said,
    step,
    wait,
    wakes_at,
)

POLICY = ModePolicy(return_after=10, narrow_dwell=0.5, start=10)
OWN = SessionsSeen(own=True, carried=True)
ELSEWHERE = SessionsSeen(own=False, carried=True)
NOBODY = SessionsSeen(own=False, carried=False)
PEERS = frozenset({"tor-1", "tor-2"})


@pytest.mark.parametrize("phase", [Phase.LAYER2, Phase.WAITING, Phase.NARROW, Phase.BGP])
@pytest.mark.parametrize("told", [OWN, ELSEWHERE])
def test_a_replica_that_starts_takes_over_what_the_others_say(phase: Phase, told: SessionsSeen) -> None:
    found = step(None, replace(told, stable_since=5, others=phase, carriers=phase), 5, POLICY)
    assert found.phase is (Phase.WAITING if phase is Phase.LAYER2 else phase)


def test_a_replica_that_starts_while_nothing_is_carried_waits_with_the_others() -> None:
    found = step(HoldDown(Phase.START, 0), replace(NOBODY, others=Phase.LAYER2), 1, POLICY)
    assert found.phase is Phase.LAYER2
    assert step(found, replace(OWN, stable_since=2), 2, POLICY).phase is Phase.WAITING


def test_a_replica_that_starts_alone_uses_the_first_session_at_once() -> None:
    start = step(None, NOBODY, 0, POLICY)
    assert start.phase is Phase.START and wakes_at(start, POLICY) == 10
    assert step(start, OWN, 2, POLICY).phase is Phase.BGP


def test_a_replica_with_a_session_that_is_further_is_followed() -> None:
    waiting = HoldDown(Phase.WAITING, 100)
    for told in (OWN, ELSEWHERE):
        now = replace(told, stable_since=100, carriers=Phase.NARROW, others=Phase.NARROW)
        assert step(waiting, now, 101, POLICY) == HoldDown(Phase.NARROW, 101, 101)
        now = replace(now, carriers=Phase.BGP, others=Phase.BGP)
        assert step(waiting, now, 101, POLICY) == HoldDown(Phase.BGP, 101, 101)


def test_who_has_a_session_does_not_go_back_for_others_but_who_has_none_does() -> None:
    hold_down = HoldDown(Phase.BGP, 0, 0)
    said_less = {"stable_since": 99.0, "carriers": Phase.WAITING, "others": Phase.WAITING}
    assert step(hold_down, replace(OWN, **said_less), 100, POLICY) == hold_down  # type: ignore[arg-type]
    assert step(hold_down, replace(ELSEWHERE, **said_less), 100, POLICY) == HoldDown(Phase.WAITING, 100)  # type: ignore[arg-type]


def test_what_replicas_without_a_session_say_moves_only_one_that_starts() -> None:
    waiting = HoldDown(Phase.WAITING, 100)
    assert step(waiting, replace(OWN, stable_since=100, others=Phase.BGP), 101, POLICY) == waiting


def test_the_wait_is_not_begun_anew_by_repeating_oneself() -> None:
    hold_down: HoldDown | None = HoldDown(Phase.LAYER2, 0)
    told = replace(ELSEWHERE, stable_since=100, carriers=Phase.LAYER2, others=Phase.LAYER2)
    for now in (100.0, 104.0, 109.0):
        hold_down = step(hold_down, told, now, POLICY)
        assert hold_down == HoldDown(Phase.WAITING, 100)
    assert step(hold_down, told, 110, POLICY).phase is Phase.NARROW


def test_what_is_said_is_heard_and_nonsense_is_nothing() -> None:
    texts = said({PEERS: HoldDown(Phase.NARROW, 1), frozenset({"tor-1"}): HoldDown(Phase.START, 1)})
    assert len(texts) == 1 and heard(texts, PEERS) is Phase.NARROW
    assert heard(texts, frozenset({"tor-1"})) is None
    (text,) = texts
    assert heard({text.replace("narrow", "fixed"), "", "=", text[:8]}, PEERS) is None
    assert furthest([None, Phase.LAYER2, Phase.BGP, Phase.WAITING]) is Phase.BGP and furthest([]) is None


phases = st.none() | st.sampled_from([Phase.LAYER2, Phase.WAITING, Phase.NARROW, Phase.BGP])


@given(
    st.none() | st.builds(HoldDown, st.sampled_from([p for p in Phase if p is not Phase.FIXED]), st.floats(0, 50)),
    st.booleans(),
    st.booleans(),
    phases,
    phases,
    st.floats(50, 100),
)
def test_a_step_taken_twice_is_taken_once_and_never_uses_bgp_without_a_session(
    previous: HoldDown | None, own: bool, elsewhere: bool, carriers: Phase | None, others: Phase | None, now: float
) -> None:
    told = SessionsSeen(own, own or elsewhere, now, carriers if elsewhere else None, furthest([carriers, others]))
    found = step(previous, told, now, POLICY)
    assert step(found, told, now, POLICY) == found
    if not told.carried:
        assert found.phase in (Phase.START, Phase.LAYER2)
    else:
        assert found.phase in (Phase.WAITING, Phase.NARROW, Phase.BGP)
    assert (found.announced is None) == (found.phase not in (Phase.NARROW, Phase.BGP))
    at = wakes_at(found, POLICY)
    assert at is None or at > now


def test_routes_that_are_lost_soon_after_announcing_double_the_wait() -> None:
    """A router with a prefix limit ends the session as soon as it has the routes; the session returns after 1 s."""
    now, waits = 0.0, []
    state = step(None, OWN, now, POLICY)
    for _ in range(9):
        state = step(state, NOBODY, now := now + 1.0, POLICY)
        assert state.phase is Phase.LAYER2 and state.lasted == 1.0
        state = step(state, replace(OWN, stable_since=(up := now + 1)), up, POLICY)
        assert state.phase is Phase.WAITING
        waits.append(wait(state, POLICY))
        assert wakes_at(state, POLICY) == up + waits[-1]
        assert step(state, replace(OWN, stable_since=up), up + waits[-1] - 0.1, POLICY) == state
        state = step(state, replace(OWN, stable_since=up), now := up + waits[-1], POLICY)
        assert state.phase is Phase.NARROW and state.announced == now
    assert waits == [10, 20, 40, 80, 160, LONGEST_WAIT, LONGEST_WAIT, LONGEST_WAIT, LONGEST_WAIT]
    assert state.losses == 9


def test_routes_that_stayed_long_enough_end_the_back_off() -> None:
    state = HoldDown(Phase.BGP, 0, announced=0, losses=4, lasted=1.0)
    assert step(state, OWN, SOON, POLICY) == state
    assert step(state, NOBODY, SOON, POLICY) == HoldDown(Phase.LAYER2, SOON)
    early = step(state, NOBODY, SOON - 0.5, POLICY)
    assert early == HoldDown(Phase.LAYER2, SOON - 0.5, None, 5, SOON - 0.5)


@pytest.mark.parametrize(
    ("return_after", "losses", "seconds"), [(0, 1, 0), (0, 2, 2), (0, 3, 4), (400, 3, 400), (3, 2, 6)]
)
def test_the_wait_is_at_least_return_after(return_after: float, losses: int, seconds: float) -> None:
    state = HoldDown(Phase.WAITING, 0, None, losses)
    assert wait(state, replace(POLICY, return_after=return_after)) == seconds


R1, R2, R3 = (frozenset({name}) for name in ("r1", "r2", "r3"))
SERVES, LOST, WAITS = HoldDown(Phase.BGP, 5, 5), HoldDown(Phase.LAYER2, 1), HoldDown(Phase.WAITING, 7)


def test_a_new_set_of_peers_begins_with_the_state_of_one_that_has_a_live_session() -> None:
    for memory in ({R1: LOST, R2: SERVES}, {R2: SERVES, R1: LOST}):
        assert inherited(memory, R1 | R2, R2) is SERVES
        assert inherited(memory, R1 | R3, R2) is LOST
        assert inherited(memory, R3, R2 | R3) is None
    # The session that BGP used is gone too: the established one counts, although its hold-down is less advanced
    assert inherited({R1: SERVES, R2: WAITS}, R1 | R2, R2) is WAITS
    older = replace(WAITS, since=2)
    assert inherited({R1: WAITS, R2: older}, R1 | R2, R1 | R2) is older


def test_sets_that_are_not_in_use_are_forgotten_and_nothing_new_is_the_same_value() -> None:
    memory = {R1: SERVES, R2: SERVES}
    assert advance(memory, {R1: OWN, R2: OWN}, R1 | R2, 6, POLICY) is memory
    assert advance(memory, {R1 | R3: OWN}, R1, 6, POLICY) == {R1 | R3: SERVES}
    assert advance({}, {R1: NOBODY}, frozenset(), 6, POLICY) == {R1: HoldDown(Phase.START, 6)}
