"""Which node is dead on which segment, over time: replicas in memory, with loss, filters, one-way links, power cuts."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_interface

import pytest

from porterlb.core.hello import GATEWAY, Hello, SegmentState
from porterlb.core.layer2.arp import BROADCAST
from porterlb.core.layer2.failure_detector import DIFFERS, FailureDetector, Timing
from porterlb.core.layer2.probes import BURST, MOST_BURSTS, NEVER_HEARD, Probes
from porterlb.core.layer2.targets import Target, TargetKey
from porterlb.core.layer2.verdict import Cause, Place, Vote
from porterlb.core.observed import Nic
from tests.core.layer2.simulation import DEFAULT, FAST, World

PROFILES = pytest.mark.parametrize("timing", [DEFAULT, FAST], ids=["default", "fast"])


def settled(*names: str, **fields) -> World:
    made = World(*names, **fields)
    made.run(1.5)
    assert not made.deaths
    return made


def dead_everywhere(world: World, node: str, *but: str, segment: int = 0) -> bool:
    return all(
        (node, segment) in replica.dead
        for replica in world.replicas.values()
        if replica.powered and replica.name not in but
    )


def causes(world: World, name: str) -> dict[str, Cause]:
    return {place.node: cause for place, cause in world.replicas[name].detector.judgement.causes.items()}


# ---- no false deaths


@PROFILES
@pytest.mark.parametrize("loss", [0.0, 0.01, 0.03, 0.05, 0.1])
def test_random_loss_kills_nobody(timing, loss) -> None:
    """One minute each, with and without a gateway; ``python -m bench liveness`` simulates ten minutes."""
    for gateway in (False, True):
        world = World("a", "b", "c", timing=timing, loss=loss, seed=round(loss * 100) + 11, gateway=gateway)
        world.run(30.0)
        assert world.deaths == []


def test_random_loss_kills_no_node_without_a_replica() -> None:
    """No hello contradicts the death: the majority of voters does."""
    world = World("a", "b", "c", extra=("bare",), loss=0.1, seed=5, gateway=True)
    world.run(30.0)
    assert world.deaths == []


def test_two_nodes_with_a_gateway_survive_loss_too() -> None:
    world = World("a", "b", loss=0.1, seed=3, gateway=True)
    world.run(60.0)
    assert world.deaths == []


# ---- power loss


@PROFILES
@pytest.mark.parametrize("gateway", [False, True])
def test_a_power_loss_is_found_in_time(timing, gateway) -> None:
    least, most = (0.1, 0.2) if timing is DEFAULT else (0.03, 0.065)
    took = []
    for seed in range(20):
        world = World("a", "b", "c", timing=timing, seed=seed, gateway=gateway)
        world.run(1.0 + 0.0037 * seed)
        world.power_off("b")
        took.append(world.until(lambda w=world: dead_everywhere(w, "b")))
        world.run(0.5)
        assert {node for _, _, node, _ in world.deaths} == {"b"}
    assert least < min(took) and max(took) < most


def test_a_power_loss_is_found_among_two_nodes_with_a_gateway_and_under_loss() -> None:
    world = settled("a", "b", gateway=True)
    world.power_off("b")
    assert world.until(lambda: dead_everywhere(world, "b")) < 0.2
    lossy = World("a", "b", "c", loss=0.1, seed=4, gateway=True)
    lossy.run(1.5)
    lossy.power_off("b")
    assert lossy.until(lambda: dead_everywhere(lossy, "b")) < 0.4


def test_a_node_that_returns_is_alive_at_its_first_answers() -> None:
    world = settled("a", "b", "c")
    world.power_off("b")
    world.run(1.0)
    world.power_on("b")
    assert world.until(lambda: not world.replicas["a"].dead and not world.replicas["c"].dead) < 0.3
    assert ("b", 0) not in world.replicas["b"].dead


def test_the_last_other_node_without_a_third_party_changes_nothing() -> None:
    """The fault may be on our own link. A client's request shows that it is not."""
    world = settled("a", "b")
    world.power_off("b")
    world.run(2.0)
    assert world.deaths == [] and world.replicas["a"].detector.judgement.doubt
    assert causes(world, "a")["b"] is Cause.NO_VOTER
    world.evidence = lambda name, now: now
    world.until(lambda: ("b", 0) in world.replicas["a"].dead)
    assert not world.replicas["a"].detector.judgement.doubt
    world.evidence = lambda name, now: 0.0
    world.power_on("b")
    world.until(lambda: not world.replicas["a"].dead)


