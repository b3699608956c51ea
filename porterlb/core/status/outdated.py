"""The statuses that may have changed since the last check, so that the work depends only on the changes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from porterlb.core.known import Known
from porterlb.core.model import Address, ServiceKey
from porterlb.core.objects import ObjectKey
from porterlb.core.persistent import differing


def services(before: Known | None, after: Known) -> set[ServiceKey] | None:
    """The Services whose status may differ because its inputs changed, apart from the objects themselves.

    None: all of them, because an input of every status changed.
    """
    if before is None or _spoken_of(before) != _spoken_of(after):
        return None
    old, new = before.snapshot, after.snapshot
    found = differing(old.services, new.services) | differing(old.endpoints, new.endpoints)
    found |= differing(before.plan.services, after.plan.services)
    found |= {ServiceKey(key.namespace, key.name) for key in _judged(before, after) if key.kind == "Service"}
    # The plan does not show whether an address has been probed.
    found |= before.plan.unwritten.keys() | after.plan.unwritten.keys()
    found |= differing(before.rewriters, after.rewriters)
    for address in _moved(before, after):
        for known in (before, after):
            if (vip := known.plan.vips.get(address)) is not None:
                found.update(vip.services)
    return found


def eips(before: Known | None, after: Known) -> set[str] | None:
    """The Eips whose status may differ because its inputs changed, apart from the objects themselves; None: all."""
    if before is None or _spoken_of(before) != _spoken_of(after) or _of_pools(before) != _of_pools(after):
        return None
    found = differing(before.snapshot.eips, after.snapshot.eips) | differing(before.plan.eips, after.plan.eips)
    found |= {key.name for key in _judged(before, after) if key.kind == "Eip"}
    for address in _moved(before, after):
        found.update(vip.eip for known in (before, after) if (vip := known.plan.vips.get(address)) is not None)
    keys = differing(before.plan.services, after.plan.services) | differing(_decided(before), _decided(after))
    keys |= differing(before.snapshot.services, after.snapshot.services)
    keys |= before.plan.unwritten.keys() | after.plan.unwritten.keys()
    for key in keys:
        for known in (before, after):
            if (allocation := known.plan.services.get(key)) is not None:
                found.update(allocation.eips)
    return found


def _spoken_of(known: Known) -> tuple[object, ...]:
    """Inputs of any status: sessions and why they were lost, replicas, the marking of pods."""
    return (
        known.losses,
        known.bgp.trouble,
        {peer: session.up for peer, session in known.bgp.sessions.items()},
        {name: said.sessions for name, said in known.wire.fresh.items()},
        known.marking,
        len(known.plan.shared.topology.usable) if known.plan.shared is not None else 0,
    )


def _of_pools(known: Known) -> tuple[object, ...]:
    """Inputs of the status of any Eip."""
    placement = known.plan.memory.placement
    return (
        known.wire.notices,
        placement is not None and placement.settling.settled,
        placement.answered if placement is not None else frozenset(),
    )


def _judged(before: Known, after: Known) -> set[ObjectKey]:
    return differing(before.problems, after.problems) | differing(before.generations, after.generations)


def _moved(before: Known, after: Known) -> Iterable[Address]:
    return differing(before.plan.vips, after.plan.vips) | differing(before.on_wire, after.on_wire)


def _decided(known: Known) -> Mapping[ServiceKey, str]:
    placement = known.plan.memory.placement
    return placement.decided if placement is not None else {}
