"""When the pods of a dead node are marked NotReady, when that is undone, and in particular when pods are not marked."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from porterlb.core.model import Node, Ready, Service, ServiceKey
from porterlb.core.node_failure import (
    Consensus,
    Failure,
    MarkingStep,
    Memory,
    NotMarked,
    Rules,
    Seen,
    Stage,
    behind_load_balancers,
    cut_off,
    marked,
    read,
    restored,
    step,
    verdicts,
    written,
)
from porterlb.core.observed import FreshReplica, Votes, WireReport

RULES = Rules(enabled=True, confirm=0.2, again_after=300, restore_after=10, lease_margin=0.5)
NODES = {name: Node(name) for name in ("a", "b", "c")}
DEAD = Consensus(frozenset("ab"), frozenset("ab"))
ALIVE = Consensus(frozenset("ab"), heard=True)


def seen(verdict: Consensus = DEAD, **more: object) -> Seen:
    """Node c with the given ``verdict``; a leads."""
    others = {"a": Consensus(frozenset("b"), heard=True), "b": Consensus(frozenset("a"), heard=True)}
    base = Seen(NODES, {**others, "c": verdict}, lease_left=2.0)
    return replace(base, **more)  # type: ignore[arg-type]


def confirmed(now: Seen, rules: Rules = RULES, memory: Memory = Memory()) -> MarkingStep:  # noqa: B008
    """The step after the same view has lasted for the confirmation time."""
    first = step(memory, now, rules, 100.0)
    return step(first.memory, now, rules, 100.2)


def test_a_node_that_lost_its_power_is_marked_once_the_replicas_have_agreed_for_a_while() -> None:
    first = step(Memory(), seen(), RULES, 100.0)
    assert (first.mark, first.refused) == ((), {"c": NotMarked.CONFIRMING})
    assert first.next_at == 100.2
    assert step(first.memory, seen(), RULES, 100.19).mark == ()
    second = step(first.memory, seen(), RULES, 100.2)
    assert (second.mark, second.refused, second.restore) == (("c",), {}, ())
    assert second.memory.failures == {"c": Failure(Stage.MARKING, 100.2)}


def test_marking_is_asked_for_until_it_is_done() -> None:
    last = confirmed(seen())
    assert step(last.memory, seen(), RULES, 101).mark == ("c",)
    done = step(marked(last.memory, "c"), seen(), RULES, 101)
    assert done.mark == () and done.memory.failures["c"].stage is Stage.MARKED


def test_an_answer_in_between_begins_the_wait_again() -> None:
    first = step(Memory(), seen(), RULES, 100.0)
    between = step(first.memory, seen(ALIVE), RULES, 100.1)
    assert step(between.memory, seen(), RULES, 100.25).mark == ()


@pytest.mark.parametrize(
    ("now", "why"),
    [
        (seen(doubt=True), NotMarked.DOUBT),
        (seen(outage=True), NotMarked.OUTAGE),
        (seen(bounded=False), NotMarked.UNBOUNDED),
        (seen(lease_left=0.49), NotMarked.LEASE),
        (seen(Consensus(frozenset("a"), frozenset("a"))), NotMarked.FEW_VOTERS),
        (seen(Consensus(frozenset("ab"), frozenset("a"))), NotMarked.NO_MAJORITY),
        (seen(replace(DEAD, hello_fresh=True)), NotMarked.HELLO_FRESH),
        (seen(replace(DEAD, heard=True)), NotMarked.HEARD),
        (seen(signs={"c": 97.3}), NotMarked.SIGN_OF_LIFE),
        # Replicas that may not vote do not count.
        (seen(Consensus(frozenset("abd"), frozenset("axyz"))), NotMarked.NO_MAJORITY),
    ],
)
def test_no_pod_is_marked_where_a_rule_forbids_it(now: Seen, why: NotMarked) -> None:
    found = confirmed(now)
    assert (found.mark, found.memory.failures, found.refused) == ((), {}, {"c": why})


def test_nothing_is_marked_where_it_is_off() -> None:
    assert confirmed(seen(), Rules()).refused == {"c": NotMarked.OFF}
    assert confirmed(seen(), Rules()).mark == ()


@pytest.mark.parametrize("ready", [Ready.FALSE, Ready.UNKNOWN])
def test_kubernetes_has_said_it_already(ready: Ready) -> None:
    found = confirmed(seen(nodes={**NODES, "c": Node("c", ready=ready)}))
    assert (found.mark, found.refused, found.memory.failures) == ((), {}, {})


def test_a_node_that_the_api_does_not_know_is_nobodys_business() -> None:
    found = confirmed(seen(nodes={"a": NODES["a"], "b": NODES["b"]}))
    assert (found.mark, found.refused) == ((), {})


def many(dead: str, names: str) -> Seen:
    voters = frozenset(names) - frozenset(dead)
    found = {name: Consensus(voters - {name}, voters if name in dead else frozenset()) for name in names}
    return Seen({name: Node(name) for name in names}, found, lease_left=2.0)


@pytest.mark.parametrize(
    ("dead", "names", "mark"),
    [
        ("d", "abcd", ("d",)),
        ("cd", "abcd", ()),  # a partition 2-2
        ("ef", "abcdef", ("e", "f")),
        ("def", "abcdef", ()),
    ],
)
def test_at_most_a_third_of_the_nodes_at_once(dead: str, names: str, mark: tuple[str, ...]) -> None:
    found = confirmed(many(dead, names))
    assert found.mark == mark
    assert found.refused == ({} if mark else dict.fromkeys(dead, NotMarked.TOO_MANY))


def test_a_second_node_is_not_marked_while_the_first_is_dead_and_believed_ready() -> None:
    memory = marked(confirmed(many("d", "abcd")).memory, "d")
    found = confirmed(many("cd", "abcd"), memory=memory)
    assert found.mark == () and found.refused == {"c": NotMarked.TOO_MANY}
    known = many("cd", "abcd")
    known = replace(known, nodes={**known.nodes, "d": Node("d", ready=Ready.UNKNOWN)})
    assert confirmed(known, memory=memory).mark == ("c",)


def test_a_node_that_lives_again_is_restored_after_a_while_and_not_marked_again_at_once() -> None:
    memory = marked(confirmed(seen()).memory, "c")
    back = step(memory, seen(ALIVE), RULES, 110.0)
    assert (back.restore, back.next_at) == ((), 120.0)
    assert step(back.memory, seen(ALIVE), RULES, 119.9).restore == ()
    due = step(back.memory, seen(ALIVE), RULES, 120.0)
    assert due.restore == ("c",)
    assert step(due.memory, seen(), RULES, 121.0).restore == ("c",), "what is begun is finished"
    over = restored(due.memory, "c")
    assert over.failures["c"].stage is Stage.OVER
    again = confirmed(seen(), memory=over)
    assert (again.mark, again.refused) == ((), {"c": NotMarked.RECENT})
    assert again.next_at == pytest.approx(400.2)
    late = step(over, seen(), RULES, 400.2)
    assert step(late.memory, seen(), RULES, 400.4).mark == ("c",)


def test_a_node_that_dies_once_more_while_it_is_watched_is_not_restored() -> None:
    memory = marked(confirmed(seen()).memory, "c")
    back = step(memory, seen(ALIVE), RULES, 110.0)
    dead = step(back.memory, seen(), RULES, 115.0)
    assert dead.memory.failures["c"].alive_since is None
    assert step(dead.memory, seen(ALIVE), RULES, 121.0).restore == ()


def test_a_false_verdict_is_undone_as_soon_as_the_nodes_own_replica_is_heard() -> None:
    memory = marked(confirmed(seen()).memory, "c")
    heard = seen(replace(DEAD, hello_fresh=True))
    back = step(memory, heard, RULES, 101.0)
    assert step(back.memory, heard, RULES, 111.0).restore == ("c",)


def test_what_nobody_can_tell_is_neither_dead_nor_alive() -> None:
    memory = marked(confirmed(seen()).memory, "c")
    for unknown in (Consensus(), Consensus(frozenset("ab")), Consensus(frozenset("ab"), frozenset("b"))):
        first = step(memory, seen(unknown), RULES, 101.0)
        assert step(first.memory, seen(unknown), RULES, 150.0).restore == ()


def test_marking_stops_when_the_node_answers_or_a_rule_forbids_it_meanwhile() -> None:
    last = confirmed(seen())
    assert step(last.memory, seen(), RULES, 101).mark == ("c",)
    for verdict in (ALIVE, Consensus(frozenset("ab"), frozenset("b")), Consensus(frozenset("a"), frozenset("a"))):
        assert step(last.memory, seen(verdict), RULES, 101).mark == ()


def test_a_node_is_dead_by_the_vote_of_two_if_nobody_hears_it() -> None:
    assert DEAD.dead and Consensus(frozenset("abd"), frozenset("ab")).dead
    assert not Consensus(frozenset("a"), frozenset("a")).dead
    assert not Consensus(frozenset("abde"), frozenset("ab")).dead, "half is no majority"
    assert not replace(DEAD, hello_fresh=True).dead and not replace(DEAD, heard=True).dead


def test_nothing_is_restored_by_one_who_does_not_lead_for_certain() -> None:
    memory = Memory({"c": Failure(Stage.RESTORING, 0.0, 1.0)})
    assert step(memory, seen(ALIVE), RULES, 20.0).restore == ("c",)
    assert step(memory, seen(ALIVE, lease_left=0.0), RULES, 20.0).restore == ()


def test_a_node_that_is_gone_is_forgotten() -> None:
    memory = marked(confirmed(seen()).memory, "c")
    assert step(memory, Seen({}, {}, lease_left=2), RULES, 101).memory.failures == {}


def test_the_next_leader_reads_what_was_marked() -> None:
    memory = marked(confirmed(seen()).memory, "c")
    assert written(memory) == {"c": "marked"}
    taken = read({"c": "marked", "d": "nonsense", "e": 7}, 1000.0)
    assert taken.failures == {"c": Failure(Stage.MARKED, 1000.0)}
    assert step(taken, seen(), RULES, 1001.0).mark == ()
    back = step(taken, seen(ALIVE), RULES, 1001.0)
    assert step(back.memory, seen(ALIVE), RULES, 1011.0).restore == ("c",)


def test_the_next_leader_continues_only_what_the_replicas_still_agree_on() -> None:
    """The leader that started the marking has died, and the node has returned: its replica is stopped, its kernel
    answers."""
    begun = read({"c": "marking"}, 1000.0)
    unknown = seen(Consensus())
    assert step(begun, unknown, RULES, 1000.0).mark == ()
    assert step(begun, replace(unknown, verdicts={}), RULES, 1000.0).mark == ()
    few = seen(Consensus(voters=frozenset("a"), silent=frozenset("a")))
    assert step(begun, few, RULES, 1000.0).mark == ()
    first = step(begun, seen(), RULES, 1000.0)
    assert (first.mark, first.refused) == ((), {"c": NotMarked.CONFIRMING})
    assert step(first.memory, seen(), RULES, 1000.0 + RULES.confirm).mark == ("c",)


def test_what_is_told_too_late_changes_nothing() -> None:
    memory = Memory({"c": Failure(Stage.OVER, 0.0)})
    assert marked(memory, "c") is memory and restored(memory, "c") is memory
    assert marked(memory, "x") is memory


def test_a_sign_of_life_counts_for_a_while_and_then_the_node_is_marked() -> None:
    cut_off = seen(signs={"c": 100.1, "gone": 100.1})
    memory = confirmed(cut_off).memory
    last = step(memory, cut_off, RULES, 103.09)
    assert (last.mark, last.refused, last.next_at) == ((), {"c": NotMarked.SIGN_OF_LIFE}, pytest.approx(103.1))
    assert step(last.memory, cut_off, RULES, 103.11).mark == ("c",)


def test_the_nodes_that_decide_are_asked_for_a_sign_of_life() -> None:
    first = step(Memory(), seen(), RULES, 100.0)
    assert first.ask == ("c",), "while it is confirmed"
    assert step(first.memory, seen(ALIVE), RULES, 100.1).ask == ()
    assert step(Memory(), seen(replace(DEAD, heard=True)), RULES, 100.0).ask == ()
    assert step(Memory(), seen(lease_left=0.0), RULES, 100.0).ask == (), "the leader alone decides"
    memory = marked(confirmed(seen()).memory, "c")
    assert step(memory, seen(), RULES, 101.0).ask == ("c",), "so that it is restored"
    unheard = Consensus(frozenset("a"), frozenset("a"))
    assert step(memory, seen(unheard), RULES, 101.0).ask == ("c",)
    assert step(memory, seen(ALIVE), RULES, 101.0).ask == ()


def test_a_marked_node_that_shows_signs_of_life_is_restored() -> None:
    memory = marked(confirmed(seen()).memory, "c")
    for second in range(10):
        now = 101.0 + second
        memory = step(memory, seen(signs={"c": now}), RULES, now).memory
        assert memory.failures["c"].stage is Stage.MARKED
    assert step(memory, seen(signs={"c": 111.0}), RULES, 111.0).restore == ("c",)


def votes(voters: str, silent: str, heard: str = "") -> Votes:
    return Votes(frozenset(voters), frozenset(silent), frozenset(heard))


def fresh(**dead: str) -> dict[str, FreshReplica]:
    return {name: FreshReplica(name, 1, dead=frozenset(nodes)) for name, nodes in dead.items()}


def test_a_verdict_is_made_of_the_votes_and_not_of_what_the_replicas_conclude() -> None:
    dead = frozenset("c")
    report = WireReport(dead=dead, fresh=fresh(b="c"), votes={"c": votes("ab", "ab")}, probed=frozenset("bc"))
    assert verdicts("bc", report, "a") == {"b": Consensus(hello_fresh=True, heard=True), "c": DEAD}
    assert verdicts("c", report, "a")["c"].dead
    one = replace(report, votes={"c": votes("ab", "a")})
    assert not verdicts("c", one, "a")["c"].dead, "both hold it for dead, and one alone has probed it in vain"
    assert not verdicts("c", replace(report, votes={"c": votes("abd", "ab", "d")}), "a")["c"].dead
    assert verdicts("c", replace(report, votes={"c": votes("ab", "ab", "a")}), "a")["c"].alive


def test_without_votes_a_node_lives_if_it_answers_our_own_probes() -> None:
    report = WireReport(probed=frozenset("c"))
    assert verdicts("c", report, "a")["c"].alive
    for unknown in (
        replace(report, probed=frozenset()),
        replace(report, dead=frozenset("c")),
        replace(report, doubt=True),
    ):
        assert not verdicts("c", unknown, "a")["c"].alive and not verdicts("c", unknown, "a")["c"].dead
    assert verdicts("c", replace(report, dead=frozenset("c"), fresh=fresh(c="")), "a")["c"].alive


def test_a_leader_restores_the_pods_of_its_own_node_that_an_earlier_leader_marked() -> None:
    """Found by the simulator, seed 370: the leader's own node had no verdict, and its pods stayed marked."""
    report = WireReport(dead=frozenset("c"), votes={"c": votes("ab", "ab")}, doubt=True)
    assert verdicts("c", report, "a")["c"].dead
    own = verdicts("c", report, "c")["c"]
    assert own.alive and not own.silent
    memory = step(read({"c": "marked"}, 100.0), seen(own), RULES, 100.0).memory
    assert step(memory, seen(own), RULES, 100.0 + RULES.restore_after - 0.1).restore == ()
    assert step(memory, seen(own), RULES, 100.0 + RULES.restore_after).restore == ("c",)


