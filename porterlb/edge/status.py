"""Writes what is to be read: status, the Layer 2 annotation, Events. Level-triggered and coalesced.

:meth:`StatusWriter.update` says what is known; the writer works out what the cluster does not have yet and sends
that, newest first known, up to ``concurrency`` at once. Leadership is checked again at the moment of sending, and
every write ends within what is left of the lease.
"""

from __future__ import annotations

import asyncio
import logging
import operator
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

from porterlb.cluster import Cluster, Conflict, Denied, Kind, Unavailable
from porterlb.core.model import Address, ServiceKey, Snapshot
from porterlb.core.objects import ObjectKey, Objects
from porterlb.core.plan import Plan
from porterlb.core.status.build import Situation
from porterlb.core.status.notices import Notice
from porterlb.core.status.peer import entries
from porterlb.core.status.serving import Acknowledged, Seen, Served, WireView
from porterlb.core.status.writes import (
    LEADER,
    Write,
    context_writes,
    losses_of,
    owner_of,
    release,
    removal,
    service_write,
    status_of,
    taking,
    version_of,
)
from porterlb.logs import fields

log = logging.getLogger(__name__)

PIN = "layer2.porter.kubesphere.io/v1alpha1"
"""The annotation of a Service that holds its Layer 2 next hop."""

WRITE_DEADLINE = 2.0  # seconds; a healthy API server answers in milliseconds
LEAST_LEASE = 0.05  # seconds: with less left, an answer could not come in time
DENIED_FOR = (1.0, 2.0, 5.0, 15.0, 60.0)  # seconds until what was refused is tried again: an API server that has just
# started knows nobody's rights yet
GONE_WITHIN = 0.1  # seconds that the watch may need to tell that an object is gone
GONE_AFTER = 10.0  # seconds without a hello until the sessions of a replica are taken out of the BgpPeers
BACK_OFF = (0.2, 0.5, 1.0, 2.0, 5.0)  # seconds between attempts while the API is away
LOOK_AGAIN = 5.0  # seconds until a look that failed is repeated
LONGEST_REST = 0.5  # seconds, at most, between two looks, each of which rests as long as it took
COUNTS_EVERY = 1.0  # seconds between two writes that only change counts
BATCH = 100  # VIPs or Services between two looks at the event loop

_KINDS = {kind.kind: kind for kind in Kind}


class Meter(Protocol):
    """Who counts. See :class:`porterlb.edge.metrics.Metrics`."""

    def wrote(self, kind: str, result: str) -> None: ...

    def told(self, kind: str, notice: Notice) -> None: ...

    def saw(self, plan: Plan, on_wire: Mapping[Address, Served]) -> None: ...


@dataclass(frozen=True, slots=True)
class _Known:
    """What :meth:`StatusWriter.update` was told last."""

    snapshot: Snapshot
    plan: Plan
    seen: Seen
    acknowledged: Acknowledged
    assigned: Mapping[ServiceKey, tuple[Address, ...]]


@dataclass(frozen=True, slots=True)
class _Written:
    """``before``: the object as it was known when we wrote; ``sent``: our status; ``result``: what came back.

    ``earlier``: the versions that were there before it, as far as we know them: older, when the watch brings them.
    """

    before: Mapping[str, Any]
    sent: Mapping[str, Any]
    result: Mapping[str, Any]
    at: float  # when, by our clock
    earlier: tuple[str, ...] = ()


EARLIER = 8
"""So many of our own versions are known again: the watch is hardly ever as far behind as that."""


_Slot = tuple[ObjectKey, str]
"""What one write is about: two owners may write to one object."""


