"""The history of one replica: a bounded value, updated from each new :class:`~porterlb.core.known.Known`.

A VIP's place is how it is served: its mode and next hops. A BGP next hop stays in the place while it is still planned,
because another replica may just be taking over its route. A VIP that no replica serves keeps its place for DARK
seconds, because every failover has such a gap. For SETTLING seconds after its start a replica learns the places, and
does not report them as moves.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from ipaddress import ip_address

from porterlb.core.bfd import words as bfd_words
from porterlb.core.bfd.values import BfdSession
from porterlb.core.bgp import words
from porterlb.core.history.entries import Entry, What, Why
from porterlb.core.known import Known
from porterlb.core.layer2.notices import sentence
from porterlb.core.model import Address, Mode, Protocol
from porterlb.core.observed import Notice, NoticeKind
from porterlb.core.persistent import differing, editing
from porterlb.core.served import Served
from porterlb.core.vip import VipPlan

ENTRIES = 500
"""Maximum number of entries; the newest are kept."""

MENTIONS = 20_000
"""Maximum number of VIPs named in all entries: enough for a node with 1,000 VIPs to die and return ten times."""

DARK = 1.0
"""Seconds without service after which an entry is made: the longest failover measured takes 0.4 s."""

SETTLING = 5.0
"""Seconds after the first step in which places are learned and not reported."""

RETURN_COUNTS = 60.0
"""Seconds for which a node's return explains moves of VIPs to it: BGP waits for 10 s by default, then widens."""


@dataclass(frozen=True, slots=True)
class ServedBy:
    """How a VIP is served. ``since``: RFC 3339, when that began; empty: before this replica could know.

    ``dark_since``: since when no replica serves it (monotonic seconds), while it still counts as served. ``planned``:
    its next hops by the plan at that time. A change of BGP's next hops without a change of these has another cause
    than the endpoints.
    """

    mode: Mode
    hops: tuple[str, ...] = ()
    since: str = ""
    protocol: Protocol = Protocol.AUTO
    dark_since: float | None = None
    dark_time: str = ""
    planned: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class History:
    """``entries``: oldest first. ``unsettled``: VIPs to examine again even if nothing about them changes."""

    entries: tuple[Entry, ...] = ()
    places: Mapping[Address, ServedBy] = field(default_factory=dict)
    returned: Mapping[str, float] = field(default_factory=dict)
    """When nodes returned, monotonic seconds."""
    undrained: Mapping[str, float] = field(default_factory=dict)
    """When nodes returned to service after a drain, monotonic seconds."""
    unsettled: frozenset[Address] = frozenset()
    began: float | None = None

    @property
    def next_at(self) -> float | None:
        """When the next VIP will have been unserved for DARK seconds (monotonic seconds), or None."""
        places = [self.places[address] for address in self.unsettled if address in self.places]
        dark = [place.dark_since for place in places if place.dark_since is not None]
        return min(dark) + DARK if dark else None


def step(
    history: History, before: Known | None, after: Known, now: float, touched: Iterable[Address] | None = None
) -> tuple[History, tuple[Entry, ...]]:
    """The history updated from ``after``, and its new entries.

    ``before``: the knowledge at the last step. ``touched``: the VIPs that may be served differently since then; None:
    any. Examining 10,000 VIPs takes about 0.2 s if all of them have moved.
    """
    began = now if history.began is None else history.began
    returned = {node: at for node, at in history.returned.items() if now - at < RETURN_COUNTS}
    undrained = {node: at for node, at in history.undrained.items() if now - at < RETURN_COUNTS}
    fresh: list[Entry] = []
    if before is not None:
        fresh += _changes(before, after)
        returned.update((entry.subject, now) for entry in fresh if entry.what is What.NODE_BACK)
        undrained.update((entry.subject, now) for entry in fresh if entry.what is What.NODE_UNDRAINED)
    looked = after.on_wire if before is None or touched is None else {*touched, *history.unsettled}
    recent = replace(history, returned=returned, undrained=undrained)
    moved, places, unsettled = _moves(recent, looked, after, now, first=before is None)
    if now - began >= SETTLING:
        fresh += moved
    entries = _bounded((*history.entries, *fresh))
    return replace(recent, entries=entries, places=places, unsettled=unsettled, began=began), tuple(fresh)


