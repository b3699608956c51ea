"""The writes that have not been sent yet. Each is sent once, in time, and only by a replica that may send it.

Leadership is checked again when a write is sent, and every write ends within the remaining time of the lease. The
result of a write is remembered until the watch brings news, so that nothing is reported or written twice.
"""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from porterlb.cluster import KINDS, Cluster, Conflict, Denied, Unavailable, tell
from porterlb.core.known import Known
from porterlb.core.model import ServiceKey
from porterlb.core.objects import ObjectKey, Objects
from porterlb.core.status.notices import IN_HISTORY, Notice
from porterlb.core.status.reading import ingress, status_of, version_of
from porterlb.core.status.rewriting import Rewriting, rewritten
from porterlb.core.status.writes import StatusWrite, owner_of
from porterlb.logs import fields

log = logging.getLogger(__name__)

WRITE_DEADLINE = 2.0  # seconds; a healthy API server answers in milliseconds
LEAST_LEASE = 0.05  # seconds: with less left, no answer can arrive in time
LEASE_AGAIN = 1.0  # seconds until a write is tried again if too little of the lease was left
DENIED_FOR = (1.0, 2.0, 5.0, 15.0, 60.0)  # seconds until a refused write is tried again: an API server that has
# just started does not know any rights yet
GONE_WITHIN = 0.1  # seconds that the watch may need to report that an object is gone
BACK_OFF = (0.2, 0.5, 1.0, 2.0, 5.0)  # seconds between attempts while the API is unavailable
COUNTS_EVERY = 1.0
SETTLING = 0.3
"""Seconds, at least, between a write of a status and the next one that is not urgent: counts (of routes, of addresses)
change with every Service of a burst, and the set of replicas that serve a VIP changes several times until all do."""

LULL = 0.5
PATIENCE = 5.0
"""Seconds. While addresses are assigned or released with less than LULL between them, these urgent writes have
priority. Later changes to the status of an address wait meanwhile, for PATIENCE at most."""


class Meter(Protocol):
    """Counts writes and Events. See :class:`porterlb.edge.metrics.Metrics`."""

    def wrote(self, kind: str, result: str) -> None: ...

    def told(self, kind: str, notice: Notice) -> None: ...

    def saw(self, known: Known) -> None: ...


@dataclass(frozen=True, slots=True)
class _Written:
    """``before``: the object as it was known when we wrote; ``sent``: our status; ``result``: the object returned.

    ``earlier``: the versions before it, as far as we know them: if the watch brings one of these, it is outdated.
    """

    before: Mapping[str, Any]
    sent: Mapping[str, Any]
    result: Mapping[str, Any]
    at: float  # when, by our clock
    addressed: bool  # it assigned or released an address
    earlier: tuple[str, ...] = ()


EARLIER = 8
"""Number of earlier versions that are recognised: the watch is almost never further behind."""


_Slot = tuple[ObjectKey, str]
"""The object and the owner of a write: two owners may write to one object."""


