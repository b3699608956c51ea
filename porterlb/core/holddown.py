"""The hold-down of BGP: after all sessions are lost, BGP is used again only when a session has been stable.

There is one state machine for each set of peers, with time as an argument. All VIPs that are announced to the same
peers share its state, so a new VIP behaves like the others. Replicas exchange their states by hello. A replica that has
just started has no state and takes over the state of the others. A replica with a session of its own never goes back
because of the others' states. Among replicas with a session, the furthest state wins, because its routes are already
announced.

If routes are lost right after they were announced, several times in a row, the announcement itself probably ends the
session (a prefix limit at the router). Each of these losses doubles the wait.
"""

from __future__ import annotations

import enum
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass


class Phase(enum.StrEnum):
    """The state of a VIP between Layer 2 and BGP."""

    START = "start"  # no session has carried it yet: routes are prepared, Layer 2 answers meanwhile
    LAYER2 = "layer2"  # no session carries it
    WAITING = "waiting"  # a session is back: not trusted until returnAfter is over
    NARROW = "narrow"  # announced towards the present Layer 2 next hop only
    BGP = "bgp"
    FIXED = "fixed"  # strict bgp or layer2: sessions have no effect


_RANK = {phase: rank for rank, phase in enumerate((Phase.LAYER2, Phase.WAITING, Phase.NARROW, Phase.BGP))}
"""Phases that another replica can take over, from least to most trusted."""


@dataclass(frozen=True, slots=True)
class ModePolicy:
    """Seconds. ``narrow_dwell``: the minimum time between announcing towards one next hop and widening, so that routers
    have the first route before flows may move. ``overlap``: how long the previous path stays active after a
    switch. ``start``: a first session is used at once only within this time; later, Layer 2 already serves, and the
    switch to BGP is as after a loss. ``drain_after``: how long the routes of a draining node are announced with the
    community GRACEFUL_SHUTDOWN before they are withdrawn."""

    return_after: float = 10.0
    widen_after: float = 0.0
    narrow_dwell: float = 0.5
    overlap: float = 3.0
    start: float = 10.0
    drain_after: float = 10.0


SOON = 10.0
"""Seconds. A loss of all sessions within this time of the first announcement counts for the back-off."""

LONGEST_WAIT = 300.0
"""Seconds. Upper limit of the back-off."""


@dataclass(frozen=True, slots=True)
class HoldDown:
    """The state of one set of peers. Times in monotonic seconds. The phase is never FIXED.

    ``since``: when the phase began, or when the wait began again. ``announced``: since when routes are announced; None:
    they are not. ``losses``: how often in a row the sessions were lost within SOON of the announcement; ``lasted``:
    after how many seconds the last time.
    """

    phase: Phase
    since: float
    announced: float | None = None
    losses: int = 0
    lasted: float = 0.0


def wait(hold_down: HoldDown, policy: ModePolicy) -> float:
    """Seconds that a session must be stable before BGP is used again. The first early loss does not extend the wait."""
    if hold_down.losses < 2:
        return policy.return_after
    doubled: float = max(policy.return_after, 1.0) * 2 ** min(hold_down.losses - 1, 16)
    return max(policy.return_after, min(LONGEST_WAIT, doubled))


@dataclass(frozen=True, slots=True)
class SessionsSeen:
    """The sessions with the same peers that live replicas report now.

    ``own``: we have a session ourselves. ``carried``: any replica has one, including us. ``stable_since``: when the
    oldest of these sessions came up (monotonic seconds). ``carriers``: the furthest phase of the other replicas that
    have a session; ``others``: the furthest phase of all other replicas. None: no replica reports one.
    """

    own: bool
    carried: bool
    stable_since: float = 0.0
    carriers: Phase | None = None
    others: Phase | None = None


_ANNOUNCING = (Phase.NARROW, Phase.BGP)


def step(previous: HoldDown | None, seen: SessionsSeen, now: float, policy: ModePolicy) -> HoldDown:
    """The state now. Pure; call it again after each change of a session, a hello or the time."""
    last = previous or HoldDown(Phase.START, now)
    phase, since = _phase(last, seen, now, policy)
    if phase in _ANNOUNCING:
        announced = now if last.announced is None else last.announced
        return HoldDown(phase, since, announced, last.losses, last.lasted)
    if last.announced is None:
        return HoldDown(phase, since, None, last.losses, last.lasted)
    lasted = now - last.announced
    if lasted < SOON:
        return HoldDown(phase, since, None, last.losses + 1, lasted)
    return HoldDown(phase, since)


