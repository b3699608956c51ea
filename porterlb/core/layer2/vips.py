"""The VIPs of this replica: the wanted and the current state of each, and the steps from one to the other.

Every change marks the VIPs that it affects. Marked VIPs are decided again in slices of bounded size, urgent ones first.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Iterable, Sequence
from ipaddress import ip_address
from typing import Any

from porterlb.core.layer2.actions import Action, Announce, AnswerLate, Disown, Join, Leave, Own, Served
from porterlb.core.layer2.announcer import Announcer
from porterlb.core.layer2.answering import NOBODY
from porterlb.core.layer2.handover import Handover
from porterlb.core.layer2.interfaces import Usage, parse_goal
from porterlb.core.layer2.questions import Question
from porterlb.core.layer2.roster import roster_of
from porterlb.core.layer2.spread import Spread
from porterlb.core.layer2.surroundings import Surroundings
from porterlb.core.model import Address
from porterlb.core.observed import Answering

SLICE = 25  # VIPs decided in one step: about 0.3 ms
ASKED_LATELY = 60.0  # seconds
QUESTION_LIVES = 0.5
"""Seconds for which an unanswered question can be answered late: its asker does not repeat it before 1 s
(RETRANS_TIMER of RFC 4861, retrans_time_ms of Linux for ARP)."""


class Vip:
    """One VIP. ``mac``: the MAC that we answer with, empty while we do not answer; ``told``: the last one we used.

    ``question``: the last question, at ``asked``, that we did not answer. ``joined``: the interface on which we have
    joined its multicast group, 0: none. ``takers``: the candidates that share its askers if it is spread. ``new``: no
    replica can have answered for it before. ``joining``: candidates of a spread VIP that take no new askers yet.
    """

    __slots__ = (
        "address",
        "asked",
        "can_reach",
        "candidates",
        "epoch",
        "interface",
        "joined",
        "joining",
        "mac",
        "new",
        "packed",
        "question",
        "scope",
        "served",
        "takers",
        "text",
        "told",
        "usage",
    )

    def __init__(self, text: str, new: bool) -> None:
        self.text = text
        self.new = new
        self.takers: tuple[str, ...] = ()
        self.address = ip_address(text)
        self.packed = self.address.packed
        self.candidates: tuple[str, ...] = ()
        self.interface = ""
        self.can_reach: Address | None = None
        self.scope = ""
        self.asked = float("-inf")
        self.question: Question | None = None
        self.mac = b""
        self.told = b""
        self.epoch = 0
        self.usage: Usage | None = None
        self.joined = 0
        self.served: Answering | None = None  # None: never decided
        self.joining: set[str] = set()

    @property
    def spread(self) -> bool:
        """Whether each of its askers has its own next hop."""
        return bool(self.takers)

    def ask(self, question: Question, owned: bool, now: float) -> None:
        """A host asks for the VIP. Called for each question. ``owned``: the caller answers it. Duplicate address probes
        and announcements do not count as use: replicas send both."""
        if not any(question.sender):
            return
        announced = question.target == question.sender
        if not announced:
            self.asked = now
        if not owned:
            self.question = None if announced else question


class VipTable:
    """``complete``: a whole wanted set has arrived. ``took``: this replica has begun to answer for a VIP."""

    def __init__(self, around: Surroundings, announcer: Announcer, spread: Spread, handover: Handover) -> None:
        self._around = around
        self._handover = handover
        self._announcer = announcer
        self._spread = spread
        self.complete = False
        self.took = False
        self._of_hosts: dict[Vip, None] = {}  # spread VIPs
        self._vips: dict[str, Vip] = {}
        self.by_packed: dict[bytes, Vip] = {}
        self._by_next_hop: dict[str, dict[Vip, None]] = {}
        self._by_answerer: dict[str, dict[Vip, None]] = {}
        self._urgent: deque[Vip] = deque()
        self._normal: deque[Vip] = deque()
        self._marked: set[Vip] = set()
        self._epoch = 0  # rises with each touch_again()

    def __len__(self) -> int:
        return len(self._vips)

    @property
    def spreads(self) -> bool:
        """Whether any VIP is spread."""
        return bool(self._of_hosts)

    @property
    def settled(self) -> bool:
        """Whether every marked VIP is decided."""
        return not self._marked

    def find(self, text: str) -> Vip | None:
        return self._vips.get(text)

    def asked_lately(self, now: float) -> frozenset[str]:
        """The VIPs for which we received a question from any host in the last ASKED_LATELY seconds."""
        return frozenset(text for text, vip in self._vips.items() if vip.asked and vip.asked > now - ASKED_LATELY)

    # ---- events: each marks the VIPs that it affects

    def wanted(self, rows: Iterable[Sequence[Any]], gone: Iterable[str]) -> list[Action]:
        """A part of the wanted set: [address, candidates, interface, can_reach] rows, and addresses gone. The row of a
        spread VIP has the takers as a fifth element; the row of a VIP with a scope has its name as the sixth."""
        actions: list[Action] = []
        for text in gone:
            vip = self._vips.pop(text, None)
            if vip is not None:
                actions += self._remove(vip)
        for text, candidates, interface, can_reach, *rest in rows:
            vip = self._vips.get(text)
            if vip is None:
                vip = self._vips[text] = Vip(text, self.complete and self._around.serves)
                self.by_packed[vip.packed] = vip
            if vip.spread and rest and rest[0]:
                vip.joining.update(set(candidates).difference(vip.candidates))
            self._share(vip, tuple(rest[0]) if rest else ())
            vip.candidates = tuple(candidates)
            vip.interface, vip.can_reach = interface, parse_goal(can_reach)
            vip.scope = rest[1] if len(rest) > 1 else ""
            self._mark(vip)
        return actions

    def _share(self, vip: Vip, takers: tuple[str, ...]) -> None:
        """Sets whether a VIP is spread, and over which nodes."""
        before, vip.takers = vip.takers, takers
        if takers and not before:
            self._of_hosts[vip] = None
            self._announcer.stop(vip.packed)
        elif before and not takers:
            del self._of_hosts[vip]
            self._handover.forget(vip, *vip.joining)
            vip.joining.clear()
            self._spread.removed(vip.packed, forget=vip.text in self._vips)
            vip.told, vip.epoch = b"", -1  # its askers have different next hops: announce the remaining one

    def node_died(self, node: str, now: float) -> None:
        """Moves the VIPs of the node before all others; recently asked ones first."""
        touched = self._by_next_hop.get(node, {}) | self._by_answerer.get(node, {}) | self._of_hosts
        lately = now - ASKED_LATELY
        for first in (True, False):
            for vip in touched:
                if (vip.asked > lately) is first:
                    self._mark(vip, urgent=True)

    def replica_left(self, node: str) -> None:
        """The replica no longer answers."""
        for vip in self._by_answerer.get(node, {}) | self._of_hosts:
            self._mark(vip, urgent=True)
        self.waits_ended()

    def waits_ended(self, now: float | None = None) -> None:
        """Decides again the VIPs that wait for another replica; ``now``: only those that have waited long enough."""
        for vip in self._handover.waiting if now is None else self._handover.due(now):
            assert isinstance(vip, Vip)
            self._mark(vip, urgent=True)

    def announced_by(self, packed: bytes, now: float) -> None:
        """Another node of ours claims the VIP."""
        vip = self.by_packed.get(packed)
        if vip is not None and self._handover.announced(vip, now):
            self._mark(vip, urgent=True)

    def replica_came(self, node: str) -> None:
        """The replica answers now, for its own node or on behalf of a node without a replica; or its plan may be
        outdated now, or no longer."""
        for vip in self._vips.values():
            served = vip.served
            if vip.spread or served is None or served.next_hop == node or served.answerer != served.next_hop:
                self._mark(vip)
        self.waits_ended()

    def mac_changed(self, node: str) -> None:
        for vip in self._by_next_hop.get(node, {}) | self._of_hosts:
            self._mark(vip, urgent=True)

    def settled_with(self, packed: bytes) -> None:
        """A double answer for the VIP was resolved."""
        vip = self.by_packed.get(packed)
        if vip is not None:
            self._mark(vip, urgent=True)

    def route_found(self, goal: Address) -> None:
        for vip in self._vips.values():
            if vip.can_reach == goal:
                self._mark(vip)

    def touch_again(self) -> None:
        """As touch_all, and announces VIPs that stay ours again: others may have considered us dead and taken over."""
        self._epoch += 1
        self.touch_all()

    def touch_all(self) -> None:
        for vip in self._vips.values():
            self._mark(vip)

    def _mark(self, vip: Vip, urgent: bool = False) -> None:
        if urgent:
            self._urgent.append(vip)
        elif vip not in self._marked:
            self._normal.append(vip)
        self._marked.add(vip)

    # ---- decisions

    @property
    def busy(self) -> bool:
        """Whether `step` has something to decide."""
        return bool(self._marked) and not self._around.frozen

    def step(self, now: float) -> list[Action]:
        """Decides at most SLICE of the marked VIPs."""
        actions: list[Action] = []
        done = 0
        while done < SLICE and not self._around.frozen and (self._urgent or self._normal):
            vip = (self._urgent or self._normal).popleft()
            if vip in self._marked:
                self._marked.discard(vip)
                actions += self._decide(vip, now)
                done += 1
        return actions

    def _decide(self, vip: Vip, now: float) -> list[Action]:
        around = self._around
        usage = around.usage(vip.address, vip.interface, vip.can_reach, vip.scope)
        replicas = around.replicas_of(usage, vip.address, vip.interface, vip.scope)
        dead = around.dead_on(usage, vip.address)
        before, mac = vip.served, b""
        served = around.answering(vip.text, vip.candidates, dead, replicas)
        other = around.yielded.get(vip.packed)
        if other is not None and served.answerer == around.own:
            served = Answering(other, other)
            self._handover.forget(vip, "")
        elif around.own not in replicas:
            self._handover.forget(vip, "")
        elif not self._handover.moves(vip, before, served, dead, now):
            served = before or served
        if served.answerer == around.own:
            mac = around.mac(served.next_hop, usage) if usage is not None else b""
            if not mac:
                served = Answering(served.next_hop, "")  # report only what is really answered
        moved = usage != vip.usage
        actions = self._move(vip, usage) if moved else []
        if before != served:
            self._index(vip, served)
            actions.append(Served(vip.text, served))
        if vip.spread:
            actions += self._serve_hosts(vip, mac, now)
            takers = self._takers(vip, replicas, now)
            roster = roster_of(vip.text, vip.candidates, takers, dead, replicas, around, usage)
            self._spread.decided(vip.packed, roster, now, again=moved or vip.epoch != self._epoch)
            vip.epoch = self._epoch
        elif mac != vip.mac or (mac and vip.epoch != self._epoch):
            actions += self._serve(vip, mac, before, now)
        return actions

    def _takers(self, vip: Vip, replicas: Collection[str], now: float) -> Collection[str]:
        """The nodes that take new askers: not those that have joined, until their answerers have the plan."""
        if not vip.joining:
            return vip.takers
        for node in sorted(vip.joining):
            answerer = self._around.answering(vip.text, [node], (), replicas).answerer
            if node not in vip.candidates:
                self._handover.forget(vip, node)
            elif self._handover.waits(vip, answerer, now, node):
                continue
            vip.joining.discard(node)
        return [node for node in vip.takers if node not in vip.joining] or vip.takers

    def _move(self, vip: Vip, usage: Usage | None) -> list[Action]:
        """Moves a VIP to another interface, or to the same one after it was closed."""
        actions: list[Action] = []
        interfaces = self._around.interfaces
        if vip.mac and vip.usage is not None and interfaces.used.get(vip.usage.ifindex) == vip.usage:
            actions.append(Disown(vip.usage.ifindex, vip.packed))
        nic = interfaces.nics.get(vip.joined)
        goes = usage.ifindex != vip.joined if usage is not None else nic is not None and nic.up
        if vip.joined and goes:  # not if the interface only lost its carrier: it may return
            actions.append(Leave(vip.joined, vip.packed))
            vip.joined = 0
        self._announcer.stop(vip.packed)
        vip.mac = vip.told = b""
        vip.usage = usage
        if usage is not None and vip.address.version == 6:
            vip.joined = usage.ifindex
            actions.append(Join(usage.ifindex, vip.packed))
        return actions

    def _serve(self, vip: Vip, mac: bytes, before: Answering | None, now: float) -> list[Action]:
        had, vip.mac = vip.mac, mac
        if vip.usage is None or not mac:
            self._announcer.stop(vip.packed)
            return [Disown(vip.usage.ifindex, vip.packed)] if vip.usage is not None and had else []
        actions: list[Action] = [Own(vip.usage.ifindex, vip.packed, mac)]
        self.took = self.took or not had
        if vip.question is not None and now - vip.asked < QUESTION_LIVES:
            actions.append(AnswerLate(vip.usage.ifindex, vip.packed, vip.question))  # its answerer may have just died
        vip.question = None
        served = vip.served or NOBODY
        own = self._around.own
        if before is not None and before.answerer == own:
            same = before.next_hop == served.next_hop and vip.told == mac and vip.epoch == self._epoch
        else:
            # If we take over from another replica for another node, the neighbours have the right entry. For our own
            # node this is not certain.
            told = before.next_hop if before is not None and before.answerer else ""
            same = told == served.next_hop != own
        vip.told, vip.epoch = mac, self._epoch
        self._announcer.start(vip.packed, moved=not same, asked=vip.asked > now - ASKED_LATELY, now=now)
        return actions

    def _serve_hosts(self, vip: Vip, mac: bytes, now: float) -> list[Action]:
        """Serves a spread VIP: the owned MAC answers duplicate address probes. An announcement to all would move every
        host to one node. It is sent only before any host can have an entry, or if one node is left (`Spread`)."""
        if vip.usage is None or (mac == vip.mac and not (mac and vip.told)):
            return []
        had, vip.mac, vip.question = vip.mac, mac, None
        if mac and vip.told:  # all hosts were answered with one MAC until now
            vip.told, vip.new = b"", False
        if not mac:
            self._announcer.stop(vip.packed)
            return [Disown(vip.usage.ifindex, vip.packed)] if had else []
        if vip.new and not self._spread.knows(vip.packed):
            self._announcer.start(vip.packed, moved=True, asked=False, now=now, once=True)
        vip.new = False
        return [Own(vip.usage.ifindex, vip.packed, mac, by_asker=True)]

    def _index(self, vip: Vip, served: Answering | None) -> None:
        before = vip.served
        vip.served = served
        for index, old, new in (
            (self._by_next_hop, before and before.next_hop, served and served.next_hop),
            (self._by_answerer, before and before.answerer, served and served.answerer),
        ):
            if old != new:
                if old:
                    index[old].pop(vip, None)
                if new:
                    index.setdefault(new, {})[vip] = None

    def _remove(self, vip: Vip) -> list[Action]:
        self._marked.discard(vip)
        self.by_packed.pop(vip.packed, None)
        self._share(vip, ())
        self._handover.forget(vip, "")
        actions = self._move(vip, None)
        if vip.joined:
            actions.append(Leave(vip.joined, vip.packed))
        self._index(vip, None)
        return actions

    def announcements(self, now: float) -> list[Action]:
        """The announcements that are due, of a VIP to all hosts or to one asker. None while nothing must change."""
        actions: list[Action] = []
        for key in self._announcer.due(now):
            index = 0 if self._around.frozen else self.announced_on(key)
            told = None if self._around.frozen else self._spread.tell(key)
            if index:
                actions.append(Announce(index, key))
            elif told is not None:
                actions.append(told)
            else:
                self._announcer.done(key, False, now)
        return actions

    def stop_announcing(self) -> None:
        """No announcement is due any longer: the process ends."""
        self._announcer.close()

    def announced_on(self, packed: bytes) -> int:
        """The interface on which to announce a VIP; 0: it is not ours at this moment."""
        vip = self.by_packed.get(packed)
        return vip.usage.ifindex if vip is not None and vip.mac and vip.usage is not None else 0
