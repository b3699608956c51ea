"""The decisions of a plan as JSON: the differences from the previous plan, for recording, display and replay."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from porterlb.core.desired import DesiredWire
from porterlb.core.persistent import differing
from porterlb.core.plan import Plan
from porterlb.core.record.plain import plain, text
from porterlb.core.vip import VipPlan

Did = dict[str, Any]

_VIP = (
    "eip",
    "services",
    "protocol",
    "mode",
    "next_hops",
    "candidates",
    "on_link",
    "problems",
    "peers",
    "paths",
    "layer2",
    "weight",
    "recorded",
)
"""Recorded fields of VipPlan. The announcements of all replicas are left out: they are large, and ``paths`` has what
this replica announces."""

ROW = 2000
"""Approximate bytes of a VIP's plan; the previous plan of a VIP stays in memory as long as its entry."""


class Changes(NamedTuple):
    """What may differ between two plans: cheap to find, and all that is kept of the previous plan."""

    vips: list[tuple[Any, Any, Any]]  # key, before, after; None: absent
    services: list[tuple[Any, Any, Any]]
    sessions: list[tuple[Any, Any, Any]]
    problems: list[tuple[Any, Any, Any]]
    wire: dict[str, Any]
    digest: int
    token: int
    wake_at: float | None

    @property
    def size(self) -> int:
        """Approximate size in bytes."""
        return 500 + ROW * len(self.vips) + ROW // 4 * (len(self.services) + len(self.sessions) + len(self.problems))


def changes(before: Plan | None, made: Plan, wire: DesiredWire, token: int) -> Changes:
    """``wire``: what is sent to the wire process. ``token``: token of what is sent to ExaBGP."""
    old = before or Plan()
    return Changes(
        _differing(old.vips, made.vips),
        _differing(old.services, made.services),
        _differing(old.bgp.sessions, made.bgp.sessions),
        _differing(old.peers, made.peers),
        {
            "leader": wire.leader,
            "applied": wire.applied,
            "check": wire.check,
            "hold_downs": wire.hold_downs,
            "sessions": wire.sessions,
            "vips": len(wire.vips),
        },
        made.digest,
        token,
        made.wake_at,
    )


def _differing(old: Mapping[Any, Any], new: Mapping[Any, Any]) -> list[tuple[Any, Any, Any]]:
    return [(key, old.get(key), new.get(key)) for key in differing(old, new)]


def did(found: Changes) -> Did:
    """The decisions."""
    return {
        "digest": found.digest,
        "token": found.token,
        "wake": found.wake_at,
        "vips": _rows(found.vips, vip_row),
        "services": _rows(found.services, plain),
        "sessions": _rows(found.sessions, plain),
        "problems": _rows(found.problems, plain),
        "wire": plain(found.wire),
    }


def _rows(found: list[tuple[Any, Any, Any]], row: Any) -> dict[str, Any]:
    """The rows that actually differ, by key; None if the item is gone."""
    rows = {}
    for key, before, after in found:
        now = row(after) if after is not None else None
        if now != (row(before) if before is not None else None):
            rows[text(key)] = now
    return dict(sorted(rows.items()))


def vip_row(vip: VipPlan) -> dict[str, Any]:
    return {name: plain(getattr(vip, name)) for name in _VIP}
