"""A running BGP speaker for tests: its input, its reports, and waiting for both."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from ipaddress import IPv4Address, ip_address
from pathlib import Path as File
from typing import Any

from porterlb.core.bgp import words
from porterlb.core.bgp.negotiated import Negotiated
from porterlb.core.desired import DesiredBgp, Path, SessionConfig
from porterlb.core.model import RouteAttributes
from porterlb.core.observed import BgpReport
from porterlb.edge.bgp import BgpSpeaker
from tests.edge.bgp_routers import LOCAL_AS, Bird, Table


class Watched:
    """A running speaker and its reports."""

    def __init__(self, run_dir: File, **settings: float) -> None:
        self.reports: list[BgpReport] = []
        self.speaker = BgpSpeaker(self._reported, run_dir=run_dir, **settings)
        self.token = 0
        self.planning = True  # False: a manager that has made no plan since the session came up
        self._wanted = DesiredBgp()

    @property
    def last(self) -> BgpReport:
        return self.reports[-1] if self.reports else BgpReport()

    def want(self, wanted: DesiredBgp) -> int:
        self.token += 1
        self._wanted = wanted
        self._tell()
        return self.token

    def _reported(self, report: BgpReport) -> None:
        before = self.last
        self.reports.append(report)
        if _agreed(before) != _agreed(report):
            self._tell()

    def _tell(self) -> None:
        """Tells the speaker, as the manager does, which negotiation the plan is for."""
        self.speaker.want(replace(self._wanted, negotiated=_agreed(self.last) if self.planning else {}), self.token)

    async def applied(self, wanted: DesiredBgp, seconds: float = 20) -> None:
        token = self.want(wanted)
        await eventually(lambda: self.last.applied == token, seconds)

    def reason(self, peer: str) -> str:
        """The reason why there is no session, as shown to the user."""
        return words.why_down(self.last.sessions[peer])

    def up(self) -> set[str]:
        return {name for name, state in self.last.sessions.items() if state.up}


def _agreed(report: BgpReport) -> dict[str, Negotiated]:
    return {name: state.negotiated for name, state in report.sessions.items() if state.negotiated}


@asynccontextmanager
async def speaking(folder: File, **settings: float) -> AsyncIterator[Watched]:
    watched = Watched(folder / "run", **settings)
    task = asyncio.create_task(watched.speaker.run())
    try:
        yield watched
    finally:
        task.cancel()
        await asyncio.wait((task,))
        if not task.cancelled():
            task.result()


async def eventually(condition: Callable[[], object], seconds: float = 20, step: float = 0.02) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"not within {seconds} s")
        await asyncio.sleep(step)


async def has(bird: Bird, table: Table, seconds: float = 20) -> None:
    """Waits until the router has exactly these next hops."""
    seen: Table = {}

    def same() -> bool:
        nonlocal seen
        seen = bird.table()
        return seen == table

    with suppress(TimeoutError):
        await eventually(same, seconds, 0.05)
    assert seen == table


def neighbor(bird: Bird, name: str = "", **changes: Any) -> SessionConfig:
    made = SessionConfig(
        peer=name or f"r{bird.number}",
        address=ip_address(bird.address),
        peer_as=bird.asn,
        local_as=LOCAL_AS,
        router_id=IPv4Address("10.99.0.1"),
        graceful_restart=0,
    )
    return replace(made, **changes)


def wanted(neighbors: list[SessionConfig], routes: dict[Path, list[str]]) -> DesiredBgp:
    return DesiredBgp(
        {n.peer: n for n in neighbors},
        {path: frozenset(prefixes) for path, prefixes in routes.items()},
    )


def via(peer: str, hop: str, path_id: int = 0, **attributes: Any) -> Path:
    return Path(peer, ip_address(hop), path_id, RouteAttributes(**attributes))


def many(count: int) -> list[str]:
    return [f"172.16.{i >> 8}.{i & 255}/32" for i in range(count)]


def steady(address: str, peer_as: int) -> DesiredBgp:
    """The wanted set of a manager in another process: one session under graceful restart, 100 routes."""
    peer = SessionConfig("r2", ip_address(address), peer_as, LOCAL_AS, IPv4Address("10.99.0.1"), graceful_restart=60)
    return wanted([peer], {via("r2", "10.99.0.11"): many(100)})


async def manage(run_dir: File, address: str, peer_as: int, silence_after: float) -> None:
    watched = Watched(run_dir, silence_after=silence_after, heartbeat=0.2)
    watched.want(steady(address, peer_as))
    await watched.speaker.run()


if __name__ == "__main__":
    asyncio.run(manage(File(sys.argv[1]), sys.argv[2], int(sys.argv[3]), float(sys.argv[4])))
