"""BGP or Layer 2, for each VIP: decided from the hold-down state of its peers (:mod:`porterlb.core.holddown`).

Invariant: while the VIP may use both protocols, at least one of ``announce`` and ``answer`` is on in every state. If
only ``announce`` is on, a live session carries the VIP.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass, replace

from porterlb.core.holddown import HoldDown, ModePolicy, Phase
from porterlb.core.model import Mode, Protocol

__all__ = ["Announce", "ModePolicy", "Phase", "VipMode", "Ways", "decide", "wakes_at"]


class Announce(enum.StrEnum):
    """Which routes BGP announces for a VIP."""

    NONE = "none"
    NARROW = "narrow"  # the present Layer 2 next hop only
    FULL = "full"


@dataclass(frozen=True, slots=True)
class VipMode:
    """``since``: when this VIP entered the phase and the mode; ``overlap_until``: until when the path that served the
    VIP before a switch stays active (both monotonic seconds). ``mode``: as shown to the user."""

    protocol: Protocol
    phase: Phase
    since: float
    mode: Mode
    announce: Announce
    answer: bool
    overlap_until: float = 0.0


@dataclass(frozen=True, slots=True)
class Ways:
    """The protocols that a VIP can use.

    ``carried``: a live replica has an established session to a peer that may have it, and can tell that peer one of
    its next hops. ``on_link``: Layer 2 can serve it. ``standby``: Eip.spec.layer2Standby.
    """

    protocol: Protocol
    carried: bool
    on_link: bool
    standby: bool


_ANNOUNCE = {Phase.START: Announce.FULL, Phase.BGP: Announce.FULL, Phase.NARROW: Announce.NARROW}


def decide(previous: VipMode | None, ways: Ways, hold_down: HoldDown, now: float, policy: ModePolicy) -> VipMode:
    """The current mode of one VIP. Pure; call it again after each change of a session, a hold-down or the time."""
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
    return _with_overlap(previous, fresh, ways, hold_down, now, policy)


def _automatic(previous: VipMode | None, ways: Ways, hold_down: HoldDown, now: float) -> VipMode:
    phase = hold_down.phase
    if not ways.on_link:
        # Layer 2 cannot serve it: routes stay announced regardless of the sessions.
        phase = Phase.BGP
    elif not ways.carried and phase in (Phase.BGP, Phase.NARROW):
        # Its peers are trusted, but no next hop of this VIP can be announced to any of them.
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


def _with_overlap(
    previous: VipMode | None, fresh: VipMode, ways: Ways, hold_down: HoldDown, now: float, policy: ModePolicy
) -> VipMode:
    """Make before break: the path that served the VIP stays active for ``policy.overlap`` after a switch.

    Routes are kept only while a session carries them: when all sessions are lost, no route is left to keep.
    """
    if previous is None:
        return fresh
    until = _overlap_until(previous, fresh, hold_down, now, policy)
    if until <= now:
        return fresh
    answer = fresh.answer or (previous.answer and ways.on_link)
    announce = fresh.announce
    if announce is Announce.NONE and ways.carried:
        announce = previous.announce
    elif _starts_narrow(previous, fresh) and now < _wide_at(until, policy):
        announce = Announce.NARROW
    if (announce, answer) == (fresh.announce, fresh.answer):
        return fresh
    return replace(fresh, announce=announce, answer=answer, overlap_until=until)


def _overlap_until(previous: VipMode, fresh: VipMode, hold_down: HoldDown, now: float, policy: ModePolicy) -> float:
    """When the overlap that begins now or is running ends; 0.0 or a time in the past: there is none."""
    switched_by_hand = previous.protocol is not fresh.protocol
    # Its peers were trusted all the while, but none of them could be told a next hop of this VIP until now.
    carried_again = previous.phase is Phase.LAYER2 and hold_down.since <= previous.since
    return_completed = (previous.phase is Phase.NARROW or carried_again) and fresh.phase is Phase.BGP
    answer_ends = previous.answer and not fresh.answer
    if switched_by_hand or (return_completed and answer_ends):
        return now + policy.overlap
    return previous.overlap_until


def _starts_narrow(previous: VipMode, fresh: VipMode) -> bool:
    """Whether a manual switch from Layer 2 to BGP announces the present next hop first.

    The routes of several replicas arrive one after the other. The first one must not move all flows away from the node
    that serves them.
    """
    if fresh.announce is not Announce.FULL or fresh.mode is not Mode.BGP:
        return False
    begins = previous.protocol is not fresh.protocol and previous.announce is Announce.NONE and previous.answer
    return begins or _narrow_by_hand(previous)


def _narrow_by_hand(mode: VipMode) -> bool:
    """Whether one next hop is announced because of a manual switch, not because a session came back."""
    return mode.announce is Announce.NARROW and mode.phase is not Phase.NARROW and mode.mode is Mode.BGP


def _wide_at(overlap_until: float, policy: ModePolicy) -> float:
    return overlap_until - max(0.0, policy.overlap - policy.narrow_dwell)


def wakes_at(mode: VipMode, policy: ModePolicy) -> float | None:
    """When this mode next changes only because time passes, or None (monotonic seconds). The hold-down of its peers is
    not included."""
    if not mode.overlap_until:
        return None
    return _wide_at(mode.overlap_until, policy) if _narrow_by_hand(mode) else mode.overlap_until