def noted(history: History, entries: Iterable[Entry]) -> History:
    """The history with additional entries that do not result from a comparison."""
    return replace(history, entries=_bounded((*history.entries, *entries)))


def _bounded(entries: tuple[Entry, ...]) -> tuple[Entry, ...]:
    kept = list(entries[-ENTRIES:])
    mentions = sum(len(entry.vips) for entry in kept)
    while mentions > MENTIONS and len(kept) > 1:
        mentions -= len(kept.pop(0).vips)
    return tuple(kept)


# --- nodes, replicas, sessions, the lease, conflicts


def _changes(before: Known, after: Known) -> list[Entry]:
    time = after.now
    old, new = before.snapshot.view, after.snapshot.view
    known = after.snapshot.nodes
    found = [Entry(time, What.NODE_DEAD, node) for node in sorted(new.dead - old.dead)]
    found += [Entry(time, What.NODE_BACK, node) for node in sorted(old.dead - new.dead) if node in known]
    found += _drains(before, after)
    found += [
        Entry(time, What.REPLICA_SILENT, node, cause=node if node in new.dead else "")
        for node in sorted(before.live - after.live)
    ]
    found += [Entry(time, What.REPLICA_BACK, node) for node in sorted(after.live - before.live)]
    found += _sessions(before, after)
    if new.leader and old.leader and new.leader != old.leader:
        why = Why.NODE_DEAD if old.leader in new.dead else Why.NONE if after.is_live(old.leader) else Why.REPLICA_SILENT
        found.append(Entry(time, What.LEADER, before=(old.leader,), after=(new.leader,), why=why, cause=old.leader))
    found += _conflicts(before, after)
    found += _notices(before, after)
    if new.doubt != old.doubt:
        found.append(Entry(time, What.DOUBT if new.doubt else What.DOUBT_OVER, after.node))
    if bool(before.outage) != bool(after.outage):
        found.append(Entry(time, What.API_AWAY if after.outage else What.API_BACK, detail=after.outage))
    return found


def _drains(before: Known, after: Known) -> list[Entry]:
    """Drains of nodes that exist before and after: a node that registers again makes no entry."""
    old, new = before.snapshot.nodes, after.snapshot.nodes
    there = sorted(name for name in differing(old, new) if name in old and name in new)
    changed = [name for name in there if old[name].draining is not new[name].draining]
    return [Entry(after.now, What.NODE_DRAINS if new[n].draining else What.NODE_UNDRAINED, n) for n in changed]


def _sessions(before: Known, after: Known) -> list[Entry]:
    """Changes of our own sessions: other replicas report theirs."""
    found = []
    for peer in sorted(before.bgp.sessions.keys() | after.bgp.sessions.keys()):
        old, new = before.bgp.sessions.get(peer), after.bgp.sessions.get(peer)
        was, is_ = old is not None and old.up, new is not None and new.up
        again = old is not None and new is not None and new.losses > old.losses
        if was and (not is_ or again):
            found.append(Entry(after.now, What.SESSION_DOWN, peer, cause=after.node, detail=_loss(after, peer)))
        if is_ and (not was or again):
            found.append(Entry(after.now, What.SESSION_UP, peer, cause=after.node))
        found += _bfd(old.bfd if old else None, new.bfd if new else None, peer, after)
    return found


