"""A VIP with spread: all replicas give a host the same next hop; only the hosts of a dead node move.

Hosts are neighbor caches in memory. They ask all replicas, and verify an entry by asking its MAC.
"""

from __future__ import annotations

from collections import Counter
from ipaddress import ip_address

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from porterlb.core.hello import Assignment
from porterlb.core.layer2 import spread as spread_module
from porterlb.core.layer2.announcer import Announcer
from porterlb.core.layer2.arp import ARP_REQUEST, BROADCAST, Arp
from porterlb.core.layer2.ndp import Solicitation, solicited_node
from porterlb.core.layer2.questions import Asker, asker_of
from porterlb.core.layer2.serving import LISTEN
from porterlb.core.layer2.spread import IDLE, PIECE, RENEW, WITHIN, Roster, Spread
from tests.core.layer2.world import NIC, World, mac_of

VIP = "10.0.0.100"
NODES = ("n1", "n2", "n3")


class Hosts:
    """Hosts on the segment of a world: their neighbor entries for one VIP, by number."""

    def __init__(self, world: World, count: int, vip: str = VIP) -> None:
        self.world = world
        self.vip = ip_address(vip).packed
        self.count = count
        self.entries: dict[int, bytes] = {}
        self.answers: Counter[int] = Counter()
        self.hear()

    def hear(self) -> None:
        """A host that has an entry accepts an unsolicited message, as Linux does."""
        for node, replica in self.world.replicas.items():
            replica.tell = lambda vip, mac, asker, node=node: self._told(node, vip, mac, asker)

    @staticmethod
    def mac(number: int) -> bytes:
        return b"\6\0\0\0" + number.to_bytes(2, "big")

    def _told(self, node: str, vip: bytes, mac: bytes, asker: bytes) -> None:
        number = int.from_bytes(asker[4:], "big")
        if vip == self.vip and node not in self.world.cut and number in self.entries:
            self.entries[number] = mac

    def question(self, number: int, destination: bytes = BROADCAST) -> Arp:
        mac, address = self.mac(number), bytes((10, 0, 1, number % 250 + 1))
        return Arp(mac, ARP_REQUEST, mac, address, bytes(6), self.vip, destination)

    def ask(self, *numbers: int) -> None:
        """Asks all replicas; the first answer counts."""
        for number in numbers or range(self.count):
            macs = self._asked(number, self.question(number), self.world.replicas)
            self.answers[number] = len(macs)
            if macs:
                self.entries[number] = macs[0]

    def verify(self, number: int) -> bool:
        """Asks only the MAC of its entry; returns whether an answer came."""
        mac = self.entries[number]
        macs = self._asked(number, self.question(number, mac), [n for n in self.world.nodes if mac_of(n) == mac])
        if macs:
            self.entries[number] = macs[0]
        return bool(macs)

    def _asked(self, number: int, question: Arp, nodes: object) -> list[bytes]:
        world = self.world
        found = []
        for node in nodes:  # type: ignore[attr-defined]
            replica = world.replicas[node]
            if node in world.cut or node in world.hung or replica.ended or not replica.layer2.fit(world.now):
                continue
            mac = replica.layer2.asked(NIC, question, world.now)
            if mac:
                found.append(mac)
        return found

    def on(self, node: str) -> set[int]:
        return {number for number, mac in self.entries.items() if mac == mac_of(node)}

    def shares(self) -> dict[str, int]:
        return {node: len(self.on(node)) for node in self.world.nodes}


def world_with(hosts: int = 12, nodes: tuple[str, ...] = NODES) -> tuple[World, Hosts]:
    world = World(*nodes)
    world.vips((VIP, nodes), spread=True)
    world.run(3)
    found = Hosts(world, hosts)
    for number in range(hosts):
        found.ask(number)
        world.run(0.05)
    return world, found


