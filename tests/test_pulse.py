"""The pulse: a busy loop does not stop it; a stuck loop and a stopped process do."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable

import pytest

from porterlb.pulse import Pulse


def during(stuck_after: float, scene: Callable[[list[float]], None]) -> list[float]:
    """The times of the beats while ``scene`` blocks the loop."""
    beats: list[float] = []

    def bad() -> None:
        raise ZeroDivisionError

    async def main() -> None:
        pulse = Pulse([bad, lambda: beats.append(time.monotonic())], stuck_after, every=0.02)
        task = asyncio.create_task(pulse.run())
        await asyncio.sleep(0.05)
        scene(beats)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    asyncio.run(main())
    return beats


def test_a_busy_loop_is_alive() -> None:
    def scene(beats: list[float]) -> None:
        until = time.monotonic() + 0.5
        while time.monotonic() < until:
            sum(range(1000))

    beats = during(10.0, scene)
    assert len(beats) >= 5 and beats[-1] - beats[0] > 0.3


def test_a_loop_that_is_stuck_for_good_is_not() -> None:
    def scene(beats: list[float]) -> None:
        time.sleep(0.6)
        count = len(beats)
        time.sleep(0.4)
        assert len(beats) == count

    during(0.3, scene)


def test_it_ends_with_its_task_and_can_run_again() -> None:
    beats: list[int] = []

    async def main() -> None:
        pulse = Pulse([lambda: beats.append(1)], 10.0, every=0.01)
        for _ in range(2):
            beats.clear()
            task = asyncio.create_task(pulse.run())
            await asyncio.sleep(0.1)
            assert beats
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            await asyncio.sleep(0.1)
            count = len(beats)
            await asyncio.sleep(0.1)
            assert len(beats) == count

    asyncio.run(main())


@pytest.mark.parametrize("stuck_after", [10.0])
def test_a_stopped_process_beats_no_more(stuck_after: float) -> None:
    program = (
        "import asyncio, os\nfrom porterlb.pulse import Pulse\n"
        f"asyncio.run(Pulse([lambda: os.write(1, b'.')], {stuck_after}, every=0.02).run())\n"
    )
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout is not None
            os.set_blocking(process.stdout.fileno(), True)
            assert process.stdout.read(3) == b"..."
            process.send_signal(signal.SIGSTOP)
            time.sleep(0.2)
            os.set_blocking(process.stdout.fileno(), False)
            process.stdout.read()
            time.sleep(0.3)
            assert not process.stdout.read()
            process.send_signal(signal.SIGCONT)
            time.sleep(0.5)
            assert process.stdout.read()
        finally:
            process.kill()
