"""The hold-down of BGP: what replicas tell each other makes one decision of many."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from porterlb.core.holddown import (
    HoldDown,
    ModePolicy,
    Phase,
    SessionsSeen,
    furthest,
    heard,
    said,
    seed,
    step,
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
        assert step(waiting, now, 101, POLICY) == HoldDown(Phase.NARROW, 101)
        now = replace(now, carriers=Phase.BGP, others=Phase.BGP)
        assert step(waiting, now, 101, POLICY) == HoldDown(Phase.BGP, 101)


def test_who_has_a_session_does_not_go_back_for_others_but_who_has_none_does() -> None:
    hold_down = HoldDown(Phase.BGP, 0)
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
    assert seed(Phase.FIXED, 1) is None and seed(Phase.WAITING, 1) == HoldDown(Phase.WAITING, 1)


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
    at = wakes_at(found, POLICY)
    assert at is None or at > now
