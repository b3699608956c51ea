"""The lease: never two leaders at once, even if steps are slow, stopped, lost or repeated."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from porterlb.core.lease import Done, Lease, LeaseState, Read, Timing, Wait, WriteLease

TIMING = Timing(duration=4.0, renew_deadline=2.5, retry=0.5)


class Store:
    """A record under compare-and-swap; the reference for the test."""

    def __init__(self) -> None:
        self.record: LeaseState | None = None
        self.history: list[LeaseState] = []  # as a watch delivers it
        self._version = 0

    def swap(self, new: LeaseState) -> LeaseState | None:
        if (new.version or "") != (self.record.version if self.record else ""):
            return None
        self._version += 1
        self.record = replace(new, version=str(self._version))
        self.history.append(self.record)
        return self.record


def turn(lease: Lease, store: Store, now: float) -> object:
    """One action, executed immediately."""
    action = lease.poll(now)
    if isinstance(action, Read):
        lease.seen(store.record, now)
    elif isinstance(action, WriteLease):
        written = store.swap(action.record)
        if written:
            lease.written(written, now)
        else:
            lease.conflict(now)
    return action


def run(lease: Lease, store: Store, start: float, end: float) -> None:
    now = start
    while now < end:
        action = turn(lease, store, now)
        now = max(now, action.until) if isinstance(action, Wait) else now + 0.01


def test_the_first_takes_it_at_once_and_keeps_it() -> None:
    store, a = Store(), Lease("a", TIMING)
    run(a, store, 0, 0.1)
    assert a.leading(0.1)
    run(a, store, 0.1, 60)
    assert a.leading(60) and store.record is not None
    assert store.record.transitions == 1
    assert 60 / 1.25 - 2 < store.record.renewals < 60 / 1.25 + 3


def test_another_takes_it_only_after_the_whole_duration() -> None:
    store, a, b = Store(), Lease("a", TIMING), Lease("b", TIMING)
    run(a, store, 0, 0.1)  # and is stopped
    run(b, store, 0.2, 4.1)
    assert not b.leading(4.1)
    run(b, store, 4.1, 4.8)
    assert b.leading(4.8) and not a.leading(4.8)
    assert store.record is not None and store.record.transitions == 2


def test_a_record_as_old_as_the_hills_is_still_waited_for() -> None:
    """The age of the record by the wall clock proves nothing: the holder may renew it at any moment."""
    store, b = Store(), Lease("b", TIMING)
    store.swap(LeaseState("a", 4.0))
    run(b, store, 1000, 1003.9)
    assert not b.leading(1003.9)
    run(b, store, 1003.9, 1004.6)
    assert b.leading(1004.6)


def test_a_longer_duration_of_the_holder_is_respected() -> None:
    store, b = Store(), Lease("b", TIMING)
    store.swap(LeaseState("a", 15.0))
    run(b, store, 0, 14.9)
    assert not b.leading(14.9)
    run(b, store, 14.9, 15.6)
    assert b.leading(15.6)


def test_released_and_taken_at_once() -> None:
    store, a, b = Store(), Lease("a", TIMING), Lease("b", TIMING)
    run(a, store, 0, 1)
    run(b, store, 0.5, 1)
    a.release(1.0)
    assert not a.leading(1.0)
    assert isinstance(turn(a, store, 1.0), WriteLease)
    assert isinstance(turn(a, store, 1.0), Done)
    assert store.record is not None and store.record.holder == ""
    run(b, store, 1.0, 1.6)
    assert b.leading(1.6)


def test_release_while_a_write_is_under_way() -> None:
    store, a = Store(), Lease("a", TIMING)
    run(a, store, 0, 1)
    action = a.poll(1.3)
    assert isinstance(action, WriteLease)
    a.release(1.35)
    written = store.swap(action.record)
    assert written
    a.written(written, 1.4)
    assert not a.leading(1.4)
    assert isinstance(turn(a, store, 1.4), WriteLease)
    assert store.record is not None and store.record.holder == ""


def test_without_answers_it_stops_leading_by_itself() -> None:
    store, a = Store(), Lease("a", TIMING)
    turn(a, store, 0.0)
    turn(a, store, 0.0)
    assert a.leading(2.49) and not a.leading(2.5)
    assert a.leading_until(1.0) == 2.5
    now = 1.25
    while now < 2.5:
        action = a.poll(now)
        if isinstance(action, Wait):
            now = action.until
        else:
            assert isinstance(action, (Read, WriteLease))
            now += 0.1
            a.unavailable(now)
    assert not a.leading(2.5)
    assert a.leading_until(3.0) == 3.0


def test_a_write_of_the_leader_has_a_deadline_within_its_lease() -> None:
    store, a = Store(), Lease("a", TIMING)
    turn(a, store, 0.0)
    turn(a, store, 0.0)
    action = a.poll(2.2)
    assert isinstance(action, WriteLease)
    assert action.deadline <= 0.3 + 1e-9


def test_a_write_whose_answer_was_lost_is_recognised() -> None:
    store, a = Store(), Lease("a", TIMING)
    turn(a, store, 0.0)
    action = a.poll(0.0)
    assert isinstance(action, WriteLease)
    store.swap(action.record)
    a.unavailable(1.0)
    assert not a.leading(1.0)
    run(a, store, 1.0, 1.6)
    assert a.leading(1.6)


def test_somebody_else_overwrote_it_by_hand() -> None:
    store, a = Store(), Lease("a", TIMING)
    run(a, store, 0, 1)
    assert store.record
    store.swap(replace(store.record, holder="someone"))
    run(a, store, 1, 1.5)
    assert not a.leading(1.5) and a.holder == "someone"


def test_two_outcomes_are_a_mistake() -> None:
    a = Lease("a", TIMING)
    a.poll(0.0)
    with pytest.raises(AssertionError):
        a.poll(0.0)


# --- with a watch


def watched(
    leases: list[Lease], store: Store, start: float, end: float, lag: float = 0.0
) -> list[tuple[float, object]]:
    """All leases act when due, and learn of each change after ``lag`` seconds. Returns all actions except waits."""
    done: list[tuple[float, object]] = []
    told = len(store.history)
    pending: list[tuple[float, LeaseState]] = []
    now = start
    while now < end:
        for lease in leases:
            action = turn(lease, store, now)
            if not isinstance(action, Wait):
                done.append((now, action))
        pending += [(now + lag, record) for record in store.history[told:]]
        told = len(store.history)
        for due, record in [entry for entry in pending if entry[0] <= now]:
            for lease in leases:
                lease.heard(record.version, record.holder, now)
            pending.remove((due, record))
        now += 0.01
    return done


@pytest.mark.parametrize("lag", [0.0, 0.3, 1.0])
def test_a_watch_saves_the_candidates_their_reading(lag: float) -> None:
    store, leases = Store(), [Lease(name, TIMING) for name in "abc"]
    watched(leases, store, 0, 10, lag)
    (leader,) = [lease for lease in leases if lease.leading(10)]
    done = watched(leases, store, 10, 40, lag)
    assert len([action for _, action in done if isinstance(action, Read)]) <= 2
    others = [lease for lease in leases if lease is not leader]
    last = store.record.renewals if store.record else 0
    watched(others, store, 40, 43.9 - 1.25 + lag, lag)
    assert store.record and store.record.renewals == last, "not before the lease is over"
    watched(others, store, 43.9 - 1.25 + lag, 44.6 + lag, lag)
    assert any(lease.leading(44.6 + lag) for lease in others), "and not much later either"


def test_a_release_that_is_heard_is_taken_at_once() -> None:
    store, a, b = Store(), Lease("a", TIMING), Lease("b", TIMING)
    watched([a, b], store, 0, 5)
    (leader,) = [lease for lease in (a, b) if lease.leading(5)]
    (other,) = [lease for lease in (a, b) if lease is not leader]
    leader.release(5)
    watched([a, b], store, 5, 5.1)
    assert other.leading(5.1)


def test_a_watch_that_has_stopped_does_not_keep_anybody_from_leading() -> None:
    store, a, b = Store(), Lease("a", TIMING), Lease("b", TIMING)
    run(a, store, 0, 0.1)
    turn(b, store, 0.2)
    b.heard("some old version", "a", 0.3)
    reads = 0
    now = 0.3
    while now < 5:
        action = turn(b, store, now)
        reads += isinstance(action, Read)
        now = max(now + 0.01, action.until) if isinstance(action, Wait) else now + 0.01
    assert b.leading(5) and reads < 5


def test_a_lease_that_is_deleted_is_not_free_while_its_holder_may_lead() -> None:
    store, a, b = Store(), Lease("a", TIMING), Lease("b", TIMING)
    run(a, store, 0, 1)
    run(b, store, 0.5, 1)
    store.record = None
    b.heard("", "", 1.0)
    turn(b, store, 1.0)
    assert a.leading(2.4)
    run(b, store, 1.0, 2.5)
    assert not b.leading(2.5)
    run(b, store, 2.5, 6.0)
    assert b.leading(6.0)


# --- several machines, many interleavings


@dataclass
class Machine:
    name: str
    skew: float  # offset of its clock from the true time
    rate: float  # speed of its clock, relative to the true time
    starts: int = 0
    acts_at: float = 0.0  # true time of its next step
    outcome: Callable[[Lease, float], None] | None = None  # what it learns at that time

    def __post_init__(self) -> None:
        self.restart()

    def restart(self) -> None:
        self.lease = Lease(f"{self.name}.{self.starts}", TIMING)
        self.starts += 1

    def clock(self, true: float) -> float:
        return true * self.rate + self.skew


@dataclass(frozen=True)
class Fate:
    """The conditions of one step of a machine; times in seconds."""

    stopped: float  # the machine is stopped before it processes the result of its step
    there: float  # until a request arrives
    back: float  # until the answer arrives
    kind: str
    hears: int | None  # before the step, a watch delivers the record from this many changes ago


fates = st.builds(
    Fate,
    stopped=st.sampled_from([0.0, 0.0, 0.0, 0.0, 0.3, 1.3, 2.4, 2.6, 4.1, 9.0]),
    there=st.sampled_from([0.0, 0.01, 0.2, 0.9]),
    back=st.sampled_from([0.0, 0.01, 0.2, 1.2, 3.0]),
    kind=st.sampled_from(["ok"] * 9 + ["request lost", "answer lost", "request late", "release"]),
    hears=st.sampled_from([None, None, 0, 0, 0, 1, 3]),
)


class World:
    """Machines that act when due, and a store. The invariant is checked at each relevant instant: leadership starts
    only when a machine learns an outcome."""

    def __init__(self, machines: list[Machine]) -> None:
        self.store = Store()
        self.machines = machines
        self.late: list[tuple[float, LeaseState]] = []

    def step(self, fate: Fate) -> None:
        machine = min(self.machines, key=lambda m: m.acts_at)
        true = machine.acts_at
        if machine.outcome:
            machine.outcome(machine.lease, machine.clock(true))
            machine.outcome = None
            leaders = [m.lease.me for m in self.machines if m.lease.leading(m.clock(true))]
            assert len(leaders) <= 1, f"at {true}: {leaders}"
        self.arrive(true)
        if fate.kind == "release":
            machine.lease.release(machine.clock(true))
        if fate.hears is not None and self.store.history:
            heard = self.store.history[max(-len(self.store.history), -1 - fate.hears)]
            machine.lease.heard(heard.version, heard.holder, machine.clock(true))
        action = machine.lease.poll(machine.clock(true))
        if isinstance(action, Wait):
            wait = max(0.0, (action.until - machine.clock(true)) / machine.rate) + 1e-6
            machine.acts_at = true + wait + fate.stopped
        elif isinstance(action, Done):
            machine.restart()
            machine.acts_at = true + 0.1 + fate.stopped
        else:
            machine.acts_at = true + fate.there + fate.back + fate.stopped
            machine.outcome = self.request(action, true, fate)

    def arrive(self, until: float) -> None:
        for item in sorted((item for item in self.late if item[0] <= until), key=lambda item: item[0]):
            self.store.swap(item[1])
            self.late.remove(item)

    def request(self, action: Read | WriteLease, true: float, fate: Fate) -> Callable[[Lease, float], None]:
        """Takes effect at once (one of the instants at which it may), later, or never."""
        record = self.store.record
        if isinstance(action, WriteLease):
            if fate.kind == "request lost":
                return Lease.unavailable
            if fate.kind == "request late":
                self.late.append((true + fate.there + 3 * fate.back + fate.stopped, action.record))
                return Lease.unavailable
            written = self.store.swap(action.record)
            if fate.kind == "answer lost":
                return Lease.unavailable
            return (lambda lease, now: lease.written(written, now)) if written else Lease.conflict
        if fate.kind in ("request lost", "answer lost", "request late"):
            return Lease.unavailable
        return lambda lease, now: lease.seen(record, now)


@settings(max_examples=300, deadline=None)
@given(
    course=st.lists(fates, min_size=40, max_size=150),
    skews=st.tuples(*[st.floats(-1e5, 1e5)] * 3),
    rates=st.tuples(*[st.floats(0.98, 1.02)] * 3),
)
def test_never_two_leaders(
    course: list[Fate], skews: tuple[float, float, float], rates: tuple[float, float, float]
) -> None:
    """Three machines whose clocks differ in offset and rate (2 %: far beyond any crystal), stopped at any point. Their
    requests are lost, answered late, or executed long after the machine gave them up."""
    world = World([Machine(name, skew, rate) for name, skew, rate in zip("abc", skews, rates, strict=True)])
    for fate in course:
        world.step(fate)


@settings(max_examples=50, deadline=None)
@given(steps=st.lists(st.tuples(st.integers(0, 2), st.floats(0.01, 0.4)), min_size=150, max_size=150))
def test_somebody_leads_in_the_end(steps: list[tuple[int, float]]) -> None:
    """Without faults, exactly one leader remains after candidates have come and gone."""
    store = Store()
    leases = [Lease(name, TIMING) for name in "abc"]
    now = 0.0
    for who, pause in steps:
        now += pause / 10
        turn(leases[who], store, now)
    for _ in range(3000):
        now += 0.01
        for lease in leases:
            turn(lease, store, now)
    assert sum(lease.leading(now) for lease in leases) == 1
