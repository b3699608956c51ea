"""History entries as sentences and as JSON values. Only this module makes these sentences."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from porterlb.core.history.entries import Entry, What, Why
from porterlb.core.model import Address

NAMED = 5
"""Maximum number of VIPs named in a sentence; of the rest it gives the number."""

_WHY: Mapping[Why, str] = {
    Why.NODE_DEAD: "{cause} does not answer probes",
    Why.NODE_BACK: "{cause} answers probes again",
    Why.NODE_DRAINS: "{cause} is being drained",
    Why.NODE_UNDRAINED: "{cause} is in service again",
    Why.NODE_UNUSABLE: "{cause} is not usable for load balancing",
    Why.REPLICA_SILENT: "the replica on {cause} is not heard",
    Why.ENDPOINTS: "the ready endpoints have changed",
    Why.ANNOUNCED: "more of its next hops are announced",
    Why.SESSION_LOST: "no established session carries it",
    Why.SESSION_BACK: "an established session carries it again",
    Why.PROTOCOL: "the protocol was changed",
    Why.PLAN: "the order of the next hops has changed",
}

_PLAIN: Mapping[What, str] = {
    What.NODE_DEAD: "Node {subject} does not answer probes.",
    What.NODE_BACK: "Node {subject} answers probes again.",
    What.NODE_DRAINS: "Node {subject} is being drained.",
    What.NODE_UNDRAINED: "Node {subject} is in service again after a drain.",
    What.REPLICA_SILENT: "The replica on {subject} is not heard.",
    What.REPLICA_BACK: "The replica on {subject} is heard.",
    What.SESSION_UP: "{cause} has a session with {subject}.",
    What.SESSION_DOWN: "{cause} lost its session with {subject}: {detail}.",
    What.BFD_UP: "BFD between {cause} and {subject} is up.",
    What.BFD_DOWN: "BFD between {cause} and {subject} is no longer up: {detail}.",
    What.LEADER: "The leader is {after}; before it was {before}{why}.",
    What.CONFLICT: "A foreign host ({detail}) claims {vips}.",
    What.CONFLICT_OVER: "The foreign host ({detail}) no longer claims {vips}.",
    What.DOUBT: "{subject} hears no other host, and changes nothing until it does.",
    What.DOUBT_OVER: "{subject} hears other hosts again.",
    What.API_AWAY: "The API is unavailable: {detail}",
    What.API_BACK: "The API is available again.",
    What.NOTICED: "{detail}",
    What.NOTICE_OVER: "No longer the case: {detail}",
    What.PODS_MARKED: "Node {subject} is dead: {detail} of its pods were marked not ready.",
    What.PODS_RESTORED: "Node {subject} lives: {detail} of its pods that were still marked not ready were restored.",
    What.VIP_SERVED: "{vips}: served by {detail} on {after}.",
    What.VIP_NOT_SERVED: "{vips}: no longer served. {detail}",
    What.VIP_MOVED: "{vips}: moved from {before} to {after} ({detail}){why}.",
    What.VIP_MODE: "{vips}: mode {detail}, next hops {before} to {after}{why}.",
}


def sentence(entry: Entry) -> str:
    """What happened, in one sentence."""
    why = _WHY.get(entry.why, "").format(cause=entry.cause)
    text = _PLAIN[entry.what].format(
        subject=entry.subject,
        cause=entry.cause,
        detail=entry.detail.rstrip("."),
        before=_names(entry.before),
        after=_names(entry.after),
        vips=addresses(entry.vips),
        why=f", because {why}" if why else "",
    )
    return text.strip() if text.strip().endswith(".") else f"{text.strip()}."


def addresses(vips: Sequence[Address]) -> str:
    """The first NAMED addresses, and the number of further ones."""
    more = len(vips) - NAMED
    named = ", ".join(map(str, vips[:NAMED]))
    return f"{named} and {more} more" if more > 0 else named


def _names(names: Iterable[str]) -> str:
    return ", ".join(names) or "nobody"


def as_json(entry: Entry) -> dict[str, Any]:
    """The stable JSON form of an entry in /state and in ``porterlb history -o json``."""
    return {
        "time": entry.time,
        "what": entry.what.value,
        "subject": entry.subject,
        "before": list(entry.before),
        "after": list(entry.after),
        "why": entry.why.value,
        "cause": entry.cause,
        "detail": entry.detail,
        "count": len(entry.vips),
        "vips": [str(address) for address in entry.vips],
        "message": sentence(entry),
    }