def tables(world: World) -> list[dict[str, int]]:
    """The VIP's askers by node, as each running replica reports them."""
    world.run(1.2)
    live = [r for n, r in world.replicas.items() if not r.ended and n not in world.hung and n not in world.cut]
    return [dict(replica.report.get("askers", {}).get(VIP, {})) for replica in live]


def test_hosts_are_spread_evenly_and_each_is_answered_once() -> None:
    world, hosts = world_with()
    assert hosts.shares() == {"n1": 4, "n2": 4, "n3": 4}
    assert set(hosts.answers.values()) == {1}
    assert tables(world) == [{"n1": 4, "n2": 4, "n3": 4}] * 3
    before = dict(hosts.entries)
    hosts.ask()
    assert hosts.entries == before and all(hosts.verify(number) for number in range(12)) and hosts.entries == before


def test_a_replica_that_starts_does_not_answer_before_it_knows_the_hosts_of_the_others() -> None:
    world, _ = world_with()
    starts = world.restart("n2").layer2
    informed = [False]
    starts._spread.informed = lambda *_: informed[0]  # type: ignore[method-assign]
    world.run(LISTEN + 0.5)
    assert starts.serving.listened(world.now) and not starts.serving.answers
    informed[0] = True
    world.run(0.5)
    assert starts.serving.answers


def test_no_announcement_goes_to_everybody_but_the_first_one() -> None:
    world = World(*NODES)
    world.vips((VIP, NODES), spread=True)
    world.run(3)
    assert [len(r.announced) for r in world.replicas.values()] == [0, 0, 0]  # the VIP may have been served before
    world.vips((VIP, NODES), ("10.0.0.101", NODES), spread=True)
    hosts = Hosts(world, 6)
    world.run(5)
    assert sorted(len(r.announced) for r in world.replicas.values()) == [0, 0, 1]
    hosts.ask()
    assert not any(
        hosts.vip in r.layer2._announcer._current for r in world.replicas.values()
    )  # no further announcements will follow


def test_the_only_node_that_is_left_is_announced_to_all_for_some_hosts_may_not_be_known() -> None:
    """Found by the simulator, seeds 424 and 442: after restarts no replica knew a host that used the dead node."""
    world = World(*NODES)
    world.vips((VIP, ("n1", "n2")), spread=True)
    world.run(3)
    packed = ip_address(VIP).packed
    replicas = world.replicas
    assert not any(replica.announced for replica in replicas.values()), "hosts of both nodes are where they belong"
    world.cut = {"n2"}
    world.run(0.5)
    assert [one for _, one, _ in replicas["n1"].announced] == [packed]
    assert not replicas["n2"].announced and not replicas["n3"].announced
    world.run(1.1)
    assert [one for _, one, _ in replicas["n1"].announced] == [packed] * 2, "it is repeated"
    world.cut = set()
    world.run(3)
    for replica in replicas.values():
        replica.announced.clear()
    world.run(3)
    assert not any(replica.announced for replica in replicas.values()), "two nodes again: no host is pulled to one"


def test_the_only_node_is_announced_again_when_others_may_have_taken_over_and_not_once_it_is_gone() -> None:
    announcer = Announcer(1000, lambda: 0.5, 0.0)
    spread = Spread("n1", announcer)
    vip, keep = ip_address(VIP).packed, frozenset({"n1"})
    alone = Roster(1, keep, keep, keep, {"n1": mac_of("n1")}, serves=True)
    both = Roster(1, frozenset(("n1", "n2")), keep, keep, {"n1": mac_of("n1")}, serves=True)
    assert both.sole is None and Roster(1, keep, keep, keep, {"n1": b""}).sole is None
    assert Roster(1, frozenset({"n2"}), keep, keep, {"n1": b""}, serves=True).sole is None

    def rounds(start: float) -> int:
        found, now = 0, start
        while now < start + 1.0:
            due = announcer.due(now)
            for key in due:
                announcer.done(key, True, now)
            found += due.count(vip)
            now += 0.1
        return found

    spread.decided(vip, alone, 1.0)
    assert rounds(1.0) == 1
    spread.decided(vip, alone, 10.0)
    assert rounds(10.0) == 1, "the second round of the first announcement, late"
    spread.decided(vip, alone, 20.0, again=True)
    assert rounds(20.0) == 1
    spread.decided(vip, both, 21.5, again=True)
    assert rounds(21.5) == 0
    spread.decided(vip, alone, 30.0)
    spread.removed(vip, forget=False)
    assert rounds(30.0) == 0