def test_a_node_without_a_replica_dies_by_the_majority_and_in_time() -> None:
    world = settled("a", "b", "c", extra=("bare",), gateway=True)
    world.power_off("bare")
    assert world.until(lambda: dead_everywhere(world, "bare")) < 0.25


def test_a_node_that_never_answered_is_no_candidate_after_six_seconds() -> None:
    world = World("a", "b", "c", extra=("off",))
    world.power_off("off")
    world.run(3.0)
    assert world.deaths == []
    world.run(5.0)
    assert dead_everywhere(world, "off")
    world.power_on("off")
    world.until(lambda: not any(replica.dead for replica in world.replicas.values()))


# ---- links


def test_one_way_links_of_a_node_to_everybody() -> None:
    """b receives and sends hellos, but requests to it do not arrive. The other replicas agree that it is dead."""
    world = settled("a", "b", "c", gateway=True)
    world.arp = lambda sender, receiver, segment: receiver != "b"
    assert world.until(lambda: dead_everywhere(world, "b")) < 0.3
    world.run(1.0)
    assert {node for _, _, node, _ in world.deaths} == {"b"}  # also on b itself: it stops answering


def test_a_node_that_can_receive_only_is_dead_by_silence() -> None:
    world = settled("a", "b", "c", gateway=True)
    world.arp = world.hellos = lambda sender, receiver, segment: sender != "b"
    assert world.until(lambda: dead_everywhere(world, "b", "b")) < 0.25


def test_a_link_between_two_nodes_alone_kills_nobody() -> None:
    """a and b do not hear each other in one direction or both; c hears both."""
    for blocked in ({("a", "b")}, {("b", "a")}, {("a", "b"), ("b", "a")}):
        world = settled("a", "b", "c")
        world.arp = world.hellos = lambda sender, receiver, segment, b=blocked: (sender, receiver) not in b
        world.run(5.0)
        assert world.deaths == []


@pytest.mark.parametrize("direction", ["in", "out", "both"])
def test_arp_filtered_at_one_node_while_hellos_flow(direction) -> None:
    """E3: it must not declare the others dead; they declare it dead, and it learns that from their hellos."""
    world = settled("a", "b", "c", gateway=True)

    def arp(sender: str, receiver: str, segment: int) -> bool:
        if GATEWAY in (sender, receiver):
            return True
        return not (receiver == "b" and direction != "out") and not (sender == "b" and direction != "in")

    world.arp = arp
    assert world.until(lambda: dead_everywhere(world, "b")) < 0.4
    world.run(2.0)
    assert {node for _, _, node, _ in world.deaths} == {"b"}
    assert causes(world, "a")["b"] in (Cause.OUTVOTED, Cause.NO_CONTACT)
    assert world.replicas["b"].detector.judgement.differs == {0}  # and it doubts itself
    world.arp = lambda sender, receiver, segment: True
    world.until(lambda: not any(replica.dead for replica in world.replicas.values()))
    world.run(0.1)
    assert not world.replicas["b"].detector.judgement.differs


def test_hellos_filtered_everywhere_while_probes_are_answered() -> None:
    world = settled("a", "b", "c")
    world.hellos = lambda sender, receiver, segment: False
    world.run(3.0)
    assert world.deaths == []
    world.power_off("b")
    assert world.until(lambda: dead_everywhere(world, "b")) < 0.25
    assert {node for _, _, node, _ in world.deaths} == {"b"}


