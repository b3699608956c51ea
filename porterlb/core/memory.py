"""The values that a replica carries over from one plan to the next."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from porterlb.core.allocation import AllocationMemory, ReservedMemo
from porterlb.core.drain import Drains
from porterlb.core.holddown import HoldDown
from porterlb.core.mode import VipMode
from porterlb.core.model import Address
from porterlb.core.placement.state import Placement

Sessions = Mapping[tuple[str, str], float]
"""Since when each established session (replica, peer) has been up without a break: monotonic seconds."""


@dataclass(frozen=True, slots=True)
class Memory:
    """A plan is a function of the snapshot, of this memory, and of the time. Nothing else is carried over.

    The memory may be lost (a restart). Hold-downs and modes then start again, with the states that other replicas send
    in their hellos. Only values in use are kept: sets of peers that a VIP may be announced to, sessions that are up,
    VIPs that are planned.
    """

    hold_downs: Mapping[frozenset[str], HoldDown] = field(default_factory=dict)  # by set of peers
    sessions: Sessions = field(default_factory=dict)
    modes: Mapping[Address, VipMode] = field(default_factory=dict)
    allocation: AllocationMemory = field(default_factory=AllocationMemory)
    drains: Drains | None = None  # None: nothing has been planned yet
    placement: Placement | None = None  # None: nothing was planned yet
    reserved: ReservedMemo = field(default_factory=ReservedMemo, compare=False, repr=False)
