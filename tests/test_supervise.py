"""Supervision: a failing part is restarted, its failures are counted and logged rarely, and other parts continue."""

from __future__ import annotations

import asyncio
import logging

import pytest

from porterlb import supervise
from porterlb.supervise import SAY_AGAIN, Supervisor


def test_a_part_that_fails_runs_again_and_another_goes_on(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(supervise, "LONGEST_PAUSE", 0.01)
    runs = 0
    turns = 0

    async def fails() -> None:
        nonlocal runs
        runs += 1
        if runs <= 5:
            raise ZeroDivisionError

    async def lives() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0.001)

    async def main() -> None:
        parts = Supervisor()
        living = asyncio.create_task(parts.keep("lives", lives))
        async with asyncio.timeout(10):
            await parts.keep("fails", fails)
        assert not living.done()
        living.cancel()
        with pytest.raises(asyncio.CancelledError):
            await living
        assert parts.failures == {"fails": 5}

    asyncio.run(main())
    assert runs == 6 and turns > 1
    assert len(caplog.records) == 1  # the same failure occurred five times


def test_pauses_grow_and_are_short_again_after_a_steady_life(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    pauses: list[float] = []
    lives = [0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 100.0, 0.0]

    async def sleep(seconds: float) -> None:
        pauses.append(seconds)

    async def run() -> None:
        nonlocal now
        if not lives:
            return
        now += lives.pop(0)
        raise KeyError

    monkeypatch.setattr(asyncio, "sleep", sleep)
    monkeypatch.setattr("random.random", lambda: 1.0)
    asyncio.run(Supervisor(lambda: now).keep("x", run))
    assert pauses == [0.2, 0.4, 0.8, 1.6, 3.2, 5.0, 5.0, 5.0, 0.2, 0.4]


def test_one_kind_of_failure_is_said_once_a_minute(caplog: pytest.LogCaptureFixture) -> None:
    now = 0.0
    parts = Supervisor(lambda: now)

    def bad(error: Exception) -> None:
        raise error

    call = parts.contained("a", bad)
    for moment in (0.0, 1.0, SAY_AGAIN - 0.1, SAY_AGAIN):
        now = moment
        call(ValueError())
    call(KeyError())
    parts.contained("b", bad)(ValueError())
    assert parts.failures == {"a": 5, "b": 1}
    assert [record.levelno for record in caplog.records] == [logging.ERROR] * 4


def test_a_cancellation_is_not_a_failure() -> None:
    async def main() -> None:
        parts = Supervisor()
        task = asyncio.create_task(parts.keep("x", lambda: asyncio.sleep(100)))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert parts.failures == {}

    asyncio.run(main())
