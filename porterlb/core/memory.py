"""What a replica remembers from one plan to the next."""

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
    """A plan is a function of the snapshot, of this, and of the time. Nothing else is carried over.

    It may be lost (a restart): then hold-downs and modes begin anew, with what other replicas say in their hellos.
    Only what is in use is remembered: sets of peers that some VIP may be announced to, sessions that are up, VIPs that
    are planned.
    """

    hold_downs: Mapping[frozenset[str], HoldDown] = field(default_factory=dict)  # by set of peers
    sessions: Sessions = field(default_factory=dict)
    modes: Mapping[Address, VipMode] = field(default_factory=dict)
    allocation: AllocationMemory = field(default_factory=AllocationMemory)
    drains: Drains | None = None  # None: nothing has been planned yet
    placement: Placement | None = None  # None: nothing was planned yet
    reserved: ReservedMemo = field(default_factory=ReservedMemo, compare=False, repr=False)
