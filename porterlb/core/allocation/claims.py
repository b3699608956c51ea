"""The owners of addresses: from statuses that we wrote, then our records, then statuses written by others."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from porterlb.core.allocation.eligibility import EipMap
from porterlb.core.allocation.pool import decode, encode
from porterlb.core.allocation.reserved import Reserved
from porterlb.core.allocation.sharing import group_of, why_not_shared
from porterlb.core.model import Address, Service, ServiceKey
from porterlb.core.persistent import Editor
from porterlb.core.problems import Problem, Reason

Keys = tuple[ServiceKey, ...]


class HeldAddress(NamedTuple):
    """An address that a Service has: its code, the address, and its Eip."""

    code: int
    address: Address
    eip: str


def age(service: Service) -> tuple[str, str, ServiceKey]:
    """The order in which Services are served."""
    return service.created, service.uid, service.key


@dataclass(frozen=True, slots=True)
class Bars:
    """The addresses of Eips (as codes) that are not assigned, and why. See :func:`allocate` for the three kinds."""

    claimed: frozenset[int] = frozenset()
    reserved: Mapping[int, str] = field(default_factory=dict)
    elsewhere: Mapping[int, Keys] = field(default_factory=dict)
    codes: frozenset[int] = frozenset()
    by_eip: Mapping[str, tuple[int, ...]] = field(default_factory=dict, compare=False, repr=False)  # codes, ascending

    @classmethod
    def of(
        cls, map_: EipMap, claimed: frozenset[Address], reserved: Reserved, elsewhere: Mapping[Address, Keys]
    ) -> Bars:
        """Only addresses that are in an Eip: others have no effect."""
        found = {code: name for address in claimed if (name := map_.name_of(code := encode(address)))}
        mine = frozenset(code for code, name in found.items() if map_.eips[name].probe)
        clauses = {code: why for address, why in reserved.items() if map_.name_of(code := encode(address))}
        users = {code: keys for address, keys in elsewhere.items() if map_.name_of(code := encode(address))}
        codes = mine | clauses.keys() | users.keys()
        by_eip: dict[str, list[int]] = {}
        for code in sorted(codes):
            by_eip.setdefault(map_.name_of(code), []).append(code)
        return cls(mine, clauses, users, codes, {name: tuple(found) for name, found in by_eip.items()})

    def inside(self, name: str) -> frozenset[Address]:
        """The barred addresses of one Eip."""
        return frozenset(map(decode, self.by_eip.get(name, ())))

    def why_not(self, service: Service, asked: Address) -> Problem | None:
        """Why the Service cannot have an address that it asks for; None: it can."""
        code = encode(asked)
        if code in self.reserved:
            return Problem(
                Reason.ADDRESS_RESERVED, f"Asks for {asked}, which {self.reserved[code]}. Ask for another address."
            )
        others = [key for key in self.elsewhere.get(code, ()) if key != service.key]
        if others:
            return Problem(
                Reason.ADDRESS_USED_BY_SERVICE,
                f"Asks for {asked}, which Service {others[0]} uses (spec.externalIPs, or another load balancer gave "
                "it). Take it away from that Service, or ask for another address.",
            )
        if code in self.claimed:
            return Problem(
                Reason.ADDRESS_CLAIMED,
                f"Asks for {asked}, which a foreign host answers for. "
                "Take it away from that host, or ask for another address.",
            )
        return None

    def warnings(self, service: Service, place: HeldAddress) -> list[Problem]:
        """Warnings for the user of an address that was assigned before it was barred."""
        found = []
        if place.code in self.reserved:
            message = (
                f"{place.address} {self.reserved[place.code]} by now, so two hosts answer for it. "
                "Take it away from that host, or ask for another address."
            )
            found.append(Problem(Reason.ADDRESS_RESERVED, message, fatal=False))
        others = [key for key in self.elsewhere.get(place.code, ()) if key != service.key]
        if others:
            message = (
                f"Service {others[0]} uses {place.address} too (spec.externalIPs, or another load balancer gave it), "
                "so kube-proxy may send traffic to the pods of either. Take it away from one of the two."
            )
            found.append(Problem(Reason.ADDRESS_USED_BY_SERVICE, message, fatal=False))
        return found

    def problems(self, name: str) -> tuple[Problem, ...]:
        """Problems for the owner of an Eip: its addresses that are used elsewhere."""
        found = []
        for code in self.by_eip.get(name, ()):
            address = decode(code)
            if code in self.claimed:
                why, what = Reason.ADDRESS_CLAIMED, "is used by a foreign host and is not assigned"
                remedy = "Take it away from that host, or exclude it (spec.exclude)"
            elif code in self.elsewhere:
                users = ", ".join(map(str, self.elsewhere[code][:3]))
                why, what = Reason.ADDRESS_USED_BY_SERVICE, f"is used by Service {users} and is not assigned"
                remedy = "Exclude it (spec.exclude), or remove it from spec.externalIPs"
            elif " of the connected subnet " in self.reserved[code]:
                continue  # true for any pool that is a complete subnet
            else:
                why, what = Reason.ADDRESS_RESERVED, f"{self.reserved[code]} and is not assigned"
                remedy = "Exclude it (spec.exclude)"
            found.append(Problem(why, f"{address} {what}. {remedy}.", "spec.address", fatal=False))
        if len(found) > _NAMED:
            more = f"{len(found) - _NAMED} more addresses are not assigned."
            found = [*found[:_NAMED], Problem(found[_NAMED].reason, more, fatal=False)]
        return tuple(found)


_NAMED = 5


class Claims:
    """Owners of addresses, taken over from Services and records; changed step by step."""

    def __init__(
        self,
        services: Mapping[ServiceKey, Service],
        map_: EipMap,
        bars: Bars,
        owners: Editor[int, Keys],
        holders: Editor[int, Keys],
        groups: Editor[tuple[str, str], frozenset[int]],
    ) -> None:
        self.services = services
        self.map = map_
        self.bars = bars
        self.owners = owners
        self.holders = holders
        self.groups = groups
        self.touched: dict[int, HeldAddress | None] = {}  # codes whose owners may have changed; None: not known
        self.contested: dict[ServiceKey, list[Address]] = {}
        self.leaving: dict[ServiceKey, list[Address]] = {}

    def claim(self, services: list[Service]) -> list[tuple[Service, dict[int, HeldAddress]]]:
        """Each Service with the addresses that it keeps, by IP version; the oldest first."""
        services.sort(key=age)
        settled: list[tuple[Service, dict[int, HeldAddress]]] = [(service, {}) for service in services]
        for service in services:
            for address in {*service.held, *service.recorded}:
                code = encode(address)
                self.holders[code] = (*self.holders.get(code, ()), service.key)
        order = sorted(settled, key=lambda entry: self.yields(entry[0]))  # stable: by age among equals
        for claims in (self._undisputed, _recorded, _by_own_hand, _by_other_hand):
            for service, kept in order:
                for address in claims(service):
                    self.keep_one(service, address, kept)
        return settled

    def yields(self, service: Service) -> bool:
        """Whether Services that can no longer share an address with this Service come first, whatever their age."""
        raise NotImplementedError

    def _undisputed(self, service: Service) -> list[Address]:
        """Addresses that we wrote into its status, except those that our records assign to another Service."""
        return [a for a in _by_own_hand(service) if a in service.recorded or not self._recorded_for_another(a)]

    def _recorded_for_another(self, address: Address) -> bool:
        """Whether the address is recorded for a Service that has no other address of this IP version from us.

        If we have assigned another address to that Service since, its record is out of date.
        """
        for key in self.holders.get(encode(address), ()):
            other = self.services[key]
            if address in other.recorded and address.version in other.families:
                given = {a for a in _by_own_hand(other) if a.version == address.version}
                if not given - {address}:
                    return True
        return False

    def keep_one(self, service: Service, address: Address, kept: dict[int, HeldAddress]) -> None:
        """Lets the Service keep an address, if it may and has no address of that IP version yet."""
        version = address.version
        if version in kept or version not in service.families:
            return
        code = encode(address)
        name = self.map.name_of(code)
        if not name or (code in self.bars.reserved and address not in service.recorded):
            return
        if self._rival(service, code) is not None:
            if address in service.held and address not in self.contested.setdefault(service.key, []):
                self.contested[service.key].append(address)
            return
        kept[version] = HeldAddress(code, address, name)
        self.own(service, kept[version])

    def _rival(self, service: Service, code: int) -> ServiceKey | None:
        """The owner that the Service cannot share the address with. Services that both have it share it without a key:
        in the load balancer that assigned it, that was valid."""
        address = decode(code)
        for owner in self.owners.get(code, ()):
            other = self.services[owner]
            if why_not_shared(service, other, both_have_it=service.has(address) and other.has(address)):
                return owner
        return None

    def why_contested(self, service: Service, address: Address) -> Problem:
        """Why a Service does not get an address that is in its status."""
        owner = self._rival(service, encode(address)) or self.owners[encode(address)][0]
        why = why_not_shared(service, self.services[owner], both_have_it=True)
        return Problem(
            Reason.ADDRESS_IN_USE,
            f"{address} is in its status, but Service {owner} has it, and the two cannot share it: {why}. It is not "
            "served for this Service. Ask for another address, or change one of the two.",
        )

    def meets(self, service: Service, code: int) -> bool:
        """Whether an address is one that the Service asks for."""
        eip = service.wanted_eip
        if eip and eip != self.map.name_of(code) and not self.map.holds(eip, code):
            return False
        address = decode(code)
        wanted = [asked for asked in service.wanted_addresses if asked.version == address.version]
        return not wanted or address in wanted

    def unmet(self, service: Service, kept: Mapping[int, HeldAddress]) -> set[int]:
        """The IP versions of which the Service has an address but asks for another one."""
        if not service.wanted_eip and not service.wanted_addresses:
            return set()
        return {version for version, place in kept.items() if not self.meets(service, place.code)}

    def go_on(self, service: Service, kept: dict[int, HeldAddress], given: Sequence[Address]) -> None:
        """Takes over replacements that were assigned to the Service and are not in its status yet."""
        for version in self.unmet(service, kept):
            for address in given:
                code = encode(address)
                name = self.map.name_of(code)
                if address.version != version or not name or code in self.bars.codes:
                    continue
                if self.meets(service, code) and self._rival(service, code) is None:
                    self.leave(service, kept[version])
                    kept[version] = HeldAddress(code, address, name)
                    self.own(service, kept[version])

    def leave(self, service: Service, place: HeldAddress) -> None:
        """Lets the Service have the address until another one is in its status."""
        self.leaving.setdefault(service.key, []).append(place.address)

    def own(self, service: Service, place: HeldAddress) -> None:
        code = place.code
        self.touched[code] = place
        owners = self.owners.get(code)
        if not owners:
            self.owners[code] = (service.key,)
        else:
            both = (*owners, service.key)
            self.owners[code] = tuple(sorted(both, key=lambda key: age(self.services[key])))
        self._regroup(service, code)

    def disown(self, service: Service, code: int) -> None:
        """``service``: its version when it got the address."""
        self.touched.setdefault(code, None)
        _drop(self.owners, code, service.key)
        self._regroup(service, code)

    def drop_holder(self, code: int, key: ServiceKey) -> None:
        _drop(self.holders, code, key)

    def _regroup(self, service: Service, code: int) -> None:
        """Updates the addresses of a sharing key."""
        group = group_of(service)
        if group is None:
            return
        codes = self.groups.get(group, frozenset())
        if code in self.owners:
            self.groups[group] = codes | {code}
        elif codes - {code}:
            self.groups[group] = codes - {code}
        else:
            self.groups.pop(group, None)


def _by_own_hand(service: Service) -> Sequence[Address]:
    if not service.foreign_writer:
        return service.held
    return [address for address in service.held if address in service.recorded]


def _recorded(service: Service) -> Sequence[Address]:
    return service.recorded


def _by_other_hand(service: Service) -> Sequence[Address]:
    return service.held if service.foreign_writer else ()


def _drop(index: Editor[int, Keys], code: int, key: ServiceKey) -> None:
    left = tuple(other for other in index.get(code, ()) if other != key)
    if left:
        index[code] = left
    else:
        index.pop(code, None)
