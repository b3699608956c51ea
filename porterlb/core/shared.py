"""Values that the plans of all VIPs share."""

from __future__ import annotations

from dataclasses import dataclass

from porterlb.core.bgp.peering import Peering, peering
from porterlb.core.bgp.recipients import AdvertiseRules, advertise_rules
from porterlb.core.drain import NO_DRAIN, Stages
from porterlb.core.holddown import ModePolicy
from porterlb.core.layer2_choice import Layer2Choices, layer2_choices
from porterlb.core.memory import Sessions
from porterlb.core.model import Snapshot
from porterlb.core.topology import Topology, topology


@dataclass(frozen=True, slots=True)
class Shared:
    """Shared by all VIPs of one plan. ``now``: monotonic seconds."""

    snapshot: Snapshot
    topology: Topology
    choices: Layer2Choices
    peering: Peering
    rules: AdvertiseRules
    now: float
    policy: ModePolicy

    def same_rules(self, other: Shared) -> bool:
        """Whether both are equal except for node usability, sessions and Eips."""
        return (
            self.peering.same_reach(other.peering)
            and self.rules.same_but_eips(other.rules)
            and self.choices.selected == other.choices.selected
        )


def shared_by_all(
    snapshot: Snapshot,
    sessions: Sessions,
    now: float,
    policy: ModePolicy,
    before: Shared | None,
    at: Stages = NO_DRAIN,
) -> Shared:
    """``sessions``: as remembered from the last plan. ``before``: of the last plan; its parts are reused while what
    they depend on is equal. ``at``: the draining nodes."""
    last = before.snapshot if before is not None else snapshot
    nodes = topology(snapshot, at, (last, before.topology) if before is not None else None)
    return Shared(
        snapshot,
        nodes,
        layer2_choices(snapshot, nodes, (last, before.choices) if before is not None else None),
        peering(snapshot, nodes, sessions, now, (last, before.peering) if before is not None else None),
        advertise_rules(snapshot, (last, before.rules) if before is not None else None),
        now,
        policy,
    )
