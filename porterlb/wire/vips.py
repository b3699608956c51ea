"""The VIPs of this replica: what is wanted of each, who serves it now, and the step from one to the other.

Every change marks the VIPs that it touches; they are decided again in small slices of the loop, urgent ones first.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Collection, Iterable, Sequence
from ipaddress import ip_address
from typing import Any, Protocol

from porterlb.core.answering import NOBODY, answering
from porterlb.core.model import Address
from porterlb.core.observed import Answering
from porterlb.wire.announcer import Announcer
from porterlb.wire.responder import Question

_SLICE = 25  # VIPs decided in one turn of the loop: about 0.3 ms
ASKED_LATELY = 60.0  # seconds
QUESTION_LIVES = 0.5
"""Seconds for which a question that nobody of us answered is answered late: its asker repeats it after 1 s only
(RETRANS_TIMER of RFC 4861, Linux' retrans_time_ms for ARP)."""


class Place(Protocol):
    """An interface that answers. ``own`` etc. as in wire.responder."""

    def own(self, address: bytes, mac: bytes) -> None: ...
    def disown(self, address: bytes) -> None: ...
    def announce(self, address: bytes) -> bool: ...
    def answer(self, address: bytes, question: Question) -> None: ...
    def join(self, address: bytes) -> None: ...
    def leave(self, address: bytes) -> None: ...


class Surroundings(Protocol):
    """What a decision needs to know beside the VIP itself."""

    own: str
    leader: str

    @property
    def dead(self) -> Collection[str]: ...

    frozen: bool
    """In doubt: nothing is to change."""

    def place(self, vip: Vip) -> Place | None:
        """Where the VIP would be answered by us; None: not on a usable segment of ours."""

    def replicas(self, place: Place | None, address: Address) -> Collection[str]:
        """Replicas that answer on that segment now, perhaps ourselves."""

    def mac(self, node: str, place: Place) -> bytes:
        """A node's MAC on that segment; empty: not known."""

    def now(self) -> float: ...


class Vip:
    """One VIP. ``mac``: what we answer with, empty while we do not; ``told``: what we answered with last.

    ``question``: the last one, at ``asked``, that was not for us to answer.
    """

    __slots__ = (
        "address",
        "answer",
        "asked",
        "can_reach",
        "candidates",
        "epoch",
        "interface",
        "mac",
        "packed",
        "place",
        "question",
        "served",
        "text",
        "told",
    )

    def __init__(self, text: str) -> None:
        self.text = text
        self.address = ip_address(text)
        self.packed = self.address.packed
        self.candidates: tuple[str, ...] = ()
        self.interface = ""
        self.can_reach = ""
        self.answer = False
        self.asked = 0.0
        self.question: Question | None = None
        self.mac = b""
        self.told = b""
        self.epoch = 0
        self.place: Place | None = None
        self.served: Answering | None = None  # None: never decided


class VipTable:
    def __init__(
        self,
        around: Surroundings,
        announcer: Announcer,
        report: Callable[[str, Answering], None],
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        self._around = around
        self._announcer = announcer
        self._report = report
        self._loop = loop
        self._vips: dict[str, Vip] = {}
        self.by_packed: dict[bytes, Vip] = {}
        self._by_next_hop: dict[str, set[Vip]] = {}
        self._by_answerer: dict[str, set[Vip]] = {}
        self._urgent: deque[Vip] = deque()
        self._normal: deque[Vip] = deque()
        self._marked: set[Vip] = set()
        self._running = False
        self._epoch = 0  # rises with each touch_again()

    def __len__(self) -> int:
        return len(self._vips)

    @property
    def settled(self) -> bool:
        """Whether everything marked has been decided."""
        return not self._marked

    def wanted(self, rows: Iterable[Sequence[Any]], gone: Iterable[str]) -> None:
        """A piece of the wanted set: [address, candidates, interface, can_reach, answer] rows, and addresses gone."""
        for text in gone:
            vip = self._vips.pop(text, None)
            if vip is not None:
                self._remove(vip)
        for text, candidates, interface, can_reach, answer in rows:
            vip = self._vips.get(text)
            if vip is None:
                vip = self._vips[text] = Vip(text)
                self.by_packed[vip.packed] = vip
            vip.candidates = tuple(candidates)
            vip.interface, vip.can_reach, vip.answer = interface, can_reach, bool(answer)
            self._mark(vip)
        self._go()

    def find(self, text: str) -> Vip | None:
        return self._vips.get(text)

    def node_died(self, node: str) -> None:
        """Its VIPs move: at once, those asked for lately first."""
        touched = self._by_next_hop.get(node, set()) | self._by_answerer.get(node, set())
        lately = self._around.now() - ASKED_LATELY
        for first in (True, False):
            for vip in touched:
                if (vip.asked > lately) is first:
                    self._mark(vip, urgent=True)
        self._go()

    def replica_left(self, node: str) -> None:
        """It answers no longer."""
        for vip in self._by_answerer.get(node, ()):
            self._mark(vip, urgent=True)
        self._go()

    def replica_came(self, node: str) -> None:
        """It answers now: for its own node, or on behalf of a node without a replica."""
        for vip in self._vips.values():
            served = vip.served
            if served is None or served.next_hop == node or served.answerer != served.next_hop:
                self._mark(vip)
        self._go()

    def mac_changed(self, node: str) -> None:
        for vip in self._by_next_hop.get(node, ()):
            self._mark(vip, urgent=True)
        self._go()

    def touch_again(self) -> None:
        """As touch_all, and what stays ours is announced again: others may have held us for dead and taken over."""
        self._epoch += 1
        self.touch_all()

    def touch_all(self) -> None:
        for vip in self._vips.values():
            self._mark(vip)
        self._go()

    def _mark(self, vip: Vip, urgent: bool = False) -> None:
        if urgent:
            self._urgent.append(vip)
        elif vip not in self._marked:
            self._normal.append(vip)
        self._marked.add(vip)

    def _go(self) -> None:
        if self._marked and not self._running and not self._around.frozen:
            self._running = True
            self._slice()

    def _slice(self) -> None:
        done = 0
        while done < _SLICE and not self._around.frozen and (self._urgent or self._normal):
            vip = (self._urgent or self._normal).popleft()
            if vip in self._marked:
                self._marked.discard(vip)
                self._decide(vip)
                done += 1
        self._running = bool(self._urgent or self._normal) and not self._around.frozen
        if self._running:
            self._loop.call_soon(self._slice)

    def _decide(self, vip: Vip) -> None:
        around = self._around
        place = around.place(vip) if vip.answer else None
        served, mac = NOBODY, b""
        if vip.answer:
            replicas = around.replicas(place, vip.address)
            served = answering(vip.text, vip.candidates, around.dead, replicas, around.leader)
            if served.answerer == around.own:
                mac = around.mac(served.next_hop, place) if place is not None else b""
                if not mac:
                    served = Answering(served.next_hop, "")  # what is reported is what is on the wire
        if place is not vip.place:
            self._move(vip, place)
        before = vip.served
        if before != served:
            self._index(vip, served)
            self._report(vip.text, served)
        if mac != vip.mac or (mac and vip.epoch != self._epoch):
            self._serve(vip, mac, before)

    def _move(self, vip: Vip, place: Place | None) -> None:
        if vip.place is not None:
            vip.place.disown(vip.packed)
            vip.place.leave(vip.packed)
        vip.mac = vip.told = b""
        vip.place = place
        if place is not None:
            place.join(vip.packed)

    def _serve(self, vip: Vip, mac: bytes, before: Answering | None) -> None:
        vip.mac = mac
        if vip.place is None or not mac:
            if vip.place is not None:
                vip.place.disown(vip.packed)
            self._announcer.stop(vip.packed)
            return
        vip.place.own(vip.packed, mac)
        if vip.question is not None and self._around.now() - vip.asked < QUESTION_LIVES:
            vip.place.answer(vip.packed, vip.question)  # whom it was for may have died with it
        vip.question = None
        served = vip.served
        assert served is not None
        own = self._around.own
        if before is not None and before.answerer == own:
            same = before.next_hop == served.next_hop and vip.told == mac and vip.epoch == self._epoch
        else:
            # For another node, after another replica: the neighbours are right. For our own node, who knows.
            told = before.next_hop if before is not None and before.answerer else ""
            same = told == served.next_hop != own
        vip.told, vip.epoch = mac, self._epoch
        asked = vip.asked > self._around.now() - ASKED_LATELY
        self._announcer.start(vip.packed, moved=not same, asked=asked)

    def _index(self, vip: Vip, served: Answering | None) -> None:
        before = vip.served
        vip.served = served
        for index, old, new in (
            (self._by_next_hop, before and before.next_hop, served and served.next_hop),
            (self._by_answerer, before and before.answerer, served and served.answerer),
        ):
            if old != new:
                if old:
                    index[old].discard(vip)
                if new:
                    index.setdefault(new, set()).add(vip)

    def _remove(self, vip: Vip) -> None:
        self._marked.discard(vip)
        self.by_packed.pop(vip.packed, None)
        self._move(vip, None)
        self._announcer.stop(vip.packed)
        self._index(vip, None)

    def announce(self, packed: bytes) -> bool:
        """Sends one announcement if the VIP is ours at this moment."""
        vip = self.by_packed.get(packed)
        return bool(vip and vip.mac and vip.place and vip.place.announce(packed))
