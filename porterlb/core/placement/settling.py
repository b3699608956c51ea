"""Whether the cluster has settled. Before that no next hop is recorded, so a start in any order ends balanced.

A replica that starts sees others arrive one after the other. A next hop recorded in that phase would remain, because
a recorded next hop is kept as long as its node is usable. Therefore records begin when no node and no replica has come
or gone for ``settle_after`` and none is expected, at the latest after LIMIT times ``settle_after``. Existing records
apply all the time: a restart of the replicas moves no VIP.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from porterlb.core.placement.policy import PlacementPolicy

LIMIT = 6
"""The maximum wait, in multiples of ``settle_after``: 60 s by default."""


@dataclass(frozen=True, slots=True)
class Scene:
    """The nodes and replicas that a placement depends on. Any difference is an event.

    ``outage``: the API is unavailable.
    """

    usable: frozenset[str] = frozenset()
    unusable: frozenset[str] = frozenset()
    cordoned: frozenset[str] = frozenset()
    replicas: frozenset[str] = frozenset()
    dead_on: frozenset[object] = frozenset()
    outage: bool = False


@dataclass(frozen=True, slots=True)
class Settling:
    """Times in monotonic seconds. ``begun``: the first plan. ``changed``: the last event.

    ``uncordoned``: the last event was that an operator made a node usable again.
    """

    begun: float
    changed: float
    scene: Scene
    settled: bool = False
    uncordoned: bool = False


def settle(before: Settling | None, scene: Scene, now: float) -> Settling:
    """The state after the present observation. :func:`judged` determines whether the cluster has settled."""
    if before is None:
        return Settling(now, now, scene)
    if before.scene == scene:
        return before
    freed = before.scene.cordoned - scene.cordoned
    only = replace(before.scene, cordoned=scene.cordoned) == scene
    return replace(before, changed=now, scene=scene, uncordoned=bool(freed & scene.usable) and only)


def judged(state: Settling, now: float, policy: PlacementPolicy, *, expected: bool) -> Settling:
    """``expected``: a node or replica has not arrived yet. Once settled, a replica stays settled as long as it runs:
    later events are failures or an operator's work, not arrivals."""
    quiet = now - state.changed >= policy.settle_after and not expected
    if state.settled or not (quiet or now - state.begun >= LIMIT * policy.settle_after):
        return state
    return replace(state, settled=True)


def wakes_at(state: Settling, policy: PlacementPolicy, *, expected: bool) -> float | None:
    """When the cluster settles only because time passes; None: it has settled."""
    if state.settled:
        return None
    limit = state.begun + LIMIT * policy.settle_after
    return limit if expected else min(limit, state.changed + policy.settle_after)