def test_a_partition_leaves_both_sides_with_contact_serving() -> None:
    world = settled("a", "b", "c", "d")
    side = {"a": 0, "b": 0, "c": 1, "d": 1}
    world.arp = world.hellos = lambda sender, receiver, segment: side[sender] == side[receiver]
    world.run(1.0)
    assert world.replicas["a"].dead == world.replicas["b"].dead == {("c", 0), ("d", 0)}
    assert world.replicas["c"].dead == world.replicas["d"].dead == {("a", 0), ("b", 0)}


def test_who_is_cut_off_from_everybody_changes_nothing() -> None:
    world = settled("a", "b", "c", gateway=True)
    world.arp = world.hellos = lambda sender, receiver, segment: "a" not in (sender, receiver)
    world.run(3.0)
    assert world.replicas["a"].dead == set() and world.replicas["a"].detector.judgement.doubt
    assert dead_everywhere(world, "a", "a")
    world.arp = world.hellos = lambda sender, receiver, segment: True
    world.until(lambda: not world.replicas["a"].detector.judgement.doubt)
    world.run(1.0)
    assert not any(replica.dead for replica in world.replicas.values())
    assert {node for _, _, node, _ in world.deaths} == {"a"}


def test_a_replica_that_hangs_does_not_kill_its_node() -> None:
    world = settled("a", "b", "c")
    world.replicas["b"].runs = False
    world.run(3.0)
    assert world.deaths == []


def test_a_replica_that_restarts_kills_nobody_and_is_not_killed() -> None:
    world = settled("a", "b", "c")
    old = world.replicas["b"]
    world.run(0.3)
    old.detector = FailureDetector("b", DEFAULT)
    old.configure()
    world.run(2.0)
    assert world.deaths == []


# ---- several segments


def test_a_second_segment_is_judged_by_itself() -> None:
    """E1: the second NIC loses its carrier, or its port leaves the VLAN; the first NIC works."""
    for lost in ("carrier", "vlan"):
        world = settled("a", "b", "c", segments=(0, 1), gateway=True)
        if lost == "carrier":
            world.set_up("b", 1, False)
        else:
            world.arp = lambda sender, receiver, segment: segment == 0 or "b" not in (sender, receiver)
        assert world.until(lambda w=world: dead_everywhere(w, "b", segment=1)) < 0.3
        world.run(1.0)
        assert {(node, segment) for _, _, node, segment in world.deaths} == {("b", 1)}
        if lost == "carrier":
            assert causes(world, "a")["b"] is Cause.LINK_DOWN


def test_a_node_whose_hello_names_no_interface_on_a_segment_is_not_there() -> None:
    world = settled("a", "b", "c", segments=(0, 1))
    del world.replicas["b"].up[1]
    world.replicas["b"].configure()
    world.until(lambda: ("b", 1) in world.replicas["a"].dead)
    assert causes(world, "a")["b"] is Cause.NOT_THERE and ("b", 0) not in world.replicas["a"].dead


# ---- one replica, event by event


NIC = Nic("eth0", 1, b"\2" * 6, True, (ip_interface("10.77.0.1/24"),))
B, C = TargetKey(1, bytes([10, 77, 0, 2])), TargetKey(1, bytes([10, 77, 0, 3]))


def alone() -> FailureDetector:
    made = FailureDetector("a", Timing())
    made.set_nics({1: NIC})
    made.set_targets([Target("b", B), Target("c", C)], {"a", "b", "c"})
    for key in (B, C):
        made.heard(*key, b"\4" * 6, 1.0)
    return made