def test_a_dead_nodes_hosts_are_told_at_once_and_no_other_host_is() -> None:
    world, hosts = world_with()
    before = dict(hosts.entries)
    victims = hosts.on("n2")
    for replica in world.replicas.values():
        replica.told.clear()
    world.cut.add("n2")
    world.run(0.5)
    assert not hosts.on("n2") and {n for n in before if hosts.entries[n] != before[n]} == victims
    told = {asker for replica in world.replicas.values() for _, _, _, asker in replica.told}
    assert told == {hosts.mac(number) for number in victims}
    assert hosts.shares() == {"n1": 6, "n2": 0, "n3": 6}
    assert tables(world) == [{"n1": 6, "n3": 6}] * 2


def test_a_node_that_returns_takes_back_nothing_and_gets_the_next_hosts() -> None:
    world, hosts = world_with()
    world.cut.add("n2")
    world.run(1)
    entries = dict(hosts.entries)
    world.cut.discard("n2")
    world.run(10)
    assert hosts.entries == entries
    hosts.ask()
    assert hosts.entries == entries
    for number in (20, 21, 22):
        hosts.ask(number)
        world.run(0.05)
    assert hosts.shares() == {"n1": 6, "n2": 3, "n3": 6}


@pytest.mark.parametrize("node", ["n1", "n3"])
def test_a_replica_that_dies_moves_nobody_and_another_one_answers_for_its_node(node: str) -> None:
    world, hosts = world_with()
    entries = dict(hosts.entries)
    world.hung.add(node)  # n1 is the leader
    world.run(1)
    assert hosts.entries == entries
    hosts.ask()
    assert hosts.entries == entries and set(hosts.answers.values()) == {1}


def test_a_replica_that_starts_knows_the_hosts_before_it_answers() -> None:
    world, hosts = world_with(200)
    entries = dict(hosts.entries)
    replica = world.restart("n2")
    hosts.hear()
    while not replica.layer2.serving.answers:
        world.run(0.05)
    assert world.replicas["n2"].layer2._spread.counts() == world.replicas["n1"].layer2._spread.counts()
    world.run(0.1)  # the leader learns that n2 answers
    hosts.ask()
    assert hosts.entries == entries and set(hosts.answers.values()) == {1}


def test_all_replicas_anew_learn_from_the_hosts_that_verify_their_entries() -> None:
    world, hosts = world_with()
    entries = dict(hosts.entries)
    for node in NODES:
        world.restart(node)
    hosts.hear()
    world.run(4)
    assert all(hosts.verify(number) for number in range(12)) and hosts.entries == entries
    world.run(0.2)
    hosts.ask()
    assert hosts.entries == entries


def test_a_host_that_verifies_keeps_its_next_hop_whatever_the_table_says() -> None:
    world, hosts = world_with()
    number = min(hosts.on("n1"))
    hosts.entries[number] = mac_of("n3")  # a message was lost
    assert hosts.verify(number) and number in hosts.on("n3")
    world.run(0.2)
    hosts.ask(number)
    assert number in hosts.on("n3") and hosts.answers[number] == 1


def test_a_node_that_is_no_next_hop_any_more_names_the_right_one() -> None:
    world, hosts = world_with()
    stale = min(hosts.on("n2"))
    for replica in world.replicas.values():
        replica.sends = False  # the hosts receive no message about the change
    world.vips((VIP, ("n1", "n3")), spread=True)
    world.run(0.5)
    assert stale in hosts.on("n2") and hosts.verify(stale) and stale not in hosts.on("n2")


