"""The text interface of ExaBGP: configuration, command lines, events. Text and values only; edge/bgp has the pipes.

Written for ExaBGP 5.0.15. Its output may contain text from a router (NOTIFICATION messages, RFC 9003 shutdown texts):
every field is checked and cut to a maximum length. A line that cannot be parsed becomes a value, never an exception.
"""

from porterlb.core.exabgp_text.commands import (
    HEARTBEAT,
    MAX_PREFIXES,
    RELOAD,
    SHOW_NEIGHBORS,
    VERSION,
    announce,
    clear,
    end_of_rib,
    teardown,
    withdraw,
)
from porterlb.core.exabgp_text.configuration import configuration
from porterlb.core.exabgp_text.events import (
    Ack,
    Down,
    Fsm,
    Notification,
    Opened,
    Other,
    Said,
    Shown,
    Stopping,
    Up,
    parse,
)
from porterlb.core.exabgp_text.reasons import loss, rejection
from porterlb.core.exabgp_text.words import PROCESS, Unspeakable, clean

__all__ = [
    "HEARTBEAT",
    "MAX_PREFIXES",
    "PROCESS",
    "RELOAD",
    "SHOW_NEIGHBORS",
    "VERSION",
    "Ack",
    "Down",
    "Fsm",
    "Notification",
    "Opened",
    "Other",
    "Said",
    "Shown",
    "Stopping",
    "Unspeakable",
    "Up",
    "announce",
    "clean",
    "clear",
    "configuration",
    "end_of_rib",
    "loss",
    "parse",
    "rejection",
    "teardown",
    "withdraw",
]
