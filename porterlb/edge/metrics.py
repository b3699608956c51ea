"""The manager's metrics for Prometheus. Names begin with ``porterlb_`` and contain the unit.

State (VIPs by mode, sessions, conflicts) is computed from the latest plan and reports at each scrape. Events (a lost
session, a mode change, a plan) are counted when they happen.
"""

from __future__ import annotations

from collections import Counter as Tally
from collections.abc import Callable, Iterable, Mapping

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from porterlb.core.bgp.reasons import LossCategory
from porterlb.core.known import Known
from porterlb.core.model import Address, Mode
from porterlb.core.node_failure import NotMarked
from porterlb.core.observed import BgpReport
from porterlb.core.persistent import differing
from porterlb.core.placement.overview import overview
from porterlb.core.plan import Plan
from porterlb.core.problems import Reason
from porterlb.core.status.notices import Notice
from porterlb.core.status.reading import askers_by_node
from porterlb.core.vip import VipPlan, served


class Metrics:
    """All metrics of one manager, in a registry of its own.

    Args:
        known: what is known now, or None before the first plan.
        clock: monotonic seconds, the same clock as the plan's.
        rebalances: whether the leader moves Layer 2 VIPs without a request.
    """

    def __init__(
        self, known: Callable[[], Known | None], clock: Callable[[], float], *, rebalances: bool = True
    ) -> None:
        self._clock = clock
        self._vips: Mapping[Address, VipPlan] = {}
        self._changing: dict[Address, float] = {}
        self._lost: dict[str, int] = {}
        self._reachable = True
        self.registry = CollectorRegistry()
        self.registry.register(_Now(known, rebalances=rebalances))
        self.plan_seconds = Histogram(
            "porterlb_plan_seconds",
            "How long one plan took.",
            buckets=(0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5),
            registry=self.registry,
        )
        self._mode_changes = Counter(
            "porterlb_mode_changes",
            "Mode changes of VIPs.",
            ("before", "after"),
            registry=self.registry,
        )
        self._mode_seconds = Histogram(
            "porterlb_mode_change_seconds",
            "From the plan that changed a VIP's mode until the new mode was seen on the wire.",
            ("after",),
            buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10),
            registry=self.registry,
        )
        self._losses = Counter(
            "porterlb_bgp_session_losses",
            "Lost BGP sessions of this replica, by peer and kind of reason.",
            ("peer", "reason"),
            registry=self.registry,
        )
        self._refusals = Counter(
            "porterlb_allocation_refusals",
            "Services that were refused an address, by reason; counted once a change.",
            ("reason",),
            registry=self.registry,
        )
        self._happened = Counter(
            "porterlb_history_events",
            "Events in the history of this replica, by type (VipMoved, NodeDead ...) and reason. Each VIP counts.",
            ("what", "why"),
            registry=self.registry,
        )
        self._outages = Counter(
            "porterlb_api_outages", "How often the API could not be reached.", registry=self.registry
        )
        self._api_up = Gauge(
            "porterlb_api_up", "Whether the API can be reached (1) or not (0).", registry=self.registry
        )
        self._api_up.set(1)
        self._writes = Counter(
            "porterlb_status_writes",
            "Writes to the API, by kind and result.",
            ("kind", "result"),
            registry=self.registry,
        )

        self._node_failures = Counter(
            "porterlb_node_failures",
            "Dead nodes and their pods that this replica has marked not ready or restored, and writes that failed.",
            ("what",),
            registry=self.registry,
        )
        self._not_marked = Gauge(
            "porterlb_dead_nodes_not_marked",
            "Nodes that do not answer and whose pods are not marked not ready, by reason.",
            ("reason",),
            registry=self.registry,
        )
        self._marked: dict[str, int] = {}
        self._refused: Tally[NotMarked] | None = None

    def node_failures(self, counts: Mapping[str, int], refused: Iterable[NotMarked]) -> None:
        """``counts``: since the start; ``refused``: why the pods of a node that does not answer are not marked."""
        found = Tally(refused)
        if counts == self._marked and found == self._refused:
            return  # most calls change nothing: one follows each report of the wire process
        self._refused = found
        for what, number in counts.items():
            self._node_failures.labels(what).inc(number - self._marked.get(what, 0))
        self._marked = dict(counts)
        for refusal in NotMarked:
            self._not_marked.labels(refusal.name.lower()).set(found[refusal])

    def recorded(self, counted: Mapping[tuple[str, str], int]) -> None:
        """Counts new events, by what and why; see :func:`porterlb.core.history.events.counts`."""
        for (what, why), count in counted.items():
            self._happened.labels(what, why).inc(count)

    def planned(self, seconds: float) -> None:
        self.plan_seconds.observe(seconds)

    def api(self, *, up: bool) -> None:
        """Whether the API can be reached now; an outage is counted when it begins."""
        if self._reachable and not up:
            self._outages.inc()
        self._reachable = up
        self._api_up.set(1 if up else 0)

    def wrote(self, kind: str, result: str) -> None:
        """``result``: ok, conflict, unavailable or denied."""
        self._writes.labels(kind, result).inc()

    def told(self, kind: str, notice: Notice) -> None:
        """An Event was made. Services that are refused an address are counted from Events: once per change."""
        if kind == "Service" and notice.warning and notice.reason not in ("NotServing", Reason.ADDRESS_CONFLICT):
            self._refusals.labels(notice.reason).inc()

    def saw(self, known: Known) -> None:
        """Counts the changes of the VIPs' planned modes, and times each until it is seen on the wire."""
        now, on_wire, vips = self._clock(), known.on_wire, known.plan.vips
        for address in differing(self._vips, vips):
            old, new = self._vips.get(address), vips.get(address)
            if new is None:
                self._changing.pop(address, None)
            elif old is not None and old.mode.mode is not new.mode.mode:
                self._mode_changes.labels(old.mode.mode.value, new.mode.mode.value).inc()
                self._changing[address] = new.mode.since
        self._vips = vips
        for address, since in list(self._changing.items()):
            mode = vips[address].mode.mode
            if address in on_wire and on_wire[address].mode is mode:
                self._mode_seconds.labels(mode.value).observe(max(0.0, now - since))
                del self._changing[address]

    def heard(self, report: BgpReport) -> None:
        """Counts the losses of BGP sessions since the last report, by peer and kind of reason."""
        for peer, session in report.sessions.items():
            more = session.losses - self._lost.get(peer, 0)
            if more > 0:
                category = session.loss.category if session.loss else LossCategory.OTHER
                self._losses.labels(peer, category.value).inc(more)
            self._lost[peer] = session.losses


