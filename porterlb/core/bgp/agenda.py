"""What is to be said to ExaBGP next: the order of beats, routes, End-of-RIB markers and reloads."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

from porterlb.core.bgp.config import Config
from porterlb.core.bgp.difference import Difference
from porterlb.core.bgp.next_line import Line, NextLine
from porterlb.core.desired import SessionConfig

END_OF_RIB_TIMES = 16
"""With add-path. At each End-of-RIB, FRR (8.4) drops one stale path of a prefix only: paths of a Service that went
while we were away would stay for ever. More of the same say nothing new to other routers."""

END_OF_RIB_PAUSE = 0.3
"""Seconds between them: FRR takes a dropped path off its list a moment later, and drops it again."""


@dataclass(frozen=True, slots=True)
class Beat:
    """A sign of life is due."""


@dataclass(frozen=True, slots=True)
class Teardown:
    """The session with this peer is to be ended: BFD found that the router cannot be reached."""

    peer: str


@dataclass(frozen=True, slots=True)
class Clear:
    """Everything that this peer was told is to be withdrawn, and said anew: it was planned for other capabilities."""

    peer: str


@dataclass(frozen=True, slots=True)
class EndOfRib:
    """The marker is due for this peer, in all its families."""

    peer: str


@dataclass(frozen=True, slots=True)
class Finish:
    """Nobody is left to talk to, and the withdrawals have been said."""


@dataclass(frozen=True, slots=True)
class Check:
    """A configuration that ExaBGP does not have is to be checked."""

    config: Config


@dataclass(frozen=True, slots=True)
class Reload:
    """A checked configuration is to be loaded."""

    config: Config


@dataclass(frozen=True, slots=True)
class Wait:
    """Nothing is to be said until then (monotonic seconds). ``settled``: everything desired has been said."""

    until: float
    settled: bool


Step = Teardown | Beat | Line | Clear | EndOfRib | Finish | Check | Reload | Wait


@dataclass(frozen=True, slots=True)
class Configs:
    """``desired``; ``loaded``: what ExaBGP has; ``checked``: what it would take; ``bad``: what it would not, or could
    not be given lately; ``checking``: a check is running."""

    desired: Config
    loaded: Config
    checked: Config | None = None
    bad: Config | None = None
    checking: bool = False


@dataclass(slots=True)
class Agenda:
    """Of one ExaBGP. ``owed``: peers whose End-of-RIB is due once all their routes are said; ``unfit``: peers
    whose routes in ExaBGP do not fit what was negotiated now; ``torn``: peers whose session is to be ended."""

    difference: Difference
    heartbeat: float
    owed: set[str] = field(default_factory=set)
    unfit: set[str] = field(default_factory=set)
    torn: set[str] = field(default_factory=set)
    line: NextLine = field(init=False)
    _beaten: float = float("-inf")
    _repeats: dict[str, tuple[int, float]] = field(default_factory=dict)  # how many are left, when the next is due

    def __post_init__(self) -> None:
        self.line = NextLine(self.difference)

    def next(self, now: float, configs: Configs, *, current: bool, planned: Collection[str]) -> Step:
        """``current``: the newest desired set is the one that the difference works on. ``planned``: peers whose routes
        in it are planned for what their session negotiated: before that, an End-of-RIB would make the router drop
        routes that are still to come (RFC 4724)."""
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
        """The marker was said to ExaBGP; with add-path it is to be repeated."""
        left, _ = self._repeats.pop(peer, (END_OF_RIB_TIMES, 0.0))
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
        """These sessions are lost, and ExaBGP does not know it."""
        self.down(peers)
        self.torn.update(peers)

    def down(self, peers: Collection[str]) -> None:
        """These sessions are over."""
        self.owed.difference_update(peers)
        self.unfit.difference_update(peers)
        for peer in peers:
            self._repeats.pop(peer, None)
