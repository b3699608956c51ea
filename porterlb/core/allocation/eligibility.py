"""The Eips that a Service may get an address from, and their order; the Eips that overlap each other."""

from __future__ import annotations

from bisect import bisect_right, insort
from collections.abc import Iterable, Mapping
from copy import copy
from types import MappingProxyType

from porterlb.core.allocation.pool import encode_ranges
from porterlb.core.model import Eip, Protocol, Service
from porterlb.core.persistent import differing
from porterlb.core.problems import Problem, Reason


class EipMap:
    """All Eips by the addresses in them. If two overlap, the older one (created, uid, name) takes precedence.

    ``conflicting``: the younger Eips, each with the names of the older ones that it overlaps. They assign no addresses
    until the overlap is removed; their Services keep their addresses.
    """

    def __init__(self, eips: Mapping[str, Eip]) -> None:
        self._take(eips)
        self.conflicting: dict[str, tuple[str, ...]] = {}
        serving: list[tuple[int, int, str]] = []
        self._late: list[tuple[str, _Ranges]] = []
        for eip in sorted(eips.values(), key=lambda eip: (eip.created, eip.uid, eip.name)):
            ranges = [(first, last, eip.name) for first, last in encode_ranges(eip.ranges)]
            rivals = _overlapping(ranges, serving)
            if rivals:
                self.conflicting[eip.name] = rivals
                self._late.append((eip.name, _Ranges(ranges)))
            else:
                for entry in ranges:
                    insort(serving, entry)
        self._serving = _Ranges(serving)

    def _take(self, eips: Mapping[str, Eip]) -> None:
        self.eips = eips
        self.by_namespace = any(eip.namespace_selector is not None for eip in eips.values())
        self.by_labels = any(eip.service_selector is not None for eip in eips.values())
        self._ordered: list[Eip] | None = None

    def edited(self, eips: Mapping[str, Eip]) -> EipMap | None:
        """The map for Eips with the same addresses and ages; None: the addresses differ."""
        if len(eips) != len(self.eips):
            return None
        for name in differing(self.eips, eips):
            old, new = self.eips.get(name), eips.get(name)
            if old is None or new is None or _placed(old) != _placed(new):
                return None
        found = copy(self)
        found._take(eips)
        return found

    def grants_as(self, other: EipMap) -> bool:
        """Whether both assign the same addresses to the same Services, for Eips with the same addresses."""
        names = differing(self.eips, other.eips)
        return all(_granted(self.eips[name]) == _granted(other.eips[name]) for name in names)

    @property
    def ordered(self) -> list[Eip]:
        """By priority, then name."""
        if self._ordered is None:
            self._ordered = sorted(self.eips.values(), key=lambda eip: (eip.priority, eip.name))
        return self._ordered

    def name_of(self, code: int) -> str:
        """The Eip that an address belongs to; empty if there is none."""
        return self._serving.find(code) or next((name for name, ranges in self._late if ranges.find(code)), "")

    def holds(self, name: str, code: int) -> bool:
        """Whether the address is in this Eip, conflicting or not."""
        if self._serving.find(code) == name:
            return True
        return any(late == name and ranges.find(code) for late, ranges in self._late)

    def problems(self, name: str) -> tuple[Problem, ...]:
        """The problems of this Eip in combination with the others."""
        rivals = self.conflicting.get(name)
        if not rivals:
            return ()
        them = ", ".join(rivals)
        return (
            Problem(
                Reason.OVERLAPPING,
                f"Overlaps the older Eip {them}: assigns no addresses until one of them is changed. "
                "Services keep the addresses that they have.",
                "spec.address",
            ),
        )


def _placed(eip: Eip) -> tuple[object, ...]:
    """The fields that decide which addresses belong to an Eip, and which of those are not assigned."""
    return eip.ranges, eip.created, eip.uid, eip.probe


def _granted(eip: Eip) -> tuple[object, ...]:
    """The fields that decide which Services get new addresses of an Eip."""
    selectors = eip.namespaces, eip.namespace_selector, eip.service_selector
    return eip.protocol, eip.disabled, eip.priority, eip.auto_assign, eip.is_default, selectors


