"""Why a session was lost, or a command refused: codes and log lines as sentences for people."""

from __future__ import annotations

import re
from collections.abc import Iterable

from porterlb.core.exabgp_text.events import Down, Notification
from porterlb.core.exabgp_text.words import PROCESS, clean

_CODES = {
    1: "message header error",
    2: "OPEN message error",
    3: "UPDATE message error",
    4: "hold timer expired",
    5: "finite state machine error",
    6: "cease",
    7: "ROUTE-REFRESH message error",
}
_SUBCODES = {  # RFC 4271, 4486, 5492, 6608, 7313, 8538, 9384
    (1, 1): "connection not synchronized",
    (1, 2): "bad message length",
    (1, 3): "bad message type",
    (2, 1): "unsupported version number",
    (2, 2): "bad peer AS",
    (2, 3): "bad BGP identifier",
    (2, 4): "unsupported optional parameter",
    (2, 6): "unacceptable hold time",
    (2, 7): "unsupported capability",
    (3, 1): "malformed attribute list",
    (3, 2): "unrecognized well-known attribute",
    (3, 3): "missing well-known attribute",
    (3, 4): "attribute flags error",
    (3, 5): "attribute length error",
    (3, 6): "invalid ORIGIN",
    (3, 8): "invalid NEXT_HOP",
    (3, 9): "optional attribute error",
    (3, 10): "invalid network field",
    (3, 11): "malformed AS_PATH",
    (5, 1): "unexpected message in OpenSent",
    (5, 2): "unexpected message in OpenConfirm",
    (5, 3): "unexpected message in Established",
    (6, 1): "maximum number of prefixes reached",
    (6, 2): "administrative shutdown",
    (6, 3): "peer de-configured",
    (6, 4): "administrative reset",
    (6, 5): "connection rejected",
    (6, 6): "other configuration change",
    (6, 7): "connection collision resolution",
    (6, 8): "out of resources",
    (6, 9): "hard reset",
    (6, 10): "BFD down",
    (7, 1): "invalid message length",
}
_NUMBERS = re.compile(r"notification (sent|received) \((\d+),(\d+)\)")


def in_words(code: int, subcode: int, message: str = "") -> str:
    """A NOTIFICATION's code and subcode for people: ``cease, administrative shutdown (6/2): "text"``."""
    words = _CODES.get(code, "unknown error")
    if detail := _SUBCODES.get((code, subcode)):
        words = f"{words}, {detail}"
    words = f"{words} ({code}/{subcode})"
    return f'{words}: "{message}"' if message else words


def loss(down: Down, notification: Notification | None) -> str:
    """Why a session was lost, as a sentence.

    Args:
        down: what ExaBGP says of the end of the session.
        notification: the last NOTIFICATION of that peer since the session came up, if any.
    """
    if match := _NUMBERS.match(down.reason):
        code, subcode = int(match[2]), int(match[3])
        if match[1] == "sent":
            if code == 4:
                return "Hold timer expired: nothing was heard from the peer (4/0)."
            return f"We sent NOTIFICATION {in_words(code, subcode)}."
        message = ""
        if notification is not None and (notification.code, notification.subcode) == (code, subcode):
            message = notification.message
        return f"The peer sent NOTIFICATION {in_words(code, subcode, message)}."
    reason = down.reason.lower()
    if "econnreset" in reason or "errno 104" in reason or "reset by peer" in reason:
        return "The TCP connection was reset by the peer."
    if "closed by the remote end" in reason:
        return "The TCP connection was closed by the peer without a NOTIFICATION."
    if "etimedout" in reason or "errno 110" in reason or "ehostunreach" in reason or "errno 113" in reason:
        return "The TCP connection timed out: the peer cannot be reached."
    if reason.startswith("closing connection"):
        return "The TCP connection was lost."
    if reason.startswith("graceful restart"):
        return "We ended the session (configuration changed); graceful restart keeps the routes."
    if reason.startswith("stop, message"):
        return "We ended the session (peer removed or stopping)."
    return f"ExaBGP ended the session: {down.reason}." if down.reason else "The session ended, ExaBGP does not say why."


_LOG_REASON = re.compile(r"reason: (.*)$")
_LOG_PROBLEM = re.compile(rf"async \| {PROCESS} \| (?!problem with function)(.+)$")
_LOG_FAILURE = re.compile(r"((?:command could not parse|no neighbor matching|route not found|issue parsing).*)$")


def rejection(log_lines: Iterable[str]) -> str:
    """Why the last command failed, from the log lines written since: ExaBGP's own words, or empty."""
    found = ""
    for line in log_lines:
        if match := _LOG_REASON.search(line) or _LOG_PROBLEM.search(line):
            return clean(match[1])
        if match := _LOG_FAILURE.search(line):
            found = found or clean(match[1])
    return found
