"""Events: important changes between two versions of a status. Each change is reported once.

They are made from the present status and the required one, so that neither a restart nor a new leader reports an old
change again.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from porterlb.core.model import Mode
from porterlb.core.problems import Reason
from porterlb.core.status import conditions
from porterlb.core.status.conditions import FALSE, TRUE
from porterlb.core.status.mode_record import Cause
from porterlb.core.status.peer import DEGRADED
from porterlb.core.status.reading import entries

Status = Mapping[str, Any]

_WAITING = frozenset({"Pending", "Probing", "NoAddress", "NotYetServed", "Unknown", Reason.NOT_LEADER.value})
"""Reasons of temporary states that end by themselves: they are not reported."""


IN_HISTORY = frozenset({"SessionLost", "SessionEstablished", "ModeChanged"})
"""Reasons that each replica logs from its own history, even without the API: they are not logged a second time."""


@dataclass(frozen=True, slots=True)
class Notice:
    """A future Event. ``warning``: its type is Warning, else Normal."""

    warning: bool
    reason: str
    message: str

    @property
    def type_(self) -> str:
        return "Warning" if self.warning else "Normal"


def service_notices(old: Status | None, new: Status) -> list[Notice]:
    """An address was assigned or refused; it is served or no longer served; a foreign host claims it."""
    found = []
    before, after = _pair(old, new, "AddressAssigned")
    if after.get("status") == TRUE and (before.get("status") != TRUE or _ingress(old) != _ingress(new)):
        found.append(Notice(False, "AddressAssigned", str(after["message"])))
    found += _refused(before, after)
    before, after = _pair(old, new, "Serving")
    turned = before.get("status") != after.get("status")
    if turned and after.get("status") == TRUE:
        found.append(Notice(False, "Serving", str(after["message"])))
    elif turned and before.get("status") == TRUE:
        found.append(Notice(True, "NotServing", str(after["message"])))
    if after.get("reason") == Reason.ADDRESS_CONFLICT and before.get("reason") != Reason.ADDRESS_CONFLICT:
        found.append(Notice(True, Reason.ADDRESS_CONFLICT.value, str(after["message"])))
    return found


def eip_notices(old: Status | None, new: Status) -> list[Notice]:
    """A pool became unusable, nodes cannot serve it in Layer 2, or its mode changed."""
    found = _refused(*_pair(old, new, "Ready")) + _left_out(*_pair(old, new, "Ready"))
    before, after = (((status or {}).get("mode") or {}).get("history") or [] for status in (old, new))
    change = after[0] if after else {}
    # A change that only waits for the speakers is reported together with its result
    known = [_what(entry) for entry in before]  # the reason may become more detailed shortly after
    if change and _what(change) not in known and old and change.get("cause") != Cause.UNCONFIRMED:
        text = f"The mode went from {change['before']} to {change['after']}. {change['reason']}"
        found.append(Notice(change["after"] == Mode.NONE.value, "ModeChanged", text))
    return found


def _left_out(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[Notice]:
    """Nodes lack the interface of a pool, or no node matches its selectors; the pool stays usable."""
    same = (before.get("reason"), before.get("message")) == (after.get("reason"), after.get("message"))
    if same or after.get("status") != TRUE or after.get("reason") not in _LEFT_OUT:
        return []
    return [Notice(True, str(after["reason"]), str(after["message"]))]


_LEFT_OUT = frozenset({Reason.NO_INTERFACE.value, Reason.NO_NODE.value, Reason.NO_REPLICA.value})


def _what(change: Mapping[str, Any]) -> tuple[object, ...]:
    return change.get("time"), change.get("before"), change.get("after")


def object_notices(old: Status | None, new: Status) -> list[Notice]:
    """For a BgpPeer or BgpConf: problems of the object. :func:`session_notices` reports sessions."""
    before, after = _pair(old, new, "Ready")
    return [] if after.get("reason") in (Reason.NO_SESSION, DEGRADED) else _refused(before, after)


def session_notices(node: str, peer: str, old: Status | None, new: Status) -> list[Notice]:
    """Our own session was lost or established."""
    before, after = entries(old).get(node, {}), entries(new).get(node, {})
    if not after:
        return []
    state = after["peerState"]
    where = f"{peer} ({state['neighborAddress']}, AS {state['peerAs']})"
    found = []
    loss = after.get("lastLoss") or {}
    if loss and loss.get("time") != (before.get("lastLoss") or {}).get("time"):
        found.append(Notice(True, "SessionLost", f"{node} lost its session with {where}: {loss['reason']}"))
    was = (before.get("peerState") or {}).get("sessionState")
    if state["sessionState"] == "ESTABLISHED" and was != "ESTABLISHED":
        found.append(Notice(False, "SessionEstablished", f"{node} has a session with {where}."))
    return found


def _pair(old: Status | None, new: Status, type_: str) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
    before = conditions.find(conditions.of(old), type_)
    return before or {}, conditions.find(conditions.of(new), type_) or {}


def _refused(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[Notice]:
    if after.get("status") != FALSE or after.get("reason") in _WAITING:
        return []
    if before.get("status") == FALSE and before.get("reason") == after.get("reason"):
        return []
    return [Notice(True, str(after["reason"]), str(after["message"]))]


def _ingress(status: Status | None) -> list[str]:
    ingress: Iterable[Any] = ((status or {}).get("loadBalancer") or {}).get("ingress") or ()
    return [str(entry.get("ip")) for entry in ingress if isinstance(entry, Mapping)]
