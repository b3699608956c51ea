"""The wire process: one loop that answers ARP and NDP, probes nodes, and says and hears hello.

Nothing here waits for the manager. What the manager wants comes through the channel in small pieces; what is seen
goes back the same way. The manager gone, hung or saying stop: the others are told first, then we fall silent.
"""

from __future__ import annotations

import asyncio
import gc
import logging
from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from typing import Any

from porterlb.core import wire_text
from porterlb.core.desired import DesiredWire
from porterlb.core.hello import Hello
from porterlb.core.layer2.nodes import Nodes
from porterlb.core.model import Address
from porterlb.core.neighbour import BROADCAST, NO_IPV4, UNSPECIFIED
from porterlb.core.observed import Nic
from porterlb.core.wire_text import WireConfig
from porterlb.wire.announcer import Announcer
from porterlb.wire.channel import Channel
from porterlb.wire.conversation import Conversation
from porterlb.wire.duplicates import DuplicateProbe
from porterlb.wire.groups import SolicitedNodeGroups
from porterlb.wire.netlink import NicTable
from porterlb.wire.ports import Port, Ports
from porterlb.wire.probing import Probing
from porterlb.wire.rivals import Rivals
from porterlb.wire.segments import Segments
from porterlb.wire.templates import Templates
from porterlb.wire.vips import VipTable

log = logging.getLogger("porterlb.wire")

LISTEN = 1.0
"""A starting replica listens so long before it answers: to know who lives and who answers already."""
OVERLAP = 0.05
"""At a hand-over we still answer for so long after the goodbye."""
_HOUSEKEEPING = 0.25
_SECOND = 4  # housekeepings
_GATEWAY_CHECK = 40  # housekeepings between two looks at the default route: no notification tells of it