class StatusWriter:
    """The writer of one replica; :meth:`run` is its task.

    Args:
        objects: what the cluster is known to have, kept up to date by its owner.
        leading: whether this replica leads, now.
        time_left: seconds for which the lease is certainly ours, now.
        now: the time as RFC 3339 text; clock: monotonic seconds.
        interval: the least time between two looks at everything (seconds): bursts become one.
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
        interval: float = 0.1,
        concurrency: int = 16,
    ) -> None:
        self._cluster = cluster
        self._objects = objects
        self._node = node
        self._leading = leading
        self._time_left = time_left
        self._now = now
        self._clock = clock
        self._meter = meter
        self._interval = interval
        self._concurrency = concurrency
        self._wire = WireView()
        self._known: _Known | None = None
        self._news = asyncio.Event()
        self._work = asyncio.Event()
        self._todo: dict[_Slot, Write] = {}
        self._pins: dict[ServiceKey, str] = {}
        self._busy: set[_Slot] = set()
        self._written: dict[_Slot, _Written] = {}
        self._latest: dict[ObjectKey, _Written] = {}
        self._stale: dict[_Slot, str] = {}  # the version on which a write met a Conflict
        self._denied: dict[_Slot, tuple[int, float]] = {}  # how often in a row, and not before when
        self._silent_since: dict[str, float] = {}
        self._taken: set[_Slot] = set()
        self._failures = 0
        self._memo: dict[ServiceKey, tuple[object, ...]] = {}
        self._common: object = None
        self._looking = False

    def update(
        self,
        snapshot: Snapshot,
        plan: Plan,
        seen: Seen,
        assigned: Mapping[ServiceKey, tuple[Address, ...]] | None = None,
    ) -> None:
        """What is known now. ``assigned``: addresses to be written where they are not those of the plan."""
        before = self._known.acknowledged if self._known else Acknowledged()
        self._known = _Known(snapshot, plan, seen, before.updated(plan, seen), assigned or {})
        self._news.set()

    @property
    def on_wire(self) -> Mapping[Address, Served]:
        """How every VIP was brought in when we looked last."""
        return self._wire.on_wire

    @property
    def idle(self) -> bool:
        """Whether all that was known has been written (or cannot be)."""
        return not (self._news.is_set() or self._looking or self._todo or self._pins or self._busy)

    async def run(self) -> None:
        """For ever: looks whenever there is news, and sends."""
        async with asyncio.TaskGroup() as group:
            for number in range(self._concurrency):
                group.create_task(self._send_all(), name=f"status-{number}")
            while True:
                try:
                    await asyncio.wait_for(self._news.wait(), GONE_AFTER / 2)
                except TimeoutError:
                    self._tidy()
                    continue
                self._news.clear()
                self._looking = True
                begun = self._clock()
                try:
                    await self._look()
                except Exception:
                    # What is told must never take down what serves: every replica would meet the same object.
                    log.exception("The status cannot be worked out; what is on the wire is not touched.")
                    # What was noted as looked at was perhaps not: the next look is at everything.
                    self._wire, self._memo = WireView(), {}
                    await asyncio.sleep(LOOK_AGAIN)
                    self._news.set()
                self._looking = False
                # In a burst half of the time is for sending.
                await asyncio.sleep(max(self._interval, min(LONGEST_REST, self._clock() - begun)))

    # --- what is to be written

    async def _look(self) -> None:
        known = self._known
        if known is None:
            return
        leading = self._leading()
        touched: set[Address] = set()
        for number, address in enumerate(self._wire.outdated(known.plan, known.seen)):
            if self._wire.look(address, known.plan, known.seen, known.acknowledged):
                touched.add(address)
            if number % BATCH == BATCH - 1:
                await asyncio.sleep(0)
        on_wire = self._wire.done()
        if self._meter:
            self._meter.saw(known.plan, on_wire)
        situation = Situation(
            known.snapshot,
            known.plan,
            known.seen,
            self._now(),
            on_wire,
            self._objects.problems,
            assigned=known.assigned,
        )
        peers = [(key.name, self._have(key) or obj) for key, obj in self._objects.all_raw("BgpPeer").items()]
        situation = losses_of(situation, peers)
        fresh: dict[_Slot, Write] = {}
        if leading:
            for write in await self._service_writes(situation, touched):
                fresh[write.key, write.owner] = write
        else:
            self._memo = {}
        names = [key for kind in ("Eip", "BgpPeer", "BgpConf") for key in self._objects.all_raw(kind)]
        for key in names:
            work = partial(context_writes, situation, key, self._have, leading=leading)
            for write in self._only(key, work):
                fresh[write.key, write.owner] = write
        wanted = {slot: write for slot, write in fresh.items() if self._is_worth_it(slot, write)}
        for slot in [slot for slot, write in wanted.items() if self._can_wait(slot, write)]:
            del wanted[slot]
            asyncio.get_running_loop().call_later(COUNTS_EVERY, self._news.set)
        # Addresses first: somebody waits for them.
        self._todo = dict(sorted(wanted.items(), key=lambda entry: not entry[1].urgent))
        self._pins = dict(known.plan.pins) if leading else {}
        self._forget()
        self._tidy()
        self._work.set()

    async def _service_writes(self, situation: Situation, touched: set[Address]) -> list[Write]:
        """Looks at the Services for which something is new: themselves, their VIPs, or what all of them speak of."""
        seen, plan, services = situation.seen, situation.plan, situation.snapshot.services
        up = {peer: session.up for peer, session in seen.bgp.sessions.items()}
        fresh = {name: said.sessions for name, said in seen.wire.fresh.items()}
        common = (situation.losses, seen.bgp.trouble, up, fresh)
        same, self._common = common == self._common, common
        found: list[Write] = []
        memo: dict[ServiceKey, tuple[object, ...]] = {}
        for number, (object_key, raw) in enumerate(list(self._objects.all_raw("Service").items())):
            if number % BATCH == BATCH - 1:
                await asyncio.sleep(0)
            key = ServiceKey(object_key.namespace, object_key.name)
            service, have = services.get(key), self._have(object_key) or raw
            addresses = situation.addresses_of(key)
            if service is None and not situation.problems_of("Service", *key):
                writes = self._only(object_key, partial(release, object_key, have))
            else:
                vips = tuple(plan.vips.get(address) for address in addresses)
                inputs = (have, service, plan.services.get(key), addresses, *vips)
                known = self._memo.get(key) if same and touched.isdisjoint(addresses) else None
                good = known is not None and len(known) == len(inputs) and all(map(operator.is_, known, inputs))
                writes = [] if good else self._only(object_key, partial(service_write, situation, key, self._have))
                if not writes:
                    memo[key] = inputs
            found += writes
        self._memo = memo
        return found

    @staticmethod
    def _only(key: ObjectKey, work: Callable[[], Write | Sequence[Write] | None]) -> Sequence[Write]:
        """The writes for one object; none where they cannot be worked out, which must not stop those for others."""
        try:
            found = work()
        except Exception:
            log.exception("The status of one object cannot be worked out.", extra=fields(object=str(key)))
            return ()
        return found if isinstance(found, Sequence) else (found,) if found else ()

    def _have(self, key: ObjectKey) -> Mapping[str, Any] | None:
        """The object as the cluster has it: what came back from our last write, until the watch brings news.

        What we wrote before it is no news: to take it for some would be to tell the same change twice.
        """
        raw = self._objects.raw(*key)
        latest = self._latest.get(key)
        if latest is None or raw is None:
            return raw
        return latest.result if latest.before is raw or version_of(raw) in latest.earlier else raw

    def _is_worth_it(self, slot: _Slot, write: Write) -> bool:
        if write.version and self._stale.get(slot) == write.version:
            return False  # somebody else has written since: the next plan will be made from that
        written = self._written.get(slot)
        if written is not None and written.sent == write.status:
            have = self._have(slot[0])
            # It came back different from what was sent (a field was pruned or defaulted): once more changes nothing.
            if have is not None and status_of(have) == status_of(written.result):
                return False
        denied = self._denied.get(slot)
        return denied is None or self._clock() >= denied[1]

    def _can_wait(self, slot: _Slot, write: Write) -> bool:
        """Whether it is about counts only (of routes, of addresses), which change with every Service of a burst."""
        written = self._written.get(slot)
        if slot[0].kind not in ("BgpPeer", "Eip") or write.notices or written is None:
            return False
        return self._clock() - written.at < COUNTS_EVERY

    def _forget(self) -> None:
        """Lets go of what is remembered about objects that are gone."""
        if len(self._latest) > sum(len(self._objects.all_raw(kind)) for kind in _KINDS):
            for key in [key for key in self._latest if self._objects.raw(*key) is None]:
                del self._latest[key]
            for memory in (self._written, self._stale, self._denied):
                for slot in [slot for slot in memory if self._objects.raw(*slot[0]) is None]:
                    memory.pop(slot)

    def _tidy(self) -> None:
        """The leader takes out the sessions of nodes that have vanished, and of replicas that are silent for long."""
        known, now = self._known, self._clock()
        if known is None or not self._leading():
            self._silent_since.clear()
            return
        live = {self._node, *known.seen.wire.fresh}
        named: set[str] = set()
        for key in self._objects.all_raw("BgpPeer"):
            obj = self._have(key)
            for node in entries(status_of(obj or {})):
                if node in live:
                    continue
                named.add(node)
                since = self._silent_since.setdefault(node, now)
                vanished = bool(known.snapshot.nodes) and node not in known.snapshot.nodes
                if (vanished or now - since >= GONE_AFTER) and (write := self._way_out(key, node)):
                    self._todo.setdefault((key, write.owner), write)
                    self._work.set()
        for node in live:
            self._silent_since.pop(node, None)
            if node != self._node:
                # It is back and writes itself: should it go once more, its entries are ours to remove again.
                for slot in [slot for slot in self._written if slot[1] == owner_of(node)]:
                    del self._written[slot]
        for node in self._silent_since.keys() - named:
            del self._silent_since[node]
        self._taken = {slot for slot in self._taken if slot[1].removeprefix(owner_of("")) in named}

    def _way_out(self, key: ObjectKey, node: str) -> Write | None:
        """What takes out the entry of a node: its owner gives it up; if that does not help, it is not that owner's
        (somebody has written it by hand), so it is made the owner's first. Once: not every cluster lets us."""
        slot = (key, owner_of(node))
        written = self._written.get(slot)
        if written is None or (slot in self._taken and written.sent):
            return removal(key, node)
        if slot in self._taken:
            return None
        self._taken.add(slot)
        return taking(key, node)

    # --- sending

    async def _send_all(self) -> None:
        while True:
            slot = next((slot for slot in self._todo if slot not in self._busy), None)
            if slot is not None:
                write = self._todo.pop(slot)
                self._busy.add(slot)
                try:
                    await self._send(slot, write)
                finally:
                    self._busy.discard(slot)
                continue
            if self._pins:
                key, node = self._pins.popitem()
                await self._pin(key, node)
                continue
            self._work.clear()
            if not self._todo and not self._pins:
                await self._work.wait()
            else:
                await asyncio.sleep(self._interval)  # what is left is being sent in another version

    def _may_send(self, *, leader_only: bool) -> float:
        """Seconds that a write may take; 0: it must not be sent."""
        if not leader_only:
            return WRITE_DEADLINE
        left = self._time_left() if self._leading() else 0.0
        return min(WRITE_DEADLINE, left) if left > LEAST_LEASE else 0.0

    async def _send(self, slot: _Slot, write: Write) -> None:
        key = write.key
        before = self._objects.raw(*key)
        deadline = self._may_send(leader_only=write.leader_only)
        if before is None or not deadline:
            return
        try:
            result = await self._cluster.apply_status(
                _KINDS[key.kind],
                key.name,
                key.namespace,
                write.status,
                owner=write.owner,
                version=write.version,
                deadline=deadline,
            )
        except Conflict:
            self._stale[slot] = write.version
            self._count(key.kind, "conflict")
        except Denied as error:
            await asyncio.sleep(GONE_WITHIN)
            if self._objects.raw(*key) is None:
                return  # it was being deleted; to tell that from a refusal is for the watch
            self._count(key.kind, "denied")
            times, _ = self._denied.get(slot, (0, 0.0))
            pause = DENIED_FOR[min(times, len(DENIED_FOR) - 1)]
            self._denied[slot] = (times + 1, self._clock() + pause)
            log.warning("The API refused a status: %s", error, extra=fields(object=str(key), again_in=pause))
        except Unavailable as error:
            self._count(key.kind, "unavailable")
            self._todo.setdefault(slot, write)
            await self._pause(str(error))
        else:
            self._succeeded()
            self._count(key.kind, "ok")
            self._stale.pop(slot, None)
            self._denied.pop(slot, None)
            same, last = self._written.get(slot), self._latest.get(key)
            earlier = (*last.earlier, version_of(last.result)) if last else ()
            earlier = (*earlier, version_of(before))[-EARLIER:]
            self._written[slot] = self._latest[key] = _Written(before, write.status, result, self._clock(), earlier)
            # The same once more only puts right what somebody else has written: it was told the first time.
            if same is None or same.sent != write.status:
                for notice in write.notices:
                    await self._tell(key, result, notice)

    async def _pin(self, key: ServiceKey, node: str) -> None:
        if not self._may_send(leader_only=True):
            return
        obj = self._objects.raw("Service", key.namespace, key.name)
        if obj is None:
            return
        try:
            # With its uid, so that a Service that has gone meanwhile is not made anew, and need not be read first:
            # reading single Services is a right that we do not ask for.
            body = {"metadata": {"annotations": {PIN: node}, "uid": obj["metadata"].get("uid", "")}}
            await self._cluster.apply(Kind.SERVICE, key.name, key.namespace, body, owner=LEADER)
        except Unavailable as error:
            self._count("Service", "unavailable")
            self._pins.setdefault(key, node)
            await self._pause(str(error))
        except (Conflict, Denied) as error:
            self._count("Service", "denied")
            log.warning("The Layer 2 next hop could not be noted: %s", error, extra=fields(service=str(key), node=node))
        else:
            self._succeeded()
            self._count("Service", "ok")

    async def _tell(self, key: ObjectKey, obj: Mapping[str, Any], notice: Notice) -> None:
        if self._meter:
            self._meter.told(key.kind, notice)
        log.log(
            logging.WARNING if notice.warning else logging.INFO,
            "%s",
            notice.message,
            extra=fields(object=str(key), reason=notice.reason),
        )
        try:
            await self._cluster.emit(
                _KINDS[key.kind],
                obj,
                type_=notice.type_,
                reason=notice.reason,
                message=notice.message,
                reporter=owner_of(self._node),
            )
        except (Unavailable, Conflict, Denied) as error:
            # An Event is a courtesy: status says the same, and stays.
            log.debug("An Event was not taken: %s", error)

    async def _pause(self, why: str) -> None:
        if not self._failures:
            log.warning("Status cannot be written: %s", why)
        delay = BACK_OFF[min(self._failures // self._concurrency, len(BACK_OFF) - 1)]
        self._failures += 1
        await asyncio.sleep(delay)

    def _succeeded(self) -> None:
        if self._failures:
            log.info("Status can be written again.")
        self._failures = 0

    def _count(self, kind: str, result: str) -> None:
        if self._meter:
            self._meter.wrote(kind, result)