def test_a_hello_that_suspects_us_is_answered_at_once() -> None:
    made = alone()
    made.speak(1.0)
    state = SegmentState((NIC.addresses[0].network,), contacts=("c",), suspect=frozenset("a"))
    assert made.said(Hello("b", 1, 1, segments=(state,)), 1.02) and made.step(1.02).say
    made.speak(1.02)
    assert not made.said(Hello("b", 1, 2, segments=(state,)), 1.03)  # the same hello again
    assert not made.step(1.04).say


def test_what_a_voter_suspects_gets_a_burst_and_what_others_suspect_does_not() -> None:
    network = (NIC.addresses[0].network,)
    for contacts, bursts in ((("a",), True), (("c",), False), ((), False)):
        made = alone()
        state = SegmentState(network, contacts=contacts, suspect=frozenset("c"))
        assert made.said(Hello("b", 1, 1, segments=(state,)), 1.02)
        assert [probe.key for probe in made.step(1.02).probes] == ([C] if bursts else [])


def test_extra_hellos_are_limited() -> None:
    made = alone()
    made.speak(1.0)
    state = SegmentState((NIC.addresses[0].network,), contacts=("a",), suspect=frozenset("c"))
    made.said(Hello("b", 1, 1, segments=(state,)), 1.001)
    step = made.step(1.001)
    assert not step.say and step.next_at is not None and step.next_at <= 1.0101
    assert made.step(1.0101).say


def test_a_late_tick_says_nothing() -> None:
    made = alone()
    for number in range(20):
        made.tick(1.0 + number * 0.05, 0.03)
        for probe in list(made.due(lambda nic: True)):
            made.sent(probe.key)
        made.step(1.0 + number * 0.05)
    assert not made.judgement.dead and not made.probes.unwell


def test_our_interface_without_carrier_blames_nobody_else() -> None:
    made = alone()
    made.set_nics({1: replace(NIC, up=False)})
    made.set_targets([Target("b", B, up=False), Target("c", C, up=False)], {"a", "b", "c"})
    for number in range(20):
        made.tick(1.0 + number * 0.05, 0.0)
        made.step(1.0 + number * 0.05)
    assert made.judgement.dead == {Place("a", 1)} and made.judgement.doubt
    assert not made.states(2.0)[0].up
    made.set_nics({1: NIC})
    made.set_targets([Target("b", B), Target("c", C)], {"a", "b", "c"})
    made.heard(*B, b"\4" * 6, 2.0)
    made.step(2.0)
    assert not made.judgement.dead and not made.judgement.doubt


def test_a_view_that_differs_for_a_moment_is_no_doubt() -> None:
    made = alone()
    made.set_targets([Target("b", B), Target("c", C), Target("d", TargetKey(1, bytes([10, 77, 0, 4])))], set("abcd"))
    made.heard(1, bytes([10, 77, 0, 4]), b"\4" * 6, 1.0)
    network = (NIC.addresses[0].network,)
    first = None
    for number in range(1, 40):
        now = 1.0 + number * 0.05
        for name in "cd":
            made.said(Hello(name, 1, number, segments=(SegmentState(network, contacts=("a", "b")),)), now)
            made.heard(1, bytes([10, 77, 0, 3 if name == "c" else 4]), b"\4" * 6, now)
        made.tick(now, 0.0)
        for probe in [*made.due(lambda nic: True)]:
            made.sent(probe.key)
        for _ in range(BURST):
            made.step(now)
        if first is None and made.probes.findings[B].silent:
            first = now
        if first is not None:
            assert bool(made.judgement.differs) is (now - first >= DIFFERS - 1e-9), now
    assert first is not None and not made.judgement.dead


# ---- probes