class WireProcess:
    """Composes the parts, and is what the responders tell (Ears)."""

    def __init__(
        self, config: WireConfig, channel: Channel, templates: Templates, loop: asyncio.AbstractEventLoop
    ) -> None:
        self._config = config
        self._channel = channel
        self._templates = templates
        self._loop = loop
        self._wanted = DesiredWire()
        self._counters: dict[str, int] = {}
        # state
        self._begun = self._confirmed = self._beat = loop.time()
        self._silent = False
        self._leaving = False
        self._returned: float | None = None  # since when we are not cut off any more, while we only listen
        self._complete = False  # the first wanted set is all there
        self._goal: int | None = None  # digest to report as applied when all is decided
        self._told = ""  # trouble
        self._chores = 0
        self._done = asyncio.Event()
        # parts
        self._table = NicTable()
        self._ports = Ports(self._open_port, loop)
        self._nodes = Nodes(config.node, config.probe_interval, config.probe_misses)
        self._probing = Probing(config, self._nodes, templates, self._ports, self._count)
        self._hellos = Conversation(
            config,
            loop,
            left=self._replica_left,
            news=self._replica_said,
            others_heard=lambda: max([self._nodes.latest, *self._heard_at()]),
            doubt=lambda: self._nodes.verdict.doubt,
            count=self._count,
        )
        self._announcer = Announcer(config.gratuitous_rate, self._announce, loop)
        self._around = Segments(config.node, self._ports, self._nodes, lambda: self._hellos.hellos, loop)
        self._vips = VipTable(self._around, self._announcer, channel.answering, loop)
        self._duplicates = DuplicateProbe(config.gratuitous_rate, self._check, self._checked, loop)
        self._rivals = Rivals()
        self._hellos.open()
        loop.add_reader(self._table, self._nics_changed)
        self._take_nics()

    # ---- the loops

    async def run(self) -> None:
        """Until stop(). Raises what a part raises: the supervisor starts a new process."""
        tasks = [
            asyncio.create_task(self._every(self._config.probe_interval, self._probe), name="probe"),
            asyncio.create_task(self._every(self._config.hello_interval, self._hello), name="hello"),
            asyncio.create_task(self._every(_HOUSEKEEPING, self._keep_house), name="housekeeping"),
            asyncio.create_task(self._done.wait(), name="stop"),
        ]
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in tasks:
            task.cancel()
        for task in done:
            task.result()

    async def _every(self, interval: float, do: Callable[[float, float], None]) -> None:
        """Calls ``do(now, lag)`` each interval. When it is late by more than half of one, the next call comes a whole
        interval later: every probe has that long to be answered before it is judged."""
        due = self._loop.time()
        while True:
            now = self._loop.time()
            do(now, now - due)
            due = due + interval if now - due <= interval / 2 else now + interval
            await asyncio.sleep(max(0.0, due - self._loop.time()))

    def _probe(self, now: float, lag: float) -> None:
        evidence = max([self._hellos.last_heard, *self._heard_at()])
        if self._wanted.sessions and not self._nodes.gateways:
            evidence = now  # a session lives on for its hold time: only where there is nothing better
        self._probing.tick(now, lag, evidence)
        self._take_deaths()

    def _hello(self, now: float, lag: float) -> None:
        if lag > self._config.hello_fresh / 2:
            self._hellos.drain()  # out of a stall, others may have taken over: hear them before we are fit again
        self._confirmed = now
        if self._returned is not None and self._up_to_date(self._returned, now):
            self._returned = None
            if now - self._begun >= LISTEN:
                self._begin_to_serve()
        if not self._silent and not self._leaving:
            self._say()

    def _keep_house(self, now: float, lag: float) -> None:
        self._chores += 1
        if now - self._beat > self._config.silence_after and lag < self._config.silence_after / 2:
            self._fall_silent()
        if not self._around.serving and self._returned is None and now - self._begun >= LISTEN:
            self._begin_to_serve()
        self._hellos.open()
        if self._ports.trouble and self._chores % _SECOND == 0:
            self._ports.trouble.clear()  # once more
            self._vips.touch_all()
        if self._chores % _GATEWAY_CHECK == 0:
            self._probing.find(self._wanted)
        if now - self._begun > LISTEN and self._rivals.review(now, self._nodes.known(), self._defend):
            self._channel.report(rivals=self._rivals.found)
        for port in self._ports.open.values():
            self._count("dropped_by_kernel", port.responder.lost())
        self._report_trouble()
        if self._chores % _SECOND == 0:
            self._channel.report(counters=dict(self._counters))

    def _begin_to_serve(self) -> None:
        if self._silent or self._leaving or not self._complete:
            return
        self._around.serving = True
        self._around.forget()
        self._vips.touch_all()
        self._say()
        # Also what is empty: the manager may still have what a wire process before us said.
        fresh, rivals = self._hellos.fresh, self._rivals.found
        self._channel.report(dead=self._around.dead, fresh=fresh, doubt=self._around.frozen, rivals=rivals)

    # ---- what the manager says

    def take(self, message: Mapping[str, Any]) -> None:
        """One message of the manager."""
        self._beat = self._loop.time()
        if self._silent:
            log.warning("the manager is back")
            self._silent = False
            self._begun = self._loop.time()  # listen first, as after a start
        kind = message.get("t")
        if kind == "vips":
            self._forget_rivals(message["del"])
            self._vips.wanted(message["set"], message["del"])
        elif kind == "state":
            self._take_state(wire_text.read_state(message))
        elif kind == "applied":
            self._goal = int(message["digest"])
            self._wanted = replace(self._wanted, digest=self._goal)
            self._complete = True
            gc.freeze()  # thousands of VIPs that live long: no full collection is to walk them
            self._check_applied()
        elif kind == "stop":
            self.stop()

    def _take_state(self, wanted: DesiredWire) -> None:
        old, self._wanted = self._wanted, replace(wanted, digest=self._wanted.digest)
        if wanted.members != old.members:
            self._around.members = wanted.members
            self._around.forget()
            self._hellos.set_members(wanted.members)
        if wanted.members != old.members or wanted.nodes != old.nodes:
            self._find_nodes()
        if wanted.leader != old.leader:
            self._around.leader = wanted.leader
            self._vips.replica_came(wanted.leader)
        if wanted.check != old.check:
            self._duplicates.want(wanted.check)
            self._checked()
        if (wanted.leader, wanted.sessions, wanted.hold_downs) != (old.leader, old.sessions, old.hold_downs):
            self._say()

    def _forget_rivals(self, gone: Collection[str]) -> None:
        for text in gone:
            vip = self._vips.find(text)
            if vip is not None:
                self._rivals.forget(vip.packed)

    def _check_applied(self) -> None:
        if self._goal is not None and (self._vips.settled or self._around.frozen):
            self._channel.report(applied=self._goal)
            self._goal = None
        elif self._goal is not None:
            self._loop.call_later(0.001, self._check_applied)

    # ---- the end

    def stop(self) -> None:
        """Hands over: the others are told first; after a short overlap we stop answering, and the process ends."""
        if not self._leaving:
            self._goodbye()
            self._leaving = True
            self._loop.call_later(OVERLAP, self._leave)

    def _leave(self) -> None:
        self._around.serving = False
        self._announcer.close()
        self._duplicates.close()
        self._ports.close_all()
        self._done.set()

    def _goodbye(self) -> None:
        self._say(goodbye=True)
        for delay in (0.01, 0.02):  # a datagram may be lost
            self._loop.call_later(delay, lambda: self._say(goodbye=True))

    def _fall_silent(self) -> None:
        """The manager has hung: what it knows grows old, and others have a living one."""
        if not self._silent and not self._leaving:
            log.warning("no beat of the manager for %.1f s: handing over", self._config.silence_after)
            self._goodbye()
            self._silent = True
            self._loop.call_later(OVERLAP, self._stop_serving)

    def _stop_serving(self) -> None:
        if self._silent:
            self._around.serving = False
            self._around.forget()
            self._vips.touch_all()

    # ---- hello

    def _say(self, *, goodbye: bool = False) -> None:
        """Says our hello now; after a goodbye nothing but goodbyes."""
        if (self._silent or self._leaving) and not goodbye:
            return
        dead = self._nodes.verdict.dead
        self._hellos.say(
            Hello(
                node=self._around.own,
                boot=0,
                sequence=0,
                leader=self._wanted.leader,
                sessions=self._wanted.sessions,
                hold_downs=self._wanted.hold_downs,
                dead=dead | {self._around.own} if self._cut_off() else dead,
                digest=self._wanted.digest,
                applied=self._wanted.applied,
                answers=self._around.serving and not self._ports.trouble,
                goodbye=goodbye,
            )
        )

    def _cut_off(self) -> bool:
        """Whether the interface of our own node address has no carrier: then the others need not probe to know."""
        for address in self._wanted.nodes.get(self._around.own, ()):
            for nic in self._ports.nics.values():
                if any(interface.ip == address for interface in nic.addresses):
                    return not nic.up
        return False

    def _replica_said(self, hello: Hello, came: bool) -> None:
        self._around.forget()
        if hello.answers:
            self._vips.replica_came(hello.node)
        else:
            self._vips.replica_left(hello.node)
        self._take_deaths()
        self._channel.report(fresh=self._hellos.fresh, now=came)

    def _replica_left(self, node: str) -> None:
        self._around.forget()
        self._channel.report(fresh=self._hellos.fresh, now=True)
        self._vips.replica_left(node)
        self._take_deaths()

    def _heard_at(self) -> list[float]:
        return [port.responder.heard_at for port in self._ports.open.values()]

    # ---- nodes

    def _find_nodes(self) -> None:
        self._probing.find(self._wanted)
        self._channel.report(probed=self._nodes.probed)

    def _take_deaths(self) -> None:
        """Brings what follows from deaths, revivals and doubt in line with what is known now."""
        doubt = self._nodes.verdict.doubt
        if doubt != self._around.frozen:
            self._around.frozen = doubt
            self._channel.report(doubt=doubt, now=True)
            if not doubt:
                self._return()
                self._vips.touch_again()
        dead = self._nodes.dead(self._hellos.hellos)
        if dead == self._around.dead or doubt:
            return
        died, revived = dead.difference(self._around.dead), frozenset(self._around.dead) - dead
        self._around.dead = dead
        self._around.forget()
        self._channel.report(dead=dead, now=True)
        for node in sorted(died):
            log.warning("node %s is dead", node)
            self._vips.node_died(node)
        for node in sorted(revived):
            log.warning("node %s is alive again", node)
        if revived:
            self._vips.touch_again()  # a partition has two sides: they may have held us for dead
        self._say()

    def _return(self) -> None:
        """We were cut off: the others may have gone on without us, and what our manager told us may be old."""
        if self._around.serving and self._wanted.members.keys() - {self._around.own}:
            self._around.serving = False
            self._returned = self._loop.time()
            self._around.forget()
            self._say()

    def _up_to_date(self, returned: float, now: float) -> bool:
        """Whether all replicas that answer plan what we plan, by what they said since our return; or none is there."""
        heard = [hello for hello in self._hellos.heard_since(returned) if hello.answers]
        if not heard:
            return now - returned >= LISTEN
        everybody = now - returned >= self._config.hello_fresh
        return everybody and all(hello.digest == self._wanted.digest for hello in heard)

    def heard(self, nic: int, address: bytes, mac: bytes, now: float) -> None:
        """An ARP reply or an advertisement: ``address`` is at ``mac``."""
        change = self._nodes.heard(nic, address, mac, now)
        if change is not None:
            if change.mac:
                self._vips.mac_changed(change.node)
            self._take_deaths()
        is_vip, known = address in self._vips.by_packed, self._nodes.is_known(mac)
        if not is_vip or not known:
            self._duplicates.heard(address, mac)
        if is_vip and not known:
            self._rivals.claim(address, mac, now)

    # ---- interfaces

    def _open_port(self, nic: Nic, groups: SolicitedNodeGroups) -> Port:
        vips, heard, count = self._vips.by_packed, self.heard, self._count
        return Port(nic, self._templates, self, vips, groups=groups, heard=heard, count=count, loop=self._loop)

    def _nics_changed(self) -> None:
        self._table.update()
        self._take_nics()
        while self._table.returned:
            self._ports.rejoin(self._table.returned.pop())

    def _take_nics(self) -> None:
        nics = self._table.nics
        self._nodes.set_nics(nics)
        if self._ports.update(nics):
            self._around.forget()
            self._find_nodes()
            self._channel.report(nics=tuple(nic for nic in self._ports.nics.values() if nic.addresses))
            self._vips.touch_all()
            self._say()

    def failed(self, nic: int, error: OSError) -> None:
        """A socket cannot go on (the interface went down, or worse): resign there; housekeeping tries again."""
        log.error("interface %d: %s", nic, error)
        self._ports.close(nic)
        self._ports.trouble[nic] = str(error.strerror or error)
        self._around.forget()
        self._vips.touch_all()
        self._say()

    # ---- Ears

    def fit(self) -> bool:
        return self._loop.time() - self._confirmed < self._config.hello_fresh

    def claimed(self, address: bytes, mac: bytes) -> None:
        if not self._nodes.is_known(mac) and not mac[0] & 1:
            self._rivals.claim(address, mac, self._loop.time())

    # ---- announcements and duplicate addresses

    def _announce(self, address: bytes) -> bool:
        return not self._around.frozen and self._vips.announce(address)

    def _defend(self, address: bytes) -> bool:
        done = self._announce(address)
        self._count("defences", int(done))
        return done

    def _check(self, address: Address) -> bool:
        found = self._ports.source(address)
        if found is None:
            return False
        port, _ = found
        for interface in port.nic.addresses:
            if interface.ip == address:
                self._duplicates.heard(address.packed, port.nic.mac)
        if address.version == 4:
            frame = self._templates.arp.request(port.nic.mac, BROADCAST, port.nic.mac, NO_IPV4, address.packed)
        else:
            frame = self._templates.neighbour.solicitation(port.nic.mac, UNSPECIFIED, address.packed)
        port.observer.send(frame)
        return True

    def _checked(self) -> None:
        self._channel.report(claimed=dict(self._duplicates.claimed), clear=frozenset(self._duplicates.clear))

    # ---- figures

    def _count(self, name: str, by: int) -> None:
        if by:
            self._counters[name] = self._counters.get(name, 0) + by

    def _report_trouble(self) -> None:
        troubles = [self._hellos.trouble] if self._hellos.trouble else []
        troubles += [f"cannot answer on {text}" for text in self._ports.trouble.values()]
        sentence = "; ".join(troubles)
        if sentence != self._told:
            self._told = sentence
            self._channel.report(trouble=sentence)