def _bfd(old: BfdSession | None, new: BfdSession | None, peer: str, after: Known) -> list[Entry]:
    was, is_ = old is not None and old.up, new is not None and new.up
    again = old is not None and new is not None and new.failures > old.failures
    found = []
    if was and new is not None and (not is_ or again):
        detail = bfd_words.sentence(new) or "it came back at once"
        found.append(Entry(after.now, What.BFD_DOWN, peer, cause=after.node, detail=detail))
    if is_ and (not was or again):
        found.append(Entry(after.now, What.BFD_UP, peer, cause=after.node))
    return found


def _loss(known: Known, peer: str) -> str:
    session = known.bgp.sessions.get(peer)
    return (words.loss(session.loss) if session else "") or "it is not wanted any longer"


def _conflicts(before: Known, after: Known) -> list[Entry]:
    old, new = before.wire.conflicts, after.wire.conflicts
    found = []
    for address in sorted(old.keys() | new.keys(), key=_by_address):
        was, is_ = old.get(address), new.get(address)
        if is_ is not None and (was is None or was.mac != is_.mac):
            found.append(Entry(after.now, What.CONFLICT, detail=is_.mac.hex(":"), vips=(address,)))
        elif is_ is None and was is not None:
            found.append(Entry(after.now, What.CONFLICT_OVER, detail=was.mac.hex(":"), vips=(address,)))
    return found


def _notices(before: Known, after: Known) -> list[Entry]:
    """New and ended notices of the wire process about segments and other replicas."""
    old, new = before.wire.notices, after.wire.notices
    found = [(notice, What.NOTICED) for notice in new if notice not in old]
    found += [(notice, What.NOTICE_OVER) for notice in old if notice not in new]
    return [_of_notice(after, notice, what) for notice, what in found]


def _of_notice(known: Known, notice: Notice, what: What) -> Entry:
    said = sentence(notice)
    vips: tuple[Address, ...] = ()
    if notice.kind is NoticeKind.TWO_ANSWERS:
        vips = (ip_address(notice.subject),)
    return Entry(known.now, what, before=notice.nodes, cause=said.reason.value, detail=said.message, vips=vips)


# --- VIPs


@dataclass(frozen=True, slots=True)
class _Move:
    """The common values of the VIPs of one entry."""

    time: str
    what: What
    before: tuple[str, ...]
    after: tuple[str, ...]
    why: Why
    cause: str
    detail: str


def _moves(
    history: History, looked: Iterable[Address], after: Known, now: float, *, first: bool
) -> tuple[list[Entry], Mapping[Address, ServedBy], frozenset[Address]]:
    places = editing(history.places)
    unsettled: set[Address] = set()
    groups: dict[_Move, list[Address]] = {}
    for address in looked:
        served = after.on_wire.get(address)
        if served is None:
            continue
        vip, place = after.plan.vips[address], places.get(address)
        if place is None:
            # A new VIP starts unserved; a VIP that existed before our start begins with its present place.
            place = ServedBy(served.mode, served.next_hops) if first else ServedBy(Mode.NONE)
            place = replace(place, protocol=vip.protocol, planned=vip.next_hops)
        fresh = places[address] = _place(place, served, vip, after, now)
        if fresh.dark_since is not None or (served.mode is Mode.BGP and fresh.hops != served.next_hops):
            unsettled.add(address)
        if (place.mode, place.hops) != (fresh.mode, fresh.hops):
            groups.setdefault(_move(history, place, fresh, vip, after), []).append(address)
    if len(places) > len(after.on_wire):  # every VIP has a place: additional places belong to removed VIPs
        for gone in [address for address in places if address not in after.on_wire]:
            del places[gone]
    entries = [
        Entry(m.time, m.what, "", m.before, m.after, m.why, m.cause, m.detail, tuple(sorted(found, key=_by_address)))
        for m, found in groups.items()
    ]
    return entries, places.frozen(), frozenset(unsettled)


def _by_address(address: Address) -> tuple[int, int]:
    return address.version, int(address)