def test_hosts_that_ask_at_once_are_all_answered_and_the_tables_agree() -> None:
    world = World(*NODES)
    world.vips((VIP, NODES), spread=True)
    world.run(3)
    hosts = Hosts(world, 30)
    for node in NODES:  # the replicas receive the questions in different orders
        order = sorted(range(30), key=lambda number: (hash((node, number % 7)), number))
        for number in order:
            mac = world.replicas[node].layer2.asked(NIC, hosts.question(number), world.now)
            if mac:
                hosts.entries.setdefault(number, mac)
    pending = [number for number in range(30) if number not in hosts.entries]
    for number in pending:
        hosts.entries[number] = b""  # incomplete
    world.run(0.5)
    assert not [number for number, mac in hosts.entries.items() if not mac]
    one, two, three = tables(world)
    assert one == two == three == hosts.shares()
    assert set(one.values()) == {10}


def test_the_leader_gone_or_two_nodes_gone_leave_every_host_on_a_live_node() -> None:
    world, hosts = world_with(nodes=("n1", "n2", "n3", "n4"))
    world.cut.add("n1")
    world.run(1)
    world.cut.add("n2")
    world.run(1)
    assert hosts.shares() == {"n1": 0, "n2": 0, "n3": 6, "n4": 6}


def test_one_node_less_by_the_plan_moves_its_hosts_only_and_a_cordoned_one_gets_no_new_ones() -> None:
    world, hosts = world_with()
    before = dict(hosts.entries)
    world.rows[VIP] = [VIP, list(NODES), "", "", ["n1", "n2"]]  # n3 is cordoned
    world.digest += 1
    for node in NODES:
        world.tell(node)
    world.run(1)
    assert hosts.entries == before
    for number in (20, 21, 22, 23):
        hosts.ask(number)
        world.run(0.05)
    assert hosts.shares() == {"n1": 6, "n2": 6, "n3": 4}
    victims = hosts.on("n2")
    world.vips((VIP, ("n1", "n3")), spread=True)
    world.run(1)
    assert {n for n in before if hosts.entries[n] != before[n]} == victims & before.keys()


def test_a_vip_that_was_away_moves_nobody_when_it_returns() -> None:
    world, hosts = world_with()
    entries = dict(hosts.entries)
    world.vips()  # BGP
    world.run(1)
    hosts.ask()
    assert not any(hosts.answers.values())
    world.vips((VIP, NODES), spread=True)
    world.run(1)
    hosts.ask()
    assert hosts.entries == entries and set(hosts.answers.values()) == {1}
    assert not any(replica.announced for replica in world.replicas.values())


def test_the_spread_turned_off_is_announced_to_all_and_on_again_moves_nobody() -> None:
    world, hosts = world_with()
    world.vips((VIP, NODES))
    world.run(1)
    announced = {node: len(replica.announced) for node, replica in world.replicas.items()}
    assert announced["n1"] and not announced["n2"] and not announced["n3"]
    hosts.entries = dict.fromkeys(hosts.entries, mac_of("n1"))
    world.vips((VIP, NODES), spread=True)
    world.run(1)
    assert len(world.replicas["n1"].announced) == announced["n1"]
    assert not any(hosts.vip in r.layer2._announcer._current for r in world.replicas.values())
    world.run(1)
    assert not any(r.layer2._spread.knows(hosts.vip) for r in world.replicas.values())
    assert all(hosts.verify(number) for number in range(12)) and hosts.shares()["n1"] == 12