class _Ranges:
    """Disjoint (first, last, name), sorted, looked up by bisection."""

    def __init__(self, ranges: list[tuple[int, int, str]]) -> None:
        self._ranges = ranges
        self._starts = [first for first, _, _ in ranges]

    def find(self, code: int) -> str:
        at = bisect_right(self._starts, code) - 1
        if at < 0:
            return ""
        _, last, name = self._ranges[at]
        return name if code <= last else ""


def _overlapping(ranges: Iterable[tuple[int, int, str]], serving: list[tuple[int, int, str]]) -> tuple[str, ...]:
    """The names in ``serving`` (sorted, disjoint) that share an address with ``ranges``."""
    found: dict[str, None] = {}
    for first, last, _ in ranges:
        at = bisect_right(serving, first, key=lambda entry: entry[0]) - 1
        for index in range(max(at, 0), len(serving)):
            start, end, name = serving[index]
            if start > last:
                break
            if end >= first:
                found[name] = None
    return tuple(found)


class Eligibility:
    """The Services that may have addresses of each Eip. ``namespaces``: the labels of the namespaces by name."""

    def __init__(
        self,
        map_: EipMap,
        namespaces: Mapping[str, Mapping[str, str]],
        closed: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        self._map = map_
        self._closed = closed
        self._namespaces = namespaces
        # By namespace and protocol, unless labels of Services matter
        self._orders: dict[tuple[str, Protocol | None], tuple[Eip, ...]] = {}

    def admits(self, eip: Eip, service: Service) -> bool:
        """Whether the selectors of the Eip select this Service.

        The namespace must be named or selected (if either is set), and the Service's labels must match.
        """
        if eip.namespaces or eip.namespace_selector is not None:
            namespace = service.key.namespace
            labels = self._namespaces.get(namespace, {})
            selector = eip.namespace_selector
            if namespace not in eip.namespaces and not (selector is not None and selector.matches(labels)):
                return False
        return eip.service_selector is None or eip.service_selector.matches(service.labels)

    def why_closed(self, eip: Eip, service: Service) -> tuple[Reason, str] | None:
        """Why this Eip assigns no new address to this Service, as a reason and a clause; None if it may."""
        if not self.admits(eip, service):
            return Reason.EIP_NOT_ALLOWED, f"{eip.name} does not allow it (namespaces or selectors)"
        if eip.disabled:
            return Reason.EIP_DISABLED, f"{eip.name} is disabled"
        if eip.name in self._map.conflicting:
            return Reason.OVERLAPPING, f"{eip.name} overlaps {', '.join(self._map.conflicting[eip.name])}"
        if eip.name in self._closed:
            return Reason.PROXY_ARP, f"{eip.name} assigns no addresses: {self._closed[eip.name]}"
        return None

    def order(self, service: Service) -> tuple[Eip, ...]:
        """The Eips that an address may be taken from without a request for a certain Eip, best first.

        First the Eips that select the Service by namespace or labels; then those of the protocol that the Service
        names; then the default Eip; then all others. Within each group: by priority (lower first), then name. A Service
        that names bgp or layer2 gets no address from an Eip of the other protocol.
        """
        if self._map.by_labels:
            return self._order(service)
        key = (service.key.namespace, service.protocol)
        known = self._orders.get(key)
        if known is None:
            known = self._orders[key] = self._order(service)
        return known

    def _order(self, service: Service) -> tuple[Eip, ...]:
        found = [
            eip
            for eip in self._map.ordered
            if eip.auto_assign and suits(eip, service) and self.why_closed(eip, service) is None
        ]
        return tuple(sorted(found, key=lambda eip: _tier(eip, service)))  # stable


def suits(eip: Eip, service: Service) -> bool:
    """Whether the Eip has the protocol that the Service names, or leaves it open."""
    return service.protocol in (None, Protocol.AUTO) or eip.protocol in (service.protocol, Protocol.AUTO)


def _tier(eip: Eip, service: Service) -> tuple[bool, bool, bool]:
    selects = bool(eip.namespaces) or eip.namespace_selector is not None or eip.service_selector is not None
    named = service.protocol not in (None, Protocol.AUTO) and eip.protocol is service.protocol
    return not selects, not selects and not named, not selects and not eip.is_default
