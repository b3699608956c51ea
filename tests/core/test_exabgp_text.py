"""Commands to ExaBGP and its messages, without ExaBGP."""

from __future__ import annotations

import json
from dataclasses import replace
from ipaddress import IPv4Address, IPv6Address, ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from porterlb.core import exabgp_text as text
from porterlb.core.bgp import words
from porterlb.core.bgp.negotiated import Negotiated
from porterlb.core.bgp.reasons import Loss, LossKind
from porterlb.core.desired import Path, SessionConfig
from porterlb.core.model import RouteAttributes

PEER = SessionConfig("tor", IPv4Address("10.0.0.1"), 64600, 64500, IPv4Address("10.0.0.9"))
PREFIX = "192.0.2.1/32"
V6 = "2001:db8::1/128"
HOP = ip_address("10.0.0.11")


def configured(neighbor: SessionConfig, listen: int = 0) -> str:
    return text.configuration([neighbor], ["/usr/bin/python3", "api.py"], {"tor": listen} if listen else {})


def test_the_smallest_neighbor() -> None:
    conf = configured(PEER)
    assert 'run "/usr/bin/python3" "api.py";' in conf
    assert "neighbor 10.0.0.1 {" in conf
    for line in (
        "router-id 10.0.0.9;",
        "local-address auto;",
        "local-as 64500;",
        "peer-as 64600;",
        "hold-time 9;",
        "manual-eor true;",
        "adj-rib-in false;",
        "family { ipv4 unicast; ipv6 unicast; }",
        "graceful-restart 30;",
    ):
        assert line in conf
    for word in ("passive", "listen", "md5", "ttl", "connect", "add-path", "keepalive"):
        assert word not in conf


def test_a_checked_ttl_is_sent_as_255() -> None:
    conf = configured(replace(PEER, minimum_ttl=253, multihop_ttl=4))
    assert "incoming-ttl 253;" in conf
    assert "outgoing-ttl 255;" in conf
    assert "outgoing-ttl 4;" in configured(replace(PEER, multihop_ttl=4))


def test_own_timers() -> None:
    conf = configured(replace(PEER, keepalive=1, connect_retry=5))
    assert "    keepalive 1;\n" in conf
    assert "    connect-retry 5;\n" in conf


def test_every_field_of_a_neighbor() -> None:
    full = replace(
        PEER,
        local_address=IPv4Address("10.0.0.9"),
        password="a b\"'#;{}[]\\é",
        multihop_ttl=4,
        hold_time=30,
        passive=True,
        remote_port=1790,
        graceful_restart=0,
        families=(4,),
        add_path=True,
    )
    conf = configured(full, listen=1179)
    for line in (
        "local-address 10.0.0.9;",
        "hold-time 30;",
        "connect 1790;",
        "passive true;",
        "listen 1179;",
        "outgoing-ttl 4;",
        "md5-base64 true;",
        "add-path send;",
        "family { ipv4 unicast; }",
        "add-path { ipv4 unicast; }",
    ):
        assert line in conf
    assert "graceful-restart" not in conf
    assert full.password not in conf


def test_listening_needs_a_local_address() -> None:
    with pytest.raises(text.Unspeakable, match="local address"):
        configured(PEER, listen=179)


def test_commands() -> None:
    path = Path("tor", HOP)
    assert text.announce(PEER, path, [PREFIX]) == (
        "neighbor 10.0.0.1 announce attributes next-hop 10.0.0.11 nlri 192.0.2.1/32"
    )
    assert text.withdraw(PEER, path, [PREFIX, "192.0.2.2/32"]) == (
        "neighbor 10.0.0.1 withdraw attributes next-hop 10.0.0.11 nlri 192.0.2.1/32 192.0.2.2/32"
    )
    rule = RouteAttributes(("64500:1", "no-export"), ("64500:1:2",), 200, 30, 2)
    more = Path("tor", HOP, 3, rule)
    assert text.announce(replace(PEER, add_path=True), more, [PREFIX]) == (
        "neighbor 10.0.0.1 announce attributes path-information 3 next-hop 10.0.0.11 med 30 "
        "as-path [ 64500 64500 64500 ] community [ 64500:1 no-export ] large-community [ 64500:1:2 ] nlri 192.0.2.1/32"
    )
    assert " med 0 " in text.announce(PEER, replace(path, attributes=RouteAttributes(med=0)), [PREFIX])
    inside = replace(PEER, peer_as=64500, add_path=True)
    line = text.announce(inside, more, [PREFIX])
    assert "local-preference 200" in line
    assert "as-path" not in line
    assert text.end_of_rib(PEER, 6) == "neighbor 10.0.0.1 announce eor ipv6 unicast"
    assert text.clear(PEER) == "neighbor 10.0.0.1 clear adj-rib out"


