"""Everything that the decisions of a reconcile loop depend on: taken from one loop and put into another."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from porterlb.cluster import KINDS, Kind
from porterlb.core.known import Known
from porterlb.core.model import Snapshot, View
from porterlb.core.objects import Obj
from porterlb.core.persistent import PersistentMap
from porterlb.core.record.codec import SECRET_TEXT
from porterlb.core.record.manager import State

if TYPE_CHECKING:
    from porterlb.reconcile import Reconciler

PLAIN = (
    "outage",
    "members",
    "bounded",
    "leader",
    "bgp_report",
    "wire_report",
    "wire_ready",
    "named",
    "challenged_at",
    "checking",
    "verdicts",
    "proxy_wait",
    "returns",
    "delivering",
    "proxies",
)
"""Attributes of `Inputs` with immutable values: a change replaces the value."""


def state_of(loop: Reconciler) -> State:
    """The state of the loop, by reference: none of these values changes later."""
    objects = loop.objects
    raw = {kind: objects.all_raw(kind) for kind in KINDS if kind != Kind.SECRET.kind}
    return State(
        raw={kind: found if isinstance(found, PersistentMap) else dict(found) for kind, found in raw.items() if found},
        kept=objects.kept(),
        plan=loop.known.plan if loop.known is not None else None,
        more={
            **{name: getattr(loop.inputs, name) for name in PLAIN},
            "token": loop.token,
            "digests": dict(loop.digests),
            "synced": tuple(sorted(kind.kind for kind in loop.synced)),
            "passwords": tuple(sorted(loop.inputs.passwords)),
        },
    )


def restore(loop: Reconciler, raw: Mapping[str, Iterable[Obj]], kept: Any, plan: Any, more: Mapping[str, Any]) -> None:
    """Puts a state into a new loop."""
    for kind, found in raw.items():
        loop.objects.replace(kind, found)
    loop.objects.keep(kept)
    for name in PLAIN:
        setattr(loop.inputs, name, more[name])
    loop.token, loop.digests = more["token"], more["digests"]
    loop.synced = {KINDS[kind] for kind in more["synced"]}
    loop.inputs.passwords = dict.fromkeys(more["passwords"], SECRET_TEXT)
    if plan is not None:
        loop.known = Known(Snapshot(View(loop.settings.node)), plan)
