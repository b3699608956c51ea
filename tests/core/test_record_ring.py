"""The ring of a recording: bounded, and always with a checkpoint before its first entry."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from porterlb.core.record.log import Log
from porterlb.core.record.ring import SEGMENTS, Ring

LIMIT = 1000


@given(st.lists(st.tuples(st.integers(1, 300), st.booleans()), max_size=200))
def test_it_is_bounded_and_its_entries_follow_its_checkpoint(sizes: list[tuple[int, bool]]) -> None:
    """``can``: whether a checkpoint is possible at that moment."""
    ring: Ring[int, int] = Ring(LIMIT)
    for number, (size, can) in enumerate(sizes):
        if ring.due and can:
            ring.begin(number, 50)
        ring.add(number, size)
        assert ring.size <= LIMIT
        held = ring.contents()
        assert ring.size == sum(50 + sum(sizes[entry][0] for entry in entries) for _, entries in held)
        numbers = [entry for _, entries in held for entry in entries]
        assert numbers == list(range(numbers[0], numbers[0] + len(numbers))) if numbers else True
        assert all(entries[0] == checkpoint for checkpoint, entries in held if entries)
        if numbers:
            assert numbers[-1] == number


def test_the_oldest_segment_goes_as_a_whole() -> None:
    ring: Ring[str, int] = Ring(LIMIT)
    for number in range(200):
        if ring.due:
            ring.begin(f"before {number}", 10)
        ring.add(number, 20)
    held = ring.contents()
    assert 1 < len(held) <= SEGMENTS
    assert held[-1][1][-1] == 199
    assert held[0][0] == f"before {held[0][1][0]}"
    assert sum(len(entries) for _, entries in held) > LIMIT / 20 / 2


def test_a_checkpoint_of_more_than_half_ends_it() -> None:
    """Otherwise the checkpoint would be made again and again, for a few entries each time."""
    ring: Ring[str, int] = Ring(LIMIT)
    ring.begin("half", LIMIT // 2)
    ring.add(1, 10)
    assert not ring.due
    assert ring.contents() == [("half", [1])]
    ring.begin("larger", LIMIT // 2 + 1)
    ring.add(2, 10)
    assert (ring.contents(), ring.size, ring.full, ring.due) == ([], 0, True, False)


def test_without_checkpoints_it_begins_anew() -> None:
    ring: Ring[str, int] = Ring(LIMIT)
    ring.begin("first", 10)
    for number in range(3):
        ring.add(number, LIMIT // 4)
    assert ring.due
    ring.add(3, LIMIT // 4)
    assert ring.contents() == []
    assert ring.due


def test_a_stream_begins_with_a_checkpoint_and_again_after_a_loss() -> None:
    log: Log[str] = Log(0, streams=True)
    assert log.due
    log.add("too early", 1)
    log.begin("state", 1)
    log.add("one", 1)
    assert not log.due
    assert log.take() == ["state", "one"]
    assert log.take() == []
    assert not log.due
    log.add("two", 1)
    log.add("huge", Log.MOST)
    assert log.due
    assert log.take() == []
    log.add("lost", 1)
    log.begin("state again", 1)
    assert log.take() == ["state again"]
    assert log.contents() == []


def test_ring_and_stream_at_once() -> None:
    log: Log[str] = Log(LIMIT, streams=True)
    log.begin("state", 1)
    log.add("one", 1)
    assert log.take() == log.contents() == ["state", "one"]
    assert log.size == 2
    assert not Log[str](0).due
