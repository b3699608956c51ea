"""Why a session was lost or a command refused: messages of ExaBGP as values."""

from __future__ import annotations

import re
from collections.abc import Iterable

from porterlb.core.bgp.reasons import Loss, LossKind
from porterlb.core.exabgp_text.events import Down, Notification
from porterlb.core.exabgp_text.words import PROCESS, clean

_NUMBERS = re.compile(r"notification (sent|received) \((\d+),(\d+)\)")
_CAUSES = (  # texts of the operating system or of ExaBGP, in lower case; the first match counts
    (("econnreset", "errno 104", "reset by peer"), LossKind.RESET),
    (("closed by the remote end",), LossKind.CLOSED),
    (("etimedout", "errno 110", "ehostunreach", "errno 113", "enetunreach", "errno 101"), LossKind.TIMED_OUT),
    (("econnrefused", "errno 111"), LossKind.REFUSED),
)
_BEGINNINGS = (
    ("closing connection", LossKind.CONNECTION),
    ("graceful restart", LossKind.RECONFIGURED),
    ("stop, message", LossKind.REMOVED),
)


def loss(down: Down, notification: Notification | None) -> Loss:
    """Why a session, or an attempt to open one, ended.

    Args:
        down: ExaBGP's event for the end of the session.
        notification: the last NOTIFICATION of that peer since the session came up, if any.
    """
    if match := _NUMBERS.match(down.reason):
        code, subcode, local = int(match[2]), int(match[3]), match[1] == "sent"
        text = ""
        if not local and notification is not None and (notification.code, notification.subcode) == (code, subcode):
            text = notification.message
        return Loss(LossKind.NOTIFICATION, code, subcode, text, local)
    reason = down.reason.lower()
    for words, kind in _CAUSES:
        if any(word in reason for word in words):
            return Loss(kind)
    for beginning, kind in _BEGINNINGS:
        if reason.startswith(beginning):
            return Loss(kind, local=kind is not LossKind.CONNECTION)
    return Loss(LossKind.OTHER, text=down.reason)


_LOG_REASON = re.compile(r"reason: (.*)$")
_LOG_PROBLEM = re.compile(rf"async \| {PROCESS} \| (?!problem with function)(.+)$")
_LOG_FAILURE = re.compile(r"((?:command could not parse|no neighbor matching|route not found|issue parsing).*)$")


def rejection(log_lines: Iterable[str]) -> str:
    """Why the last command failed, from the log lines since then: the message of ExaBGP, or empty."""
    found = ""
    for line in log_lines:
        if match := _LOG_REASON.search(line) or _LOG_PROBLEM.search(line):
            return clean(match[1])
        if match := _LOG_FAILURE.search(line):
            found = found or clean(match[1])
    return found
