"""When a VIP is announced: at once after a move, then in rounds, then occasionally; never above the rate limit."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from porterlb.core.layer2.announcer import AGAIN, AT_ONCE, REFRESH, ROUNDS, Announcer


def vip(number: int) -> bytes:
    return number.to_bytes(4, "big")


class Run:
    """An announcer with its clock; its frames and their times."""

    def __init__(self, rate: int = 2000, seed: int = 1) -> None:
        self.announcer = Announcer(rate, random.Random(seed).random, 0.0)
        self.now = 0.0
        self.sent: list[tuple[float, bytes]] = []
        self.batches: list[int] = []
        self.refuse: set[bytes] = set()

    def until(self, end: float) -> None:
        for _ in range(200_000):
            at = self.announcer.next_at
            if at is None or at > end:
                break
            self.now = max(self.now, at)
            chosen = self.announcer.due(self.now)
            self.batches.append(len(chosen))
            for address in chosen:
                ok = address not in self.refuse
                self.announcer.done(address, ok, self.now)
                if ok:
                    self.sent.append((self.now, address))
        else:
            raise AssertionError("it never waits")
        self.now = end

    def times(self, address: bytes) -> list[float]:
        return [at for at, sent in self.sent if sent == address]


def test_a_move_is_announced_at_once_in_rounds_and_then_refreshed() -> None:
    run = Run()
    run.announcer.start(vip(1), moved=True, asked=False, now=0.0)
    run.until(300.0)
    times = run.times(vip(1))
    assert times[: len(ROUNDS)] == pytest.approx(list(ROUNDS))
    pauses = [b - a for a, b in zip(times[len(ROUNDS) - 1 :], times[len(ROUNDS) :], strict=False)]
    assert len(pauses) >= 2 and all(REFRESH[0] <= pause <= REFRESH[1] for pause in pauses)
    assert len(set(pauses)) == len(pauses)


def test_what_has_not_moved_waits_for_its_refresh() -> None:
    run = Run()
    run.announcer.start(vip(1), moved=False, asked=True, now=0.0)
    run.until(REFRESH[1] + 1)
    assert len(run.sent) == 1 and REFRESH[0] <= run.sent[0][0] <= REFRESH[1]


def test_what_is_stopped_is_announced_no_more_and_a_new_start_begins_anew() -> None:
    run = Run()
    run.announcer.start(vip(1), moved=True, asked=False, now=0.0)
    run.until(1.5)
    run.announcer.stop(vip(1))
    run.until(10.0)
    assert len(run.sent) == 2
    run.announcer.start(vip(1), moved=True, asked=False, now=10.0)
    run.announcer.start(vip(1), moved=True, asked=False, now=10.0)
    run.until(16.0)
    assert run.times(vip(1))[2:] == pytest.approx([10.0 + at for at in ROUNDS])
    run.announcer.close()
    run.until(300.0)
    assert len(run.sent) == 2 + len(ROUNDS)


def test_what_was_asked_for_lately_comes_first_and_repetitions_last() -> None:
    run = Run(rate=80)
    for number in range(40):
        run.announcer.start(vip(number), moved=True, asked=number >= 30, now=0.0)
    assert run.announcer.waiting == 40
    run.until(3.0)
    first = [int.from_bytes(address, "big") for _, address in run.sent[:40]]
    assert first == [*range(30, 40), *range(30)]


def test_a_frame_that_could_not_be_sent_is_tried_again_soon_and_costs_no_token() -> None:
    run = Run(rate=80)
    run.refuse = {vip(1), vip(2), vip(3)}
    for number in (1, 2, 3):
        run.announcer.start(vip(number), moved=True, asked=False, now=0.0)
    run.until(0.5)
    assert run.sent == [] and sum(run.batches) == pytest.approx(3 * 0.5 / AGAIN, abs=6)  # more than 80 per second
    run.refuse.clear()
    run.until(1.0)
    assert run.sent[0][0] <= 0.5 + AGAIN
    assert run.announcer.waiting == 0


@given(st.integers(80, 2000), st.integers(1, 400), st.integers(0, 10))
def test_never_more_than_the_rate_and_never_many_in_one_turn(rate, count, seed) -> None:
    run = Run(rate, seed)
    for number in range(count):
        run.announcer.start(vip(number), moved=True, asked=number % 3 == 0, now=0.0)
    run.until(0.9)
    assert max(run.batches) <= AT_ONCE
    burst = max(AT_ONCE, rate / 10)
    for at, _ in run.sent[:: max(1, len(run.sent) // 20)]:
        assert sum(1 for when, _ in run.sent if when <= at) <= burst + rate * at + 1
    assert len(run.sent) >= min(count, int(0.8 * rate * 0.9))


def test_without_work_it_wants_no_call() -> None:
    assert Announcer(100, lambda: 0.5, 0.0).next_at is None
