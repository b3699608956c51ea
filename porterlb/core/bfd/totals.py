"""Counters of BFD sessions that outlive the BFD process, and what is reported while it does not run."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

from porterlb.core.bfd.values import BfdSession, Obstacle, ObstacleKind


@dataclass(slots=True)
class Totals:
    """Of the sessions of one manager, by peer."""

    _before: dict[str, BfdSession] = field(default_factory=dict)  # counters of the processes that have ended
    _last: Mapping[str, BfdSession] = field(default_factory=dict)

    def heard(self, sessions: Mapping[str, BfdSession]) -> Mapping[str, BfdSession]:
        """What the running process reports, with the counts since the manager started."""
        self._last = {peer: self._added(peer, session) for peer, session in sessions.items()}
        return self._last

    def ended(self, peers: Iterable[str], why: str) -> Mapping[str, BfdSession]:
        """The process has ended. That is no failure of any router: a session of BGP is judged by BGP meanwhile."""
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
