"""The latest inputs for the decisions of one replica, and the snapshot that a plan is made from.

A report replaces the previous one. Some values are memories. Each snapshot updates which next hops wait for their
kube-proxy and which nodes have returned. Each report of the wire process updates the verdicts of the duplicate address
probe.
"""

from __future__ import annotations

import enum
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field, replace
from ipaddress import ip_network

from porterlb.core import node_return, proxy_wait
from porterlb.core.bgp.negotiated import from_text
from porterlb.core.bgp.peers import secret_missing
from porterlb.core.duplicates import Duplicates
from porterlb.core.model import Address, Endpoint, Member, Peer, ServiceKey, Snapshot, View
from porterlb.core.namesake import TOLD_FOR
from porterlb.core.node_return import Returns
from porterlb.core.objects import Objects
from porterlb.core.observed import BgpReport, Notice, NoticeKind, WireReport
from porterlb.core.persistent import editing
from porterlb.core.problems import Problem
from porterlb.core.proxy_wait import NewHop, ProxyPolicy, ProxyWait

CHECK_LIMIT = 0.6
"""Seconds to wait for the duplicate address probe (3 probes in 200 ms); then an address is assigned without it."""

CHECK_AGAIN = 1.0
"""Minimum seconds until an address whose verdict is due is probed again."""


class News(enum.Enum):
    """The effect of a report."""

    NOTHING = "nothing but counters"
    STATUS = "possibly a status; the plan stays the same"
    PLAN = "possibly the plan"
    SILENCE = "the plan, after a moment: the node of the silent replica may have died"
    URGENT = "a plan, which is needed at once"


