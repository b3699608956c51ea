"""The token bucket: a rate, a burst, and the return of unused tokens."""

from __future__ import annotations

from porterlb.core.layer2.bucket import TokenBucket


def taken(bucket: TokenBucket, now: float) -> int:
    """The number of tokens."""
    count = 0
    while bucket.has(now):
        bucket.take()
        count += 1
    return count


def test_it_begins_full_and_fills_at_its_rate_up_to_its_burst() -> None:
    bucket = TokenBucket(10.0, 3.0, 0.0)
    assert taken(bucket, 0.0) == 3
    assert not bucket.has(0.09)
    assert taken(bucket, 0.25) == 2
    assert taken(bucket, 60.0) == 3


def test_a_token_that_is_given_back_can_be_taken_again() -> None:
    bucket = TokenBucket(10.0, 2.0, 0.0)
    assert taken(bucket, 0.0) == 2
    bucket.give_back()
    assert taken(bucket, 0.0) == 1


def test_a_clock_that_goes_back_takes_nothing_away() -> None:
    bucket = TokenBucket(10.0, 2.0, 5.0)
    assert taken(bucket, 4.0) == 2
