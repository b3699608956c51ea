"""What is to be written and has not been sent: each write once, in time, and only by who may send it.

Leadership is checked again at the moment of sending, and every write ends within what is left of the lease. What came
back from a write is remembered until the watch brings news, so that nothing is told or written twice.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from porterlb.cluster import KINDS, Cluster, Conflict, Denied, Unavailable, tell
from porterlb.core.known import Known
from porterlb.core.model import ServiceKey
from porterlb.core.objects import ObjectKey, Objects
from porterlb.core.status.notices import IN_HISTORY, Notice
from porterlb.core.status.rewriting import Rewriting, rewritten
from porterlb.core.status.writes import StatusWrite, ingress, owner_of, status_of, version_of
from porterlb.logs import fields

log = logging.getLogger(__name__)

WRITE_DEADLINE = 2.0  # seconds; a healthy API server answers in milliseconds
LEAST_LEASE = 0.05  # seconds: with less left, an answer could not come in time
LEASE_AGAIN = 1.0  # seconds until a write that the lease had no time for is tried again
DENIED_FOR = (1.0, 2.0, 5.0, 15.0, 60.0)  # seconds until what was refused is tried again: an API server that has just
# started knows nobody's rights yet
GONE_WITHIN = 0.1  # seconds that the watch may need to tell that an object is gone
BACK_OFF = (0.2, 0.5, 1.0, 2.0, 5.0)  # seconds between attempts while the API is unavailable
COUNTS_EVERY = 1.0
SETTLING = 0.3
"""Seconds, at least, from one write of a status to the next that nobody waits for: counts (of routes, of addresses)
change with every Service of a burst, and who brings a VIP in changes several times until all replicas do."""

LULL = 0.5
PATIENCE = 5.0
"""Seconds: while addresses are given out or taken, one after the other with less than a LULL between them, somebody
waits for those, and the API's time is theirs. What becomes of an address waits for its PATIENCE, at most."""


class Meter(Protocol):
    """Who counts. See :class:`porterlb.edge.metrics.Metrics`."""

    def wrote(self, kind: str, result: str) -> None: ...

    def told(self, kind: str, notice: Notice) -> None: ...

    def saw(self, known: Known) -> None: ...


@dataclass(frozen=True, slots=True)
class _Written:
    """``before``: the object as it was known when we wrote; ``sent``: our status; ``result``: what came back.

    ``earlier``: the versions that were there before it, as far as we know them: older, when the watch brings them.
    """

    before: Mapping[str, Any]
    sent: Mapping[str, Any]
    result: Mapping[str, Any]
    at: float  # when, by our clock
    addressed: bool  # it gave or took an address
    earlier: tuple[str, ...] = ()


EARLIER = 8
"""So many of our own versions are known again: the watch is hardly ever as far behind as that."""


_Slot = tuple[ObjectKey, str]
"""What one write is about: two owners may write to one object."""