@dataclass
class Inputs:
    """Times: monotonic seconds.

    Args:
        node: our node.
        namespace: of the Secrets with passwords of BGP peers.

    ``members``: the replicas by node. ``bounded``: whether an admission policy bounds the right to mark pods.
    ``named``: no other live manager has the name of our node. ``challenged_at``: when another manager was started with
    it. ``outage``: why the API is unavailable; empty: it is available. ``broken``: unreadable manifests, and why.
    ``passwords``: by peer, of the peers whose Secret exists. ``delivering``: next hops that wait and whose kube-proxy
    has reported that it can deliver. ``proxies``: nodes that have returned and whose kube-proxy runs; None: this cannot
    be checked. ``checking``: since when each new address waits for the duplicate address probe.
    """

    node: str
    namespace: str
    objects: Objects
    proxy_policy: ProxyPolicy
    members: Mapping[str, Member] = field(default_factory=dict)
    leader: str = ""
    bounded: bool = True
    bgp_report: BgpReport = field(default_factory=BgpReport)
    wire_report: WireReport = field(default_factory=WireReport)
    wire_ready: bool = False
    named: bool = False
    challenged_at: float | None = None
    outage: str = ""
    broken: dict[str, str] = field(default_factory=dict)
    passwords: Mapping[str, str] = field(default_factory=dict)
    delivering: frozenset[NewHop] = frozenset()
    proxies: frozenset[str] | None = None
    checking: dict[Address, float] = field(default_factory=dict)
    verdicts: Duplicates = field(default_factory=Duplicates)
    proxy_wait: ProxyWait | None = None
    returns: Returns = field(default_factory=Returns)
    _endpoints: Mapping[ServiceKey, tuple[Endpoint, ...]] = field(default_factory=dict)

    def heard_bgp(self, report: BgpReport) -> News:
        """Takes over a report of the BGP speaker, and returns its effect."""
        before, self.bgp_report = self.bgp_report, report
        if report.same_for_plan(before):
            return News.NOTHING if report == before else News.STATUS
        return News.URGENT if report.is_urgent(before) else News.PLAN

    def heard_wire(self, report: WireReport, now: float) -> News:
        """Takes over a report of the wire process, and returns its effect."""
        before = self.wire_report
        self.wire_report = report = before.with_changes(report)
        verdicts, self.verdicts = self.verdicts, self.verdicts.heard(report.claimed, report.clear, now)
        first, self.wire_ready = not self.wire_ready, True
        if first or self.verdicts is not verdicts or not report.same_for_plan(before):
            if report.is_urgent(before):
                return News.URGENT
            return News.SILENCE if report.lost_replica(before) else News.PLAN
        return News.STATUS if report.says_more_than(before) else News.NOTHING

    def snapshot(self, now: float) -> Snapshot:
        """The current inputs, for one plan."""
        objects = self.objects
        self._step_returns(now)
        return Snapshot(
            view=self._view(),
            nodes=objects.nodes,
            services=objects.services,
            endpoints=self._settled_endpoints(now),
            eips=objects.eips,
            peers=dict(self._peers()),
            conf=objects.conf,
            namespaces=objects.namespaces,
            members=self.members,
            elsewhere=objects.elsewhere,
            claimed=self.verdicts.claimed,
            proxies=self.verdicts.proxies,
        )

    def wakes_at(self, now: float) -> float | None:
        """When another plan is next needed only because time passes, or None."""
        times = [self.returns.wakes_at(self.proxy_policy.delay)]
        if self.proxy_wait:
            times.append(proxy_wait.wakes_at(self.proxy_wait, self.proxy_policy))
        if self.verdicts.next_at is not None:
            times.append(max(now + CHECK_AGAIN, self.verdicts.next_at))
        if self.checking:
            times.append(now + CHECK_LIMIT)
        return min((at for at in times if at is not None), default=None)

    def check(self, wanted: Collection[Address], now: float) -> None:
        """Sets the new addresses that wait for the duplicate address probe."""
        self.checking = {address: self.checking.get(address, now) for address in wanted}

    def unchecked(self, now: float) -> frozenset[Address]:
        """New addresses that may not be assigned yet: the probe has not confirmed that no other host has them."""
        return frozenset(
            address
            for address, since in self.checking.items()
            if address not in self.wire_report.clear and now - since < CHECK_LIMIT
        )

    def served_only(self, vips: Collection[Address]) -> None:
        """Forgets the answerers of addresses that are no longer VIPs: the wire process does not report this."""
        if len(self.wire_report.answering) > len(vips):
            answering = editing(self.wire_report.answering)
            for address in [address for address in answering if address not in vips]:
                del answering[address]
            self.wire_report = replace(self.wire_report, answering=answering.frozen())

    def wire_known(self, now: float) -> WireReport:
        """The report of the wire process, with the notice that only the manager can give."""
        if self.challenged_at is None or now - self.challenged_at >= TOLD_FOR:
            return self.wire_report
        notice = Notice(NoticeKind.OWN_NAME, "", (self.node,))
        return replace(self.wire_report, notices=tuple(dict.fromkeys((*self.wire_report.notices, notice))))

    def with_missing_secrets(self, problems: Mapping[str, tuple[Problem, ...]]) -> dict[str, tuple[Problem, ...]]:
        """The problems of peers by name, including those of peers whose password is missing."""
        found = dict(problems)
        for name, peer in self.objects.peers.items():
            if peer.password_secret is not None and name not in self.passwords:
                found[name] = (*found.get(name, ()), secret_missing(peer, self.namespace))
        return found

    # ---- internal

    def _fresh(self) -> frozenset[str]:
        """The replicas that are heard, including our own."""
        return frozenset(self.wire_report.fresh) | {self.node}

    def _exempt(self) -> frozenset[str]:
        return node_return.exempt_nodes(self.node, bool(self.outage))

    def _step_returns(self, now: float) -> None:
        report = self.wire_report
        if report.doubt:
            return
        delay, fresh, proxies = self.proxy_policy.delay, self._fresh(), self.proxies
        self.returns = node_return.step(
            self.returns, report.dead, self.members, fresh, now, delay, proxies, self._exempt(), report.unheard
        )
        self.proxies = None if proxies is None else frozenset(proxies & self.returns.waiting.keys())

    def _settled_endpoints(self, now: float) -> Mapping[ServiceKey, tuple[Endpoint, ...]]:
        """The endpoints without those whose kube-proxy cannot deliver yet, while the Service has others."""
        objects, dead = self.objects, self.wire_report.dead
        self.proxy_wait = state = proxy_wait.step(
            self.proxy_wait,
            objects.services,
            objects.endpoints,
            dead,
            self.delivering,
            now,
            self.proxy_policy,
            self._exempt(),
        )
        self._endpoints = proxy_wait.settled(state, self._endpoints)
        self.delivering = frozenset(self.delivering & state.waiting.keys())  # an answer counts for one wait
        return self._endpoints

    def _view(self) -> View:
        report, me = self.wire_report, self.node
        sessions = {(me, peer) for peer, state in self.bgp_report.sessions.items() if state.up}
        negotiated = {(me, peer): s.negotiated for peer, s in self.bgp_report.sessions.items() if s.negotiated}
        for name, replica in report.fresh.items():
            sessions.update((name, peer) for peer in replica.sessions)
            for peer, text in replica.negotiated.items():
                if (agreed := from_text(text)) is not None:
                    negotiated[name, peer] = agreed
        return View(
            node=me,
            dead=report.dead,
            dead_on=frozenset((n, ip_network(subnet)) for subnet, dead in report.dead_on.items() for n in dead),
            probed=report.probed,
            fresh=self._fresh(),
            sessions=frozenset(sessions),
            negotiated=negotiated,
            hold_downs={name: replica.hold_downs for name, replica in report.fresh.items()},
            leader=self.leader,
            doubt=report.doubt,
            settling=self.returns.settling,
            outage=bool(self.outage),
            asked=report.asked,
        )

    def _peers(self) -> Iterator[tuple[str, Peer]]:
        """The peers with their passwords; one whose Secret is missing gets no session rather than an open one."""
        for name, peer in self.objects.peers.items():
            if peer.password_secret is None:
                yield name, peer
            elif name in self.passwords:
                yield name, replace(peer, password=self.passwords[name])
