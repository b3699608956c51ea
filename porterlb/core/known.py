"""The state that one replica knows at one moment: one value that status, metrics, /state, history and the CLI read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from porterlb.core.model import Address, ServiceKey, Snapshot
from porterlb.core.node_failure import Marking
from porterlb.core.objects import ObjectKey
from porterlb.core.observed import BgpReport, WireReport
from porterlb.core.plan import Plan
from porterlb.core.problems import Problem
from porterlb.core.served import Served


@dataclass(frozen=True, slots=True)
class Known:
    """Objects, plan and reports of one moment. Nothing in it changes later.

    ``plan`` was made from ``snapshot``; ``problems`` and ``generations`` belong to the same versions of the objects.
    ``on_wire`` and ``losses`` are computed after the plan; they are empty until then.
    """

    snapshot: Snapshot
    plan: Plan
    bgp: BgpReport = BgpReport()
    wire: WireReport = WireReport()
    applied: int = 0
    """The digest of the last plan that our own BGP speaker has applied completely."""
    problems: Mapping[ObjectKey, Sequence[Problem]] = field(default_factory=dict)
    generations: Mapping[ObjectKey, int] = field(default_factory=dict)
    """metadata.generation of each checked object, usable or not; 0 if it has none."""
    broken: Mapping[str, str] = field(default_factory=dict)
    """Sources that cannot be read at all, by place: a sentence."""
    outage: str = ""
    """Why the API is unavailable; empty while it is available."""
    unchecked: frozenset[Address] = frozenset()
    """New addresses that the duplicate address probe has not cleared yet: they are not written to a status."""
    leading: bool = False
    marking: Marking = Marking.ON
    """Whether the pods of a dead node are marked not ready at once; otherwise Kubernetes does it after about 40 s."""
    at: float = 0.0
    """When the plan was made, monotonic seconds."""
    now: str = ""
    """The time as RFC 3339 text, for output."""
    rewriters: Mapping[ServiceKey, str] = field(default_factory=dict)
    """The field manager that repeatedly overwrites the status of a Service, by Service."""
    on_wire: Mapping[Address, Served] = field(default_factory=dict)
    """How traffic reaches every VIP of the plan."""
    losses: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    """Why sessions were last lost, by peer, by node."""

    @property
    def node(self) -> str:
        """The node of this replica."""
        return self.snapshot.view.node

    @property
    def live(self) -> frozenset[str]:
        """The live replicas, including this one."""
        return frozenset(self.wire.fresh) | {self.node}

    @property
    def others_announce(self) -> bool:
        """Whether each peer that we have a session with also has one with another live replica, so that our routes may
        be withdrawn."""
        mine = {peer for peer, state in self.bgp.sessions.items() if state.up}
        theirs = {peer for replica in self.wire.fresh.values() for peer in replica.sessions}
        return bool(mine) and mine <= theirs

    @property
    def all_sessions_up(self) -> bool:
        """Whether every session that this replica should have is established."""
        return all((state := self.bgp.sessions.get(peer)) and state.up for peer in self.plan.bgp.sessions)

    def is_live(self, replica: str) -> bool:
        return replica == self.node or replica in self.wire.fresh

    @property
    def addresses(self) -> dict[str, tuple[Address, ...]]:
        """The addresses of the nodes, by name."""
        return {name: node.addresses for name, node in self.snapshot.nodes.items()}

    def established(self, replica: str, peer: str) -> bool:
        """Whether ``replica`` is live and has an established session with ``peer``."""
        if replica == self.node:
            session = self.bgp.sessions.get(peer)
            return session is not None and session.up
        other = self.wire.fresh.get(replica)
        return other is not None and peer in other.sessions

    def problems_of(self, kind: str, namespace: str, name: str) -> Sequence[Problem]:
        """The problems of the object itself; problems found by planning are in the plan."""
        return self.problems.get(ObjectKey(kind, namespace, name), ())

    def generation_of(self, kind: str, namespace: str, name: str) -> int:
        """The generation that was checked, even if its edit was refused; 0: not known."""
        return self.generations.get(ObjectKey(kind, namespace, name), 0)

    def is_behind(self, key: ServiceKey) -> bool:
        """Whether the plan is older than this usable Service. This can happen while this replica is in doubt."""
        return key in self.snapshot.services and key not in self.plan.services

    def addresses_of(self, key: ServiceKey) -> tuple[Address, ...]:
        """The addresses that must be in the status of a Service.

        A Service keeps its present addresses until its new ones are probed for a foreign owner.
        """
        service = self.snapshot.services.get(key)
        if service is not None and self.unchecked.intersection(self.plan.unwritten.get(key, ())):
            return service.held
        allocation = self.plan.services.get(key)
        return allocation.addresses if allocation else ()
