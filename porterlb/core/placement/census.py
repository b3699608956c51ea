"""The units of a plan: the VIPs that one node serves together, and the nodes where they may be."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import NamedTuple

from porterlb.core.model import Address, ServiceKey
from porterlb.core.placement.load import Unit
from porterlb.core.vip import VipPlan


class Candidacy(NamedTuple):
    """The placement data of one VIP. ``owner``: the Service whose record counts."""

    address: Address
    owner: ServiceKey
    at: str
    best: tuple[str, ...]
    weight: int


def candidacy(vip: VipPlan) -> Candidacy | None:
    """The data of a planned VIP; None if Layer 2 cannot serve it."""
    return Candidacy(vip.address, vip.services[0], vip.place, vip.best, vip.weight) if vip.place else None


def units(vips: Iterable[Candidacy | None]) -> list[Unit]:
    """The units of these VIPs, by name. ``vips`` contains all VIPs of a Service or none."""
    by_owner: dict[ServiceKey, list[Candidacy]] = {}
    for vip in vips:
        if vip is not None:
            by_owner.setdefault(vip.owner, []).append(vip)
    return [_unit(key, by_owner[key]) for key in sorted(by_owner)]


def _unit(key: ServiceKey, vips: list[Candidacy]) -> Unit:
    """One record applies to all VIPs of a Service. Candidates: nodes that suit all VIPs, else those of the first
    VIP."""
    first, *others = sorted(vips, key=lambda vip: (vip.address.version, int(vip.address)))
    best = tuple(name for name in first.best if all(name in other.best for other in others))
    return Unit(key, first.at, best or first.best, sum(vip.weight for vip in vips))


def unit_of(key: ServiceKey, addresses: Iterable[Address], vips: Mapping[Address, VipPlan]) -> Unit | None:
    """The unit of one Service; ``addresses``: those that it may have."""
    found = {address: vips[address] for address in addresses if address in vips}
    made = units(candidacy(vip) for vip in found.values() if vip.services[0] == key)
    return made[0] if made else None


def movable(
    vips: Mapping[Address, VipPlan], cordoned: frozenset[str], asked: frozenset[Address] = frozenset()
) -> list[Unit]:
    """The units that may be moved: those with a record, and only towards nodes that are not cordoned.

    ``asked``: VIPs that a host has asked for recently.
    """
    found = units(candidacy(vip) for vip in vips.values() if vip.recorded)
    busy = {vips[address].services[0] for address in asked if address in vips}
    return [
        replace(unit, best=tuple(name for name in unit.best if name not in cordoned), asked=unit.key in busy)
        for unit in found
    ]
