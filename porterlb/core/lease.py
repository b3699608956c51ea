"""Who leads: a lease that is held by renewing it, as a state machine without input or output.

The model is that of Kubernetes' leader election and of Patroni: a record with a holder, changed by compare-and-swap.
Invariant: **never two leaders at once.** It rests on three things:

- A leader leads until ``renew_deadline`` after it *began* its last successful write, by its own clock.
- Somebody else takes the lease at the earliest ``duration`` after it *saw* the record change last, by its own clock,
  which is later than that write began; and ``duration`` is longer than ``renew_deadline``.
- Writes are compare-and-swap: a write that is late, repeated or unanswered cannot undo a newer one.

No timestamp of another machine is ever compared with a clock of ours. All times are monotonic seconds and are given
as arguments; the clock must go on while the process is stopped and while the machine sleeps (CLOCK_BOOTTIME).

The holder's identity must be new with each start of a process, so that nobody takes over from its own predecessor,
which may only have been stopped.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Timing:
    """In seconds. ``renew_deadline`` < ``duration``; the difference is what clocks may drift apart in one lease."""

    duration: float = 4.0
    renew_deadline: float = 2.5
    retry: float = 0.5

    @property
    def renew_every(self) -> float:
        """Half of the deadline: there is time for some more attempts."""
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
    """Read the record, then tell :meth:`Lease.seen` or :meth:`Lease.unavailable`. ``deadline``: seconds."""

    deadline: float


@dataclass(frozen=True, slots=True)
class WriteLease:
    """Write this in place of ``record.version`` (empty: create it), then tell :meth:`Lease.written`,
    :meth:`Lease.conflict` or :meth:`Lease.unavailable`. ``deadline``: seconds; do not begin later."""

    record: LeaseState
    deadline: float


@dataclass(frozen=True, slots=True)
class Wait:
    """Nothing to do until then (monotonic)."""

    until: float


@dataclass(frozen=True, slots=True)
class Done:
    """The lease has been given back, or was not ours: the end."""


Action = Read | WriteLease | Wait | Done


class _Step(enum.Enum):
    LOOK = enum.auto()  # the record is not known, or may have changed
    WATCH = enum.auto()  # it is known; if it is free or over it can be taken, else look again later
    HOLD = enum.auto()  # it is ours; renew it in time
    STOPPED = enum.auto()


class Lease:
    """One candidate. Ask :meth:`poll` what to do, do it, tell the outcome; one thing at a time."""

    def __init__(self, me: str, timing: Timing) -> None:
        self.me = me
        self.timing = timing
        self.holder = ""  # as seen last; may be over
        self.transitions = 0
        self._step = _Step.LOOK
        self._next = float("-inf")  # not before then
        self._record: LeaseState | None = None
        self._changed = float("-inf")  # when the record was seen to change last
        self._heard = ("", 0.0)  # the version that a watch has brought last, and when
        self._outdated = False  # it has brought another one than what we have read since
        self._leading_until = float("-inf")
        self._began = 0.0  # when the write under way began
        self._busy = False
        self._releasing = False

    def leading(self, now: float) -> bool:
        """Whether this candidate is the leader."""
        return now < self._leading_until

    def leading_until(self, now: float) -> float:
        """Until when (monotonic) it leads for certain, and so the deadline of whatever the leader writes; ``now`` if
        it does not lead."""
        return max(now, self._leading_until)

    def poll(self, now: float) -> Action:
        """What to do next. After Read and Write an outcome must be told before the next poll."""
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
        """The answer to Read: the record as it is, None if there is none. ``now``: when the answer was there."""
        self._busy = False
        version, heard_at = self._heard
        heard = record is not None and version == record.version
        self._notice(record, min(now, heard_at) if heard else now)
        if record is not None and record.holder == self.me:
            # A write of ours whose answer was lost. It is ours, but since when is not known: renew it.
            self._step, self._next = _Step.HOLD, now
        else:
            self._leading_until = float("-inf")
            self._step = _Step.WATCH
            # Where a watch brings every renewal, there is nothing to ask before the lease may be over.
            look_again = self._over_at() if heard else min(now + self.timing.retry, self._over_at())
            self._next = now if self._free(now) else look_again

    def heard(self, version: str, holder: str, now: float) -> None:
        """A watch has brought the record: this version of it (opaque; empty: it was deleted), held by this one.

        A hint that saves reading: nothing is taken without a look, and a watch that is late only delays.
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
            return  # this one was under way when we were told to stop: the next poll gives it back
        self._leading_until = self._began + self.timing.renew_deadline
        self._step = _Step.HOLD
        self._next = self._began + self.timing.renew_every

    def conflict(self, now: float) -> None:
        """The write failed, for somebody else has written since. Whether one of ours came through is not known."""
        self._busy = False
        self._step, self._next = _Step.LOOK, now
        if self._releasing:
            self._step = _Step.STOPPED

    def unavailable(self, now: float) -> None:
        """There was no answer in time, or an error. What it has done is not known."""
        self._busy = False
        self._step, self._next = _Step.LOOK, now + self.timing.retry
        if self._releasing:
            self._step = _Step.STOPPED

    def release(self, now: float) -> None:
        """Stop leading at once; the next poll gives the lease back, so that somebody else takes it without a wait.
        May be called while something is under way."""
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
        # One that somebody has deleted is not free at once: its holder may lead a moment longer.
        return (self._record is not None and not self._record.holder) or now >= self._over_at()
