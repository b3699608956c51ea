"""Two replicas that answer for one VIP: detected, verified, and settled by the same order on both replicas."""

from __future__ import annotations

from collections.abc import Callable

from porterlb.core.layer2.double_answers import ASK_AGAIN, CONFIRM, MOST, PATIENCE, DoubleAnswers, Settlement
from porterlb.core.rendezvous import ranked

VIP, TEXT = b"\x0a\0\0\x64", "10.0.0.100"
FIRST, SECOND = ranked(TEXT, ["a", "b"])
NOTHING = Settlement()


def answering(node: str) -> Callable[[bytes], tuple[str, str]]:
    return lambda address: (TEXT, node) if node else ("", "")


def verified(other: str, node: str) -> tuple[DoubleAnswers, Settlement]:
    """A claim of ``other``, confirmed by its answer to our question; the settlement for us, who answer too."""
    made = DoubleAnswers()
    made.claim(VIP, other, 1.0)
    assert made.review(1.0 + CONFIRM - 0.01, answering(node)) == NOTHING
    assert made.next_at == 1.0 + CONFIRM
    assert made.review(1.0 + CONFIRM, answering(node)).ask == (VIP,)
    made.claim(VIP, other, 1.0 + CONFIRM)
    return made, made.review(1.0 + CONFIRM, answering(node))


def test_the_first_in_rank_goes_on_and_the_other_one_falls_silent() -> None:
    winner, settled = verified(SECOND, FIRST)
    assert settled == NOTHING and winner.confirmed == {VIP: SECOND}
    loser, settled = verified(FIRST, SECOND)
    assert settled.silence == ((VIP, FIRST),) and loser.confirmed == {VIP: FIRST}


def test_a_failover_is_no_conflict() -> None:
    made = DoubleAnswers()
    made.claim(VIP, "b", 1.0)
    assert made.review(1.1, answering("")) == NOTHING  # our view now agrees with the claim
    assert made.next_at is None and not made.confirmed


def test_an_announcement_whose_sender_does_not_answer_changes_nothing() -> None:
    made = DoubleAnswers()
    made.claim(VIP, FIRST, 1.0)
    assert made.review(1.0 + CONFIRM, answering(SECOND)).ask == (VIP,)
    assert made.review(1.0 + CONFIRM + PATIENCE, answering(SECOND)) == NOTHING
    assert made.next_at is None


def test_who_fell_silent_answers_again_when_the_other_one_does_not() -> None:
    made, _ = verified(FIRST, SECOND)
    now = 1.0 + CONFIRM + ASK_AGAIN
    assert made.next_at == now
    assert made.review(now, answering("")).ask == (VIP,)  # we no longer answer
    made.claim(VIP, FIRST, now)
    assert made.review(now + PATIENCE, answering("")) == NOTHING
    now += ASK_AGAIN
    assert made.review(now, answering("")).ask == (VIP,)
    assert made.review(now + PATIENCE, answering("")) == Settlement(resume=(VIP,))
    assert not made.confirmed


def test_memory_is_bounded() -> None:
    made = DoubleAnswers()
    for number in range(2 * MOST):
        made.claim(number.to_bytes(4, "big"), "b", 1.0)
    assert len(made.review(2.0, answering("a")).ask) == MOST


def test_who_fell_silent_answers_again_also_when_another_node_has_claimed_the_vip_meanwhile() -> None:
    """Found by the simulator, seed 1000001: after a third node's claim, the replica forgot that it had stopped
    answering."""
    made, _ = verified(FIRST, SECOND)
    now = 1.0 + CONFIRM + 0.1
    made.claim(VIP, "c", now)
    assert made.review(now + CONFIRM, answering("")).ask == (VIP,)
    assert made.review(now + CONFIRM + PATIENCE, answering("")) == Settlement(resume=(VIP,))
