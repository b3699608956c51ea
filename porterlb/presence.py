"""What this replica publishes about itself through the API: its name, its address and interfaces, signs of life."""

from __future__ import annotations

import asyncio
import contextlib
import operator
import time
from typing import TYPE_CHECKING

from porterlb.core import node_failure
from porterlb.core.bgp.overrides import peer_interfaces
from porterlb.core.membership import member_here
from porterlb.settings import Settings

if TYPE_CHECKING:
    from porterlb.edge.membership import Membership
    from porterlb.reconcile import Reconciler

WIRE_REPORTS = 1.5
"""Seconds without a report of the wire process after which it counts as stopped: it sends its counters each second."""


class Presence:
    def __init__(self, settings: Settings, membership: Membership, reconciler: Reconciler) -> None:
        self._settings = settings
        self._membership = membership
        self._reconciler = reconciler
        self._made_of: tuple[object, ...] = ("",)  # what we last described ourselves from
        self._described = asyncio.Event()
        self._wire_news = asyncio.Event()
        self._wire_heard = 0.0

    def on_wire(self) -> None:
        """The wire process has sent a report."""
        self._wire_heard = time.monotonic()
        self._wire_news.set()
        self.describe()

    def describe(self) -> None:
        """Publishes our hello address and interfaces to the other replicas, if they have changed."""
        report, objects, settings = self._reconciler.inputs.wire_report, self._reconciler.objects, self._settings
        node = objects.nodes.get(settings.node)
        address = settings.hello_address or next((str(a) for a in (node.addresses if node else ())), "")
        # The same objects until one of them changes:
        made_of = (report.nics, report.gateways, report.routers, objects.eips, objects.peers)
        if address == self._made_of[0] and all(map(operator.is_, made_of, self._made_of[1:])):
            return
        self._made_of = (address, *made_of)
        if address and report.nics:
            named = {eip.interface for eip in objects.eips.values() if eip.interface}
            listed = {name for eip in objects.eips.values() for name in eip.layer2.interfaces}
            listed.update(peer_interfaces(objects.peers.values(), report.gateways))
            me = member_here(
                settings.node,
                address,
                settings.hello_port,
                report.nics,
                report.gateways,
                named,
                listed,
                report.routers,
            )
            self._membership.describe(me)
            self._described.set()

    async def follow(self) -> None:
        """Claims our node's name, and runs the membership once the address that it publishes is known."""
        if not self._reconciler.inputs.named:
            if not await self._membership.claim():
                await asyncio.Event().wait()  # the manager ends
            self._reconciler.on_named()
        await self._described.wait()
        await self._membership.run()

    async def show_life(self) -> None:
        """Writes signs of life to the API while the other replicas may consider our node dead."""
        if not self._settings.mark_pods_not_ready:
            await asyncio.Event().wait()
        while True:
            self._wire_news.clear()
            report, members = self._reconciler.inputs.wire_report, self._membership.members
            deaf = time.monotonic() - self._wire_heard > WIRE_REPORTS
            started = bool(report.nics)
            cut_off = started and node_failure.cut_off(self._settings.node, members, report, deaf=deaf)
            self._membership.sign(cut_off)
            if cut_off:
                await asyncio.sleep(node_failure.SIGN_EVERY)
                continue
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(WIRE_REPORTS):
                    await self._wire_news.wait()
