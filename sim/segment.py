"""The segment: a switch with ports, its faults, and the kernels' handling of ARP and neighbor discovery.

A datagram is handled like a frame: it is lost or cut where a frame would be. The ARP of the nodes' kernels for it is
left out.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address, ip_interface
from typing import TYPE_CHECKING

from porterlb.core.layer2.arp import ARP_REPLY, ARP_REQUEST, BROADCAST, Arp, ArpTemplate, arp_frame, parse_arp
from porterlb.core.layer2.ndp import (
    Advertisement,
    NdpTemplate,
    Solicitation,
    advertisement_frame,
    parse_ndp,
)
from porterlb.core.observed import Nic

if TYPE_CHECKING:
    from sim.sockets import Datagram, RawSocket, Readable
    from sim.world import World

SOLICITATION, ADVERTISEMENT = 135, 136
"""Kinds of ICMPv6 messages (RFC 4861)."""
PREFIX, PREFIX6 = "10.77.0.", "fd77::"
TEMPLATE = ArpTemplate(arp_frame())
NDP = NdpTemplate(advertisement_frame())
_parsed = lru_cache(4096)(parse_arp)
_parsed6 = lru_cache(4096)(parse_ndp)


@dataclass
class Weather:
    """What the switch currently does to frames. ``cut``: pairs (from, to) of ports between which nothing arrives."""

    loss: float = 0.0
    duplicate: float = 0.0
    jitter: float = 0.0  # additional seconds, at most: frames overtake one another
    cut: set[tuple[str, str]] = field(default_factory=set)
    lossy: dict[str, float] = field(default_factory=dict)  # loss by port, in both directions


class Port:
    """The NIC of a host, and its kernel. ``powered``: the host; ``link``: the cable."""

    def __init__(self, segment: Segment, name: str, number: int) -> None:
        self.segment = segment
        self.world = segment.world
        self.name = name
        self.number = number
        self.mac = bytes((2, 0, 0, 0, 0, number))
        self.address = f"{PREFIX}{number}"
        self.packed = IPv4Address(self.address).packed
        self.address6 = f"{PREFIX6}{number:x}"
        self.packed6 = IPv6Address(self.address6).packed
        self.powered = True
        self.link = True
        self.sockets: dict[int, list[RawSocket]] = {}  # by operation
        self.datagrams: list[Datagram] = []
        self.tables: list[Readable] = []
        self.cache: NeighbourCache | None = None

    @property
    def up(self) -> bool:
        return self.powered and self.link

    @property
    def nic(self) -> Nic:
        addresses = [f"{self.address}/24"]
        if self.segment.ipv6:
            addresses += [f"{self.address6}/64", f"fe80::{self.number:x}/64"]
        return Nic("eth0", 2, self.mac, self.up, tuple(ip_interface(address) for address in addresses))

    def unplug(self, socket: RawSocket) -> None:
        """The socket is closed."""
        there = self.sockets.get(socket.operation, [])
        if socket in there:
            there.remove(socket)

    def changed(self) -> None:
        """The carrier has changed: the kernel notifies its listeners."""
        self.world.dirty = True
        for table in self.tables:
            table.arrive(None)

    def send(self, frame: bytes) -> None:
        if self.powered and self.link:
            self.segment.frame(self, frame)

    def receive(self, frame: bytes) -> None:
        """In the world: a frame has arrived."""
        if not (self.powered and self.link):
            return
        arp = _parsed(frame)
        if arp is None:
            if self.segment.ipv6 and (found := _parsed6(frame)) is not None:
                self._discovery(found, frame)
            return
        for opened in tuple(self.sockets.get(arp.operation, ())):
            opened.arrive(frame)
        if arp.operation == ARP_REQUEST and arp.target == self.packed and arp.sender != self.packed:
            self.send(arp.mac + self.mac + frame[12:20] + b"\0\2" + self.mac + self.packed + arp.mac + arp.sender)
        if self.cache is not None:
            self.cache.hear(arp)

    def _discovery(self, ndp: Solicitation | Advertisement, frame: bytes) -> None:
        operation = SOLICITATION if isinstance(ndp, Solicitation) else ADVERTISEMENT
        for opened in tuple(self.sockets.get(operation, ())):
            opened.arrive(frame)
        if isinstance(ndp, Advertisement):
            if self.cache is not None:
                self.cache.advertised(ndp)
        elif ndp.target == self.packed6 and (answer := NDP.answer(self.mac, self.mac, self.packed6).reply(ndp)):
            self.send(answer)


class NeighbourCache:
    """The cache of a host that talks to VIPs all the time, modelled on Linux: an entry is reachable for some 30 s; 5 s
    later it is asked again by unicast three times, a second apart, then by broadcast. A gratuitous request replaces it
    at once, any other change only a second after the previous one (locktime)."""

    REACHABLE, DELAY, AGAIN, LOCKTIME = 30.0, 5.0, 1.0, 1.0

    def __init__(self, port: Port) -> None:
        self.port = port
        self.world = port.world
        self.macs: dict[bytes, bytes] = {}
        self._updated: dict[bytes, float] = {}
        self._asked: dict[bytes, int] = {}
        self._turn: dict[bytes, int] = {}

    def talk(self, address: bytes) -> None:
        """From now on this host talks to an address."""
        if address not in self._turn:
            self._turn[address] = 0
            self._ask(address, 0, 0)

    def quiet(self, address: bytes) -> None:
        self._turn.pop(address, None)
        self.macs.pop(address, None)

    def _later(self, address: bytes, seconds: float, tries: int) -> None:
        self._turn[address] += 1
        self.world.after(seconds, self._ask, address, self._turn[address], tries)

    def _ask(self, address: bytes, turn: int, tries: int) -> None:
        if self._turn.get(address) != turn:
            return
        known = self.macs.get(address, b"")
        if known and tries >= 3:
            del self.macs[address]
            self.world.dirty = True
            known = b""
        port = self.port
        if len(address) == 16:
            port.send(NDP.solicitation(port.mac, port.packed6, address, known))
        else:
            port.send(TEMPLATE.request(port.mac, known or BROADCAST, port.mac, port.packed, address))
        self._later(address, self.AGAIN, tries + 1)

    def hear(self, arp: Arp) -> None:
        if arp.sender not in self._turn:
            return
        known, now = self.macs.get(arp.sender, b""), self.world.now
        gratuitous = arp.sender == arp.target
        answer = arp.operation == ARP_REPLY and arp.target == self.port.packed
        if not gratuitous and not answer:
            return
        if known and known != arp.mac and not gratuitous and now < self._updated.get(arp.sender, -9.0) + self.LOCKTIME:
            return
        if known != arp.mac:
            self.macs[arp.sender] = arp.mac
            self._updated[arp.sender] = now
            self.world.dirty = True
        if answer:
            self._later(arp.sender, self.REACHABLE * self.world.random.uniform(0.5, 1.5) + self.DELAY, 0)

    def advertised(self, said: Advertisement) -> None:
        """RFC 4861, 7.2.5: without Override a known MAC stays. There is no locktime."""
        if said.target not in self._turn:
            return
        known, mac = self.macs.get(said.target, b""), said.mac or said.source
        if known not in (b"", mac) and not said.override:
            return
        if known != mac:
            self.macs[said.target] = mac
            self.world.dirty = True
        if said.solicited:
            self._later(said.target, self.REACHABLE * self.world.random.uniform(0.5, 1.5) + self.DELAY, 0)


class Segment:
    """The switch. A frame takes 0.1 to 0.3 ms."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.weather = Weather()
        self.ports: dict[str, Port] = {}
        self.by_mac: dict[bytes, Port] = {}
        self.by_address: dict[str, Port] = {}
        self.ipv6 = False
        self.frames = 0

    def plug(self, name: str, number: int) -> Port:
        port = self.ports[name] = Port(self, name, number)
        self.by_mac[port.mac] = port
        self.by_address[port.address] = self.by_address[port.address6] = port
        return port

    def passes(self, sender: str, receiver: str) -> bool:
        """Whether frames can pass at all."""
        return (sender, receiver) not in self.weather.cut

    def loses(self, one: str, other: str) -> bool:
        """Whether a frame between two ports is lost by chance."""
        lossy = self.weather.lossy
        loss = max(self.weather.loss, lossy.get(one, 0.0), lossy.get(other, 0.0))
        return bool(loss) and self.world.random.random() < loss

    def frame(self, sender: Port, frame: bytes) -> None:
        self.frames += 1
        if frame[0] & 1:
            for port in self.ports.values():
                if port is not sender:
                    self._carry(sender, port, port.receive, frame)
            return
        found = self.by_mac.get(frame[:6])
        if found is not None and found is not sender:
            self._carry(sender, found, found.receive, frame)

    def datagram(self, sender: Port, to: str, data: bytes) -> None:
        found = self.by_address.get(to)
        if found is not None:
            self.frames += 1
            self._carry(sender, found, self._arrived, found, data)

    def _arrived(self, port: Port, data: bytes) -> None:
        if port.up:
            for opened in port.datagrams:
                opened.arrive(data)

    def _carry(self, sender: Port, receiver: Port, do: object, *arguments: object) -> None:
        world, weather = self.world, self.weather
        delay = 0.0001 + 0.0002 * world.random.random()
        if weather.loss or weather.duplicate or weather.jitter or weather.cut or weather.lossy:
            if (sender.name, receiver.name) in weather.cut:
                return
            if self.loses(sender.name, receiver.name):
                return
            delay += weather.jitter * world.random.random()
            if weather.duplicate and world.random.random() < weather.duplicate:
                world.after(delay + 0.001 * world.random.random(), do, *arguments)  # type: ignore[arg-type]
        world.after(delay, do, *arguments)  # type: ignore[arg-type]
