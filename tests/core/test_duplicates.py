"""Verdicts of the duplicate address probe: remembered, requested again with back-off, bounded."""

from __future__ import annotations

from ipaddress import IPv4Address

from porterlb.core.duplicates import FIRST, LONGEST, PROXY, REMEMBERED, Duplicates
from porterlb.core.model import Address

ADDRESS = IPv4Address("10.77.0.1")
MAC, OTHER = bytes.fromhex("020000000009"), bytes.fromhex("02000000000a")


def test_f4_a_verdict_is_remembered_when_nobody_asks_any_more() -> None:
    first = Duplicates().heard({ADDRESS: MAC}, (), 10.0)
    assert first.claimed == {ADDRESS} and first.next_at == 10.0 + FIRST
    assert first.heard({}, (), 20.0) is first
    assert first.heard({ADDRESS: MAC}, (), 20.0) is first, "an old report says nothing new"
    assert first.heard({}, {ADDRESS}, 20.0) is first, "it was not asked for"


def test_f4_it_is_asked_for_again_with_exponential_back_off() -> None:
    verdicts, now, pauses = Duplicates().heard({ADDRESS: MAC}, (), 0.0), 0.0, []
    for _ in range(9):
        assert verdicts.next_at is not None
        assert not verdicts.due(verdicts.next_at - 0.1)
        pauses.append(verdicts.next_at - now)
        now = verdicts.next_at
        assert verdicts.due(now) == {ADDRESS}
        verdicts = verdicts.heard({ADDRESS: MAC}, (), now)
    assert pauses == [30, 60, 120, 240, 480, 960, 1920, LONGEST, LONGEST]


def test_f4_an_address_that_is_free_again_may_be_given_out() -> None:
    verdicts = Duplicates().heard({ADDRESS: MAC}, (), 0.0)
    assert not verdicts.heard({}, {ADDRESS}, FIRST).claimed


def test_f4_a_host_that_claims_many_addresses_is_named() -> None:
    few: dict[Address, bytes] = {ADDRESS + n: MAC for n in range(PROXY - 1)}
    assert not Duplicates().heard({**few, ADDRESS + 9: OTHER}, (), 0.0).proxies
    many: dict[Address, bytes] = {ADDRESS + n: MAC for n in range(PROXY)}
    verdicts = Duplicates().heard(many, (), 0.0)
    assert verdicts.proxies == {"02:00:00:00:00:09": frozenset(many)}
    assert not verdicts.heard({}, {ADDRESS}, FIRST).proxies


def test_f4_the_memory_is_bounded() -> None:
    verdicts = Duplicates()
    for n in range(3):
        verdicts = verdicts.heard({ADDRESS + 1000 * n + m: MAC for m in range(1000)}, (), float(n))
    assert len(verdicts.found) == REMEMBERED and ADDRESS + 2999 in verdicts.found