def test_a_foreign_host_that_claims_the_vip_is_answered_to_the_hosts_alone() -> None:
    world, hosts = world_with()
    for replica in world.replicas.values():
        replica.told.clear()
        replica.layer2.claimed(hosts.vip, b"\2\xee\0\0\0\1", world.now)
    world.run(0.4)
    for replica in world.replicas.values():
        replica.layer2.claimed(hosts.vip, b"\2\xee\0\0\0\1", world.now)
    world.run(1)
    told = Counter(asker for replica in world.replicas.values() for _, _, _, asker in replica.told)
    assert set(told) == {hosts.mac(number) for number in range(12)}
    assert not any(replica.announced for replica in world.replicas.values())
    assert all(replica.report["conflicts"] for replica in world.replicas.values())


def test_other_nodes_of_ours_with_the_vip_are_no_double_answer() -> None:
    world, hosts = world_with(3)
    for _ in range(50):
        for node, replica in world.replicas.items():
            for other in NODES:
                if other != node:
                    replica.do(replica.layer2.heard(NIC, hosts.vip, mac_of(other), world.now), world.now)
        world.run(0.1)
    assert not any(r.layer2.counters.get("double_answers") for r in world.replicas.values())
    hosts.ask()
    assert set(hosts.answers.values()) == {1}


def test_a_duplicate_address_probe_is_answered_by_one_replica() -> None:
    world, hosts = world_with(3)
    probe = Arp(b"\6" * 6, ARP_REQUEST, b"\6" * 6, bytes(4), bytes(6), hosts.vip)
    assert [r.layer2.asked(NIC, probe, world.now) for r in world.replicas.values()] == [mac_of("n1"), b"", b""]


def test_the_asker_of_a_question() -> None:
    vip = ip_address("fd00::100").packed
    host = ip_address("fe80::5").packed
    mac = b"\2\0\0\0\0\5"
    assert asker_of(Solicitation(mac, host, solicited_node(vip), vip, mac)) == Asker(mac, host, False)
    assert asker_of(Solicitation(mac, host, vip, vip, b"")) == Asker(mac, host, True)
    assert asker_of(Solicitation(mac, bytes(16), solicited_node(vip), vip, b"")) is None
    arp = Arp(mac, ARP_REQUEST, mac, b"\x0a\0\0\5", bytes(6), b"\x0a\0\0\x64")
    assert asker_of(arp) == Asker(mac, b"\x0a\0\0\5", False)
    assert asker_of(arp._replace(destination=b"\2\0\0\0\0\1")) == Asker(mac, b"\x0a\0\0\5", True)
    for wrong in (b"\1\0\0\0\0\5", bytes(6)):
        assert asker_of(arp._replace(mac=wrong)) is None


# ---- one replica alone


def alone(ours: tuple[str, ...] = ("n1",), nodes: tuple[str, ...] = NODES, *, places: bool = True) -> Spread:
    made = Spread("n1", Announcer(2000, lambda: 0.5, 0.0))
    made.decided(b"vip4", roster(ours, nodes, places=places), 0.0)
    return made


def roster(ours: tuple[str, ...], nodes: tuple[str, ...] = NODES, *, places: bool = False) -> Roster:
    macs = {node: mac_of(node) for node in nodes}
    return Roster(NIC, frozenset(nodes), frozenset(nodes), frozenset(ours), macs, serves=True, places=places)


def host(number: int, unicast: bool = False) -> Asker:
    return Asker(Hosts.mac(number), b"\x0a\0\0\7", unicast)


def test_an_asker_of_another_node_that_nobody_assigns_is_placed_again_by_all() -> None:
    spread = alone(places=False)
    assert not any(spread.asked(b"vip4", host(number), 0.0) for number in range(9))
    assert spread.next_at == WITHIN and len(spread) == 0
    spread.due(WITHIN)
    assert {one.node for one in spread._table} == {"n1"} and len(spread) == 3
    told = [spread.tell(key) for key in spread._announcer.due(WITHIN)]
    assert {tell.asker for tell in told if tell is not None} == {one.asker for one in spread._table} and all(told)
    spread.decided(b"vip4", roster(NODES), WITHIN + 0.01)  # from now on this replica answers for all nodes
    assert all(spread.asked(b"vip4", host(number), 0.2) for number in range(9))
    assert {node: len(_held(spread, node)) for node in NODES} == {"n1": 3, "n2": 3, "n3": 3}


