"""What the parts of the manager tell one another, and what is read from several of them at once."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Set
from functools import partial
from typing import TYPE_CHECKING, Any

from porterlb.core import node_failure
from porterlb.core.history import Entry, History, What
from porterlb.core.known import Known
from porterlb.core.membership import Absence
from porterlb.core.model import Address
from porterlb.core.observed import BgpReport, WireReport
from porterlb.core.proxy_wait import NewHop
from porterlb.core.status.state import state_of
from porterlb.edge.node_failure import Look

if TYPE_CHECKING:
    from porterlb.app import Manager
    from porterlb.cluster import Obj

VANISHED_AFTER = 10.0
"""Seconds without a Node and without a hello until the leader deletes a replica's Lease: a kubelet needs a few seconds
to register its node again."""


class Messages:
    """Each method is a callback of one part. The parts may be made after this object, but before the first call."""

    def __init__(self, manager: Manager, utc: Callable[[], str]) -> None:
        """``utc``: the time of day, as in the API."""
        self._manager = manager
        self._own = manager.settings.node
        self._utc = utc
        self._absence = Absence(VANISHED_AFTER)

    # ---- from the speakers

    def on_bgp(self, report: BgpReport) -> None:
        self._manager.metrics.heard(report)
        self._manager.reconciler.on_bgp(report)

    def beat_bfd(self) -> None:
        """Beats only while ExaBGP runs: BFD must not keep the sessions up if ExaBGP is permanently gone."""
        if self._manager.bgp.running:
            self._manager.bfd.beat()

    def on_wire(self, report: WireReport) -> None:
        self._manager.reconciler.on_wire(report)
        self._manager.node_failures.touch()
        self._manager.presence.on_wire()

    # ---- from the cluster

    def on_leader(self) -> None:
        self._manager.node_failures.touch()
        # If the lease is in our name and we no longer certainly hold it, there is no leader.
        leader = self._own if self._manager.leader.leading else self._manager.leader.leader
        self._manager.reconciler.on_leader("" if leader == self._own and not self._manager.leader.leading else leader)

    def on_lease(self, name: str, lease: Obj | None) -> None:
        if name == self._manager.leader.name:
            self._manager.leader.heard(lease)

    def on_members(self) -> None:
        self._manager.reconciler.on_members(self._manager.membership.members)

    def vanished(self) -> frozenset[str]:
        """The nodes whose replicas' Leases must be deleted now: the Node is gone, and no hello arrives from them."""
        known = self._manager.reconciler.known
        if known is None or known.outage or not self._manager.leader.leading:
            self._absence.clear()
            return frozenset()
        present = {self._own, *known.snapshot.nodes, *known.wire.fresh}
        return self._absence.longer_gone(self._manager.membership.members, present, time.monotonic())

    # ---- about nodes

    def on_delivering(self, hops: frozenset[NewHop]) -> None:
        self._manager.reconciler.on_delivering(hops)

    def on_proxies(self, nodes: frozenset[str]) -> None:
        self._manager.reconciler.on_proxies(nodes)

    def on_sign(self) -> None:
        self._manager.node_failures.touch()

    def on_pods_changed(self, what: What, node: str, pods: int) -> None:
        self._manager.recorder.note(Entry(self._utc(), what, node, detail=str(pods)))

    def on_marked(self) -> None:
        failures = self._manager.node_failures
        self._manager.metrics.node_failures(failures.counts, failures.refused.values())

    def node_addresses(self, name: str) -> tuple[Address, ...]:
        node = self._manager.reconciler.objects.nodes.get(name)
        return node.addresses if node else ()

    def node_address(self, name: str) -> Address | None:
        return next(iter(self.node_addresses(name)), None)

    def dead_nodes(self) -> Look | None:
        """What is known now about dead nodes. Nodes that no replica finds silent need no verdict."""
        manager = self._manager
        if manager.reconciler.waiting_for():
            return None
        inputs = manager.reconciler.inputs
        report, nodes = inputs.wire_report, inputs.objects.nodes
        asked = frozenset(manager.node_failures.stages).union(report.dead, report.votes) & nodes.keys()
        found = node_failure.verdicts(asked, report, self._own)
        left, signs = manager.leader.remaining(), manager.life_signs.signs
        seen = node_failure.Seen(nodes, found, left, report.doubt, bool(inputs.outage), signs=signs)
        return Look(seen, inputs.objects.services.values())

    def interfaces(self) -> list[str]:
        """The interfaces with an address of a subnet: those of pods have none."""
        nics = self._manager.reconciler.inputs.wire_report.nics
        return [nic.name for nic in nics if any(a.network.prefixlen < a.max_prefixlen for a in nic.addresses)]

    # ---- about plans

    def before_plan(self) -> None:
        self._manager.passwords.want(self._manager.reconciler.objects.peers)
        self._manager.presence.describe()

    def publish(self, known: Known, seconds: float) -> None:
        self._manager.metrics.planned(seconds)
        self._manager.metrics.api(up=not known.outage)
        self._manager.bfd.want(known.plan.bgp.bfd)
        self._manager.status.update(known)

    def unplanned(self, known: Known, news: bool) -> None:
        self._manager.status.update(known, news=news)

    def on_known(self, known: Known, touched: Set[Address]) -> None:
        self._manager.recorder.observe(known, touched)
        self.on_state()

    # ---- /state

    def on_state(self) -> None:
        """Notes that what /state shows may have changed."""
        self._manager.sharer.changed()
        self._manager.http.changed()

    def state(self) -> Callable[[], Mapping[str, Any]]:
        """Captures what is known now. The function that it returns makes the JSON values, in any thread: the captured
        values never change."""
        manager, known = self._manager, self._manager.status.known
        if known is None:
            return partial(waiting, manager.reconciler.waiting_for())
        more = {
            "nodeFailures": manager.node_failures.state(),
            "host": manager.host.state(),
            "clock": round(time.time(), 3),
        }
        return partial(_whole_state, known, manager.recorder.history, time.monotonic(), more)


def _whole_state(known: Known, history: History, now: float, more: Mapping[str, Any]) -> Mapping[str, Any]:
    return {**state_of(known, history, now), **more}


def waiting(why: str) -> Mapping[str, Any]:
    """The state of a replica that knows nothing yet."""
    return {"ready": False, "waitingFor": why}
