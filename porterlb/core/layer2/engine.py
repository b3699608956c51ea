"""Layer 2 of one replica: it takes every event with its time, and returns the actions that follow.

The parts decide: `Nodes` and `DeadNodes` which nodes are alive, `Serving` whether we may serve, `Liveness` what follows
when a node, a replica or this replica comes or goes, `VipTable` who answers for each VIP, `Spread` who answers each
asker of a spread VIP, `Announcer` when to announce, `Hellos` which hellos count, `OwnHello` what our hello says,
`AddressClaims` which other hosts claim an address, `Reports` what is reported. This module gives each event to the
parts that it concerns.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from porterlb.core.desired import DesiredWire
from porterlb.core.hello import Change
from porterlb.core.layer2.action_list import ActionList
from porterlb.core.layer2.actions import (
    Action,
    CloseInterface,
    DropInterface,
    FindGateways,
    FindRoute,
    OpenInterface,
    SetHelloPeers,
    Settled,
)
from porterlb.core.layer2.address_claims import AddressClaims
from porterlb.core.layer2.announcer import Announcer
from porterlb.core.layer2.dead_nodes import DeadNodes
from porterlb.core.layer2.failure_detector import Timing
from porterlb.core.layer2.handover import Handover
from porterlb.core.layer2.hellos import Hellos
from porterlb.core.layer2.interfaces import InterfaceTable
from porterlb.core.layer2.liveness import Liveness
from porterlb.core.layer2.nodes import Nodes
from porterlb.core.layer2.own_hello import OwnHello, told
from porterlb.core.layer2.probes import Probe
from porterlb.core.layer2.questions import Question, asker_of
from porterlb.core.layer2.refused_hellos import RefusedHellos
from porterlb.core.layer2.reports import Reports
from porterlb.core.layer2.serving import Serving, ServingState
from porterlb.core.layer2.spread import Spread
from porterlb.core.layer2.staleness import Staleness
from porterlb.core.layer2.surroundings import Surroundings
from porterlb.core.layer2.targets import Gateway, TargetKey, find_targets, own_addresses
from porterlb.core.layer2.vips import Vip, VipTable
from porterlb.core.layer2.votes import CountedVotes
from porterlb.core.model import Address
from porterlb.core.observed import Nic
from porterlb.core.wire_text import WireConfig

HOUSEKEEPING = 0.25
"""Seconds between two calls of `housekeeping`."""
_SECOND = 4  # housekeeping calls
_ASKED = 10 * _SECOND  # housekeeping calls between two reports of the VIPs that were asked for
_GATEWAY_CHECK = 40  # housekeeping calls between two reads of the default routes: the kernel does not notify us


class Layer2:
    """Each event returns the actions to carry out, in order. Call `wake` at `next_at`, and `step` while `busy`.

    Args:
        chance: returns a new number in [0, 1) with each call.
    """

    def __init__(self, config: WireConfig, now: float, chance: Callable[[], float]) -> None:
        self._config = config
        self._own = config.node
        self._confirmed = now
        self._goal: int | None = None  # digest to report as applied when every VIP is decided
        self._chores = 0
        self._actions = ActionList()
        self.unchanged = False
        """The last event was a hello or an answer without news, as nearly all of them are: there is nothing to do, and
        ``next_at`` and ``busy`` are as before."""
        self.interfaces = InterfaceTable()
        timing = Timing(config.probe_interval, config.probe_misses, config.hello_interval, config.hello_fresh)
        self.nodes = Nodes(config.node, timing, config.heard)
        self.hellos = Hellos(config.node, config.key, config.hello_interval, config.hello_fresh)
        self.serving = Serving(now, config.silence_after, config.hello_fresh)
        self._staleness = Staleness(now)
        self._around = Surroundings(
            config.node, self.interfaces, self.nodes, self.hellos, self.serving, self._staleness
        )
        self._announcer = Announcer(config.gratuitous_rate, chance, now)
        self._spread = Spread(config.node, self._announcer)
        self._handover = Handover(self._around, self.hellos)
        self._vips = VipTable(self._around, self._announcer, self._spread, self._handover)
        self._claims = AddressClaims(
            self._around, self.nodes, self._vips, self._spread, self._actions, config.gratuitous_rate, now
        )
        self._dead = DeadNodes(config.node, self.nodes, self._around, self._vips, self._actions)
        self._hello = OwnHello(self._around, self.nodes, self.hellos, self.serving, self._spread, self._actions)
        self._refused = RefusedHellos(config.node)
        self._votes = CountedVotes(config.node, self.nodes, self.hellos, self._actions)
        self._liveness = Liveness(
            self._around,
            self.nodes,
            self.hellos,
            self.serving,
            self._vips,
            self._claims,
            self._dead,
            self._votes,
            self._hello,
            self._actions,
        )
        self._reports = Reports(
            config.node,
            self.nodes,
            self.hellos,
            self.serving,
            self._refused,
            self._vips,
            self._spread,
            self._claims,
            self._actions,
        )

    # ---- current state

    @property
    def vips(self) -> Mapping[bytes, Vip]:
        """The VIPs by packed address: one mapping that changes in place."""
        return self._vips.by_packed

    @property
    def busy(self) -> bool:
        return self._vips.busy

    @property
    def next_at(self) -> float | None:
        claims, frozen = self._claims, self.serving.frozen
        times = (
            self._announcer.next_at,
            None if frozen else self._handover.next_at,
            claims.probe_at,
            self.hellos.next_at,
            self.serving.next_at,
            self._liveness.next_at,
            claims.settle_at,
            claims.verify_at,
            self._hello.next_at,
            None if frozen else self._spread.next_at,
        )
        first = None
        for at in times:  # called after every event: this is faster than min()
            if at is not None and (first is None or at < first):
                first = at
        return first

    @property
    def fit_until(self) -> float:
        """Until when we may send answers: not directly after a stall, in which other replicas may have taken over."""
        return self._confirmed + self._config.hello_fresh

    def fit(self, now: float) -> bool:
        """Whether we may send answers."""
        return now < self.fit_until

    @property
    def counters(self) -> Mapping[str, int]:
        return self._actions.counters

    def count(self, name: str, by: int) -> None:
        self._actions.count(name, by)

    # ---- time

    def step(self, now: float) -> list[Action]:
        """Decides the next few VIPs."""
        self._actions.add(*self._vips.step(now))
        if self._vips.took and self._vips.settled and self._handover.complete:
            self._vips.took = False
            self._hello.say(now)  # the replicas that answered for these VIPs wait for our digest
        return self._done()

    def wake(self, now: float, link_heard: float) -> list[Action]:
        """Does what is due. ``link_heard``: when a question was last received from any segment."""
        self._liveness.wake(now, link_heard)
        if self._claims.settle_at is not None and self._claims.settle_at <= now:
            self._claims.settle(now)
        self._liveness.overlap(now)
        if self._hello.goodbye_due(now):
            self._hello.say(now, goodbye=True)
        self._liveness.expire(now)
        if not self.serving.frozen:
            self._spread.due(now)
            self._vips.waits_ended(now)
        if self._spread.talks(now):
            self._hello.say(now)
        self._actions.add(*self._vips.announcements(now))
        self._claims.probe(now)
        self._claims.verify(now)
        return self._done()

    def probe(self, now: float, lag: float, link_heard: float) -> list[Action]:
        """Decides which nodes are dead: once per probe interval, after the answers are read, before the next probes."""
        self._liveness.tick(now, lag, link_heard)
        return self._done()

    def due(self, usable: Collection[int]) -> list[Probe]:
        """The probes to send after `probe`, on interfaces that are ``usable``. Then call `probed`."""
        return list(self.nodes.due(usable))

    def probed(self, sent: Collection[TargetKey]) -> None:
        """Which of the probes of `due` were sent."""
        for key in sent:
            self.nodes.sent(key)

    def hello_tick(self, now: float) -> list[Action]:
        """Call once per hello interval; after a stall, process the received hellos first."""
        self._confirmed = now
        since = self.hellos.heard_since(self.serving.returned_at)
        if self._dead.plan_is_current(now):
            self._liveness.entered(self.serving.check_returned(since, self._around.wanted.digest, now), now)
        if not self.serving.said_goodbye:
            self._hello.say(now)
            self._hello.say_askers(now)
        return self._done()

    def housekeeping(self, now: float, lag: float) -> list[Action]:
        """Call every HOUSEKEEPING seconds."""
        self._chores += 1
        self._liveness.entered(self.serving.check_manager(now, lag), now)
        if self._staleness.check(now, lag):
            self._liveness.staleness_changed(now)
        if self._informed(now):
            self._liveness.entered(self.serving.check_listened(now), now)
        if self._chores % _SECOND == 0 and self.interfaces.try_again():
            self._vips.touch_all()
        if self._chores % _GATEWAY_CHECK == 0:
            self._actions.add(FindGateways())
        if self.serving.listened(now):
            self._claims.review(now)
        if self._chores % _SECOND == 0:
            self._reports.second(self._around.members, now)
        if self._chores % _ASKED == 0:
            self._reports.asked(now)
        return self._done()

    # ---- messages of the manager

    def beat(self, now: float) -> list[Action]:
        """A message of the manager arrived. Call this before the event of the message itself."""
        self._staleness.beat(now)
        self._liveness.entered(self.serving.beat(now), now)
        return self._done()

    def want_vips(self, rows: Iterable[Sequence[Any]], gone: Collection[str]) -> list[Action]:
        """A part of the wanted set: see `VipTable.wanted`."""
        for text in gone:
            vip = self._vips.find(text)
            if vip is not None:
                self._claims.forget(vip.packed)
        self._handover.complete = False
        self._actions.add(*self._vips.wanted(rows, gone))
        return self._done()

    def want(self, wanted: DesiredWire, now: float) -> list[Action]:
        """The wanted set without the VIPs."""
        old = self._around.wanted
        self._around.wanted = replace(wanted, digest=old.digest)
        if wanted.members != old.members:
            self._around.forget()
            gone = self.hellos.set_members(wanted.members)
            self._actions.add(SetHelloPeers(wanted.members))
            for node in sorted(gone):
                self._liveness.replica_left(node, now)
        if wanted.scopes != old.scopes:
            self._around.forget()
            self._vips.touch_all()
        if wanted.members != old.members or wanted.nodes != old.nodes:
            self._actions.add(FindGateways())
        if self.interfaces.name(wanted.routers):
            self._actions.report(nics=tuple(self.interfaces.nics.values()))
        if wanted.leader != old.leader:
            self._vips.replica_came(wanted.leader)
        if wanted.check != old.check:
            self._claims.check(wanted.check, now)
        self._staleness.outage(wanted.outage, now)
        if told(wanted) != told(old):
            self._hello.say(now)
        return self._done()

    def want_applied(self, digest: int) -> list[Action]:
        """The wanted set with this digest is complete."""
        self._goal = digest
        self._dead.planned()
        self._vips.complete = True
        self._around.wanted = replace(self._around.wanted, digest=digest)
        self._handover.complete = True
        self._vips.waits_ended()
        self.serving.complete()
        self._actions.add(Settled())
        return self._done()

    def stop(self, now: float) -> list[Action]:
        """Hands over: tells the other replicas, stops answering after a short overlap, and ends the process."""
        self._liveness.entered(self.serving.stop(now), now)
        return self._done()

    # ---- interfaces and routes

    def nics_changed(self, nics: Mapping[int, Nic], now: float) -> list[Action]:
        """Takes the whole table of interfaces."""
        self.nodes.set_nics(nics)
        change = self.interfaces.update(nics)
        if change is not None:
            self._actions.add(*[CloseInterface(index) for index in change.closed])
            self._actions.add(*[DropInterface(index) for index in change.gone])
            self._around.forget()
            self._actions.add(FindGateways())
            self._actions.report(nics=tuple(nics.values()))
            self._vips.touch_all()
            self._hello.say(now)
        return self._done()

    def gateways_found(self, gateways: Iterable[Gateway]) -> list[Action]:
        """Finds what to probe, after a change of nodes, members, interfaces or the default route."""
        nics = self.interfaces.nics.values()
        targets = find_targets(self._own, self._around.wanted.nodes, self._around.members, nics, gateways)
        self.nodes.set_targets(targets, frozenset(self._around.members), own_addresses(self._own, self._around.wanted))
        for target in targets:
            self.interfaces.use(target.key.nic)
        self._actions.report(probed=self.nodes.probed)
        return self._done()

    def route_found(self, goal: Address, index: int) -> list[Action]:
        """The interface ``index`` leads to ``goal``; 0: none does."""
        self.interfaces.route_found(goal, index)
        self._vips.route_found(goal)
        return self._done()

    def interface_failed(self, index: int, trouble: str, now: float) -> list[Action]:
        """Sockets of an interface could not be opened, or failed: the interface is closed; housekeeping retries."""
        self.interfaces.failed(index, trouble)
        self._actions.add(CloseInterface(index))
        self._around.forget()
        self._vips.touch_all()
        self._hello.say(now)
        return self._done()

    # ---- received packets

    def hello(self, data: bytes, now: float) -> list[Action]:
        """A datagram arrived on the hello port."""
        change = self.hellos.receive(data, now)
        if not isinstance(change, Change):
            self.count(f"hellos_{change.value}", 1)
            self._refused.add(change, data, self._around.members, self.hellos.fresh, now)
            return []
        self.count("hellos_heard", 1)
        if change.hello.assignments:
            self._spread.told(change.hello.assignments, now)
            self._liveness.heard(change, now)
        elif not self._liveness.heard(change, now) and not self._actions.waiting:
            self.unchanged = True
            return []
        return self._done()

    def heard(self, nic: int, address: bytes, mac: bytes, now: float) -> list[Action]:
        """An ARP reply or an advertisement says that ``address`` is at ``mac``."""
        change = self.nodes.heard(nic, address, mac, now)
        if change is not None:
            if change.mac:
                self._vips.mac_changed(change.node)
            self._liveness.judge(now)
        if not self._claims.heard(address, mac, now) and change is None and not self._actions.waiting:
            self.unchanged = True
            return []
        return self._done()

    def claimed(self, address: bytes, mac: bytes, now: float) -> None:
        """A question arrived whose sender address is ``address``, which is a VIP."""
        self._claims.asked(address, mac, now)

    def asked(self, nic: int, question: Question, now: float) -> bytes:
        """A question for a spread VIP arrived. Returns the MAC to answer with; empty: another replica answers."""
        vip, asker = self._vips.by_packed.get(question.target), asker_of(question)
        if vip is None or vip.usage is None or vip.usage.ifindex != nic:
            return b""
        return vip.mac if asker is None else self._spread.asked(vip.packed, asker, now)

    def announced(self, address: bytes, sent: bool, now: float, *, defence: bool = False) -> None:
        """The outcome of an Announce, or of a Tell (``address`` is then its key)."""
        if not defence:
            self._announcer.done(address, sent, now)
        elif sent:
            self._claims.defended(address, now)

    # ---- internal

    def _done(self) -> list[Action]:
        """The actions of this event, with interfaces opened before they are used."""
        self.unchanged = False
        if self._goal is not None and (self._vips.settled or self.serving.frozen):
            self._actions.report(applied=self._goal)
            self._goal = None
        interfaces = self.interfaces
        if not interfaces.to_open and not interfaces.to_find:
            return self._actions.take()
        opened = [OpenInterface(nic) for nic in interfaces.to_open]
        found = [FindRoute(goal) for goal in interfaces.to_find]
        interfaces.to_open.clear()
        interfaces.to_find.clear()
        return self._actions.take(opened, found)

    def _informed(self, now: float) -> bool:
        """Whether this replica knows the askers that the other replicas know; checked before it begins to answer."""
        if not (self._vips.complete and self._vips.spreads and self.serving.state is ServingState.LISTENING):
            return True
        return self._spread.informed(self.hellos.last, now, self._config.hello_fresh)
