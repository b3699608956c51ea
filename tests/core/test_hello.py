"""Hello: only from members with the key, only new ones; fresh for the promised time."""

from __future__ import annotations

import hmac
import struct
from dataclasses import replace
from ipaddress import ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from porterlb.core.hello import (
    GATEWAY,
    MAX_DATAGRAM,
    Assignment,
    Change,
    Hello,
    HelloRefusal,
    Receiver,
    SegmentState,
    decode,
    encode,
)
from porterlb.core.hello.codec import MOST_SEGMENTS, VERSION
from porterlb.core.model import Member

KEY = b"a key of the cluster's replicas"
names = st.text(st.characters(codec="utf-8"), min_size=1, max_size=30)
numbers = st.integers(0, 2**64 - 1)
subnets = st.sampled_from([ip_network(text) for text in ("10.77.0.0/24", "fd77::/64", "0.0.0.0/0", "192.0.2.4/30")])
segments = st.builds(
    SegmentState,
    subnets=st.lists(subnets, max_size=3).map(tuple),
    up=st.booleans(),
    isolated=st.booleans(),
    answers=st.booleans(),
    mac=st.binary(min_size=6, max_size=6),
    contacts=st.lists(names | st.just(GATEWAY), max_size=2).map(tuple),
    suspect=st.frozensets(names, max_size=3),
    silent=st.frozensets(names, max_size=3),
)
assignments = st.sampled_from((4, 16)).flatmap(
    lambda size: st.builds(
        Assignment,
        vip=st.binary(min_size=size, max_size=size),
        asker=st.binary(min_size=6, max_size=6),
        address=st.binary(min_size=size, max_size=size),
        node=names,
        stamp=st.integers(0, 2**32 - 1),
    )
)
hellos = st.builds(
    Hello,
    node=names,
    boot=numbers,
    sequence=numbers,
    leader=names | st.just(""),
    sessions=st.frozensets(names, max_size=5),
    dead=st.frozensets(names, max_size=5),
    digest=numbers,
    applied=numbers,
    answers=st.booleans(),
    goodbye=st.booleans(),
    hold_downs=st.frozensets(names, max_size=5),
    segments=st.lists(segments, max_size=3).map(tuple),
    negotiated=st.dictionaries(names, names | st.just(""), max_size=3),
    instance=numbers,
    echo=numbers,
    uptime=numbers,
    assignments=st.lists(assignments, max_size=6).map(
        lambda found: tuple(sorted(found, key=lambda one: (one.vip, one.node)))  # the order in a datagram
    ),
    known_askers=st.integers(0, 0xFFFF),
)


def members(*nodes: str, boot: int = 1) -> dict[str, Member]:
    return {node: Member(node, "192.0.2.1", 7473, boot) for node in nodes}


def receiver(*nodes: str) -> Receiver:
    made = Receiver("me", KEY, 0.2)
    made.set_members(members("me", *nodes))
    return made


def said(node: str = "a", boot: int = 1, sequence: int = 1, **fields: object) -> bytes:
    return encode(Hello(node, boot, sequence, **fields), KEY)  # type: ignore[arg-type]


@given(hellos)
def test_what_is_encoded_is_decoded(hello) -> None:
    assert decode(encode(hello, KEY), KEY) == hello


@given(hellos, st.data())
def test_a_changed_bit_is_refused(hello, data) -> None:
    sent = encode(hello, KEY)
    at = data.draw(st.integers(0, len(sent) - 1))
    changed = sent[:at] + bytes([sent[at] ^ 1 << data.draw(st.integers(0, 7))]) + sent[at + 1 :]
    assert isinstance(decode(changed, KEY), HelloRefusal)


def signed(data: bytes, key: bytes = KEY) -> bytes:
    return data + hmac.digest(key, data, "sha256")


def with_field(datagram: bytes, kind: int, value: bytes) -> bytes:
    """A datagram with one additional field after the others."""
    return signed(datagram[:-32] + struct.pack(">BH", kind, len(value)) + value)