class Outbox:
    """The writes of one replica; :meth:`run` is the task that sends them.

    Args:
        objects: the objects that the cluster is known to have, kept up to date by their owner.
        leading: returns whether this replica leads now.
        time_left: returns the seconds for which we certainly hold the lease.
        clock: monotonic seconds.
        interval: seconds to wait while another write to the same object is being sent.
        concurrency: simultaneous writes.
        again: called when a write was not sent or was refused, with the seconds after which :meth:`want` must be
            called again.
    """

    def __init__(
        self,
        cluster: Cluster,
        objects: Objects,
        node: str,
        *,
        leading: Callable[[], bool],
        time_left: Callable[[], float],
        clock: Callable[[], float],
        meter: Meter | None,
        interval: float,
        concurrency: int,
        again: Callable[[float], None] = lambda seconds: None,
    ) -> None:
        self._cluster = cluster
        self._objects = objects
        self._node = node
        self._leading = leading
        self._time_left = time_left
        self._clock = clock
        self._meter = meter
        self._interval = interval
        self._concurrency = concurrency
        self._again = again
        self._work = asyncio.Event()
        self._todo: OrderedDict[_Slot, StatusWrite] = OrderedDict()  # its first entry is removed in constant time
        self._busy: set[_Slot] = set()
        self._written: dict[_Slot, _Written] = {}
        self._latest: dict[ObjectKey, _Written] = {}
        self._stale: dict[_Slot, tuple[object, str]] = {}  # uid and version for which a write met a Conflict
        self._denied: dict[_Slot, tuple[int, float]] = {}  # refusals in a row, and when to try again
        self._rewriting: dict[_Slot, Rewriting] = {}
        self._failures = 0
        self._addressed = -PATIENCE  # when an address last had to be written

    def want(self, writes: Iterable[StatusWrite]) -> float | None:
        """Replaces the pending writes by those of ``writes`` that are worth sending.

        Returns the seconds after which to call again, because some writes must wait that long; or None.
        """
        fresh = {(write.key, write.owner): write for write in writes}
        for slot, write in fresh.items():
            self._notice_rewriting(slot, write)
        wanted = {slot: write for slot, write in fresh.items() if self._is_worth_it(slot, write)}
        if any(write.urgent for write in wanted.values()):
            self._addressed = self._clock()
        later = {slot: wait for slot, write in wanted.items() if (wait := self._settles_in(slot, write)) > 0}
        for slot in later:
            del wanted[slot]
        # Addresses first: users wait for them.
        self._todo = OrderedDict(sorted(wanted.items(), key=lambda entry: not entry[1].urgent))
        self._forget()
        self._work.set()
        return min(later.values(), default=None)

    @property
    def rewriters(self) -> dict[ServiceKey, str]:
        """The other writer that keeps changing the status of a Service, by Service."""
        now = self._clock()
        told = {slot[0]: one.writer for slot, one in self._rewriting.items() if one.told(now)}
        return {ServiceKey(key.namespace, key.name): writer for key, writer in told.items()}

    def _notice_rewriting(self, slot: _Slot, write: StatusWrite) -> None:
        """Notes that addresses which we wrote must be written again: another writer has changed them since."""
        key = slot[0]
        written = self._of_now(self._written.get(slot), key)
        have = self.have(key)
        if key.kind != "Service" or not write.urgent or written is None or have is None:
            return
        if ingress(written.sent) == ingress(write.status) != ingress(status_of(have)):
            managers = [entry.get("manager") for entry in (have.get("metadata") or {}).get("managedFields") or ()]
            writer = str(next(iter(managers), "") or "Another controller")
            self._rewriting[slot] = rewritten(
                self._rewriting.get(slot), writer, version_of(written.result), self._clock()
            )

    def add(self, write: StatusWrite) -> None:
        """Adds one write, unless one for the same object and owner is pending."""
        self._todo.setdefault((write.key, write.owner), write)
        self._work.set()

    def sent(self, key: ObjectKey, owner: str) -> Mapping[str, Any] | None:
        """The status that was last written to an object under this owner's name; None: never, or forgotten."""
        written = self._of_now(self._written.get((key, owner)), key)
        return None if written is None else written.sent

    def forget(self, owner: str) -> None:
        """Forgets all writes under this owner's name."""
        for slot in [slot for slot in self._written if slot[1] == owner]:
            del self._written[slot]

    def have(self, key: ObjectKey) -> Mapping[str, Any] | None:
        """The object as the cluster has it: the result of our last write, until the watch brings news.

        Our own earlier writes are not news: otherwise the same change would be reported twice.
        """
        raw = self._objects.raw(*key)
        latest = self._of_now(self._latest.get(key), key)
        if latest is None or raw is None:
            return raw
        return latest.result if latest.before is raw or version_of(raw) in latest.earlier else raw

    def _of_now(self, written: _Written | None, key: ObjectKey) -> _Written | None:
        """``written``, if it was written to the object that exists now and not to a deleted one of the same name: their
        versions may be the same."""
        raw = self._objects.raw(*key)
        return written if written and raw and _uid(written.result) == _uid(raw) else None

    def _is_worth_it(self, slot: _Slot, write: StatusWrite) -> bool:
        raw = self._objects.raw(*slot[0]) or {}
        if write.version and self._stale.get(slot) == (_uid(raw), write.version):
            return False  # another writer has changed it since: the next plan takes that into account
        written = self._of_now(self._written.get(slot), slot[0])
        if written is not None and written.sent == write.status:
            have = self.have(slot[0])
            # The result differs from what was sent (a field was pruned or defaulted): sending it again changes nothing.
            if have is not None and status_of(have) == status_of(written.result):
                return False
        denied = self._denied.get(slot)
        return denied is None or self._clock() >= denied[1]

    def _settles_in(self, slot: _Slot, write: StatusWrite) -> float:
        """Seconds that the write must wait. A write that assigns or releases an address (unless another writer keeps
        changing it) or that reports a problem does not wait."""
        rewriting = self._rewriting.get(slot)
        written = self._of_now(self._written.get(slot), slot[0])
        if rewriting and written and write.urgent and rewriting.version == version_of(written.result):
            return rewriting.until - self._clock()
        if written is None or write.urgent or any(notice.warning for notice in write.notices):
            return 0.0
        if write.placing:  # until replicas read the new next hop, they answer for the address elsewhere
            until = written.at + SETTLING
        elif slot[0].kind != "Service":
            until = written.at + COUNTS_EVERY if not write.notices else 0.0
        elif not written.addressed:
            until = written.at + SETTLING
        else:
            until = max(written.at + SETTLING, min(self._addressed + LULL, written.at + PATIENCE))
        return until - self._clock()

    def _forget(self) -> None:
        """Forgets objects that are gone."""
        if len(self._latest) > sum(len(self._objects.all_raw(kind)) for kind in KINDS):
            for key in [key for key in self._latest if self._objects.raw(*key) is None]:
                del self._latest[key]
            for memory in (self._written, self._stale, self._denied, self._rewriting):
                for slot in [slot for slot in memory if self._objects.raw(*slot[0]) is None]:
                    memory.pop(slot)

    async def run(self) -> None:
        """Sends until cancelled."""
        async with asyncio.TaskGroup() as group:
            for number in range(self._concurrency):
                group.create_task(self._send_all(), name=f"status-{number}")

    async def _send_all(self) -> None:
        while True:
            slot = next((slot for slot in self._todo if slot not in self._busy), None)
            if slot is not None:
                write = self._todo.pop(slot)
                self._busy.add(slot)
                try:
                    await self._send(slot, write)
                except Exception:  # a bug of ours in one write must not stop the others
                    self._refused(slot)
                    log.exception("a status cannot be written", extra=fields(object=str(slot[0])))
                finally:
                    self._busy.discard(slot)
                continue
            self._work.clear()
            if not self._todo:
                await self._work.wait()
            else:
                await asyncio.sleep(self._interval)  # other versions of the remaining writes are being sent

    def _may_send(self, *, leader_only: bool) -> float:
        """Seconds that a write may take; 0: it must not be sent."""
        if not leader_only:
            return WRITE_DEADLINE
        left = self._time_left() if self._leading() else 0.0
        return min(WRITE_DEADLINE, left) if left > LEAST_LEASE else 0.0

    async def _send(self, slot: _Slot, write: StatusWrite) -> None:
        key = write.key
        before = self._objects.raw(*key)
        deadline = self._may_send(leader_only=write.leader_only)
        if before is None:
            return
        if not deadline:
            self._again(LEASE_AGAIN)
            return
        try:
            result = await self._cluster.apply_status(
                KINDS[key.kind],
                key.name,
                key.namespace,
                write.status,
                owner=write.owner,
                version=write.version,
                deadline=deadline,
            )
        except Conflict:
            self._stale[slot] = (_uid(before), write.version)
            self._count(key.kind, "conflict")
        except Denied as error:
            await asyncio.sleep(GONE_WITHIN)
            if self._objects.raw(*key) is None:
                return  # it was being deleted: only the watch can tell that from a refusal
            self._count(key.kind, "denied")
            pause = self._refused(slot)
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
            same = self._of_now(self._written.get(slot), key)
            last = self._of_now(self._latest.get(key), key)
            earlier = (*last.earlier, version_of(last.result)) if last else ()
            earlier = (*earlier, version_of(before))[-EARLIER:]
            self._written[slot] = self._latest[key] = _Written(
                before, write.status, result, self._clock(), write.urgent, earlier
            )
            # Sending the same status again only reverts another writer's change: it was reported the first time.
            if same is None or same.sent != write.status:
                for notice in write.notices:
                    await self._tell(key, result, notice)

    def _refused(self, slot: _Slot) -> float:
        """Delays the same write, longer with each refusal in a row. Returns the delay in seconds."""
        times, _ = self._denied.get(slot, (0, 0.0))
        pause = DENIED_FOR[min(times, len(DENIED_FOR) - 1)]
        self._denied[slot] = (times + 1, self._clock() + pause)
        self._todo.pop(slot, None)  # planned before this refusal was known: `again` plans it after the pause
        self._again(pause)
        return pause

    async def _tell(self, key: ObjectKey, obj: Mapping[str, Any], notice: Notice) -> None:
        if self._meter:
            self._meter.told(key.kind, notice)
        level = logging.WARNING if notice.warning else logging.INFO
        if notice.reason in IN_HISTORY:
            level = logging.DEBUG
        log.log(level, "%s", notice.message, extra=fields(object=str(key), reason=notice.reason))
        await tell(self._cluster, key.kind, obj, notice, reporter=owner_of(self._node))

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


def _uid(obj: Mapping[str, Any]) -> object:
    return (obj.get("metadata") or {}).get("uid")
