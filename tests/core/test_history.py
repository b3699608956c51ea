"""History: moves, deaths and returns between known values; bounded; one Event for a node with many VIPs."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from ipaddress import ip_address
from typing import Any

from porterlb.core.history import Entry, History, ServedBy, What, Why, step
from porterlb.core.history import history as module
from porterlb.core.history.events import HOLD, SINGLE, Pending, counts, events, tells
from porterlb.core.history.words import as_json, sentence
from porterlb.core.known import Known
from porterlb.core.model import Address, Mode, Protocol
from porterlb.core.observed import AddressConflict, Answering
from porterlb.core.served import Served
from tests.core.stage import (
    AUTO_VIP,
    BGP_VIP,
    EXPIRED,
    EXPIRED_WORDS,
    LATER,
    LAYER2_VIP,
    NOW,
    situation,
    snapshot,
)
from tests.core.test_drain import draining
from tests.core.test_plan import NAMES

START = 100.0
SETTLED = START + module.SETTLING
AT = SETTLED + 1.0


class Replica:
    """The history of node-a, fed with known values in order."""

    def __init__(self, known: Known | None = None) -> None:
        self.history, self.known = History(), None
        self.see(known or situation(snapshot()), START)

    known: Known | None

    def see(self, known: Known, now: float = AT) -> list[Entry]:
        self.history, fresh = step(self.history, self.known, known, now)
        self.known = known
        return list(fresh)


def without(node: str, **more: Any) -> Known:
    """The knowledge once ``node`` is dead and every replica has applied the consequences."""
    live = tuple(name for name in NAMES if name != node)
    made = situation(snapshot(up=live, fresh=frozenset(live), dead=frozenset({node})), now=LATER, **more)
    return replace(made, wire=replace(made.wire, dead=frozenset({node})))


def whats(entries: Iterable[Entry]) -> list[What]:
    return [entry.what for entry in entries]


def test_nothing_new_is_no_entry() -> None:
    replica = Replica()
    assert replica.see(situation(snapshot())) == []
    assert replica.history.entries == ()


def test_a_node_that_dies_and_every_vip_that_moves() -> None:
    replica = Replica()
    layer2 = replica.history.places[LAYER2_VIP].hops[0]
    node = layer2 if layer2 != "node-a" else "node-b"
    found = replica.see(without(node))
    dead = next(entry for entry in found if entry.what is What.NODE_DEAD)
    assert (dead.subject, dead.time) == (node, LATER)
    assert next(entry for entry in found if entry.what is What.REPLICA_SILENT).subject == node
    moves = [entry for entry in found if entry.what is What.VIP_MOVED]
    assert moves and all((entry.why, entry.cause) == (Why.NODE_DEAD, node) for entry in moves)
    assert BGP_VIP in {address for entry in moves for address in entry.vips}
    for address, place in replica.history.places.items():
        assert node not in place.hops
        moved = any(address in entry.vips for entry in moves)
        assert place.since == (LATER if moved else ""), "SINCE is since the last move"
    back = replica.see(situation(snapshot(), now=LATER), AT + 5)
    assert whats(back)[:2] == [What.NODE_BACK, What.REPLICA_BACK]
    returned = [entry for entry in back if entry.what is What.VIP_MOVED]
    assert returned and {(entry.why, entry.cause) for entry in returned} == {(Why.NODE_BACK, node)}


def test_a_drain_is_told_and_is_the_reason_of_the_moves() -> None:
    replica = Replica()
    node = replica.history.places[LAYER2_VIP].hops[0]
    found = replica.see(situation(draining(snapshot(), node), now=LATER))
    assert [(e.what, e.subject) for e in found if e.what is not What.VIP_MOVED] == [(What.NODE_DRAINS, node)]
    moves = [entry for entry in found if entry.what is What.VIP_MOVED]
    assert {(entry.why, entry.cause) for entry in moves} == {(Why.NODE_DRAINS, node)}
    assert {LAYER2_VIP, BGP_VIP} <= {address for entry in moves for address in entry.vips}
    (event,) = events(found, situation(snapshot()))
    assert str(event.about) == f"Node {node}" and event.notice.message.startswith(f"Node {node} is being drained. ")
    back = replica.see(situation(snapshot(), now=LATER), AT + 5)
    assert whats(back)[0] is What.NODE_UNDRAINED
    gained = [entry for entry in back if entry.what is What.VIP_MOVED and node in entry.after]
    assert gained and {(entry.why, entry.cause) for entry in gained} == {(Why.NODE_UNDRAINED, node)}
    assert replica.history.undrained == {node: AT + 5}
    assert replica.see(situation(snapshot()), AT + 5 + module.RETURN_COUNTS) == []
    assert replica.history.undrained == {}


def test_places_that_are_found_at_the_start_are_no_moves() -> None:
    made = situation(snapshot())
    replica = Replica(situation(snapshot(), applied=12345))
    assert whats(replica.see(made, SETTLED - 0.1)) == []
    assert replica.history.places[BGP_VIP].mode is Mode.BGP
    late = Replica(situation(snapshot(), applied=12345))
    assert What.VIP_SERVED in whats(late.see(made, SETTLED))


def test_a_moment_without_service_is_part_of_the_move() -> None:
    replica = Replica()
    made = situation(snapshot(), now=LATER)
    dark = replace(made, on_wire={**made.on_wire, LAYER2_VIP: Served(Mode.NONE)})
    assert replica.see(dark) == []
    assert replica.history.next_at == AT + module.DARK
    hop = next(name for name in NAMES if (name,) != replica.history.places[LAYER2_VIP].hops)
    moved = replace(made, on_wire={**made.on_wire, LAYER2_VIP: Served(Mode.LAYER2, answered=Answering(hop, hop))})
    (entry,) = replica.see(moved, AT + 0.4)
    assert (entry.what, entry.after, entry.vips) == (What.VIP_MOVED, (hop,), (LAYER2_VIP,))
    assert replica.history.next_at is None


def test_what_is_not_served_for_longer_is_told_with_the_time_of_its_begin() -> None:
    replica = Replica()
    made = situation(snapshot(), now=LATER)
    dark = replace(made, on_wire={**made.on_wire, LAYER2_VIP: Served(Mode.NONE)})
    replica.see(dark)
    assert replica.see(replace(dark, now="later"), AT + module.DARK - 0.01) == []
    (entry,) = replica.see(replace(dark, now="later"), AT + module.DARK)
    assert (entry.what, entry.vips, entry.time) == (What.VIP_NOT_SERVED, (LAYER2_VIP,), LATER)
    (again,) = replica.see(made, AT + 9)
    assert (again.what, again.vips) == (What.VIP_SERVED, (LAYER2_VIP,))


def test_a_route_that_another_replica_takes_over_is_no_move() -> None:
    replica = Replica()
    made = situation(snapshot(), now=LATER)
    served = made.on_wire[BGP_VIP]
    partly = Served(Mode.BGP, {"tor": served.next_hops[:1]})
    assert replica.see(replace(made, on_wire={**made.on_wire, BGP_VIP: partly})) == []
    assert BGP_VIP in replica.history.unsettled
    assert replica.see(made) == [] and BGP_VIP not in replica.history.unsettled


def test_what_is_touched_alone_is_looked_at_and_gone_vips_are_forgotten() -> None:
    replica = Replica()
    later = without("node-b")
    some = {LAYER2_VIP}
    partly, _ = step(replica.history, replica.known, later, AT, some)
    whole, _ = step(replica.history, replica.known, later, AT)
    assert partly.places[LAYER2_VIP] == whole.places[LAYER2_VIP]
    assert partly.places[BGP_VIP] == replica.history.places[BGP_VIP] != whole.places[BGP_VIP]
    vips = {address: vip for address, vip in later.plan.vips.items() if address != BGP_VIP}
    gone = replace(later, plan=replace(later.plan, vips=vips))
    gone = replace(gone, on_wire={address: served for address, served in later.on_wire.items() if address in vips})
    history, fresh = step(whole, later, gone, AT + 1, set())
    assert BGP_VIP not in history.places and fresh == ()


def test_a_change_of_mode_has_its_reason() -> None:
    replica = Replica()
    lost = situation(snapshot(up=()), replica.known.plan if replica.known else None, at=5.0, now=LATER, loss=EXPIRED)
    found = replica.see(lost)
    down = next(entry for entry in found if entry.what is What.SESSION_DOWN)
    assert (down.subject, down.cause, down.detail) == ("tor", "node-a", EXPIRED_WORDS)
    mode = next(entry for entry in found if entry.what is What.VIP_MODE)
    assert (mode.why, mode.detail, mode.vips) == (Why.SESSION_LOST, "bgp to layer2", (AUTO_VIP,))
    up = replica.see(situation(snapshot(), lost.plan, at=60.0), AT + 60)
    assert What.SESSION_UP in whats(up)


def test_a_session_that_was_lost_between_two_looks_is_told() -> None:
    replica = Replica()
    found = replica.see(situation(snapshot(), losses=1, loss=EXPIRED))
    assert whats(found) == [What.SESSION_DOWN, What.SESSION_UP]


def test_a_session_that_is_not_wanted_any_longer_says_so() -> None:
    replica = Replica()
    assert replica.known is not None
    gone = replace(replica.known, bgp=replace(replica.known.bgp, sessions={}))
    (down,) = [entry for entry in replica.see(gone) if entry.what is What.SESSION_DOWN]
    assert sentence(down) == "node-a lost its session with tor: it is not wanted any longer."


def test_a_vip_whose_protocol_was_changed() -> None:
    place = ServedBy(Mode.BGP, ("node-a",), "", Protocol.AUTO)
    fresh = ServedBy(Mode.LAYER2, ("node-a",), LATER, Protocol.LAYER2)
    made = situation(snapshot())
    assert module.why_moved(History(), place, fresh, made.plan.vips[AUTO_VIP], made) == (Why.PROTOCOL, "")


def test_more_announced_next_hops_are_no_change_of_the_endpoints() -> None:
    """After a change from Layer 2 to BGP, one next hop is announced first, and the others 0.5 s later."""
    made = situation(snapshot())
    vip = made.plan.vips[AUTO_VIP]
    one = ServedBy(Mode.BGP, vip.next_hops[:1], "", vip.protocol, planned=vip.next_hops)
    all_of_them = ServedBy(Mode.BGP, vip.next_hops, LATER, vip.protocol, planned=vip.next_hops)
    assert len(vip.next_hops) > 1
    assert module.why_moved(History(), one, all_of_them, vip, made) == (Why.ANNOUNCED, "")
    fewer = replace(one, planned=vip.next_hops[:1])
    assert module.why_moved(History(), fewer, all_of_them, vip, made) == (Why.ENDPOINTS, "")
    none = replace(one, hops=())
    assert module.why_moved(History(), none, all_of_them, vip, made) == (Why.ENDPOINTS, ""), "it was not served before"


def test_a_place_keeps_the_next_hops_that_were_planned() -> None:
    replica = Replica()
    for address, place in replica.history.places.items():
        assert place.planned == (replica.known.plan.vips[address].next_hops if replica.known else ())


def test_a_new_leader_and_why() -> None:
    replica = Replica(situation(snapshot(leader="node-b")))
    gone = without("node-b")
    view = replace(gone.snapshot.view, leader="node-a")
    leader = next(
        e for e in replica.see(replace(gone, snapshot=replace(gone.snapshot, view=view))) if e.what is What.LEADER
    )
    assert (leader.before, leader.after, leader.why) == (("node-b",), ("node-a",), Why.NODE_DEAD)


def test_conflicts_doubt_and_the_api() -> None:
    replica = Replica()
    rival = {"conflicts": {AUTO_VIP: AddressConflict(AUTO_VIP, bytes(6), 1.0)}}
    made = situation(snapshot(doubt=True), wire={"conflicts": rival["conflicts"]})
    made = replace(made, outage="The API does not answer.")
    assert {What.CONFLICT, What.DOUBT, What.API_AWAY} <= set(whats(replica.see(made)))
    assert {What.CONFLICT_OVER, What.DOUBT_OVER, What.API_BACK} <= set(whats(replica.see(situation(snapshot()))))


def test_it_is_bounded() -> None:
    replica = Replica()
    gone, back = without("node-b"), situation(snapshot())
    for turn in range(module.ENTRIES):
        replica.see(gone if turn % 2 == 0 else back, AT + turn)
    assert len(replica.history.entries) == module.ENTRIES
    many = tuple(ip_address(f"10.{n >> 8}.{n & 255}.1") for n in range(3000))
    entries = [Entry(NOW, What.VIP_MOVED, vips=many)] * 20
    kept = module._bounded(tuple(entries))
    assert sum(len(entry.vips) for entry in kept) <= module.MENTIONS and len(kept) == 6


# --- Events


def move(vips: Iterable[Address], to: str, why: Why = Why.NODE_DEAD, cause: str = "node-c") -> Entry:
    return Entry(NOW, What.VIP_MOVED, "", ("node-c",), (to,), why, cause, "layer2", tuple(vips))


def test_a_node_with_many_vips_is_one_event_with_a_count() -> None:
    many = [ip_address("10.9.0.0") + n for n in range(1000)]
    entries = [Entry(NOW, What.NODE_DEAD, "node-c"), move(many[:600], "node-a"), move(many[600:], "node-b")]
    entries.append(Entry(NOW, What.REPLICA_SILENT, "node-c"))
    (event,) = events(entries, situation(snapshot()))
    assert str(event.about) == "Node node-c" and event.notice.warning
    assert event.notice.message == (
        "Node node-c does not answer probes. 1000 addresses moved: 600 to node-a, 400 to node-b."
    )


def test_moves_with_another_cause_are_told_on_their_service_or_eip() -> None:
    made = situation(snapshot())
    (event,) = events([move([AUTO_VIP], "node-a", Why.ENDPOINTS, "")], made)
    assert str(event.about) == "Service default/shop" and event.notice.reason == "VipMoved"
    assert event.notice.message.endswith("from node-c to node-a (layer2), because the ready endpoints have changed.")
    many = [AUTO_VIP] * (SINGLE + 1)
    (event,) = events([move(many, "node-a", Why.ENDPOINTS, "")], made)
    assert str(event.about) == "Eip auto"


def test_events_wait_for_the_moves_that_a_death_causes() -> None:
    made = situation(snapshot())
    pending = Pending().with_more([Entry(NOW, What.NODE_DEAD, "node-c"), Entry(NOW, What.SESSION_UP, "tor")], 10.0)
    assert pending.next_at == 10.0 + HOLD
    pending = pending.with_more([move([AUTO_VIP], "node-a")], 10.4)
    assert pending.due(made, 10.0 + HOLD - 0.01) == (pending, ())
    left, told = pending.due(made, 10.0 + HOLD)
    assert left == Pending() and len(told) == 1 and "1 address moved: 1 to node-a." in told[0].notice.message


def test_one_replica_tells() -> None:
    """The leader; if it is dead, the first of the other replicas. The choice does not need the API."""

    def telling(leader: str, dead: str = "") -> list[str]:
        found = []
        for node in NAMES:
            live = frozenset(name for name in NAMES if name != dead)
            view = {"leader": leader, "fresh": live, "dead": frozenset({dead} - {""})}
            made = situation(snapshot(node, up=live, **view))
            if node != dead and tells(made):
                found.append(node)
        return found

    assert telling("node-b") == ["node-b"]
    assert telling("node-a", dead="node-a") == ["node-b"]
    assert telling("") == ["node-a"]


def test_what_is_counted() -> None:
    entries = [move([AUTO_VIP, BGP_VIP], "node-a"), Entry(NOW, What.NODE_DEAD, "node-c")]
    assert counts(entries) == {("VipMoved", "NodeDead"): 2, ("NodeDead", ""): 1}


def test_every_entry_has_a_sentence_and_json() -> None:
    for what in What:
        for why in Why:
            entry = Entry(NOW, what, "node-c", ("node-a",), (), why, "node-b", "detail", (AUTO_VIP,))
            text = sentence(entry)
            assert text.endswith(".") and "{" not in text and ".." not in text
            assert as_json(entry)["message"] == text
    named = sentence(move([ip_address("10.9.0.0") + n for n in range(8)], "node-a"))
    assert "10.9.0.4 and 3 more: moved" in named


def test_entries_from_elsewhere_are_added_and_bounded() -> None:
    entries = [Entry("2026-01-01T00:00:00Z", What.API_AWAY, str(number)) for number in range(module.ENTRIES + 1)]
    history = module.noted(History(), entries[:1])
    assert history.entries == (entries[0],)
    assert module.noted(history, entries[1:]).entries == tuple(entries[1:])
