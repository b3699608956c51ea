"""What has happened, as values: one entry for each thing that an operator would ask about later."""

from __future__ import annotations

import enum
from dataclasses import dataclass

from porterlb.core.model import Address


class What(enum.StrEnum):
    """What happened. The value is also the reason of the Event."""

    VIP_SERVED = "VipServed"
    VIP_NOT_SERVED = "VipNotServed"
    VIP_MOVED = "VipMoved"
    VIP_MODE = "VipModeChanged"
    NODE_DEAD = "NodeDead"
    NODE_BACK = "NodeBack"
    NODE_DRAINS = "NodeDrains"
    NODE_UNDRAINED = "NodeUndrained"
    REPLICA_SILENT = "ReplicaSilent"
    REPLICA_BACK = "ReplicaBack"
    SESSION_UP = "SessionUp"
    SESSION_DOWN = "SessionDown"
    BFD_UP = "BfdUp"
    BFD_DOWN = "BfdDown"
    LEADER = "LeaderChanged"
    CONFLICT = "AddressConflict"
    CONFLICT_OVER = "AddressConflictOver"
    DOUBT = "InDoubt"
    DOUBT_OVER = "DoubtOver"
    API_AWAY = "ApiAway"
    API_BACK = "ApiBack"
    NOTICED = "Noticed"
    NOTICE_OVER = "NoticeOver"
    PODS_MARKED = "PodsMarkedNotReady"
    PODS_RESTORED = "PodsRestored"

    @property
    def bad(self) -> bool:
        """Whether it is logged as a warning."""
        return self in _BAD

    @property
    def of_vips(self) -> bool:
        """Whether it is about where addresses are served."""
        return self in _OF_VIPS


_BAD = frozenset(
    {
        What.VIP_NOT_SERVED,
        What.NODE_DEAD,
        What.REPLICA_SILENT,
        What.SESSION_DOWN,
        What.BFD_DOWN,
        What.CONFLICT,
        What.DOUBT,
        What.API_AWAY,
        What.NOTICED,
        What.PODS_MARKED,
    }
)

_OF_VIPS = frozenset({What.VIP_SERVED, What.VIP_NOT_SERVED, What.VIP_MOVED, What.VIP_MODE})


class Why(enum.StrEnum):
    """Why a VIP is served in another way than before."""

    NONE = ""
    NODE_DEAD = "NodeDead"
    NODE_BACK = "NodeBack"
    NODE_DRAINS = "NodeDrains"
    NODE_UNDRAINED = "NodeUndrained"
    NODE_UNUSABLE = "NodeUnusable"
    REPLICA_SILENT = "ReplicaSilent"
    ENDPOINTS = "Endpoints"
    SESSION_LOST = "SessionLost"
    SESSION_BACK = "SessionBack"
    PROTOCOL = "Protocol"
    PLAN = "Plan"
    """None of these: the order of the next hops, or who announces them, has changed."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One thing that happened.

    ``time``: RFC 3339, the clock of the replica that saw it. ``subject``: the node or peer that it is about; for VIPs
    empty, they are in ``vips``. ``before`` and ``after``: next hops, or for a change of leader the node. ``cause``: the
    node or peer that ``why`` speaks of. ``detail``: what is known beyond that, as text (a session's loss, a MAC). Of a
    notice, ``before``: the nodes that it is about; ``cause``: its reason, as conditions and Events have it.
    """

    time: str
    what: What
    subject: str = ""
    before: tuple[str, ...] = ()
    after: tuple[str, ...] = ()
    why: Why = Why.NONE
    cause: str = ""
    detail: str = ""
    vips: tuple[Address, ...] = ()
