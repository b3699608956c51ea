"""The answers on a segment are compared with the plan, for each asker."""

from __future__ import annotations

import pytest

from porterlb.core.layer2.inquiry import Answer, NotAsked, Outcome
from porterlb.core.status.on_segment import Comparison, PlannedAnswer, askers, judged, problem, sentence

A, B, FOREIGN = (
    Answer(b"\2\0\0\0\0\x0a", "a", 0.001),
    Answer(b"\2\0\0\0\0\x0b", "b", 0.002),
    Answer(b"\6" * 6, "", 0.003),
)
A2 = A._replace(mac=b"\2\0\0\0\1\x0a")
AT_A = PlannedAnswer(frozenset({"a"}), "a")
FOR_B = PlannedAnswer(frozenset({"b"}), "a")  # b has no replica: the replica on a answers for it
SPREAD = PlannedAnswer(frozenset({"a", "b"}), "a")
NOBODY = PlannedAnswer()


def outcome(*answers: Answer, obstacle: NotAsked | None = None) -> Outcome:
    return Outcome("10.0.0.200", "eth0", obstacle, answers)


@pytest.mark.parametrize(
    ("asker", "heard", "planned", "verdict"),
    [
        ("b", (A,), AT_A, Comparison.AS_PLANNED),
        ("b", (), AT_A, Comparison.NO_ANSWER),
        ("c", (B,), AT_A, Comparison.OTHER_NODE),
        ("c", (A, B), AT_A, Comparison.TWO_ANSWERS),
        ("c", (A, A2), AT_A, Comparison.TWO_ANSWERS),
        ("b", (FOREIGN,), AT_A, Comparison.FOREIGN_HOST),
        ("b", (A, FOREIGN), AT_A, Comparison.FOREIGN_HOST),
        ("a", (), AT_A, Comparison.OWN),
        ("a", (B,), AT_A, Comparison.TWO_ANSWERS),
        ("a", (FOREIGN,), AT_A, Comparison.FOREIGN_HOST),
        ("c", (B,), FOR_B, Comparison.AS_PLANNED),
        ("c", (A,), FOR_B, Comparison.OTHER_NODE),
        ("a", (), FOR_B, Comparison.OWN),
        ("c", (A,), SPREAD, Comparison.AS_PLANNED),
        ("d", (B,), SPREAD, Comparison.AS_PLANNED),
        ("d", (A, B), SPREAD, Comparison.TWO_ANSWERS),
        ("c", (), NOBODY, Comparison.AS_PLANNED),
        ("", (), NOBODY, Comparison.AS_PLANNED),
        ("c", (A,), NOBODY, Comparison.OTHER_NODE),
    ],
)
def test_the_verdict(asker: str, heard: tuple[Answer, ...], planned: PlannedAnswer, verdict: Comparison) -> None:
    seen = judged(asker, outcome(*heard), planned)
    assert seen.verdict is verdict
    assert bool(problem(seen)) is verdict.differs
    assert f"{asker} asked on eth0" in sentence(seen)


@pytest.mark.parametrize("obstacle", NotAsked)
def test_what_was_not_asked_is_neither_right_nor_wrong(obstacle: NotAsked) -> None:
    seen = judged("b", outcome(obstacle=obstacle), AT_A)
    assert seen.verdict is Comparison.NOT_ASKED and not seen.verdict.differs and not problem(seen)
    assert sentence(seen).startswith("b: not asked: ") and "{" not in sentence(seen)


def test_the_sentences_name_address_macs_and_nodes() -> None:
    foreign = judged("b", outcome(A, FOREIGN), AT_A)
    assert problem(foreign).startswith("A foreign host (06:06:06:06:06:06) answers for 10.0.0.200 on eth0 of b.")
    assert "02:00:00:00:00:0a (a) after 1.0 ms; 06:06:06:06:06:06 (a foreign host)" in sentence(foreign)
    assert "10.0.0.200 on eth0 of a: a, b." in problem(judged("a", outcome(B), AT_A))
    assert "b answers for 10.0.0.200 on eth0 of c, planned: a." in problem(judged("c", outcome(B), AT_A))
    assert "Nobody answers for 10.0.0.200 on eth0 of b." in problem(judged("b", outcome(), AT_A))


def test_the_replica_that_answers_asks_only_where_there_is_no_other() -> None:
    assert askers(["c", "b", "a"], "a") == ["b", "c"]
    assert askers(["a"], "a") == ["a"]
    assert askers([], "a") == []
    assert askers("abcdef", "b") == ["a", "c", "d"]
