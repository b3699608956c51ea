"""Composition root of the manager: the only place that names concrete edges."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import operator
import random
import signal
import time
from collections.abc import Callable, Mapping, Set
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

from prometheus_client import CollectorRegistry

from porterlb import logs
from porterlb.capabilities import Capability, keep_only
from porterlb.cluster import Cluster, Denied, Obj, Unavailable
from porterlb.collector import collect_seldom
from porterlb.core import node_failure
from porterlb.core.backoff import delay
from porterlb.core.history import Entry, History, What
from porterlb.core.known import Known
from porterlb.core.lease import Timing
from porterlb.core.membership import Absence, member_here
from porterlb.core.model import Address
from porterlb.core.observed import BgpReport, WireReport
from porterlb.core.proxy_wait import NewHop
from porterlb.core.status.state import state_of
from porterlb.core.status.writes import owner_of
from porterlb.edge.bfd import BfdSpeaker
from porterlb.edge.bgp import BgpSpeaker
from porterlb.edge.host import Host
from porterlb.edge.http import HttpServer
from porterlb.edge.layer2 import Layer2Speaker
from porterlb.edge.leader import Leader
from porterlb.edge.life_signs import LifeSigns
from porterlb.edge.membership import Membership
from porterlb.edge.metrics import Faults, Metrics
from porterlb.edge.node_failure import Look, NodeFailures
from porterlb.edge.passwords import Passwords
from porterlb.edge.proxy_health import ProxyHealth
from porterlb.edge.proxy_start import ProxyStart
from porterlb.edge.recorder import Recorder
from porterlb.edge.recording import Recording
from porterlb.edge.state_sharer import StateSharer
from porterlb.edge.status import StatusWriter
from porterlb.errors import PorterError
from porterlb.logs import fields
from porterlb.open_cluster import open_cluster
from porterlb.pulse import Pulse
from porterlb.reconcile import Reconciler
from porterlb.release import release
from porterlb.settings import Settings
from porterlb.supervise import Supervisor
from porterlb.workplace import workplace

log = logging.getLogger("porterlb.app")

TAKE_OVER = 0.5
"""Seconds that the other replicas have to announce our routes before we withdraw them: they receive our goodbye at
once, plan, and their ExaBGP sends within some 50 ms."""

ASK_WITHIN = 2.5
"""Seconds for an inquiry about the segment: it takes about 1 s, and waits for the previous one."""

ASK_AGAIN = 2.0
"""Seconds, at most, between two attempts to reach the API at the start: the cluster waits for this replica."""

STUCK_AFTER = 30.0
"""Seconds without a turn of the event loop after which the manager counts as hung: its speakers go silent
``silence_after`` later. Planning yields every few milliseconds; no other work on the loop takes a tenth of this."""

WIRE_REPORTS = 1.5
"""Seconds without a report of the wire process after which it counts as stopped: it sends its counters each second."""

VANISHED_AFTER = 10.0
"""Seconds without a Node and without a hello until the leader deletes a replica's Lease: a kubelet needs a few seconds
to register its node again."""


def run(settings: Settings) -> int:
    """Runs the manager until SIGTERM or SIGINT; returns the exit code. Raises PorterError when it cannot start."""
    # For its child processes: the wire process needs raw sockets, ExaBGP may need a port below 1024. We need none.
    keep_only(Capability.NET_RAW, Capability.NET_BIND_SERVICE, in_reserve=True)
    collect_seldom()
    return asyncio.run(_run(settings))


async def _run(settings: Settings) -> int:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    cluster = open_cluster(
        settings.cluster, namespace=settings.namespace, kubeconfig=settings.kubeconfig, context=settings.context
    )
    with workplace() as folder:
        try:
            key = await _first_answer(settings, cluster, stop)
            if key is None:
                return 0
            manager = _Manager(settings, cluster, key, folder)
            return await manager.run(stop)
        finally:
            await cluster.close()


async def _first_answer(settings: Settings, cluster: Cluster, stop: asyncio.Event) -> bytes | None:
    """The key of the hellos, which is the first request to the cluster; None when told to stop.

    Waits while the cluster is unavailable or rights are missing: if we ended, Kubernetes would only restart us, with
    growing delays. Meanwhile /readyz says what we wait for. Raises PorterError for errors that waiting does not
    resolve: no kubeconfig, no such Secret.
    """
    why = "The API has not answered yet."
    http = HttpServer(
        settings.http_host,
        settings.http_port,
        ready=lambda: why,
        state=lambda: partial(_waiting, why),
        registry=CollectorRegistry(),
    )
    asking = asyncio.create_task(cluster.hello_key(), name="hello-key")
    stopping = asyncio.create_task(stop.wait(), name="stop")
    failures = 0
    try:
        await http.start()
        while True:
            await asyncio.wait([asking, stopping], return_when=asyncio.FIRST_COMPLETED)
            if stopping.done():
                return None
            try:
                return asking.result()
            except (Unavailable, Denied) as error:
                failures += 1
                if why != (why := f"The API cannot be used yet: {error}"):
                    log.warning("waiting for the API", extra=fields(cluster=settings.cluster, reason=error))
            asking = asyncio.create_task(
                _later(delay(failures, random.random(), ceiling=ASK_AGAIN), cluster), name="hello-key"
            )
    finally:
        for task in (asking, stopping):
            task.cancel()
        await asyncio.gather(asking, stopping, return_exceptions=True)
        await http.stop()


def _whole_state(known: Known, history: History, now: float, more: Mapping[str, Any]) -> Mapping[str, Any]:
    return {**state_of(known, history, now), **more}


def _waiting(why: str) -> Mapping[str, Any]:
    """The state of a replica that knows nothing yet."""
    return {"ready": False, "waitingFor": why}


def _utc() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


async def _later(seconds: float, cluster: Cluster) -> bytes:
    await asyncio.sleep(seconds)
    return await cluster.hello_key()


class _Manager:
    """Connects the edges, starts them, and ends them in order."""

    def __init__(self, settings: Settings, cluster: Cluster, key: bytes, folder: Path) -> None:
        self.settings = settings
        self.parts = Supervisor()
        self._namesake = asyncio.Event()
        contained = self.parts.contained
        self.recording = Recording(settings, release(), lambda within: self.wire.recording(within))  # noqa: PLW0108
        self.bgp = BgpSpeaker(
            contained("bgp", self._on_bgp), run_dir=folder / "bgp", silence_after=settings.silence_after
        )
        self.wire = Layer2Speaker(
            contained("layer2", self._on_wire), settings=settings, key=key, recorded=self.recording.streamed
        )
        self.bfd = BfdSpeaker(contained("bfd", self.bgp.hear_bfd), settings=settings)
        self.pulse = Pulse([self.bgp.beat, self.wire.beat, self._beat_bfd], STUCK_AFTER)
        self.proxy_health = ProxyHealth(self._node_address, contained("proxy health", self._on_delivering))
        self.proxy_start = ProxyStart(settings.node, self._node_addresses, contained("proxy start", self._on_proxies))
        self.reconciler = Reconciler(
            settings,
            cluster,
            self.bgp,
            self.wire,
            contained("status", self._publish),
            contained("status", self._unplanned),
            contained("reconcile", self._before_plan),
            self.proxy_health.ask,
            self.proxy_start.ask,
            log=self.recording.log,
        )
        self.passwords = Passwords(cluster, self.reconciler.on_passwords)
        timing = Timing(settings.lease_duration, settings.lease_renew_deadline, settings.lease_retry)
        self.leader = Leader(cluster, settings.node, timing, on_change=contained("leader", self._on_leader))
        self.life_signs = LifeSigns(self._node_addresses, contained("life-signs", self._on_sign))
        self.membership = Membership(
            cluster,
            settings.node,
            "",
            settings.hello_port,
            on_change=contained("membership", self._on_members),
            vanished=self._vanished,
            on_lease=contained("leader", self._on_lease),
            on_sign=contained("membership", self.life_signs.heard),
            supervise=self.parts.keep,
            on_challenge=contained("membership", self.reconciler.on_challenge),
            on_end=self._namesake.set,
        )
        self._made_of: tuple[object, ...] = ("",)  # what we last described ourselves from
        self._wire_news = asyncio.Event()
        self._wire_heard = 0.0
        self.node_failures = NodeFailures(
            cluster,
            settings.node,
            node_failure.Rules(settings.mark_pods_not_ready, again_after=settings.mark_again_after),
            self._node_failure_look,
            ask=self.life_signs.ask,
            on_done=self._on_pods_changed,
            on_bounded=self.reconciler.on_bounded,
            on_change=lambda: self.metrics.node_failures(
                self.node_failures.counts, self.node_failures.refused.values()
            ),
        )
        self._absence = Absence(VANISHED_AFTER)
        self._described = asyncio.Event()
        self.metrics = Metrics(lambda: self.status.known, time.monotonic, rebalances=settings.rebalance == "auto")
        self.metrics.registry.register(Faults(lambda: self.parts.failures, logs.dropped))
        objects, reporter = self.reconciler.objects, owner_of(settings.node)
        self.sharer = StateSharer(cluster, settings.node, lambda: self._state() if self.status.known else None)
        self.recorder = Recorder(
            cluster, objects, reporter, self.metrics, on_entries=self._on_state, clock=time.monotonic
        )
        self.host = Host(release(), self._interfaces)
        self.status = StatusWriter(
            cluster,
            self.reconciler.objects,
            settings.node,
            leading=lambda: self.leader.leading,
            time_left=self.leader.remaining,
            now=_utc,
            clock=time.monotonic,
            meter=self.metrics,
            on_known=self._on_known,
        )
        self.http = HttpServer(
            settings.http_host,
            settings.http_port,
            ready=self.reconciler.waiting_for,
            state=self._state,
            registry=self.metrics.registry,
            record=self.recording.text,
            ask=partial(self.wire.ask, within=ASK_WITHIN),
        )

    async def run(self, stop: asyncio.Event) -> int:
        """Runs until ``stop`` is set or a part has ended, which should not happen: a part that fails runs again. Raises
        PorterError when another manager with the name of our node was there first."""
        await self.http.start()
        log.info("manager started", extra=fields(node=self.settings.node, cluster=self.settings.cluster))
        parts = {
            "pulse": self.pulse.run,
            "bgp": self.bgp.run,
            "layer2": self.wire.run,
            "bfd": self.bfd.run,
            "watch": self.reconciler.watch,
            "reconcile": self.reconciler.run,
            "passwords": self.passwords.run,
            "leader": self.leader.run,
            "membership": self._follow_members,
            "status": self.status.run,
            "proxy health": self.proxy_health.run,
            "proxy start": self.proxy_start.run,
            "node-failures": self.node_failures.run,
            "life-sign": self._show_life,
            "http": self.http.run,
            "recorder": self.recorder.run,
            "sharer": self.sharer.run,
            "host": self.host.run,
            "recording": self.recording.run,
        }
        tasks = [asyncio.create_task(self.parts.keep(name, part), name=name) for name, part in parts.items()]
        speaking = {task for task in tasks if task.get_name() == "layer2"}
        stopping = asyncio.create_task(stop.wait(), name="stop")
        usurped = asyncio.create_task(self._namesake.wait(), name="namesake")
        await asyncio.wait([*tasks, stopping, usurped], return_when=asyncio.FIRST_COMPLETED)
        ended = next((task for task in tasks if task.done()), None)
        if ended is not None:
            # A manager without one of its parts must not look alive.
            log.error("a part of the manager has ended", extra=fields(part=ended.get_name()))
        try:
            await self._hand_over(speaking)
        finally:
            for task in [*tasks, stopping, usurped]:
                task.cancel()
            await asyncio.gather(*tasks, stopping, usurped, return_exceptions=True)
        if self._namesake.is_set():
            node = self.settings.node
            raise PorterError(
                f"Another manager runs with the node name {node}, so this one ends.",
                "Give each manager the name of its own node with --node.",
            )
        return 0 if ended is None else 1

    async def _hand_over(self, wire: set[asyncio.Task[None]]) -> None:
        """The others first: they answer for our VIPs and announce our routes, then we stop and release the lease.

        If no other replica announces the same, the routes are left to graceful restart.
        """
        known = self.reconciler.known
        others = known is not None and known.others_announce
        log.info("stopping", extra=fields(handing_over=others))
        with contextlib.suppress(Exception):
            await self.wire.stop()
            await asyncio.wait(wire, timeout=3.0)
        if others:
            await asyncio.sleep(TAKE_OVER)
        with contextlib.suppress(Exception):
            await self.bfd.stop()  # before BGP ends: AdminDown leaves the routes to graceful restart
        with contextlib.suppress(Exception):
            await self.bgp.stop(withdraw=others)
        with contextlib.suppress(Exception):
            await self.leader.release()
        if not self._namesake.is_set():  # else the shared state is that of the other manager
            with contextlib.suppress(Exception):
                await self.sharer.stop()

    # Messages between the parts

    def _on_bgp(self, report: BgpReport) -> None:
        self.metrics.heard(report)
        self.reconciler.on_bgp(report)

    def _beat_bfd(self) -> None:
        """Beats only while ExaBGP runs: BFD must not keep the sessions up if ExaBGP is permanently gone."""
        if self.bgp.running:
            self.bfd.beat()

    def _on_wire(self, report: WireReport) -> None:
        self.reconciler.on_wire(report)
        self.node_failures.touch()
        self._wire_heard = time.monotonic()
        self._wire_news.set()
        self._describe_ourselves()

    def _on_leader(self) -> None:
        leader = self.settings.node if self.leader.leading else self.leader.leader
        # If the lease is in our name and we no longer certainly hold it, there is no leader.
        self.node_failures.touch()
        self.reconciler.on_leader("" if leader == self.settings.node and not self.leader.leading else leader)

    def _on_delivering(self, hops: frozenset[NewHop]) -> None:
        self.reconciler.on_delivering(hops)

    def _on_proxies(self, nodes: frozenset[str]) -> None:
        self.reconciler.on_proxies(nodes)

    def _on_pods_changed(self, what: What, node: str, pods: int) -> None:
        self.recorder.note(Entry(_utc(), what, node, detail=str(pods)))

    def _on_sign(self) -> None:
        self.node_failures.touch()

    def _node_addresses(self, name: str) -> tuple[Address, ...]:
        node = self.reconciler.objects.nodes.get(name)
        return node.addresses if node else ()

    def _node_address(self, name: str) -> Address | None:
        return next(iter(self._node_addresses(name)), None)

    def _on_members(self) -> None:
        self.reconciler.on_members(self.membership.members)

    def _on_lease(self, name: str, lease: Obj | None) -> None:
        if name == self.leader.name:
            self.leader.heard(lease)

    def _node_failure_look(self) -> Look | None:
        """What is known now about dead nodes. Nodes that no replica finds silent need no verdict."""
        if self.reconciler.waiting_for():
            return None
        inputs = self.reconciler.inputs
        report, nodes = inputs.wire_report, inputs.objects.nodes
        asked = frozenset(self.node_failures.stages).union(report.dead, report.votes) & nodes.keys()
        found = node_failure.verdicts(asked, report, self.settings.node)
        left, signs = self.leader.remaining(), self.life_signs.signs
        seen = node_failure.Seen(nodes, found, left, report.doubt, bool(inputs.outage), signs=signs)
        return Look(seen, inputs.objects.services.values())

    async def _show_life(self) -> None:
        """Writes signs of life to the API while the other replicas may consider our node dead."""
        if not self.settings.mark_pods_not_ready:
            await asyncio.Event().wait()
        while True:
            self._wire_news.clear()
            report, members = self.reconciler.inputs.wire_report, self.membership.members
            deaf = time.monotonic() - self._wire_heard > WIRE_REPORTS
            started = bool(report.nics)
            cut_off = started and node_failure.cut_off(self.settings.node, members, report, deaf=deaf)
            self.membership.sign(cut_off)
            if cut_off:
                await asyncio.sleep(node_failure.SIGN_EVERY)
                continue
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(WIRE_REPORTS):
                    await self._wire_news.wait()

    def _vanished(self) -> frozenset[str]:
        """The nodes whose replicas' Leases must be deleted now: the Node is gone, and no hello arrives from them."""
        known = self.reconciler.known
        if known is None or known.outage or not self.leader.leading:
            self._absence.clear()
            return frozenset()
        present = {self.settings.node, *known.snapshot.nodes, *known.wire.fresh}
        return self._absence.longer_gone(self.membership.members, present, time.monotonic())

    async def _follow_members(self) -> None:
        """Claims our node's name, and runs the membership once the address that it publishes is known."""
        if not self.reconciler.inputs.named:
            if not await self.membership.claim():
                await asyncio.Event().wait()  # the manager ends
            self.reconciler.on_named()
        await self._described.wait()
        await self.membership.run()

    def _before_plan(self) -> None:
        self.passwords.want(self.reconciler.objects.peers)
        self._describe_ourselves()

    def _describe_ourselves(self) -> None:
        """Publishes our hello address and interfaces to the other replicas, if they have changed."""
        report, objects, settings = self.reconciler.inputs.wire_report, self.reconciler.objects, self.settings
        node = objects.nodes.get(settings.node)
        address = settings.hello_address or next((str(a) for a in (node.addresses if node else ())), "")
        made_of = (report.nics, report.gateways, objects.eips)  # the same objects until one of them changes
        if address == self._made_of[0] and all(map(operator.is_, made_of, self._made_of[1:])):
            return
        self._made_of = (address, *made_of)
        if address and report.nics:
            named = {eip.interface for eip in objects.eips.values() if eip.interface}
            me = member_here(settings.node, address, settings.hello_port, report.nics, report.gateways, named)
            self.membership.describe(me)
            self._described.set()

    def _publish(self, known: Known, seconds: float) -> None:
        self.metrics.planned(seconds)
        self.metrics.api(up=not known.outage)
        self.bfd.want(known.plan.bgp.bfd)
        self.status.update(known)

    def _unplanned(self, known: Known, news: bool) -> None:
        self.status.update(known, news=news)

    def _on_known(self, known: Known, touched: Set[Address]) -> None:
        self.recorder.observe(known, touched)
        self._on_state()

    def _on_state(self) -> None:
        """Notes that what /state shows may have changed."""
        self.sharer.changed()
        self.http.changed()

    def _state(self) -> Callable[[], Mapping[str, Any]]:
        """Captures what is known now. The function that it returns makes the JSON values, in any thread: the captured
        values never change."""
        known = self.status.known
        if known is None:
            return partial(_waiting, self.reconciler.waiting_for())
        more = {"nodeFailures": self.node_failures.state(), "host": self.host.state(), "clock": round(time.time(), 3)}
        return partial(_whole_state, known, self.recorder.history, time.monotonic(), more)

    def _interfaces(self) -> list[str]:
        """The interfaces with an address of a subnet: those of pods have none."""
        nics = self.reconciler.inputs.wire_report.nics
        return [nic.name for nic in nics if any(a.network.prefixlen < a.max_prefixlen for a in nic.addresses)]
