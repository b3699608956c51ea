"""Whether a replica may serve: every transition and its causes."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from porterlb.core.hello import Hello
from porterlb.core.layer2.serving import (
    LISTEN,
    OVERLAP,
    TRANSITIONS,
    Serving,
    ServingEvent,
    ServingState,
)

S, E = ServingState, ServingEvent
SILENCE, FRESH = 10.0, 0.2

TABLE = """
listening  ready > serving, ready in doubt > in doubt, manager silent > silent, stop > leaving
serving    doubt > in doubt, manager silent > silent, stop > leaving
in doubt   certain > serving, certain with others > returned, manager silent > silent, stop > leaving
returned   ready > serving, ready in doubt > in doubt, not ready > listening, manager silent > silent, stop > leaving
silent     manager back > listening, stop > leaving
"""


def rows() -> dict[tuple[str, str], str]:
    found = {}
    for line in TABLE.strip().splitlines():
        for pair in line[11:].split(", "):
            event, entered = pair.split(" > ")
            found[line[:11].strip(), event] = entered
    return found


@pytest.mark.parametrize(("state", "event"), list(itertools.product(S, E)))
def test_the_table_of_transitions_is_this_one(state: ServingState, event: ServingEvent) -> None:
    entered = TRANSITIONS.get((state, event))
    assert (entered.value if entered else None) == rows().get((state.value, event.value))


def serving(at: float = 0.0) -> Serving:
    made = Serving(at, SILENCE, FRESH)
    made.complete()
    made.beat(at)
    made.check_listened(at + LISTEN)
    assert made.state is S.SERVING and made.answers
    return made


def test_it_listens_first_and_serves_once_the_wanted_set_is_complete() -> None:
    made = Serving(0.0, SILENCE, FRESH)
    assert made.state is S.LISTENING and not made.answers
    assert made.check_listened(LISTEN + 5) is None
    made.complete()
    assert made.check_listened(LISTEN - 0.01) is None
    change = made.check_listened(LISTEN)
    assert change is not None and (change.event, change.state) == (E.READY, S.SERVING)
    assert made.answers and not made.frozen
    assert made.check_listened(LISTEN + 1) is None


def test_in_doubt_it_goes_on_answering_and_nothing_changes() -> None:
    made = serving()
    assert made.doubt(True, True, 2.0)
    assert made.state is S.IN_DOUBT and made.answers and made.frozen
    assert made.doubt(False, False, 3.0)
    assert made.state is S.SERVING and not made.frozen


def test_doubt_while_listening_freezes_and_ends_in_doubt() -> None:
    made = Serving(0.0, SILENCE, FRESH)
    made.complete()
    assert made.doubt(True, True, 0.5) is None and made.frozen and not made.answers
    change = made.check_listened(1.0)
    assert change is not None and change.event is E.READY_IN_DOUBT and made.state is S.IN_DOUBT


def said(node: str, digest: int, answers: bool = True) -> Hello:
    return Hello(node, 1, 1, digest=digest, answers=answers)


def returned(at: float = 10.0) -> Serving:
    made = serving()
    made.doubt(True, True, at - 1)
    made.doubt(False, True, at)
    assert made.state is S.RETURNED and not made.answers and made.returned_at == at
    return made


def test_who_returns_serves_when_all_that_answer_have_its_plan() -> None:
    made = returned()
    assert made.check_returned([said("b", 7)], 7, 10.0 + FRESH - 0.01) is None  # others may not have sent a hello yet
    assert made.check_returned([said("b", 7), said("c", 8)], 7, 10.0 + 2 * FRESH) is None
    assert made.check_returned([said("b", 7), said("c", 8, answers=False)], 7, 10.0 + 2 * FRESH)
    assert made.state is S.SERVING


def test_who_returns_to_nobody_serves_after_listening() -> None:
    made = returned()
    assert made.check_returned([said("c", 8, answers=False)], 7, 10.0 + LISTEN - 0.01) is None
    assert made.check_returned([], 7, 10.0 + LISTEN) and made.state is S.SERVING


def test_who_returns_into_new_doubt_is_in_doubt() -> None:
    made = returned()
    assert made.doubt(True, True, 10.1) is None and made.frozen
    change = made.check_returned([], 7, 12.0)
    assert change is not None and change.event is E.READY_IN_DOUBT and made.state is S.IN_DOUBT
    assert serving().check_returned([], 7, 99.0) is None


def test_who_returns_without_a_complete_set_listens() -> None:
    made = Serving(0.0, SILENCE, FRESH)
    made.state = S.RETURNED
    change = made.check_returned([], 0, 5.0)
    assert change is not None and change.event is E.NOT_READY and made.state is S.LISTENING
    assert made.check_listened(5.0) is None


def test_a_silent_manager_ends_in_silence_after_an_overlap() -> None:
    made = serving()
    assert made.check_manager(SILENCE, 0.0) is None
    assert made.check_manager(SILENCE + 1, SILENCE / 2) is None  # our own process stalled
    change = made.check_manager(SILENCE + 1, 0.0)
    assert change is not None and change.state is S.SILENT and made.said_goodbye
    assert made.answers and made.next_at == SILENCE + 1 + OVERLAP
    assert not made.check_overlap(SILENCE + 1 + OVERLAP - 0.01)
    assert made.check_overlap(SILENCE + 1 + OVERLAP) and not made.answers and made.next_at is None
    assert not made.check_overlap(SILENCE + 2)
    assert made.doubt(True, True, SILENCE + 2) is None and not made.frozen
    change = made.beat(SILENCE + 3)
    assert change is not None and change.state is S.LISTENING and not made.said_goodbye
    assert made.check_listened(SILENCE + 3 + LISTEN - 0.01) is None
    made.doubt(False, True, SILENCE + 3)
    assert made.check_listened(SILENCE + 3 + LISTEN)


def test_a_manager_that_is_back_within_the_overlap_ends_it() -> None:
    made = serving()
    made.check_manager(SILENCE + 1, 0.0)
    made.beat(SILENCE + 1.01)
    assert made.state is S.LISTENING and not made.answers and made.next_at is None


def test_who_stops_answers_until_the_overlap_ends_and_never_again() -> None:
    made = serving()
    change = made.stop(5.0)
    assert change is not None and change.state is S.LEAVING and made.answers and made.said_goodbye
    assert made.check_overlap(5.0 + OVERLAP) and not made.answers
    assert made.beat(6.0) is None and made.stop(6.0) is None and made.state is S.LEAVING


def test_who_did_not_serve_does_not_begin_to_at_its_end() -> None:
    made = Serving(0.0, SILENCE, FRESH)
    made.stop(0.5)
    assert not made.answers and made.next_at == 0.5 + OVERLAP


_EVENTS = st.lists(
    st.tuples(
        st.sampled_from(["beat", "doubt", "certain", "manager", "listened", "returned", "stop", "overlap"]),
        st.floats(0, 3),
    ),
    max_size=30,
)


@given(_EVENTS)
def test_in_any_order_of_events_it_answers_only_where_it_may(events) -> None:
    made, now = Serving(0.0, SILENCE, FRESH), 0.0
    made.complete()
    stopped = False
    for what, pause in events:
        now += pause
        if what == "beat":
            made.beat(now)
        elif what in ("doubt", "certain"):
            made.doubt(what == "doubt", True, now)
        elif what == "manager":
            made.check_manager(now, 0.0)
        elif what == "listened":
            made.check_listened(now)
        elif what == "returned":
            made.check_returned([], 0, now)
        elif what == "overlap":
            made.check_overlap(now)
        else:
            made.stop(now)
            stopped = True
        assert made.answers <= (made.state in (S.SERVING, S.IN_DOUBT) or made.next_at is not None)
        assert made.said_goodbye is (made.state in (S.SILENT, S.LEAVING))
        assert not stopped or made.state is S.LEAVING
        if made.state in (S.LISTENING, S.RETURNED):
            assert not made.answers
        if now < LISTEN:
            assert not made.answers