@given(st.binary(max_size=300))
def test_no_bytes_raise(data) -> None:
    assert isinstance(decode(data, KEY), HelloRefusal)
    assert isinstance(decode(b"PLBH\2" + data, KEY), HelloRefusal)


@given(st.binary(max_size=200))
def test_signed_nonsense_is_malformed(data) -> None:
    found = decode(signed(b"PLBH\2" + data), KEY)
    assert isinstance(found, Hello) or found is HelloRefusal.MALFORMED


@given(st.integers(0, 14), st.binary(max_size=60))
def test_a_field_of_nonsense_raises_nothing(kind, value) -> None:
    found = decode(with_field(said(), kind, value), KEY)
    assert isinstance(found, Hello) or found is HelloRefusal.MALFORMED


@given(hellos, st.integers(13, 255), st.binary(max_size=100))
def test_fields_of_a_later_release_are_skipped(hello, kind, value) -> None:
    """A rolling upgrade: replicas of this release understand those of the next release, which send one more field."""
    assert decode(with_field(encode(hello, KEY), kind, value), KEY) == hello


def test_fields_flags_and_segments_may_grow() -> None:
    state = SegmentState((ip_network("10.77.0.0/24"),), contacts=(GATEWAY,))
    sent = encode(Hello("a", 1, 2, segments=(state,)), KEY)
    flags = bytearray(sent[:-32])
    flags[5] |= 0x80
    assert decode(signed(bytes(flags)), KEY) == Hello("a", 1, 2, segments=(state,))
    value = bytes.fromhex("81 020000000001 01 0418 0a4d0000 0100") + b"what a later release adds"
    grown = decode(with_field(encode(Hello("a", 1, 2), KEY), 4, value), KEY)
    assert grown == Hello("a", 1, 2, segments=(replace(state, mac=bytes.fromhex("020000000001")),))


@given(hellos, st.data())
def test_a_truncated_datagram_that_is_signed_is_a_hello_or_malformed(hello, data) -> None:
    sent = encode(hello, KEY)[:-32]
    found = decode(signed(sent[: data.draw(st.integers(0, len(sent)))]), KEY)
    assert isinstance(found, Hello) or found is HelloRefusal.MALFORMED


def test_the_wrong_key_an_oversize_datagram_and_another_version_are_refused() -> None:
    assert decode(said(), b"another key") is HelloRefusal.WRONG_KEY
    assert decode(said() + bytes(MAX_DATAGRAM), KEY) is HelloRefusal.OVERSIZE
    for version in (1, VERSION + 1):
        assert decode(signed(b"PLBH" + bytes((version,)) + said()[5:-32]), KEY) is HelloRefusal.VERSION
    assert decode(signed(b"PLBH\2" + bytes(33)), KEY) is HelloRefusal.MALFORMED  # no sender


def test_a_usual_datagram_is_not_fragmented() -> None:
    dead = frozenset(f"node-{i:03}.example" for i in range(20))
    lan = SegmentState((ip_network("10.77.0.0/24"), ip_network("fd77::/64")), silent=dead, contacts=("node-000", ""))
    storage = SegmentState((ip_network("10.78.0.0/24"),), suspect=frozenset({"node-001.example"}))
    peers = {f"leaf-{i}-rack-7": "4:add-path 6 hold=9 gr=120 asn4" for i in range(8)}
    hello = Hello("node-022.example", 1, 1, "node-021.example", frozenset(peers), segments=(lan, storage))
    assert len(encode(replace(hello, negotiated=peers, instance=1, uptime=1), KEY)) < 1200


def test_what_does_not_fit_is_left_out_in_the_order_of_its_weight() -> None:
    many = frozenset(f"node-with-a-long-name-{i:04}" for i in range(1000))
    lan = SegmentState((ip_network("10.77.0.0/24"),), silent=frozenset(sorted(many)[:40]), suspect=many)
    sessions = frozenset(sorted(many)[:100])
    hello = Hello("a", 1, 1, sessions=sessions, dead=many, segments=(lan,), negotiated=dict.fromkeys(many, "x"))
    sent = encode(hello, KEY)
    found = decode(sent, KEY)
    assert len(sent) <= MAX_DATAGRAM and isinstance(found, Hello)
    assert found.segments[0].silent == lan.silent and found.sessions == sessions
    assert found.segments[0].suspect < many and len(found.segments[0].suspect) > 100
    assert not found.dead and not found.negotiated
    crowded = decode(encode(replace(hello, segments=(lan,) * 40), KEY), KEY)
    assert isinstance(crowded, Hello) and len(crowded.segments) == MOST_SEGMENTS


