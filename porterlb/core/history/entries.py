"""What has happened, as values: one entry for each event that an operator may ask about later."""

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
        """Whether it is about how VIPs are served."""
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
    """Why a VIP is served differently than before."""

    NONE = ""
    NODE_DEAD = "NodeDead"
    NODE_BACK = "NodeBack"
    NODE_DRAINS = "NodeDrains"
    NODE_UNDRAINED = "NodeUndrained"
    NODE_UNUSABLE = "NodeUnusable"
    REPLICA_SILENT = "ReplicaSilent"
    ENDPOINTS = "Endpoints"
    ANNOUNCED = "Announced"
    """More of the planned next hops are announced. After a change from Layer 2 to BGP, one is announced at first."""
    SESSION_LOST = "SessionLost"
    SESSION_BACK = "SessionBack"
    PROTOCOL = "Protocol"
    PLAN = "Plan"
    """None of the others: the order of the next hops, or the announcing replica, has changed."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One event of the history.

    ``time``: RFC 3339, the clock of the replica that observed it. ``subject``: the node or peer that it is about; empty
    for VIPs, which are in ``vips``. ``before`` and ``after``: next hops, or the nodes for a change of leader.
    ``cause``: the node or peer that ``why`` refers to. ``detail``: further information as text (a session's loss, a
    MAC). For a notice, ``before`` has the nodes that it is about, and ``cause`` its reason, as in conditions and
    Events.
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
