"""Answers ARP and NDP on one interface: the protocol, and the AF_PACKET responder.

An in-kernel responder (eBPF) can stand beside it behind the same protocol. Ownership is looked up at the moment of
answering and of announcing, in a table that is changed in the same loop.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Mapping
from typing import Protocol

from porterlb.core.neighbour import (
    ARP_REQUEST,
    ArpAnswer,
    NeighbourAnswer,
    Solicitation,
    parse_arp,
    parse_neighbour,
)
from porterlb.core.observed import Nic
from porterlb.wire import packet
from porterlb.wire.templates import Templates

DRAIN = 256  # frames a wake-up: enough for 100,000 requests/s, short enough (2 ms) for everything else in the loop


Question = bytes | Solicitation
"""The frame of an ARP request, or a neighbour solicitation."""


class Responder(Protocol):
    """What answers on one interface. Addresses and MACs are bytes."""

    def own(self, address: bytes, mac: bytes) -> None:
        """From now on answer for ``address`` with ``mac``."""

    def disown(self, address: bytes) -> None:
        """No longer; nothing if it was not owned."""

    def announce(self, address: bytes) -> bool:
        """Gratuitous ARP or unsolicited NA, if ``address`` is owned; whether it was sent."""

    def answer(self, address: bytes, question: Question) -> None:
        """Answers a question that came before ``address`` was owned."""

    def close(self) -> None: ...


class Asked(Protocol):
    """A VIP, ours or another replica's."""

    asked: float
    """When somebody asked for it last."""

    question: Question | None
    """What was asked then, if it was not for us to answer."""


class Ears(Protocol):
    """Whom a responder tells what it hears beside its own work. Called for each frame: must be quick."""

    def fit(self) -> bool:
        """Whether we may answer: not just out of a stall in which the others have taken over."""

    def claimed(self, address: bytes, mac: bytes) -> None:
        """A question came from one who says that it has ``address``, which is a VIP."""

    def failed(self, nic: int, error: OSError) -> None:
        """The responder cannot go on."""


class PacketResponder:
    """The responder on AF_PACKET: two sockets with kernel filters, drained when readable. Raises OSError at start."""

    def __init__(
        self,
        nic: Nic,
        templates: Templates,
        ears: Ears,
        vips: Mapping[bytes, Asked],
        *,
        count: Callable[[str, int], None],
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        self._nic = nic
        self._templates = templates
        self._ears = ears
        self._vips = vips
        self._count = count
        self._loop = loop
        self._owned4: dict[bytes, ArpAnswer] = {}
        self._owned6: dict[bytes, NeighbourAnswer] = {}
        self._macs: dict[bytes, bytes] = {}
        self.heard_at = 0.0
        """When a request last came in, from whomever: then the link receives."""
        self._arp = packet.open_socket(nic.name, packet.ETHERTYPE_ARP, packet.arp_program(ARP_REQUEST))
        try:
            self._ns = packet.open_socket(nic.name, packet.ETHERTYPE_IPV6, packet.neighbour_program(135))
        except OSError:
            self._arp.close()
            raise
        loop.add_reader(self._arp, self._drain_arp)
        loop.add_reader(self._ns, self._drain_ns)

    def own(self, address: bytes, mac: bytes) -> None:
        self._macs[address] = mac
        if len(address) == 4:
            self._owned4[address] = self._templates.arp.answer(self._nic.mac, mac, address)
        else:
            self._owned6[address] = self._templates.neighbour.answer(self._nic.mac, mac, address)

    def disown(self, address: bytes) -> None:
        if self._macs.pop(address, None) is not None:
            self._owned4.pop(address, None)
            self._owned6.pop(address, None)

    def announce(self, address: bytes) -> bool:
        mac = self._macs.get(address)
        if mac is None or not self._ears.fit():
            return False
        if len(address) == 4:
            frame = self._templates.arp.gratuitous(self._nic.mac, mac, address)
        else:
            frame = self._templates.neighbour.unsolicited(self._nic.mac, mac, address)
        sent = self._send(self._arp if len(address) == 4 else self._ns, frame)
        if sent:
            self._count("gratuitous", 1)
        return sent

    def answer(self, address: bytes, question: Question) -> None:
        if not self._ears.fit():
            return
        if isinstance(question, bytes):
            answer, opened = self._owned4.get(address), self._arp
            reply = answer.reply(question) if answer is not None else None
        else:
            advertised, opened = self._owned6.get(address), self._ns
            reply = advertised.reply(question) if advertised is not None else None
        if reply is not None and self._send(opened, reply):
            self._count("late_answers", 1)

    def lost(self) -> int:
        """Requests dropped by the kernel for want of buffer since the last call."""
        return packet.dropped(self._arp) + packet.dropped(self._ns)

    def close(self) -> None:
        for opened in (self._arp, self._ns):
            self._loop.remove_reader(opened)
            opened.close()

    def _send(self, opened: socket.socket, frame: bytes) -> bool:
        try:
            opened.send(frame)
        except OSError:  # queue full, or the link has just gone: the asker asks again
            self._count("send_failures", 1)
            return False
        return True

    def _drain_arp(self) -> None:
        recv, owned, vips = self._arp.recv, self._owned4, self._vips
        now = self._loop.time()
        fit = self._ears.fit()
        requests = answers = 0
        try:
            for _ in range(DRAIN):
                frame = recv(packet.SNAP)
                arp = parse_arp(frame)
                if arp is None:
                    continue
                requests += 1
                target = arp.tpa
                if arp.spa in vips:
                    self._ears.claimed(arp.spa, arp.sha)
                vip = vips.get(target)
                if vip is None:
                    continue
                vip.asked = now
                answer = owned.get(target)
                if answer is None:
                    vip.question = frame if target != arp.spa else None
                elif target != arp.spa and fit:
                    reply = answer.reply(frame)
                    if reply is not None and self._send(self._arp, reply):
                        answers += 1
        except BlockingIOError:
            pass
        except OSError as error:
            self._ears.failed(self._nic.index, error)
        if requests:
            self.heard_at = now
        self._count("requests", requests)
        self._count("answers", answers)

    def _drain_ns(self) -> None:
        recv, owned, vips = self._ns.recv, self._owned6, self._vips
        now = self._loop.time()
        fit = self._ears.fit()
        requests = answers = 0
        try:
            for _ in range(DRAIN):
                asked = parse_neighbour(recv(packet.SNAP))
                if not isinstance(asked, Solicitation):
                    continue
                requests += 1
                if asked.link and asked.src in vips:
                    self._ears.claimed(asked.src, asked.link)
                vip = vips.get(asked.target)
                if vip is None:
                    continue
                vip.asked = now
                answer = owned.get(asked.target)
                if answer is None:
                    vip.question = asked
                elif fit:
                    reply = answer.reply(asked)
                    if reply is not None and self._send(self._ns, reply):
                        answers += 1
        except BlockingIOError:
            pass
        except OSError as error:
            self._ears.failed(self._nic.index, error)
        if requests:
            self.heard_at = now
        self._count("requests", requests)
        self._count("answers", answers)