class Outbox:
    """The writes of one replica; :meth:`run` is the task that sends them.

    Args:
        objects: what the cluster is known to have, kept up to date by its owner.
        leading: whether this replica leads, now.
        time_left: seconds for which the lease is certainly ours, now.
        clock: monotonic seconds.
        interval: seconds to wait for a write that another one is in the way of.
        concurrency: writes at once.
        again: called where a write was not sent or was refused: what is to be written is to be said again in so many
            seconds.
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
        self._todo: dict[_Slot, StatusWrite] = {}
        self._busy: set[_Slot] = set()
        self._written: dict[_Slot, _Written] = {}
        self._latest: dict[ObjectKey, _Written] = {}
        self._stale: dict[_Slot, tuple[object, str]] = {}  # uid and version on which a write met a Conflict
        self._denied: dict[_Slot, tuple[int, float]] = {}  # how often in a row, and not before when
        self._rewriting: dict[_Slot, Rewriting] = {}
        self._failures = 0
        self._addressed = -PATIENCE  # when an address was to be written last

    def want(self, writes: Iterable[StatusWrite]) -> float | None:
        """Replaces what is to be sent: these writes, as far as they are worth it.

        Returns the seconds after which to ask again, because some of them have to wait for so long; or None.
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
        # Addresses first: somebody waits for them.
        self._todo = dict(sorted(wanted.items(), key=lambda entry: not entry[1].urgent))
        self._forget()
        self._work.set()
        return min(later.values(), default=None)

    @property
    def rewriters(self) -> dict[ServiceKey, str]:
        """Who keeps writing the status of Services beside us."""
        now = self._clock()
        told = {slot[0]: one.writer for slot, one in self._rewriting.items() if one.told(now)}
        return {ServiceKey(key.namespace, key.name): writer for key, writer in told.items()}

    def _notice_rewriting(self, slot: _Slot, write: StatusWrite) -> None:
        """Notes that the addresses which we wrote are to be written once more: somebody else has written since."""
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
        """One more, unless something is to be written there anyway."""
        self._todo.setdefault((write.key, write.owner), write)
        self._work.set()

    def sent(self, key: ObjectKey, owner: str) -> Mapping[str, Any] | None:
        """The status that was written last to an object under that name; None: never, or forgotten."""
        written = self._of_now(self._written.get((key, owner)), key)
        return None if written is None else written.sent

    def forget(self, owner: str) -> None:
        """As if nothing had been written under that name."""
        for slot in [slot for slot in self._written if slot[1] == owner]:
            del self._written[slot]

    def have(self, key: ObjectKey) -> Mapping[str, Any] | None:
        """The object as the cluster has it: what came back from our last write, until the watch brings news.

        What we wrote before it is no news: to take it for some would be to tell the same change twice.
        """
        raw = self._objects.raw(*key)
        latest = self._of_now(self._latest.get(key), key)
        if latest is None or raw is None:
            return raw
        return latest.result if latest.before is raw or version_of(raw) in latest.earlier else raw

    def _of_now(self, written: _Written | None, key: ObjectKey) -> _Written | None:
        """What was written to the object that is there now, not to one of the same name that was deleted: versions of
        the two may be the same."""
        raw = self._objects.raw(*key)
        return written if written and raw and _uid(written.result) == _uid(raw) else None

    def _is_worth_it(self, slot: _Slot, write: StatusWrite) -> bool:
        raw = self._objects.raw(*slot[0]) or {}
        if write.version and self._stale.get(slot) == (_uid(raw), write.version):
            return False  # somebody else has written since: the next plan will be made from that
        written = self._of_now(self._written.get(slot), slot[0])
        if written is not None and written.sent == write.status:
            have = self.have(slot[0])
            # It came back different from what was sent (a field was pruned or defaulted): once more changes nothing.
            if have is not None and status_of(have) == status_of(written.result):
                return False
        denied = self._denied.get(slot)
        return denied is None or self._clock() >= denied[1]

    def _settles_in(self, slot: _Slot, write: StatusWrite) -> float:
        """Seconds that the write has to wait: not one that gives or takes an address, or that brings bad news."""
        rewriting = self._rewriting.get(slot)
        written = self._of_now(self._written.get(slot), slot[0])
        if rewriting and written and write.urgent and rewriting.version == version_of(written.result):
            return rewriting.until - self._clock()
        if written is None or write.urgent or any(notice.warning for notice in write.notices):
            return 0.0
        if write.placing:  # replicas answer for the address elsewhere until they read it
            until = written.at + SETTLING
        elif slot[0].kind != "Service":
            until = written.at + COUNTS_EVERY if not write.notices else 0.0
        elif not written.addressed:
            until = written.at + SETTLING
        else:
            until = max(written.at + SETTLING, min(self._addressed + LULL, written.at + PATIENCE))
        return until - self._clock()

    def _forget(self) -> None:
        """Lets go of what is remembered about objects that are gone."""
        if len(self._latest) > sum(len(self._objects.all_raw(kind)) for kind in KINDS):
            for key in [key for key in self._latest if self._objects.raw(*key) is None]:
                del self._latest[key]
            for memory in (self._written, self._stale, self._denied, self._rewriting):
                for slot in [slot for slot in memory if self._objects.raw(*slot[0]) is None]:
                    memory.pop(slot)

    async def run(self) -> None:
        """Sends, for ever."""
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
                except Exception:  # a fault of ours, in one write: the others go on
                    self._refused(slot)
                    log.exception("a status cannot be written", extra=fields(object=str(slot[0])))
                finally:
                    self._busy.discard(slot)
                continue
            self._work.clear()
            if not self._todo:
                await self._work.wait()
            else:
                await asyncio.sleep(self._interval)  # what is left is being sent in another version

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
                return  # it was being deleted; to tell that from a refusal is for the watch
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
            # The same once more only puts right what somebody else has written: it was told the first time.
            if same is None or same.sent != write.status:
                for notice in write.notices:
                    await self._tell(key, result, notice)

    def _refused(self, slot: _Slot) -> float:
        """The same write is not sent again for so many seconds: longer each time in a row."""
        times, _ = self._denied.get(slot, (0, 0.0))
        pause = DENIED_FOR[min(times, len(DENIED_FOR) - 1)]
        self._denied[slot] = (times + 1, self._clock() + pause)
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
