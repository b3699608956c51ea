"""Writes what is to be read: status and Events. Level-triggered and coalesced.

:meth:`StatusWriter.update` says what is known; the writer works out what the cluster does not have yet and sends
puts that into its :class:`~porterlb.edge.status.outbox.Outbox`, which sends it.
"""

from __future__ import annotations

import asyncio
import logging
import operator
from collections.abc import Callable, Mapping, Sequence, Set
from dataclasses import replace
from functools import partial
from typing import NamedTuple

from porterlb.cluster import Cluster
from porterlb.core.known import Known
from porterlb.core.model import Address, ServiceKey
from porterlb.core.objects import ObjectKey, Objects
from porterlb.core.served import Served
from porterlb.core.status.build import at_a_nodes_death
from porterlb.core.status.peer import entries
from porterlb.core.status.serving import Acknowledged, WireView
from porterlb.core.status.writes import (
    Write,
    context_writes,
    losses_of,
    owner_of,
    release,
    removal,
    service_write,
    status_of,
    taking,
)
from porterlb.edge.status.outbox import Meter, Outbox
from porterlb.logs import fields

log = logging.getLogger(__name__)

GONE_AFTER = 10.0  # seconds without a hello until the sessions of a replica are taken out of the BgpPeers
LOOK_AGAIN = 5.0  # seconds until a look that failed is repeated
LONGEST_REST = 0.5  # seconds, at most, between two looks, each of which rests as long as it took
BATCH = 100  # VIPs or Services between two looks at the event loop


class _Looked(NamedTuple):
    """What was to be written for a Service when it was looked at last, and what that was worked out from."""

    inputs: tuple[object, ...]
    writes: Sequence[Write]

    def still(self, inputs: tuple[object, ...]) -> bool:
        return len(self.inputs) == len(inputs) and all(map(operator.is_, self.inputs, inputs))