def _phase(last: HoldDown, seen: SessionsSeen, now: float, policy: ModePolicy) -> tuple[Phase, float]:
    """The current phase, and when it began."""
    phase, since = last.phase, last.since
    if phase is Phase.START:
        if seen.others is not None:
            phase, since = seen.others, now
        elif seen.carried:
            phase, since = Phase.BGP, now
        elif now - since >= policy.start:
            phase, since = Phase.LAYER2, now
    if not seen.carried:
        if phase not in (Phase.START, Phase.LAYER2):
            phase, since = Phase.LAYER2, now
        return phase, since
    if phase is Phase.LAYER2:
        phase, since = Phase.WAITING, now
    if seen.carriers is not None:
        theirs = Phase.WAITING if seen.carriers is Phase.LAYER2 else seen.carriers
        if _RANK[theirs] > _RANK[phase] or (not seen.own and theirs is not phase):
            phase, since = theirs, now
    if phase is Phase.WAITING:
        since = max(since, min(seen.stable_since, now))
        if now - since >= wait(last, policy):
            phase, since = Phase.NARROW, now
    elif phase is Phase.NARROW and now - since >= _until_wide(policy):
        phase, since = Phase.BGP, now
    return phase, since


def advance(
    previous: Mapping[frozenset[str], HoldDown],
    seen: Mapping[frozenset[str], SessionsSeen],
    live: frozenset[str],
    now: float,
    policy: ModePolicy,
) -> Mapping[frozenset[str], HoldDown]:
    """One step of every set of peers in ``seen``; other sets are forgotten. ``live``: peers with a session now.

    Returns ``previous`` itself when nothing has changed.
    """
    found = {
        peers: step(previous.get(peers) or inherited(previous, peers, live), sessions, now, policy)
        for peers, sessions in seen.items()
    }
    return previous if found == previous else found


def inherited(
    previous: Mapping[frozenset[str], HoldDown], peers: frozenset[str], live: frozenset[str]
) -> HoldDown | None:
    """The initial state of a new set of peers: the state of a set which has a peer in common with it, or None.

    Sets whose common peer has a live session come first: VIPs that BGP serves keep their routes, whatever happened to
    other peers. Among equals the furthest phase counts, then the older one, then the names of the peers.
    """
    related = [(one, state) for one, state in previous.items() if one & peers]
    if not related:
        return None
    _, state = min(
        related,
        key=lambda item: (
            not item[0] & peers & live,
            -_RANK.get(item[1].phase, -1),
            item[1].since,
            sorted(item[0]),
        ),
    )
    return state


def wakes_at(hold_down: HoldDown, policy: ModePolicy) -> float | None:
    """When this state next changes only because time passes (monotonic seconds), or None."""
    lasts = {
        Phase.START: policy.start,
        Phase.WAITING: wait(hold_down, policy),
        Phase.NARROW: _until_wide(policy),
    }.get(hold_down.phase)
    return None if lasts is None else hold_down.since + lasts


def _until_wide(policy: ModePolicy) -> float:
    return max(policy.widen_after, policy.narrow_dwell)


# What a hello carries


def said(hold_downs: Mapping[frozenset[str], HoldDown]) -> frozenset[str]:
    """The states that other replicas need, as texts: ``1a2b3c4d=waiting``. The checksum stands for the set of peers."""
    return frozenset(
        f"{_label(peers)}={hold_down.phase.value}"
        for peers, hold_down in hold_downs.items()
        if hold_down.phase in _RANK
    )


def heard(texts: Iterable[str], peers: frozenset[str]) -> Phase | None:
    """The phase that these texts give for a set of peers; None: no phase that we know."""
    head = f"{_label(peers)}="
    return next((_PHASE.get(text.removeprefix(head)) for text in texts if text.startswith(head)), None)


_PHASE = {phase.value: phase for phase in _RANK}


def furthest(phases: Iterable[Phase | None]) -> Phase | None:
    """The phase that is closest to full use of BGP."""
    return max((phase for phase in phases if phase is not None), key=_RANK.__getitem__, default=None)


def _label(peers: frozenset[str]) -> str:
    return f"{zlib.crc32(chr(0).join(sorted(peers)).encode()):08x}"
