"""An inquiry asks for each VIP once, repeats unanswered questions once, bounds its memory, and ends in time."""

from __future__ import annotations

import json
from ipaddress import ip_address

from hypothesis import given
from hypothesis import strategies as st

from porterlb.core import wire_text
from porterlb.core.layer2.inquiry import GAP, LISTEN, MOST_ANSWERS, REPEAT, Answer, Inquiry, NotAsked, Outcome
from porterlb.core.model import Address

ONE, TWO = ip_address("10.0.0.200"), ip_address("fd00::200")
MAC, OTHER = b"\2\0\0\0\0\1", b"\2\0\0\0\0\2"
NAMES = {MAC: "n1"}


def outcomes(inquiry: Inquiry) -> list[Outcome]:
    return inquiry.outcomes(lambda nic: f"eth{nic}", lambda mac, nic: NAMES.get(mac, ""))


def ask(inquiry: Inquiry, now: float) -> list[tuple[int, Address]]:
    due = inquiry.due(now)
    for _, address in due:
        inquiry.sent(address, now)
    return due


def test_each_vip_is_asked_in_its_turn_and_once_more_if_nobody_answers() -> None:
    inquiry = Inquiry({ONE: 1, TWO: 2}, 10.0)
    assert inquiry.next_at == 10.0
    assert ask(inquiry, 10.0) == [(1, ONE)]
    assert inquiry.next_at == 10.0 + GAP
    assert ask(inquiry, 10.0 + GAP) == [(2, TWO)]
    inquiry.heard(1, ONE.packed, MAC, 10.001)
    assert inquiry.next_at == 10.0 + REPEAT
    assert ask(inquiry, 10.0 + REPEAT) == [], "it is answered"
    assert ask(inquiry, 10.0 + GAP + REPEAT) == [(2, TWO)]
    assert inquiry.next_at == 10.0 + GAP + LISTEN
    assert ask(inquiry, 10.0 + GAP + LISTEN - 0.001) == []
    assert not inquiry.over(10.0 + GAP + LISTEN - 0.001) and inquiry.over(10.0 + GAP + LISTEN)
    one, two = outcomes(inquiry)
    assert one.interface == "eth1" and [(a.mac, a.node, round(a.after, 6)) for a in one.answers] == [(MAC, "n1", 0.001)]
    assert two == Outcome(str(TWO), "eth2")


def test_what_was_not_asked_is_not_called_unanswered() -> None:
    inquiry = Inquiry({ONE: NotAsked.NOT_LAYER2, TWO: 2}, 0.0)
    assert inquiry.due(0.0) == [(2, TWO)], "and the kernel refuses it"
    assert inquiry.due(REPEAT) == [(2, TWO)]
    assert [one.obstacle for one in outcomes(inquiry)] == [NotAsked.NOT_LAYER2, NotAsked.NOT_SENT]
    alone = Inquiry({ONE: NotAsked.NO_INTERFACE}, 5.0)
    assert alone.over(5.0) and alone.due(5.0) == []


def test_only_answers_to_the_questions_count_each_mac_once_and_not_too_many() -> None:
    inquiry = Inquiry({ONE: 1}, 0.0)
    inquiry.heard(1, ONE.packed, MAC, 0.0)  # before the question
    ask(inquiry, 0.0)
    inquiry.heard(2, ONE.packed, MAC, 0.1)  # another interface
    inquiry.heard(1, TWO.packed, MAC, 0.1)  # another address
    assert outcomes(inquiry)[0].answers == ()
    for at, mac in ((0.2, OTHER), (0.3, MAC), (0.4, OTHER)):
        inquiry.heard(1, ONE.packed, mac, at)
    assert outcomes(inquiry)[0].answers == (Answer(OTHER, "", 0.2), Answer(MAC, "n1", 0.3))
    for number in range(100):
        inquiry.heard(1, ONE.packed, bytes((2, 1, 0, 0, 0, number)), 0.5)
    assert len(outcomes(inquiry)[0].answers) == MOST_ANSWERS


_answers = st.builds(
    Answer, st.binary(min_size=6, max_size=6), st.sampled_from(("", "n1")), st.integers(0, 9000).map(lambda n: n / 1e4)
)
_outcomes = st.builds(
    Outcome,
    st.sampled_from((str(ONE), str(TWO))),
    st.sampled_from(("", "eth0")),
    st.none() | st.sampled_from(NotAsked),
    st.lists(_answers, max_size=3).map(tuple),
)


@given(st.lists(_outcomes, max_size=3))
def test_outcomes_travel_to_the_manager_unchanged(sent: list[Outcome]) -> None:
    message = json.loads(wire_text.answers_line(7, sent))
    assert message["number"] == 7
    found = wire_text.read_answers(message)
    assert [one._replace(answers=()) for one in found] == [one._replace(answers=()) for one in sent]
    for one, other in zip(found, sent, strict=True):
        assert [a[:2] for a in one.answers] == [a[:2] for a in other.answers]
        assert all(abs(a.after - b.after) <= 6e-5 for a, b in zip(one.answers, other.answers, strict=True))


def test_a_question_travels_to_the_process() -> None:
    message = json.loads(wire_text.ask_line(3, [ONE, TWO]))
    assert (message["t"], message["number"], wire_text.read_ask(message)) == ("ask", 3, [ONE, TWO])
