"""When the silence of a replica counts: not during our own stall, a total silence, or doubt."""

from __future__ import annotations

from porterlb.core.hello import Change, Hello, HelloRefusal, encode
from porterlb.core.layer2.hellos import Hellos
from porterlb.core.model import Member

KEY = b"a key of the cluster's replicas"
INTERVAL, FRESH = 0.05, 0.2


def hellos(*nodes: str) -> Hellos:
    made = Hellos("me", KEY, INTERVAL, FRESH)
    made.set_members({node: Member(node, "192.0.2.1", 7473, 1) for node in ("me", *nodes)})
    return made


def said(node: str, sequence: int, **fields: object) -> bytes:
    return encode(Hello(node, 1, sequence, **fields), KEY)  # type: ignore[arg-type]


def test_a_silent_replica_is_given_up_when_its_time_is_over() -> None:
    made = hellos("a", "b")
    assert made.next_at is None
    assert isinstance(made.receive(said("a", 1), 10.0), Change)
    assert made.receive(said("a", 1), 10.0) is HelloRefusal.REPLAY
    assert made.next_at == 10.0 + FRESH
    made.receive(said("b", 1), 10.15)
    assert made.expire(10.0 + FRESH, 0.0, False) == {"a"}
    assert made.next_at == 10.15 + FRESH and set(made.fresh) == {"b"}
    assert made.last_heard == 10.15


def test_a_replica_that_goes_on_talking_is_not_given_up() -> None:
    made = hellos("a")
    for i in range(20):
        now = 10.0 + i * INTERVAL
        if made.next_at is not None and made.next_at <= now:
            assert made.expire(now, now, False) == frozenset()
        made.receive(said("a", i + 1), now)
    assert set(made.fresh) == {"a"} and made.next_at is not None


def test_while_we_stall_nobody_is_given_up() -> None:
    made = hellos("a", "b")
    made.receive(said("a", 1), 10.0)
    made.receive(said("b", 1), 10.1)
    late = 10.0 + FRESH + INTERVAL
    assert made.expire(late, late, False) == frozenset()
    assert made.next_at == late + INTERVAL / 2
    assert made.expire(made.next_at, late, False) == {"a"}


def test_while_nothing_at_all_is_heard_nobody_is_given_up_for_a_while() -> None:
    made = hellos("a")
    made.receive(said("a", 1), 10.0)
    at, asked = made.next_at, 0
    while "a" in made.fresh:
        assert at is not None and asked < 100
        made.expire(at, 10.0, False)
        last, at, asked = at, made.next_at, asked + 1
    assert asked > 10 and last >= 10.0 + 3 * FRESH


def test_a_single_other_sign_of_life_makes_its_silence_count() -> None:
    made = hellos("a")
    made.receive(said("a", 1), 10.0)
    assert made.expire(10.0 + FRESH, 10.0 + INTERVAL + 0.01, False) == {"a"}


def test_in_doubt_nobody_is_given_up() -> None:
    made = hellos("a", "b")
    made.receive(said("a", 1), 10.0)
    made.receive(said("b", 1), 10.19)
    assert made.expire(10.0 + FRESH, 10.19, True) == frozenset()
    assert made.next_at is not None
    assert made.expire(made.next_at, 10.19, False) == {"a"}


def test_numbers_rise_also_when_the_clock_does_not() -> None:
    made = hellos()
    numbers = [made.next_sequence(now) for now in (5.0, 5.0, 4.0, 6.0)]
    assert numbers == sorted(set(numbers)) and numbers[0] == 5_000_000_000 and numbers[-1] == 6_000_000_000


def test_a_goodbye_and_a_lost_membership_end_freshness_at_once() -> None:
    made = hellos("a", "b")
    made.receive(said("a", 1), 10.0)
    made.receive(said("b", 1), 10.0)
    change = made.receive(said("a", 2, goodbye=True), 10.01)
    assert isinstance(change, Change) and change.left
    assert made.set_members({}) == {"b"}
    assert made.expire(10.0 + FRESH, 0.0, False) == frozenset() and made.next_at is None
