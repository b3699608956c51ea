"""What ExaBGP is told and what it says: configuration, command lines, events. Text in, values out; no pipe in sight.

Written against ExaBGP 5.0.15. What it says may have come from a router (NOTIFICATION messages, RFC 9003 shutdown
texts): every field is checked and cut, and a line that is not understood is a value too, never an exception.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from ipaddress import ip_address

from porterlb.core.model import Address, Network
from porterlb.core.wanted import Neighbor, Path

PROCESS = "porterlb"
"""The name of the API process in the configuration."""

MAX_PREFIXES = 48
"""Prefixes in one command line: ExaBGP does 50 steps of queued work per turn, one a prefix. More of them in a line,
or a second line outstanding, make it sleep between turns: 0.74 s for 10,000 routes become 2.7 s or more."""

MAX_PASSWORD = 80  # bytes; TCP_MD5SIG_MAXKEYLEN
BGP_PORT = 179
_NAME = re.compile(r"[a-z][a-z0-9-]{1,40}")  # no-export, blackhole ...
_TEXT_LIMIT = 300  # characters of anything that a peer had a hand in; RFC 9003 allows 255 octets


class Unspeakable(ValueError):
    """A route or neighbor that cannot be said to ExaBGP. The message is a sentence for the user."""


# --- configuration ---------------------------------------------------------------------------------------------------


def refused(neighbors: Mapping[str, Neighbor]) -> dict[str, str]:
    """Peers that must stay out of the configuration, with the reason; one wrong peer would make ExaBGP refuse all.

    Peers that are ``admin_down`` are left out as well, but are not a refusal.
    """
    result: dict[str, str] = {}
    taken: dict[Address, str] = {}
    for name in sorted(neighbors):
        neighbor = neighbors[name]
        if neighbor.admin_down:
            continue
        if neighbor.address in taken:
            result[name] = f"BgpPeer {taken[neighbor.address]} has the same address {neighbor.address}: remove one."
        elif len(neighbor.password.encode()) > MAX_PASSWORD:
            result[name] = f"The password is longer than {MAX_PASSWORD} bytes, which TCP MD5 (RFC 2385) does not allow."
        elif neighbor.hold_time and neighbor.hold_time < 3:
            result[name] = f"A hold time of {neighbor.hold_time} s is not allowed: 0, or 3 s and more (RFC 4271)."
        elif not neighbor.families:
            result[name] = "No address family is left to announce: set afiSafis to ipv4, ipv6 or both."
        elif neighbor.local_address is not None and neighbor.local_address.version != neighbor.address.version:
            result[name] = f"localAddress {neighbor.local_address} and {neighbor.address} are of different IP versions."
        else:
            taken[neighbor.address] = name
    return result


def configuration(neighbors: Iterable[Neighbor], run: Sequence[str], listen: Mapping[str, int]) -> str:
    """The text of exabgp.conf. It may hold passwords: mode 0600.

    Args:
        neighbors: those to configure; see :func:`refused`.
        run: the API process, argv; the program as an absolute path.
        listen: by peer name, the TCP port to listen on for it; such a neighbor must have a local address.
    """
    words = " ".join(_quoted(word) for word in run)
    parts = [f"process {PROCESS} {{\n    run {words};\n    encoder json;\n}}\n"]
    for neighbor in sorted(neighbors, key=lambda n: (n.address.version, n.address)):
        parts.append(_neighbor(neighbor, listen.get(neighbor.peer, 0)))
    return "\n".join(parts)


def _neighbor(n: Neighbor, listen: int) -> str:
    if listen and n.local_address is None:
        raise Unspeakable(f"BgpPeer {n.peer} cannot be listened for without a local address.")
    lines = [
        f"router-id {n.router_id};",
        f"local-address {n.local_address if n.local_address is not None else 'auto'};",
        f"local-as {n.local_as};",
        f"peer-as {n.peer_as};",
        f"hold-time {n.hold_time};",
    ]
    if n.remote_port != BGP_PORT:
        lines.append(f"connect {n.remote_port};")
    if n.passive:
        lines.append("passive true;")
    if listen:
        lines.append(f"listen {listen};")
    if n.multihop_ttl:
        lines.append(f"outgoing-ttl {n.multihop_ttl};")
    if n.password:
        # Base64 because ExaBGP's syntax cannot quote every character that a password may have.
        encoded = base64.b64encode(n.password.encode()).decode()
        lines += ["md5-base64 true;", f"md5-password {encoded};"]
    families = [f"ipv{version} unicast;" for version in (4, 6) if version in n.families]
    capability = ["asn4 enable;", "route-refresh enable;"]
    if n.graceful_restart:
        capability.append(f"graceful-restart {n.graceful_restart};")
    if n.add_path:
        capability.append("add-path send;")
    lines += [
        "group-updates true;",
        "auto-flush true;",
        "adj-rib-out true;",  # ExaBGP itself sends everything again after a session flap, and at a route refresh
        "adj-rib-in false;",  # what peers send is never used
        # The automatic End-of-RIB goes out before the first route: under graceful restart a black hole.
        "manual-eor true;",
        f"capability {{ {' '.join(capability)} }}",
        f"family {{ {' '.join(families)} }}",
    ]
    if n.add_path:
        lines.append(f"add-path {{ {' '.join(families)} }}")
    lines.append(f"api {{ processes [ {PROCESS} ]; neighbor-changes; fsm; receive {{ parsed; notification; }} }}")
    body = "\n".join(f"    {line}" for line in lines)
    return f"neighbor {n.address} {{\n{body}\n}}\n"


def _quoted(word: str) -> str:
    if '"' in word or "\\" in word or "\n" in word:
        raise Unspeakable(f"ExaBGP cannot run a program with this in its path or arguments: {word!r}")
    return f'"{word}"'


# --- commands --------------------------------------------------------------------------------------------------------

VERSION = "version"
RELOAD = "reload"
SHOW_NEIGHBORS = "show neighbor json"
HEARTBEAT = "# beat"
"""A comment: ExaBGP acknowledges it and does nothing."""


def announce(neighbor: Neighbor, path: Path, prefixes: Sequence[Network]) -> str:
    """One line that announces up to MAX_PREFIXES prefixes of one IP version with one set of attributes.

    The next hop is always written out: ``self`` would put the router ID into IPv4 routes on an IPv6 session.
    LOCAL_PREF goes to iBGP peers only (RFC 4271, 5.1.5), and an AS path is prepended for eBGP peers only: an iBGP
    peer would see its own AS in it, a loop. Raises Unspeakable for what ExaBGP would misread or announce wrongly.
    """
    words = _head(neighbor, path, prefixes, "announce")
    attributes = path.attributes
    ibgp = neighbor.local_as == neighbor.peer_as
    if attributes.med is not None:
        words.append(f"med {_number(attributes.med, 2**32 - 1, 'MED')}")
    if attributes.local_pref is not None and ibgp:
        words.append(f"local-preference {_number(attributes.local_pref, 2**32 - 1, 'local preference')}")
    if attributes.prepend and not ibgp:
        # `as-path` replaces the path that ExaBGP would send, so the local AS itself is in it once more.
        times = _number(attributes.prepend, 16, "AS path prepend") + 1
        words.append(f"as-path [ {' '.join([str(neighbor.local_as)] * times)} ]")
    if attributes.communities:
        words.append(f"community [ {' '.join(_tokens(attributes.communities, 2, 0xFFFF))} ]")
    if attributes.large_communities:
        words.append(f"large-community [ {' '.join(_tokens(attributes.large_communities, 3, 0xFFFFFFFF))} ]")
    return " ".join([*words, "nlri", *map(str, prefixes)])


def withdraw(neighbor: Neighbor, path: Path, prefixes: Sequence[Network]) -> str:
    """One line that withdraws up to MAX_PREFIXES prefixes, of this path only where add-path is on."""
    return " ".join([*_head(neighbor, path, prefixes, "withdraw"), "nlri", *map(str, prefixes)])


def clear(neighbor: Neighbor | None = None) -> str:
    """Withdraws everything, from one neighbor or from all."""
    return f"neighbor {neighbor.address} clear adj-rib out" if neighbor is not None else "clear adj-rib out"


def end_of_rib(neighbor: Neighbor, version: int) -> str:
    """The End-of-RIB marker (RFC 4724) of one family."""
    return f"neighbor {neighbor.address} announce eor ipv{version} unicast"


def _head(neighbor: Neighbor, path: Path, prefixes: Sequence[Network], verb: str) -> list[str]:
    if not prefixes or len(prefixes) > MAX_PREFIXES:
        raise ValueError(f"a line has 1 to {MAX_PREFIXES} prefixes, not {len(prefixes)}")
    for prefix in prefixes:
        if prefix.version not in neighbor.families:
            raise Unspeakable(f"BgpPeer {neighbor.peer} has no IPv{prefix.version} family (afiSafis).")
        if prefix.version != path.next_hop.version:
            raise Unspeakable(f"The next hop {path.next_hop} of {prefix} is of another IP version.")
    if path.path_id and not neighbor.add_path:
        raise Unspeakable(f"BgpPeer {neighbor.peer} has no add-path, so it cannot get path {path.path_id}.")
    words = [f"neighbor {neighbor.address} {verb} attributes"]
    if path.path_id:
        words.append(f"path-information {_number(path.path_id, 2**32 - 1, 'path identifier')}")
    words.append(f"next-hop {path.next_hop}")
    return words


def _number(value: int, most: int, what: str) -> int:
    if not 0 <= value <= most:
        raise Unspeakable(f"A {what} of {value} is not possible (0 to {most}).")
    return value


def _tokens(values: Iterable[str], parts: int, most: int) -> list[str]:
    """Communities as numbers with colons (RFC 1997, RFC 8092), or well-known names, which ExaBGP judges."""
    result = list(values)
    for value in result:
        numbers = value.split(":")
        if not (_NAME.fullmatch(value) and parts == 2) and not (
            len(numbers) == parts and all(n.isascii() and n.isdigit() and int(n) <= most for n in numbers)
        ):
            kind = "community" if parts == 2 else "large community"
            raise Unspeakable(f"{clean(value)!r} is not a {kind}: {parts} numbers of 0 to {most}, with colons.")
    return result


# --- what ExaBGP says ------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Ack:
    """The end of the answer to a command. It comes in the order of the commands and means neither sent nor accepted."""

    ok: bool


@dataclass(frozen=True, slots=True)
class Up:
    """The session is established."""

    address: Address


@dataclass(frozen=True, slots=True)
class Down:
    """The session, or an attempt at one, is over. ``reason``: in ExaBGP's words."""

    address: Address
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Fsm:
    """A step of the state machine. ``state``: an RFC 4271 name in lower case."""

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
    """The answer to ``show neighbor json``, by address: RFC 4271 states, seconds established, UPDATEs sent."""

    states: Mapping[Address, str] = field(default_factory=dict)
    duration: Mapping[Address, float] = field(default_factory=dict)
    sent: Mapping[Address, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Stopping:
    """ExaBGP is about to end."""


@dataclass(frozen=True, slots=True)
class Other:
    """Anything else; ``text`` for the log."""

    text: str


Said = Ack | Up | Down | Fsm | Notification | Shown | Stopping | Other

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
    if kind == "fsm":
        state = str(neighbor["state"]).lower()
        return Fsm(address, state) if state in _STATES else None
    if kind == "notification" and neighbor.get("direction") == "receive":
        said = neighbor["notification"]
        code, subcode = int(said["code"]), int(said["subcode"])
        return Notification(address, code, subcode, _shutdown_text(str(said.get("message", ""))))
    return None


_ADMIN_TEXT = re.compile(r'Shutdown Communication: "(.*)"', re.DOTALL)
_ADMIN_LONG = re.compile(r"invalid Shutdown Communication \(too large\) length : (\d+) \[([0-9A-Fa-fx ]*)\]")


def _shutdown_text(message: str) -> str:
    """The peer's own words. ExaBGP knows RFC 8203 (128 octets) only and gives longer ones in hexadecimal."""
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
    return Shown(states, duration, sent)


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


def clean(text: str) -> str:
    """Printable, on one line, and not too long: fit for a log line or a status field."""
    printable = "".join(c if c.isprintable() else " " for c in text).strip()
    return printable if len(printable) <= _TEXT_LIMIT else printable[: _TEXT_LIMIT - 1] + "…"


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
