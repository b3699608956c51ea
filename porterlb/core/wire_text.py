"""The messages between the manager and its wire process: one JSON object per line, in both directions.

To the wire process: ``config`` once and first (the hello key is sent here, never in argv or the environment), then
``state`` (all small values, complete), ``vips`` (differences in pieces: a change of 10,000 VIPs must not delay an
answer), ``applied`` (the set is complete up to here), ``record`` (request for the recording), ``ask`` (ask the segment
which host answers for these VIPs), ``beat`` and ``stop``. To the manager: ``report`` with the fields of WireReport that
changed, complete except ``answering``, which has changed VIPs only; ``recorded`` and ``streamed`` with a piece of the
recording, which is lines of JSON; ``answers``, the reply to ``ask`` with the same number.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from ipaddress import ip_address, ip_interface
from typing import Any

from porterlb.core.desired import DesiredWire, Layer2Scope, Layer2Vip
from porterlb.core.layer2 import inquiry
from porterlb.core.layer2.inquiry import Outcome
from porterlb.core.model import Address, Member
from porterlb.core.observed import AddressConflict, Answering, FreshReplica, Nic, Notice, NoticeKind, Votes

PIECE = 40
"""VIPs in one ``vips`` message: the wire process takes them over in about half a millisecond."""


@dataclass(frozen=True, slots=True)
class WireConfig:
    """The manager's settings that the wire process needs; seconds. ``key``: of the hellos, at least 16 bytes.

    ``record_ring``: bytes of the recording that is kept in memory, 0: none; ``record_stream``: whether the complete
    recording is sent to the manager. ``heard``: nodes whose replicas earlier wire processes of this manager heard.
    """

    node: str
    key: bytes = field(repr=False)
    hello_address: str = ""  # empty: every address
    hello_port: int = 7473
    hello_interval: float = 0.05
    hello_fresh: float = 0.2
    probe_interval: float = 0.05
    probe_misses: int = 3
    gratuitous_rate: int = 2000
    silence_after: float = 10.0
    record_ring: int = 0
    record_stream: bool = False
    heard: tuple[str, ...] = ()


def line(message: Mapping[str, Any]) -> bytes:
    return json.dumps(message, separators=(",", ":")).encode() + b"\n"


def config_line(config: WireConfig) -> bytes:
    return line({"t": "config", **asdict(config), "key": config.key.hex()})


def read_config(message: Mapping[str, Any]) -> WireConfig:
    values = {name: value for name, value in message.items() if name != "t"}
    return WireConfig(**{**values, "key": bytes.fromhex(values["key"]), "heard": tuple(values.get("heard", ()))})


def state_line(wanted: DesiredWire) -> bytes:
    """The complete desired state except its VIPs and its digest."""
    members = {
        name: [m.node, m.address, m.port, m.boot, [str(subnet) for subnet in m.subnets], m.lacks]
        for name, m in wanted.members.items()
    }
    scopes = {
        name: [sorted(scope.nodes), scope.interfaces, scope.strict] for name, scope in sorted(wanted.scopes.items())
    }
    return line(
        {
            "t": "state",
            "members": members,
            "nodes": {name: [str(address) for address in addresses] for name, addresses in wanted.nodes.items()},
            "sessions": sorted(wanted.sessions),
            "hold_downs": sorted(wanted.hold_downs),
            "negotiated": dict(wanted.negotiated),
            "leader": wanted.leader,
            "outage": wanted.outage,
            "applied": wanted.applied,
            "check": sorted(str(address) for address in wanted.check),
            **({"scopes": scopes} if scopes else {}),
            **({"routers": wanted.routers} if wanted.routers else {}),
        }
    )


def read_state(message: Mapping[str, Any]) -> DesiredWire:
    """The desired state from a ``state`` message, without VIPs."""
    return DesiredWire(
        members={
            name: Member(node, address, port, boot, tuple(map(ip_interface, subnets)), lacks=tuple(lacks))
            for name, (node, address, port, boot, subnets, lacks) in message["members"].items()
        },
        nodes={name: tuple(ip_address(text) for text in texts) for name, texts in message["nodes"].items()},
        sessions=frozenset(message["sessions"]),
        hold_downs=frozenset(message["hold_downs"]),
        negotiated=message["negotiated"],
        leader=message["leader"],
        outage=message.get("outage", False),
        applied=message["applied"],
        check=frozenset(ip_address(text) for text in message["check"]),
        scopes={
            name: Layer2Scope(frozenset(nodes), tuple(interfaces), strict)
            for name, (nodes, interfaces, strict) in message.get("scopes", {}).items()
        },
        routers=tuple(message.get("routers", ())),
    )


def vips_line(changed: Iterable[Layer2Vip], gone: Iterable[Address]) -> bytes:
    """If a VIP has takers, they are the fifth element of its row; if it has a scope, the sixth."""
    return line({"t": "vips", "set": [_row(vip) for vip in changed], "del": [str(address) for address in gone]})


def _row(vip: Layer2Vip) -> list[Any]:
    goal = str(vip.can_reach) if vip.can_reach else ""
    row = [str(vip.address), vip.candidates, vip.interface, goal]
    if vip.scope:
        return [*row, vip.takers, vip.scope]
    return [*row, vip.takers] if vip.takers else row


def applied_line(digest: int) -> bytes:
    return line({"t": "applied", "digest": digest})


STOP = line({"t": "stop"})
RECORD = line({"t": "record"})


def ask_line(number: int, addresses: Iterable[Address]) -> bytes:
    return line({"t": "ask", "number": number, "vips": [str(address) for address in addresses]})


def read_ask(message: Mapping[str, Any]) -> list[Address]:
    return [ip_address(text) for text in message["vips"]]


def answers_line(number: int, outcomes: Iterable[Outcome]) -> bytes:
    return line({"t": "answers", "number": number, "outcomes": [inquiry.written(outcome) for outcome in outcomes]})


def read_answers(message: Mapping[str, Any]) -> list[Outcome]:
    return [inquiry.read(row) for row in message["outcomes"]]


RECORDED = 1 << 16
"""Characters of a recording in one message."""


def recorded_lines(texts: Iterable[str]) -> Iterator[bytes]:
    """The requested recording: ``recorded`` messages; the last one is marked as the last."""
    for piece in _pieces(texts):
        yield line({"t": "recorded", "text": piece, "last": False})
    yield line({"t": "recorded", "text": "", "last": True})


def streamed_lines(texts: Iterable[str]) -> Iterator[bytes]:
    """Newly recorded lines: ``streamed`` messages."""
    for piece in _pieces(texts):
        yield line({"t": "streamed", "text": piece})


def _pieces(texts: Iterable[str]) -> Iterator[str]:
    """Lines as text of at most RECORDED characters: one line may be several megabytes."""
    waiting, size = [], 0
    for text in texts:
        waiting += [text, "\n"]
        size += len(text) + 1
        if size >= RECORDED:
            whole = "".join(waiting)
            yield from (whole[at : at + RECORDED] for at in range(0, len(whole), RECORDED))
            waiting, size = [], 0
    if waiting:
        yield "".join(waiting)


_WRITE: Mapping[str, Callable[[Any], Any]] = {
    "nics": lambda nics: [[n.name, n.index, n.mac.hex(), n.up, [str(a) for a in n.addresses], n.inner] for n in nics],
    "dead": sorted,
    "dead_on": lambda dead: {subnet: sorted(nodes) for subnet, nodes in sorted(dead.items())},
    "unheard": sorted,
    "votes": lambda votes: {
        node: [sorted(one.voters), sorted(one.silent), sorted(one.heard)] for node, one in sorted(votes.items())
    },
    "probed": sorted,
    "fresh": lambda fresh: [
        {**asdict(f), "sessions": sorted(f.sessions), "dead": sorted(f.dead), "hold_downs": sorted(f.hold_downs)}
        for f in fresh.values()
    ],
    "answering": lambda answering: [[str(vip), a.next_hop, a.answerer] for vip, a in answering.items()],
    "conflicts": lambda conflicts: [[str(r.address), r.mac.hex(), r.seen] for r in conflicts.values()],
    "claimed": lambda claimed: [[str(address), mac.hex()] for address, mac in claimed.items()],
    "askers": lambda askers: {str(vip): dict(counts) for vip, counts in askers.items()},
    "asked": lambda asked: sorted(str(address) for address in asked),
    "clear": lambda clear: sorted(str(address) for address in clear),
    "gateways": lambda gateways: [str(address) for address in gateways],
    "routers": lambda routers: [str(address) for address in routers],
    "notices": lambda notices: [[notice.kind, notice.subject, notice.nodes] for notice in notices],
    "counters": dict,
}
_READ: Mapping[str, Callable[[Any], Any]] = {
    "nics": lambda rows: tuple(
        Nic(name, index, bytes.fromhex(mac), up, tuple(ip_interface(a) for a in addresses), inner)
        for name, index, mac, up, addresses, inner in rows
    ),
    "dead": frozenset,
    "dead_on": lambda rows: {subnet: frozenset(nodes) for subnet, nodes in rows.items()},
    "unheard": frozenset,
    "votes": lambda rows: {node: Votes(*map(frozenset, lists)) for node, lists in rows.items()},
    "probed": frozenset,
    "fresh": lambda rows: {row["node"]: _fresh(row) for row in rows},
    "answering": lambda rows: {ip_address(vip): Answering(next_hop, answerer) for vip, next_hop, answerer in rows},
    "conflicts": lambda rows: {
        ip_address(text): AddressConflict(ip_address(text), bytes.fromhex(mac), seen) for text, mac, seen in rows
    },
    "claimed": lambda rows: {ip_address(text): bytes.fromhex(mac) for text, mac in rows},
    "askers": lambda rows: {ip_address(vip): counts for vip, counts in rows.items()},
    "asked": lambda rows: frozenset(ip_address(text) for text in rows),
    "clear": lambda rows: frozenset(ip_address(text) for text in rows),
    "gateways": lambda rows: tuple(ip_address(text) for text in rows),
    "routers": lambda rows: tuple(ip_address(text) for text in rows),
    "notices": lambda rows: tuple(Notice(NoticeKind(kind), subject, tuple(nodes)) for kind, subject, nodes in rows),
    "counters": dict,
}


def report_line(fields: Mapping[str, Any]) -> bytes:
    """Fields of WireReport, by name. ``answering`` may have text keys."""
    return line({"t": "report", **{name: _WRITE.get(name, _same)(value) for name, value in fields.items()}})


def read_report(message: Mapping[str, Any]) -> dict[str, Any]:
    """The changed fields of WireReport in a ``report`` message."""
    return {name: _READ.get(name, _same)(value) for name, value in message.items() if name != "t"}


def _fresh(row: Mapping[str, Any]) -> FreshReplica:
    sets = {name: frozenset(row[name]) for name in ("sessions", "dead", "hold_downs")}
    return FreshReplica(**{**row, **sets})


def _same(value: Any) -> Any:
    return value
