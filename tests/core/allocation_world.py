"""A small cluster for the allocation tests: Services and Eips that change step by step, and the invariants."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from ipaddress import ip_address
from typing import TypeVar

from hypothesis import strategies as st

from porterlb.core.allocation import Allocation, AllocationMemory, Allocations, allocate
from porterlb.core.allocation.sharing import why_not_shared
from porterlb.core.model import (
    Address,
    AddressRange,
    Eip,
    Port,
    Requirement,
    Selector,
    Service,
    ServiceKey,
    TrafficPolicy,
)
from porterlb.core.problems import Reason

K = TypeVar("K")
V = TypeVar("V")


def ranges(*texts: str) -> tuple[AddressRange, ...]:
    """``a-b`` or ``a``. The ranges in the text are sorted and disjoint."""
    pairs = (text.split("-") for text in texts)
    return tuple(AddressRange(ip_address(pair[0]), ip_address(pair[-1])) for pair in pairs)


def eip(name: str, *texts: str, **kwargs: object) -> Eip:
    return Eip(name, ranges(*texts), **kwargs)  # type: ignore[arg-type]


def service(name: str, **kwargs: object) -> Service:
    """A Service in namespace ``ns`` (or ``other/name``) on port TCP 80."""
    namespace, _, short = name.rpartition("/")
    kwargs.setdefault("ports", frozenset({Port("TCP", 80)}))
    kwargs.setdefault("uid", name)
    return Service(ServiceKey(namespace or "ns", short), **kwargs)  # type: ignore[arg-type]


def addresses(*texts: str) -> tuple[Address, ...]:
    return tuple(ip_address(text) for text in texts)


def run(
    services: Iterable[Service],
    eips: Iterable[Eip],
    memory: AllocationMemory | None = None,
    now: float = 0.0,
    **kwargs: object,
) -> Allocations:
    by_key = {service.key: service for service in services}
    by_name = {eip.name: eip for eip in eips}
    return allocate(by_key, by_name, memory or AllocationMemory(), now, **kwargs)  # type: ignore[arg-type]


def of(result: Allocations, name: str) -> Allocation:
    namespace, _, short = name.rpartition("/")
    return result.services[ServiceKey(namespace or "ns", short)]


def got(result: Allocations, name: str) -> list[str]:
    return [str(address) for address in of(result, name).addresses]


def reasons(result: Allocations, name: str) -> list[Reason]:
    return [problem.reason for problem in of(result, name).refusals]


def written(services: Iterable[Service], result: Allocations) -> list[Service]:
    """The Services after their addresses have been written to the API: to their status and to our records."""
    found = []
    for service in services:
        given = result.services[service.key]
        held = (*given.addresses, *given.contested)
        found.append(replace(service, held=held, recorded=given.addresses, foreign_writer=""))
    return found


@dataclass
class World:
    """The input of allocation, and its memory from one step to the next."""

    services: dict[ServiceKey, Service] = field(default_factory=dict)
    eips: dict[str, Eip] = field(default_factory=dict)
    namespaces: dict[str, dict[str, str]] = field(default_factory=dict)
    claimed: frozenset[Address] = frozenset()
    reserved: Mapping[Address, str] = field(default_factory=dict)
    elsewhere: Mapping[Address, tuple[ServiceKey, ...]] = field(default_factory=dict)
    leader: bool = True
    now: float = 0.0
    memory: AllocationMemory = field(default_factory=AllocationMemory)
    last: Allocations | None = None

    def _run(
        self,
        services: Mapping[ServiceKey, Service],
        eips: Mapping[str, Eip],
        memory: AllocationMemory,
        leader: bool | None = None,
    ) -> Allocations:
        return allocate(
            services,
            eips,
            memory,
            self.now,
            namespaces=self.namespaces,
            claimed=self.claimed,
            reserved=self.reserved,
            elsewhere=self.elsewhere,
            may_allocate=self.leader if leader is None else leader,
        )

    def step(self, seed: int) -> Allocations:
        """Allocate, and check every invariant that holds after each step."""
        self.now += 1.0
        result = self._run(self.services, self.eips, self.memory)
        shuffled = random.Random(seed)
        again = self._run(_shuffled(self.services, shuffled), _shuffled(self.eips, shuffled), self.memory)
        assert again.services == result.services, "the result depends on the order of the objects"
        assert again.eips == result.eips
        slow = self._run(self.services, self.eips, replace(self.memory, context=()))
        for key, allocation in slow.services.items():  # the messages may differ: a refused allocation stays refused
            quick = result.services[key]
            assert (quick.addresses, quick.eips) == (allocation.addresses, allocation.eips), (
                "all give something else",
                quick,
                allocation,
                self.services,
                self.eips,
                self.memory.results,
            )
            assert bool(quick.refusals) == bool(allocation.refusals)
        assert slow.eips == result.eips
        self.check_owners(result)
        self.check_holders(result)
        self.check_new(result)
        self.check_refusals(result)
        self.check_use(result)
        self.check_restart(result)
        self.memory, self.last = result.memory, result
        return result

    def check_owners(self, result: Allocations) -> None:
        """An address has several owners only if they share it; a contested address in a status is reported."""
        for use in result.eips.values():
            for address, owners in use.used.items():
                for one, other in itertools.combinations((self.services[key] for key in owners), 2):
                    both = one.has(address) and other.has(address)
                    assert not why_not_shared(one, other, both_have_it=both), address
        for key, allocation in result.services.items():
            assert not allocation.contested or allocation.refusals
            for address in allocation.contested:
                others = [k for k, a in result.services.items() if address in (*a.addresses, *a.leaving) and k != key]
                assert others and address in self.services[key].held

    def valid(self, service: Service, address: Address) -> bool:
        """Whether the Service may keep this address, regardless of other Services and of the requested addresses."""
        inside = any(address in eip for eip in self.eips.values())
        ours = address not in self.reserved or address in service.recorded
        return inside and ours and address.version in service.families

    def asked(self, service: Service, address: Address) -> bool:
        """Whether the Service requests this address."""
        inside = {eip.name for eip in self.eips.values() if address in eip}
        asked = [wanted for wanted in service.wanted_addresses if wanted.version == address.version]
        return (not service.wanted_eip or service.wanted_eip in inside) and (not asked or address in asked)

    def check_holders(self, result: Allocations) -> None:
        """A valid holder keeps its address until its requested address is free, or it is told which Service owns it."""
        for service in self.services.values():
            allocation = result.services[service.key]
            for version in service.families:
                valid = [a for a in service.held if a.version == version and self.valid(service, a)]
                recorded = [a for a in service.recorded if a.version == version and self.valid(service, a)]
                if recorded and not set(recorded) & set(valid):
                    valid = [a for a in allocation.addresses if a in recorded] if service.foreign_writer else valid
                if len(valid) != 1:
                    continue
                has = {*allocation.addresses, *allocation.leaving, *allocation.contested}
                if valid[0] not in has:  # another Service owns it; this one has its recorded or its requested address
                    has_wish = not self.asked(service, valid[0]) and any(
                        a.version == version and self.asked(service, a) for a in allocation.addresses
                    )
                    assert has_wish or any(a in recorded for a in allocation.addresses), (service, valid[0])
                    assert any(valid[0] in use.used for use in result.eips.values())
                if valid[0] in allocation.leaving:
                    assert not self.asked(service, valid[0])
                    new = [a for a in allocation.addresses if a.version == version]
                    assert new and self.asked(service, new[0])

    def check_new(self, result: Allocations) -> None:
        """New addresses come only from Eips that may assign them, and only the leader assigns them."""
        serving = self.serving()
        assert {name for name, use in result.eips.items() if not use.conflicting} == set(serving)
        for key, allocation in result.services.items():
            service = self.services[key]
            before = self.last.services[key].addresses if self.last and key in self.last.services else ()
            assert len(allocation.addresses) == len(allocation.eips)
            assert [a.version for a in allocation.addresses] == [
                v for v in service.families if any(a.version == v for a in allocation.addresses)
            ]
            for address, name in zip(allocation.addresses, allocation.eips, strict=True):
                assert self.valid(service, address)
                assert address in self.eips[name]
                if service.has(address) or address in before:
                    continue
                assert self.leader
                assert address not in self.claimed and address not in self.reserved
                assert set(self.elsewhere.get(address, ())) <= {key}
                assert self.asked(service, address)
                eip = self.eips[name]
                assert not eip.disabled
                assert name in serving
                selector = eip.namespace_selector
                if eip.namespaces or selector:
                    labels = self.namespaces.get(key.namespace, {})
                    assert key.namespace in eip.namespaces or (selector and selector.matches(labels))
                assert eip.service_selector is None or eip.service_selector.matches(service.labels)
                assert eip.auto_assign or service.wanted_eip == name or address in service.wanted_addresses

    def serving(self) -> list[str]:
        """The Eips that do not overlap an older serving Eip, computed without optimization."""
        found: list[Eip] = []
        for eip in sorted(self.eips.values(), key=lambda eip: (eip.created, eip.uid, eip.name)):
            pairs = [(mine, its) for mine in eip.ranges for older in found for its in older.ranges]
            if not any(mine.first in older or mine.last in older for mine in eip.ranges for older in found) and not any(
                its.first in eip for _, its in pairs
            ):
                found.append(eip)
        return [eip.name for eip in found]

    def check_refusals(self, result: Allocations) -> None:
        """Every missing address has a reason. An Eip that is reported full has no free address."""
        assert result.services.keys() == self.services.keys()
        for key, allocation in result.services.items():
            service = self.services[key]
            complete = len(allocation.addresses) == len(service.families)
            assert complete or allocation.refusals
            told = {problem.reason for problem in allocation.refusals} - set(_WARNINGS)
            if complete and all(self.asked(service, address) for address in allocation.addresses):
                assert not told
            for problem in allocation.refusals:
                assert problem.message.endswith(".")
                assert not self.leader or problem.reason is not Reason.NOT_LEADER
                if problem.reason is Reason.EIP_EXHAUSTED:
                    assert any(self.is_full(eip, result) for eip in self.eips.values())
                if problem.fatal and not service.held and not service.recorded and not service.wanted_addresses:
                    assert not allocation.addresses or service.dual_stack_required or not self.leader

    def is_full(self, eip: Eip, result: Allocations) -> bool:
        """Whether all addresses of at least one family of the Eip are in use."""
        taken = {address for allocation in result.services.values() for address in allocation.addresses}
        taken.update(address for allocation in result.services.values() for address in allocation.leaving)
        taken |= self.claimed | self.reserved.keys() | self.elsewhere.keys()
        for version in (4, 6):
            mine = [r for r in eip.ranges if r.first.version == version]
            size = sum(int(r.last) - int(r.first) + 1 for r in mine)
            if mine and sum(1 for a in taken if a.version == version and a in eip) == size:
                return True
        return False

    def check_use(self, result: Allocations) -> None:
        """The usage of the Eips is the inverse of the allocations."""
        expected: dict[Address, set[ServiceKey]] = {}
        for key, allocation in result.services.items():
            for address in (*allocation.addresses, *allocation.leaving):
                expected.setdefault(address, set()).add(key)
        found = {a: set(owners) for use in result.eips.values() for a, owners in use.used.items()}
        assert found == expected
        assert result.eips.keys() == self.eips.keys()
        for name, use in result.eips.items():
            assert len(use.used) <= use.size
            assert use.size == sum(int(r.last) - int(r.first) + 1 for r in self.eips[name].ranges)

    def check_restart(self, result: Allocations) -> None:
        """After the write to the API and a restart, every Service keeps its addresses, on the leader and elsewhere.

        This also holds if another writer has emptied every status, because our records have the same addresses.
        """
        services = {s.key: s for s in written(self.services.values(), result)}
        emptied = {key: replace(service, held=()) for key, service in services.items()}
        for leader, seen in ((self.leader, services), (False, services), (self.leader, emptied)):
            again = self._run(seen, self.eips, AllocationMemory(), leader)
            for key, allocation in result.services.items():
                if all(self.asked(self.services[key], address) for address in allocation.addresses):
                    assert set(allocation.addresses) <= set(again.services[key].addresses)
                if not allocation.refusals:
                    assert again.services[key].addresses == allocation.addresses
                    assert again.services[key].eips == allocation.eips

    def write(self, keys: Iterable[ServiceKey]) -> None:
        """Write the last decision for these Services to the API."""
        for key in keys:
            if self.last is not None and key in self.last.services and key in self.services:
                (self.services[key],) = written([self.services[key]], self.last)


def _shuffled(mapping: Mapping[K, V], shuffle: random.Random) -> dict[K, V]:
    items = list(mapping.items())
    shuffle.shuffle(items)
    return dict(items)


_WARNINGS = (Reason.ADDRESS_RESERVED, Reason.ADDRESS_USED_BY_SERVICE)
"""Warnings about an address that the Service keeps."""

V4 = [f"10.0.0.{n}" for n in range(1, 9)]
V6 = [f"2001:db8::{n}" for n in range(1, 5)]
ADDRESSES = st.sampled_from([ip_address(text) for text in V4 + V6])
LABELS = st.sampled_from([{}, {"tier": "front"}, {"tier": "back"}])
SELECTORS = st.sampled_from([None, None, Selector((Requirement("tier", "In", frozenset({"front"})),))])
CREATED = st.sampled_from(["2026-01-01T00:00:00Z", "2026-01-02T00:00:00Z", "2026-01-03T00:00:00Z"])


@st.composite
def any_ranges(draw: st.DrawFn) -> tuple[AddressRange, ...]:
    found: list[AddressRange] = []
    for pool in (V4, V6):
        if draw(st.booleans()):
            first = draw(st.integers(0, len(pool) - 1))
            last = draw(st.integers(first, len(pool) - 1))
            found += ranges(f"{pool[first]}-{pool[last]}")
    return tuple(found) or ranges(f"{V4[0]}-{V4[2]}")


@st.composite
def any_eip(draw: st.DrawFn, name: str) -> Eip:
    return Eip(
        name,
        draw(any_ranges()),
        uid=name,
        created=draw(CREATED),
        disabled=draw(st.sampled_from([False, False, False, True])),
        priority=draw(st.integers(0, 2)),
        namespaces=draw(st.sampled_from([frozenset(), frozenset(), frozenset({"a"})])),
        namespace_selector=draw(SELECTORS),
        service_selector=draw(SELECTORS),
        auto_assign=draw(st.sampled_from([True, True, False])),
        is_default=draw(st.booleans()),
    )


@st.composite
def any_service(draw: st.DrawFn, key: ServiceKey) -> Service:
    return Service(
        key,
        uid=draw(st.sampled_from(["u1", "u2"])) + str(key),
        created=draw(CREATED),
        labels=draw(LABELS),
        ports=draw(st.sampled_from([frozenset({Port("TCP", 80)}), frozenset({Port("TCP", 443)})])),
        traffic_policy=draw(st.sampled_from(list(TrafficPolicy))),
        selector=draw(st.sampled_from([(), (("app", "x"),)])),
        families=draw(st.sampled_from([(4,), (4,), (6,), (4, 6), (6, 4)])),
        dual_stack_required=draw(st.booleans()),
        held=tuple(draw(st.lists(ADDRESSES, max_size=2, unique=True))) if draw(st.booleans()) else (),
        wanted_addresses=tuple(draw(st.lists(ADDRESSES, max_size=1))) if draw(st.booleans()) else (),
        wanted_eip=draw(st.sampled_from(["", "", "", "e0", "e1", "e9"])),
        sharing_key=draw(st.sampled_from(["", "k", "k"])),
        shares_anywhere=draw(st.booleans()),
        recorded=tuple(draw(st.lists(ADDRESSES, max_size=2, unique=True))) if draw(st.booleans()) else (),
        foreign_writer=draw(st.sampled_from(["", "", "kubectl"])),
    )
