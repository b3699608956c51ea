"""Runs the lease state machine against a Cluster."""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from collections.abc import Callable

from porterlb.cluster import Cluster, Conflict, Denied, LeaseRecord, Obj, Unavailable, lease_version
from porterlb.core.lease import Done, Lease, LeaseState, Read, Timing, Wait, WriteLease

log = logging.getLogger(__name__)

LEASE = "porterlb"


def boottime() -> float:
    """Monotonic seconds that continue to count while the process is stopped and while the machine sleeps."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


class Leader:
    """One candidate for the leadership.

    Args:
        node: our node. The holder is written as ``node_`` and a part that is new at each start.
        on_gain, on_loss: called in the event loop at each change; ``on_loss`` in time even if the API does not answer.
        on_change: called when another node holds the lease, or when we gain or lose it.
    """

    def __init__(
        self,
        cluster: Cluster,
        node: str,
        timing: Timing,
        *,
        on_gain: Callable[[], None] = lambda: None,
        on_loss: Callable[[], None] = lambda: None,
        on_change: Callable[[], None] = lambda: None,
        clock: Callable[[], float] = boottime,
        name: str = LEASE,
    ) -> None:
        self.name = name
        self.identity = f"{node}_{secrets.token_hex(4)}"
        self._cluster = cluster
        self._machine = Lease(self.identity, timing)
        self._on_gain, self._on_loss, self._on_change = on_gain, on_loss, on_change
        self._clock = clock
        self._told = False
        self._told_leader = ""
        self._wake = asyncio.Event()

    @property
    def leading(self) -> bool:
        """Whether we lead now."""
        return self._machine.leading(self._clock())

    @property
    def leader(self) -> str:
        """The node that held the lease when last seen; empty if none did. It may have been dead for some seconds."""
        return self._machine.holder.rpartition("_")[0]

    def remaining(self) -> float:
        """Seconds for which we certainly lead: the deadline for anything written as the leader; 0 if we do not lead."""
        now = self._clock()
        return self._machine.leading_until(now) - now

    def heard(self, lease: Obj | None) -> None:
        """Takes a change of our lease (None: it is gone) from a watch of all leases, so that we need not read it."""
        spec = (lease or {}).get("spec") or {}
        holder = str(spec.get("holderIdentity") or "")
        self._machine.heard(lease_version(lease or {}), holder, self._clock())
        if not holder:
            self._wake.set()
        self._tell()

    async def run(self) -> None:
        """Runs until :meth:`release` or until cancelled."""
        while True:
            action = self._machine.poll(self._clock())
            if isinstance(action, Done):
                self._tell()
                return
            if isinstance(action, Wait):
                await self._sleep(action.until)
            else:
                await self._watched(asyncio.create_task(self._do(action), name="lease"))
            self._tell()

    async def release(self) -> None:
        """Stops leading and releases the lease, so that the next replica takes it without waiting; ends run()."""
        self._machine.release(self._clock())
        self._tell()
        self._wake.set()

    async def _sleep(self, until: float) -> None:
        """Sleeps until the given time, until woken (a release, a free lease), or until our leadership ends."""
        ends = [until]
        if self._told:
            ends.append(self._machine.leading_until(self._clock()))
        try:
            async with asyncio.timeout(max(0.0, min(ends) - self._clock())):
                await self._wake.wait()
        except TimeoutError:
            return
        self._wake.clear()

    async def _watched(self, task: asyncio.Task[None]) -> None:
        """Waits for a read or write. If our leadership ends meanwhile, reports that at once."""
        try:
            while not task.done():
                left = self.remaining() if self._told else None
                await asyncio.wait({task}, timeout=left)
                self._tell()
            task.result()
        finally:
            task.cancel()

    async def _do(self, action: Read | WriteLease) -> None:
        machine = self._machine
        try:
            async with asyncio.timeout(action.deadline + 0.2):
                if isinstance(action, Read):
                    found = await self._cluster.read_lease(self.name)
                    machine.seen(_record(found) if found else None, self._clock())
                else:
                    wanted = action.record
                    written = await self._cluster.write_lease(_lease(self.name, wanted), deadline=action.deadline)
                    machine.written(_record(written), self._clock())
        except Conflict:
            machine.conflict(self._clock())
        except (Unavailable, TimeoutError) as error:
            log.debug("the lease %s cannot be reached: %s", self.name, error)
            machine.unavailable(self._clock())
        except Denied as error:
            log.warning("The lease %s cannot be read or written: %s", self.name, error)
            machine.unavailable(self._clock())
        except Exception:
            # A bug of ours: as after no answer, it is unknown what the API has done.
            machine.unavailable(self._clock())
            raise

    def _tell(self) -> None:
        leading, told = self.leading, self._told
        if leading != told:
            self._told = leading
            log.info("%s %s", self.identity, "leads now." if leading else "no longer leads.")
            (self._on_gain if leading else self._on_loss)()
        if self._machine.holder != self._told_leader or leading != told:
            self._told_leader = self._machine.holder
            self._on_change()


def _record(lease: LeaseRecord) -> LeaseState:
    return LeaseState(lease.holder, lease.duration, lease.transitions, lease.renewals, lease.version)


def _lease(name: str, record: LeaseState) -> LeaseRecord:
    return LeaseRecord(
        name=name,
        holder=record.holder,
        duration=record.duration,
        transitions=record.transitions,
        renewals=record.renewals,
        version=record.version,
    )
