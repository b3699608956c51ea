"""Asks the segment which hosts answer for VIPs, and tells the manager: the sockets and the timer around `Inquiry`."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable

from porterlb.core import wire_text
from porterlb.core.layer2.arp import BROADCAST
from porterlb.core.layer2.engine import Layer2
from porterlb.core.layer2.inquiry import MOST, Inquiry, NotAsked
from porterlb.core.layer2.probes import Probe
from porterlb.core.layer2.targets import TargetKey
from porterlb.core.model import Address
from porterlb.wire.prober import ProbeFrames
from porterlb.wire.reply_listener import ReplyListener


class Asking:
    """One inquiry at a time; a new one replaces the previous one. It reads `Layer2`, and changes nothing there.

    Args:
        own: our node.
        replies: returns the listener that sends and receives on an interface.
        send: sends lines to the manager.
    """

    def __init__(
        self,
        own: str,
        layer2: Layer2,
        frames: ProbeFrames,
        replies: Callable[[int], ReplyListener | None],
        send: Callable[[Iterable[bytes]], None],
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        self._own = own
        self._layer2 = layer2
        self._frames = frames
        self._replies = replies
        self._send = send
        self._loop = loop
        self._number = 0
        self._inquiry: Inquiry | None = None
        self._timer: asyncio.TimerHandle | None = None

    def begin(self, number: int, addresses: Iterable[Address]) -> None:
        """Starts an inquiry of the manager."""
        self._number = number
        self._inquiry = Inquiry(
            {address: self._place(address) for address in list(addresses)[:MOST]}, self._loop.time()
        )
        self._go_on()

    def heard(self, nic: int, address: bytes, mac: bytes, now: float) -> None:
        """Takes an ARP reply or an advertisement."""
        if self._inquiry is not None:
            self._inquiry.heard(nic, address, mac, now)

    def _place(self, address: Address) -> int | NotAsked:
        vips = self._layer2.vips
        if address.packed not in vips:
            return NotAsked.NOT_LAYER2
        usage = vips[address.packed].usage
        return usage.ifindex if usage is not None and self._replies(usage.ifindex) else NotAsked.NO_INTERFACE

    def _go_on(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        inquiry, now = self._inquiry, self._loop.time()
        if inquiry is None:
            return
        if inquiry.over(now):
            self._inquiry = None
            self._send([wire_text.answers_line(self._number, inquiry.outcomes(self._name, self._node))])
            return
        for nic, address in inquiry.due(now):
            replies, frame = self._replies(nic), self._frame(nic, address)
            if replies is not None and frame and replies.send(frame):
                inquiry.sent(address, now)
        self._timer = self._loop.call_at(inquiry.next_at, self._go_on)

    def _frame(self, nic: int, address: Address) -> bytes:
        """The question as a host asks it, from our own address. For a VIP that is spread, and if we have no address in
        its subnet: without a sender address, so that no replica assigns us a next hop."""
        interface = self._layer2.interfaces.nics.get(nic)
        if interface is None:
            return b""
        vips = self._layer2.vips
        spread = address.packed in vips and vips[address.packed].spread
        as_host = b"" if spread else self._frames.probe(interface, Probe(TargetKey(nic, address.packed), BROADCAST))
        return as_host or self._frames.duplicate(interface, address)

    def _name(self, nic: int) -> str:
        interface = self._layer2.interfaces.nics.get(nic)
        return interface.name if interface is not None else ""

    def _node(self, mac: bytes, nic: int) -> str:
        ours = self._layer2.interfaces.nics.get(nic)
        return self._own if ours is not None and ours.mac == mac else self._layer2.nodes.node_with(mac, nic)
