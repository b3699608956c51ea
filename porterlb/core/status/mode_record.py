"""Eip.status.mode: the protocol that serves its VIPs, since when, why, and the previous one."""

from __future__ import annotations

import enum
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

from porterlb.core.mode import Phase
from porterlb.core.model import Address, Eip, Mode, Protocol
from porterlb.core.problems import Reason
from porterlb.core.served import Served
from porterlb.core.vip import VipPlan

HISTORY = 10
"""Number of changes that are kept, the newest first: enough to follow a longer incident, small enough for a status."""


class Cause(enum.StrEnum):
    """Why the addresses of a pool are served as they are: the machine-readable part of the reason."""

    NO_ADDRESS = "NoAddress"  # no Service has an address of the pool
    UNCONFIRMED = "Unconfirmed"  # planned, and the speakers have not confirmed it yet
    NOT_SERVED = "NotServed"  # the problem that keeps the VIPs from being served
    PROTOCOL = "Protocol"  # set by spec.protocol
    SWITCHING = "Switching"  # spec.protocol has changed, and the switch is in progress
    ESTABLISHED = "SessionEstablished"
    RETURNING = "SessionReturned"  # announced for the present Layer 2 next hop first
    STABILISING = "SessionNotStableYet"
    NO_SESSION = "NoSession"
    MIXED = "Mixed"


MOMENT = 2.0
"""Seconds. A shorter unconfirmed state is not a separate change in the history: it is part of the next change."""

MIXED = "mixed"
"""Some VIPs are in bgp, others in layer2: a switch is in progress, or only some can be served by BGP."""


def mode_record(
    eip: Eip,
    vips: Iterable[VipPlan],
    on_wire: Mapping[Address, Served],
    lost: str,
    old: Mapping[str, Any] | None,
    now: str,
    generation: int = 0,
) -> dict[str, Any]:
    """``{protocol, served, since, cause, reason, vips {bgp, layer2, none}, waiting, history}``; ``history`` is a list
    of ``{time, before, after, cause, reason}``.

    ``served``: bgp, layer2, mixed or none. VIPs whose Service asks for another protocol than the Eip are not counted.
    ``waiting``: VIPs that have a next hop and are not yet served by the planned protocol, or are still also served by
    the other one. ``lost``: why sessions were lost. ``generation``: of the checked object, for observedGeneration.
    """
    of_eip = [vip for vip in vips if vip.protocol is eip.protocol]
    modes = [on_wire[vip.address].mode if vip.address in on_wire else Mode.NONE for vip in of_eip]
    count = {mode.value: modes.count(mode) for mode in Mode}
    active = [mode.value for mode in (Mode.BGP, Mode.LAYER2) if count[mode.value]]
    served = active[0] if len(active) == 1 else MIXED if active else Mode.NONE.value
    waiting = sum(
        bool(vip.next_hops) and (mode is not vip.mode.mode or vip.mode.overlap_until > 0)
        for vip, mode in zip(of_eip, modes, strict=True)
    )
    before = old if isinstance(old, Mapping) else {}
    cause, reason = _reason(eip, served, of_eip, lost)
    record: dict[str, Any] = {
        "protocol": eip.protocol.value,
        "served": served,
        "since": before.get("since") or now,
        "cause": cause.value,
        "reason": reason,
        "vips": count,
        "waiting": waiting,
    }
    history = [entry for entry in before.get("history") or () if isinstance(entry, Mapping)]
    if before.get("served", served) != served:
        record["since"] = now
        # Adding the first address of a pool, or removing the last one, is not a change of mode.
        if of_eip and (before["served"] != Mode.NONE.value or history):
            change = {"time": now, "before": before["served"], "after": served, "cause": cause.value, "reason": reason}
            history = _joined(change, history)
    elif before.get("protocol") == Protocol.AUTO.value == eip.protocol.value and _same_story(served, of_eip):
        if not lost:
            # Restarted replicas do not know why sessions were lost; the recorded reason stays true
            record["reason"] = before.get("reason") or record["reason"]
        elif history and history[0].get("after") == served and _shortly(history[0], {"time": now}):
            # Other replicas reported their losses shortly after the change
            history[0] = {**history[0], "reason": record["reason"]}
    if history:
        record["history"] = [dict(entry) for entry in history[:HISTORY]]
    if generation:
        record["observedGeneration"] = generation
    return record


def _joined(change: dict[str, Any], history: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """The history with one more change; a short unconfirmed state in between is omitted."""
    last = history[0] if history else {}
    if last.get("after") != Mode.NONE.value or last.get("cause") != Cause.UNCONFIRMED or not _shortly(last, change):
        return [change, *history]
    joined = {**change, "before": last.get("before")}
    return [*([joined] if joined["before"] != joined["after"] else []), *history[1:]]


def _shortly(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    try:
        first, second = (datetime.fromisoformat(str(change["time"])) for change in (one, other))
        return abs((second - first).total_seconds()) <= MOMENT
    except (ValueError, KeyError, TypeError):  # others may have written invalid values
        return False


def _same_story(served: str, vips: Sequence[VipPlan]) -> bool:
    """Whether the reason of an unchanged mode stays the same."""
    if served != Mode.LAYER2.value:
        return False
    return not any(vip.mode.phase in (Phase.WAITING, Phase.NARROW) for vip in vips)


def _reason(eip: Eip, served: str, vips: Sequence[VipPlan], lost: str) -> tuple[Cause, str]:
    if not vips:
        return Cause.NO_ADDRESS, "No Service has an address from it."
    if served == Mode.NONE.value:
        problem = next((problem for vip in vips for problem in vip.problems), None)
        if problem is None:
            return Cause.UNCONFIRMED, "The speakers have not confirmed it yet."
        text = f"{problem} {lost}".strip() if problem.reason is Reason.NO_SESSION else str(problem)
        return Cause.NOT_SERVED, text
    if eip.protocol is not Protocol.AUTO:
        text = f"spec.protocol is {eip.protocol.value}."
        if served != eip.protocol.value:
            return Cause.SWITCHING, f"{text} The switch is under way."
        if any(vip.mode.overlap_until for vip in vips):
            return Cause.SWITCHING, f"{text} The previous path stays active for a moment."
        return Cause.PROTOCOL, text
    if served == Mode.BGP.value:
        if any(vip.mode.phase is Phase.NARROW for vip in vips):
            return Cause.RETURNING, "BGP is back, first towards the current Layer 2 next hop."
        return Cause.ESTABLISHED, "An established session carries it."
    if served == MIXED:
        return Cause.MIXED, f"Some VIPs are in bgp, others in layer2. {lost}".strip()
    if any(vip.mode.phase is Phase.WAITING for vip in vips):
        text = "A session that carries it is back. BGP is used once the session has been stable (returnAfter)."
        return Cause.STABILISING, text
    return Cause.NO_SESSION, f"No established session carries it. {lost}".strip()


def loss_sentence(losses: Mapping[tuple[str, str], str]) -> str:
    """``losses``: reasons by (node, peer). Nodes that lost the same peer for the same reason share a sentence."""
    grouped: dict[tuple[str, str], list[str]] = {}
    for (node, peer), reason in sorted(losses.items()):
        if reason:
            grouped.setdefault((peer, reason.strip().rstrip(".")), []).append(node)
    shown = [f"{', '.join(nodes)} lost {peer}: {reason}." for (peer, reason), nodes in grouped.items()]
    return " ".join(shown[:3]) + (f" And {len(shown) - 3} more." if len(shown) > 3 else "")
