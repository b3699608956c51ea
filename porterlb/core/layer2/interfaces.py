"""The network interfaces: which ones we use, and which one an address belongs to."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from ipaddress import ip_address
from typing import NamedTuple

from porterlb.core.layer2.targets import source_for
from porterlb.core.model import Address
from porterlb.core.observed import Nic


class Usage(NamedTuple):
    """An interface from its opening until it is closed. ``number`` is different for each opening."""

    ifindex: int
    number: int


class InterfaceChange(NamedTuple):
    """``closed``: used interfaces that must be closed. ``gone``: interfaces that no longer exist."""

    closed: tuple[int, ...]
    gone: tuple[int, ...]


class InterfaceTable:
    """``nics``: every interface by index. ``used``: open interfaces. ``trouble``: why an interface was not opened.

    ``to_open`` and ``to_find``: interfaces to open and routes to find since the caller last cleared these lists. An
    interface is opened when it is first needed.
    """

    def __init__(self) -> None:
        self.nics: dict[int, Nic] = {}
        self.used: dict[int, Usage] = {}
        self.trouble: dict[int, str] = {}
        self.to_open: list[Nic] = []
        self.to_find: list[Address] = []
        self._opened: dict[int, Nic] = {}  # state at the time of opening
        self._ever_opened: set[int] = set()
        self._found: dict[Address, int] = {}
        self._routes: dict[Address, int | None] = {}  # None: requested, no result yet
        self._named: set[str] = set()
        self._by_name: dict[str, int] = {}
        self._numbers = itertools.count()

    def update(self, nics: Mapping[int, Nic]) -> InterfaceChange | None:
        """Replaces the table; None if nothing relevant changed.

        Pod interfaces change constantly and are not relevant: they have only link-local addresses, and no Eip or
        BgpPeer names them.
        """
        before, self.nics = self._useful(self.nics), dict(nics)
        self._by_name = {nic.name: index for index, nic in nics.items()}
        if self._useful(self.nics) == before:
            return None
        self._found.clear()
        self._routes.clear()
        self.trouble.clear()
        closed = []
        for index, opened in list(self._opened.items()):
            nic = nics.get(index)
            if nic is None or not nic.up or (nic.mac, nic.name) != (opened.mac, opened.name):
                self.close(index)
                closed.append(index)
        gone = tuple(sorted(self._ever_opened - nics.keys()))
        self._ever_opened.difference_update(gone)
        return InterfaceChange(tuple(closed), gone)

    def _useful(self, nics: Mapping[int, Nic]) -> dict[int, Nic]:
        return {
            index: nic
            for index, nic in nics.items()
            if index in self.used or nic.name in self._named or any(not a.is_link_local for a in nic.addresses)
        }

    def name(self, names: Iterable[str]) -> bool:
        """Interfaces with these names are relevant, whatever their addresses. Returns whether any name is new."""
        fresh = set(names) - self._named
        self._named |= fresh
        return bool(fresh)

    def use(self, index: int) -> Usage | None:
        """Returns an interface for use, and opens it if necessary; None while it is down or cannot be opened."""
        usage = self.used.get(index)
        nic = self.nics.get(index)
        if usage is None and nic is not None and nic.up and index not in self.trouble:
            usage = self.used[index] = Usage(index, next(self._numbers))
            self._opened[index] = nic
            self._ever_opened.add(index)
            self.to_open.append(nic)
        return usage

    def close(self, index: int) -> None:
        self.used.pop(index, None)
        self._opened.pop(index, None)
        self.to_open = [nic for nic in self.to_open if nic.index != index]

    def failed(self, index: int, trouble: str) -> None:
        """The interface cannot be opened, or its sockets failed."""
        self.close(index)
        self.trouble[index] = trouble

    def try_again(self) -> bool:
        """Clears the failures of interfaces. Returns whether there were any."""
        had = bool(self.trouble)
        self.trouble.clear()
        return had

    def of(self, address: Address, interface: str, can_reach: Address | None) -> Usage | None:
        """The interface of a VIP: by name, by the address that it must reach, or by the subnet of the VIP."""
        if interface:
            self._named.add(interface)
            return next((self.use(index) for index, nic in self.nics.items() if nic.name == interface), None)
        if can_reach is not None:
            index = self.index_of(can_reach) or self._route(can_reach)
            return self.use(index)
        return self.use(self.index_of(address))

    def listed(self, address: Address, names: Sequence[str], *, strict: bool) -> Usage | None:
        """The interface of a VIP among several names: the first that is up and on the subnet of the VIP. If there is
        none, the first that is up; if ``strict``, none."""
        up = []
        for name in names:
            self._named.add(name)
            index = self._by_name.get(name)
            if index is not None and self.nics[index].up:
                if any(address.version == own.version and address in own.network for own in self.nics[index].addresses):
                    return self.use(index)
                up.append(index)
        return self.use(up[0]) if up and not strict else None

    def route_found(self, goal: Address, index: int) -> None:
        self._routes[goal] = index

    def _route(self, goal: Address) -> int:
        if goal not in self._routes:
            self._routes[goal] = None
            self.to_find.append(goal)
        return self._routes[goal] or 0

    def index_of(self, address: Address) -> int:
        """The up interface whose subnet contains an address, the longest prefix first; 0: none."""
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

    def on_link(self, address: Address) -> Nic | None:
        """The interface whose subnet contains an address, if the interface can be used."""
        usage = self.use(self.index_of(address))
        nic = self.nics[usage.ifindex] if usage is not None else None
        return nic if nic is not None and source_for(nic, address) is not None else None


def parse_goal(text: str) -> Address | None:
    """Parses ``can_reach`` from its text form; empty: None."""
    return ip_address(text) if text else None
