"""Whole replicas without a network: which one answers, what it announces, and how one event affects other parts."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address, ip_interface

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from porterlb.core.hello import Hello, encode
from porterlb.core.layer2 import actions as act
from porterlb.core.layer2.arp import ARP_REQUEST, Arp
from porterlb.core.layer2.conflicts import CONFIRM
from porterlb.core.layer2.questions import Question
from porterlb.core.layer2.serving import LISTEN, OVERLAP, ServingState
from porterlb.core.layer2.staleness import SETTLE, SILENT
from porterlb.core.layer2.vips import QUESTION_LIVES, SLICE, Vip
from porterlb.core.observed import Answering, Nic
from tests.core.layer2.world import KEY, NIC, Replica, World, mac_of, nics_of

A, B = "10.0.0.100", "10.0.0.101"
PACKED = ip_address(A).packed
ORDER = ("n2", "n1", "n3")
FOREIGN = b"\4" * 6


@pytest.fixture
def world() -> World:
    """Three replicas that serve; n2 holds A, n3 holds B."""
    made = World("n1", "n2", "n3")
    made.vips((A, ORDER), (B, ("n3", "n1", "n2")))
    made.run(LISTEN + 0.5)
    assert made.answers(A) == {"n2": mac_of("n2")} and made.answers(B) == {"n3": mac_of("n3")}
    for replica in made.replicas.values():
        assert replica.report["applied"] == made.digest
        assert replica.answering == {A: Answering("n2", "n2"), B: Answering("n3", "n3")}
    return made


def clear(world: World) -> None:
    for replica in world.replicas.values():
        replica.announced.clear()


def moves(world: World, node: str) -> list[bytes]:
    return [address for _, address, _ in world.replicas[node].announced]


def test_nobody_answers_while_it_listens() -> None:
    made = World("n1", "n2")
    made.vips((A, ORDER))
    made.run(LISTEN - 0.1)
    assert made.answers(A) == {}
    made.run(0.5)
    assert made.answers(A) == {"n2": mac_of("n2")}
    assert PACKED in moves(made, "n2")


def test_a_node_without_a_link_is_replaced_and_comes_back(world: World) -> None:
    clear(world)
    world.cut = {"n2"}
    world.run(0.5)
    assert world.answers(A) == {"n1": mac_of("n1")}
    assert world.replicas["n1"].report["dead"] == {"n2"} == world.replicas["n3"].report["dead"]
    assert moves(world, "n1")[0] == PACKED and PACKED not in moves(world, "n3")
    assert act.Note(act.NoteKind.NODE_DIED, "n2") in world.replicas["n1"].notes
    cut_off = world.replicas["n2"]
    assert cut_off.report["doubt"] and not cut_off.report["dead"] and cut_off.owned == {PACKED: mac_of("n2")}
    world.cut = set()
    world.run(LISTEN + 0.5)
    assert world.answers(A) == {"n2": mac_of("n2")}
    assert world.replicas["n1"].report["dead"] == frozenset()
    assert PACKED in moves(world, "n2")
    assert act.Note(act.NoteKind.NODE_REVIVED, "n2") in world.replicas["n1"].notes
    of_segments = {act.NoteKind.DEAD_ON_SEGMENT, act.NoteKind.ALIVE_ON_SEGMENT}
    assert not any(note.kind in of_segments for note in world.replicas["n1"].notes), "it was dead everywhere"


def test_a_replica_that_is_heard_again_makes_the_others_ask_for_the_vips_that_they_answer(world: World) -> None:
    """Found by the simulator, seeds 291 and 313: two plans after a partition, and no replica announced anything."""
    for replica in world.replicas.values():
        replica.checked.clear()
    world.run(0.5)
    world.cut = {"n1"}
    world.run(0.5)
    assert not any(replica.checked for replica in world.replicas.values())
    world.cut = set()
    world.run(LISTEN + 0.5)
    checked = {node: [text for _, text in replica.checked] for node, replica in world.replicas.items()}
    assert checked == {"n1": [], "n2": [A], "n3": [B]}
    world.run(0.5)
    assert [text for _, text in world.replicas["n2"].checked] == [A]


def test_two_plans_after_a_partition_are_settled_within_half_a_second() -> None:
    made = World("n1", "n2")
    made.vips((A, ("n1",)))
    made.tell("n1")
    made.rows = {A: [A, ["n2"], "", ""]}
    made.tell("n2")
    made.replicas["n1"].announced.clear()
    made.run(LISTEN + 0.1)
    assert made.answers(A) == {"n1": mac_of("n1"), "n2": mac_of("n2")}
    for _ in range(50):
        made.run(0.01)
        for node, other in (("n1", "n2"), ("n2", "n1")):
            asker, owned = made.replicas[node], made.replicas[other].owned
            while asker.checked:
                asker.checked.pop()
                if PACKED in owned:
                    asker.do(asker.layer2.heard(NIC, PACKED, owned[PACKED], made.now), made.now)
    assert len(made.answers(A)) == 1


def test_who_was_cut_off_waits_until_it_has_the_plan_of_the_others(world: World) -> None:
    world.cut = {"n2"}
    world.run(0.5)
    world.digest += 1
    for node in ("n1", "n3"):
        world.tell(node)
    world.cut = set()
    world.run(2.0)
    returned = world.replicas["n2"]
    assert returned.layer2.serving.state is ServingState.RETURNED and returned.owned == {}
    assert world.answers(A) == {"n1": mac_of("n2")}  # on its behalf
    world.tell("n2")
    world.run(0.2)
    assert returned.layer2.serving.state is ServingState.SERVING
    assert world.answers(A) == {"n2": mac_of("n2")}


@pytest.fixture
def returned(world: World) -> World:
    """n2 was cut off and has returned. It counts as dead, also for itself: it does not answer probes yet."""
    world.cut = {"n2"}
    world.run(0.5)
    world.digest += 1  # every replica plans without n2
    for node in world.nodes:
        world.tell(node)
    world.cut, world.mute = set(), {"n2"}
    world.run(0.2)
    assert all(replica.report["dead"] == {"n2"} for replica in world.replicas.values())
    return world


def waits(replica: Replica) -> bool:
    return replica.layer2.serving.state is ServingState.RETURNED and not replica.owned


def test_who_counts_as_dead_answers_nothing_though_its_plan_is_that_of_the_others(returned) -> None:
    n2 = returned.replicas["n2"]
    returned.run(LISTEN + 0.5)
    assert waits(n2) and n2.report["dead"] == {"n2"}
    assert returned.answers(A) == {"n1": mac_of("n1")}


def test_who_has_returned_waits_for_a_plan_that_was_made_after_it_counted_as_alive(returned) -> None:
    n2 = returned.replicas["n2"]
    returned.run(0.5)
    returned.mute = set()
    returned.run(LISTEN - 0.2)
    assert waits(n2) and n2.report["dead"] == frozenset()
    returned.digest += 1
    for node in returned.nodes:
        returned.tell(node)
    returned.run(0.15)
    assert n2.layer2.serving.state is ServingState.SERVING and returned.answers(A) == {"n2": mac_of("n2")}


def test_who_has_returned_takes_the_plan_for_the_same_when_none_comes(returned) -> None:
    n2 = returned.replicas["n2"]
    returned.run(0.5)
    returned.mute = set()
    returned.run(LISTEN - 0.1)
    assert waits(n2)
    returned.run(0.3)
    assert n2.layer2.serving.state is ServingState.SERVING and returned.answers(A) == {"n2": mac_of("n2")}


def test_a_replica_that_hangs_is_answered_for_with_its_mac_and_without_an_announcement(world: World) -> None:
    clear(world)
    world.hung = {"n2"}
    world.run(0.5)
    assert world.answers(A) == {"n1": mac_of("n2")}  # n1 leads
    assert world.replicas["n1"].report["dead"] == frozenset() and set(world.replicas["n1"].report["fresh"]) == {"n3"}
    assert PACKED not in moves(world, "n1")


def question(target: str, sender: str = "10.0.0.5") -> Question:
    mac = b"\x0a" * 6
    return Arp(mac, ARP_REQUEST, mac, ip_address(sender).packed, bytes(6), ip_address(target).packed)


def test_vips_that_were_asked_for_in_the_last_minute_are_reported_every_ten_seconds(world: World) -> None:
    n1 = world.replicas["n1"]
    assert "asked" not in n1.report
    n1.layer2.vips[PACKED].ask(question(A), True, world.now)
    world.run(10.5)
    assert n1.report["asked"] == {A}
    n1.layer2.vips[PACKED].ask(question(A), True, world.now - 61.0)
    world.run(10.5)
    assert n1.report["asked"] == set()
    n1.layer2.vips[PACKED].ask(question(A, "0.0.0.0"), True, world.now)  # of a replica that checks for double answers
    world.run(10.5)
    assert n1.report["asked"] == set()


def test_a_question_that_a_hung_replica_left_is_answered_late_but_not_for_ever(world: World) -> None:
    n1, n3 = world.replicas["n1"], world.replicas["n3"]
    world.hung = {"n2"}
    n1.layer2.vips[PACKED].ask(question(A), False, world.now)
    n3.layer2.vips[PACKED].ask(question(A), False, world.now)
    world.run(0.5)
    assert n1.late == [PACKED] and n3.late == []
    world.hung = set()
    world.run(0.5)
    n1.layer2.vips[PACKED].ask(question(A), False, world.now - QUESTION_LIVES)
    world.hung = {"n2"}
    world.run(0.5)
    assert n1.late == [PACKED] and world.answers(A)
    world.hung = set()
    world.run(0.5)
    n1.layer2.vips[PACKED].ask(question(A), False, world.now)
    n1.layer2.vips[PACKED].ask(question(A, A), False, world.now)  # an announcement of the VIP's owner is no question
    world.hung = {"n2"}
    world.run(0.5)
    assert n1.late == [PACKED] and world.answers(A)


def test_a_stop_is_told_answered_through_and_ends(world: World) -> None:
    n2, at = world.replicas["n2"], world.now
    n2.do(n2.layer2.stop(world.now), world.now)
    world.tick()
    world.tick()
    assert set(world.answers(A)) == {"n1", "n2"} and set(world.answers(A).values()) == {mac_of("n2")}
    while not n2.ended:
        world.tick()
    assert OVERLAP - 0.001 < world.now - at < OVERLAP + 0.03
    assert world.answers(A) == {"n1": mac_of("n2")}
    assert world.replicas["n1"].report["dead"] == frozenset()


def test_a_goodbye_is_said_three_times_and_nothing_after_it(world: World) -> None:
    n2, at = world.replicas["n2"], world.now
    n2.said.clear()
    said: list[Hello] = []
    actions = n2.layer2.stop(at)
    for i in range(1, 5):
        said += [action.hello for action in actions if isinstance(action, act.Say)]
        actions = n2.layer2.wake(at + i * 0.01, at) + n2.layer2.hello_tick(at + i * 0.01)
    assert [hello.goodbye for hello in said] == [True] * 3
    assert len({hello.sequence for hello in said}) == 3


def test_a_manager_that_hangs_is_replaced_and_its_replica_listens_first(world: World) -> None:
    world.quiet = {"n2"}
    silence = world.replicas["n2"].config.silence_after
    world.run(silence + 1.0)
    n2 = world.replicas["n2"]
    assert n2.layer2.serving.state is ServingState.SILENT and n2.owned == {}
    assert world.answers(A) == {"n1": mac_of("n2")} and "n2" not in world.replicas["n1"].report["fresh"]
    assert act.Note(act.NoteKind.MANAGER_SILENT) in n2.notes
    world.quiet = set()
    world.run(0.8)
    assert n2.layer2.serving.state is ServingState.LISTENING and "n2" in world.replicas["n1"].report["fresh"]
    assert world.answers(A) == {"n1": mac_of("n2")}
    world.run(LISTEN)
    assert world.answers(A) == {"n2": mac_of("n2")} and act.Note(act.NoteKind.MANAGER_BACK) in n2.notes


@pytest.mark.parametrize("spread", [False, True])
def test_a_vip_that_moves_to_a_node_with_a_silent_manager_is_answered_by_another_replica(world: World, spread) -> None:
    world.vips((A, ORDER), (B, ("n3", "n1")), spread=spread)
    world.quiet = {"n2"}
    world.run(SILENT + 0.5)
    assert all("n2" in world.replicas[name].layer2.hellos.fresh for name in ("n1", "n3"))
    world.vips((A, ORDER), (B, ("n2",)), spread=spread)  # n2 does not receive this
    world.run(0.1)
    asked = [
        name for name in world.nodes if mac_of("n2") == world.replicas[name].layer2.asked(NIC, question(B), world.now)
    ]
    assert asked == ["n1"] if spread else world.answers(B) == {"n1": mac_of("n2")}
    world.quiet = set()
    world.run(0.6)
    world.vips((A, ORDER), (B, ("n2",)), spread=spread)
    world.run(SETTLE + 0.3)
    assert not any(world.replicas[name].layer2.hellos.fresh["n2"].stale for name in ("n1", "n3"))
    assert world.answers(B)["n2"] == mac_of("n2") and "n1" not in world.answers(B)


def test_a_replica_without_the_api_answers_for_its_own_node_only(world: World) -> None:
    world.replicas["n3"].do(world.replicas["n3"].layer2.want(replace(world.wanted, outage=True), world.now), world.now)
    world.run(0.5)
    assert world.answers(B) == {"n3": mac_of("n3"), "n1": mac_of("n3")}  # n1 leads
    world.replicas["n1"].do(world.replicas["n1"].layer2.want(replace(world.wanted, leader="n3"), world.now), world.now)
    world.run(0.2)
    world.hung = {"n2"}
    world.run(0.5)
    assert world.answers(A) == {"n1": mac_of("n2")}  # also if the leader cannot reach the API
    for name in ("n1", "n2"):
        replica = world.replicas[name]
        replica.do(replica.layer2.want(replace(world.wanted, outage=True), world.now), world.now)
    world.hung = set()
    world.run(0.5)
    assert world.answers(A) == {"n2": mac_of("n2")} and world.answers(B) == {"n3": mac_of("n3")}  # no API anywhere


def test_a_restarted_process_knows_nothing_and_takes_over_again(world: World) -> None:
    world.restart("n2")
    world.run(0.3)
    assert world.answers(A) == {"n1": mac_of("n2")}
    world.run(LISTEN + 0.2)
    assert world.answers(A) == {"n2": mac_of("n2")}
    assert world.replicas["n2"].report["dead"] == frozenset()
    assert set(world.replicas["n2"].report["fresh"]) == {"n1", "n3"}


def test_the_manager_is_told_which_dead_nodes_have_never_answered() -> None:
    made = World("n1", "n2", "n3")
    made.vips((A, ("n1", "n2", "n3")))
    made.cut = {"n3"}
    made.run(8.0)
    report = made.replicas["n1"].report
    assert report["dead"] == report["unheard"] == {"n3"}
    made.cut = set()
    made.run(1.0)
    assert report["dead"] == report["unheard"] == frozenset()
    made.cut = {"n3"}
    made.run(1.0)
    assert report["dead"] == {"n3"} and report["unheard"] == frozenset()


def test_hellos_that_are_forged_foreign_or_replayed_change_nothing(world: World) -> None:
    n1 = world.replicas["n1"]
    later = Hello("n2", 1, 2**62, goodbye=True)
    n1.layer2.hello(encode(later, b"another key"), world.now)
    n1.layer2.hello(encode(replace(later, node="n9"), KEY), world.now)
    n1.layer2.hello(encode(replace(later, sequence=1), KEY), world.now)
    assert set(n1.layer2.hellos.fresh) == {"n2", "n3"}
    counters = n1.layer2.counters
    assert [counters[f"hellos_{why}"] for why in ("wrong_key", "foreign", "replay")] == [1, 1, 1]


def test_a_new_leader_answers_for_nodes_without_a_replica(world: World) -> None:
    world.hung = {"n2"}
    world.run(0.5)
    assert world.answers(A) == {"n1": mac_of("n2")}
    world.wanted = replace(world.wanted, leader="n3")
    for node in ("n1", "n3"):
        world.tell(node)
    world.run(0.2)
    assert world.answers(A) == {"n3": mac_of("n2")}


def test_a_new_mac_of_the_next_hop_is_taken_over_and_announced(world: World) -> None:
    world.hung = {"n2"}
    world.run(0.5)
    clear(world)
    n1 = world.replicas["n1"]
    heard = n1.layer2.heard(NIC, ip_address("10.0.0.2").packed, b"\2\2\2\2\2\2", world.now)
    n1.do(heard, world.now)
    n1.settle(world.now)
    assert n1.owned[PACKED] == mac_of("n2")  # the old MAC still answers
    world.cut = {"n2"}
    world.run(0.17)
    heard = n1.layer2.heard(NIC, ip_address("10.0.0.2").packed, b"\2\2\2\2\2\2", world.now)
    n1.do(heard, world.now)
    n1.settle(world.now)
    assert n1.owned[PACKED] == b"\2\2\2\2\2\2"
    world.tick()
    assert PACKED in moves(world, "n1")


def test_our_own_new_mac_reopens_the_interface(world: World) -> None:
    n2 = world.replicas["n2"]
    clear(world)
    n2.do(n2.layer2.nics_changed(nics_of("n2", mac=b"\2\2\2\2\2\2"), world.now), world.now)
    n2.settle(world.now)
    assert n2.owned[PACKED] == b"\2\2\2\2\2\2"
    world.tick()
    assert PACKED in moves(world, "n2")
    told = n2.report["nics"]
    assert [nic.mac for nic in told] == [b"\2\2\2\2\2\2"]


def test_an_interface_without_carrier_answers_nothing_and_says_so(world: World) -> None:
    n2 = world.replicas["n2"]
    n2.said.clear()
    actions = n2.layer2.nics_changed(nics_of("n2", up=False), world.now)
    said = [action.hello for action in actions if isinstance(action, act.Say)]
    assert [[state.up for state in hello.segments] for hello in said] == [[False]]
    n2.do(actions, world.now)
    world.tick()
    world.run(0.02)
    assert world.answers(A) == {"n1": mac_of("n1")}  # the others know without a probe
    assert n2.open == set()
    world.run(6.0)
    waiting = n2.layer2._announcer.next_at
    assert waiting is None or waiting > world.now + 1.0  # it does not try to announce on a link without carrier


def test_an_interface_that_cannot_be_opened_is_given_up_and_tried_again(world: World) -> None:
    n2 = world.replicas["n2"]
    n2.trouble = {NIC}
    n2.do(n2.layer2.interface_failed(NIC, "gone", world.now), world.now)
    n2.settle(world.now)
    world.run(0.1)
    assert world.answers(A) == {"n1": mac_of("n2")}  # n2 reports that it does not answer
    assert n2.layer2.interfaces.trouble == {NIC: "gone"}
    n2.trouble = set()
    world.run(1.3)
    assert world.answers(A) == {"n2": mac_of("n2")}


def test_a_vip_that_is_not_wanted_any_more_is_let_go(world: World) -> None:
    world.vips((B, ("n3", "n1", "n2")))
    world.run(0.1)
    assert world.answers(A) == {} and world.answers(B) == {"n3": mac_of("n3")}
    clear(world)
    world.run(5.0)
    assert PACKED not in moves(world, "n2")
    world.vips((A, ("n1", "n2")), (B, ("n3",)))
    world.run(0.1)
    assert world.answers(A) == {"n1": mac_of("n1")}


def test_ipv6_vips_join_and_leave_their_group() -> None:
    made = World("n1", "n2")
    made.replicas["n1"].do(
        made.replicas["n1"].layer2.nics_changed(
            {NIC: replace(nics_of("n1")[NIC], addresses=(*nics_of("n1")[NIC].addresses, ip_interface("fd00::1/64")))},
            made.now,
        ),
        made.now,
    )
    made.vips(("fd00::100", ("n1", "n2")), (A, ("n1",)))
    made.run(0.1)
    six = ip_address("fd00::100").packed
    assert made.replicas["n1"].joined == {six}  # also while it listens: questions show which VIPs are requested
    n1 = made.replicas["n1"]
    up = n1.layer2.interfaces.nics
    n1.do(n1.layer2.nics_changed({NIC: replace(up[NIC], up=False)}, made.now), made.now)
    n1.settle(made.now)
    assert n1.joined == {six}  # its carrier may return
    n1.do(n1.layer2.nics_changed(up, made.now), made.now)
    n1.settle(made.now)
    made.vips((A, ("n1",)))
    assert n1.joined == set()


def test_a_vip_goes_to_the_interface_that_it_names_or_that_leads_to_its_goal() -> None:
    made = World("n1")
    n1 = made.replicas["n1"]
    other = Nic("eth1", 2, b"\2\0\0\0\1\1", True, (ip_interface("10.1.0.1/24"),))
    n1.routes = {"8.8.8.8": 2}
    n1.do(n1.layer2.nics_changed({**nics_of("n1"), 2: other}, made.now), made.now)
    made.rows = {
        text: [text, ["n1"], interface, goal]
        for text, interface, goal in (
            ("10.9.0.1", "eth1", ""),
            ("10.9.0.2", "", "8.8.8.8"),
            ("10.9.0.3", "", "10.0.0.77"),
            ("10.9.0.4", "", ""),
            ("10.9.0.5", "eth7", ""),
        )
    }
    made.tell("n1")
    made.run(LISTEN + 0.5)
    n1.settle(made.now)
    found = {str(ip_address(address)): mac for address, mac in n1.owned.items()}
    assert found == {"10.9.0.1": other.mac, "10.9.0.2": other.mac, "10.9.0.3": mac_of("n1")}
    assert n1.answering["10.9.0.4"].answerer == ""


def test_in_doubt_nothing_changes_also_where_the_manager_wants_it(world: World) -> None:
    world.cut = {"n1"}
    world.run(0.4)
    n1 = world.replicas["n1"]
    assert n1.report["doubt"] and n1.layer2.serving.frozen
    before, answering = dict(n1.owned), dict(n1.answering)
    clear(world)
    world.vips((A, ("n1",)), (B, ("n1",)))
    world.run(0.5)
    assert (n1.owned, n1.answering) == (before, answering) and moves(world, "n1") == []
    assert n1.report["applied"] == world.digest  # the order is applied, and n1 waits
    world.cut = set()
    world.run(LISTEN + 0.5)
    assert world.answers(A) == {"n1": mac_of("n1")}


def test_an_announcement_that_could_not_be_sent_is_repeated(world: World) -> None:
    n1 = world.replicas["n1"]
    clear(world)
    n1.sends = False
    world.cut = {"n2"}
    world.run(0.5)
    assert moves(world, "n1") == []
    n1.sends = True
    world.run(0.1)
    assert PACKED in moves(world, "n1")


def link_lost(world: World, node: str) -> bytes:
    """The hello of a node without carrier."""
    actions = world.replicas[node].layer2.nics_changed(nics_of(node, up=False), world.now)
    return next(encode(action.hello, KEY) for action in actions if isinstance(action, act.Say))


def test_a_node_without_the_network_of_its_internal_ip_is_dead_for_every_vip_also_for_itself(world: World) -> None:
    """The manager's list of nodes to probe does not include our own node."""
    n2 = world.replicas["n2"]
    second = Nic("eth1", 2, b"\2\0\0\0\1\2", True, (ip_interface("10.1.0.2/24"),))
    wanted = replace(world.wanted, nodes={n: a for n, a in world.wanted.nodes.items() if n != "n2"})
    n2.do(n2.layer2.want(wanted, world.now), world.now)
    n2.do(n2.layer2.nics_changed({**nics_of("n2"), 2: second}, world.now), world.now)
    n2.layer2.nodes.heard(NIC, ip_address("10.0.0.1").packed, mac_of("n1"), world.now)
    assert n2.layer2.nodes._internal["n2"] == {NIC}
    n2.do(n2.layer2.nics_changed({**nics_of("n2", up=False), 2: second}, world.now), world.now)
    world.run(0.1)
    assert "n2" in n2.layer2.nodes.dead


