"""Duplicate address detection: three probes, a verdict, a limited rate."""

from __future__ import annotations

from ipaddress import ip_address

from hypothesis import given
from hypothesis import strategies as st

from porterlb.core.layer2.dad import APART, PROBES, VERDICT, DuplicateDetection
from porterlb.core.model import Address

A, B = ip_address("10.0.0.1"), ip_address("fd00::1")
MAC = b"\4" * 6


class Run:
    def __init__(self, rate: int = 2000, off_link: frozenset[Address] = frozenset()) -> None:
        self.dad = DuplicateDetection(rate, 0.0)
        self.now = 0.0
        self.off_link = off_link
        self.probes: list[tuple[float, Address]] = []
        self.decided = 0

    def until(self, end: float) -> None:
        for _ in range(100_000):
            at = self.dad.next_at
            if at is None or at > end:
                break
            self.now = max(self.now, at)
            step = self.dad.due(self.now, lambda address: address not in self.off_link)
            self.probes += [(self.now, address) for address in step.probes]
            self.decided += step.decided
        else:
            raise AssertionError("it never waits")
        self.now = end


def test_three_probes_and_nobody_claims_it() -> None:
    run = Run()
    run.dad.want([A], 0.0)
    run.until(2 * APART + VERDICT - 0.001)
    assert [at for at, _ in run.probes] == [i * APART for i in range(PROBES)]
    assert not run.dad.clear and not run.decided
    run.until(2 * APART + VERDICT + 0.001)
    assert run.dad.clear == {A} and run.dad.claimed == {} and run.decided == 1
    assert run.dad.next_at is None
    assert not run.dad.heard(A.packed, MAC)  # the verdict does not change


def test_who_claims_it_is_named_and_it_is_not_probed_on() -> None:
    run = Run()
    run.dad.want([A, B], 0.0)
    run.until(0.01)
    assert run.dad.heard(A.packed, MAC) and not run.dad.heard(A.packed, b"\6" * 6)
    assert not run.dad.heard(ip_address("10.0.0.9").packed, MAC)
    run.until(1.0)
    assert run.dad.claimed == {A: MAC} and run.dad.clear == {B}
    assert [address for _, address in run.probes].count(A) == 1


def test_thirty_probes_leave_at_once_at_any_rate() -> None:
    run = Run(rate=10)
    run.dad.want([ip_address(number) for number in range(1, 41)], 0.0)
    assert len(run.dad.due(0.0, lambda address: True).probes) == 30


def test_what_is_off_every_segment_is_clear_at_once_without_a_probe() -> None:
    run = Run(off_link=frozenset({A}))
    run.dad.want([A], 0.0)
    run.until(0.0)
    assert run.probes == [] and run.dad.clear == {A} and run.decided == 1


def test_verdicts_go_with_the_question_and_come_anew() -> None:
    run = Run()
    run.dad.want([A, B], 0.0)
    run.dad.heard(B.packed, MAC)
    run.until(1.0)
    run.dad.want([B], 1.0)
    assert run.dad.clear == set() and run.dad.claimed == {B: MAC}
    run.dad.want([A], 1.0)
    assert run.dad.claimed == {}
    run.until(2.0)
    assert run.dad.clear == {A} and len([at for at, address in run.probes if address == A]) == 2 * PROBES


@given(st.integers(100, 2000), st.integers(1, 300))
def test_probes_are_paced_and_every_address_gets_a_verdict(rate, count) -> None:
    run = Run(rate)
    run.dad.want([ip_address(number) for number in range(1, count + 1)], 0.0)
    run.until(0.05)
    assert len(run.probes) <= max(30, rate / 10) + 0.05 * rate + 1
    run.until(2.0 + 3 * count / rate)
    assert len(run.dad.clear) == count and len(run.probes) == PROBES * count
