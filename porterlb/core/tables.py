"""Tables derived from the plans of all VIPs, updated one VIP at a time."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from porterlb.core.desired import Path, Prefix
from porterlb.core.mode import wakes_at
from porterlb.core.model import Address
from porterlb.core.persistent import PersistentSet, editing
from porterlb.core.shared import Shared
from porterlb.core.vip import VipPlan

if TYPE_CHECKING:
    from porterlb.core.plan import Plan


class Tables:
    """Starts from the previous plan."""

    def __init__(self, shared: Shared, before: Plan) -> None:
        self._shared = shared
        self._before = before
        self.vips = editing(before.vips)
        self.modes = editing(before.memory.modes if before.shared is not None else {})
        self.layer2 = editing(before.wire.vips)
        self.waking = editing(before.waking)
        self.digest = before.digest
        self.loads = dict(before.loads)
        self.unrecorded = editing(before.unrecorded)
        self.shares = editing(before.shares)
        self._lost: dict[Path, list[Prefix]] = {}
        self._gained: dict[Path, list[Prefix]] = {}
        self._touched: set[tuple[Path, Prefix]] = set()  # aggregates whose count has changed

    def put(self, address: Address, vip: VipPlan) -> None:
        """Adds or replaces the plan of a VIP."""
        old = self.vips.get(address)
        self.vips[address] = vip
        self.digest ^= vip.digest ^ (old.digest if old else 0)
        if self.modes.get(address) != vip.mode:
            self.modes[address] = vip.mode
        if vip.layer2 is None:
            self.layer2.pop(address, None)
        elif self.layer2.get(address) != vip.layer2:
            self.layer2[address] = vip.layer2
        at = wakes_at(vip.mode, self._shared.policy)
        if at is None:
            self.waking.pop(address, None)
        else:
            self.waking[address] = at
        self._carried(old, vip)
        if vip.place and not vip.recorded:
            self.unrecorded[address] = vip.services[0]
        else:
            self.unrecorded.pop(address, None)
        if old is None or old.paths != vip.paths:
            self._routed(old.paths if old else (), vip.paths, vip.prefix)
        self._shared_by(old.aggregates if old else (), vip.aggregates)

    def announce_anew(self, address: Address, vip: VipPlan) -> None:
        """Replaces the plan of a VIP by one with other announcements; nothing else differs."""
        old = self.vips[address]
        self.vips[address] = vip
        if old.paths != vip.paths:
            self._routed(old.paths, vip.paths, vip.prefix)
        self._shared_by(old.aggregates, vip.aggregates)

    def remove(self, address: Address) -> None:
        """Removes a VIP that is no longer planned."""
        old = self.vips.pop(address, None)
        if old is None:
            return
        self.digest ^= old.digest
        self._carried(old, None)
        for table in (self.modes, self.layer2, self.waking, self.unrecorded):
            table.pop(address, None)
        self._routed(old.paths, (), old.prefix)
        self._shared_by(old.aggregates, ())

    def _carried(self, old: VipPlan | None, new: VipPlan | None) -> None:
        """Updates the Layer 2 load of each node."""
        for vip, sign in ((old, -1), (new, 1)):
            if vip is not None and (place := vip.place):
                load = self.loads.get(place, 0) + sign * vip.weight
                if load:
                    self.loads[place] = load
                else:
                    self.loads.pop(place, None)

    def _routed(self, before: Iterable[Path], now: Iterable[Path], prefix: Prefix) -> None:
        for path in before:
            self._lost.setdefault(path, []).append(prefix)
        for path in now:
            self._gained.setdefault(path, []).append(prefix)

    def _shared_by(self, before: Iterable[tuple[Path, Prefix]], now: Iterable[tuple[Path, Prefix]]) -> None:
        """Updates the number of VIPs behind each aggregate. An aggregate is announced while it has a VIP."""
        for entries, sign in ((before, -1), (now, 1)) if before != now else ():
            for entry in entries:
                count = self.shares.get(entry, 0) + sign
                if count:
                    self.shares[entry] = count
                else:
                    self.shares.pop(entry, None)
                self._touched.add(entry)

    def routes(self) -> dict[Path, PersistentSet[Prefix]]:
        """The routes that this replica itself announces, as of now: the prefixes by path."""
        lost, gained = dict(self._lost), dict(self._gained)
        for path, prefix in self._touched:
            was, now = (path, prefix) in self._before.shares, (path, prefix) in self.shares
            if was != now:
                into = gained if now else lost
                into[path] = [*into.get(path, ()), prefix]
        routes = dict(self._before.routes)
        for path in lost.keys() | gained.keys():
            known = routes.get(path) or PersistentSet()
            fresh = known.changed(lost.get(path, ()), gained.get(path, ()))
            if fresh:
                routes[path] = fresh
            else:
                routes.pop(path, None)
        return routes
