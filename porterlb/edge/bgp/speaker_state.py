"""The state that outlives an ExaBGP process: what is wanted, what is known, and what is reported."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from pathlib import Path as File
from types import MappingProxyType

from porterlb.core import exabgp_text as text
from porterlb.core.bfd.values import BfdSession
from porterlb.core.bgp import words
from porterlb.core.bgp.config import Arranged, Config, arrange
from porterlb.core.bgp.difference import Difference
from porterlb.core.bgp.guard import Guard
from porterlb.core.bgp.reasons import Trouble, TroubleKind
from porterlb.core.bgp.sessions import Sessions
from porterlb.core.desired import DesiredBgp, Path, Prefix
from porterlb.core.observed import BgpReport
from porterlb.core.scope import scope_of
from porterlb.edge.bgp.config import secrets
from porterlb.edge.bgp.local import look
from porterlb.edge.bgp.process import Log


@dataclass(slots=True)
class SpeakerState:
    """Shared by the supervisor and the run of one ExaBGP, in one event loop."""

    report: Callable[[BgpReport], None]
    run_dir: File
    log: Log
    ack_timeout: float
    heartbeat: float
    silence_after: float
    wake: asyncio.Event = field(default_factory=asyncio.Event)
    stopping: bool = False
    withdraw: bool = False  # when stopping
    wanted: DesiredBgp = field(default_factory=DesiredBgp)
    token: int = 0
    arranged: Arranged = field(default_factory=Arranged)  # for the wanted set that was taken over
    loaded: Config | None = None  # what the running ExaBGP has
    difference: Difference = field(default_factory=Difference)
    guard: Guard = field(default_factory=Guard)
    sessions: Sessions = field(default_factory=Sessions)
    bfd: Mapping[str, BfdSession] = field(default_factory=dict)
    trouble: Trouble | None = None
    restarts: int = 0
    applied: int = 0
    _taken: DesiredBgp | None = None
    _last: BgpReport | None = None

    def take_over(self, *, again: bool = False) -> None:
        """Makes the newest wanted set the target. ``again``: even if it is the same, as the node may have changed."""
        new = self._taken is not self.wanted
        if not new and not again:
            return
        self._taken = self.wanted
        arranged = arrange(self.wanted, look(self.wanted, self.loaded), self.sessions.waiting_for_bfd(self.wanted.bfd))
        if not new and arranged == self.arranged:
            return
        self.arranged = arranged
        self.log.secrets = frozenset(self.log.secrets | secrets(arranged.config))
        self.want_routes()
        self.sessions.configure(self.wanted.sessions, arranged, time.monotonic())
        self.sessions.hear_bfd(self.bfd, time.monotonic())  # for new peers
        if not new:
            self.tell()

    def want_routes(self) -> None:
        """Sets the routes that ExaBGP must have: those of configured peers that fit what their sessions negotiated."""
        self.difference.want(self.guard.apply(self._fitting(), self._limits()))

    def _fitting(self) -> dict[Path, AbstractSet[Prefix]]:
        sessions = self.arranged.config.sessions
        return {
            path: nets
            for path, nets in self.wanted.routes.items()
            if path.peer in sessions and self.sessions.fits(path)
        }

    def _limits(self) -> dict[str, int]:
        return {n: session.max_prefixes for n, session in self.wanted.sessions.items() if session.max_prefixes}

    def _rejected(self) -> dict[tuple[Path, Prefix], str]:
        """The routes that ExaBGP refused and those that the guard withholds, with the reason."""
        limits = self._limits()
        withheld = {
            (path, prefix): words.withheld(limits[path.peer])
            for path, prefix in (self.guard.cut(self._fitting()) if self.guard.withheld else ())
            if path.peer in limits
        }
        return {**self.difference.rejected, **withheld}

    @property
    def planned(self) -> frozenset[str]:
        """The peers whose wanted routes were planned for what their session negotiated."""
        known = self._taken.negotiated if self._taken else {}
        return frozenset(n for n, state in self.sessions.states.items() if state.negotiated == known.get(n))

    def look_again(self) -> None:
        """Checks again what the node allows, if the configuration depends on it."""
        by_interface = any(session.interface or scope_of(session.address) for session in self.wanted.sessions.values())
        if self.arranged.config.listen or self.arranged.refused or self.arranged.limited or by_interface:
            self.take_over(again=True)

    @property
    def is_current(self) -> bool:
        """Whether the newest wanted set has been taken over."""
        return self._taken is self.wanted

    def hear(self, said: text.Said) -> frozenset[str]:
        """Takes an event from ExaBGP. Changes are reported at once, before the next command to ExaBGP.

        Returns the peers whose session has just come up or gone down.
        """
        before = dict(self.sessions.states)
        changed = frozenset(self.sessions.hear(said, time.monotonic()))
        if self.sessions.states != before:
            self.tell()
        return changed

    def hear_bfd(self, found: Mapping[str, BfdSession]) -> frozenset[str]:
        """Takes the state of BFD, by peer name. Returns the peers whose session is lost; that is reported at once."""
        before = dict(self.sessions.states)
        self.bfd = found
        lost = self.sessions.hear_bfd(found, time.monotonic())
        if self.sessions.states != before:
            self.tell()
        if any(target.settings.strict for target in self.wanted.bfd.values()):
            self.take_over(again=True)
            self.wake.set()
        return lost

    def ended(self) -> None:
        """ExaBGP has ended, with its sessions and routes."""
        self.difference.set_peers(frozenset())
        self.sessions.lose_all(self.trouble or Trouble(TroubleKind.STOPPED), time.monotonic())
        self.tell()

    def settle(self) -> None:
        """Everything that is wanted has been sent and acknowledged."""
        self.applied = self.token
        self.tell()

    def tell(self) -> None:
        """Reports, if anything has changed since the last report."""
        report = BgpReport(
            sessions=MappingProxyType(dict(self.sessions.states)),
            applied=self.applied,
            rejected=MappingProxyType(self._rejected()),
            withheld=MappingProxyType({peer: len(found) for peer, found in self.guard.withheld.items()}),
            trouble=self.trouble,
            restarts=self.restarts,
        )
        if report != self._last:
            self._last = report
            self.report(report)

    async def wait(self, seconds: float) -> None:
        """Waits until something happens, for ``seconds`` at most."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self.wake.wait()
        self.wake.clear()