def test_no_more_segments_are_read_than_are_sent() -> None:
    """A sender with the key could make each replica keep 700 segments. Found by `make fuzz`."""
    value = bytes.fromhex("01 020000000001 00 00")
    fields = (struct.pack(">BH", 4, len(value)) + value) * (MOST_SEGMENTS + 2)
    found = decode(signed(encode(Hello("a", 1, 1), KEY)[:-32] + fields), KEY)
    assert isinstance(found, Hello) and len(found.segments) == MOST_SEGMENTS
    assert decode(encode(found, KEY), KEY) == found


def test_a_voter_is_answered_by_a_third_party() -> None:
    assert SegmentState((), contacts=(GATEWAY,)).votes_on("b")
    assert SegmentState((), contacts=("b", "c")).votes_on("b")
    assert not SegmentState((), contacts=("b",)).votes_on("b")
    assert not SegmentState((), up=False, contacts=("c",)).votes_on("b")


def test_foreigners_and_our_own_echo_are_refused() -> None:
    heard = receiver("a")
    assert heard.receive(said("stranger"), 0.0) is HelloRefusal.FOREIGN
    assert heard.receive(said("me"), 0.0) is HelloRefusal.OWN_NAME
    assert heard.fresh == {}


def test_replays_are_refused_also_after_a_goodbye_and_a_silence() -> None:
    heard = receiver("a")
    first, second = said(sequence=5), said(sequence=6)
    assert isinstance(heard.receive(first, 0.0), Change)
    assert isinstance(heard.receive(second, 0.01), Change)
    assert heard.receive(first, 0.02) is HelloRefusal.REPLAY
    assert heard.receive(second, 0.02) is HelloRefusal.REPLAY
    assert heard.expire(1.0) == {"a"}
    assert heard.receive(second, 1.1) is HelloRefusal.REPLAY
    left = heard.receive(said(sequence=7, goodbye=True), 1.2)
    assert isinstance(left, Change) and not left.left  # it was no longer fresh
    assert heard.receive(second, 1.3) is HelloRefusal.REPLAY
    assert heard.fresh == {}


def test_a_boot_that_goes_back_is_refused_and_one_that_rises_begins_anew() -> None:
    heard = receiver("a")
    heard.receive(said(boot=5, sequence=100), 0.0)
    assert heard.receive(said(boot=4, sequence=200), 0.0) is HelloRefusal.REPLAY
    assert isinstance(heard.receive(said(boot=6, sequence=1), 0.0), Change)
    heard.set_members(members("a", boot=9))
    assert heard.receive(said(boot=8, sequence=300), 0.0) is HelloRefusal.REPLAY


def test_freshness_ends_when_promised_and_at_a_goodbye_at_once() -> None:
    heard = receiver("a", "b")
    heard.receive(said("a"), 10.0)
    heard.receive(said("b"), 10.1)
    assert heard.next_expiry() == 10.2
    assert heard.expire(10.19) == frozenset()
    assert heard.expire(10.2) == {"a"}
    assert set(heard.fresh) == {"b"}
    left = heard.receive(said("b", sequence=2, goodbye=True), 10.2)
    assert isinstance(left, Change) and left.left
    assert heard.fresh == {} and heard.next_expiry() is None
    came = heard.receive(said("b", sequence=3), 10.3)
    assert isinstance(came, Change) and came.came


