"""BGP or Layer 2, for each VIP: from the hold-down state of its peers (:mod:`porterlb.core.holddown`).

Invariant: while the VIP may use both ways, at least one of ``announce`` and ``answer`` is on in every state, and where
only ``announce`` is, a live session carries it.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass, replace

from porterlb.core.holddown import HoldDown, ModePolicy, Phase
from porterlb.core.model import Mode, Protocol

__all__ = ["Announce", "ModePolicy", "Phase", "VipMode", "Ways", "decide", "wakes_at"]


class Announce(enum.StrEnum):
    """What BGP is to say about a VIP."""

    NONE = "none"
    NARROW = "narrow"  # the present Layer 2 next hop only
    FULL = "full"


@dataclass(frozen=True, slots=True)
class VipMode:
    """``since``: when this VIP came into the phase, and into the mode; ``overlap_until``: until when the way that is
    being left stays on (both monotonic seconds). ``mode``: what the user is told."""

    protocol: Protocol
    phase: Phase
    since: float
    mode: Mode
    announce: Announce
    answer: bool
    overlap_until: float = 0.0


@dataclass(frozen=True, slots=True)
class Ways:
    """What a VIP may use.

    ``carried``: a live replica has an established session to a peer that may have it, and can tell that peer one of
    its next hops. ``on_link``: Layer 2 can serve it. ``standby``: Eip.spec.layer2Standby.
    """

    protocol: Protocol
    carried: bool
    on_link: bool
    standby: bool


_ANNOUNCE = {Phase.START: Announce.FULL, Phase.BGP: Announce.FULL, Phase.NARROW: Announce.NARROW}


def decide(previous: VipMode | None, ways: Ways, hold_down: HoldDown, now: float, policy: ModePolicy) -> VipMode:
    """The mode of one VIP now. Pure; call it again whenever a session, a hold-down or the time has moved."""
    if ways.protocol is Protocol.AUTO:
        fresh = _automatic(previous, ways, hold_down, now)
    else:
        bgp = ways.protocol is Protocol.BGP
        fresh = VipMode(
            ways.protocol,
            Phase.FIXED,
            previous.since if previous and previous.protocol is ways.protocol else now,
            Mode.BGP if bgp else Mode.LAYER2,
            Announce.FULL if bgp else Announce.NONE,
            answer=not bgp,
        )
    return _overlapping(previous, fresh, ways, now, policy)


def _automatic(previous: VipMode | None, ways: Ways, hold_down: HoldDown, now: float) -> VipMode:
    phase = hold_down.phase
    if not ways.on_link:
        # There is no other way in: routes stay announced whatever the sessions do.
        phase = Phase.BGP
    elif not ways.carried and phase in (Phase.BGP, Phase.NARROW):
        # Its peers are trusted, but none can be told a next hop of this VIP.
        phase = Phase.LAYER2
    serving = Mode.BGP if phase in (Phase.BGP, Phase.NARROW) else Mode.LAYER2
    mode = serving if ways.on_link or ways.carried else Mode.NONE
    same = previous is not None and (previous.phase, previous.mode) == (phase, mode)
    return VipMode(
        Protocol.AUTO,
        phase,
        previous.since if previous is not None and same else now,
        mode,
        _ANNOUNCE.get(phase, Announce.NONE),
        answer=ways.on_link and (serving is Mode.LAYER2 or ways.standby or phase is Phase.NARROW),
    )


def _overlapping(previous: VipMode | None, fresh: VipMode, ways: Ways, now: float, policy: ModePolicy) -> VipMode:
    """Make before break: the way that is left goes on for ``policy.overlap`` once the other one has begun.

    Not when sessions are lost: then there is no route to keep. A route that is kept is one that is announced.
    """
    if previous is None:
        return fresh
    if previous.overlap_until <= now and previous.announce is fresh.announce and previous.answer == fresh.answer:
        return fresh
    if previous.protocol is not fresh.protocol or (
        fresh.phase is Phase.BGP and previous.phase is Phase.NARROW and previous.answer and not fresh.answer
    ):
        until = now + policy.overlap
    else:
        until = previous.overlap_until
    if until <= now:
        return fresh
    keep_answer = previous.answer and not fresh.answer and ways.on_link
    keep_routes = previous.announce is not Announce.NONE and fresh.announce is Announce.NONE and ways.carried
    # The routes of several replicas come one after the other: the first must not take all flows off their node
    begins = previous.protocol is not fresh.protocol and previous.announce is Announce.NONE and previous.answer
    narrow = (
        fresh.announce is Announce.FULL
        and fresh.mode is Mode.BGP
        and (begins or _by_hand(previous))
        and now < _wide_at(until, policy)
    )
    if not keep_answer and not keep_routes and not narrow:
        return fresh
    return replace(
        fresh,
        announce=previous.announce if keep_routes else Announce.NARROW if narrow else fresh.announce,
        answer=fresh.answer or keep_answer,
        overlap_until=until,
    )


def _by_hand(mode: VipMode) -> bool:
    """Whether it is narrow for a switch by hand, not for a session that came back."""
    return mode.announce is Announce.NARROW and mode.phase is not Phase.NARROW and mode.mode is Mode.BGP


def _wide_at(overlap_until: float, policy: ModePolicy) -> float:
    return overlap_until - max(0.0, policy.overlap - policy.narrow_dwell)


def wakes_at(mode: VipMode, policy: ModePolicy) -> float | None:
    """When time alone changes this mode, besides the hold-down of its peers (monotonic seconds), or None."""
    if not mode.overlap_until:
        return None
    return _wide_at(mode.overlap_until, policy) if _by_hand(mode) else mode.overlap_until
