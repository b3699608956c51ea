"""Address conflicts: confirmed, defended against at a limited rate, forgotten, bounded."""

from __future__ import annotations

from itertools import pairwise

from porterlb.core.layer2.conflicts import CONFIRM, DEFEND_EVERY, FORGET, MOST, Conflicts

VIP, FOREIGN, OURS = b"\x0a\0\0\1", b"\4" * 6, b"\2" * 6


def test_a_conflict_is_confirmed_defended_against_now_and_then_and_forgotten() -> None:
    conflicts, defended = Conflicts(), []
    for i in range(400):
        now = i * 0.1
        conflicts.claim(VIP, FOREIGN, now)
        for address in conflicts.review(now, frozenset()).defend:
            assert address == VIP
            conflicts.defended(address, now)
            defended.append(now)
    assert defended[0] >= CONFIRM and len(defended) == 4  # in 40 s, at most once in 10 s
    assert all(b - a >= DEFEND_EVERY for a, b in pairwise(defended))
    assert [conflict.mac for conflict in conflicts.found.values()] == [FOREIGN]
    assert not conflicts.review(40.1, frozenset()).changed
    assert conflicts.review(40.0 + FORGET, frozenset()).changed and conflicts.found == {}


def test_a_claim_is_not_defended_against_twice_without_a_new_claim() -> None:
    conflicts = Conflicts()
    conflicts.claim(VIP, FOREIGN, 0.0)
    assert conflicts.review(CONFIRM - 0.01, frozenset()) == conflicts.review(0.0, frozenset())
    review = conflicts.review(1.0, frozenset())
    assert review.changed and review.defend == (VIP,)
    assert conflicts.review(1.1, frozenset()).defend == (VIP,)  # the announcement could not be sent
    conflicts.defended(VIP, 1.1)
    assert conflicts.review(1.1 + 2 * DEFEND_EVERY, frozenset()).defend == ()


def test_a_node_is_never_in_conflict() -> None:
    conflicts = Conflicts()
    conflicts.claim(VIP, OURS, 0.0)
    assert conflicts.review(1.0, {OURS}).defend == () and conflicts.found == {}
    conflicts.claim(VIP, FOREIGN, 2.0)
    conflicts.review(3.0, {OURS})
    assert conflicts.found
    conflicts.forget(VIP)
    assert conflicts.review(3.1, {OURS}).changed and conflicts.found == {}


def test_another_mac_has_to_be_confirmed_anew() -> None:
    conflicts = Conflicts()
    conflicts.claim(VIP, FOREIGN, 0.0)
    conflicts.claim(VIP, b"\6" * 6, 1.0)
    assert not conflicts.review(1.1, frozenset()).changed
    assert conflicts.review(1.0 + CONFIRM, frozenset()).changed


def test_a_host_that_claims_everything_does_not_fill_the_memory() -> None:
    conflicts = Conflicts()
    for number in range(2 * MOST):
        conflicts.claim(number.to_bytes(4, "big"), FOREIGN, 0.0)
    conflicts.review(1.0, frozenset())
    assert len(conflicts.found) == MOST