def test_only_a_change_is_news() -> None:
    heard = receiver("a")
    kinds = [
        said(sequence=1),
        said(sequence=2),
        said(sequence=3, digest=7),
        said(sequence=4, digest=7),
        said(sequence=5, digest=7, answers=True),
    ]
    changes = [heard.receive(data, 0.0) for data in kinds]
    assert [isinstance(change, Change) and change.news for change in changes] == [True, False, True, False, True]


@pytest.mark.parametrize(
    "field",
    [
        {"segments": (SegmentState((), mac=b"\2" * 6),)},
        {"segments": (SegmentState((), up=False),)},
        {"segments": (SegmentState((), isolated=True),)},
        {"segments": (SegmentState((), answers=True),)},
        {"negotiated": {"tor": "4"}},
        {"sessions": frozenset({"tor"})},
        {"hold_downs": frozenset({"tor"})},
        {"leader": "b"},
        {"instance": 7},
        {"echo": 7},
    ],
)
def test_every_field_that_others_act_on_is_news(field) -> None:
    heard = receiver("a")
    heard.receive(said(sequence=1, uptime=1), 0.0)
    change = heard.receive(said(sequence=2, **field), 0.0)
    assert isinstance(change, Change) and change.news


def test_what_a_replica_finds_of_others_is_no_news_and_is_kept() -> None:
    heard = receiver("a")
    heard.receive(said(sequence=1, segments=(SegmentState(()),)), 0.0)
    state = SegmentState((), silent=frozenset("b"), contacts=(GATEWAY,))
    for sequence in (2, 3, 4):
        change = heard.receive(said(sequence=sequence, segments=(state,)), 0.0)
        assert isinstance(change, Change) and not change.news
        assert change.hello == Hello("a", 1, sequence, segments=(state,)) == heard.last("a")


def test_what_was_heard_since_a_moment_leaves_out_who_was_fresh_before() -> None:
    made = receiver("a", "b")
    made.receive(said("a", sequence=1), 1.0)
    made.receive(said("b", sequence=1), 1.1)
    assert {hello.node for hello in made.heard_since(1.0)} == {"a", "b"}
    assert {hello.node for hello in made.heard_since(1.05)} == {"b"}
    made.receive(said("a", sequence=2), 1.15)
    assert {hello.node for hello in made.heard_since(1.1)} == {"a", "b"}
    made.receive(said("b", sequence=2, goodbye=True), 1.2)
    assert {hello.node for hello in made.heard_since(1.1)} == {"a"}


def test_a_member_no_more_is_forgotten() -> None:
    heard = receiver("a", "b")
    heard.receive(said("a"), 0.0)
    assert heard.set_members(members("me", "b")) == {"a"}
    assert heard.fresh == {}
    assert heard.receive(said("a", sequence=2), 0.0) is HelloRefusal.FOREIGN


def test_a_member_whose_lease_was_deleted_may_begin_with_a_lower_boot() -> None:
    """The boot number then comes from the clock, and the clock may be slow."""
    heard = receiver("a")
    heard.receive(said("a", boot=900), 0.0)
    heard.set_members(members("me"))
    heard.set_members(members("me", "a", boot=800))
    assert isinstance(heard.receive(said("a", boot=800), 1.0), Change)
    assert heard.receive(said("a", boot=799), 1.0) is HelloRefusal.REPLAY


@given(st.lists(st.tuples(st.sampled_from("ab"), st.integers(1, 3), st.integers(1, 5)), max_size=30))
def test_boot_and_sequence_never_go_back(datagrams) -> None:
    heard = receiver("a", "b")
    best: dict[str, tuple[int, int]] = {}
    for node, boot, sequence in datagrams:
        taken = heard.receive(said(node, boot, sequence), 0.0)
        rises = (boot, sequence) > best.get(node, (0, 0))
        assert isinstance(taken, Change) is rises
        if rises:
            best[node] = (boot, sequence)
            assert heard.last(node) == replace(Hello(node, boot, sequence))


def test_a_numbered_hello_differs_in_its_sequence_only() -> None:
    said = Hello("a", 3, 7, leader="b", digest=5, answers=True, hold_downs=frozenset("x"), known_askers=9)
    assert said.numbered(8) == replace(said, sequence=8)