class Faults(Collector):
    """Faults of this manager: parts that failed, and log lines that were dropped."""

    def __init__(self, failures: Callable[[], Mapping[str, int]], dropped: Callable[[], int]) -> None:
        self._failures, self._dropped = failures, dropped

    def describe(self) -> Iterable[Metric]:
        return []

    def collect(self) -> Iterable[Metric]:
        failures = CounterMetricFamily(
            "porterlb_part_failures", "Unexpected failures of a part of the manager, which ran again.", labels=("part",)
        )
        for part, count in sorted(self._failures().items()):
            failures.add_metric([part], count)
        yield failures
        dropped = CounterMetricFamily(
            "porterlb_log_lines_dropped", "Log lines dropped because standard error was not read fast enough."
        )
        dropped.add_metric([], self._dropped())
        yield dropped


class _Now(Collector):
    """The current state, computed at each scrape."""

    def __init__(self, known: Callable[[], Known | None], *, rebalances: bool) -> None:
        self._known = known
        self._rebalances = rebalances

    def describe(self) -> Iterable[Metric]:
        return []  # nothing is known when we register

    def collect(self) -> Iterable[Metric]:
        known = self._known()
        if known is None:
            return
        plan, bgp, wire = known.plan, known.bgp, known.wire
        modes = Tally(served(vip).value for vip in plan.vips.values())
        yield _gauge(
            "porterlb_vips", "VIPs by the mode that serves them.", "mode", {m.value: modes[m.value] for m in Mode}
        )
        yield _gauge(
            "porterlb_services_refused",
            "Services without an address now, by reason. The leader alone judges that: other replicas report nothing.",
            "reason",
            _refused(known),
        )
        yield _gauge(
            "porterlb_eip_addresses",
            "Addresses of a pool.",
            "eip",
            {n: float(e.use.size) for n, e in plan.eips.items()},
        )
        yield _gauge(
            "porterlb_eip_addresses_used",
            "Assigned addresses of a pool.",
            "eip",
            {name: len(eip.use.used) for name, eip in plan.eips.items()},
        )
        yield _gauge(
            "porterlb_bgp_session_up",
            "Whether this replica's session with a peer is established.",
            "peer",
            {name: int(name in bgp.sessions and bgp.sessions[name].up) for name in plan.bgp.sessions},
        )
        bfd = {name: session.bfd for name, session in bgp.sessions.items() if session.bfd is not None}
        yield _gauge(
            "porterlb_bfd_session_up",
            "Whether this replica's BFD session with a peer is up.",
            "peer",
            {name: int(name in bfd and bfd[name].up) for name in plan.bgp.bfd},
        )
        transitions = CounterMetricFamily(
            "porterlb_bfd_transitions", "How often BFD with a peer came up or went down.", labels=("peer",)
        )
        failures = CounterMetricFamily(
            "porterlb_bfd_failures", "How often BFD with a peer found a failure.", labels=("peer",)
        )
        for name, session in sorted(bfd.items()):
            transitions.add_metric([name], session.transitions)
            failures.add_metric([name], session.failures)
        yield transitions
        yield failures
        yield _plain("porterlb_bgp_routes_wanted", "Routes that this replica announces.", _routes(plan))
        yield _plain("porterlb_bgp_routes_rejected", "Routes that ExaBGP refused.", len(bgp.rejected))
        yield _plain("porterlb_bgp_up", "Whether ExaBGP runs.", int(bgp.running))
        restarts = CounterMetricFamily("porterlb_exabgp_restarts", "Restarts of ExaBGP.")
        restarts.add_metric([], bgp.restarts)
        yield restarts
        spread = overview(plan)
        yield _gauge(
            "porterlb_layer2_vips",
            "VIPs by the node that serves them in Layer 2, or would serve them once BGP is lost.",
            "node",
            {name: share.vips for name, share in spread.shares.items()},
        )
        yield _gauge(
            "porterlb_layer2_askers",
            "Hosts on the segment by the node that is their next hop, of all VIPs with layer2Spread together.",
            "node",
            askers_by_node(wire.askers.values()),
        )
        yield _plain(
            "porterlb_layer2_imbalance",
            "Load of the fullest node over the mean, by weight and capacity; 1 is even.",
            spread.balance.ratio,
        )
        yield _plain(
            "porterlb_layer2_excess",
            "Load of the fullest node above its share, in VIPs of weight 1.",
            float(spread.balance.excess),
        )
        yield _plain(
            "porterlb_layer2_rebalances",
            "Whether the leader moves VIPs without a request (1), or only porterlb rebalance does (0).",
            int(self._rebalances),
        )
        yield _plain("porterlb_leader", "Whether this replica leads.", int(known.leading))
        yield _plain("porterlb_replicas_fresh", "Live replicas, this one included.", len(wire.fresh) + 1)
        yield _plain("porterlb_nodes_dead", "Nodes that do not answer probes.", len(wire.dead))
        yield _plain(
            "porterlb_doubt",
            "Whether this replica hears no other host.",
            int(wire.doubt),
        )
        yield _gauge(
            "porterlb_layer2_in_kernel",
            "Whether the kernel answers ARP and NDP on an interface (1), or user space in its place (0). Only with the "
            "setting answers auto or kernel.",
            "interface",
            {nic: int(not why) for nic, why in wire.in_kernel.items()},
        )
        yield _plain("porterlb_address_conflicts", "VIPs that a foreign host claims.", len(wire.conflicts))
        counters = CounterMetricFamily(
            "porterlb_wire", "What the wire process counts: requests, answers, gratuitous, hellos ...", labels=("what",)
        )
        for what, value in sorted(wire.counters.items()):
            counters.add_metric([what], value)
        yield counters


def _refused(known: Known) -> Mapping[str, int]:
    """The number of Services that get no address, by reason."""
    if not known.leading:
        return {}
    return Tally(
        problem.reason.value
        for allocation in known.plan.services.values()
        for problem in allocation.refusals
        if problem.fatal
    )


def _routes(plan: Plan) -> int:
    return sum(len(prefixes) for prefixes in plan.bgp.routes.values())


def _plain(name: str, text: str, value: float) -> GaugeMetricFamily:
    return GaugeMetricFamily(name, text, value=value)


def _gauge(name: str, text: str, label: str, values: Mapping[str, float]) -> GaugeMetricFamily:
    family = GaugeMetricFamily(name, text, labels=(label,))
    for value, number in sorted(values.items()):
        family.add_metric([value], number)
    return family
