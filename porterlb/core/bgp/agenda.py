"""What to send to ExaBGP next: the order of heartbeats, routes, End-of-RIB markers and reloads."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

from porterlb.core.bgp.config import Config
from porterlb.core.bgp.difference import Difference
from porterlb.core.bgp.next_line import Line, NextLine
from porterlb.core.desired import SessionConfig

END_OF_RIB_TIMES = 16
"""Number of End-of-RIB markers with add-path. At each marker FRR (8.4) drops only one stale path of a prefix: paths of
a Service that was deleted while we were away would stay forever. Other routers ignore the repetitions."""

END_OF_RIB_PAUSE = 0.3
"""Seconds between two markers: FRR takes a dropped path off its list with a delay, and before that drops it again."""


@dataclass(frozen=True, slots=True)
class Beat:
    """A heartbeat is due."""


@dataclass(frozen=True, slots=True)
class Teardown:
    """End the session with this peer: BFD found that the router is unreachable."""

    peer: str


@dataclass(frozen=True, slots=True)
class Clear:
    """Withdraw all routes of this peer and announce them again: they were planned for other capabilities."""

    peer: str


@dataclass(frozen=True, slots=True)
class EndOfRib:
    """The End-of-RIB marker is due for this peer, in all its families."""

    peer: str


@dataclass(frozen=True, slots=True)
class Finish:
    """No session is wanted, and all withdrawals have been sent."""


@dataclass(frozen=True, slots=True)
class Check:
    """Check a configuration that ExaBGP does not have."""

    config: Config


@dataclass(frozen=True, slots=True)
class Reload:
    """Load a checked configuration."""

    config: Config


@dataclass(frozen=True, slots=True)
class Wait:
    """Send nothing before ``until`` (monotonic seconds). ``settled``: everything desired has been sent."""

    until: float
    settled: bool


NextStep = Teardown | Beat | Line | Clear | EndOfRib | Finish | Check | Reload | Wait


@dataclass(frozen=True, slots=True)
class Configs:
    """``loaded``: the configuration that ExaBGP has; ``checked``: one that it would accept; ``bad``: one that it would
    refuse, or that could not be loaded; ``checking``: a check is running."""

    desired: Config
    loaded: Config
    checked: Config | None = None
    bad: Config | None = None
    checking: bool = False


@dataclass(slots=True)
class Agenda:
    """The agenda of one ExaBGP. ``owed``: peers whose End-of-RIB is due when all their routes are sent; ``unfit``:
    peers whose routes in ExaBGP do not fit the negotiated capabilities; ``torn``: peers whose session must be ended."""

    difference: Difference
    heartbeat: float
    owed: set[str] = field(default_factory=set)
    unfit: set[str] = field(default_factory=set)
    torn: set[str] = field(default_factory=set)
    line: NextLine = field(init=False)
    _beaten: float = float("-inf")
    _repeats: dict[str, tuple[int, float]] = field(default_factory=dict)  # markers left, when the next is due

    def __post_init__(self) -> None:
        self.line = NextLine(self.difference)

    def next(self, now: float, configs: Configs, *, current: bool, planned: Collection[str]) -> NextStep:
        """The next step. ``current``: the difference works on the newest desired set. ``planned``: peers whose routes
        in it are planned for the capabilities of their session; an earlier End-of-RIB would make the router drop
        routes that are still to be announced (RFC 4724)."""
        if self.torn:
            return Teardown(min(self.torn))
        if now - self._beaten >= self.heartbeat:
            return Beat()
        if self.unfit:
            return Clear(min(self.unfit))
        if line := self.line.take(configs.loaded.sessions):
            return line
        if peer := next((p for p in sorted(self.owed & set(planned)) if not self.difference.busy(p)), ""):
            return EndOfRib(peer)
        if due := [peer for peer, (_, at) in sorted(self._repeats.items()) if at <= now]:
            return EndOfRib(due[0])
        desired = configs.desired
        if not desired.sessions:
            return Finish()
        if desired not in (configs.loaded, configs.bad) and not configs.checking:
            return Reload(desired) if configs.checked == desired else Check(desired)
        settled = current and desired in (configs.loaded, configs.bad)
        return Wait(min([self._beaten + self.heartbeat, *(at for _, at in self._repeats.values())]), settled)

    def beaten(self, now: float) -> None:
        self._beaten = now

    def end_of_rib_said(self, peer: str, sessions: Mapping[str, SessionConfig], now: float) -> None:
        """The End-of-RIB marker was sent to ExaBGP; with add-path it is repeated."""
        left, _ = self._repeats.pop(peer, (END_OF_RIB_TIMES, now))
        if peer in self.owed:
            self.owed.discard(peer)
            left = END_OF_RIB_TIMES
        config = sessions.get(peer)
        if config is not None and config.add_path and left > 1:
            self._repeats[peer] = (left - 1, now + END_OF_RIB_PAUSE)

    def up(self, peers: Collection[str]) -> None:
        """These sessions came up, or their routes are announced again."""
        self.owed.update(peers)

    def tear_down(self, peers: Collection[str]) -> None:
        """These sessions are lost, and ExaBGP does not know that yet."""
        self.down(peers)
        self.torn.update(peers)

    def down(self, peers: Collection[str]) -> None:
        """These sessions ended."""
        self.owed.difference_update(peers)
        self.unfit.difference_update(peers)
        for peer in peers:
            self._repeats.pop(peer, None)
