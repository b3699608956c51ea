"""Answers ARP and NDP on one interface, by AF_PACKET.

Ownership is looked up at each answer and announcement, in a table that is changed in the same event loop.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from porterlb.core.layer2.arp import ARP_REQUEST, ArpAnswer
from porterlb.core.layer2.ndp import NdpAnswer
from porterlb.core.layer2.questions import Question, arp_question, ndp_question
from porterlb.core.model import Interface
from porterlb.core.observed import Nic
from porterlb.wire import packet
from porterlb.wire.templates import Templates

log = logging.getLogger("porterlb.wire")

DRAIN = 256  # frames per wake-up: enough for 100,000 requests/s, short enough (2 ms) for the rest of the loop


MOST_OWN = 64
"""Addresses of the node whose questions are left to the kernel, of one IP version: a filter may have 4,096 steps."""


Socket = socket.socket


class Asked(Protocol):
    """A VIP, ours or another replica's. ``spread``: which node answers depends on the asker."""

    @property
    def spread(self) -> bool: ...

    def ask(self, question: Question, owned: bool, now: float) -> None: ...


class Hearer(Protocol):
    """What a responder calls besides answering. Called for each wake-up or frame: must be quick."""

    def fit(self) -> bool:
        """Whether we may answer: False right after a stall in which the other replicas have taken over."""

    def claimed(self, address: bytes, mac: bytes) -> None:
        """A question came from a host that claims to have ``address``, which is a VIP."""

    def asked(self, nic: int, question: Question) -> bytes:
        """A question for a VIP that is spread: returns the MAC to answer with, or empty."""

    def failed(self, nic: int, error: OSError) -> None:
        """The responder cannot continue."""


@dataclass(slots=True)
class _Family:
    """ARP or NDP: its socket, the function that reads a frame, and the prepared answers by address."""

    ethertype: int
    program: packet.Program
    target_at: int  # offset of the target address in a frame
    size: int  # of an address
    read: Callable[[bytes], Question | None]
    socket: Socket
    counter: Socket | None = None  # counts the questions that are left to the kernel
    owned: dict[bytes, ArpAnswer | NdpAnswer] = field(default_factory=dict)


