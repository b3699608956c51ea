"""A small world for the tests of allocation: Services and Eips that change step by step, and what must always hold."""

from __future__ import annotations

import random
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from ipaddress import ip_address

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


def ranges(*texts: str) -> tuple[AddressRange, ...]:
    """``a-b`` or ``a``, sorted and disjoint as written."""
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
    """The Services after their addresses have been written to the API."""
    return [replace(service, held=result.services[service.key].addresses) for service in services]


@dataclass
class World:
    """What allocation sees, and its memory from one step to the next."""

    services: dict[ServiceKey, Service] = field(default_factory=dict)
    eips: dict[str, Eip] = field(default_factory=dict)
    namespaces: dict[str, dict[str, str]] = field(default_factory=dict)
    claimed: frozenset[Address] = frozenset()
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
            may_allocate=self.leader if leader is None else leader,
        )

    def step(self, seed: int) -> Allocations:
        """Allocate, and check everything that must hold after any step."""
        self.now += 1.0
        result = self._run(self.services, self.eips, self.memory)
        shuffled = random.Random(seed)
        again = self._run(_shuffled(self.services, shuffled), _shuffled(self.eips, shuffled), self.memory)
        assert again.services == result.services, "the result depends on the order of the objects"
        assert again.eips == result.eips
        slow = self._run(self.services, self.eips, self.memory.without_cache())
        for key, allocation in slow.services.items():  # sentences may be older, for what is refused stays refused
            quick = result.services[key]
            assert (quick.addresses, quick.eips) == (allocation.addresses, allocation.eips), "all give something else"
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
        """Never two owners beyond sharing."""
        for use in result.eips.values():
            for address, owners in use.used.items():
                for one in owners:
                    for other in owners:
                        assert one == other or not why_not_shared(self.services[one], self.services[other]), address

    def valid(self, service: Service, address: Address) -> bool:
        """Whether a held address may stay, by the words of the design, without regard to other Services."""
        inside = {eip.name for eip in self.eips.values() if address in eip}
        asked = [wanted for wanted in service.wanted_addresses if wanted.version == address.version]
        return (
            bool(inside)
            and address.version in service.families
            and (not service.wanted_eip or service.wanted_eip in inside)
            and (not asked or address in asked)
        )

    def check_holders(self, result: Allocations) -> None:
        """A valid holder keeps what it has, unless an older Service holds it too."""
        for service in self.services.values():
            for version in service.families:
                held = [a for a in service.held if a.version == version and self.valid(service, a)]
                if len(held) != 1 or held[0] in result.services[service.key].addresses:
                    continue
                older = [
                    other
                    for other in self.services.values()
                    if _age(other) < _age(service) and held[0] in result.services[other.key].addresses
                ]
                assert any(why_not_shared(service, other) for other in older), (service, held[0])

    def check_new(self, result: Allocations) -> None:
        """New addresses come from Eips that may give them, and only from the leader."""
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
                if address in service.held or address in before:
                    continue
                assert self.leader
                assert address not in self.claimed
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
        """The Eips that no older serving one overlaps, found the slow way."""
        found: list[Eip] = []
        for eip in sorted(self.eips.values(), key=lambda eip: (eip.created, eip.uid, eip.name)):
            pairs = [(mine, its) for mine in eip.ranges for older in found for its in older.ranges]
            if not any(mine.first in older or mine.last in older for mine in eip.ranges for older in found) and not any(
                its.first in eip for _, its in pairs
            ):
                found.append(eip)
        return [eip.name for eip in found]

    def check_refusals(self, result: Allocations) -> None:
        """What is missing has a reason; what is said to be full is full."""
        assert result.services.keys() == self.services.keys()
        for key, allocation in result.services.items():
            service = self.services[key]
            complete = len(allocation.addresses) == len(service.families)
            assert complete == (not allocation.refusals)
            for problem in allocation.refusals:
                assert problem.message.endswith(".")
                assert (problem.reason is Reason.NOT_LEADER) == (not self.leader)
                if problem.reason is Reason.EIP_EXHAUSTED:
                    assert any(self.is_full(eip, result) for eip in self.eips.values())
                if problem.fatal and not service.held and not service.wanted_addresses:
                    assert not allocation.addresses or service.dual_stack_required or not self.leader

    def is_full(self, eip: Eip, result: Allocations) -> bool:
        """Whether at least the addresses of one family of the Eip are all taken."""
        taken = {address for allocation in result.services.values() for address in allocation.addresses}
        taken |= self.claimed
        for version in (4, 6):
            mine = [r for r in eip.ranges if r.first.version == version]
            size = sum(int(r.last) - int(r.first) + 1 for r in mine)
            if mine and sum(1 for a in taken if a.version == version and a in eip) == size:
                return True
        return False

    def check_use(self, result: Allocations) -> None:
        """The use of the Eips is the allocations the other way round."""
        expected: dict[tuple[str, Address], set[ServiceKey]] = {}
        for key, allocation in result.services.items():
            for address, name in zip(allocation.addresses, allocation.eips, strict=True):
                expected.setdefault((name, address), set()).add(key)
        found = {(name, a): set(owners) for name, use in result.eips.items() for a, owners in use.used.items()}
        assert found == expected
        assert result.eips.keys() == self.eips.keys()
        for name, use in result.eips.items():
            assert len(use.used) <= use.size
            assert use.size == sum(int(r.last) - int(r.first) + 1 for r in self.eips[name].ranges)

    def check_restart(self, result: Allocations) -> None:
        """Written to the API and looked at from scratch, by a leader or not, everybody has the same."""
        services = {s.key: s for s in written(self.services.values(), result)}
        for leader in (self.leader, False):
            again = self._run(services, self.eips, AllocationMemory(), leader)
            for key, allocation in result.services.items():
                assert again.services[key].addresses == allocation.addresses
                assert again.services[key].eips == allocation.eips

    def write(self, keys: Iterable[ServiceKey]) -> None:
        """The API takes over what was decided last for these Services."""
        for key in keys:
            if self.last is not None and key in self.last.services and key in self.services:
                self.services[key] = replace(self.services[key], held=self.last.services[key].addresses)


def _age(service: Service) -> tuple[str, str, ServiceKey]:
    return service.created, service.uid, service.key


def _shuffled(mapping: Mapping[object, object], shuffle: random.Random) -> dict:  # type: ignore[type-arg]
    items = list(mapping.items())
    shuffle.shuffle(items)
    return dict(items)


V4 = [f"10.0.0.{n}" for n in range(1, 9)]
V6 = [f"2001:db8::{n}" for n in range(1, 5)]
ADDRESSES = st.sampled_from([ip_address(text) for text in V4 + V6])
LABELS = st.sampled_from([{}, {"tier": "front"}, {"tier": "back"}])
SELECTORS = st.sampled_from([None, None, Selector((Requirement("tier", "In", frozenset({"front"})),))])
CREATED = st.sampled_from(["2026-01-01T00:00:00Z", "2026-01-02T00:00:00Z", "2026-01-03T00:00:00Z"])


@st.composite
def any_ranges(draw: st.DrawFn) -> tuple[AddressRange, ...]:
    found = []
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
    )
