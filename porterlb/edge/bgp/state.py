"""What outlives an ExaBGP: what is wanted, what is known, and what is reported of it."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType

from porterlb.core import exabgp_text as text
from porterlb.core.desired import DesiredBgp
from porterlb.core.observed import BgpReport
from porterlb.edge.bgp.difference import Difference
from porterlb.edge.bgp.process import Log
from porterlb.edge.bgp.sessions import Sessions
from porterlb.edge.bgp.setup import Setup, arrange


@dataclass(slots=True)
class State:
    """Shared by the supervisor and the life of one ExaBGP. All in one event loop."""

    report: Callable[[BgpReport], None]
    run_dir: Path
    log: Log
    ack_timeout: float
    heartbeat: float
    silence_after: float
    wake: asyncio.Event = field(default_factory=asyncio.Event)
    stopping: bool = False
    withdraw: bool = False  # at the stop
    wanted: DesiredBgp = field(default_factory=DesiredBgp)
    token: int = 0
    setup: Setup = field(default_factory=Setup)  # for the wanted set that was taken over
    difference: Difference = field(default_factory=Difference)
    sessions: Sessions = field(default_factory=Sessions)
    end_of_rib: set[str] = field(default_factory=set)  # peers that are owed one
    trouble: str = ""
    restarts: int = 0
    applied: int = 0
    _taken: DesiredBgp | None = None
    _last: BgpReport | None = None

    def take_over(self, *, again: bool = False) -> None:
        """The newest wanted set becomes the target. ``again``: although it is the same, the addresses may differ."""
        new = self._taken is not self.wanted
        if not new and not again:
            return
        self._taken = self.wanted
        setup = arrange(self.wanted)
        if not new and setup == self.setup:
            return
        self.setup = setup
        self.log.secrets = frozenset(self.log.secrets | setup.secrets())
        self.difference.want({p: nets for p, nets in self.wanted.routes.items() if p.peer in setup.neighbors})
        self.sessions.configure(self.wanted.neighbors, setup.refused, time.monotonic())

    @property
    def is_current(self) -> bool:
        """Whether the newest wanted set has been taken over."""
        return self._taken is self.wanted

    def hear(self, said: text.Said) -> None:
        """An event from ExaBGP: reported at once, before anything else is said to it."""
        before = dict(self.sessions.states)
        for name in self.sessions.hear(said, time.monotonic()):
            if self.sessions.states[name].up:
                self.end_of_rib.add(name)
                self.wake.set()
            else:
                self.end_of_rib.discard(name)
        if self.sessions.states != before:
            self.tell()

    def mourn(self) -> None:
        """ExaBGP is gone with its sessions and routes."""
        self.difference.set_peers(frozenset())
        self.end_of_rib.clear()
        self.sessions.lose_all(self.trouble or "ExaBGP was stopped.", time.monotonic())
        self.tell()

    def settle(self) -> None:
        """Everything that was wanted has been said and acknowledged."""
        self.applied = self.token
        self.tell()

    def tell(self) -> None:
        """Reports, if anything is different from the last time."""
        report = BgpReport(
            sessions=MappingProxyType(dict(self.sessions.states)),
            applied=self.applied,
            rejected=MappingProxyType(dict(self.difference.rejected)),
            trouble=self.trouble,
            restarts=self.restarts,
        )
        if report != self._last:
            self._last = report
            self.report(report)

    async def wait(self, seconds: float) -> None:
        """Until something happens, at most so long."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self.wake.wait()
        self.wake.clear()
