"""Which address a Service gets, or why none.

Invariant: an address belongs to one Service, or to one sharing group, at a time, and stays with it for as long as
the Service wants it. What Services hold (status.loadBalancer.ingress) is the only store: from it everything is
rebuilt. :class:`AllocationMemory` adds what is nice to know and may be lost: what was given but is not written yet,
and when an address was given back.

Steps, each in the order of age (created, uid, namespace/name), so that the order of the objects does not matter:

1. what a Service holds, while it is valid: inside an Eip (disabled or not), and not at odds with what is asked for;
2. what it was given earlier and has not been written yet (leader only);
3. what nobody has any more goes back to its pool;
4. new addresses (leader only): Services that ask for a certain address first, then the others.

Only Services that changed, that are tied to those by an address, or that wait while something was given back are
looked at again, unless the context (Eips, claimed addresses, leadership) changed.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import NamedTuple

from porterlb.core.allocation.eligibility import EipMap, Eligibility
from porterlb.core.allocation.grants import Grants
from porterlb.core.allocation.pool import Pool, decode, encode, encode_ranges, version_of
from porterlb.core.allocation.sharing import why_not_shared
from porterlb.core.model import Address, Eip, Service, ServiceKey
from porterlb.core.problems import Problem, Reason


@dataclass(frozen=True, slots=True)
class Allocation:
    """The addresses of one Service in the order of its families; ``eips``: the Eip of each.

    ``refusals``: what it asked for and has not got; a fatal one means that something that it needs is missing.
    """

    addresses: tuple[Address, ...] = ()
    eips: tuple[str, ...] = ()
    refusals: tuple[Problem, ...] = ()


@dataclass(frozen=True, slots=True)
class EipUse:
    """How an Eip is used. ``size``: its addresses. ``used``: owners by address, the oldest first.

    ``conflicting``: the older Eips that it overlaps; then it gives nothing out.
    """

    size: int
    used: Mapping[Address, tuple[ServiceKey, ...]] = field(default_factory=dict)
    conflicting: tuple[str, ...] = ()
    problems: tuple[Problem, ...] = ()


@dataclass(frozen=True, slots=True)
class AllocationMemory:
    """What :func:`allocate` remembers from one call to the next: opaque, never changed in place, empty at the start."""

    context: tuple[object, ...] = ()
    map: EipMap = field(default_factory=lambda: EipMap({}))
    services: Mapping[ServiceKey, Service] = field(default_factory=dict)
    results: Mapping[ServiceKey, Allocation] = field(default_factory=dict)
    owners: Mapping[int, tuple[ServiceKey, ...]] = field(default_factory=dict)
    holders: Mapping[int, tuple[ServiceKey, ...]] = field(default_factory=dict)
    groups: Mapping[tuple[str, str], frozenset[int]] = field(default_factory=dict)
    pools: Mapping[tuple[str, int], Pool] = field(default_factory=dict)
    waiting: frozenset[ServiceKey] = frozenset()
    claimed: frozenset[int] = frozenset()
    uses: Mapping[str, EipUse] = field(default_factory=dict)

    def without_cache(self) -> AllocationMemory:
        """The same memory, but the next call looks at every Service again, with the same result."""
        return replace(self, context=())


@dataclass(frozen=True, slots=True)
class Allocations:
    """What every Service has, how every Eip is used, and the memory for the next call."""

    services: Mapping[ServiceKey, Allocation]
    eips: Mapping[str, EipUse]
    memory: AllocationMemory


def allocate(
    services: Mapping[ServiceKey, Service],
    eips: Mapping[str, Eip],
    memory: AllocationMemory,
    now: float,
    *,
    namespaces: Mapping[str, Mapping[str, str]] = MappingProxyType({}),
    claimed: frozenset[Address] = frozenset(),
    may_allocate: bool = True,
) -> Allocations:
    """Give every Service its addresses. Pure; ``now`` in monotonic seconds, only to know what is free the longest.

    Args:
        services: all Services that are ours.
        namespaces: labels by name of namespace, for namespaceSelector.
        claimed: addresses that a foreign host answers for: never given out; one that is held already stays.
        may_allocate: False on a replica that is not the leader: held addresses only.
    """
    by_namespace = any(eip.namespace_selector is not None for eip in eips.values())
    context = (dict(eips), dict(namespaces) if by_namespace else None, claimed, may_allocate)
    work = _Work(services, memory, now, may_allocate)
    if context == memory.context:
        changed = {key for key, service in services.items() if memory.services.get(key) is not service}
        changed.update(memory.services.keys() - services.keys())
        if not changed:
            return Allocations(memory.results, memory.uses, memory)
        affected = work.tied(changed)
    else:
        work.map = EipMap(eips)
        work.start_again(frozenset(encode(address) for address in claimed))
        affected = set(services)
        affected.update(memory.services)
    work.run(affected, Eligibility(work.map, namespaces))
    memory = AllocationMemory(
        context,
        work.map,
        dict(services),
        work.results,
        work.owners,
        work.holders,
        work.groups,
        work.pools,
        frozenset(work.waiting),
        work.claimed,
        work.uses,
    )
    return Allocations(work.results, work.uses, memory)


class _Place(NamedTuple):
    """An address that a Service has: its code, itself, and its Eip."""

    code: int
    address: Address
    eip: str


class _Work:
    """One call of :func:`allocate`: copies of what is remembered, changed step by step."""

    def __init__(
        self, services: Mapping[ServiceKey, Service], memory: AllocationMemory, now: float, may_allocate: bool
    ) -> None:
        self.services = services
        self.before = memory
        self.map = memory.map
        self.now = now
        self.may_allocate = may_allocate
        self.results = dict(memory.results)
        self.owners = dict(memory.owners)
        self.holders = dict(memory.holders)
        self.groups = dict(memory.groups)
        self.pools = dict(memory.pools)
        self.waiting = set(memory.waiting)
        self.claimed = memory.claimed
        self.uses = dict(memory.uses)
        self.touched: dict[int, _Place | None] = {}  # codes whose owners may have changed; where known, with the rest
        self._own_pools: set[tuple[str, int]] = set()  # copied already

    def start_again(self, claimed: frozenset[int]) -> None:
        """The context has changed: nothing of the owners is taken for granted; pools keep what still fits."""
        self.owners, self.holders, self.groups, self.uses = {}, {}, {}, {}
        pools: dict[tuple[str, int], Pool] = {}
        for eip in self.map.eips.values():
            # What was given back while another Eip stood in for this one is not in its pool: that starts anew.
            stale = eip.name in self.before.map.conflicting
            for version in (4, 6):
                ranges = encode_ranges(r for r in eip.ranges if r.first.version == version)
                known = self.pools.get((eip.name, version))
                if known is None or stale:
                    pools[eip.name, version] = Pool(ranges)
                else:
                    pools[eip.name, version] = known if known.ranges == ranges else known.reshaped(ranges)
        self.pools = pools
        self._own_pools = set()
        self.touched.update(dict.fromkeys(self.before.owners))
        self.touched.update(dict.fromkeys(self.before.claimed - claimed))
        self.claimed = claimed

    def tied(self, changed: Iterable[ServiceKey]) -> set[ServiceKey]:
        """The changed Services and all that hold, held or own an address together with one of them, and so on."""
        found = set(changed)
        todo = list(found)
        while todo:
            key = todo.pop()
            codes = {encode(address) for address in self.results[key].addresses} if key in self.results else set()
            for service in (self.services.get(key), self.before.services.get(key)):
                if service is not None:
                    codes.update(encode(address) for address in service.held)
            for code in codes:
                for other in (*self.owners.get(code, ()), *self.holders.get(code, ())):
                    if other not in found:
                        found.add(other)
                        todo.append(other)
        return found

    def run(self, affected: set[ServiceKey], eligibility: Eligibility) -> None:
        self._forget(affected)
        settled = self._keep([self.services[key] for key in affected if key in self.services])
        if self._release() and self.waiting:  # somebody who waits may have it now
            again = [self.services[key] for key in self.waiting]
            self._forget({service.key for service in again})
            settled += self._keep(again)
            settled.sort(key=lambda entry: _age(entry[0]))
        grants = Grants(self, eligibility)
        incomplete: list[tuple[Service, dict[int, _Place]]] = []
        for service, kept in settled:
            if len(kept) == len(service.families):
                self._conclude(service, kept, ())
            elif self.may_allocate:
                incomplete.append((service, kept))
            else:
                self._conclude(service, kept, (_NOT_LEADER,))
        incomplete.sort(key=lambda entry: not entry[0].wanted_addresses)  # stable: by age within each
        for service, kept in incomplete:
            grant = grants.give(service, {version: place.eip for version, place in kept.items()})
            for version, code in grant.codes.items():
                kept[version] = _Place(code, decode(code), self.map.name_of(code))
                self._own(service, kept[version])
            self._conclude(service, kept, grant.refusals)
        self._count()

    def _forget(self, keys: Iterable[ServiceKey]) -> None:
        """Take all that these Services had."""
        for key in keys:
            self.waiting.discard(key)
            old = self.before.services.get(key)
            result = self.results.pop(key, None)
            if old is None or result is None:
                continue
            for address in result.addresses:
                code = encode(address)
                self.touched.setdefault(code, None)
                _drop(self.owners, code, key)
                if old.sharing_key:
                    self._regroup(old, code)
            for address in old.held:
                _drop(self.holders, encode(address), key)

    def _keep(self, services: list[Service]) -> list[tuple[Service, dict[int, _Place]]]:
        """Steps 1 and 2. Returns each Service with what it keeps, by IP version."""
        services.sort(key=_age)
        settled: list[tuple[Service, dict[int, _Place]]] = []
        for service in services:
            kept: dict[int, _Place] = {}
            for address in service.held:
                code = encode(address)
                others = self.holders.get(code)
                self.holders[code] = (*others, service.key) if others else (service.key,)
                self._keep_one(service, address, code, kept)
            settled.append((service, kept))
        if self.may_allocate:
            for service, kept in settled:
                old = self.before.services.get(service.key)
                if len(kept) == len(service.families) or old is None or old.uid != service.uid:
                    continue
                for address in self.before.results[service.key].addresses:
                    code = encode(address)
                    if code not in self.claimed:
                        self._keep_one(service, address, code, kept)
        return settled

    def _keep_one(self, service: Service, address: Address, code: int, kept: dict[int, _Place]) -> None:
        version = address.version
        if version in kept or version not in service.families:
            return
        name = self.map.name_of(code)
        if not name:
            return
        if service.wanted_eip and service.wanted_eip != name and not self.map.holds(service.wanted_eip, code):
            return
        if service.wanted_addresses:
            wanted = [asked for asked in service.wanted_addresses if asked.version == version]
            if wanted and address not in wanted:
                return
        owners = self.owners.get(code)
        if owners and any(why_not_shared(service, self.services[owner]) for owner in owners):
            return  # an older one has it
        kept[version] = _Place(code, address, name)
        self._own(service, kept[version])

    def _own(self, service: Service, place: _Place) -> None:
        code = place.code
        self.touched[code] = place
        owners = self.owners.get(code)
        if not owners:
            self.owners[code] = (service.key,)
        else:
            both = (*owners, service.key)
            self.owners[code] = tuple(sorted(both, key=lambda key: _age(self.services[key])))
        if service.sharing_key:
            self._regroup(service, code)

    def _regroup(self, service: Service, code: int) -> None:
        """Which addresses a sharing key has."""
        group = (service.key.namespace, service.sharing_key)
        codes = self.groups.get(group, frozenset())
        if code in self.owners:
            self.groups[group] = codes | {code}
        elif codes - {code}:
            self.groups[group] = codes - {code}
        else:
            self.groups.pop(group, None)

    def _release(self) -> bool:
        """Step 3. Whether any address has fewer owners, or others, than before."""
        freed = sorted(code for code in self.touched if code not in self.owners and code not in self.claimed)
        for code in freed:
            name = self.map.name_of(code)
            if name:
                self.pool(name, version_of(code)).release(code, self.now)
        if freed:
            return True
        before = self.before.owners
        return any(before.get(code, ()) != self.owners.get(code, ()) for code in self.touched if code in before)

    def pool(self, name: str, version: int) -> Pool:
        """The pool, as our own copy: those of the memory are never changed."""
        key = (name, version)
        if key not in self._own_pools:
            self._own_pools.add(key)
            self.pools[key] = self.pools[key].copy()
        return self.pools[key]

    def _conclude(self, service: Service, has: Mapping[int, _Place], refusals: tuple[Problem, ...]) -> None:
        places = [has[version] for version in service.families if version in has]
        addresses, eips = tuple(place.address for place in places), tuple(place.eip for place in places)
        result = Allocation(addresses, eips, refusals)
        before = self.before.results.get(service.key)
        self.results[service.key] = before if before is not None and before == result else result
        if refusals:
            self.waiting.add(service.key)

    def _count(self) -> None:
        """Bring the use of the Eips up to date for the addresses that were touched."""
        changed: dict[str, dict[Address, tuple[ServiceKey, ...]]] = {}
        for code in sorted(self.touched):
            _, address, name = self.touched[code] or (code, decode(code), self.map.name_of(code))
            if not name:
                continue
            if name not in changed:
                changed[name] = dict(self.uses[name].used) if name in self.uses else {}
            owners = self.owners.get(code)
            if owners:
                changed[name][address] = owners
            else:
                changed[name].pop(address, None)
        for name, used in changed.items():
            if name in self.uses:
                self.uses[name] = replace(self.uses[name], used=used)
        for name, eip in self.map.eips.items():
            if name not in self.uses:
                size = sum(int(last) - int(first) + 1 for first, last in eip.ranges)
                problems = self.map.problems(name) + self._claimed_in(name)
                conflicting = self.map.conflicting.get(name, ())
                self.uses[name] = EipUse(size, changed.get(name, {}), conflicting, problems)

    def _claimed_in(self, name: str) -> tuple[Problem, ...]:
        return tuple(
            Problem(
                Reason.ADDRESS_CLAIMED,
                f"{decode(code)} is answered for by a foreign host and is not given out. "
                "Take it away from that host, or exclude it (spec.exclude).",
                "spec.address",
                fatal=False,
            )
            for code in sorted(self.claimed)
            if self.map.name_of(code) == name
        )


_NOT_LEADER = Problem(
    Reason.NOT_LEADER, "Waits for the leader, which alone gives out addresses. This replica is not the leader."
)


def _age(service: Service) -> tuple[str, str, ServiceKey]:
    return service.created, service.uid, service.key


def _drop(index: dict[int, tuple[ServiceKey, ...]], code: int, key: ServiceKey) -> None:
    left = tuple(other for other in index.get(code, ()) if other != key)
    if left:
        index[code] = left
    else:
        index.pop(code, None)