def test_a_burst_is_five_probes_a_fifth_of_an_interval_apart() -> None:
    probes = Probes(0.05, 3)
    probes.set_targets([Target("b", B)])
    probes.heard(B, b"\4" * 6, 1.0)
    sent = []
    now = 1.0
    for _ in range(3):
        now += 0.05
        probes.judge(now)
        for probe in probes.due(lambda nic: True):
            probes.sent(probe.key)
            sent.append((round(now, 3), probe.mac))
    assert probes.findings[B].vote is Vote.SUSPECT
    for step in range(1, 6):
        sent += [(round(now + step * 0.01, 3), probe.mac) for probe in probes.bursts(now + step * 0.01 + 1e-6)]
    assert [at for at, _ in sent] == [1.05, 1.1, 1.15, 1.16, 1.17, 1.18, 1.19]
    assert [mac == BROADCAST for _, mac in sent] == [False, False, True, False, False, False, True]
    assert not probes.judge(1.195 - 0.01) and probes.findings[B].vote is Vote.SUSPECT
    assert probes.judge(1.2) and probes.findings[B].vote is Vote.SILENT
    heard = probes.heard(B, b"\5" * 6, 1.21)
    assert heard is not None and heard.cleared and heard.mac and probes.findings[B].vote is Vote.HEARD


def test_a_node_never_heard_is_asked_less_and_has_no_vote_until_it_is_silent() -> None:
    probes = Probes(0.05, 3)
    probes.set_targets([Target("b", B)])
    sent = 0
    for number in range(1, 1000):
        probes.judge(number * 0.05)
        for probe in probes.due(lambda nic: True):
            assert probe.mac == BROADCAST
            probes.sent(probe.key)
            sent += 1
        if probes.findings[B].silent:
            break
        assert probes.findings[B].vote is None
    assert sent == NEVER_HEARD and 5.0 < number * 0.05 < 7.0


def test_a_node_that_an_earlier_process_heard_is_silent_after_a_second() -> None:
    """Found by the simulator, seed 1187: a restarted wire process took 6 s to detect a node without power."""
    probes = Probes(0.05, 3, heard=("b",))
    probes.set_targets([Target("b", B)])
    for number in range(1, 1000):
        probes.judge(number * 0.05)
        if probes.findings[B].silent:
            break
        for probe in probes.due(lambda nic: True):
            probes.sent(probe.key)
    assert 0.9 < number * 0.05 < 1.2


def test_a_mass_of_suspects_is_no_storm() -> None:
    probes = Probes(0.05, 3)
    keys = [TargetKey(1, number.to_bytes(4, "big")) for number in range(3 * MOST_BURSTS)]
    probes.set_targets([Target(f"n{key.address.hex()}", key) for key in keys])
    for key in keys:
        probes.heard(key, b"\4" * 6, 1.0)
    now, most = 1.0, 0
    for _ in range(20):
        now += 0.05
        probes.judge(now)
        for probe in list(probes.due(lambda nic: True)):
            probes.sent(probe.key)
        for step in range(1, 5):
            most = max(most, len(probes.bursts(now + step * 0.01 + 1e-6)))
    assert most == MOST_BURSTS and all(found.silent for found in probes.findings.values())


def test_a_limit_of_one_probe_works() -> None:
    probes = Probes(0.05, 1)
    probes.set_targets([Target("b", B)])
    probes.heard(B, b"\4" * 6, 1.0)
    for number in range(1, 5):
        probes.judge(1.0 + number * 0.05)
        if number == 1:
            assert not probes.unwell
        for probe in list(probes.due(lambda nic: True)):
            probes.sent(probe.key)
        for step in range(1, 5):
            probes.bursts(1.0 + number * 0.05 + step * 0.01 + 1e-6)
    assert probes.findings[B].silent


def test_what_is_not_wanted_any_more_is_forgotten() -> None:
    probes = Probes(0.05, 3)
    probes.set_targets([Target("b", B), Target("c", C)])
    probes.heard(B, b"\4" * 6, 1.0)
    probes.suspected_elsewhere(B, 1.0)
    probes.set_targets([Target("c", C)])
    assert not probes.bursts(2.0) and list(probes.unwell) == [C]
