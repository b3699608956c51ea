"""The steady interval of the wire process: after a late call, the next call follows after a full interval."""

from __future__ import annotations

import asyncio
import time

import pytest

from porterlb.wire.ticker import Ticker

INTERVAL = 0.02


def test_calls_follow_at_the_pace_and_a_late_one_leaves_a_whole_interval() -> None:
    calls: list[tuple[float, float]] = []
    enough = asyncio.Event()

    def do(now: float, lag: float) -> None:
        calls.append((now, lag))
        if len(calls) == 3:
            time.sleep(5 * INTERVAL)  # the loop stalls
        if len(calls) == 6:
            enough.set()

    async def main() -> None:
        begun = asyncio.get_running_loop().time()
        ticker = Ticker(INTERVAL, do, asyncio.get_running_loop())
        await enough.wait()
        ticker.close()
        count = len(calls)
        await asyncio.sleep(3 * INTERVAL)
        assert len(calls) == count and calls[0][0] - begun < INTERVAL

    asyncio.run(main())
    late = calls[3]
    assert late[1] >= 3 * INTERVAL, "it says how late it is"
    assert calls[4][0] - late[0] >= INTERVAL


def test_an_error_is_passed_on_and_ends_the_calls() -> None:
    calls = []

    def do(now: float, lag: float) -> None:
        calls.append(now)
        raise ZeroDivisionError

    async def main() -> None:
        ticker = Ticker(INTERVAL, do, asyncio.get_running_loop())
        with pytest.raises(ZeroDivisionError):
            await asyncio.wait_for(ticker.failed, 5.0)
        await asyncio.sleep(3 * INTERVAL)
        ticker.close()

    asyncio.run(main())
    assert len(calls) == 1
