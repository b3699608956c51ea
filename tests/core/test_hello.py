"""Hello: only members with the key, only news; fresh for as long as promised."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from porterlb.core.hello import MAX_DATAGRAM, Change, Hello, Receiver, Refusal, decode, encode
from porterlb.core.model import Member

KEY = b"a key of the cluster's replicas"
names = st.text(st.characters(codec="utf-8"), min_size=1, max_size=30)
numbers = st.integers(0, 2**64 - 1)
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
def test_what_is_encoded_is_decoded(hello):
    assert decode(encode(hello, KEY), KEY) == hello


@given(hellos, st.data())
def test_a_changed_bit_is_refused(hello, data):
    sent = encode(hello, KEY)
    at = data.draw(st.integers(0, len(sent) - 1))
    changed = sent[:at] + bytes([sent[at] ^ 1 << data.draw(st.integers(0, 7))]) + sent[at + 1 :]
    assert isinstance(decode(changed, KEY), Refusal)


@given(st.binary(max_size=300))
def test_no_bytes_raise(data):
    assert isinstance(decode(data, KEY), Refusal)
    assert isinstance(decode(b"PLBH\1" + data, KEY), Refusal)


@given(st.binary(max_size=200))
def test_signed_nonsense_is_malformed(data):
    import hmac  # noqa: PLC0415

    signed = b"PLBH\1" + data
    found = decode(signed + hmac.digest(KEY, signed, "sha256"), KEY)
    assert isinstance(found, Hello) or found is Refusal.MALFORMED


def test_the_wrong_key_and_an_oversize_datagram_are_refused():
    assert decode(said(), b"another key") is Refusal.WRONG_KEY
    assert decode(said() + bytes(MAX_DATAGRAM), KEY) is Refusal.OVERSIZE


def test_names_that_do_not_fit_are_left_out_and_the_rest_arrives():
    many = frozenset(f"node-with-a-long-name-{i:04}" for i in range(1000))
    sent = encode(Hello("a", 1, 1, dead=many, sessions=many), KEY)
    found = decode(sent, KEY)
    assert len(sent) <= MAX_DATAGRAM and isinstance(found, Hello)
    assert found.dead < many and len(found.dead) > 200


def test_foreigners_and_our_own_echo_are_refused():
    heard = receiver("a")
    assert heard.receive(said("stranger"), 0.0) is Refusal.FOREIGN
    assert heard.receive(said("me"), 0.0) is Refusal.FOREIGN
    assert heard.fresh == {}


def test_replays_are_refused_also_after_a_goodbye_and_a_silence():
    heard = receiver("a")
    first, second = said(sequence=5), said(sequence=6)
    assert isinstance(heard.receive(first, 0.0), Change)
    assert isinstance(heard.receive(second, 0.01), Change)
    assert heard.receive(first, 0.02) is Refusal.REPLAY
    assert heard.receive(second, 0.02) is Refusal.REPLAY
    assert heard.expire(1.0) == {"a"}
    assert heard.receive(second, 1.1) is Refusal.REPLAY
    left = heard.receive(said(sequence=7, goodbye=True), 1.2)
    assert isinstance(left, Change) and not left.left  # it was not fresh any more
    assert heard.receive(second, 1.3) is Refusal.REPLAY
    assert heard.fresh == {}


def test_a_boot_that_goes_back_is_refused_and_one_that_rises_begins_anew():
    heard = receiver("a")
    heard.receive(said(boot=5, sequence=100), 0.0)
    assert heard.receive(said(boot=4, sequence=200), 0.0) is Refusal.REPLAY
    assert isinstance(heard.receive(said(boot=6, sequence=1), 0.0), Change)
    heard.set_members(members("a", boot=9))
    assert heard.receive(said(boot=8, sequence=300), 0.0) is Refusal.REPLAY


def test_freshness_ends_when_promised_and_at_a_goodbye_at_once():
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


def test_only_a_change_is_news():
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


def test_what_was_heard_since_a_moment_leaves_out_who_was_fresh_before():
    made = receiver("a", "b")
    made.receive(said("a", sequence=1), 1.0)
    made.receive(said("b", sequence=1), 1.1)
    assert {hello.node for hello in made.heard_since(1.0)} == {"a", "b"}
    assert {hello.node for hello in made.heard_since(1.05)} == {"b"}
    made.receive(said("a", sequence=2), 1.15)
    assert {hello.node for hello in made.heard_since(1.1)} == {"a", "b"}
    made.receive(said("b", sequence=2, goodbye=True), 1.2)
    assert {hello.node for hello in made.heard_since(1.1)} == {"a"}


def test_a_member_no_more_is_forgotten():
    heard = receiver("a", "b")
    heard.receive(said("a"), 0.0)
    assert heard.set_members(members("me", "b")) == {"a"}
    assert heard.fresh == {}
    assert heard.receive(said("a", sequence=2), 0.0) is Refusal.FOREIGN


@given(st.lists(st.tuples(st.sampled_from("ab"), st.integers(1, 3), st.integers(1, 5)), max_size=30))
def test_boot_and_sequence_never_go_back(datagrams):
    heard = receiver("a", "b")
    best: dict[str, tuple[int, int]] = {}
    for node, boot, sequence in datagrams:
        taken = heard.receive(said(node, boot, sequence), 0.0)
        rises = (boot, sequence) > best.get(node, (0, 0))
        assert isinstance(taken, Change) is rises
        if rises:
            best[node] = (boot, sequence)
            assert heard.last(node) == replace(Hello(node, boot, sequence))
