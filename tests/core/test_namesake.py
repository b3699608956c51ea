"""G7: two managers with one node name. Which one owns the name, and which one ends."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from porterlb.core.namesake import ANNOTATION, ANSWER_WITHIN, Claim, ClaimStep, owning, read, starting, written

V = ClaimStep


@pytest.mark.parametrize(
    ("claim", "challenged", "waited", "verdict"),
    [
        (Claim(), False, 0.0, V.TAKE),  # there has never been a manager with this name
        (Claim(owner="me"), False, 0.0, V.TAKE),
        (Claim(owner="old"), False, 0.0, V.CHALLENGE),
        (Claim(owner="old", answered="me"), False, 0.0, V.CHALLENGE),
        (Claim(owner="old", challenger="me"), True, ANSWER_WITHIN - 0.01, V.WAIT),
        (Claim(owner="old", challenger="me"), True, ANSWER_WITHIN, V.TAKE),  # the owner is dead
        (Claim(owner="old", answered="me"), True, 0.1, V.END),  # the owner is alive
        (Claim(owner="old", challenger="third"), True, 0.1, V.END),  # a third one starts: one of us has to end
        (Claim(owner="third"), True, ANSWER_WITHIN, V.END),
    ],
)
def test_who_starts(claim: Claim, challenged: bool, waited: float, verdict: ClaimStep) -> None:
    assert starting(claim, "me", challenged, waited) is verdict


@pytest.mark.parametrize(
    ("claim", "newer", "verdict"),
    [
        (Claim(owner="me"), False, V.KEEP),
        (Claim(owner="me", challenger="other"), False, V.ANSWER),
        (Claim(owner="me", challenger="other", answered="other"), False, V.KEEP),
        (Claim(owner="me", challenger="me"), False, V.KEEP),
        (Claim(owner="other"), True, V.END),  # it has taken the name over
        (Claim(owner="other"), False, V.TAKE),  # restored from a backup
        (Claim(), True, V.TAKE),
    ],
)
def test_who_owns_the_name(claim: Claim, newer: bool, verdict: ClaimStep) -> None:
    assert owning(claim, "me", newer) is verdict


@given(st.sampled_from(["", "a", "b", "c"]), st.sampled_from(["", "a", "b"]), st.sampled_from(["", "a", "b"]))
def test_of_two_challengers_one_at_most_takes_the_lease(owner: str, challenger: str, answered: str) -> None:
    claim = Claim(owner, challenger, answered)
    takes = [me for me in ("a", "b") if owner not in ("", me) and starting(claim, me, True, ANSWER_WITHIN) is V.TAKE]
    owns = [me for me in ("a", "b") if owner and owning(claim, me, newer=True) is not V.END]
    assert len(takes) <= 1 and len(owns) <= 1


@given(st.text(max_size=9), st.text(max_size=9), st.text(max_size=9))
def test_there_and_back(owner: str, challenger: str, answered: str) -> None:
    assert read(written(Claim(owner, challenger, answered))) == Claim(owner, challenger, answered)


@pytest.mark.parametrize("text", ["", "{", "[]", "3", "[" * 100_000, '{"owner": 3, "challenger": null}', None])
def test_what_others_wrote_counts_as_nothing(text: object) -> None:
    assert read({ANNOTATION: text}) == Claim()
    assert read({}) == Claim()
