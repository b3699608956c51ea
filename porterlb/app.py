"""Composition root of the manager: the only place that names concrete edges."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from prometheus_client import CollectorRegistry

from porterlb import logs, stop_signal
from porterlb.capabilities import Capability, keep_only
from porterlb.cluster import Cluster
from porterlb.collector import collect_seldom
from porterlb.core import node_failure
from porterlb.core.ebpf import USER_SPACE
from porterlb.core.lease import Timing
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
from porterlb.edge.node_failure import NodeFailures
from porterlb.edge.passwords import Passwords
from porterlb.edge.proxy_health import ProxyHealth
from porterlb.edge.proxy_start import ProxyStart
from porterlb.edge.recorder import Recorder
from porterlb.edge.recording import Recording
from porterlb.edge.state_sharer import StateSharer
from porterlb.edge.status import StatusWriter
from porterlb.errors import PorterError
from porterlb.first_answer import FirstAnswer
from porterlb.logs import fields
from porterlb.messages import Messages, waiting
from porterlb.open_cluster import open_cluster
from porterlb.presence import Presence
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

FIRST_SESSIONS = 10.0
"""Seconds from the start until a manager that is told to stop no longer waits for its sessions. If its predecessor was
killed, routers keep the predecessor's routes for the restart time, also those to a node that dies meanwhile. They drop
them when a new session ends."""

ASK_WITHIN = 2.5
"""Seconds for an inquiry about the segment: it takes about 1 s, and waits for the previous one."""

STUCK_AFTER = 30.0
"""Seconds without a turn of the event loop after which the manager counts as hung: its speakers go silent
``silence_after`` later. Planning yields every few milliseconds; no other work on the loop takes a tenth of this."""


def run(settings: Settings) -> int:
    """Runs the manager until SIGTERM or SIGINT; returns the exit code. Raises PorterError when it cannot start."""
    # For its child processes: the wire process needs raw sockets, its loader eBPF, ExaBGP may need a port below 1024.
    # We need none.
    for_loader = (Capability.BPF, Capability.NET_ADMIN) if settings.answers != USER_SPACE else ()
    keep_only(Capability.NET_RAW, Capability.NET_BIND_SERVICE, *for_loader, in_reserve=True)
    collect_seldom()
    return asyncio.run(_run(settings))


async def _run(settings: Settings) -> int:
    stop = asyncio.Event()
    stop_signal.follow(stop, asyncio.get_running_loop())
    cluster = open_cluster(
        settings.cluster, namespace=settings.namespace, kubeconfig=settings.kubeconfig, context=settings.context
    )
    with workplace() as folder:
        try:
            key = await _first_answer(settings, cluster, stop)
            if key is None:
                return 0
            manager = Manager(settings, cluster, key, folder)
            return await manager.run(stop)
        finally:
            await cluster.close()


async def _first_answer(settings: Settings, cluster: Cluster, stop: asyncio.Event) -> bytes | None:
    """The key of the hellos; None when told to stop. Meanwhile /readyz says what we wait for."""
    answer = FirstAnswer(cluster, settings.cluster)
    http = HttpServer(
        settings.http_host,
        settings.http_port,
        ready=lambda: answer.why,
        state=lambda: partial(waiting, answer.why),
        registry=CollectorRegistry(),
    )
    try:
        await http.start()
        return await answer.key(stop)
    finally:
        await http.stop()


def _utc() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


class Manager:
    """Connects the edges, starts them, and ends them in order."""

    def __init__(self, settings: Settings, cluster: Cluster, key: bytes, folder: Path) -> None:
        self.settings = settings
        self.parts = Supervisor()
        self._namesake = asyncio.Event()
        contained = self.parts.contained
        self.messages = told = Messages(self, _utc)
        self.recording = Recording(settings, release(), lambda within: self.wire.recording(within))  # noqa: PLW0108
        self.bgp = BgpSpeaker(
            contained("bgp", told.on_bgp), run_dir=folder / "bgp", silence_after=settings.silence_after
        )
        self.wire = Layer2Speaker(
            contained("layer2", told.on_wire), settings=settings, key=key, recorded=self.recording.streamed
        )
        self.bfd = BfdSpeaker(contained("bfd", self.bgp.hear_bfd), settings=settings)
        self.pulse = Pulse([self.bgp.beat, self.wire.beat, told.beat_bfd], STUCK_AFTER)
        self.proxy_health = ProxyHealth(told.node_address, contained("proxy health", told.on_delivering))
        self.proxy_start = ProxyStart(settings.node, told.node_addresses, contained("proxy start", told.on_proxies))
        self.reconciler = Reconciler(
            settings,
            cluster,
            self.bgp,
            self.wire,
            contained("status", told.publish),
            contained("status", told.unplanned),
            contained("reconcile", told.before_plan),
            self.proxy_health.ask,
            self.proxy_start.ask,
            log=self.recording.log,
        )
        self.passwords = Passwords(cluster, self.reconciler.on_passwords)
        timing = Timing(settings.lease_duration, settings.lease_renew_deadline, settings.lease_retry)
        self.leader = Leader(cluster, settings.node, timing, on_change=contained("leader", told.on_leader))
        self.life_signs = LifeSigns(told.node_addresses, contained("life-signs", told.on_sign))
        self.membership = Membership(
            cluster,
            settings.node,
            "",
            settings.hello_port,
            on_change=contained("membership", told.on_members),
            vanished=told.vanished,
            on_lease=contained("leader", told.on_lease),
            on_sign=contained("membership", self.life_signs.heard),
            supervise=self.parts.keep,
            on_challenge=contained("membership", self.reconciler.on_challenge),
            on_end=self._namesake.set,
        )
        self.presence = Presence(settings, self.membership, self.reconciler)
        self.node_failures = NodeFailures(
            cluster,
            settings.node,
            node_failure.Rules(settings.mark_pods_not_ready, again_after=settings.mark_again_after),
            told.dead_nodes,
            ask=self.life_signs.ask,
            on_done=told.on_pods_changed,
            on_bounded=self.reconciler.on_bounded,
            on_change=told.on_marked,
        )
        self.metrics = Metrics(lambda: self.status.known, time.monotonic, rebalances=settings.rebalance == "auto")
        self.metrics.registry.register(Faults(lambda: self.parts.failures, logs.dropped))
        objects, reporter = self.reconciler.objects, owner_of(settings.node)
        self.sharer = StateSharer(cluster, settings.node, lambda: told.state() if self.status.known else None)
        self.recorder = Recorder(
            cluster, objects, reporter, self.metrics, on_entries=told.on_state, clock=time.monotonic
        )
        self.host = Host(release(), told.interfaces)
        self.status = StatusWriter(
            cluster,
            self.reconciler.objects,
            settings.node,
            leading=lambda: self.leader.leading,
            time_left=self.leader.remaining,
            now=_utc,
            clock=time.monotonic,
            meter=self.metrics,
            on_known=told.on_known,
        )
        self.http = HttpServer(
            settings.http_host,
            settings.http_port,
            ready=self.reconciler.waiting_for,
            state=told.state,
            registry=self.metrics.registry,
            record=self.recording.text,
            ask=partial(self.wire.ask, within=ASK_WITHIN),
        )

    async def run(self, stop: asyncio.Event) -> int:
        """Runs until ``stop`` is set or a part has ended, which should not happen: a part that fails runs again. Raises
        PorterError when another manager with the name of our node was there first."""
        started = time.monotonic()
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
            "membership": self.presence.follow,
            "status": self.status.run,
            "proxy health": self.proxy_health.run,
            "proxy start": self.proxy_start.run,
            "node-failures": self.node_failures.run,
            "life-sign": self.presence.show_life,
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
        if stopping.done():
            await self._first_sessions(started + FIRST_SESSIONS)
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

    async def _first_sessions(self, until: float) -> None:
        """Waits until our sessions are up, and those of another replica. ``until``: monotonic seconds."""
        told = False
        while time.monotonic() < until and not self._namesake.is_set():
            known = self.reconciler.known
            if known is not None and known.all_sessions_up and (known.others_announce or not known.wire.fresh):
                return
            if not told:
                log.info("told to stop as it starts: waits for its sessions, to end them in order")
                told = True
            await asyncio.sleep(0.05)

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