class PacketResponder:
    """Two sockets with kernel filters, drained when readable. Raises OSError at start."""

    def __init__(
        self,
        nic: Nic,
        templates: Templates,
        hearer: Hearer,
        vips: Mapping[bytes, Asked],
        *,
        count: Callable[[str, int], None],
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        self._nic = nic
        self._templates = templates
        self._hearer = hearer
        self._vips = vips
        self._count = count
        self._loop = loop
        self._macs: dict[bytes, bytes] = {}
        self.heard_at = 0.0
        """When a request last arrived, from any host: the link received then."""
        self._left_to_kernel: frozenset[bytes] = frozenset()
        self._counted_at = loop.time()
        arp, ndp = packet.arp_program(ARP_REQUEST), packet.ndp_program(135)
        opened = packet.open_socket(nic.name, packet.ETHERTYPE_ARP, arp)
        self._arp = _Family(packet.ETHERTYPE_ARP, arp, 38, 4, arp_question, opened)
        try:
            opened = packet.open_socket(nic.name, packet.ETHERTYPE_IPV6, ndp)
        except OSError:
            self._arp.socket.close()
            raise
        self._ndp = _Family(packet.ETHERTYPE_IPV6, ndp, 62, 16, ndp_question, opened)
        for family in (self._arp, self._ndp):
            loop.add_reader(family.socket, self._drain, family)
        self.leave_to_kernel(nic.addresses)

    def leave_to_kernel(self, addresses: Iterable[Interface]) -> None:
        """Questions for these addresses of the node that were sent to this node alone no longer wake this process: the
        kernel answers them. Each of the other replicas sends 20 of them per second, to probe this node."""
        own = frozenset(interface.ip.packed for interface in addresses)
        if own == self._left_to_kernel:
            return
        self._left_to_kernel = own
        for family in (self._arp, self._ndp):
            targets = sorted(address for address in own if len(address) == family.size)[:MOST_OWN]
            counted = packet.only(family.program, family.target_at, targets)
            try:
                if family.counter is None:
                    family.counter = packet.open_counter(self._nic.name, family.ethertype, counted)
                packet.change_filter(family.counter, counted)
                packet.change_filter(family.socket, packet.without(family.program, family.target_at, targets))
            except OSError as error:
                log.warning("%s: the filter for questions was not changed: %s", self._nic.name, error)

    def count_unread(self, now: float) -> None:
        """Notes whether questions were left to the kernel since the last call. The link has received then, at the
        earliest at the time of the last call; that time is taken."""
        counters = [family.counter for family in (self._arp, self._ndp) if family.counter is not None]
        if sum([packet.arrived(counter) for counter in counters]):
            self.heard_at = max(self.heard_at, self._counted_at)
        self._counted_at = now

    def _of(self, address: bytes) -> _Family:
        return self._arp if len(address) == 4 else self._ndp

    def own(self, address: bytes, mac: bytes) -> None:
        """From now on, answers for ``address`` with ``mac``."""
        self._macs[address] = mac
        self._of(address).owned[address] = self._answer(address, mac)

    def disown(self, address: bytes) -> None:
        """No longer answers for ``address``; does nothing if it was not owned."""
        if self._macs.pop(address, None) is not None:
            self._of(address).owned.pop(address, None)

    def announce(self, address: bytes) -> bool:
        """Sends gratuitous ARP or an unsolicited NA, if ``address`` is owned; returns whether it was sent."""
        mac = self._macs.get(address)
        if mac is None or not self._hearer.fit():
            return False
        if len(address) == 4:
            frame = self._templates.arp.gratuitous(self._nic.mac, mac, address)
        else:
            frame = self._templates.ndp.unsolicited(self._nic.mac, mac, address)
        sent = self._send(self._of(address).socket, frame)
        if sent:
            self._count("gratuitous", 1)
        return sent

    def tell(self, address: bytes, mac: bytes, asker: bytes, at: bytes) -> bool:
        """As announce, but to one host only: with the MAC ``asker`` and the address ``at``. Whether it was sent."""
        if not self._hearer.fit():
            return False
        if len(address) == 4:
            frame = self._templates.arp.gratuitous(self._nic.mac, mac, address, asker)
        else:
            frame = self._templates.ndp.unsolicited(self._nic.mac, mac, address, asker, at)
        sent = self._send(self._of(address).socket, frame)
        if sent:
            self._count("askers_told", 1)
        return sent

    def _answer(self, address: bytes, mac: bytes) -> ArpAnswer | NdpAnswer:
        template = self._templates.arp if len(address) == 4 else self._templates.ndp
        return template.answer(self._nic.mac, mac, address)

    def answer(self, address: bytes, question: Question) -> None:
        """Answers a question that came before ``address`` was owned."""
        family = self._of(address)
        answer = family.owned.get(address)
        if answer is None or not self._hearer.fit():
            return
        reply = answer.reply(question)  # type: ignore[arg-type]  # same family as the address
        if reply is not None and self._send(family.socket, reply):
            self._count("late_answers", 1)

    def lost(self) -> int:
        """Requests that the kernel dropped because the buffer was full, since the last call."""
        return packet.dropped(self._arp.socket) + packet.dropped(self._ndp.socket)

    def close(self) -> None:
        for family in (self._arp, self._ndp):
            self._loop.remove_reader(family.socket)
            family.socket.close()
            if family.counter is not None:
                family.counter.close()

    def _send(self, opened: socket.socket, frame: bytes) -> bool:
        try:
            opened.send(frame)
        except OSError:  # queue full, or the link has just gone down: the asker asks again
            self._count("send_failures", 1)
            return False
        return True

    def _drain(self, family: _Family) -> None:
        recv, read, owned, vips = family.socket.recv, family.read, family.owned, self._vips
        now = self._loop.time()
        fit = self._hearer.fit()
        requests = answers = 0
        try:
            for _ in range(DRAIN):
                question = read(recv(packet.SNAP))
                if question is None:
                    continue
                requests += 1
                if question.mac and question.sender in vips:
                    self._hearer.claimed(question.sender, question.mac)
                vip = vips.get(question.target)
                if vip is None:
                    continue
                answer = owned.get(question.target)
                vip.ask(question, answer is not None, now)
                if vip.spread and question.target != question.sender and fit:
                    mac = self._hearer.asked(self._nic.index, question)
                    answer = self._answer(question.target, mac) if mac else None
                if answer is not None and fit and question.target != question.sender:
                    reply = answer.reply(question)  # type: ignore[arg-type]  # same family as the question
                    if reply is not None and self._send(family.socket, reply):
                        answers += 1
        except BlockingIOError:
            pass
        except OSError as error:
            self._hearer.failed(self._nic.index, error)
        if requests:
            self.heard_at = now
        self._count("requests", requests)
        self._count("answers", answers)