def test_a_link_to_a_router_is_reported_also_if_it_has_link_local_addresses_only(world: World) -> None:
    n2 = world.replicas["n2"]
    link = Nic("fab0", 2, b"\2\0\0\0\1\2", False, (ip_interface("fe80::12/64"),))

    def reported(actions: list[act.Action]) -> list[bool]:
        """Whether the link is up, by report."""
        told = [action.fields["nics"] for action in actions if isinstance(action, act.Report)]
        return [nic.up for nics in told for nic in nics if nic.name == "fab0"]

    assert reported(n2.layer2.nics_changed({**nics_of("n2"), 2: link}, world.now)) == [], "a pod, as far as is known"
    wanted = replace(world.wanted, routers=("fab0",))
    assert reported(n2.layer2.want(wanted, world.now)) == [False]
    up = {**nics_of("n2"), 2: replace(link, up=True)}
    assert reported(n2.layer2.nics_changed(up, world.now)) == [True]
    assert reported(n2.layer2.want(wanted, world.now)) == []


def test_many_vips_are_decided_in_slices_and_urgent_ones_first() -> None:
    made = World("n1", "n2", "n3")
    rows = [(str(ip_address("10.0.0.0") + i), ORDER) for i in range(10, 250) if i != 200] + [("10.0.0.250", ("n3",))]
    made.vips(*rows)
    made.run(LISTEN + 0.5)
    n1 = made.replicas["n1"]
    lately = ip_address("10.0.0.240").packed
    n1.layer2.vips[lately].ask(question("10.0.0.240"), False, made.now)
    n1.do(n1.layer2.want_vips([["10.0.0.250", ["n1"], "", ""]], []), made.now)  # not urgent
    actions = n1.layer2.hello(link_lost(made, "n2"), made.now)
    dead = frozenset({"n2"})
    owned = [action.address for action in actions if isinstance(action, act.Own)]
    announced = [action.address for action in actions if isinstance(action, act.Announce)]
    assert len(owned) == SLICE and announced[0] == lately, "the first ones in the event itself"
    told = act.Report({"dead": dead, "dead_on": {"10.0.0.0/24": dead}, "unheard": frozenset()}, True)
    assert not any(isinstance(action, act.Own | act.Announce | act.Say) for action in actions[actions.index(told) :])
    for _ in range(100):
        if not n1.layer2.busy:
            break
        step = n1.layer2.step(made.now)
        news = [action.address for action in step if isinstance(action, act.Own)]
        assert len({action.vip for action in step if isinstance(action, act.Served)}) <= SLICE
        assert len(news) <= SLICE
        owned += news
    assert not n1.layer2.busy and len(owned) == len(rows)
    assert owned[0] == lately and owned[-1] == ip_address("10.0.0.250").packed


