"""How far BGP through a set of peers is trusted: one state machine a set, with time as an argument.

All VIPs that the same peers may have share one state, so that a new VIP does what its siblings do. Replicas tell each
other their states by hello, for a replica that has just started remembers nothing: it takes over what the others say,
and nobody's decision depends on who was restarted when. Who has a session of its own knows more about BGP than who
has none; among those, whoever trusts further wins, since his routes are out already.
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
"""Phases that are a memory worth taking over, in the order of trust."""


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
class Trust:
    """``since``: when the phase began, or when the wait began anew (monotonic seconds). Never FIXED."""

    phase: Phase
    since: float


@dataclass(frozen=True, slots=True)
class Told:
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


def step(previous: Trust | None, told: Told, now: float, policy: ModePolicy) -> Trust:
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
        return Trust(phase, since)
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
    return Trust(phase, since)


def wakes_at(trust: Trust, policy: ModePolicy) -> float | None:
    """When time alone changes this state (monotonic seconds), or None."""
    lasts = {
        Phase.START: policy.start,
        Phase.WAITING: policy.return_after,
        Phase.NARROW: _until_wide(policy),
    }.get(trust.phase)
    return None if lasts is None else trust.since + lasts


def _until_wide(policy: ModePolicy) -> float:
    return max(policy.widen_after, policy.narrow_dwell)


# What a hello carries


def said(trusts: Mapping[frozenset[str], Trust]) -> frozenset[str]:
    """The states that are worth telling, as texts: ``1a2b3c4d=waiting``, the set of peers by a checksum."""
    return frozenset(f"{_label(peers)}={trust.phase.value}" for peers, trust in trusts.items() if trust.phase in _RANK)


def heard(texts: Iterable[str], peers: frozenset[str]) -> Phase | None:
    """What these texts say about a set of peers; None: nothing that we understand."""
    head = f"{_label(peers)}="
    return next((_PHASE.get(text.removeprefix(head)) for text in texts if text.startswith(head)), None)


_PHASE = {phase.value: phase for phase in _RANK}


def furthest(phases: Iterable[Phase | None]) -> Phase | None:
    """The one that trusts BGP most."""
    return max((phase for phase in phases if phase is not None), key=_RANK.__getitem__, default=None)


def seed(phase: Phase, since: float) -> Trust | None:
    """The memory that a VIP brings to a set of peers that is new to it (a BgpPeer came, went, or changed)."""
    return Trust(phase, since) if phase is not Phase.FIXED else None


def _label(peers: frozenset[str]) -> str:
    return f"{zlib.crc32(chr(0).join(sorted(peers)).encode()):08x}"