def _held(spread: Spread, node: str) -> list[Assignment]:
    return [one for one in spread._table if one.node == node]


def test_the_replica_that_places_answers_for_other_nodes_once_and_then_theirs_do() -> None:
    spread = alone(ours=("n1",))
    macs = [spread.asked(b"vip4", host(number), 0.0) for number in range(9)]
    assert Counter(macs) == {mac_of(node): 3 for node in NODES}
    again = [spread.asked(b"vip4", host(number), 1.0) for number in range(9)]
    assert again == [mac if mac == mac_of("n1") else b"" for mac in macs]


def test_a_host_whose_node_is_out_is_not_told_while_no_node_can_take_it() -> None:
    """The MACs of the other nodes may be unknown, as in a process that has just started."""
    spread = alone()
    assert spread.asked(b"vip4", host(1), 0.0)
    spread.defend(b"vip4", 0.0)  # the host is to be told its next hop
    nobody = Roster(NIC, frozenset({"n2"}), frozenset(), frozenset(), {}, serves=True)
    spread.decided(b"vip4", nobody, 0.1)
    assert [spread.tell(b"vip4" + Hosts.mac(1)), *map(spread.tell, spread._announcer.due(0.1))] == [None]
    spread.decided(b"vip4", roster(("n2",), ("n2",)), 0.2)
    told = [spread.tell(key) for key in spread._announcer.due(0.2)]
    assert [(tell.asker, tell.mac) for tell in told if tell] == [(Hosts.mac(1), mac_of("n2"))]


def test_an_asker_that_waits_in_vain_is_given_up_after_some_tries() -> None:
    spread = alone(ours=(), places=False)
    assert not spread.asked(b"vip4", host(1), 0.0)
    for turn in range(1, 1 + spread_module.TRIES):
        assert spread.next_at is not None, turn
        spread.due(turn * WITHIN)
    spread.due((1 + spread_module.TRIES) * WITHIN)
    assert spread.next_at is None and not len(spread)


def test_memory_for_askers_that_nobody_assigns_is_bounded() -> None:
    spread = alone(ours=(), places=False)
    for number in range(2 * spread_module.MOST_PENDING):
        spread.asked(b"vip4", host(number), 0.0)
    assert len(spread._pending) == spread_module.MOST_PENDING


def test_news_are_told_three_times_the_whole_table_slowly_or_at_once_in_bulk() -> None:
    spread = alone(ours=NODES)
    for number in range(PIECE + 5):
        assert spread.asked(b"vip4", host(number), 0.0)
    assert not spread.talks(0.0) and spread.talks(0.01)
    told = Counter[bytes]()
    first = spread.piece(0.01)
    assert len(first) == PIECE and spread.next_at is not None and spread.next_at < 0.02  # the rest follows soon
    told.update(one.asker for one in first)
    for turn in range(1, 6):
        told.update(one.asker for one in spread.piece(0.01 + turn * 0.002))
    assert len(told) == PIECE + 5 and min(told.values()) >= 3 and spread.next_at is None
    assert spread.piece(0.5) == ()
    again = [*spread.piece(2.0), *spread.piece(2.1), *spread.piece(3.1)]
    assert {one.asker for one in again} == set(told) and len(again) <= 2 * PIECE
    bulk = [one for _ in range(2) for one in spread.piece(3.2, bulk=True)]
    assert {one.asker for one in bulk} == set(told)