def test_what_stays_ours_is_announced_again_when_a_partition_ends(world: World) -> None:
    world.run(6.0)  # the rounds after the start are over
    clear(world)
    world.cut = {"n3"}
    world.run(0.5)
    assert PACKED not in moves(world, "n2")
    world.cut = set()
    world.run(0.3)
    assert PACKED in moves(world, "n2")  # n3 may also have taken it over on its side of the partition


def test_a_next_hop_whose_mac_is_not_known_is_not_answered_for_and_reported_so(world: World) -> None:
    world.vips((A, ("n9",)))
    world.run(0.1)
    assert world.answers(A) == {}
    assert world.replicas["n1"].answering[A] == Answering("n9", "")  # n1 leads


def test_probes_and_announcements_of_a_vip_are_no_use_of_it() -> None:
    vip = Vip(A, new=True)
    for sender in ("0.0.0.0", A):
        vip.ask(question(A, sender), False, 1.0)
        assert vip.asked < 0 and vip.question is None
    vip.ask(question(A), False, 2.0)
    assert vip.asked == 2.0 and vip.question == question(A)
    vip.ask(question(A, "0.0.0.0"), False, 3.0)
    assert vip.question == question(A), "a probe of another host does not end the wait for an answer"
    vip.ask(question(A, A), False, 4.0)
    assert vip.asked == 2.0 and vip.question is None, "whoever announced it answers from now on"


