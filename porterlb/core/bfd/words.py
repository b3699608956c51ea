"""BFD states, diagnostics and obstacles as sentences. Only this module makes these sentences."""

from __future__ import annotations

from collections.abc import Mapping

from porterlb.core.bfd.values import BfdSession, BfdState, Diagnostic, Obstacle, ObstacleKind

STATES: Mapping[BfdState, str] = {
    BfdState.ADMIN_DOWN: "AdminDown",
    BfdState.DOWN: "Down",
    BfdState.INIT: "Init",
    BfdState.UP: "Up",
}
"""Names of the states in status fields."""

_DIAGNOSTICS = {  # RFC 5880, 4.1
    Diagnostic.NONE: "no diagnostic",
    Diagnostic.DETECTION_EXPIRED: "control detection time expired",
    Diagnostic.ECHO_FAILED: "echo function failed",
    Diagnostic.NEIGHBOR_DOWN: "neighbor signaled session down",
    Diagnostic.FORWARDING_RESET: "forwarding plane reset",
    Diagnostic.PATH_DOWN: "path down",
    Diagnostic.CONCATENATED_DOWN: "concatenated path down",
    Diagnostic.ADMIN_DOWN: "administratively down",
    Diagnostic.REVERSE_CONCATENATED_DOWN: "reverse concatenated path down",
}


def diagnostic(code: int) -> str:
    """A diagnostic as text: ``control detection time expired (1)``."""
    known = code in Diagnostic.__members__.values()
    return f"{_DIAGNOSTICS[Diagnostic(code)] if known else 'unknown diagnostic'} ({code})"


def failure(code: int) -> str:
    """Why a BGP session was ended because of BFD."""
    if code == Diagnostic.DETECTION_EXPIRED:
        return "BFD received no packet from the router within the detection time: the session was ended."
    return f"BFD went down, {diagnostic(code)}: the session was ended."


def obstacle(of: Obstacle) -> str:
    """Why BFD is not possible."""
    match of.kind:
        case ObstacleKind.PORT_TAKEN:
            return (
                f"BFD is not possible: another process on the node uses UDP port {of.port}. Stop the BFD of that "
                "process, or remove spec.bfd."
            )
        case ObstacleKind.NO_ROUTE:
            return "BFD is not possible yet: the node has no route to the router."
        case ObstacleKind.ADDRESS_ABSENT:
            return "BFD is not possible: the node does not have the address in spec.transport.localAddress."
        case ObstacleKind.NOT_RUNNING:
            return f"BFD is not possible: the BFD process does not run ({of.text}). PorterLB starts it again."
        case ObstacleKind.OTHER:
            return f"BFD is not possible: {of.text}."


def sentence(session: BfdSession | None) -> str:
    """Why BFD is not up; empty while it is."""
    if session is None:
        return "BFD has not started yet."
    if session.obstacle is not None:
        return obstacle(session.obstacle)
    if session.state is BfdState.UP:
        return ""
    if session.state is BfdState.ADMIN_DOWN:
        return "BFD is administratively down on this node."
    if session.heard and session.remote_state is BfdState.ADMIN_DOWN:
        return "BFD is administratively down on the router."
    if not session.heard:
        return "BFD is not up: the router has not sent a BFD packet."
    if session.diagnostic == Diagnostic.NONE:
        return "BFD is not up yet."
    return f"BFD is down: {diagnostic(session.diagnostic)}."
