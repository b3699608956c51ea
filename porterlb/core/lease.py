"""Leader election: a lease that its holder renews, as a state machine without input or output.

The model is that of Kubernetes' leader election and of Patroni: a record with a holder, changed by compare-and-swap.
Invariant: **never two leaders at once.** It rests on three rules:

- A leader leads until ``renew_deadline`` after it *began* its last successful write, by its own clock.
- Another candidate takes the lease at the earliest ``duration`` after it last *saw* the record change, by its own
  clock. That is later than the start of that write, and ``duration`` is longer than ``renew_deadline``.
- Writes are compare-and-swap: a write that is late, repeated or unanswered cannot undo a newer one.

No timestamp of another machine is ever compared with a local clock. All times are monotonic seconds and are given as
arguments. The clock must continue while the process is stopped and while the machine sleeps (CLOCK_BOOTTIME).

The holder's identity must be new with each start of a process, so that a process never takes over from its own
predecessor, which may only have been suspended.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Timing:
    """In seconds. ``renew_deadline`` < ``duration``; the difference is the allowed clock drift during one lease."""

    duration: float = 4.0
    renew_deadline: float = 2.5
    retry: float = 0.5

    @property
    def renew_every(self) -> float:
        """Half of the deadline, which leaves time for more attempts."""
        return self.renew_deadline / 2


@dataclass(frozen=True, slots=True)
class LeaseState:
    """The lease as it is written. ``holder`` empty: released. ``version``: opaque, for compare-and-swap."""

    holder: str
    duration: float
    transitions: int = 0
    renewals: int = 0
    version: str = ""


@dataclass(frozen=True, slots=True)
class Read:
    """Read the record, then call :meth:`Lease.seen` or :meth:`Lease.unavailable`. ``deadline``: seconds."""

    deadline: float


@dataclass(frozen=True, slots=True)
class WriteLease:
    """Write this in place of ``record.version`` (empty: create it), then call :meth:`Lease.written`,
    :meth:`Lease.conflict` or :meth:`Lease.unavailable`. ``deadline``: seconds; do not begin later."""

    record: LeaseState
    deadline: float


@dataclass(frozen=True, slots=True)
class Wait:
    """Nothing to do until this time (monotonic seconds)."""

    until: float


@dataclass(frozen=True, slots=True)
class Done:
    """The lease has been released, or was not ours: the end."""


Action = Read | WriteLease | Wait | Done


class _Step(enum.Enum):
    LOOK = enum.auto()  # the record is not known, or may have changed
    WATCH = enum.auto()  # it is known; if it is free or expired it can be taken, else look again later
    HOLD = enum.auto()  # it is ours; renew it in time
    STOPPED = enum.auto()


class Lease:
    """One candidate. Call :meth:`poll`, do what it returns, report the outcome; one action at a time."""

    def __init__(self, me: str, timing: Timing) -> None:
        self.me = me
        self.timing = timing
        self.holder = ""  # as last seen; may be expired
        self.transitions = 0
        self._step = _Step.LOOK
        self._next = float("-inf")  # no action before this time
        self._record: LeaseState | None = None
        self._changed = float("-inf")  # when the record was last seen to change
        self._heard = ("", 0.0)  # the version that a watch last delivered, and when
        self._outdated = False  # the watch has delivered another version since the last read
        self._leading_until = float("-inf")
        self._began = 0.0  # when the current write began
        self._busy = False
        self._releasing = False

    def leading(self, now: float) -> bool:
        """Whether this candidate is the leader."""
        return now < self._leading_until

    def leading_until(self, now: float) -> float:
        """Until when (monotonic seconds) it certainly leads: the deadline of every write of the leader. ``now`` if it
        does not lead."""
        return max(now, self._leading_until)

    def poll(self, now: float) -> Action:
        """The next action. After Read and WriteLease, report the outcome before the next poll."""
        assert not self._busy, "tell the outcome first"
        if self._step is _Step.STOPPED:
            return Done()
        if self._releasing:
            return self._give_back(now)
        if now < self._next:
            return Wait(self._next)
        if self._step is _Step.HOLD:
            return self._write(self.me, now)
        if self._step is _Step.WATCH and not self._outdated and self._free(now):
            return self._write(self.me, now)
        self._busy = True
        return Read(self.timing.renew_every)

    def seen(self, record: LeaseState | None, now: float) -> None:
        """The answer to Read: the current record, None if there is none. ``now``: when the answer arrived."""
        self._busy = False
        version, heard_at = self._heard
        heard = record is not None and version == record.version
        self._notice(record, min(now, heard_at) if heard else now)
        if record is not None and record.holder == self.me:
            # One of our writes whose answer was lost. The lease is ours, but since when is not known: renew it.
            self._step, self._next = _Step.HOLD, now
        else:
            self._leading_until = float("-inf")
            self._step = _Step.WATCH
            # If a watch delivers every renewal, no read is needed before the lease may expire.
            look_again = self._over_at() if heard else min(now + self.timing.retry, self._over_at())
            self._next = now if self._free(now) else look_again

    def heard(self, version: str, holder: str, now: float) -> None:
        """A watch has delivered the record: its version (opaque; empty: it was deleted) and its holder.

        A hint that saves reads: the lease is never taken without a read, and a late watch only causes delay.
        May be called at any time.
        """
        self._heard = (version, now)
        self._outdated = version != (self._record.version if self._record else "")
        if self._step is _Step.WATCH and not self._busy:
            self.holder = holder
            known = self._record.duration if self._record else 0.0
            self._next = now + max(self.timing.duration, known) if holder else now

    def written(self, record: LeaseState, now: float) -> None:
        """The write succeeded; ``record`` has the new version."""
        self._busy = False
        self._notice(record, now)
        if record.holder != self.me:
            self._step = _Step.STOPPED
            return
        if self._releasing:
            return  # this write was in progress when release() was called: the next poll releases the lease
        self._leading_until = self._began + self.timing.renew_deadline
        self._step = _Step.HOLD
        self._next = self._began + self.timing.renew_every

    def conflict(self, now: float) -> None:
        """The write failed, because another candidate has written since. One of our earlier writes may have
        succeeded."""
        self._busy = False
        self._step, self._next = _Step.LOOK, now
        if self._releasing:
            self._step = _Step.STOPPED

    def unavailable(self, now: float) -> None:
        """There was no answer in time, or an error. The effect of the request is not known."""
        self._busy = False
        self._step, self._next = _Step.LOOK, now + self.timing.retry
        if self._releasing:
            self._step = _Step.STOPPED

    def release(self, now: float) -> None:
        """Stops leading at once; the next poll releases the lease, so that another candidate can take it without a
        wait. May be called while an action is in progress."""
        del now
        self._leading_until = float("-inf")
        self._releasing = True

    def _give_back(self, now: float) -> Action:
        if self._record is None or self._record.holder != self.me:
            self._step = _Step.STOPPED
            return Done()
        return self._write("", now)

    def _write(self, holder: str, now: float) -> WriteLease:
        self._busy = True
        self._began = now
        old = self._record
        new = LeaseState(
            holder=holder,
            duration=self.timing.duration,
            transitions=(old.transitions if old else 0) + (bool(holder) and (old is None or old.holder != holder)),
            renewals=(old.renewals if old else 0) + 1,
            version=old.version if old else "",
        )
        limit = self._leading_until - now if self.leading(now) else self.timing.renew_every
        return WriteLease(new, max(0.05, min(limit, self.timing.renew_every)))

    def _notice(self, record: LeaseState | None, now: float) -> None:
        if record != self._record:
            self._changed = now
        self._record = record
        self._outdated = False
        self.holder = record.holder if record else ""
        self.transitions = record.transitions if record else 0

    def _over_at(self) -> float:
        duration = max(self.timing.duration, self._record.duration if self._record else 0.0)
        return self._changed + duration

    def _free(self, now: float) -> bool:
        # A deleted lease is not free at once: its holder may still lead for a moment.
        return (self._record is not None and not self._record.holder) or now >= self._over_at()