def test_what_was_asked_for_lately_is_announced_first_also_where_the_manager_moves_it() -> None:
    made = World("n1", "n2")
    rows = [str(ip_address("10.0.0.0") + i) for i in range(10, 250)]
    made.vips(*((text, ("n2", "n1")) for text in rows))
    made.run(LISTEN + 0.5)
    n1 = made.replicas["n1"]
    n1.layer2.vips[ip_address("10.0.0.200").packed].ask(question("10.0.0.200"), False, made.now)
    clear(made)
    n1.do(n1.layer2.want_vips([[text, ["n1", "n2"], "", ""] for text in rows], []), made.now)
    n1.settle(made.now)
    n1.do(n1.layer2.wake(made.now, 0.0), made.now)
    assert n1.announced[0][1] == ip_address("10.0.0.200").packed


def test_what_was_asked_for_lately_is_announced_first() -> None:
    made = World("n1", "n2")
    rows = [(str(ip_address("10.0.0.0") + i), ("n2", "n1")) for i in range(10, 250)]
    made.vips(*rows)
    made.run(LISTEN + 0.5)
    n1 = made.replicas["n1"]
    lately = [ip_address("10.0.0.0") + i for i in (77, 99, 240)]
    for address in lately:
        n1.layer2.vips[address.packed].ask(question(str(address)), False, made.now)
    clear(made)
    n1.do(n1.layer2.hello(link_lost(made, "n2"), made.now), made.now)
    n1.settle(made.now)
    n1.do(n1.layer2.wake(made.now, 0.0), made.now)
    assert {ip_address(address) for _, address, _ in n1.announced[:3]} == set(lately)


