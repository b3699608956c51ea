"""Nodes are probed by TCP for a sign of life, as long as a caller wants to know."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from ipaddress import ip_address

import pytest

from porterlb.core.model import Address
from porterlb.edge import life_signs
from porterlb.edge.life_signs import LifeSigns, answers

ADDRESSES = {"a": (ip_address("192.0.2.1"), ip_address("2001:db8::1")), "b": (ip_address("192.0.2.2"),)}


async def until(there: Callable[[], bool]) -> None:
    for _ in range(1000):
        if there():
            return
        await asyncio.sleep(0.005)
    raise TimeoutError


def test_a_node_is_asked_again_and_again_until_nobody_wants_to_know() -> None:
    async def main() -> None:
        asked: list[Address] = []
        told: list[float] = []
        alive: set[Address] = set()

        async def connect(address: Address) -> bool:
            asked.append(address)
            return address in alive

        now = [100.0]
        signs = LifeSigns(
            lambda node: ADDRESSES[node], lambda: told.append(now[0]), connect=connect, clock=lambda: now[0]
        )
        signs.ask(["a", "b"])
        await until(lambda: len(asked) > 10)
        assert set(asked) == {*ADDRESSES["a"], *ADDRESSES["b"]} and signs.signs == {} and not told
        alive.add(ADDRESSES["a"][1])
        now[0] = 101.0
        await until(lambda: signs.signs == {"a": 101.0})
        assert told == [101.0]
        signs.ask([])
        await asyncio.sleep(0)
        count = len(asked)
        await asyncio.sleep(0.1)
        assert len(asked) == count
        signs.heard("b")
        assert signs.signs["b"] == 101.0 and len(told) == 2

    asyncio.run(main())


def test_after_a_while_a_silent_node_is_asked_seldom() -> None:
    async def main() -> None:
        asked: list[Address] = []
        now = [100.0]

        async def connect(address: Address) -> bool:
            asked.append(address)
            now[0] += life_signs.OFTEN_FOR
            return False

        signs = LifeSigns(lambda node: ADDRESSES["b"], lambda: None, connect=connect, clock=lambda: now[0])
        signs.ask(["b"])
        await asyncio.sleep(0.2)
        assert len(asked) == 1
        signs.ask([])

    asyncio.run(main())


@pytest.mark.parametrize("listens", [True, False])
def test_a_refused_connection_is_an_answer_too(monkeypatch: pytest.MonkeyPatch, listens: bool) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        monkeypatch.setattr(life_signs, "PORT", server.getsockname()[1])
        if not listens:
            server.close()
        assert asyncio.run(answers(ip_address("127.0.0.1")))


def test_no_way_and_no_answer_are_none(monkeypatch: pytest.MonkeyPatch) -> None:
    async def nowhere(host: str, port: int) -> None:
        raise OSError(113, "No route to host")

    async def never(host: str, port: int) -> None:
        await asyncio.sleep(5)

    for connection in (nowhere, never):
        monkeypatch.setattr(asyncio, "open_connection", connection)
        assert not asyncio.run(answers(ip_address("192.0.2.1")))
