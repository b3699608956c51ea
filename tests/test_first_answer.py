"""The wait for the cluster's first answer: it lasts as long as waiting can help."""

from __future__ import annotations

import asyncio
from typing import Any, cast

import pytest

from porterlb import first_answer
from porterlb.cluster import Cluster, Denied, Unavailable
from porterlb.errors import PorterError
from porterlb.first_answer import FirstAnswer


class Answers:
    """A cluster that answers each request for the key with the next of these values or errors, then never again."""

    def __init__(self, *answers: bytes | Exception) -> None:
        self.left = list(answers)
        self.said: list[str] = []
        self.waiting: FirstAnswer

    async def hello_key(self) -> bytes:
        self.said.append(self.waiting.why)
        if not self.left:
            await asyncio.Event().wait()
        answer = self.left.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer


def answered(cluster: Answers, stop_after: float | None = None) -> Any:
    async def main() -> bytes | None:
        stop = asyncio.Event()
        if stop_after is not None:
            asyncio.get_running_loop().call_later(stop_after, stop.set)
        cluster.waiting = FirstAnswer(cast(Cluster, cluster), "kube")
        async with asyncio.timeout(10):
            return await cluster.waiting.key(stop)

    return asyncio.run(main())


def test_it_waits_while_the_api_is_unavailable_or_rights_are_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(first_answer, "ASK_AGAIN", 0.01)
    cluster = Answers(Unavailable("no route"), Unavailable("no route"), Denied("no right"), b"key")
    assert answered(cluster) == b"key"
    assert cluster.said == [
        "The API has not answered yet.",
        "The API cannot be used yet: no route",
        "The API cannot be used yet: no route",
        "The API cannot be used yet: no right",
    ]


def test_an_error_that_waiting_does_not_resolve_ends_it() -> None:
    with pytest.raises(PorterError, match="no such Secret"):
        answered(Answers(PorterError("no such Secret", "Install the chart.")))


def test_it_ends_when_the_manager_is_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(first_answer, "LAST_ANSWER", 0.05)
    assert answered(Answers(), stop_after=0.02) is None
    assert answered(Answers(Unavailable("no route")), stop_after=0.0) is None


def test_it_takes_an_answer_that_comes_when_the_manager_is_stopped() -> None:
    """Otherwise routers keep the routes of its predecessor: see FIRST_SESSIONS in porterlb/app.py."""
    assert answered(Answers(b"key"), stop_after=0.0) == b"key"
