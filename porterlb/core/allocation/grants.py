"""New addresses for a Service that lacks some: which ones, or why none.

Requested by address, requested by Eip, shared by key, else by the order of :mod:`porterlb.core.allocation.eligibility`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Protocol

from porterlb.core import sentences
from porterlb.core.allocation.claims import Bars
from porterlb.core.allocation.eligibility import EipMap, Eligibility, suits
from porterlb.core.allocation.lastholders import LastHolders
from porterlb.core.allocation.pool import Pool, encode, version_of
from porterlb.core.allocation.sharing import group_of, why_not_shared
from porterlb.core.model import Address, Eip, Service, ServiceKey
from porterlb.core.persistent import Editor
from porterlb.core.problems import Problem, Reason


@dataclass(frozen=True, slots=True)
class Grant:
    """New codes by IP version, and why others could not be assigned."""

    codes: dict[int, int] = field(default_factory=dict)
    refusals: tuple[Problem, ...] = ()


class AllocationState(Protocol):
    """The state that the search for an address reads; the caller updates it between two grants.

    Codes are those of :mod:`porterlb.core.allocation.pool`. ``owners``: the oldest first. ``groups``: the codes of each
    sharing key, by namespace and key. ``bars``: addresses that are not assigned. ``last``: last holders of free
    addresses.
    """

    services: Mapping[ServiceKey, Service]
    map: EipMap
    owners: Editor[int, tuple[ServiceKey, ...]]
    groups: Editor[tuple[str, str], frozenset[int]]
    bars: Bars
    last: LastHolders

    def pool(self, name: str, version: int) -> Pool:
        """The free addresses of one Eip and one IP version."""


class Grants:
    """Finds addresses in a state, without changing it."""

    def __init__(self, state: AllocationState, eligibility: Eligibility) -> None:
        self._state = state
        self._map = state.map
        self._eligibility = eligibility

    def give(self, service: Service, kept: Mapping[int, str]) -> Grant:
        """Addresses for the families that are missing in ``kept`` (the Eip of each present address, by IP version).

        All or nothing if the Service asks for certain addresses or requires both families; present addresses stay in
        any case. If it prefers both families, one is enough, and the refusal for the other is not fatal.
        """
        foreign = [address for address in service.wanted_addresses if address.version not in service.families]
        if foreign:
            return Grant(refusals=(_wrong_family(service, foreign[0]),))
        missing = [version for version in service.families if version not in kept]
        codes: dict[int, int] = {}
        automatic: list[int] = []
        for version in missing:
            asked = next((address for address in service.wanted_addresses if address.version == version), None)
            if asked is None:
                automatic.append(version)
                continue
            refusal = self._why_not(service, asked)
            if refusal is not None:
                return Grant(refusals=(refusal,))
            codes[version] = encode(asked)
        if automatic:
            eips, refusal = self._candidates(service)
            if refusal is not None:
                fatal = not kept or service.dual_stack_required
                return Grant(refusals=(replace(refusal, fatal=fatal),))
            codes |= self._automatic(
                service, eips, automatic, {*kept.values(), *map(self._map.name_of, codes.values())}
            )
        lacking = [version for version in missing if version not in codes]
        if not lacking:
            return Grant(codes)
        served = bool(codes or kept) and not service.dual_stack_required
        refusals = tuple(self._nothing_free(service, version, fatal=not served) for version in lacking)
        return Grant({} if service.dual_stack_required else codes, refusals)

    def _why_not(self, service: Service, asked: Address) -> Problem | None:
        """Why the Service cannot have the address that it asks for."""
        code = encode(asked)
        name = self._map.name_of(code)
        if service.wanted_eip:
            unknown = self._unknown(service)
            if unknown is not None:
                return unknown
            if not self._map.holds(service.wanted_eip, code):
                return Problem(
                    Reason.ADDRESS_NOT_IN_EIP,
                    f"Asks for {asked} of Eip {service.wanted_eip}, which does not contain it. "
                    "Ask for another address, or leave out one of the two.",
                )
        if not name:
            return Problem(
                Reason.ADDRESS_NOT_IN_EIP,
                f"Asks for {asked}, which is in no Eip. Ask for another address, or add it to an Eip.",
            )
        closed = self._eligibility.why_closed(self._map.eips[name], service)
        if closed is not None:
            reason, clause = closed
            return Problem(reason, f"Asks for {asked}, but Eip {clause}.")
        barred = self._state.bars.why_not(service, asked)
        if barred is not None:
            return barred
        for owner in self._state.owners.get(code, ()):
            other = self._state.services[owner]
            denial = why_not_shared(service, other)
            if denial and owner == service.key:
                continue
            if denial and service.sharing_key:
                return Problem(
                    Reason.SHARING_DENIED, f"Asks for {asked}, but cannot share it with Service {owner}: {denial}."
                )
            if denial:
                return Problem(
                    Reason.ADDRESS_IN_USE,
                    f"Asks for {asked}, which Service {owner} has. Ask for another address, or give both "
                    "Services the same sharing key.",
                )
        return None

    def _unknown(self, service: Service) -> Problem | None:
        if service.wanted_eip in self._map.eips:
            return None
        return Problem(
            Reason.EIP_UNKNOWN,
            f"Asks for Eip {service.wanted_eip}, which does not exist or has an error. Create or correct it, "
            "or ask for another one.",
        )

    def _candidates(self, service: Service) -> tuple[tuple[Eip, ...], Problem | None]:
        """The Eips to take an address from, best first."""
        if not service.wanted_eip:
            return self._eligibility.order(service), None
        unknown = self._unknown(service)
        if unknown is not None:
            return (), unknown
        eip = self._map.eips[service.wanted_eip]
        closed = self._eligibility.why_closed(eip, service)
        if closed is not None:
            reason, clause = closed
            return (), Problem(reason, f"Asks for Eip {eip.name}, but {clause}.")
        return (eip,), None

    def _automatic(
        self, service: Service, eips: tuple[Eip, ...], versions: list[int], together: set[str]
    ) -> dict[int, int]:
        """Codes for as many of the IP versions as possible, from one Eip (of ``together``) if possible."""
        found: dict[int, int] = {}
        if service.sharing_key:
            for version in versions:
                code = self._shared(service, eips, version)
                if code is not None:
                    found[version] = code
        for version in versions:
            if version not in found and (code := self._had_last(service, eips, version)) is not None:
                found[version] = code
        together = together.union(map(self._map.name_of, found.values()))
        if together:  # it has one of two addresses: take the other from the same Eip if possible
            eips = tuple(sorted(eips, key=lambda eip: eip.name not in together))
        left = [version for version in versions if version not in found]
        if len(left) > 1:
            for eip in eips:
                codes = {version: self._free(eip, version) for version in left}
                if all(code is not None for code in codes.values()):
                    return found | {version: code for version, code in codes.items() if code is not None}
        for version in left:
            code = next((code for eip in eips if (code := self._free(eip, version)) is not None), None)
            if code is not None:
                found[version] = code
        return found

    def _had_last(self, service: Service, eips: tuple[Eip, ...], version: int) -> int | None:
        """The address that it last had, if that is free and in one of the Eips."""
        allowed = {eip.name for eip in eips}
        for code in self._state.last.of(service):
            free = code not in self._state.owners and code not in self._state.bars.codes
            if free and version_of(code) == version and self._map.name_of(code) in allowed:
                return code
        return None

    def _shared(self, service: Service, eips: tuple[Eip, ...], version: int) -> int | None:
        """The lowest address of its sharing group that the Service may join."""
        state = self._state
        allowed = {eip.name for eip in eips}
        group = group_of(service)
        for code in sorted(state.groups.get(group, ()) if group else ()):
            if version_of(code) != version or code in state.bars.codes or self._map.name_of(code) not in allowed:
                continue
            if not any(why_not_shared(service, state.services[owner]) for owner in state.owners.get(code, ())):
                return code
        return None

    def _free(self, eip: Eip, version: int) -> int | None:
        return self._state.pool(eip.name, version).longest_free(self._state.owners, self._state.bars.codes)

    def _nothing_free(self, service: Service, version: int, *, fatal: bool) -> Problem:
        """Why there is no address of this IP version, with a clause for each of the first few Eips."""
        whys: list[tuple[Reason, str]] = []
        for name in sorted(self._map.eips) if not service.wanted_eip else [service.wanted_eip]:
            eip = self._map.eips[name]
            why = self._eligibility.why_closed(eip, service)
            if why is None and not eip.auto_assign and not service.wanted_eip:
                why = Reason.NO_EIP, f"{name} has autoAssign off"
            if why is None and not service.wanted_eip and not suits(eip, service):
                why = Reason.EIP_NOT_ALLOWED, f"{name} is of protocol {eip.protocol}"
            if why is None and not any(range_.first.version == version for range_ in eip.ranges):
                why = Reason.FAMILY_UNAVAILABLE, f"{name} has no IPv{version} addresses"
            whys.append(why or (Reason.EIP_EXHAUSTED, f"{name} is full"))
        if not whys:
            return Problem(Reason.NO_EIP, f"There is no Eip. Create one with IPv{version} addresses.", fatal=fatal)
        reasons = {reason for reason, _ in whys}
        reason = next(reason for reason in _GRAVEST if reason in reasons)
        clauses = ", ".join(clause for _, clause in whys[:_CLAUSES])
        if len(whys) > _CLAUSES:
            clauses += f", and {len(whys) - _CLAUSES} more Eips cannot either"
        end = "" if fatal else " It is served with the other family alone."
        return Problem(
            Reason.FAMILY_UNAVAILABLE if not fatal else reason,
            f"No IPv{version} address is available: {clauses}. Add addresses to an Eip, or create one.{end}",
            fatal=fatal,
        )


_CLAUSES = 5
_GRAVEST = (
    Reason.EIP_EXHAUSTED,
    Reason.EIP_DISABLED,
    Reason.OVERLAPPING,
    Reason.FAMILY_UNAVAILABLE,
    Reason.NO_EIP,
    Reason.EIP_NOT_ALLOWED,
)


def _wrong_family(service: Service, asked: Address) -> Problem:
    families = sentences.families(service.families)
    return Problem(
        Reason.FAMILY_UNAVAILABLE,
        f"Asks for {asked}, but its ipFamilies are {families}. Ask for another address, or change ipFamilies.",
    )
