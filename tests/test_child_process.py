"""A supervised process: its start, its input, its beats and its end, with real processes."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from collections.abc import Callable
from typing import Any

import pytest

from porterlb import child_process
from porterlb.child_process import FIRST_PAUSE, LONGEST_PAUSE, ChildProcess


class Life:
    """A child with a given role, and its reports."""

    def __init__(self, part: str) -> None:
        self.reports: list[Any] = []
        self._reported = asyncio.Event()
        self.until = asyncio.Event()
        self.child = ChildProcess(
            "tests.child_program",
            (part,),
            self._hear,
            goodbye=b"end\n",
            stop_within=0.5,
            longest=1 << 16,
        )

    async def live(self) -> tuple[str, float]:
        return await self.child.live(self._tell, self.until)

    async def _tell(self, writer: asyncio.StreamWriter) -> None:
        writer.write(b"wanted\n")
        await asyncio.Event().wait()

    def _hear(self, report: Any) -> None:
        self.reports.append(report)
        self._reported.set()

    async def reported(self, what: Callable[[Any], bool]) -> None:
        async with asyncio.timeout(20):
            while not any(map(what, self.reports)):
                self._reported.clear()
                await self._reported.wait()


def test_it_is_told_and_beaten_to_and_ends_when_it_is_told_to() -> None:
    async def story() -> None:
        life = Life("beaten")
        life.child.beat()  # there is no process yet
        living = asyncio.create_task(life.live())
        await life.reported(lambda report: report == {"part": "beaten"})
        pid = life.child.pid
        assert pid is not None and {"heard": "wanted"} not in life.reports
        life.child.beat()
        await life.reported(lambda report: report == {"heard": "wanted"})
        assert {"beat": "."} in life.reports
        life.until.set()
        assert await living == ("", FIRST_PAUSE)
        assert life.child.pid is None
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)

    asyncio.run(story())


def test_the_pauses_between_short_lives_grow() -> None:
    async def story() -> None:
        life = Life("dies")
        found = [await life.live() for _ in range(3)]
        assert found == [
            ("exit code 3", FIRST_PAUSE),
            ("exit code 3", 2 * FIRST_PAUSE),
            ("exit code 3", 4 * FIRST_PAUSE),
        ]

    asyncio.run(story())


def test_the_pause_has_a_limit_and_is_short_again_after_a_long_life(monkeypatch: pytest.MonkeyPatch) -> None:
    async def story() -> None:
        monkeypatch.setattr(child_process, "FIRST_PAUSE", 4.0)
        life = Life("dies")
        assert [pause for _, pause in [await life.live() for _ in range(2)]] == [4.0, LONGEST_PAUSE]
        monkeypatch.setattr(child_process, "STEADY", 0.0)
        assert await life.live() == ("exit code 3", 4.0)

    asyncio.run(story())


def test_one_that_does_not_report_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(child_process, "SILENT", 0.3)
    monkeypatch.setattr(child_process, "ONCE_MORE", 0.1)

    async def story() -> None:
        life = Life("silent")
        assert (await life.live())[0] == "no report for 0 s"
        assert life.reports == [{"part": "silent"}] and life.child.pid is None

    asyncio.run(story())


def test_a_stall_of_the_manager_itself_ends_no_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(child_process, "SILENT", 0.3)
    monkeypatch.setattr(child_process, "ONCE_MORE", 5.0)

    async def story() -> None:
        life = Life("talks")
        living = asyncio.create_task(life.live())
        await life.reported(lambda report: report == {"heard": "wanted"})
        time.sleep(0.4)  # noqa: ASYNC251 - the loop stands still
        await asyncio.sleep(0.1)
        assert not living.done()
        life.until.set()
        assert (await living)[0] == ""

    asyncio.run(story())


def test_one_that_does_not_stop_is_killed() -> None:
    async def story() -> None:
        life = Life("stubborn")
        living = asyncio.create_task(life.live())
        await life.reported(lambda report: report == {"heard": "wanted"})
        life.until.set()
        assert (await living)[0] == "it did not stop in time"

    asyncio.run(story())


def test_a_signal_is_named_and_cancelling_ends_the_process() -> None:
    async def story() -> None:
        life = Life("talks")
        for kill in (True, False):
            life.reports.clear()
            living = asyncio.create_task(life.live())
            await life.reported(lambda report: report == {"heard": "wanted"})
            pid = life.child.pid
            assert pid is not None
            if kill:
                os.kill(pid, signal.SIGKILL)
                assert (await living)[0] == "signal 9"
            else:
                living.cancel()
                await asyncio.gather(living, return_exceptions=True)
            with pytest.raises(ProcessLookupError):
                os.kill(pid, 0)

    asyncio.run(story())


def test_a_program_that_is_not_there_is_no_exception(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/nonexistent/python")
    assert asyncio.run(Life("talks").live())[0] == "it could not be started: No such file or directory"
