"""The hold-down of BGP: after a loss of all sessions, BGP is used again only once a session has been stable.

There is one state machine for each set of peers, with time as an argument. All VIPs that are announced to the same
peers share its state, so a new VIP does what the others do. Replicas exchange their states by hello, because a replica
that has just started remembers nothing: it takes over the state of the others. A replica with a session of its own
does not go back because of what others say; among replicas with a session, the furthest state wins, because its routes
are announced already.
"""

from __future__ import annotations

import enum
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass


class Phase(enum.StrEnum):
    """Where a VIP stands between the two ways in."""

    START = "start"  # no session has carried it yet: routes are laid ready, Layer 2 answers meanwhile
    LAYER2 = "layer2"  # no session carries it
    WAITING = "waiting"  # a session is back: not trusted until returnAfter is over
    NARROW = "narrow"  # announced towards the present Layer 2 next hop only
    BGP = "bgp"
    FIXED = "fixed"  # strict bgp or layer2: sessions change nothing


_RANK = {phase: rank for rank, phase in enumerate((Phase.LAYER2, Phase.WAITING, Phase.NARROW, Phase.BGP))}
"""Phases that are a memory worth taking over, from least to most trusted."""


@dataclass(frozen=True, slots=True)
class ModePolicy:
    """Seconds. ``narrow_dwell``: the least time between announcing towards one next hop and widening, so that
    routers have the first route before the flows may move. ``overlap``: how long the way that is left by hand stays.
    ``start``: a first session is used at once only within so long; who waited longer has served by Layer 2, and goes
    over as after a loss."""

    return_after: float = 10.0
    widen_after: float = 0.0
    narrow_dwell: float = 0.5
    overlap: float = 3.0
    start: float = 10.0


@dataclass(frozen=True, slots=True)
class HoldDown:
    """``since``: when the phase began, or when the wait began anew (monotonic seconds). Never FIXED."""

    phase: Phase
    since: float


@dataclass(frozen=True, slots=True)
class SessionsSeen:
    """What live replicas say about the same peers now.

    ``own``: we have a session ourselves. ``carried``: somebody has, we included. ``stable_since``: when the oldest of
    these sessions came up (monotonic seconds). ``carriers``: the furthest phase of the others that have a session;
    ``others``: the furthest of all others. None: nobody says any.
    """

    own: bool
    carried: bool
    stable_since: float = 0.0
    carriers: Phase | None = None
    others: Phase | None = None


def step(previous: HoldDown | None, told: SessionsSeen, now: float, policy: ModePolicy) -> HoldDown:
    """The state now. Pure; call it again whenever a session, a hello or the time has moved."""
    phase, since = (previous.phase, previous.since) if previous else (Phase.START, now)
    if phase is Phase.START:
        if told.others is not None:
            phase, since = told.others, now
        elif told.carried:
            phase, since = Phase.BGP, now
        elif now - since >= policy.start:
            phase, since = Phase.LAYER2, now
    if not told.carried:
        if phase not in (Phase.START, Phase.LAYER2):
            phase, since = Phase.LAYER2, now
        return HoldDown(phase, since)
    if phase is Phase.LAYER2:
        phase, since = Phase.WAITING, now
    if told.carriers is not None:
        theirs = Phase.WAITING if told.carriers is Phase.LAYER2 else told.carriers
        if _RANK[theirs] > _RANK[phase] or (not told.own and theirs is not phase):
            phase, since = theirs, now
    if phase is Phase.WAITING:
        since = max(since, min(told.stable_since, now))
        if now - since >= policy.return_after:
            phase, since = Phase.NARROW, now
    elif phase is Phase.NARROW and now - since >= _until_wide(policy):
        phase, since = Phase.BGP, now
    return HoldDown(phase, since)


def wakes_at(hold_down: HoldDown, policy: ModePolicy) -> float | None:
    """When time alone changes this state (monotonic seconds), or None."""
    lasts = {
        Phase.START: policy.start,
        Phase.WAITING: policy.return_after,
        Phase.NARROW: _until_wide(policy),
    }.get(hold_down.phase)
    return None if lasts is None else hold_down.since + lasts


def _until_wide(policy: ModePolicy) -> float:
    return max(policy.widen_after, policy.narrow_dwell)


# What a hello carries


def said(hold_downs: Mapping[frozenset[str], HoldDown]) -> frozenset[str]:
    """The states that other replicas need, as texts: ``1a2b3c4d=waiting``, the set of peers by a checksum."""
    return frozenset(
        f"{_label(peers)}={hold_down.phase.value}"
        for peers, hold_down in hold_downs.items()
        if hold_down.phase in _RANK
    )


def heard(texts: Iterable[str], peers: frozenset[str]) -> Phase | None:
    """What these texts say about a set of peers; None: nothing that we understand."""
    head = f"{_label(peers)}="
    return next((_PHASE.get(text.removeprefix(head)) for text in texts if text.startswith(head)), None)


_PHASE = {phase.value: phase for phase in _RANK}


def furthest(phases: Iterable[Phase | None]) -> Phase | None:
    """The phase that is nearest to full use of BGP."""
    return max((phase for phase in phases if phase is not None), key=_RANK.__getitem__, default=None)


def seed(phase: Phase, since: float) -> HoldDown | None:
    """The memory that a VIP brings to a set of peers that is new to it (a BgpPeer came, went, or changed)."""
    return HoldDown(phase, since) if phase is not Phase.FIXED else None


def _label(peers: frozenset[str]) -> str:
    return f"{zlib.crc32(chr(0).join(sorted(peers)).encode()):08x}"