@pytest.mark.parametrize(
    ("neighbor", "path", "prefix", "why"),
    [
        (PEER, Path("tor", HOP), V6, "of another IP version"),
        (replace(PEER, families=(4,)), Path("tor", ip_address("fd00::1")), V6, "no IPv6 family"),
        (PEER, Path("tor", HOP, 1), PREFIX, "no add-path"),
        (PEER, Path("tor", HOP, 0, RouteAttributes(("70000:1",))), PREFIX, "'70000:1' is not a community"),
        (PEER, Path("tor", HOP, 0, RouteAttributes(("1:1 nlri 0.0.0.0/0",))), PREFIX, "is not a community"),
        (PEER, Path("tor", HOP, 0, RouteAttributes((), ("1:2",))), PREFIX, "is not a large community"),
        (PEER, Path("tor", HOP, 0, RouteAttributes(med=-1)), PREFIX, "MED"),
        (PEER, Path("tor", HOP, 0, RouteAttributes(prepend=99)), PREFIX, "prepend"),
    ],
)
def test_what_exabgp_would_misread_is_refused(neighbor: SessionConfig, path: Path, prefix: object, why: str) -> None:
    with pytest.raises(text.Unspeakable, match=why):
        text.announce(neighbor, path, [prefix])  # type: ignore[list-item]


@given(st.text(max_size=40))
def test_a_community_never_breaks_out_of_its_place(value: str) -> None:
    path = Path("tor", HOP, 0, RouteAttributes(communities=(value,)))
    try:
        line = text.announce(PEER, path, [PREFIX])
    except text.Unspeakable:
        return
    assert line.split(" ")[-2:] == ["nlri", "192.0.2.1/32"]
    assert len(line.split(" ")) == 12
    assert line.isascii() and line.isprintable()


WORDS = ["type", "neighbor", "address", "peer", "state", "reason", "notification", "code", "subcode", "fsm", "message"]
WORDS += ["direction", "duration", "messages", "sent", "update"]


def event(**content: object) -> bytes:
    return json.dumps(content).encode()


def about(**content: object) -> dict[str, object]:
    return {"address": {"local": "10.0.0.9", "peer": "10.0.0.1"}, **content}


def test_events() -> None:
    here = PEER.address
    assert text.parse(b"done") == text.Ack(True)
    assert text.parse(b"error") == text.Ack(False)
    assert text.parse(event(type="state", neighbor=about(state="up"))) == text.Up(here)
    assert text.parse(event(type="state", neighbor=about(state="down", reason="x\ny"))) == text.Down(here, "x y")
    assert text.parse(event(type="fsm", neighbor=about(state="OPENSENT"))) == text.Fsm(here, "opensent")
    said = {"code": 6, "subcode": 2, "data": "", "message": 'Shutdown Communication: "at nine"'}
    parsed = text.parse(event(type="notification", neighbor=about(direction="receive", notification=said)))
    assert parsed == text.Notification(here, 6, 2, "at nine")
    assert text.parse(event(type="notification", notification="shutdown")) == text.Stopping()
    opened = {
        "hold_time": 9,
        "asn4": True,
        "families": ["ipv4 unicast", "ipv6 unicast", "l2vpn evpn"],
        "add_path": {"send": ["ipv4 unicast"], "receive": []},
        "graceful_restart": True,
        "refresh": "enhanced",
        "peer_as": 64500,
        "peer_id": "10.0.0.1",
    }
    parsed = text.parse(event(type="negotiated", neighbor=about(negotiated=opened)))
    assert parsed == text.Opened(here, Negotiated((4, 6), (4,), 9, True, True, True, "10.0.0.1", 64500))
    opened |= {"refresh": "absent", "peer_id": "\x1b[2J"}
    parsed = text.parse(event(type="negotiated", neighbor=about(negotiated=opened)))
    assert parsed == text.Opened(here, Negotiated((4, 6), (4,), 9, True, True, False, "", 64500))
    del opened["add_path"]
    assert isinstance(text.parse(event(type="negotiated", neighbor=about(negotiated=opened))), text.Other)


def test_shown_neighbors() -> None:
    peers = [
        {
            "state": "up",
            "duration": 7,
            "fsm": "ESTABLISHED",
            "peer": {"address": "10.0.0.1"},
            "messages": {"sent": {"update": 3}},
        },
        {
            "state": "down",
            "duration": 99,
            "fsm": "IDLE",
            "peer": {"address": "fd00::1"},
            "messages": {"sent": {"update": 0}},
        },
        {"peer": None},
        "nonsense",
    ]
    here, there = PEER.address, IPv6Address("fd00::1")
    assert text.parse(json.dumps(peers).encode()) == text.Shown(
        {here: "established", there: "idle"}, {here: 7.0, there: 0.0}, {here: 3, there: 0}
    )


