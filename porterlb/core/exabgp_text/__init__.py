"""What ExaBGP is told and what it says: configuration, command lines, events. Text in, values out; no pipe in sight.

Written against ExaBGP 5.0.15. What it says may have come from a router (NOTIFICATION messages, RFC 9003 shutdown
texts): every field is checked and cut, and a line that is not understood is a value too, never an exception.
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
