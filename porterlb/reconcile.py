"""The reconcile loop: observe, plan, tell the speakers, write status.

Every event sets a flag. The loop turns what is known into one :class:`Snapshot`, calls
:func:`porterlb.core.plan.plan`, and passes the whole result to the speakers and to status. Bursts coalesce; the loss
of a node or of a session does not wait for them.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import NamedTuple, Protocol

from porterlb import checkpoint
from porterlb.cluster import Broken, Changed, Cluster, Deleted, Kind, Outage, Replaced, Restored
from porterlb.core.desired import DesiredBgp, DesiredWire
from porterlb.core.inputs import Inputs, News
from porterlb.core.known import Known
from porterlb.core.mode import ModePolicy
from porterlb.core.model import Member, Snapshot
from porterlb.core.node_failure import Marking
from porterlb.core.objects import Obj, ObjectKey, Objects
from porterlb.core.observed import BgpReport, WireReport
from porterlb.core.pace import Pace
from porterlb.core.placement.policy import PlacementPolicy
from porterlb.core.plan import Plan, Steps, plan_steps
from porterlb.core.problems import Problem
from porterlb.core.proxy_wait import NewHop, ProxyPolicy
from porterlb.core.record.manager import ManagerLog
from porterlb.settings import Settings

log = logging.getLogger("porterlb.reconcile")

KINDS = (Kind.NODE, Kind.NAMESPACE, Kind.SERVICE, Kind.ENDPOINT_SLICE, Kind.EIP, Kind.BGP_CONF, Kind.BGP_PEER)

LONGEST_REST = 0.25
"""Seconds, at most, that the loop rests after a plan; it rests as long as the plan took. In a burst, that leaves half
of the time to read events, and a hundred changes become one plan; it does not delay a single change."""

SILENCE = 0.05
"""Seconds for which the loop rests after a replica has become silent. Usually its node has died; that is detected
within this time, and needs a plan at once. The first of two plans would only compete with the wire process for the
processor."""

STEP = 0.005
"""Seconds after which a plan, or the reading of a long list, yields to other tasks of the event loop."""

PLAN_AGAIN = 1.0
"""Seconds until planning is tried again after it failed."""


class BgpSpeaker(Protocol):
    """What the loop needs from edge/bgp."""

    def want(self, wanted: DesiredBgp, token: int) -> None: ...


class WireSpeaker(Protocol):
    """What the loop needs from edge/layer2."""

    def want(self, wanted: DesiredWire) -> None: ...


class Planning(NamedTuple):
    """A plan in progress, made from what was known when it began."""

    at: float
    snapshot: Snapshot
    problems: Mapping[ObjectKey, tuple[Problem, ...]]
    generations: Mapping[ObjectKey, int]
    steps: Steps


@dataclass
class Reconciler:
    """Holds what is known; :meth:`run` is the loop. ``on_*`` may be called at any time, from the same event loop."""

    settings: Settings
    cluster: Cluster
    bgp: BgpSpeaker
    wire: WireSpeaker
    publish: Callable[[Known, float], None]
    """Called after each plan with what is known and the seconds that the plan took."""
    unplanned: Callable[[Known, bool], None]
    """Called with what is known when something is new that no plan depends on. The flag: whether a status may have
    changed; otherwise only counters are newer."""
    before_plan: Callable[[], None]
    """Called before each plan: other parts need the objects too (for passwords, for our own description)."""
    proxy_health: Callable[[Collection[NewHop]], None]
    """Called before each plan with the next hops that wait for their kube-proxy."""
    returned: Callable[[Collection[str]], None]
    """Called before each plan with the nodes that have returned and still wait."""
    log: ManagerLog | None = None
    """Where everything that the decisions depend on is recorded."""
    clock: Callable[[], float] = field(default=lambda: time.monotonic())  # noqa: PLW0108  # looked up at each call
    """Monotonic seconds."""

    def __post_init__(self) -> None:
        s = self.settings
        self.inputs = Inputs(
            s.node,
            s.namespace,
            Objects(
                s.claim_services_without_class,
                ignore_exclude_label=s.ignore_exclude_label,
                drain_cordoned=s.drain_cordoned,
            ),
            ProxyPolicy(s.proxy_delay, s.proxy_limit),
        )
        self.objects = self.inputs.objects
        self.policy = ModePolicy(return_after=s.return_after, widen_after=s.widen_after, drain_after=s.drain_after)
        self.placement_policy = PlacementPolicy(
            settle_after=s.settle_after,
            automatic=s.rebalance == "auto",
            rebalance_after=s.rebalance_after,
            pace=s.rebalance_pace,
        )
        self.known: Known | None = None
        self.synced: set[Kind] = set()
        self._dirty = asyncio.Event()
        self._urgent = asyncio.Event()
        self._rest_until = 0.0  # until then no plan is made, unless it is urgent
        self._pace = Pace()
        self.token = 0
        self.digests: dict[int, int] = {}
        self._early = False  # whether BGP was told routes of a plan that has not been completed yet
        self._wanted = DesiredWire()  # what was last sent to the wire process
        if self.log is not None:
            self.objects.seen = self._object_seen

    # Events

    def _note(self, what: str, value: object = None, size: int = 0) -> None:
        if self.log is not None:
            self.log.note(what, self.clock(), value, size)

    def _object_seen(self, key: ObjectKey, obj: Obj | None) -> None:
        if self.log is not None:
            self.log.object(key, obj, self.clock())

    def touch(self, *, urgent: bool = False) -> None:
        """Something has changed: plan soon, or at once."""
        self._dirty.set()
        if urgent:
            self._urgent.set()

    def on_bgp(self, report: BgpReport) -> None:
        self._note("bgp", report, 500 * len(report.sessions) + 300 * len(report.rejected))
        self._heard(self.inputs.heard_bgp(report))

    def on_wire(self, report: WireReport) -> None:
        now = self.clock()
        if self.log is not None:
            self.log.wire(report, now)
        self._heard(self.inputs.heard_wire(report, now))

    def _heard(self, news: News) -> None:
        if news in (News.NOTHING, News.STATUS):
            self._tell(news=news is News.STATUS)
            return
        if news is News.SILENCE:
            self._rest_until = max(self._rest_until, time.monotonic() + SILENCE)
        self.touch(urgent=news is News.URGENT)

    def on_leader(self, leader: str) -> None:
        self._note("leader", leader)
        self.inputs.leader = leader
        self.touch()

    def on_bounded(self, bounded: bool) -> None:
        """Whether an admission policy bounds the right to mark pods."""
        if bounded != self.inputs.bounded:
            self._note("bounded", bounded)
            self.inputs.bounded = bounded
            self.touch()

    def on_passwords(self, passwords: Mapping[str, str]) -> None:
        """BGP passwords by peer name, of the peers that name an existing Secret."""
        if self.log is not None:
            self.log.passwords(passwords, self.clock())
        self.inputs.passwords = passwords
        self.touch()

    def on_members(self, members: Mapping[str, Member]) -> None:
        self._note("members", members, 500 * len(members))
        self.inputs.members = members
        self.touch()

    def on_named(self) -> None:
        """No other live manager has the name of our node: the speakers may be told what to announce and to answer."""
        self._note("named")
        self.inputs.named = True
        self.touch()

    def on_challenge(self) -> None:
        """Another manager was started with the name of our node."""
        self._note("challenge")
        self.inputs.challenged_at = self.clock()
        self.touch()

    def on_delivering(self, hops: frozenset[NewHop]) -> None:
        """Next hops that wait and whose kube-proxy has reported that it can deliver."""
        self._note("delivering", hops, 200 * len(hops))
        self.inputs.delivering = hops
        self.touch()

    def on_proxies(self, nodes: frozenset[str]) -> None:
        """Nodes that have returned and whose kube-proxy runs."""
        self._note("proxies", nodes, 100 * len(nodes))
        self.inputs.proxies = nodes
        self.touch()

    def on_synced(self, kind: Kind) -> None:
        """Every object of a kind has been read."""
        if kind not in self.synced:
            self._note("synced", kind.kind)
            self.synced.add(kind)

    def on_outage(self, reason: str) -> None:
        """Why the API is unavailable; empty: it is available again."""
        self._note("outage", reason)
        self.inputs.outage = reason

    def waiting_for(self) -> str:
        """What is not known yet, as a sentence; empty once plans are made."""
        missing = [kind.plural for kind in KINDS if kind not in self.synced]
        if missing:
            return f"The API has not listed the {', '.join(missing)} yet. {self.inputs.outage}".strip()
        if not self.inputs.wire_ready:
            return "The wire process has not reported yet."
        return "" if self.inputs.named else "Checking whether another manager runs with the name of this node."

    # The loop

    async def watch(self) -> None:
        """Follows the cluster until cancelled."""
        async for event in self.cluster.watch(KINDS):
            different = True
            match event:
                case Replaced(kind, objects):
                    different = await self._replace(kind, objects) or kind not in self.synced
                    self.on_synced(kind)
                case Changed(kind, obj):
                    different = self.objects.change(kind.kind, obj)
                case Deleted(kind, namespace, name):
                    different = self.objects.delete(kind.kind, namespace, name)
                case Outage(reason):
                    self.on_outage(reason)
                    log.warning("the API is unavailable: what is known stays in force (%s)", reason)
                case Restored():
                    self.on_outage("")
                    log.info("the API is available again")
                case Broken(where, message):
                    if message:
                        self.inputs.broken[where] = message
                        log.warning("%s: %s", where, message)
                    else:
                        self.inputs.broken.pop(where, None)
            if different:
                self.touch()
            else:  # such as our own status, which the watch brings back
                self._tell(news=True)

    async def _replace(self, kind: Kind, objects: Iterable[Obj]) -> bool:
        """Takes over a full list, and yields meanwhile. Returns whether a plan sees any difference."""
        different, turned = False, time.monotonic()
        for one in self.objects.replacing(kind.kind, objects):
            different |= one
            if time.monotonic() - turned > STEP:
                await asyncio.sleep(0)
                turned = time.monotonic()
        return different

    async def run(self) -> None:
        """Plans whenever something has changed or is due, once everything is known for the first time."""
        while True:
            await self._wait()
            if self.waiting_for():
                continue
            self.before_plan()
            begun = time.monotonic()
            try:
                await self._plan(begun)
            except Exception as error:
                # The speakers continue with the last plan. If we ended here, every replica, which sees the same
                # objects, would end in the same way, and no address would be announced or answered for.
                log.exception("Planning failed. The last plan stays in force.")
                self._note("failed", type(error).__name__)
                await asyncio.sleep(PLAN_AGAIN)
            ended = time.monotonic()
            self._pace.took(ended)
            self._rest_until = ended + min(LONGEST_REST, ended - begun)

    async def _wait(self) -> None:
        timeout, now = None, time.monotonic()
        times = (self.known.plan.wake_at if self.known else None, self.inputs.wakes_at(now))
        if due := [at for at in times if at is not None]:
            timeout = max(0.0, min(due) - now)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout):
                await self._dirty.wait()
        if not self._urgent.is_set():
            with contextlib.suppress(TimeoutError):
                now = time.monotonic()
                async with asyncio.timeout(max(self._rest_until - now, self._pace.wait(now), 0.0)):
                    await self._urgent.wait()
        self._dirty.clear()
        self._urgent.clear()

    async def _plan(self, now: float) -> None:
        """Makes one plan. Other tasks of this loop (the beat to the speakers, reports, answers to HTTP) get a turn
        every few milliseconds, so that a plan of any length silences no speaker. A short plan does not yield: routes
        wait for it."""
        started = turned = time.perf_counter()
        planning = self.begin_plan(now)
        token = self.token
        while (made := self.step_plan(planning)) is None:
            if self.token != token or time.perf_counter() - turned > STEP:
                await asyncio.sleep(0)
                turned, token = time.perf_counter(), self.token
        self.end_plan(planning, made)
        if self.known is not None:
            self.publish(self.known, time.perf_counter() - started)

    def begin_plan(self, now: float) -> Planning:
        """The plan uses what is known now; later events go into the next one."""
        if self.log is not None:
            self.log.begin(now, lambda: checkpoint.state_of(self))
        before = self.known.plan if self.known else None
        snapshot = self.inputs.snapshot(now)
        self.returned(self.inputs.returns.waiting)
        if self.inputs.proxy_wait is not None:
            self.proxy_health(self.inputs.proxy_wait.waiting.keys())
        steps = plan_steps(snapshot, before, now, self.policy, self.placement_policy)
        return Planning(now, snapshot, self.objects.problems, self.objects.generations, steps)

    def step_plan(self, planning: Planning) -> Plan | None:
        """Takes the next step of a plan; returns the plan when it is complete. Urgent routes go out at once."""
        try:
            early = next(planning.steps)
        except StopIteration as done:
            made: Plan = done.value
            return made
        if early is not None:
            self._early = True
            self.token += 1  # no digest: these routes are not a complete plan
            self.bgp.want(early, self.token)
        return None

    def end_plan(self, planning: Planning, made: Plan) -> None:
        """Sends the plan to the speakers and makes it the known one."""
        now, inputs, before = planning.at, self.inputs, self.known.plan if self.known else None
        made = replace(made, peers=inputs.with_missing_secrets(made.peers))
        inputs.check(made.wire.check, now)
        known = self.known
        if known is None or self._early or made.bgp != known.plan.bgp or made.digest != known.plan.digest:
            self._early = False
            self.token += 1
            self.digests = {token: d for token, d in self.digests.items() if token >= inputs.bgp_report.applied}
            self.digests[self.token] = made.digest
            self.bgp.want(made.bgp, self.token)
        applied = self._applied()
        self._wanted = wire = replace(made.wire, applied=applied, check=made.wire.check | inputs.verdicts.due(now))
        self.wire.want(wire)
        inputs.served_only(made.wire.vips)
        self.known = Known(
            snapshot=planning.snapshot,
            plan=made,
            bgp=inputs.bgp_report,
            wire=inputs.wire_known(now),
            applied=applied,
            problems=planning.problems,
            generations=planning.generations,
            broken=dict(inputs.broken),
            outage=inputs.outage,
            unchecked=inputs.unchecked(now),
            # OFF with Kubernetes only: without it there is no node controller to wait for, and no field to set.
            marking=self._marking(),
            at=now,
        )
        if self.log is not None:
            self.log.planned(now, before, made, wire, self.token)

    def _applied(self) -> int:
        """The digest of the last plan that our BGP speaker has applied completely."""
        return self.digests.get(self.inputs.bgp_report.applied, 0)

    def _tell(self, *, news: bool) -> None:
        """Publishes what is known by the last plan, with the newest reports."""
        if self.known is None:
            return
        before, now, inputs = self.known, self.clock(), self.inputs
        wire, applied, unchecked = inputs.wire_known(now), self._applied(), inputs.unchecked(now)
        if applied != before.applied:
            self._wanted = replace(self._wanted, applied=applied)
            self.wire.want(self._wanted)
        self.known = replace(before, bgp=inputs.bgp_report, wire=wire, applied=applied, unchecked=unchecked)
        news |= (wire.notices, applied, unchecked) != (before.wire.notices, before.applied, before.unchecked)
        self.unplanned(self.known, news)

    def _marking(self) -> Marking:
        if not self.settings.mark_pods_not_ready and self.settings.cluster == "kube":
            return Marking.OFF
        return Marking.ON if self.inputs.bounded else Marking.UNBOUNDED