class StatusWriter:
    """The writer of one replica; :meth:`run` is its task.

    Args:
        objects: what the cluster is known to have, kept up to date by its owner.
        leading: whether this replica leads, now.
        time_left: seconds for which the lease is certainly ours, now.
        now: the time as RFC 3339 text; clock: monotonic seconds.
        on_known: called at each look with what is known, once it is worked out what is on the wire, and with the VIPs
            that are brought in differently than at the last look.
        interval: the least time between two looks at everything (seconds): bursts become one.
        concurrency: writes at once.
    """

    def __init__(
        self,
        cluster: Cluster,
        objects: Objects,
        node: str,
        *,
        leading: Callable[[], bool],
        time_left: Callable[[], float],
        now: Callable[[], str],
        clock: Callable[[], float],
        meter: Meter | None = None,
        on_known: Callable[[Known, Set[Address]], None] = lambda known, touched: None,
        interval: float = 0.1,
        concurrency: int = 16,
    ) -> None:
        self._objects = objects
        self._node = node
        self._leading = leading
        self._now = now
        self._clock = clock
        self._meter = meter
        self._on_known = on_known
        self._interval = interval
        self._outbox = Outbox(
            cluster,
            objects,
            node,
            leading=leading,
            time_left=time_left,
            clock=clock,
            meter=meter,
            interval=interval,
            concurrency=concurrency,
        )
        self._wire = WireView()
        self._latest: Known | None = None
        self._acknowledged = Acknowledged()
        self._on_wire: Mapping[Address, Served] = {}
        self._news = asyncio.Event()
        self._silent_since: dict[str, float] = {}
        self._taken: set[tuple[ObjectKey, str]] = set()  # object and node
        self._memo: dict[ServiceKey, _Looked] = {}
        self._common: object = None

    def update(self, known: Known) -> None:
        """What is known now; how VIPs are brought in is worked out here."""
        self._acknowledged = self._acknowledged.updated(known)
        self._latest = known
        self._news.set()

    @property
    def known(self) -> Known | None:
        """What is known now, with what was on the wire at the last look."""
        if self._latest is None:
            return None
        return replace(self._latest, now=self._now(), leading=self._leading(), on_wire=self._on_wire)

    async def run(self) -> None:
        """For ever: looks whenever there is news, and sends."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._outbox.run(), name="status-outbox")
            while True:
                try:
                    # Not wait_for: that of Python 3.11 swallows a cancellation that comes together with the news.
                    async with asyncio.timeout(GONE_AFTER / 2):
                        await self._news.wait()
                except TimeoutError:
                    self._tidy()
                    continue
                self._news.clear()
                begun = self._clock()
                try:
                    await self._look()
                except Exception:
                    # What is told must never take down what serves: every replica would meet the same object.
                    log.exception("The status cannot be computed. Announcements and answers are not affected.")
                    # What was noted as looked at was perhaps not: the next look is at everything.
                    self._wire, self._memo = WireView(), {}
                    await asyncio.sleep(LOOK_AGAIN)
                    self._news.set()
                    # In a burst half of the time is for sending.
                await asyncio.sleep(max(self._interval, min(LONGEST_REST, self._clock() - begun)))

    # --- what is to be written

    async def _look(self) -> None:
        latest, acknowledged = self._latest, self._acknowledged
        if latest is None:
            return
        leading = self._leading()
        touched: set[Address] = set()
        for number, address in enumerate(self._wire.outdated(latest)):
            if self._wire.look(address, latest, acknowledged):
                touched.add(address)
            if number % BATCH == BATCH - 1:
                await asyncio.sleep(0)
        peers = [(key.name, self._outbox.have(key) or obj) for key, obj in self._objects.all_raw("BgpPeer").items()]
        losses = losses_of(latest, peers)
        known = replace(
            latest,
            now=self._now(),
            leading=leading,
            on_wire=self._wire.done(),
            losses=losses,
            rewriters=self._outbox.rewriters,
        )
        self._on_wire = known.on_wire
        if self._meter:
            self._meter.saw(known)
        self._on_known(known, touched)
        writes: list[Write] = []
        if leading:
            writes += await self._service_writes(known, touched)
        else:
            self._memo = {}
        names = [key for kind in ("Eip", "BgpPeer", "BgpConf") for key in self._objects.all_raw(kind)]
        for key in names:
            work = partial(context_writes, known, key, self._outbox.have, leading=leading)
            writes += self._only(key, work)
        again = self._outbox.want(writes)
        if again is not None:
            asyncio.get_running_loop().call_later(again, self._news.set)
        self._tidy()

    async def _service_writes(self, known: Known, touched: set[Address]) -> list[Write]:
        """Looks at the Services for which something is new: themselves, their VIPs, or what all of them speak of."""
        plan, services = known.plan, known.snapshot.services
        up = {peer: session.up for peer, session in known.bgp.sessions.items()}
        fresh = {name: said.sessions for name, said in known.wire.fresh.items()}
        common = (known.losses, known.bgp.trouble, up, fresh)
        same, self._common = common == self._common, common
        found: list[Write] = []
        memo: dict[ServiceKey, _Looked] = {}
        for number, (object_key, raw) in enumerate(list(self._objects.all_raw("Service").items())):
            if number % BATCH == BATCH - 1:
                await asyncio.sleep(0)
            key = ServiceKey(object_key.namespace, object_key.name)
            service, have = services.get(key), self._outbox.have(object_key) or raw
            addresses = known.addresses_of(key)
            if service is None and not known.problems_of("Service", *key):
                writes = self._only(object_key, partial(release, object_key, have))
            else:
                vips = tuple(plan.vips.get(address) for address in addresses)
                generation = known.generation_of("Service", *key)
                inputs: tuple[object, ...] = (have, service, generation, plan.services.get(key), addresses)
                inputs += (known.rewriters.get(key), at_a_nodes_death(known, key), *vips)
                looked = self._memo.get(key) if same and touched.isdisjoint(addresses) else None
                if looked is None or not looked.still(inputs):
                    work = partial(service_write, known, key, self._outbox.have)
                    looked = _Looked(inputs, self._only(object_key, work))
                memo[key] = looked
                writes = looked.writes
            found += writes
        self._memo = memo
        return found

    @staticmethod
    def _only(key: ObjectKey, work: Callable[[], Write | Sequence[Write] | None]) -> Sequence[Write]:
        """The writes for one object; none where they cannot be worked out, which must not stop those for others."""
        try:
            found = work()
        except Exception:
            log.exception("The status of one object cannot be computed.", extra=fields(object=str(key)))
            return ()
        return found if isinstance(found, Sequence) else (found,) if found else ()

    def _tidy(self) -> None:
        """The leader takes out the sessions of nodes that have vanished, and of replicas that are silent for long."""
        known, now = self._latest, self._clock()
        if known is None or not self._leading():
            self._silent_since.clear()
            return
        live = known.live
        named: set[str] = set()
        for key in self._objects.all_raw("BgpPeer"):
            obj = self._outbox.have(key)
            for node in entries(status_of(obj or {})):
                if node in live:
                    continue
                named.add(node)
                since = self._silent_since.setdefault(node, now)
                vanished = bool(known.snapshot.nodes) and node not in known.snapshot.nodes
                if (vanished or now - since >= GONE_AFTER) and (write := self._way_out(key, node)):
                    self._outbox.add(write)
        for node in live:
            self._silent_since.pop(node, None)
            if node != self._node:
                # It is back and writes itself: should it go once more, its entries are ours to remove again.
                self._outbox.forget(owner_of(node))
        for node in self._silent_since.keys() - named:
            del self._silent_since[node]
        self._taken = {(key, node) for key, node in self._taken if node in named}

    def _way_out(self, key: ObjectKey, node: str) -> Write | None:
        """What takes out the entry of a node: its owner gives it up; if that does not help, it is not that owner's
        (somebody has written it by hand), so it is made the owner's first. Once: not every cluster lets us."""
        sent, taken = self._outbox.sent(key, owner_of(node)), (key, node) in self._taken
        if sent is None or (taken and sent):
            return removal(key, node)
        if taken:
            return None
        self._taken.add((key, node))
        return taking(key, node)
