"""The interfaces that we use: opened when they come up, closed when they go, lose their carrier or change their MAC."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from ipaddress import ip_address

from porterlb.core.layer2.targets import source_for
from porterlb.core.model import Address
from porterlb.core.observed import Nic
from porterlb.wire import netlink
from porterlb.wire.groups import SolicitedNodeGroups
from porterlb.wire.observer import Heard, Observer
from porterlb.wire.responder import Asked, Ears, PacketResponder
from porterlb.wire.templates import Templates

log = logging.getLogger("porterlb.wire")


class Port:
    """One interface in use: responder, observer, groups. Raises OSError where a socket cannot be had."""

    def __init__(
        self,
        nic: Nic,
        templates: Templates,
        ears: Ears,
        vips: Mapping[bytes, Asked],
        *,
        groups: SolicitedNodeGroups,
        heard: Heard,
        count: Callable[[str, int], None],
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        self.nic = nic
        self.responder = PacketResponder(nic, templates, ears, vips, count=count, loop=loop)
        try:
            self.observer = Observer(nic, heard, ears.failed, loop)
        except OSError:
            self.responder.close()
            raise
        self._groups = groups
        self._closed = False
        self.own = self.responder.own
        self.disown = self.responder.disown
        self.announce = self.responder.announce
        self.answer = self.responder.answer

    def join(self, address: bytes) -> None:
        if len(address) == 16:
            self._groups.join(address)

    def leave(self, address: bytes) -> None:
        if len(address) == 16 and not self._closed:
            self._groups.leave(address)

    def close(self) -> None:
        """Falls silent. The groups stay: the interface will be back, or they go with it."""
        self._closed = True
        self.responder.close()
        self.observer.close()


class Ports:
    """The open ports by interface index, and where an address belongs. A port is opened when it is first needed."""

    def __init__(self, open_port: Callable[[Nic, SolicitedNodeGroups], Port], loop: asyncio.AbstractEventLoop) -> None:
        self._open_port = open_port
        self._loop = loop
        self._groups: dict[int, SolicitedNodeGroups] = {}
        self.nics: dict[int, Nic] = {}
        self.open: dict[int, Port] = {}
        self.trouble: dict[int, str] = {}
        self._found: dict[Address, int] = {}
        self._named: set[str] = set()

    def update(self, nics: Mapping[int, Nic]) -> bool:
        """Takes a new table of interfaces over; whether anything has changed that can matter to us.

        Pods' interfaces come and go all the time: they have link-local addresses only, and nobody names them.
        """
        before, self.nics = self._useful(self.nics), dict(nics)
        if self._useful(self.nics) == before:
            return False
        self._found.clear()
        self.trouble.clear()
        for index, port in list(self.open.items()):
            nic = nics.get(index)
            if nic is None or not nic.up or (nic.mac, nic.name) != (port.nic.mac, port.nic.name):
                self.close(index)
            else:
                port.nic = nic
        for index in self._groups.keys() - nics.keys():
            self._groups.pop(index).close()
        return True

    def _useful(self, nics: Mapping[int, Nic]) -> dict[int, Nic]:
        return {
            index: nic
            for index, nic in nics.items()
            if index in self.open or nic.name in self._named or any(not a.is_link_local for a in nic.addresses)
        }

    def get(self, index: int) -> Port | None:
        """The port of an interface, opened now if need be; None while it is down or cannot be opened."""
        port = self.open.get(index)
        nic = self.nics.get(index)
        if port is None and nic is not None and nic.up and index not in self.trouble:
            try:
                groups = self._groups.setdefault(index, SolicitedNodeGroups(nic, self._loop))
                port = self.open[index] = self._open_port(nic, groups)
            except OSError as error:
                self.trouble[index] = f"{nic.name}: {error.strerror or error}"
                log.error("cannot answer on %s: %s", nic.name, error)
        return port

    def rejoin(self, index: int) -> None:
        """The interface has come back to the network, and perhaps not to the same switch."""
        groups = self._groups.get(index)
        if groups is not None:
            groups.rejoin()

    def close(self, index: int) -> None:
        """Resigns on one interface, at once."""
        port = self.open.pop(index, None)
        if port is not None:
            port.close()

    def of(self, address: Address, interface: str, can_reach: str) -> Port | None:
        """The port for a VIP: by name, by what it is to reach, or by the subnet that holds it."""
        if interface:
            self._named.add(interface)
            return next((self.get(index) for index, nic in self.nics.items() if nic.name == interface), None)
        if can_reach:
            goal = ip_address(can_reach)
            if not self.index_of(goal):
                self._found[goal] = netlink.route(goal)[0]
            return self.get(self._found[goal])
        return self.get(self.index_of(address))

    def index_of(self, address: Address) -> int:
        """The up interface whose subnet holds an address, the longest prefix first; 0: none."""
        found = self._found.get(address)
        if found is None:
            best, found = -1, 0
            for index, nic in self.nics.items():
                for own in nic.addresses if nic.up else ():
                    prefix = own.network.prefixlen
                    if best < prefix < own.max_prefixlen and own.version == address.version and address in own.network:
                        best, found = prefix, index
            self._found[address] = found
        return found

    def source(self, address: Address) -> tuple[Port, Address] | None:
        """The port in whose subnet an address is, and our own address there."""
        port = self.get(self.index_of(address))
        own = source_for(port.nic, address) if port is not None else None
        return (port, own) if port is not None and own is not None else None

    def close_all(self) -> None:
        for index in list(self.open):
            self.close(index)
