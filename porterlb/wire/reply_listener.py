"""Receives ARP replies and neighbour advertisements on one interface, and sends the frames that ask for them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from porterlb.core.layer2.arp import ARP_REPLY, parse_arp
from porterlb.core.layer2.ndp import Advertisement, parse_ndp
from porterlb.core.observed import Nic
from porterlb.wire import packet
from porterlb.wire.responder import DRAIN

Heard = Callable[[int, bytes, bytes, float], None]
"""Interface index, address, its MAC, and when (monotonic seconds)."""


class ReplyListener:
    """Two sockets, separate from those for requests: a flood of requests must not push out answers to our probes."""

    def __init__(
        self, nic: Nic, heard: Heard, failed: Callable[[int, OSError], None], loop: asyncio.AbstractEventLoop
    ) -> None:
        self._nic = nic
        self._heard = heard
        self._failed = failed
        self._loop = loop
        self._arp = packet.open_socket(nic.name, packet.ETHERTYPE_ARP, packet.arp_program(ARP_REPLY))
        try:
            self._na = packet.open_socket(nic.name, packet.ETHERTYPE_IPV6, packet.ndp_program(136))
        except OSError:
            self._arp.close()
            raise
        loop.add_reader(self._arp, self.drain)
        loop.add_reader(self._na, self.drain)

    def drain(self) -> None:
        """Reads the frames that have arrived. Also called before probes are judged, so that replies that wait for a
        late process do not count as missing."""
        now, nic = self._loop.time(), self._nic.index
        try:
            for _ in range(DRAIN):
                arp = parse_arp(self._arp.recv(packet.SNAP))
                if arp is not None and not arp.mac[0] & 1:
                    self._heard(nic, arp.sender, arp.mac, now)
        except BlockingIOError:
            pass
        except OSError as error:
            self._failed(nic, error)
            return
        try:
            for _ in range(DRAIN):
                said = parse_ndp(self._na.recv(packet.SNAP))
                if isinstance(said, Advertisement):
                    mac = said.mac or said.source
                    if not mac[0] & 1:
                        self._heard(nic, said.target, mac, now)
        except BlockingIOError:
            pass
        except OSError as error:
            self._failed(nic, error)

    def send(self, frame: bytes) -> bool:
        """Sends a frame unchanged; returns whether the kernel accepted it."""
        try:
            self._arp.send(frame)
        except OSError:
            return False
        return True

    def close(self) -> None:
        for opened in (self._arp, self._na):
            self._loop.remove_reader(opened)
            opened.close()
