"""Why a session is down, why a peer is left out of ExaBGP, and what is wrong with ExaBGP: values without text.

:mod:`porterlb.core.bgp.words` makes the sentences that users read.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass

from porterlb.core.model import Address

CEASE = 6
HOLD_TIMER_EXPIRED = 4
SEND_HOLD_TIMER_EXPIRED = 8
"""RFC 9687."""
BFD_DOWN = 10
"""Subcode of a cease (RFC 9384)."""
ADMINISTRATIVE = frozenset({2, 4})
"""Subcodes of a cease (RFC 4486): administrative shutdown, administrative reset."""


class TroubleKind(enum.StrEnum):
    """What is wrong with ExaBGP as a whole."""

    NOT_STARTED = "not_started"  # text: error of the operating system
    ENDED = "ended"  # code: its exit code; text: its last output
    KILLED = "killed"  # code: the signal
    HUNG = "hung"
    NO_API = "no_api"
    RELOAD_REFUSED = "reload_refused"  # text: the message of ExaBGP
    RELOAD_FAILED = "reload_failed"  # text: error of the operating system
    NOT_TAKEN = "not_taken"
    PEERS_LOST = "peers_lost"
    STOPPED = "stopped"


@dataclass(frozen=True, slots=True)
class Trouble:
    """``code`` and ``text`` depend on the kind."""

    kind: TroubleKind
    code: int = 0
    text: str = ""

    @property
    def runs(self) -> bool:
        """Whether ExaBGP still runs."""
        return self.kind in (TroubleKind.RELOAD_REFUSED, TroubleKind.RELOAD_FAILED)


class LossKind(enum.StrEnum):
    """How a session, or an attempt to open one, ended."""

    NOTIFICATION = "notification"  # code, subcode, text: the RFC 9003 shutdown text; local: we sent it
    RESET = "reset"
    CLOSED = "closed"
    TIMED_OUT = "timed_out"
    REFUSED = "refused"
    CONNECTION = "connection"  # of TCP, cause unknown
    RECONFIGURED = "reconfigured"
    REMOVED = "removed"
    UNHEARD = "unheard"  # detected later, from ExaBGP's list of sessions
    SPEAKER = "speaker"  # trouble: what is wrong with ExaBGP
    BFD = "bfd"  # code: the diagnostic (RFC 5880, 4.1)
    OTHER = "other"  # text: the message of ExaBGP, possibly empty


_CONNECTION = frozenset({LossKind.RESET, LossKind.CLOSED, LossKind.TIMED_OUT, LossKind.REFUSED, LossKind.CONNECTION})


class LossCategory(enum.StrEnum):
    """The fixed set of classes in which losses are counted."""

    HOLD_TIMER = "hold_timer"
    SHUTDOWN = "shutdown"
    NOTIFICATION = "notification"
    RESET = "reset"
    BFD = "bfd"
    OTHER = "other"


@dataclass(frozen=True, slots=True)
class Loss:
    """The end of a session. ``local``: our side ended it."""

    kind: LossKind
    code: int = 0
    subcode: int = 0
    text: str = ""
    local: bool = False
    trouble: Trouble | None = None

    @property
    def category(self) -> LossCategory:
        if self.kind is LossKind.NOTIFICATION:
            if self.code in (HOLD_TIMER_EXPIRED, SEND_HOLD_TIMER_EXPIRED):
                return LossCategory.HOLD_TIMER
            administrative = self.code == CEASE and self.subcode in ADMINISTRATIVE
            if administrative:
                return LossCategory.SHUTDOWN
            return LossCategory.BFD if (self.code, self.subcode) == (CEASE, BFD_DOWN) else LossCategory.NOTIFICATION
        if self.kind is LossKind.BFD:
            return LossCategory.BFD
        return LossCategory.RESET if self.kind in _CONNECTION else LossCategory.OTHER


def written(loss: Loss | None) -> dict[str, object] | None:
    """A loss as JSON values."""
    if loss is None:
        return None
    return {"kind": loss.kind.value, "code": loss.code, "subcode": loss.subcode, "local": loss.local, "text": loss.text}


def read(value: object) -> Loss | None:
    """Parses the result of :func:`written`; None for anything else. A kind unknown to this release becomes OTHER."""
    if not isinstance(value, Mapping):
        return None
    kind = next((kind for kind in LossKind if kind.value == value.get("kind")), LossKind.OTHER)
    code, subcode = (number if isinstance(number := value.get(name), int) else 0 for name in ("code", "subcode"))
    return Loss(kind, code, subcode, str(value.get("text") or ""), value.get("local") is True)


class RefusalKind(enum.StrEnum):
    """Why a peer is left out of ExaBGP on this node, or why ExaBGP does not listen for it."""

    SAME_ADDRESS = "same_address"  # address; other: the BgpPeer that has it
    ADDRESS_ABSENT = "address_absent"  # address: localAddress
    INTERFACE_ABSENT = "interface_absent"  # other: the interface; address: of the peer, for its IP version
    NO_LISTEN_PORT = "no_listen_port"
    NO_ROUTE = "no_route"  # address: of the peer
    NOT_LISTENING = "not_listening"  # address: ours, not among listenAddresses
    PORT_TAKEN = "port_taken"  # address: ours; port
    PORT_PRIVILEGED = "port_privileged"  # port
    BFD_NOT_UP = "bfd_not_up"  # spec.bfd.strict


@dataclass(frozen=True, slots=True)
class Refusal:
    """The fields depend on the kind."""

    kind: RefusalKind
    address: Address | None = None
    port: int = 0
    other: str = ""
