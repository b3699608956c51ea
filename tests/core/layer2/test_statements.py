"""How much the hellos of other replicas count as evidence about a node."""

from __future__ import annotations

from ipaddress import ip_network

import pytest

from porterlb.core.hello import Hello, SegmentState
from porterlb.core.layer2.probes import Finding
from porterlb.core.layer2.statements import STALE_ROUNDS, VOUCH_AFTER, VOUCH_FOR, Statements
from porterlb.core.layer2.targets import Target, TargetKey
from porterlb.core.layer2.verdict import Place, Vote

NIC, OTHER = 1, 2
NET, NET2 = ip_network("10.0.0.0/24"), ip_network("10.1.0.0/24")
X = Place("x", NIC)
INTERVAL, FRESH = 0.05, 0.2
STALE = STALE_ROUNDS * INTERVAL


@pytest.fixture
def statements() -> Statements:
    made = Statements(INTERVAL, FRESH)
    made.set_segments({NIC: frozenset({NET}), OTHER: frozenset({NET2})})
    return made


def on(net: object = NET, **fields: object) -> SegmentState:
    return SegmentState(**({"subnets": (net,), "contacts": ("n8", "n9")} | fields))  # type: ignore[arg-type]


def say(
    statements: Statements, node: str, now: float, *segments: SegmentState, suspects: Finding | None = None
) -> bool:
    return statements.take(Hello(node, 1, int(now * 1e9), segments=segments), now, [suspects] if suspects else [])


def suspect(since: float) -> Finding:
    return Finding(Target("x", TargetKey(NIC, b"\n\0\0\7")), since=since)


def test_a_statement_is_news_when_it_says_anything_else_of_a_segment(statements: Statements) -> None:
    assert say(statements, "n2", 1.0, on())
    assert not say(statements, "n2", 1.1, on()) and statements.latest == 1.1
    assert say(statements, "n2", 1.2, on(silent=frozenset({"x"})))
    assert statements.on("n2")[NIC].silent == {"x"} and statements.on("n3") == {}


def test_who_names_other_segments_only(statements: Statements) -> None:
    say(statements, "n2", 1.0, on(NET2))
    say(statements, "n3", 1.0)
    assert statements.names_others_only(Place("n2", NIC)) and not statements.names_others_only(Place("n2", OTHER))
    assert not statements.names_others_only(Place("n3", NIC)), "it says nothing of segments"
    assert not statements.names_others_only(Place("n4", NIC)), "it says nothing at all"


def test_who_is_put_in_question(statements: Statements) -> None:
    say(statements, "n2", 1.0, on(silent=frozenset({"x"}), suspect=frozenset({"y"})), on(NET2, up=False))
    assert statements.questioned == {X, Place("n2", OTHER)}
    say(statements, "n3", 1.0, on(isolated=True))
    assert statements.questioned == {X, Place("n2", OTHER), Place("n3", NIC), Place("n3", OTHER)}
    statements.left("n2")
    assert statements.questioned == {Place("n3", NIC), Place("n3", OTHER)}
    statements.set_segments({NIC: frozenset({NET})})
    assert statements.questioned == {Place("n3", NIC)}


def test_the_statement_of_an_interface_that_is_up_counts_where_two_share_a_subnet(statements: Statements) -> None:
    for segments in ((on(up=False), on(mac=b"\3" * 6)), (on(mac=b"\3" * 6), on(up=False))):
        say(statements, "n2", 1.0, *segments)
        assert statements.on("n2")[NIC].mac == b"\3" * 6


def test_votes_of_those_who_are_voters(statements: Statements) -> None:
    say(statements, "n2", 1.0, on())
    say(statements, "n3", 1.0, on(suspect=frozenset({"x"})))
    say(statements, "n4", 1.0, on(silent=frozenset({"x"})))
    say(statements, "n5", 1.0, on(contacts=("x",)))
    say(statements, "n6", 1.0, on(NET2))
    say(statements, "x", 1.0, on())
    assert statements.votes(X, None, 1.0) == {"n2": Vote.HEARD, "n3": Vote.SUSPECT, "n4": Vote.SILENT}
    assert statements.votes(X, 0.9, 1.0) == {"n2": Vote.SUSPECT, "n3": Vote.SUSPECT, "n4": Vote.SILENT}


def test_votes_of_stale_hellos_can_be_left_out(statements: Statements) -> None:
    say(statements, "n2", 1.0, on())
    assert statements.votes(X, None, 1.0 + STALE - 0.001, fresh=True) == {"n2": Vote.HEARD}
    assert statements.votes(X, None, 1.0 + STALE, fresh=True) == {}
    assert statements.votes(X, None, 1.0 + STALE) == {"n2": Vote.HEARD}
    assert statements.stale_at("n2") == 1.0 + STALE and statements.stale_at("n3") is None


def test_who_does_not_suspect_a_node_vouches_for_it_unless_its_hello_crossed_ours(statements: Statements) -> None:
    since, after = 1.0, VOUCH_AFTER * INTERVAL
    say(statements, "n2", since + after - 0.001, on(), suspects=suspect(since))
    assert statements.votes(X, since, 1.1)["n2"] is Vote.SUSPECT and statements.revoked_at(X) == []
    say(statements, "n2", since + after, on(), suspects=suspect(since))
    assert statements.votes(X, since, 1.1)["n2"] is Vote.HEARD
    assert statements.revoked_at(X) == [since + after + VOUCH_FOR * INTERVAL]


def test_a_suspicion_takes_back_after_two_intervals_what_was_vouched_for(statements: Statements) -> None:
    since, doubts = 1.0, on(suspect=frozenset({"x"}))
    say(statements, "n2", 1.02, on(), suspects=suspect(since))
    say(statements, "n2", 1.03, doubts, suspects=suspect(since))
    ends = 1.02 + VOUCH_FOR * INTERVAL
    assert statements.votes(X, since, ends - 0.001)["n2"] is Vote.HEARD
    assert statements.votes(X, since, ends)["n2"] is Vote.SUSPECT
    say(statements, "n2", 1.04, on(silent=frozenset({"x"})), suspects=suspect(since))
    assert statements.votes(X, since, 1.04)["n2"] is Vote.SILENT


def test_whom_we_do_not_suspect_nobody_vouches_for(statements: Statements) -> None:
    found = suspect(1.0)
    found.since = None
    say(statements, "n2", 1.02, on(), suspects=found)
    say(statements, "n3", 1.02, on(contacts=("x",)), suspects=suspect(1.0))
    assert statements.revoked_at(X) == []
