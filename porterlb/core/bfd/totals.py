"""Counters of BFD sessions that outlast the BFD process, and the report while the process does not run."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

from porterlb.core.bfd.values import BfdSession, Obstacle, ObstacleKind


@dataclass(slots=True)
class Totals:
    """The counters of the sessions of one manager, by peer."""

    _before: dict[str, BfdSession] = field(default_factory=dict)  # counters of earlier processes
    _last: Mapping[str, BfdSession] = field(default_factory=dict)

    def heard(self, sessions: Mapping[str, BfdSession]) -> Mapping[str, BfdSession]:
        """The report of the running process, with counters since the start of the manager."""
        self._last = {peer: self._added(peer, session) for peer, session in sessions.items()}
        return self._last

    def ended(self, peers: Iterable[str], why: str) -> Mapping[str, BfdSession]:
        """The process ended. That is no failure of a router: until it runs again, only BGP judges the BGP sessions."""
        self._before.update(self._last)
        obstacle = Obstacle(ObstacleKind.NOT_RUNNING, text=why)
        self._last = {}
        return {peer: self._added(peer, BfdSession(obstacle=obstacle)) for peer in peers}

    def _added(self, peer: str, session: BfdSession) -> BfdSession:
        before = self._before.get(peer)
        if before is None:
            return session
        failures, transitions = before.failures + session.failures, before.transitions + session.transitions
        return replace(session, failures=failures, transitions=transitions)
