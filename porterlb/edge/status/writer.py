"""Writes status and Events. Level-triggered and coalesced.

:meth:`StatusWriter.update` takes what is known. The writer computes what the cluster does not have yet and puts that
into its :class:`~porterlb.edge.status.outbox.Outbox`, which sends it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence, Set
from dataclasses import replace
from functools import partial
from typing import NamedTuple

from porterlb.cluster import Cluster
from porterlb.core.known import Known
from porterlb.core.model import Address, ServiceKey
from porterlb.core.objects import ObjectKey, Objects
from porterlb.core.pace import Pace
from porterlb.core.persistent import differing
from porterlb.core.served import Served
from porterlb.core.status import outdated
from porterlb.core.status.reading import entries, status_of
from porterlb.core.status.serving import Acknowledged, WireView
from porterlb.core.status.writes import (
    StatusWrite,
    context_writes,
    losses_of,
    owner_of,
    release,
    removal,
    service_write,
    taking,
)
from porterlb.edge.status.outbox import Meter, Outbox
from porterlb.logs import fields

log = logging.getLogger(__name__)

GONE_AFTER = 10.0  # seconds without a hello until the sessions of a replica are removed from the BgpPeers
LOOK_AGAIN = 5.0  # seconds until a failed pass is repeated
PASSES_AT_ONCE = 5  # without a pause: for a new address, for its route, and for what the other replicas do
LONGEST_REST = 2.0  # seconds, at most, between two passes; each pass is followed by a pause of its own length
STEP = 0.005  # seconds of a pass after which other tasks of the event loop get a turn: routes wait for them


class _Looked(NamedTuple):
    """The writes that an object needed when it was last examined, and the object as it was then."""

    have: object
    writes: Sequence[StatusWrite]


class StatusWriter:
    """The writer of one replica; :meth:`run` is its task.

    Args:
        objects: the objects that the cluster is known to have, kept up to date by their owner.
        leading: returns whether this replica leads now.
        time_left: returns the seconds for which we certainly hold the lease.
        now: the time as RFC 3339 text; clock: monotonic seconds.
        on_known: called at each pass, once it is computed what is on the wire, with what is known and with the VIPs
            that are served differently than at the last pass.
        interval: seconds between two passes in a burst; single changes and what follows from them do not wait.
        concurrency: simultaneous writes.
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
        self._pace = Pace(PASSES_AT_ONCE, interval)
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
            again=self._look_in,
        )
        self._wire = WireView()
        self._latest: Known | None = None
        self._acknowledged = Acknowledged()
        self._on_wire: Mapping[Address, Served] = {}
        self._losses: Mapping[str, Mapping[str, str]] = {}
        self._news = asyncio.Event()
        self._turned = 0.0  # when other tasks last had a turn during a pass
        self._silent_since: dict[str, float] = {}
        self._taken: set[tuple[ObjectKey, str]] = set()  # object and node
        self._pending: dict[ObjectKey, _Looked] = {}  # Services and Eips that need a write
        self._looked: Known | None = None  # at the last pass, as the leader
        self._raw: Mapping[str, Mapping[ObjectKey, object]] = {}  # by kind, at the last pass

    def update(self, known: Known, *, news: bool = True) -> None:
        """Takes what is known now; how VIPs are served is computed here.

        ``news``: whether a status may have changed; otherwise only counters are newer.
        """
        self._latest = known
        if news:
            self._acknowledged = self._acknowledged.updated(known)
            self._news.set()

    def _look_in(self, seconds: float) -> None:
        asyncio.get_running_loop().call_later(seconds, self._news.set)

    @property
    def known(self) -> Known | None:
        """What is known now, with what was on the wire and why sessions were lost at the last pass."""
        if self._latest is None:
            return None
        now, leading = self._now(), self._leading()
        return replace(self._latest, now=now, leading=leading, on_wire=self._on_wire, losses=self._losses)

    async def run(self) -> None:
        """Makes a pass whenever there is news, and sends, until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._outbox.run(), name="status-outbox")
            while True:
                try:
                    # Not wait_for: in Python 3.11 it swallows a cancellation that arrives together with the news.
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
                    # A failure to report must never stop the service: every replica would meet the same object.
                    log.exception("The status cannot be computed. Announcements and answers are not affected.")
                    # The pass was possibly incomplete: the next one examines everything.
                    self._wire, self._looked = WireView(), None
                    await asyncio.sleep(LOOK_AGAIN)
                    self._news.set()
                ended = self._clock()
                self._pace.took(ended)
                # In a burst, half of the time is left for sending.
                await asyncio.sleep(max(self._pace.wait(ended), min(LONGEST_REST, ended - begun)))

    # --- computing the writes

    async def _look(self) -> None:
        latest, acknowledged = self._latest, self._acknowledged
        if latest is None:
            return
        leading = self._leading()
        touched: set[Address] = set()
        for address in self._wire.outdated(latest):
            if self._wire.look(address, latest, acknowledged):
                touched.add(address)
            await self._yield_in_time()
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
        self._on_wire, self._losses = known.on_wire, losses
        if self._meter:
            self._meter.saw(known)
        self._on_known(known, touched)
        if not leading:
            self._looked, self._pending = None, {}
        else:
            await self._look_at(known)
        writes = [write for looked in self._pending.values() for write in looked.writes]
        for key in [key for kind in ("BgpPeer", "BgpConf") for key in self._objects.all_raw(kind)]:
            work = partial(context_writes, known, key, self._outbox.have, leading=leading)
            writes += self._only(key, work)
        again = self._outbox.want(writes)
        if again is not None:
            self._look_in(again)
        self._tidy()

    async def _look_at(self, known: Known) -> None:
        """Computes the writes for the Services and Eips for which anything is new."""
        before, raw = self._looked, {kind: self._objects.all_raw(kind) for kind in ("Service", "Eip")}
        services, eips = outdated.services(before, known), outdated.eips(before, known)
        keys: set[ObjectKey] = set(raw["Service"]) if services is None else {ObjectKey("Service", *k) for k in services}
        keys.update(raw["Eip"] if eips is None else (ObjectKey("Eip", "", name) for name in eips))
        for kind, objects in raw.items():
            keys |= differing(self._raw.get(kind, {}), objects)
        # Also objects with pending writes that have changed since the last pass.
        keys |= {key for key, looked in self._pending.items() if looked.have is not self._outbox.have(key)}
        self._looked = None  # until all of them have been examined
        for key in sorted(keys):
            writes = self._writes(known, key) if key in raw[key.kind] else ()
            if writes:
                self._pending[key] = _Looked(self._outbox.have(key), writes)
            else:
                self._pending.pop(key, None)
            await self._yield_in_time()
        self._looked, self._raw = known, raw

    async def _yield_in_time(self) -> None:
        """Gives other tasks of the event loop a turn if they have had none for STEP."""
        if self._clock() - self._turned > STEP:
            await asyncio.sleep(0)
            self._turned = self._clock()

    def _writes(self, known: Known, key: ObjectKey) -> Sequence[StatusWrite]:
        have = self._outbox.have
        if key.kind == "Eip":
            return self._only(key, partial(context_writes, known, key, have, leading=True))
        name = ServiceKey(key.namespace, key.name)
        if name in known.snapshot.services or known.problems_of("Service", *name):
            return self._only(key, partial(service_write, known, name, have, self._objects.version_of))
        obj = have(key)
        return self._only(key, partial(release, key, obj)) if obj is not None else ()

    @staticmethod
    def _only(key: ObjectKey, work: Callable[[], StatusWrite | Sequence[StatusWrite] | None]) -> Sequence[StatusWrite]:
        """The writes for one object; none if they cannot be computed, which must not stop those for others."""
        try:
            found = work()
        except Exception:
            log.exception("The status of one object cannot be computed.", extra=fields(object=str(key)))
            return ()
        return found if isinstance(found, Sequence) else (found,) if found else ()

    def _tidy(self) -> None:
        """As the leader, removes the sessions of nodes that have vanished and of replicas that are silent for long."""
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
                # It is back and writes its own entries. If it goes again, we must remove them again.
                self._outbox.forget(owner_of(node))
        for node in self._silent_since.keys() - named:
            del self._silent_since[node]
        self._taken = {(key, node) for key, node in self._taken if node in named}

    def _way_out(self, key: ObjectKey, node: str) -> StatusWrite | None:
        """The write that removes the entry of a node: its owner gives it up. If that does not help, a person has
        written the entry: then the owner takes it over first. Once only: not every cluster allows that."""
        sent, taken = self._outbox.sent(key, owner_of(node)), (key, node) in self._taken
        if sent is None or (taken and sent):
            return removal(key, node)
        if taken:
            return None
        self._taken.add((key, node))
        return taking(key, node)