def _place(place: ServedBy, served: Served, vip: VipPlan, known: Known, now: float) -> ServedBy:
    """The place of a VIP now; ``place``: the previous one."""
    if served.mode is Mode.NONE:
        if place.mode is Mode.NONE:
            return place
        if place.dark_since is None:
            return replace(place, dark_since=now, dark_time=known.now)
        if now - place.dark_since < DARK:
            return place
        return ServedBy(Mode.NONE, (), place.dark_time, vip.protocol, planned=vip.next_hops)
    hops = served.next_hops
    if served.mode is Mode.BGP and place.mode is Mode.BGP:
        hops = tuple(sorted({*hops, *(set(place.hops) & _still_planned(vip, known))}))
    if (place.mode, place.hops) == (served.mode, hops):
        return replace(place, dark_since=None, dark_time="", protocol=vip.protocol)
    return ServedBy(served.mode, hops, known.now, vip.protocol, planned=vip.next_hops)


def _still_planned(vip: VipPlan, known: Known) -> set[str]:
    """Next hops that are planned for a replica with an established session, and that are not dead."""
    return {
        hop
        for peer, by_replica in vip.announced.items()
        for replica, hops in by_replica.items()
        if known.established(replica, peer)
        for hop in hops
    } - known.snapshot.view.dead


def _move(history: History, place: ServedBy, fresh: ServedBy, vip: VipPlan, known: Known) -> _Move:
    why, cause = why_moved(history, place, fresh, vip, known)
    if fresh.mode is Mode.NONE:
        what = What.VIP_NOT_SERVED
    elif place.mode is Mode.NONE:
        what = What.VIP_SERVED
    else:
        what = What.VIP_MOVED if place.mode is fresh.mode else What.VIP_MODE
    detail = f"{place.mode.value} to {fresh.mode.value}" if what is What.VIP_MODE else fresh.mode.value
    if what is What.VIP_NOT_SERVED:
        detail = " ".join(map(str, vip.problems))
    return _Move(fresh.since, what, place.hops, fresh.hops, why, cause, detail)


def why_moved(history: History, place: ServedBy, fresh: ServedBy, vip: VipPlan, known: Known) -> tuple[Why, str]:
    """The first cause that explains the change: causes at a lost next hop, then at the mode, then at a new next
    hop."""
    lost = [hop for hop in place.hops if hop not in fresh.hops]
    gained = [hop for hop in fresh.hops if hop not in place.hops]
    dead = _first(hop for hop in lost if hop in known.snapshot.view.dead)
    if dead:
        return Why.NODE_DEAD, dead
    nodes = known.snapshot.nodes
    drains = _first(hop for hop in lost if hop in nodes and nodes[hop].draining)
    if drains:
        return Why.NODE_DRAINS, drains
    if fresh.protocol is not place.protocol:
        return Why.PROTOCOL, ""
    if fresh.mode is not place.mode:
        if place.mode is Mode.BGP:
            return Why.SESSION_LOST, ""
        if fresh.mode is Mode.BGP and place.mode is Mode.LAYER2:
            return Why.SESSION_BACK, ""
    usable = known.plan.shared.topology.usable if known.plan.shared else frozenset()
    unusable = _first(hop for hop in lost if hop not in vip.next_hops and hop not in usable)
    if unusable:
        return Why.NODE_UNUSABLE, unusable
    if any(hop not in vip.next_hops for hop in lost):
        return Why.ENDPOINTS, ""
    silent = _first(hop for hop in lost if not known.is_live(hop))
    if silent:
        return Why.REPLICA_SILENT, silent
    back = _first(hop for hop in gained if hop in history.returned)
    if back:
        return Why.NODE_BACK, back
    undrained = _first(hop for hop in gained if hop in history.undrained)
    if undrained:
        return Why.NODE_UNDRAINED, undrained
    if gained and not lost:
        announced = place.hops and set(place.planned) == set(vip.next_hops)
        return (Why.ANNOUNCED if announced else Why.ENDPOINTS), ""
    return Why.PLAN, ""


def _first(names: Iterable[str]) -> str:
    return min(names, default="")
