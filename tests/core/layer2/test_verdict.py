"""The verdict rule: every row of its table, and its corner cases, as values."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from porterlb.core.hello import GATEWAY, SegmentState
from porterlb.core.layer2.verdict import Cause, Evidence, Hearing, Vote, verdict

HEARD, SUSPECT, SILENT = Vote
NONE, STALE, FRESH = Hearing
WELL = SegmentState((), contacts=(GATEWAY, "c"))


def judged(
    hearing: Hearing, own: Vote | None = SILENT, said: SegmentState | None = WELL, **fields: Any
) -> tuple[bool | None, Cause]:
    found = verdict(Evidence(hearing, own, said=said if hearing is FRESH else None, **fields))
    return found.dead, found.cause


def voted(*votes: Vote) -> dict[str, Vote]:
    return dict(zip("abcdef", votes, strict=False))


def test_what_a_fresh_hello_says_of_its_own_link_needs_no_vote() -> None:
    assert judged(FRESH, HEARD, SegmentState((), up=False)) == (True, Cause.LINK_DOWN)
    assert judged(FRESH, HEARD, elsewhere=True) == (True, Cause.NOT_THERE)
    isolated = SegmentState((), isolated=True)
    assert judged(FRESH, HEARD, isolated, votes=voted(HEARD)) == (True, Cause.NO_CONTACT)


def test_two_nodes_that_both_have_no_contact_do_not_hold_each_other_for_dead() -> None:
    assert judged(FRESH, SILENT, SegmentState((), isolated=True)) == (None, Cause.NO_VOTER)


@pytest.mark.parametrize(
    ("votes", "dead"),
    [
        ((SILENT,), True),
        ((SILENT, SUSPECT), True),
        ((SILENT, SUSPECT, SUSPECT, SUSPECT), True),  # no quorum is needed
        ((SILENT, SILENT, SILENT, HEARD), False),  # a voter has heard it since the suspicion
        ((SUSPECT, SUSPECT), False),
    ],
)
def test_silent_with_a_stale_hello(votes, dead) -> None:
    assert judged(STALE, votes=voted(*votes))[0] is dead


@pytest.mark.parametrize(
    ("votes", "dead"),
    [
        ((SILENT, SILENT), True),
        ((SILENT, HEARD), False),
        ((SILENT, SUSPECT), False),
        ((SILENT, SILENT, HEARD), True),
        ((SILENT, SILENT, HEARD, HEARD), False),
        ((SILENT, SILENT, SILENT, HEARD, HEARD), True),
    ],
)
def test_silent_with_a_fresh_hello_is_a_question_of_the_majority(votes, dead) -> None:
    assert judged(FRESH, votes=voted(*votes)) == (dead, Cause.OUTVOTED if dead else Cause.HEARD)


@pytest.mark.parametrize(
    ("votes", "dead"),
    [((SILENT,), True), ((SILENT, HEARD), False), ((SILENT, SILENT, HEARD), True), ((HEARD, HEARD), False)],
)
def test_without_a_replica_the_majority_decides(votes, dead) -> None:
    assert judged(NONE, votes=voted(*votes))[0] is dead


def test_one_voter_believes_a_fresh_hello_that_claims_answers_of_third_parties() -> None:
    votes = voted(SILENT)
    assert judged(FRESH, votes=votes) == (False, Cause.CLAIMS_CONTACT)
    assert judged(FRESH, said=SegmentState((), contacts=("a",)), votes=votes)[0] is True  # the voter is no third party
    assert judged(FRESH, said=SegmentState(()), votes=votes) == (True, Cause.OUTVOTED)
    assert judged(FRESH, said=None, votes=votes)[0] is True


def test_without_a_voter_nothing_changes_unless_we_hear_it() -> None:
    for hearing in Hearing:
        assert judged(hearing) == (None, Cause.NO_VOTER)
        assert judged(hearing, HEARD) == (False, Cause.ALIVE)
        assert judged(hearing, None) == (None, Cause.NO_VOTER)


def test_weak_evidence_counts_where_there_is_no_voter_and_no_fresh_hello() -> None:
    assert judged(STALE, weak=True) == (True, Cause.SILENT)
    assert judged(NONE, weak=True) == (True, Cause.SILENT)
    assert judged(FRESH, weak=True) == (None, Cause.NO_VOTER)
    assert judged(STALE, weak=True, votes=voted(HEARD))[0] is False


states = st.builds(
    SegmentState,
    subnets=st.just(()),
    up=st.booleans(),
    isolated=st.booleans(),
    contacts=st.sampled_from([(), (GATEWAY,), ("a",), ("a", "c")]),
)
evidence = st.builds(
    Evidence,
    hearing=st.sampled_from(Hearing),
    own=st.none() | st.sampled_from(Vote),
    votes=st.dictionaries(st.sampled_from("abcd"), st.sampled_from(Vote), max_size=4),
    weak=st.booleans(),
    said=st.none() | states,
)


@given(evidence)
def test_nobody_dies_unless_a_voter_finds_it_silent_or_it_says_so(e) -> None:
    found = verdict(e)
    says_so = e.hearing is FRESH and e.said is not None and (not e.said.up or e.said.isolated)
    if found.dead and not says_so:
        assert SILENT in e.votes.values() or (e.weak and e.own is SILENT and not e.votes)
    if e.hearing is FRESH and not says_so and list(e.votes.values()).count(SILENT) * 2 <= len(e.votes):
        assert not found.dead


@given(evidence)
def test_one_more_voter_that_hears_it_never_kills_it(e) -> None:
    if not verdict(e).dead and not (e.said is not None and e.said.isolated):
        more = Evidence(e.hearing, e.own, {**e.votes, "z": HEARD}, e.weak, e.said)
        assert not verdict(more).dead