@pytest.mark.parametrize(
    ("report", "expected"),
    [
        (WireReport(fresh=fresh(b="", c="", d="")), False),
        (WireReport(fresh=fresh(b="", c="")), False),
        (WireReport(fresh=fresh(b="")), True),  # half of four: the other half may declare us dead
        (WireReport(), True),
        (WireReport(fresh=fresh(b="", c="", d=""), doubt=True), True),
        (WireReport(fresh=fresh(b="", c="", d=""), alone=True), True),
        (WireReport(fresh=fresh(b="", c="", d=""), dead=frozenset("a")), True),
        (WireReport(fresh=fresh(b="", c="", d=""), dead=frozenset("b")), False),
        (WireReport(fresh=fresh(b="a", c="", d="")), True),
        (WireReport(fresh=fresh(b="c", c="", d="")), False),
    ],
)
def test_who_may_be_held_for_dead_shows_a_sign_of_life(report: WireReport, expected: bool) -> None:
    assert cut_off("a", "abcd", report) is expected
    assert cut_off("a", "abcd", report, deaf=True)
    assert not cut_off("a", "ab", report, deaf=True), "nobody can outvote us"
    assert cut_off("a", "bcd", WireReport()), "our own Lease may not have been read yet"


def test_pods_behind_load_balancers_are_told_by_namespace_and_labels() -> None:
    services = [
        Service(ServiceKey("shop", "web"), selector=(("app", "web"), ("tier", "front"))),
        Service(ServiceKey("shop", "manual")),
    ]
    behind = behind_load_balancers(services)
    assert behind("shop", {"app": "web", "tier": "front", "more": "x"})
    assert not behind("shop", {"app": "web"})
    assert not behind("other", {"app": "web", "tier": "front"})
    assert not behind("shop", {})