def test_a_replica_on_a_dead_node_is_not_asked_to_answer_though_its_hello_is_fresh(world: World) -> None:
    around = world.replicas["n1"].layer2._around
    usage, vip = around.interfaces.used[NIC], ip_address(A)
    assert around.replicas(usage, vip) == {"n1", "n2", "n3"}
    around.dead = frozenset({"n2"})
    around.forget()
    assert around.replicas(usage, vip) == {"n1", "n3"}
    assert around.replicas(None, vip) == {"n3"}  # of a segment that we are not on


@pytest.mark.parametrize("sessions", [frozenset(), frozenset({"router"})])
def test_a_bgp_session_is_evidence_that_the_link_works_where_there_is_no_gateway(sessions) -> None:
    made = World("n1", "n2")
    made.wanted = replace(made.wanted, sessions=sessions)
    made.vips((A, ("n2", "n1")))
    made.run(LISTEN + 0.5)
    made.cut = {"n2"}
    made.run(0.5)
    n1 = made.replicas["n1"]
    assert bool(n1.report.get("doubt")) is not bool(sessions)
    assert (n1.owned == {PACKED: mac_of("n1")}) is bool(sessions)


def test_in_doubt_nothing_is_announced(world: World) -> None:
    world.cut = {"n2"}
    world.run(0.5)
    clear(world)
    world.run(3.0)  # the rounds after the start are not over
    assert world.replicas["n2"].report["doubt"] and moves(world, "n2") == []