def test_an_asker_is_renewed_once_a_minute_and_not_with_each_question() -> None:
    spread = alone(ours=NODES)
    spread.asked(b"vip4", host(1), 0.0)
    stamp = next(iter(spread._table)).stamp
    spread.asked(b"vip4", host(1), RENEW - 1)
    assert next(iter(spread._table)).stamp == stamp
    spread.asked(b"vip4", host(1), RENEW)
    assert next(iter(spread._table)).stamp == stamp + 1


def test_a_host_that_was_idle_for_long_may_go_to_an_emptier_node() -> None:
    spread = alone(ours=NODES, nodes=("n1",))
    for number in range(6):
        assert spread.asked(b"vip4", host(number), 0.0) == mac_of("n1")
    spread.decided(b"vip4", roster(NODES), 1.0)
    assert spread.asked(b"vip4", host(0), IDLE - 1) == mac_of("n1")  # not idle for long enough
    assert spread.asked(b"vip4", host(1, unicast=True), IDLE + 1) == mac_of("n1")  # it has an entry
    moved = spread.asked(b"vip4", host(2), IDLE + 1)
    assert moved in (mac_of("n2"), mac_of("n3")) and spread.asked(b"vip4", host(2), IDLE + 2) == moved
    for number in (3, 4, 5):
        spread.asked(b"vip4", host(number), IDLE + 3)
    assert max(spread.counts()[b"vip4"].values()) == 2


def test_two_assignments_for_one_host_are_settled_by_one_rule_and_it_is_told_again() -> None:
    spread = alone(ours=("n1",))
    number = next(n for n in range(9) if spread.asked(b"vip4", host(n), 0.0) == mac_of("n1"))
    mine = spread._table.get(b"vip4", Hosts.mac(number))
    assert mine is not None
    spread.piece(0.01)
    spread._announcer.due(1.0)
    spread.told([mine._replace(node="n2", stamp=mine.stamp - 1)], 1.0)  # older: mine is valid, and the host is told
    assert spread._table.get(b"vip4", mine.asker) == mine
    assert spread._announcer.due(1.0) == [b"vip4" + mine.asker]
    told = spread.tell(b"vip4" + mine.asker)
    assert told is not None and (told.mac, told.asker, told.ifindex) == (mac_of("n1"), mine.asker, NIC)
    spread.told([mine._replace(node="n2", stamp=mine.stamp + 1)], 1.1)  # newer: it is no longer ours
    assert spread.tell(b"vip4" + mine.asker) is None and not spread.asked(b"vip4", host(number), 1.2)


# ---- random sequences

stories = st.lists(
    st.tuples(st.sampled_from(["ask", "ask", "verify", "cut", "heal", "hang", "wake", "restart"]), st.integers(0, 30)),
    min_size=3,
    max_size=8,
)


@settings(max_examples=5)
@given(stories)
def test_in_any_story_the_replicas_agree_and_hosts_leave_dead_nodes_only(story) -> None:
    world, hosts = world_with(6)
    for what, number in story:
        node = NODES[number % 3]
        before = dict(hosts.entries)
        if what == "ask":
            hosts.ask(number)
        elif what == "verify" and number in hosts.entries:
            hosts.verify(number)
        elif what == "cut" and not world.cut and not world.hung:
            world.cut.add(node)
        elif what == "heal":
            world.cut.clear()
        elif what == "hang" and not world.cut and not world.hung:
            world.hung.add(node)
        elif what == "wake":
            world.hung.clear()
        elif what == "restart" and not world.cut and not world.hung:
            world.restart(node)
            hosts.hear()
        world.run(0.6)
        moved = {n for n in before if before[n] and hosts.entries[n] != before[n]}
        assert all(before[n] in {mac_of(node) for node in world.cut} for n in moved), (what, moved)
        assert not any(hosts.on(node) for node in world.cut)
    world.cut.clear()
    world.hung.clear()
    world.run(5)
    first, *others = tables(world)
    assert all(other == first for other in others)
    hosts.ask()
    world.run(0.3)
    assert all(hosts.answers[number] == 1 for number in range(6))
