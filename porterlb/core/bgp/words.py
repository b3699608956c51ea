"""Reasons of the BGP speaker as sentences. Only this module makes these sentences."""

from __future__ import annotations

from porterlb.core.bfd import words as bfd_words
from porterlb.core.bgp.negotiated import Negotiated
from porterlb.core.bgp.reasons import (
    HOLD_TIMER_EXPIRED,
    SEND_HOLD_TIMER_EXPIRED,
    Loss,
    LossKind,
    Refusal,
    RefusalKind,
    Trouble,
    TroubleKind,
)
from porterlb.core.desired import SessionConfig
from porterlb.core.observed import SessionState
from porterlb.core.scope import scope_of
from porterlb.core.sentences import families

_CODES = {
    1: "message header error",
    2: "OPEN message error",
    3: "UPDATE message error",
    4: "hold timer expired",
    5: "finite state machine error",
    6: "cease",
    7: "ROUTE-REFRESH message error",
    8: "send hold timer expired",
}
_SUBCODES = {  # RFC 4271, 4486, 5492, 6608, 7313, 8538, 9384, 9687
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


def notification(code: int, subcode: int, text: str = "") -> str:
    """A NOTIFICATION's code and subcode: ``cease, administrative shutdown (6/2): "text"``."""
    words = _CODES.get(code, "unknown error")
    if detail := _SUBCODES.get((code, subcode)):
        words = f"{words}, {detail}"
    words = f"{words} ({code}/{subcode})"
    return f'{words}: "{text}"' if text else words


_LOSSES = {
    LossKind.RESET: "The TCP connection was reset by the peer.",
    LossKind.CLOSED: "The TCP connection was closed by the peer without a NOTIFICATION.",
    LossKind.TIMED_OUT: "The TCP connection timed out: the peer cannot be reached.",
    LossKind.REFUSED: "The TCP connection was refused: no BGP router listens there.",
    LossKind.CONNECTION: "The TCP connection was lost.",
    LossKind.RECONFIGURED: "PorterLB ended the session (configuration changed); graceful restart keeps the routes.",
    LossKind.REMOVED: "PorterLB ended the session (peer removed, changed or stopping).",
    LossKind.UNHEARD: "The session was lost while nobody listened.",
}


def loss(of: Loss | None) -> str:
    """Why a session was lost; empty for None."""
    if of is None:
        return ""
    if of.kind is LossKind.NOTIFICATION:
        if of.local and of.code == HOLD_TIMER_EXPIRED:
            return "Hold timer expired: nothing was heard from the peer (4/0)."
        if of.local and of.code == SEND_HOLD_TIMER_EXPIRED:
            return (
                "Send hold timer expired: the peer did not read what was sent to it for twice the hold time (8/0). "
                "Check the router: its BGP process is stuck or overloaded."
            )
        sender = "We" if of.local else "The peer"
        return f"{sender} sent NOTIFICATION {notification(of.code, of.subcode, of.text)}."
    if of.kind is LossKind.BFD:
        return bfd_words.failure(of.code)
    if of.kind is LossKind.SPEAKER and of.trouble is not None:
        return trouble(of.trouble)
    if of.kind is LossKind.OTHER and of.text:
        return f"ExaBGP ended the session: {of.text.rstrip('.')}."
    return _LOSSES.get(of.kind, "The session ended, ExaBGP does not say why.")


def why_down(session: SessionState) -> str:
    """Why there is no session: the refusal, else the answer to the last attempt, else the reason of the loss."""
    if session.refusal is not None:
        bfd = bfd_words.sentence(session.bfd) if session.refusal.kind is RefusalKind.BFD_NOT_UP else ""
        return f"{refusal(session.refusal)} {bfd}".strip()
    attempt = session.attempt
    if attempt is not None and (attempt.kind is LossKind.NOTIFICATION or session.loss is None):
        return loss(attempt)
    return loss(session.loss)


def trouble(of: Trouble | None) -> str:
    """The problem with ExaBGP; empty for None."""
    if of is None:
        return ""
    match of.kind:
        case TroubleKind.NOT_STARTED:
            return f"ExaBGP could not be started: {of.text}. PorterLB tries again."
        case TroubleKind.ENDED:
            return f"ExaBGP ended with code {of.code}{': ' + of.text if of.text else ''}."
        case TroubleKind.KILLED:
            return f"ExaBGP was killed by signal {of.code}."
        case TroubleKind.HUNG:
            return "ExaBGP does not answer: it was killed and started again."
        case TroubleKind.NO_API:
            return "ExaBGP did not start its API process."
        case TroubleKind.RELOAD_REFUSED:
            return f"ExaBGP refuses the new peers; the old ones stay: {of.text}"
        case TroubleKind.RELOAD_FAILED:
            return f"ExaBGP cannot be given the new peers. The old ones stay, and PorterLB tries again: {of.text}."
        case TroubleKind.NOT_TAKEN:
            return "ExaBGP did not take the new configuration: it was started again."
        case TroubleKind.PEERS_LOST:
            return "ExaBGP lost peers with its API process: it was started again."
        case TroubleKind.STOPPED:
            return "ExaBGP was stopped."


def withheld(limit: int) -> str:
    """Why the guard does not announce a route."""
    return f"spec.maxPrefixesSent is {limit}, and as many prefixes are announced already"


def overflow(limit: int, count: int) -> str:
    """What the guard withholds from a peer: ``count`` prefixes."""
    noun = "prefix is" if count == 1 else "prefixes are"
    return f"spec.maxPrefixesSent is {limit}: {count} more {noun} not announced by this node."


def lacks(config: SessionConfig, agreed: Negotiated) -> str:
    """What was configured but not negotiated, and the consequences; empty: nothing."""
    found = []
    missing = [version for version in config.families if version not in agreed.families]
    if missing:
        names = families(missing)
        found.append(f"The router did not negotiate {names}: it gets no {names} routes.")
    single = [version for version in agreed.families if version not in agreed.add_path] if config.add_path else []
    if single:
        names = families(single)
        found.append(
            f"The router did not negotiate add-path (sendMax) for {names}: each node announces one next hop to it."
        )
    return " ".join(found)


def refusal(of: Refusal | None) -> str:
    """Why a peer is left out, or why ExaBGP does not listen for it; empty for None."""
    if of is None:
        return ""
    match of.kind:
        case RefusalKind.SAME_ADDRESS:
            return f"BgpPeer {of.other} has the same address {of.address}: remove one."
        case RefusalKind.ADDRESS_ABSENT:
            return f"The node does not have the address {of.address} (spec.transport.localAddress)."
        case RefusalKind.INTERFACE_ABSENT:
            version = of.address.version if of.address is not None else 4
            if scope_of(of.address):
                return (
                    f"The node has no interface {of.other} with an IPv6 link-local address: add it, switch on IPv6 "
                    "there, or correct the interface of the BgpPeer."
                )
            return (
                f"The node has no interface {of.other} with an IPv{version} address: add it, or correct the interface "
                "of the BgpPeer."
            )
        case RefusalKind.NO_LISTEN_PORT:
            return "passiveMode needs spec.listenPort of the BgpConf default."
        case RefusalKind.NO_ROUTE:
            return f"passiveMode needs a route to {of.address} to find the address to listen on; there is none yet."
        case RefusalKind.NOT_LISTENING:
            return f"passiveMode needs {of.address} among listenAddresses of the BgpConf."
        case RefusalKind.PORT_TAKEN:
            return (
                f"Another process listens on {of.address} port {of.port}: stop it, or set another listenPort in the "
                "BgpConf."
            )
        case RefusalKind.BFD_NOT_UP:
            return "spec.bfd.strict is set: the BGP session waits until BFD is up."
        case RefusalKind.PORT_PRIVILEGED:
            return (
                f"PorterLB may not listen on port {of.port}: set bgp.listenOnPrivilegedPort=true in the chart's values "
                "(capability NET_BIND_SERVICE), or a listenPort of 1024 or more in the BgpConf."
            )