def test_who_comes_out_of_a_stall_is_not_fit_to_answer_until_it_has_heard_the_others(world: World) -> None:
    layer2 = world.replicas["n2"].layer2
    assert layer2.fit(world.now)
    later = world.now + 1.0
    assert not layer2.fit(later)
    layer2.hello_tick(later)
    assert layer2.fit(later)


def test_after_a_goodbye_nothing_else_is_said(world: World) -> None:
    layer2 = world.replicas["n2"].layer2
    layer2.stop(world.now)
    actions = layer2.nics_changed(nics_of("n2", up=False), world.now)
    actions += layer2.want(replace(world.wanted, leader="n3"), world.now)
    assert [action for action in actions if isinstance(action, act.Say)] == []


def test_a_new_leader_alone_changes_who_answers_for_a_node_without_a_replica(world: World) -> None:
    world.hung = {"n2"}
    world.run(0.5)
    wanted = replace(world.wanted, leader="n3")
    for node in ("n1", "n3"):
        replica = world.replicas[node]
        replica.do(replica.layer2.want(wanted, world.now), world.now)
        replica.settle(world.now)
    assert world.answers(A) == {"n3": mac_of("n2")}


# ---- foreign hosts


def test_who_still_listens_reports_no_foreign_host() -> None:
    made = World("n1", "n2")
    made.vips((A, ("n2", "n1")))
    n1 = made.replicas["n1"]
    n1.layer2.claimed(PACKED, FOREIGN, made.now)
    made.run(LISTEN - 0.1)
    assert "conflicts" not in n1.report  # it may be a node that has not answered yet
    made.run(0.5)
    assert {str(address) for address in n1.report["conflicts"]} == {A}


