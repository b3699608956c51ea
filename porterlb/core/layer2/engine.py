"""Layer 2 of one replica: every event goes in here, with its time, and the actions that follow come out.

The parts decide: `Nodes` who lives, `Serving` whether we may serve, `VipTable` who answers for each VIP, `Announcer`
when to announce, `Hellos` which hellos count, `DuplicateDetection` and `Conflicts` who else has an address. This
composes them: what a change in one means for the others.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from ipaddress import ip_address
from typing import Any

from porterlb.core.desired import DesiredWire
from porterlb.core.hello import Change, Hello, Refusal, claimed_node
from porterlb.core.layer2.actions import (
    Action,
    Announce,
    CheckAddress,
    CloseInterface,
    DropInterface,
    End,
    FindGateways,
    FindRoute,
    Note,
    NoteKind,
    OpenInterface,
    Report,
    Say,
    SendProbes,
    SetHelloPeers,
    Settled,
)
from porterlb.core.layer2.announcer import Announcer
from porterlb.core.layer2.conflicts import Conflicts
from porterlb.core.layer2.dad import DuplicateDetection
from porterlb.core.layer2.double_answers import DoubleAnswers
from porterlb.core.layer2.failure_detector import Timing
from porterlb.core.layer2.hellos import Hellos
from porterlb.core.layer2.interfaces import InterfaceTable
from porterlb.core.layer2.nodes import Nodes
from porterlb.core.layer2.notices import of_segments
from porterlb.core.layer2.serving import LISTEN, Serving, ServingEvent, ServingState, Transition
from porterlb.core.layer2.surroundings import Surroundings
from porterlb.core.layer2.targets import Gateway, find_targets
from porterlb.core.layer2.verdict import Place
from porterlb.core.layer2.vips import Vip, VipTable
from porterlb.core.model import Address
from porterlb.core.observed import Nic, Notice, NoticeKind
from porterlb.core.wire_text import WireConfig

HOUSEKEEPING = 0.25
"""Seconds between two calls of `housekeeping`."""
_SECOND = 4  # housekeepings
_GATEWAY_CHECK = 40  # housekeepings between two looks at the default routes: the kernel does not notify us of them
REFUSED_FOR = 10.0
"""Seconds for which a refused hello is reported after the last one."""
_REFUSED = {
    Refusal.WRONG_KEY: NoticeKind.WRONG_KEY,
    Refusal.REPLAY: NoticeKind.OLD_BOOT,
    Refusal.VERSION: NoticeKind.OTHER_VERSION,
    Refusal.OWN_NAME: NoticeKind.OWN_NAME,
}
_GOODBYES = (0.01, 0.02)  # seconds after the first goodbye, which may be lost


class Layer2:
    """Each event returns the actions to carry out, in their order. Call `wake` at `next_at`, and `step` while `busy`.

    Args:
        chance: a number in [0, 1), anew with each call.
    """

    def __init__(self, config: WireConfig, now: float, chance: Callable[[], float]) -> None:
        self._config = config
        self._own = config.node
        self._wanted = DesiredWire()
        self._confirmed = now
        self._planned_anew = True  # since our own node counted as alive again
        self._revived_at = 0.0  # when our own node counted as alive again
        self._goal: int | None = None  # digest to report as applied when all is decided
        self._chores = 0
        self._goodbyes: list[float] = []
        self._actions: list[Action] = []
        self.counters: dict[str, int] = {}
        self.interfaces = InterfaceTable()
        timing = Timing(config.probe_interval, config.probe_misses, config.hello_interval, config.hello_fresh)
        self.nodes = Nodes(config.node, timing)
        self.hellos = Hellos(config.node, config.key, config.hello_interval, config.hello_fresh)
        self.serving = Serving(now, config.silence_after, config.hello_fresh)
        self._around = Surroundings(config.node, self.interfaces, self.nodes, self.hellos, self.serving)
        self._announcer = Announcer(config.gratuitous_rate, chance, now)
        self._vips = VipTable(self._around, self._announcer)
        self._dad = DuplicateDetection(config.gratuitous_rate, now)
        self._conflicts = Conflicts()
        self._doubles = DoubleAnswers()
        self._refused: dict[str, tuple[NoticeKind, float]] = {}  # members whose hellos are refused, and since when last
        self._notices: tuple[Notice, ...] = ()
        self._doubt = False
        self._link_heard = 0.0
        self._detector_at: float | None = None  # when the failure detector is to be asked again

    # ---- what holds

    @property
    def vips(self) -> Mapping[bytes, Vip]:
        """The VIPs by packed address: one mapping that is changed in place."""
        return self._vips.by_packed

    @property
    def busy(self) -> bool:
        return self._vips.busy

    @property
    def next_at(self) -> float | None:
        times = (
            self._announcer.next_at,
            self._dad.next_at,
            self.hellos.next_at,
            self.serving.next_at,
            self._detector_at,
            self._doubles.next_at,
        )
        pending = [at for at in (*times, *self._goodbyes[:1]) if at is not None]
        return min(pending, default=None)

    def fit(self, now: float) -> bool:
        """Whether we may send answers: not just out of a stall in which the others have taken over."""
        return now - self._confirmed < self._config.hello_fresh

    def count(self, name: str, by: int) -> None:
        if by:
            self.counters[name] = self.counters.get(name, 0) + by

    # ---- time

    def step(self, now: float) -> list[Action]:
        """Decides the next few VIPs."""
        self._actions += self._vips.step(now)
        return self._done()

    def wake(self, now: float, link_heard: float) -> list[Action]:
        """Does what is due. ``link_heard``: when a question or anything else was last received from the segment."""
        self._link_heard = link_heard
        if self._detector_at is not None and self._detector_at <= now:
            self._take_verdict(now)
        if self._doubles.next_at is not None and self._doubles.next_at <= now:
            self._settle_doubles(now)
        if self.serving.check_overlap(now):
            self._overlap_ended()
        if self._goodbyes and self._goodbyes[0] <= now:
            self._goodbyes.pop(0)
            self._say(now, goodbye=True)
        if self.hellos.next_at is not None and self.hellos.next_at <= now:
            heard = max(self.nodes.latest, link_heard)
            for node in sorted(self.hellos.expire(now, heard, self._doubt)):
                self._replica_left(node, now)
        for vip in self._announcer.due(now):
            self._announce(vip, now)
        step = self._dad.due(now, lambda address: self.interfaces.on_link(address) is not None)
        decided = step.decided
        for address in step.probes:
            nic = self.interfaces.on_link(address)
            assert nic is not None
            if any(interface.ip == address for interface in nic.addresses):
                decided = self._dad.heard(address.packed, nic.mac) or decided
            self._actions.append(CheckAddress(nic.index, address))
        if decided:
            self._report_checked()
        return self._done()

    def probe(self, now: float, lag: float, link_heard: float) -> list[Action]:
        """Once a probe interval, after the answers were taken in and before the next probes: who is dead?"""
        self._link_heard = link_heard
        detector = self.nodes.detector
        detector.tick(now, lag)
        self.count("judgements_skipped", int(detector.late(lag)))
        self._take_verdict(now)
        return self._done()

    def hello_tick(self, now: float) -> list[Action]:
        """Once a hello interval; after a stall, take the hellos of the others in first."""
        self._confirmed = now
        since = self.hellos.heard_since(self.serving.returned_at)
        # While our own node counts as dead, our plan equals that of the others who hold it for dead. The plan that
        # counts is made once the node is alive again; it is told soon, or it is the same.
        current = self._planned_anew or now - self._revived_at >= LISTEN
        if self._own not in self._around.dead and current:
            self._entered(self.serving.check_returned(since, self._wanted.digest, now), now)
        if not self.serving.said_goodbye:
            self._say(now)
        return self._done()

    def housekeeping(self, now: float, lag: float) -> list[Action]:
        """Each HOUSEKEEPING seconds."""
        self._chores += 1
        self._entered(self.serving.check_manager(now, lag), now)
        self._entered(self.serving.check_listened(now), now)
        if self._chores % _SECOND == 0 and self.interfaces.try_again():
            self._vips.touch_all()
        if self._chores % _GATEWAY_CHECK == 0:
            self._actions.append(FindGateways())
        if self.serving.listened(now):
            review = self._conflicts.review(now, self.nodes.known())
            for address in review.defend:
                self._announce(address, now, defence=True)
            if review.changed:
                self._report(rivals=self._conflicts.found)
        if self._chores % _SECOND == 0:
            self._take_notices(now)
            self._report(counters=dict(self.counters))
        return self._done()

    # ---- what the manager says

    def beat(self, now: float) -> list[Action]:
        """The manager said something: comes before what it said."""
        self._entered(self.serving.beat(now), now)
        return self._done()

    def want_vips(self, rows: Iterable[Sequence[Any]], gone: Collection[str]) -> list[Action]:
        """A piece of the wanted set: see `VipTable.wanted`."""
        for text in gone:
            vip = self._vips.find(text)
            if vip is not None:
                self._conflicts.forget(vip.packed)
                self._doubles.forget(vip.packed)
                self._around.yielded.pop(vip.packed, None)
        self._actions += self._vips.wanted(rows, gone)
        return self._done()

    def want(self, wanted: DesiredWire, now: float) -> list[Action]:
        """Everything of the wanted set but the VIPs."""
        old, self._wanted = self._wanted, replace(wanted, digest=self._wanted.digest)
        if wanted.members != old.members:
            self._around.members = wanted.members
            self._around.forget()
            gone = self.hellos.set_members(wanted.members)
            self._actions.append(SetHelloPeers(wanted.members))
            for node in sorted(gone):
                self._replica_left(node, now)
        if wanted.members != old.members or wanted.nodes != old.nodes:
            self._actions.append(FindGateways())
        if wanted.leader != old.leader:
            self._around.leader = wanted.leader
            self._vips.replica_came(wanted.leader)
        if wanted.check != old.check:
            self._dad.want(wanted.check, now)
            self._report_checked()
        if _told(wanted) != _told(old):
            self._say(now)
        return self._done()

    def want_applied(self, digest: int) -> list[Action]:
        """The wanted set is complete up to here."""
        self._goal = digest
        self._planned_anew = True
        self._wanted = replace(self._wanted, digest=digest)
        self.serving.complete()
        self._actions.append(Settled())
        return self._done()

    def stop(self, now: float) -> list[Action]:
        """Hands over: the others are told first; after a short overlap we stop answering, and the process ends."""
        self._entered(self.serving.stop(now), now)
        return self._done()

    # ---- interfaces and routes

    def nics_changed(self, nics: Mapping[int, Nic], now: float) -> list[Action]:
        """The whole table of interfaces."""
        self.nodes.set_nics(nics)
        change = self.interfaces.update(nics)
        if change is not None:
            self._actions += [CloseInterface(index) for index in change.closed]
            self._actions += [DropInterface(index) for index in change.gone]
            self._around.forget()
            self._actions.append(FindGateways())
            self._report(nics=tuple(nic for nic in nics.values() if nic.addresses))
            self._vips.touch_all()
            self._say(now)
        return self._done()

    def gateways_found(self, gateways: Iterable[Gateway]) -> list[Action]:
        """Finds what to probe, after a change of nodes, members, interfaces or the default route."""
        nics = self.interfaces.nics.values()
        targets = find_targets(self._own, self._wanted.nodes, self._wanted.members, nics, gateways)
        self.nodes.set_targets(targets, self._wanted.members.keys(), self._own_addresses())
        for target in targets:
            self.interfaces.use(target.key.nic)
        self._report(probed=self.nodes.probed)
        return self._done()

    def route_found(self, goal: Address, index: int) -> list[Action]:
        """Which interface leads to ``goal``; 0: none."""
        self.interfaces.route_found(goal, index)
        self._vips.route_found(goal)
        return self._done()

    def interface_failed(self, index: int, trouble: str, now: float) -> list[Action]:
        """Sockets of an interface could not be opened, or cannot go on: it is given up; housekeeping tries again."""
        self.interfaces.failed(index, trouble)
        self._actions.append(CloseInterface(index))
        self._around.forget()
        self._vips.touch_all()
        self._say(now)
        return self._done()

    # ---- what is heard

    def hello(self, data: bytes, now: float) -> list[Action]:
        """A datagram on the hello port."""
        change = self.hellos.receive(data, now)
        if not isinstance(change, Change):
            self.count(f"hellos_{change.value}", 1)
            self._refuse(change, data, now)
            return []
        self.count("hellos_heard", 1)
        hello = change.hello
        if change.left:
            self._replica_left(hello.node, now)
            return self._done()
        segments = self.nodes.said(hello, now)
        if change.news:
            self._around.forget()
            if hello.answers:
                self._vips.replica_came(hello.node)
            else:
                self._vips.replica_left(hello.node)
            self._take_verdict(now)
            self._report(change.came, fresh=self.hellos.fresh)
        elif segments:
            self._take_verdict(now)
        return self._done()

    def heard(self, nic: int, address: bytes, mac: bytes, now: float) -> list[Action]:
        """An ARP reply or an advertisement: ``address`` is at ``mac``."""
        change = self.nodes.heard(nic, address, mac, now)
        if change is not None:
            if change.mac:
                self._vips.mac_changed(change.node)
            self._take_verdict(now)
        is_vip, known = address in self._vips.by_packed, self.nodes.is_known(mac)
        if (not is_vip or not known) and self._dad.heard(address, mac):
            self._report_checked()
        if is_vip and not known:
            self._conflicts.claim(address, mac, now)
        elif is_vip:
            self._claimed_by_ours(address, mac, now)
            self._settle_doubles(now)
        return self._done()

    def claimed(self, address: bytes, mac: bytes, now: float) -> None:
        """A question came from a host that says that it has ``address``, which is a VIP."""
        if self.nodes.is_known(mac):
            self._claimed_by_ours(address, mac, now)
        elif not mac[0] & 1:
            self._conflicts.claim(address, mac, now)

    def _claimed_by_ours(self, address: bytes, mac: bytes, now: float) -> None:
        """A node of ours has a VIP, by its own announcement or answer."""
        vip = self._vips.by_packed.get(address)
        if vip is None or vip.usage is None or vip.mac == mac or not (vip.mac or address in self._around.yielded):
            return
        node = self.nodes.node_with(mac, vip.usage.ifindex)
        if node:
            self._doubles.claim(address, node, now)

    def announced(self, address: bytes, sent: bool, now: float, *, defence: bool = False) -> None:
        """The outcome of an Announce."""
        if not defence:
            self._announcer.done(address, sent, now)
        elif sent:
            self._conflicts.defended(address, now)
            self.count("defences", 1)

    # ---- inside

    def _done(self) -> list[Action]:
        """The actions of this event, with interfaces opened before they are used."""
        if self._goal is not None and (self._vips.settled or self.serving.frozen):
            self._report(applied=self._goal)
            self._goal = None
        opened: list[Action] = [OpenInterface(nic) for nic in self.interfaces.to_open]
        found: list[Action] = [FindRoute(goal) for goal in self.interfaces.to_find]
        self.interfaces.to_open.clear()
        self.interfaces.to_find.clear()
        actions, self._actions = self._actions, []
        if not opened and not found:
            return actions
        closing = [action for action in actions if isinstance(action, CloseInterface | DropInterface)]
        rest = [action for action in actions if not isinstance(action, CloseInterface | DropInterface)]
        return [*closing, *opened, *rest, *found]

    def _report(self, at_once: bool = False, **fields: Any) -> None:
        self._actions.append(Report(fields, at_once))

    def _report_checked(self) -> None:
        self._report(claimed=dict(self._dad.claimed), clear=frozenset(self._dad.clear))

    def _announce(self, address: bytes, now: float, *, defence: bool = False) -> None:
        index = 0 if self.serving.frozen else self._vips.announced_on(address)
        if index:
            self._actions.append(Announce(index, address, defence))
        else:
            self.announced(address, False, now, defence=defence)

    def _entered(self, change: Transition | None, now: float) -> None:
        """What follows from a transition."""
        if change is None:
            return
        self._around.forget()
        if change.event in (ServingEvent.READY, ServingEvent.READY_IN_DOUBT):
            self._vips.touch_all()
            self._say(now)
            # Also what is empty: the manager may still have what a wire process before us said.
            fresh, rivals = self.hellos.fresh, self._conflicts.found
            self._report(
                dead=self._around.dead, dead_on=self._dead_on(), fresh=fresh, doubt=self.serving.frozen, rivals=rivals
            )
        elif change.state in (ServingState.SILENT, ServingState.LEAVING):
            self._goodbyes = [now + after for after in _GOODBYES]
            self._say(now, goodbye=True)
            if change.state is ServingState.SILENT:
                self._actions.append(Note(NoteKind.MANAGER_SILENT))
        elif change.event is ServingEvent.MANAGER_BACK:
            self._goodbyes.clear()
            self._vips.touch_all()
            self._actions.append(Note(NoteKind.MANAGER_BACK))
        elif change.state is ServingState.RETURNED:
            self._say(now)

    def _overlap_ended(self) -> None:
        """After a goodbye we have answered long enough."""
        self._around.forget()
        if self.serving.state is ServingState.LEAVING:
            self._announcer.close()
            self._actions.append(End())
        else:
            self._vips.touch_all()

    def _take_verdict(self, now: float) -> None:
        """Brings what follows from deaths, revivals and doubt in line with what is known now."""
        evidence = self._link_heard
        if self._wanted.sessions and not self.nodes.gateways:
            evidence = now  # a BGP session stays up for its hold time: only where there is nothing better
        step = self.nodes.step(now, evidence)
        self._detector_at = step.next_at
        if step.probes:
            self._actions.append(SendProbes(step.probes))
        if step.changed:
            self._judged(now)
        if step.say:
            self._say(now)

    def _judged(self, now: float) -> None:
        """The judgement of the failure detector is another one."""
        judgement = self.nodes.judgement
        if judgement.doubt != self._doubt:
            self._doubt = judgement.doubt
            self._report(True, doubt=self._doubt)
            others = bool(self._wanted.members.keys() - {self._own})
            self._entered(self.serving.doubt(self._doubt, others, now), now)
            if not self._doubt:
                self._vips.touch_again()
        before = self._around.dead_places
        if judgement.dead == before or self._doubt:
            return
        dead = self.nodes.dead
        died, revived = dead - self._around.dead, self._around.dead - dead
        if self._own in revived:
            self._revived_at, self._planned_anew = now, False
        self._around.dead, self._around.dead_places = dead, judgement.dead
        self._around.forget()
        self.count("deaths", len(died - {self._own}))
        self._report(True, dead=dead, dead_on=self._dead_on())
        for node in sorted(died):
            self._actions.append(Note(NoteKind.NODE_DIED, node))
        self._actions += [Note(NoteKind.NODE_REVIVED, node) for node in sorted(revived)]
        for place in sorted(judgement.dead - before):
            self._vips.node_died(place.node, now)
            if place.node not in dead:
                self._actions.append(Note(NoteKind.DEAD_ON_SEGMENT, self._told_of(place)))
        if judgement.dead - before and self._own in {place.node for place in judgement.dead - before}:
            self._vips.touch_all()  # we answered on behalf of others too
        for place in sorted(before - judgement.dead):
            if place.node not in revived:
                self._actions.append(Note(NoteKind.ALIVE_ON_SEGMENT, self._told_of(place)))
        if before - judgement.dead:
            self._vips.touch_again()  # a partition has two sides: they may have held us for dead
        self._say(now)

    def _own_addresses(self) -> tuple[Address, ...]:
        """Our InternalIPs, else our hello address: the manager names only the nodes to probe, not our own."""
        member = self._wanted.members.get(self._own)
        named = self._wanted.nodes.get(self._own, ())
        return named or ((ip_address(member.address),) if member is not None and member.address else ())

    def _told_of(self, place: Place) -> str:
        nic = self.interfaces.nics.get(place.nic)
        return f"{place.node} ({nic.name if nic is not None else place.nic})"

    def _dead_on(self) -> dict[str, frozenset[str]]:
        """Dead nodes by connected subnet."""
        found: dict[str, frozenset[str]] = {}
        for nic in {place.nic for place in self._around.dead_places}:
            for network in self.nodes.detector.statements.networks(nic):
                found[str(network)] = self.nodes.judgement.on(nic)
        return found

    def _settle_doubles(self, now: float) -> None:
        def ours(address: bytes) -> tuple[str, str]:
            vip = self._vips.by_packed.get(address)
            return (vip.text, vip.served.next_hop) if vip is not None and vip.mac and vip.served else ("", "")

        settled = self._doubles.review(now, ours)
        for address in settled.ask:
            vip = self._vips.by_packed.get(address)
            if vip is not None and vip.usage is not None:
                self._actions.append(CheckAddress(vip.usage.ifindex, vip.address))
            if vip is not None and vip.mac:
                self._announce(address, now, defence=True)  # the other one is to notice it too
        for address, node in settled.silence:
            self._around.yielded[address] = node
            self._vips.settled_with(address)
            self.count("double_answers", 1)
            self._actions.append(Note(NoteKind.TWO_ANSWERS, f"{ip_address(address)} ({node})"))
        for address in settled.resume:
            self._around.yielded.pop(address, None)
            self._vips.settled_with(address)

    def _refuse(self, refusal: Refusal, data: bytes, now: float) -> None:
        """Remembers whose hellos are refused, as far as they are members that we do not hear."""
        kind = _REFUSED.get(refusal)
        node = claimed_node(data)
        mine = node == self._own
        if kind is None or node not in self._wanted.members or mine is not (refusal is Refusal.OWN_NAME):
            return
        if mine or node not in self.hellos.fresh:
            self._refused[node] = (kind, now)

    def _take_notices(self, now: float) -> None:
        found = of_segments(self.nodes, self._own)
        self._refused = {node: (kind, at) for node, (kind, at) in self._refused.items() if now - at < REFUSED_FOR}
        fresh = self.hellos.fresh
        for kind in _REFUSED.values():
            named = [n for n, (why, _) in self._refused.items() if why is kind and (n == self._own or n not in fresh)]
            if named:
                found.append(Notice(kind, "", tuple(sorted(named))))
        others = self._wanted.members.keys() - {self._own}
        if self.serving.listened(now) and others and not fresh:
            quiet = [node for node in sorted(others - self._refused.keys()) if self.nodes.detector.answers(node)]
            if quiet:
                found.append(Notice(NoticeKind.HELLOS_MISSING, "", tuple(quiet)))
        doubles = self._doubles.confirmed.items()
        found += [Notice(NoticeKind.TWO_ANSWERS, str(ip_address(address)), (node,)) for address, node in doubles]
        notices = tuple(found)
        if notices != self._notices:
            self._notices = notices
            self._report(notices=notices)

    def _replica_left(self, node: str, now: float) -> None:
        self.nodes.left(node)
        self._around.forget()
        self._report(True, fresh=self.hellos.fresh)
        self._vips.replica_left(node)
        self._take_verdict(now)

    def _say(self, now: float, *, goodbye: bool = False) -> None:
        """Says our hello now; after a goodbye nothing but goodbyes."""
        member = self._wanted.members.get(self._own)
        if member is None or (self.serving.said_goodbye and not goodbye):
            return
        answers = self.serving.answers and not self.interfaces.trouble
        hello = Hello(
            node=self._own,
            boot=member.boot,
            sequence=self.hellos.next_sequence(now),
            leader=self._wanted.leader,
            sessions=self._wanted.sessions,
            hold_downs=self._wanted.hold_downs,
            negotiated=self._wanted.negotiated,
            dead=self._around.dead,
            digest=self._wanted.digest,
            applied=self._wanted.applied,
            answers=answers,
            goodbye=goodbye,
            segments=self.nodes.detector.speak(now, self.interfaces.used if answers else ()),
        )
        self._actions.append(Say(hello))


def _told(wanted: DesiredWire) -> tuple[object, ...]:
    """What of the wanted set our hello says."""
    return (wanted.leader, wanted.sessions, wanted.hold_downs, wanted.negotiated)
