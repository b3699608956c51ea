"""The address of each Service, or why it has none.

Invariant: an address belongs to one Service, or to one sharing group, at a time, and stays with it for as long as
the Service wants it. The assignments are stored in two places of the API: the addresses in the Services' status
(status.loadBalancer.ingress), and our own records (Eip.status.used). :class:`AllocationMemory` adds useful data that
may be lost: addresses that were assigned but are not written yet, and when and by which Service an address was
released.

Steps, each in the order of age (created, uid, namespace/name), so that the order of the objects does not matter:

1. addresses that a Service has, while they are in an Eip (disabled or not): first those that we wrote into its status,
   then those in our records, then those that another writer put into its status
   (:mod:`porterlb.core.allocation.claims`). A Service that changed and can no longer share its address comes after the
   Services that it shared the address with;
2. addresses that were assigned earlier and have not been written yet (leader only);
3. addresses that no Service has any longer return to their pool;
4. new addresses (leader only): Services that ask for a certain address first, then the others. A Service that has an
   address and asks for another one keeps it until it can have the other one.

Only some Services are checked again, unless the context (Eips, addresses that are not assigned, leadership) changed:
those that changed, those that are connected to them by an address, and those that wait while an address was released.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType

from porterlb.core.allocation.claims import Bars, Claims, HeldAddress, age
from porterlb.core.allocation.eligibility import EipMap, Eligibility
from porterlb.core.allocation.grants import Grants
from porterlb.core.allocation.lastholders import Freed, LastHolders
from porterlb.core.allocation.pool import Pool, decode, encode, encode_ranges, version_of
from porterlb.core.allocation.reserved import Reserved
from porterlb.core.allocation.sharing import sharing_terms
from porterlb.core.model import Address, Eip, Service, ServiceKey
from porterlb.core.persistent import Editor, PersistentMap, differing, editing
from porterlb.core.problems import Problem, Reason
from porterlb.core.sentences import listed


@dataclass(frozen=True, slots=True)
class Allocation:
    """The addresses of one Service in the order of its families; ``eips``: the Eip of each.

    ``refusals``: why requested addresses were not assigned; a fatal one means that a required address is missing.
    ``leaving``: addresses that it has until the new address is in its status. ``contested``: addresses in its status
    that another Service has; they stay there, because an automatic replacement would break the clients that use them.
    """

    addresses: tuple[Address, ...] = ()
    eips: tuple[str, ...] = ()
    refusals: tuple[Problem, ...] = ()
    leaving: tuple[Address, ...] = ()
    contested: tuple[Address, ...] = ()


@dataclass(frozen=True, slots=True)
class EipUse:
    """How an Eip is used. ``size``: the number of its addresses. ``used``: owners by address, the oldest first.

    ``conflicting``: the older Eips that it overlaps; then it assigns no addresses. ``barred``: its addresses that are
    not assigned, because they are used elsewhere.
    """

    size: int
    used: Mapping[Address, tuple[ServiceKey, ...]] = field(default_factory=dict)
    conflicting: tuple[str, ...] = ()
    problems: tuple[Problem, ...] = ()
    barred: frozenset[Address] = frozenset()

    @property
    def full(self) -> bool:
        """Whether no address is left to assign."""
        return 0 < self.size <= len(self.used.keys() | self.barred)


@dataclass(frozen=True, slots=True)
class AllocationMemory:
    """State of :func:`allocate` between two calls: opaque, never changed in place, empty at the start."""

    context: tuple[object, ...] = ()
    map: EipMap = field(default_factory=lambda: EipMap({}))
    services: Mapping[ServiceKey, Service] = field(default_factory=dict)
    results: Mapping[ServiceKey, Allocation] = field(default_factory=dict)
    owners: Mapping[int, tuple[ServiceKey, ...]] = field(default_factory=dict)
    holders: Mapping[int, tuple[ServiceKey, ...]] = field(default_factory=dict)
    groups: Mapping[tuple[str, str], frozenset[int]] = field(default_factory=dict)
    pools: Mapping[tuple[str, int], Pool] = field(default_factory=dict)
    last: LastHolders = field(default_factory=LastHolders)
    waiting: frozenset[ServiceKey] = frozenset()
    barring: tuple[object, ...] = ()
    bars: Bars = field(default_factory=Bars)
    uses: Mapping[str, EipUse] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Allocations:
    """The addresses of every Service, the use of every Eip, and the memory for the next call."""

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
    reserved: Reserved = MappingProxyType({}),
    elsewhere: Mapping[Address, tuple[ServiceKey, ...]] = MappingProxyType({}),
    closed: Mapping[str, str] = MappingProxyType({}),
    may_allocate: bool = True,
) -> Allocations:
    """Assigns addresses to every Service. Pure; ``now`` in monotonic seconds, only used to find the longest free
    address.

    Args:
        services: all Services that we manage.
        namespaces: labels by name of namespace, for namespaceSelector.
        claimed: addresses that a foreign host answers for: never assigned; Services that already have one keep it.
        reserved: addresses that are never VIPs, each with a clause that says why: not assigned, and not taken over
            from a status. If we assigned one earlier, its Service keeps it and gets a warning.
        elsewhere: addresses whose traffic goes to other Services: not assigned; Services that already have one keep it.
        closed: Eips that assign no addresses because of the network, each with a clause that says why.
        may_allocate: False on a replica that is not the leader: held addresses only.
    """
    map_, same_place = memory.map, bool(memory.context)
    if not memory.context or memory.context[0] != eips:
        eips = eips if isinstance(eips, PersistentMap) else dict(eips)
        found = memory.map.edited(eips) if memory.context else None
        map_, same_place = found or EipMap(eips), found is not None
    barring = (claimed, reserved, elsewhere)
    if same_place and barring == memory.barring:
        bars = memory.bars
    else:
        bars = Bars.of(map_, claimed, reserved, elsewhere)
        bars = memory.bars if bars == memory.bars else bars
    context = (map_.eips, dict(namespaces) if map_.by_namespace else None, bars, dict(closed), may_allocate)
    alike = same_place and (context[2], context[4]) == (memory.context[2], memory.context[4])
    changed = differing(memory.services, services) if alike else set()
    if context == memory.context and not changed:
        return Allocations(memory.results, memory.uses, replace(memory, barring=barring))
    work = _Work(services, memory, now, map_, bars, may_allocate=may_allocate)
    if alike:
        # A Service keeps its address whatever else changes in an Eip: only the result of waiting ones may change.
        affected = work.tied(changed)
        if not map_.grants_as(memory.map) or (context[1], context[3]) != (memory.context[1], memory.context[3]):
            affected |= work.tied(memory.waiting)
    else:
        work.start_again()
        affected = set(services)
        affected.update(memory.services)
    work.run(affected, Eligibility(work.map, namespaces, closed))
    memory = AllocationMemory(
        context,
        work.map,
        services if isinstance(services, PersistentMap) else dict(services),
        work.results.frozen(),
        work.owners.frozen(),
        work.holders.frozen(),
        work.groups.frozen(),
        work.pools,
        work.last,
        frozenset(work.waiting),
        barring,
        work.bars,
        work.uses.frozen(),
    )
    return Allocations(memory.results, memory.uses, memory)


class _Work(Claims):
    """One call of :func:`allocate`: copies of the memory, changed step by step."""

    def __init__(
        self,
        services: Mapping[ServiceKey, Service],
        memory: AllocationMemory,
        now: float,
        map_: EipMap,
        bars: Bars,
        *,
        may_allocate: bool,
    ) -> None:
        super().__init__(services, map_, bars, editing(memory.owners), editing(memory.holders), editing(memory.groups))
        self.before = memory
        self.now = now
        self.may_allocate = may_allocate
        self.results = editing(memory.results)
        self.pools = dict(memory.pools)
        self.waiting = set(memory.waiting)
        self.uses = editing(memory.uses)
        self.last = memory.last
        self._own_pools: set[tuple[str, int]] = set()  # already copied

    def yields(self, service: Service) -> bool:
        """Whether the Service has just changed in a way that may prevent sharing, or lost its address that way. The
        Services that it shared with have not changed, and keep the address."""
        old = self.before.services.get(service.key)
        result = self.before.results.get(service.key)
        if old is None or result is None or old.uid != service.uid:
            return False
        return bool(result.contested) or sharing_terms(old) != sharing_terms(service)

    def start_again(self) -> None:
        """The context has changed: discards all owners; pools keep what is still valid."""
        self.owners, self.holders, self.groups = Editor(), Editor(), Editor()
        self.uses = Editor()
        pools: dict[tuple[str, int], Pool] = {}
        freed = [(code, entry.at) for code, entry in self.last.freed.items()]
        for eip in self.map.eips.values():
            # Addresses released while this Eip was conflicting went to the pool of the older Eip: this pool starts
            # again.
            stale = eip.name in self.before.map.conflicting
            for version in (4, 6):
                ranges = encode_ranges(r for r in eip.ranges if r.first.version == version)
                known = None if stale else self.pools.get((eip.name, version))
                if known is not None and known.ranges == ranges:
                    pools[eip.name, version] = known
                else:
                    pools[eip.name, version] = (known or Pool(ranges)).reshaped(ranges, freed)
        self.pools = pools
        self._own_pools = set()
        self.touched.update(dict.fromkeys(self.before.owners))
        self.touched.update(dict.fromkeys(self.before.bars.codes - self.bars.codes))

    def tied(self, changed: Iterable[ServiceKey]) -> set[ServiceKey]:
        """The changed Services and, transitively, all that hold, held or own an address together with one of them."""
        found = set(changed)
        todo = list(found)
        while todo:
            key = todo.pop()
            result = self.results.get(key, _NOTHING)
            codes = {encode(address) for address in (*result.addresses, *result.leaving)}
            for service in (self.services.get(key), self.before.services.get(key)):
                if service is not None:
                    codes.update(encode(address) for address in (*service.held, *service.recorded))
            for code in codes:
                for other in (*self.owners.get(code, ()), *self.holders.get(code, ())):
                    if other not in found:
                        found.add(other)
                        todo.append(other)
        return found

    def run(self, affected: set[ServiceKey], eligibility: Eligibility) -> None:
        self._forget(affected)
        settled = self._keep([self.services[key] for key in affected if key in self.services])
        if self._release() and self.waiting:  # a waiting Service may get an address now
            again = [self.services[key] for key in self.waiting]
            self._forget({service.key for service in again})
            settled += self._keep(again)
            settled.sort(key=lambda entry: age(entry[0]))
        grants = Grants(self, eligibility)
        incomplete: list[tuple[Service, dict[int, HeldAddress]]] = []
        for service, kept in settled:
            has = kept.keys() | {address.version for address in self.contested.get(service.key, ())}
            if has == set(service.families) and not self.unmet(service, kept) and not self._may_move(service):
                self._conclude(service, kept, ())
            elif self.may_allocate:
                incomplete.append((service, kept))
            else:
                self._conclude(service, kept, () if len(kept) == len(service.families) else (_NOT_LEADER,))
        incomplete.sort(key=lambda entry: not entry[0].wanted_addresses)  # stable: by age within each group
        for service, kept in incomplete:
            self._grant(service, kept, grants)
        self._count()

    def _may_move(self, service: Service) -> bool:
        """Whether it has an address that another Service also has, and asks for another one."""
        contested = self.contested.get(service.key, ())
        return any(not self.meets(service, encode(address)) for address in contested)

    def _grant(self, service: Service, kept: dict[int, HeldAddress], grants: Grants) -> None:
        """Step 4 for one Service: missing addresses, and replacements that it asks for. A request is granted completely
        or not at all; if not, everything stays as it is."""
        unmet = self.unmet(service, kept)
        stuck = {a.version for a in self.contested.get(service.key, ()) if self.meets(service, encode(a))}
        base = {version: place.eip for version, place in kept.items() if version not in unmet}
        base.update(dict.fromkeys(stuck - base.keys(), ""))
        grant = grants.give(service, base)
        refusals = grant.refusals
        if unmet and not unmet <= grant.codes.keys():
            stays = listed(kept[version].address for version in service.families if version in kept)
            refusals = tuple(replace(p, message=f"{p.message} It keeps {stays}.", fatal=False) for p in refusals)
            self._conclude(service, kept, refusals)
            return
        for version, code in grant.codes.items():
            if version in unmet:
                self.leave(service, kept[version])
            kept[version] = HeldAddress(code, decode(code), self.map.name_of(code))
            self.own(service, kept[version])
        self._conclude(service, kept, refusals)

    def _forget(self, keys: Iterable[ServiceKey]) -> None:
        """Removes all results of these Services."""
        for key in keys:
            self.waiting.discard(key)
            self.contested.pop(key, None)
            self.leaving.pop(key, None)
            old = self.before.services.get(key)
            result = self.results.pop(key, None)
            if old is None or result is None:
                continue
            for address in (*result.addresses, *result.leaving):
                self.disown(old, encode(address))
            for address in {*old.held, *old.recorded}:
                self.drop_holder(encode(address), key)

    def _keep(self, services: list[Service]) -> list[tuple[Service, dict[int, HeldAddress]]]:
        """Steps 1 and 2. Returns each Service with the addresses that it keeps, by IP version."""
        settled = self.claim(services)
        if self.may_allocate:
            for service, kept in settled:
                old = self.before.services.get(service.key)
                if old is None or old.uid != service.uid:
                    continue
                given = self.before.results[service.key].addresses
                if len(kept) < len(service.families):
                    for address in given:
                        if encode(address) not in self.bars.codes:
                            self.keep_one(service, address, kept)
                self.go_on(service, kept, given)
        return settled

    def _release(self) -> bool:
        """Step 3. Returns whether any address has fewer or other owners than before."""
        freed = sorted(code for code in self.touched if code not in self.owners and code not in self.bars.codes)
        for code in freed:
            name = self.map.name_of(code)
            if name:
                self.pool(name, version_of(code)).release(code, self.now)
        before = self.before.owners
        gone = {
            code: Freed(self.before.services[before[code][0]].uid, before[code][0], self.now)
            for code in self.touched
            if code in before and code not in self.owners
        }
        self.last = self.last.updated(gone, self.touched.keys() & self.owners.keys())
        if freed:
            return True
        return any(before.get(code, ()) != self.owners.get(code, ()) for code in self.touched if code in before)

    def pool(self, name: str, version: int) -> Pool:
        """The pool, as our own copy: the pools of the memory are never changed."""
        key = (name, version)
        if key not in self._own_pools:
            self._own_pools.add(key)
            self.pools[key] = self.pools[key].copy()
        return self.pools[key]

    def _conclude(self, service: Service, has: Mapping[int, HeldAddress], refusals: tuple[Problem, ...]) -> None:
        places = [has[version] for version in service.families if version in has]
        addresses, eips = tuple(place.address for place in places), tuple(place.eip for place in places)
        versions = {address.version for address in addresses}
        contested = tuple(a for a in self.contested.get(service.key, ()) if a.version not in versions)
        refusals = (*(self.why_contested(service, address) for address in contested), *refusals)
        if refusals:
            self.waiting.add(service.key)
        refusals += tuple(warning for place in places for warning in self.bars.warnings(service, place))
        result = Allocation(addresses, eips, refusals, tuple(self.leaving.get(service.key, ())), contested)
        before = self.before.results.get(service.key)
        self.results[service.key] = before if before is not None and before == result else result

    def _count(self) -> None:
        """Updates the use of the Eips for the touched addresses."""
        changed: dict[str, Editor[Address, tuple[ServiceKey, ...]]] = {}
        for code in sorted(self.touched):
            _, address, name = self.touched[code] or (code, decode(code), self.map.name_of(code))
            if not name:
                continue
            if name not in changed:
                changed[name] = editing(self.uses[name].used if name in self.uses else {})
            owners = self.owners.get(code)
            if owners:
                changed[name][address] = owners
            else:
                changed[name].pop(address, None)
        for name, used in changed.items():
            if name in self.uses:
                self.uses[name] = replace(self.uses[name], used=used.frozen())
        if len(self.uses) == len(self.map.eips):
            return
        for name, eip in self.map.eips.items():
            if name not in self.uses:
                used = changed.get(name) or Editor()
                size = sum(int(last) - int(first) + 1 for first, last in eip.ranges)
                problems = self.map.problems(name) + self.bars.problems(name)
                conflicting = self.map.conflicting.get(name, ())
                barred = self.bars.inside(name)
                self.uses[name] = EipUse(size, used.frozen(), conflicting, problems, barred)


_NOTHING = Allocation()

_NOT_LEADER = Problem(Reason.NOT_LEADER, "Waiting for the leader to assign an address. This replica is not the leader.")