def test_a_foreign_host_is_reported_and_the_answerer_defends(world: World) -> None:
    clear(world)
    for replica in world.replicas.values():
        replica.layer2.claimed(PACKED, FOREIGN, world.now)
        replica.do(replica.layer2.heard(NIC, ip_address(B).packed, FOREIGN, world.now), world.now)
    world.run(CONFIRM + 0.3)
    for node, replica in world.replicas.items():
        assert {str(a): r.mac for a, r in replica.report["conflicts"].items()} == {A: FOREIGN, B: FOREIGN}
        defences = [address for _, address, defence in replica.announced if defence]
        assert defences == {"n1": [], "n2": [PACKED], "n3": [ip_address(B).packed]}[node]
        assert replica.layer2.counters.get("defences", 0) == len(defences)
    world.vips((B, ("n3", "n1", "n2")))
    world.run(0.3)
    assert {str(a) for a in world.replicas["n1"].report["conflicts"]} == {B}


def test_nodes_and_broken_macs_are_no_foreign_hosts(world: World) -> None:
    for replica in world.replicas.values():
        replica.layer2.claimed(PACKED, mac_of("n3"), world.now)
        replica.layer2.claimed(PACKED, b"\xff" * 6, world.now)
        replica.do(replica.layer2.heard(NIC, PACKED, mac_of("n2"), world.now), world.now)
    world.run(1.0)
    assert not any(replica.report.get("conflicts") for replica in world.replicas.values())


