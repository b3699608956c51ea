"""The output of ExaBGP: acknowledgements, events and answers, one per line."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from ipaddress import IPv4Address, ip_address
from typing import Any

from porterlb.core.bgp.negotiated import Negotiated
from porterlb.core.exabgp_text.words import clean
from porterlb.core.model import Address


@dataclass(frozen=True, slots=True)
class Ack:
    """The end of the answer to a command, in the order of the commands. It does not mean that a route was sent to the
    router, nor that the router accepted it."""

    ok: bool


@dataclass(frozen=True, slots=True)
class Up:
    """The session is established."""

    address: Address


@dataclass(frozen=True, slots=True)
class Opened:
    """The OPEN messages were exchanged: the capabilities of the session, before it is established."""

    address: Address
    negotiated: Negotiated


@dataclass(frozen=True, slots=True)
class Down:
    """The session, or an attempt to open one, ended. ``reason``: the message of ExaBGP."""

    address: Address
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Fsm:
    """A transition of the state machine. ``state``: an RFC 4271 name in lower case."""

    address: Address
    state: str


@dataclass(frozen=True, slots=True)
class Notification:
    """A NOTIFICATION that the peer sent. ``message``: its RFC 9003 shutdown communication, if any."""

    address: Address
    code: int
    subcode: int
    message: str = ""


@dataclass(frozen=True, slots=True)
class Shown:
    """The answer to ``show neighbor json``, by address: RFC 4271 states, seconds established, UPDATEs sent, and for
    established sessions the negotiated capabilities."""

    states: Mapping[Address, str] = field(default_factory=dict)
    duration: Mapping[Address, float] = field(default_factory=dict)
    sent: Mapping[Address, int] = field(default_factory=dict)
    negotiated: Mapping[Address, Negotiated] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Stopping:
    """ExaBGP is about to exit."""


@dataclass(frozen=True, slots=True)
class Other:
    """Anything else; ``text`` for the log."""

    text: str


Said = Ack | Up | Opened | Down | Fsm | Notification | Shown | Stopping | Other

_STATES = frozenset({"idle", "active", "connect", "opensent", "openconfirm", "established"})


def parse(line: bytes) -> Said:
    """One line from ExaBGP. Never raises."""
    if line == b"done":
        return Ack(True)
    if line == b"error":
        return Ack(False)
    text = line.decode("utf-8", "replace")
    if not text.startswith(("{", "[")):
        return Other(clean(text))
    try:
        event = json.loads(text)
        if isinstance(event, list):
            return _shown(event)
        return _event(event) or Other(clean(text))
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return Other(clean(text))


def _event(event: Mapping[str, object]) -> Said | None:
    kind = event["type"]
    if kind == "notification" and event.get("notification") == "shutdown":
        return Stopping()
    neighbor = event["neighbor"]
    if not isinstance(neighbor, dict):
        return None
    address = ip_address(neighbor["address"]["peer"])
    if kind == "state":
        if neighbor["state"] == "up":
            return Up(address)
        if neighbor["state"] == "down":
            return Down(address, clean(str(neighbor.get("reason", ""))))
        return None
    if kind == "negotiated":
        return Opened(address, _negotiated(neighbor["negotiated"]))
    if kind == "fsm":
        state = str(neighbor["state"]).lower()
        return Fsm(address, state) if state in _STATES else None
    if kind == "notification" and neighbor.get("direction") == "receive":
        said = neighbor["notification"]
        code, subcode = int(said["code"]), int(said["subcode"])
        return Notification(address, code, subcode, _shutdown_text(str(said.get("message", ""))))
    return None


_FAMILIES = {"ipv4 unicast": 4, "ipv6 unicast": 6}


def _negotiated(said: Mapping[str, Any]) -> Negotiated:
    return _of(
        _versions(said["families"]),
        _versions(said["add_path"]["send"]),
        int(said["hold_time"]),
        graceful_restart=bool(said.get("graceful_restart")),
        asn4=bool(said["asn4"]),
        route_refresh=said.get("refresh") in ("normal", "enhanced"),
        router_id=_identifier(said.get("peer_id")),
        peer_as=int(said.get("peer_as") or 0),
        extended_next_hop=_EXTENDED in (said.get("nexthop") or ()),
    )


_EXTENDED = "ipv4 unicast ipv6"
"""RFC 8950: IPv6 next hops for IPv4 unicast."""


def _of(families: tuple[int, ...], sends: tuple[int, ...], hold_time: int, **rest: Any) -> Negotiated:
    """``sends``: families that ExaBGP may send with path identifiers; some may not have been negotiated."""
    return Negotiated(families, tuple(v for v in sends if v in families), hold_time, **rest)


def _identifier(said: object) -> str:
    """A BGP identifier (RFC 6286); empty if invalid."""
    try:
        return str(IPv4Address(str(said)))
    except ValueError:
        return ""


def _versions(names: Iterable[object]) -> tuple[int, ...]:
    return tuple(sorted({_FAMILIES[str(name)] for name in names if str(name) in _FAMILIES}))


_ADMIN_TEXT = re.compile(r'Shutdown Communication: "(.*)"', re.DOTALL)
_ADMIN_LONG = re.compile(r"invalid Shutdown Communication \(too large\) length : (\d+) \[([0-9A-Fa-fx ]*)\]")


def _shutdown_text(message: str) -> str:
    """The peer's shutdown text. ExaBGP supports only RFC 8203 (128 octets) and prints longer texts in hexadecimal."""
    if match := _ADMIN_TEXT.match(message):
        return clean(match[1])
    if match := _ADMIN_LONG.match(message):
        try:
            octets = bytes.fromhex(match[2].removeprefix("0x"))
        except ValueError:
            return ""
        return clean(octets[: int(match[1])].decode("utf-8", "replace"))
    return ""


def _shown(peers: Sequence[object]) -> Shown:
    states: dict[Address, str] = {}
    duration: dict[Address, float] = {}
    sent: dict[Address, int] = {}
    negotiated: dict[Address, Negotiated] = {}
    for peer in peers:
        if not isinstance(peer, dict):
            continue
        try:
            address = ip_address(peer["peer"]["address"])
            state = str(peer["fsm"]).lower()
            seconds = float(peer["duration"] or 0) if peer["state"] == "up" else 0.0
            updates = int(peer["messages"]["sent"]["update"])
        except (ValueError, KeyError, TypeError):
            continue
        states[address] = state if state in _STATES else "idle"
        duration[address] = seconds
        sent[address] = updates
        if states[address] == "established":
            with suppress(ValueError, KeyError, TypeError, AttributeError):
                negotiated[address] = _shown_negotiated(peer["local"], peer["peer"], peer["families"])
    return Shown(states, duration, sent, negotiated)


def _shown_negotiated(local: Mapping[str, Any], peer: Mapping[str, Any], names: Iterable[object]) -> Negotiated:
    """``add-path`` of the local side: the families that we may send with path identifiers."""

    def both(name: str) -> bool:
        return bool(local["capabilities"].get(name)) and bool(peer["capabilities"].get(name))

    return _of(
        _versions(names),
        _versions(name for name, on in local["add-path"].items() if on),
        min(int(local["hold"]), int(peer["hold"])),
        graceful_restart=both("graceful-restart"),
        asn4=both("asn4"),
        route_refresh=both("route-refresh"),
        router_id=_identifier(peer.get("id")),
        peer_as=int(peer.get("as") or 0),
        extended_next_hop=both("nexthop"),
    )