VERDICTS = st.builds(
    Consensus,
    st.frozensets(st.sampled_from("abde")),
    st.frozensets(st.sampled_from("abde")),
    st.booleans(),
    st.booleans(),
)
Event = tuple[float, dict[str, Consensus], bool, float, bool, dict[str, float]]
EVENTS = st.lists(
    st.tuples(
        st.floats(0.05, 30),
        st.dictionaries(st.sampled_from("abcdef"), VERDICTS),
        st.booleans(),
        st.sampled_from([0.0, 0.4, 2.0]),
        st.booleans(),
        st.dictionaries(st.sampled_from("abcdef"), st.floats(0, 5)),
    ),
    max_size=25,
)


@given(EVENTS)
def test_whatever_happens_the_rules_hold(
    events: list[tuple[float, dict[str, Consensus], bool, float, bool, dict[str, float]]],
) -> None:
    nodes = {name: Node(name) for name in "abcdef"}
    memory, now = Memory(), 0.0
    begun: dict[str, float] = {}
    for wait, found, doubt, left, tell, ages in events:
        now += wait
        signs = {name: now - age for name, age in ages.items()}
        made = step(memory, Seen(nodes, found, left, doubt, signs=signs), RULES, now)
        turned = Seen(dict(reversed(nodes.items())), dict(reversed(found.items())), left, doubt, signs=signs)
        assert made == step(memory, turned, RULES, now)
        assert not (made.mark or made.restore) or (left >= 0.5 and not doubt)
        fresh = [name for name in made.mark if name not in memory.failures]
        for name in made.mark:
            assert found[name].dead and ages.get(name, 3.0) >= 3.0 - 1e-9
            if name in fresh:
                assert now >= begun.get(name, float("-inf")) + RULES.again_after
                begun[name] = now
        if fresh:
            assert sum(verdict.dead for verdict in found.values()) <= 2
        assert made.next_at is None or made.next_at > now
        memory = made.memory
        if tell:
            for name in (*made.mark, *made.restore):
                memory = restored(marked(memory, name), name)