def test_addresses_are_checked_before_their_first_use(world: World) -> None:
    free, taken, own, off = map(ip_address, ("10.0.0.70", "10.0.0.71", "10.0.0.1", "192.0.2.1"))
    world.wanted = replace(world.wanted, check=frozenset({free, taken, own, off}))
    n1 = world.replicas["n1"]
    world.tell("n1")
    world.run(0.05)
    n1.do(n1.layer2.heard(NIC, taken.packed, FOREIGN, world.now), world.now)
    world.run(0.3)
    assert n1.report["claimed"] == {taken: FOREIGN, own: mac_of("n1")} and n1.report["clear"] == {free, off}
    assert [text for _, text in n1.checked].count(str(free)) == 3 and str(off) not in [t for _, t in n1.checked]
    world.wanted = replace(world.wanted, check=frozenset({ip_address(A)}))
    world.tell("n1")
    n1.do(n1.layer2.heard(NIC, PACKED, mac_of("n2"), world.now), world.now)
    assert n1.report["claimed"] == {}  # a replica of ours answers for this VIP
    n1.do(n1.layer2.heard(NIC, PACKED, FOREIGN, world.now), world.now)
    assert n1.report["claimed"] == {ip_address(A): FOREIGN}
    world.wanted = replace(world.wanted, check=frozenset())
    world.tell("n1")
    assert n1.report["claimed"] == {} and n1.report["clear"] == frozenset()


# ---- any order of events


_STORY = st.lists(
    st.tuples(
        st.sampled_from(["cut", "heal", "hang", "go on", "restart", "vips", "leader", "nothing"]),
        st.sampled_from(["n1", "n2", "n3"]),
        st.integers(1, 120),
    ),
    max_size=8,
)


@settings(max_examples=20, deadline=None)
@given(_STORY)
def test_after_any_story_one_replica_answers_for_each_vip_with_the_mac_of_its_next_hop(story) -> None:
    world = World("n1", "n2", "n3")
    world.vips((A, ORDER), (B, ("n3", "n1", "n2")))
    for what, node, ticks in story:
        if what == "cut":
            world.cut = {node}
        elif what == "heal":
            world.cut = set()
        elif what == "hang":
            world.hung = {node}
        elif what == "go on":
            world.hung = set()
        elif what == "restart":
            world.hung -= {node}
            world.restart(node)
        elif what == "vips":
            world.vips((A, (node, *(other for other in ORDER if other != node))))
        elif what == "leader":
            world.wanted = replace(world.wanted, leader=node)
            for name in world.nodes:
                world.tell(name)
        for _ in range(ticks):
            world.tick()
            for vip in world.rows:
                answers = world.answers(vip)
                for name, mac in answers.items():  # never a MAC that no node has
                    assert mac in {mac_of(other) for other in world.nodes}, name
    world.cut, world.hung = set(), set()
    world.run(4.0)
    for vip, row in world.rows.items():
        first = row[1][0]
        assert world.answers(vip) == {first: mac_of(first)}
        for replica in world.replicas.values():
            assert replica.answering[vip] == Answering(first, first)
            assert replica.report["dead"] == frozenset() and not replica.report["doubt"]
