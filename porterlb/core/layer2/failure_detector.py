"""Which nodes are alive on each of our segments: combines probes and the other replicas' statements over time.

Input: events (a tick, an answer, a hello, a change of interfaces). Output: what to send, and which nodes are dead.
Times are monotonic seconds, as arguments. The rule itself is :func:`porterlb.core.layer2.verdict.verdict`.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from porterlb.core.hello import GATEWAY, Hello, SegmentState
from porterlb.core.layer2.probes import Finding, Heard, Probe, Probes
from porterlb.core.layer2.statements import Statements
from porterlb.core.layer2.targets import Target, TargetKey
from porterlb.core.layer2.verdict import Cause, Evidence, Hearing, Judgement, Place, Verdict, Vote, verdict
from porterlb.core.model import Network
from porterlb.core.observed import Nic

CONTACT_ROUNDS = 4
"""Probe intervals for which an answer of a third party shows that our own link works: 200 ms (fast timing: 80 ms)."""

SAY_AT_ONCE = 5
"""Maximum hellos per interval: changes are sent immediately, but a lossy segment must not cause a storm of hellos."""

DIFFERS = 0.3
"""Seconds for which our view may differ from that of two other voters before it is reported."""


@dataclass(frozen=True, slots=True)
class Timing:
    """In seconds, except ``probe_misses``: the number of probes missed in a row that means silence."""

    probe_interval: float = 0.05
    probe_misses: int = 3
    hello_interval: float = 0.05
    hello_fresh: float = 0.2


MOST_SAID = 16
"""Maximum number of states of our segments that are kept."""


_Seen = tuple[tuple[bool, bool, tuple[str, ...], frozenset[str], frozenset[str]], ...]
"""For each interface: isolated, answers, contacts, suspects, silent nodes."""


class _Said(NamedTuple):
    """``urgent``: the parts of ``states`` whose change makes us send a hello at once."""

    states: tuple[SegmentState, ...]
    urgent: tuple[object, ...]


@dataclass(frozen=True, slots=True)
class Step:
    """What to do now. ``changed``: the judgement changed. ``say``: send a hello now. ``probes``: probes of bursts to
    send. ``next_at``: when to call `step` again if nothing else happens; None: only after an event."""

    changed: bool
    say: bool
    probes: tuple[Probe, ...] = ()
    next_at: float | None = None


class FailureDetector:
    """The judgement of one replica, on the node ``own``. ``heard``: as for `Probes`."""

    def __init__(self, own: str, timing: Timing, heard: Collection[str] = ()) -> None:
        self._own = own
        self._timing = timing
        self.probes = Probes(timing.probe_interval, timing.probe_misses, heard)
        self.nics: Mapping[int, Nic] = {}
        self.statements = Statements(timing.hello_interval, timing.hello_fresh)
        self._members: Collection[str] = ()
        self._findings: dict[Place, Finding] = {}
        self._differs: dict[int, float] = {}
        self._told: object = ()
        self._spoken = 0.0
        self._asked = False  # another replica suspects us, and waits for our hello
        self._evidence = 0.0
        self._said: dict[_Seen, _Said] = {}  # what our last hellos said
        self.judgement = Judgement()

    # ---- events

    def set_nics(self, nics: Mapping[int, Nic]) -> None:
        self.nics = {index: nic for index, nic in sorted(nics.items()) if _networks(nic)}
        self._said.clear()
        self.statements.set_segments({index: _networks(nic) for index, nic in self.nics.items()})

    def set_targets(self, targets: Iterable[Target], members: Collection[str]) -> None:
        """What is probed, and which nodes have a replica."""
        self.probes.set_targets(targets)
        self._findings = {Place(f.target.node, f.target.key.nic): f for f in self.probes.nodes}
        self._members = members

    def heard(self, nic: int, address: bytes, mac: bytes, now: float) -> Heard | None:
        """An answer from the segment; None if it changes nothing."""
        isolated = self.probes.isolated(nic, CONTACT_ROUNDS)
        heard = self.probes.heard(TargetKey(nic, address), mac, now)
        if isolated and heard is not None:
            # Our link is back. Other nodes must not be judged dead only because one node answered first.
            self.probes.ask_again(nic, self.judgement.on(nic), now)
        return heard

    def said(self, hello: Hello, now: float) -> bool:
        """A fresh replica sent a hello. Returns whether it says anything new about segments: then call `step`.

        A node that the replica suspects as a voter also gets a burst from us. A hello that suspects us is answered
        immediately.
        """
        before = self.statements.on(hello.node)
        news = self.statements.take(hello, now, self.probes.unwell.values())
        if not news:
            return False
        for nic, state in self.statements.on(hello.node).items():
            asked = before[nic].suspect | before[nic].silent if nic in before else frozenset()
            if self._own in state.suspect and self._own not in asked:
                self._asked = True
            for node in (state.suspect | state.silent) - asked:
                found = self._findings.get(Place(node, nic))
                if found is not None and state.votes_on(node):
                    self.probes.suspected_elsewhere(found.target.key, now)
        return True

    @property
    def places(self) -> Collection[Place]:
        """Every probed node, by interface."""
        return self._findings.keys()

    def is_silent(self, node: str, nic: int) -> bool:
        """Whether a node is silent by our own probes."""
        found = self._findings.get(Place(node, nic))
        return found is not None and found.silent

    @property
    def finds_silence(self) -> bool:
        """Whether our own probes find any node silent."""
        return any(found.silent for found in self.probes.unwell.values())

    def answers(self, node: str) -> bool:
        """Whether a node answers our probes on any segment."""
        return any(f.vote is Vote.HEARD for f in self.probes.nodes if f.target.node == node)

    def never_answered(self, node: str) -> bool:
        """Whether a probed node has not answered on any segment since we began to probe it."""
        of_node = [f for f in self.probes.nodes if f.target.node == node]
        return bool(of_node) and not any(f.target.last for f in of_node)

    def node_at(self, address: bytes) -> str:
        """The node with a probed address; empty: none."""
        found = (f.target.node for key, f in self.probes.findings.items() if key.address == address)
        return next(found, "")

    def mac(self, node: str, nic: int) -> bytes:
        """The MAC that last answered for a node on an interface; empty: none."""
        found = self._findings.get(Place(node, nic))
        return found.target.mac if found is not None else b""

    def left(self, node: str) -> None:
        """A replica is no longer fresh."""
        self.statements.left(node)

    def tick(self, now: float, lag: float) -> None:
        """Judges the answers; call before the probes of a tick are sent. A tick that is late by more than half an
        interval is not judged: then our own process stalled."""
        if not self.late(lag):
            self.probes.judge(now)

    def late(self, lag: float) -> bool:
        return lag > self._timing.probe_interval / 2

    def due(self, usable: Callable[[int], bool]) -> Iterator[Probe]:
        """The probes of a tick; call `sent` for each."""
        return self.probes.due(usable)

    def sent(self, key: TargetKey) -> None:
        self.probes.sent(key)

    # ---- results

    def step(self, now: float, evidence: float = 0.0) -> Step:
        """Call after events that changed something, after the probes of a tick, and at ``next_at``."""
        probes = self.probes.bursts(now)
        changed = self.judge(now, evidence)
        wanted = self._asked or self._say(now).urgent != self._told
        gap = self._timing.hello_interval / SAY_AT_ONCE
        say = wanted and now >= self._spoken + gap
        times = [self._next_at(now)]
        if wanted and not say:
            times.append(self._spoken + gap)
        return Step(changed, say, tuple(probes), min((at for at in times if at is not None), default=None))

    def speak(self, now: float, answers: Collection[int] = ()) -> tuple[SegmentState, ...]:
        """The segment states for the hello that is sent now. ``answers``: interfaces on which we answer."""
        said = self._say(now, answers)
        self._told, self._spoken, self._asked = said.urgent, now, False
        return said.states

    def judge(self, now: float, evidence: float = 0.0) -> bool:
        """Judges every node on every segment. Returns whether the judgement changed.

        ``evidence``: when anything other than an answer to a probe was last heard (a request, a BGP session).
        """
        self._evidence = evidence
        causes: dict[Place, Cause] = {}
        dead: set[Place] = set()
        for place in self._in_question():
            found = self._verdict(place, now)
            was = place in self.judgement.dead
            if found.dead or (found.dead is None and was):
                dead.add(place)
            if found.cause is not Cause.ALIVE:
                causes[place] = found.cause
        differs = self._disagreement(now)
        made = Judgement(frozenset(dead), causes, self._doubt(dead), differs)
        changed = made != self.judgement
        self.judgement = made
        return changed

    def states(self, now: float, answers: Collection[int] = ()) -> tuple[SegmentState, ...]:
        """What our hello says about each segment. ``answers``: interfaces on which we answer ARP and NDP."""
        return self._say(now, answers).states

    def _say(self, now: float, answers: Collection[int] = ()) -> _Said:
        """As `states`. Nothing is made again while we see the same: this is called with every probe and hello."""
        silent: dict[int, set[str]] = {}
        suspect: dict[int, set[str]] = {}
        for found in self.probes.unwell.values():
            known = silent if found.silent and self._votes(found, now) else suspect
            known.setdefault(found.target.key.nic, set()).add(found.target.node)
        seen = tuple(
            [
                (
                    nic.up and self.probes.isolated(index, CONTACT_ROUNDS),
                    index in answers,
                    self._contacts(index, now),
                    frozenset(suspect.get(index, ())),
                    frozenset(silent.get(index, ())),
                )
                for index, nic in self.nics.items()
            ]
        )
        said = self._said.get(seen)
        if said is None:
            if len(self._said) >= MOST_SAID:
                self._said.clear()
            states = self._states(seen)
            said = self._said[seen] = _Said(states, _urgent(states))
        return said

    def _states(self, seen: _Seen) -> tuple[SegmentState, ...]:
        return tuple(
            SegmentState(
                subnets=tuple(sorted(self.statements.networks(index), key=str)),
                up=nic.up,
                isolated=isolated,
                answers=answers,
                mac=nic.mac,
                contacts=contacts,
                suspect=suspect,
                silent=silent,
            )
            for (index, nic), (isolated, answers, contacts, suspect, silent) in zip(
                self.nics.items(), seen, strict=True
            )
        )

    def _next_at(self, now: float) -> float | None:
        """When a probe of a burst is due, or when time alone may change the judgement."""
        times = [self.probes.next_at]
        for found in self.probes.unwell.values():
            if not found.silent:
                continue
            place = Place(found.target.node, found.target.key.nic)
            times += [self.statements.stale_at(place.node), *self.statements.revoked_at(place)]
        return min((at for at in times if at is not None and at > now), default=None)

    # ---- the evidence

    def _in_question(self) -> set[Place]:
        """The nodes to judge: those with any sign of trouble. All others are alive and need no computation."""
        places = set(self.judgement.dead)
        places.update(Place(f.target.node, f.target.key.nic) for f in self.probes.unwell.values())
        places.update(self.statements.questioned)
        for index, nic in self.nics.items():
            if not nic.up or self.probes.isolated(index, CONTACT_ROUNDS):
                places.add(Place(self._own, index))
        return {place for place in places if place in self._findings or self._is_own(place)}

    def _is_own(self, place: Place) -> bool:
        return place.node == self._own and place.nic in self.nics

    def _verdict(self, place: Place, now: float) -> Verdict:
        if place.node == self._own:
            ours = self._own_state(place.nic, now)
            own = Vote.HEARD if ours.up and not ours.isolated else None
            # If we are cut off from all replicas, their hellos are stale and give no votes: none of them can take over.
            votes = self.statements.votes(place, None, now, fresh=True)
            return verdict(Evidence(Hearing.FRESH, own, votes, said=ours))
        found = self._findings[place]
        if not found.target.up:
            # Our own interface is down: we know nothing about other nodes there.
            return Verdict(None, Cause.NO_VOTER)
        hearing = self._hearing(place.node, found, now)
        votes = self.statements.votes(place, found.since, now)
        own = found.vote
        if own is not None and self._votes(found, now):
            votes[self._own] = own
        weak = found.since is not None and self._evidence > found.since
        fresh = hearing is Hearing.FRESH
        return verdict(
            Evidence(
                hearing,
                own,
                votes,
                weak=weak,
                said=self.statements.on(place.node).get(place.nic) if fresh else None,
                elsewhere=fresh and self.statements.names_others_only(place),
            )
        )

    def _own_state(self, nic: int, now: float) -> SegmentState:
        ours = self.nics[nic]
        isolated = ours.up and self.probes.isolated(nic, CONTACT_ROUNDS)
        return SegmentState((), up=ours.up, isolated=isolated, contacts=self._contacts(nic, now))

    def _contacts(self, nic: int, now: float) -> tuple[str, ...]:
        return self.probes.contacts(nic, now - CONTACT_ROUNDS * self._timing.probe_interval)

    def _hearing(self, node: str, found: Finding, now: float) -> Hearing:
        stale_at = self.statements.stale_at(node)
        if stale_at is None:
            return Hearing.STALE if node in self._members else Hearing.NONE
        suspected = found.since is not None or found.silent
        return Hearing.STALE if suspected and now >= stale_at else Hearing.FRESH

    def _votes(self, found: Finding, now: float) -> bool:
        """Whether we are a voter about this node: a third party answered us, after the suspicion if there is one."""
        nic, node = found.target.key.nic, found.target.node
        since = now - CONTACT_ROUNDS * self._timing.probe_interval
        if found.since is not None:
            since = max(since, found.since)
        return bool(self.probes.contacts(nic, since, but=node))

    def _disagreement(self, now: float) -> frozenset[int]:
        """Interfaces on which two other voters, for at least DIFFERS seconds, hear nodes that we find silent."""
        against: dict[int, set[str]] = {}
        for found in self.probes.unwell.values():
            if found.silent and found.target.last:
                place = Place(found.target.node, found.target.key.nic)
                votes = self.statements.votes(place, found.since, now)
                against.setdefault(place.nic, set()).update(name for name, vote in votes.items() if vote is Vote.HEARD)
        differs = [nic for nic, others in against.items() if len(others) >= 2]
        self._differs = {nic: self._differs.get(nic, now) for nic in differs}
        return frozenset(nic for nic, since in self._differs.items() if now - since >= DIFFERS)

    def _doubt(self, dead: Collection[Place]) -> bool:
        """Whether we hear no other host at all: every node that ever answered is silent without a verdict, no gateway
        answers, and no hello has arrived since."""
        if not any(not nic.up for nic in self.nics.values()) and not any(f.silent for f in self.probes.unwell.values()):
            return False
        known = [f for f in self.probes.nodes if f.target.last]
        if not known:
            return False
        if not any(found.target.up for found in known):
            return True
        undecided = [f for f in known if f.silent and Place(f.target.node, f.target.key.nic) not in dead]
        if not undecided or any(not found.silent and found.target.up for found in known):
            return False
        first = min(found.since for found in undecided if found.since is not None)
        gateways = [f.target.last for f in self.probes.findings.values() if f.target.node == GATEWAY]
        return max([self.statements.latest, *gateways]) < first


def _urgent(states: tuple[SegmentState, ...]) -> tuple[object, ...]:
    """The parts of these states whose change makes us send a hello immediately."""
    return tuple((s.subnets, s.up, s.isolated, s.suspect, s.silent, bool(s.contacts)) for s in states)


def _networks(nic: Nic) -> frozenset[Network]:
    """The subnets of an interface that form a segment; none for a bridge that only connects workloads on this node."""
    if nic.inner:
        return frozenset()
    return frozenset(
        own.network
        for own in nic.addresses
        if not own.is_link_local and not own.is_loopback and own.network.prefixlen < own.max_prefixlen
    )