def test_shown_neighbors_say_what_was_negotiated() -> None:
    both = {"graceful-restart": True, "asn4": True, "route-refresh": True}
    shown = {
        "state": "up",
        "duration": 7,
        "fsm": "ESTABLISHED",
        "local": {"hold": 9, "capabilities": both, "add-path": {"ipv4 unicast": True, "ipv6 unicast": True}},
        "peer": {
            "address": "10.0.0.1",
            "as": 64600,
            "id": "10.0.0.2",
            "hold": 6,
            "capabilities": {**both, "asn4": False},
        },
        "families": ["ipv4 unicast"],
        "messages": {"sent": {"update": 3}},
    }
    parsed = text.parse(json.dumps([shown]).encode())
    assert isinstance(parsed, text.Shown)
    assert parsed.negotiated == {PEER.address: Negotiated((4,), (4,), 6, True, False, True, "10.0.0.2", 64600)}
    shown["fsm"] = "OPENSENT"
    before = text.parse(json.dumps([shown]).encode())
    assert isinstance(before, text.Shown) and not before.negotiated, "nothing is negotiated before it is established"


@given(st.binary(max_size=200))
def test_no_line_raises(line: bytes) -> None:
    text.parse(line)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(WORDS) | st.text(max_size=5),
            inner,
            max_size=6,
        )
    ),
    max_leaves=20,
)


@given(st.lists(json_values, max_size=3) | json_values, st.sampled_from(["state", "fsm", "notification", "x"]))
def test_no_json_raises(value: object, kind: str) -> None:
    text.parse(json.dumps(value).encode())
    if isinstance(value, dict):
        text.parse(json.dumps({**value, "type": kind}).encode())
        text.parse(json.dumps({"type": kind, "neighbor": {"address": {"peer": "10.0.0.1"}, **value}}).encode())


NOTIFIED, SENT = Loss(LossKind.NOTIFICATION, 6, 2, "bye"), Loss(LossKind.NOTIFICATION, 2, 2, local=True)


@pytest.mark.parametrize(
    ("down", "said", "loss", "category", "sentence"),
    [
        (
            "notification sent (4,0): Hold timer expired",
            None,
            Loss(LossKind.NOTIFICATION, 4, 0, local=True),
            "hold_timer",
            "Hold timer expired: nothing was heard",
        ),
        ("notification sent (2,2): OPEN message error", None, SENT, "notification", "We sent NOTIFICATION OPEN"),
        ("notification received (6,2): C", text.Notification(PEER.address, 6, 2, "bye"), NOTIFIED, "shutdown", "bye"),
        (
            "notification received (6,3): Cease",
            text.Notification(PEER.address, 6, 2, "old"),
            Loss(LossKind.NOTIFICATION, 6, 3),
            "notification",
            "de-configured (6/3).",
        ),
        ("closing connection: [Errno 104] reset", None, Loss(LossKind.RESET), "reset", "reset by the peer"),
        ("closing connection: closed by the remote end", None, Loss(LossKind.CLOSED), "reset", "closed by the peer"),
        ("closing connection: [Errno 110] ETIMEDOUT", None, Loss(LossKind.TIMED_OUT), "reset", "timed out"),
        ("closing connection: [Errno 111] x", None, Loss(LossKind.REFUSED), "reset", "no BGP router listens"),
        ("closing connection, oops", None, Loss(LossKind.CONNECTION), "reset", "was lost"),
        ("stop, message [x]", None, Loss(LossKind.REMOVED, local=True), "other", "peer removed"),
        ("graceful restarted negotiated", None, Loss(LossKind.RECONFIGURED, local=True), "other", "configuration"),
        ("odd", None, Loss(LossKind.OTHER, text="odd"), "other", "ExaBGP ended the session: odd."),
        ("", None, Loss(LossKind.OTHER), "other", "does not say why"),
    ],
)
def test_reasons(down: str, said: text.Notification | None, loss: Loss, category: str, sentence: str) -> None:
    found = text.loss(text.Down(PEER.address, down), said)
    assert found == loss
    assert found.category == category
    assert sentence in words.loss(found)


def test_the_log_says_why_a_command_was_refused() -> None:
    lines = ["processes  command could not parse route in : announce x", "processes  reason: 'foo' is no community"]
    assert text.rejection(lines) == "'foo' is no community"
    assert text.rejection(lines[:1]).startswith("command could not parse")
    assert (
        text.rejection(["reactor   async | porterlb | problem with function", "reactor async | porterlb | boom"])
        == "boom"
    )
    assert text.rejection(["something else"]) == ""


@given(st.text(max_size=600))
def test_cleaned_text_fits_on_a_line(value: str) -> None:
    cleaned = text.clean(value)
    assert len(cleaned) <= 300
    assert all(c.isprintable() for c in cleaned)
