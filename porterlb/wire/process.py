"""The wire process: one loop with the sockets, timers and pipes around `core.layer2`.

Nothing here waits for the manager. The wanted set arrives through the channel in small pieces; reports are sent back
through the same channel.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import random
from collections import deque
from collections.abc import Iterable, Mapping
from typing import Any

from porterlb import logs
from porterlb.core import wire_text
from porterlb.core.layer2 import actions as act
from porterlb.core.layer2.chance import Chance
from porterlb.core.layer2.engine import HOUSEKEEPING, Layer2
from porterlb.core.layer2.probes import Probe
from porterlb.core.layer2.questions import Question
from porterlb.core.model import Member
from porterlb.core.observed import Nic
from porterlb.core.record.layer2 import RecordedLayer2
from porterlb.core.scope import scoped
from porterlb.core.wire_text import WireConfig
from porterlb.wire import netlink
from porterlb.wire.asking import Asking
from porterlb.wire.channel import ManagerChannel
from porterlb.wire.groups import SolicitedNodeGroups
from porterlb.wire.hello_socket import HelloSocket
from porterlb.wire.interfaces import InterfaceSockets
from porterlb.wire.kernel_answers import Loader
from porterlb.wire.netlink import NicTable
from porterlb.wire.prober import ProbeFrames, default_gateways
from porterlb.wire.recording import Recording
from porterlb.wire.reply_listener import ReplyListener
from porterlb.wire.routers import RouterListener
from porterlb.wire.templates import Templates
from porterlb.wire.ticker import Ticker

log = logging.getLogger("porterlb.wire")

_NOTES = {
    act.NoteKind.NODE_DIED: "node %s is dead",
    act.NoteKind.NODE_REVIVED: "node %s is alive again",
    act.NoteKind.DEAD_ON_SEGMENT: "node %s is dead on a segment, and alive on that of its InternalIP",
    act.NoteKind.ALIVE_ON_SEGMENT: "node %s is alive again on a segment",
    act.NoteKind.TWO_ANSWERS: "another node also answers for %s: this replica stops answering for it",
    act.NoteKind.MANAGER_SILENT: "the manager has hung: handing over%s",
    act.NoteKind.MANAGER_BACK: "the manager is back%s",
}


class WireProcess:
    """Feeds events to `Layer2`, and carries out the actions that it returns."""

    def __init__(
        self,
        config: WireConfig,
        channel: ManagerChannel,
        templates: Templates,
        loop: asyncio.AbstractEventLoop,
        loader: Loader | None = None,
    ) -> None:
        self._config = config
        self._channel = channel
        self._templates = templates
        self._loop = loop
        self._loader = loader
        self._in_kernel: Mapping[str, str] = {}  # as reported
        chance = Chance(int(random.random() * (1 << 53)))
        self._recording = Recording(config, channel, loop) if Recording.wanted(config) else None
        self._layer2 = (
            Layer2(config, loop.time(), chance)
            if self._recording is None
            else RecordedLayer2(config, loop.time(), chance, self._recording.log)
        )
        self._frames = ProbeFrames(templates)
        self._asking = Asking(config.node, self._layer2, self._frames, self._open_replies, channel.send, loop)
        self._table = NicTable()
        self._routers = RouterListener(lambda found: channel.report(routers=found), loop)
        self._open: dict[int, InterfaceSockets] = {}
        self._groups: dict[int, SolicitedNodeGroups] = {}
        self._hellos: HelloSocket | None = None
        self._members: Mapping[str, Member] = {}
        self._hello_trouble = ""
        self._told = ""  # the last trouble that was reported
        self._lines_dropped = 0
        self._todo: deque[act.Action] = deque()
        self._acting = False
        self._timer: asyncio.TimerHandle | None = None
        self._stepping = False
        self._over = asyncio.Event()
        self._open_hellos()
        loop.add_reader(self._table, self._nics_changed)
        self._carry_out(self._layer2.nics_changed(self._table.nics, loop.time()))

    # ---- the loops

    async def run(self) -> None:
        """Runs until stop(). Raises what a part raises: the supervisor then starts a new process."""
        tickers = [
            Ticker(self._config.probe_interval, self._probe, self._loop),
            Ticker(self._config.hello_interval, self._hello_tick, self._loop),
            Ticker(HOUSEKEEPING, self._keep_house, self._loop),
        ]
        stop = asyncio.create_task(self._over.wait(), name="stop")
        waiting: list[asyncio.Future[Any]] = [stop, *(ticker.failed for ticker in tickers)]
        try:
            done, _ = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        finally:
            stop.cancel()
            for ticker in tickers:
                ticker.close()
        for ended in done:
            ended.result()

    def _probe(self, now: float, lag: float) -> None:
        for sockets in list(self._open.values()):
            sockets.replies.drain()  # replies that wait for a late process must not count as missing
            sockets.count_unread(now)
        self._carry_out(self._layer2.probe(now, lag, self._link_heard()))
        due = self._layer2.due(self._open)
        self._layer2.probed([probe.key for probe in due if self._send_probe(probe)])

    def _send_probe(self, probe: Probe) -> bool:
        sockets, nic = self._open.get(probe.key.nic), self._layer2.interfaces.nics.get(probe.key.nic)
        frame = self._frames.probe(nic, probe) if sockets is not None and nic is not None else b""
        sent = bool(frame) and sockets is not None and sockets.replies.send(frame)
        self._layer2.count("probes", int(sent))
        return sent

    def _hello_tick(self, now: float, lag: float) -> None:
        if lag > self._config.hello_fresh / 2 and self._hellos is not None:
            self._hellos.drain()  # after a stall, others may have taken over: hear them before we are fit again
        self._carry_out(self._layer2.hello_tick(now))
        for sockets in self._open.values():
            if sockets.kernel is not None:
                sockets.kernel.renew(self._layer2.fit_until)

    def _keep_house(self, now: float, lag: float) -> None:
        self._open_hellos()
        for sockets in self._open.values():
            self._layer2.count("dropped_by_kernel", sockets.responder.lost())
            sockets.read_asked(now)
        dropped, self._lines_dropped = logs.dropped() - self._lines_dropped, logs.dropped()
        self._layer2.count("log_lines_dropped", dropped)
        self._carry_out(self._layer2.housekeeping(now, lag))
        self._report_trouble()
        self._report_in_kernel()
        if self._recording is not None:
            self._recording.stream()

    def _wake(self) -> None:
        self._timer = None
        expires = self._layer2.hellos.next_at
        if expires is not None and expires <= self._loop.time() and self._hellos is not None:
            self._hellos.drain()
        self._carry_out(self._layer2.wake(self._loop.time(), self._link_heard()))

    def _step(self) -> None:
        self._stepping = False
        self._carry_out(self._layer2.step(self._loop.time()))

    def _link_heard(self) -> float:
        return max([sockets.heard_at for sockets in self._open.values()], default=0.0)

    # ---- inputs

    def beat(self) -> None:
        """The manager is alive."""
        self._carry_out(self._layer2.beat(self._loop.time()))

    def take(self, message: Mapping[str, Any]) -> None:
        """Takes one message of the manager."""
        now, layer2 = self._loop.time(), self._layer2
        self._carry_out(layer2.beat(now))
        kind = message.get("t")
        if kind == "vips":
            self._carry_out(layer2.want_vips(message["set"], message["del"]))
        elif kind == "state":
            wanted = wire_text.read_state(message)
            self._routers.want(wanted.routers)
            self._carry_out(layer2.want(wanted, now))
        elif kind == "applied":
            self._carry_out(layer2.want_applied(int(message["digest"])))
        elif kind == "record":
            self._give_recording()
        elif kind == "ask":
            self._asking.begin(int(message["number"]), wire_text.read_ask(message))
        elif kind == "stop":
            self.stop()

    def _give_recording(self) -> None:
        if self._recording is not None:
            self._recording.give()
        else:
            self._channel.send(wire_text.recorded_lines([]))

    def stop(self) -> None:
        """Hands over; then run() returns."""
        self._carry_out(self._layer2.stop(self._loop.time()))

    def _nics_changed(self) -> None:
        self._table.update()
        for index, sockets in self._open.items():
            if index in self._table.nics:
                sockets.responder.leave_to_kernel(self._table.nics[index].addresses)
        self._carry_out(self._layer2.nics_changed(self._table.nics, self._loop.time()))
        while self._table.returned:
            index = self._table.returned.pop()
            if index in self._groups:
                self._groups[index].rejoin()
            if index in self._table.nics:
                self._routers.returned(self._table.nics[index].name)

    def _heard_hello(self, data: bytes) -> None:
        self._took(self._layer2.hello(data, self._loop.time()))

    def _open_replies(self, nic: int) -> ReplyListener | None:
        """The listener that sends and receives on an interface; None while it is not open."""
        return self._open[nic].replies if nic in self._open else None

    def _heard(self, nic: int, address: bytes, mac: bytes, now: float) -> None:
        self._asking.heard(nic, address, mac, now)
        self._took(self._layer2.heard(nic, address, mac, now))

    def _took(self, actions: Iterable[act.Action]) -> None:
        """After a hello or an answer: most change nothing."""
        if not self._layer2.unchanged:
            self._carry_out(actions)

    def fit(self) -> bool:
        return self._layer2.fit(self._loop.time())

    def claimed(self, address: bytes, mac: bytes) -> None:
        self._layer2.claimed(address, mac, self._loop.time())
        self._schedule()

    def asked(self, nic: int, question: Question) -> bytes:
        mac = self._layer2.asked(nic, question, self._loop.time())
        self._schedule()
        return mac

    def failed(self, nic: int, error: OSError) -> None:
        """A socket has failed: the interface went down, or another error occurred."""
        log.error("interface %d: %s", nic, error)
        self._carry_out(self._layer2.interface_failed(nic, str(error.strerror or error), self._loop.time()))

    # ---- actions

    def _carry_out(self, actions: Iterable[act.Action]) -> None:
        """Carries out actions in order; actions that result from one are put behind those that already wait."""
        self._todo.extend(actions)
        if self._acting:
            return
        self._acting = True
        try:
            while self._todo:
                self._do(self._todo.popleft())
        finally:
            self._acting = False
        self._schedule()

    def _schedule(self) -> None:
        if self._layer2.busy and not self._stepping:
            self._stepping = True
            self._loop.call_soon(self._step)
        at = self._layer2.next_at
        if self._timer is not None:
            if at is not None and self._timer.when() <= at:
                return  # that call sets the timer again
            self._timer.cancel()
        self._timer = self._loop.call_at(at, self._wake) if at is not None else None

    def _do(self, action: act.Action) -> None:  # noqa: PLR0915
        layer2 = self._layer2
        match action:
            case act.Own(index, address, mac, by_asker):
                if index in self._open:
                    self._open[index].own(address, mac, by_asker)
            case act.Disown(index, address):
                if index in self._open:
                    self._open[index].disown(address)
            case act.Served(vip, answering):
                self._channel.answering(vip, answering)
            case act.Announce(index, address, defence):
                sent = index in self._open and self._open[index].responder.announce(address)
                layer2.announced(address, sent, self._loop.time(), defence=defence)
            case act.Tell(index, address, mac, asker, at, key):
                sent = index in self._open and self._open[index].responder.tell(address, mac, asker, at)
                layer2.announced(key, sent, self._loop.time())
            case act.AnswerLate(index, address, question):
                if index in self._open:
                    self._open[index].responder.answer(address, question)
            case act.Join(index, address):
                if index in self._groups:
                    self._groups[index].join(address)
            case act.Leave(index, address):
                if index in self._groups:
                    self._groups[index].leave(address)
            case act.SendProbes(probes):
                for probe in probes:
                    self._send_probe(probe)
            case act.Say(hello):
                if self._hellos is not None:
                    sent_to, refused = self._hellos.say(hello)
                    layer2.count("hellos_sent", sent_to)
                    layer2.count("hellos_refused_by_kernel", refused)
            case act.Report(fields, at_once):
                self._channel.report(now=at_once, **fields)
            case act.CheckAddress(index, address):
                if index in self._open:
                    frame = self._frames.duplicate(layer2.interfaces.nics[index], address)
                    self._open[index].replies.send(frame)
            case act.OpenInterface(nic):
                self._open_interface(nic)
            case act.CloseInterface(index):
                if index in self._open:
                    self._open.pop(index).close()
            case act.DropInterface(index):
                if index in self._groups:
                    self._groups.pop(index).close()
            case act.FindRoute(goal):
                self._todo.extend(layer2.route_found(goal, netlink.route(goal)[0]))
            case act.FindGateways():
                self._frames.forget()
                gateways = default_gateways()
                nics = self._table.nics
                named = [scoped(g.address, nics[g.nic].name if g.nic in nics else "") for g in gateways]
                self._channel.report(gateways=tuple(dict.fromkeys(named)))
                self._todo.extend(layer2.gateways_found(gateways))
            case act.SetHelloPeers(members):
                self._members = members
                if self._hellos is not None:
                    self._hellos.set_members(self._config.node, members)
            case act.Note(kind, subject):
                log.warning(_NOTES[kind], subject)
            case act.Settled():
                gc.freeze()  # thousands of long-lived VIPs: full collections must not scan them
            case act.End():
                for sockets in self._open.values():
                    sockets.close()
                self._open.clear()
                self._routers.close()
                if self._loader is not None:
                    self._loader.close()
                self._over.set()

    def _open_interface(self, nic: Nic) -> None:
        try:
            self._groups.setdefault(nic.index, SolicitedNodeGroups(nic, self._loop))
            self._open[nic.index] = InterfaceSockets(
                nic,
                self._templates,
                self,
                self._layer2.vips,
                heard=self._heard,
                count=self._layer2.count,
                loop=self._loop,
                loader=self._loader,
            )
        except OSError as error:
            trouble = f"{nic.name}: {error.strerror or error}"
            log.error("cannot answer on %s: %s", nic.name, error)
            self._todo.extend(self._layer2.interface_failed(nic.index, trouble, self._loop.time()))

    def _open_hellos(self) -> None:
        """Opens the hello sockets, if they are not open yet."""
        if self._hellos is not None:
            return
        address, port = self._config.hello_address, self._config.hello_port
        try:
            self._hellos = HelloSocket(address, port, self._config.key, self._heard_hello, self._loop)
        except OSError as error:
            self._hello_trouble = f"cannot say hello on UDP port {port}: {error.strerror or error}"
            return
        self._hello_trouble = ""
        self._hellos.set_members(self._config.node, self._members)

    def _report_in_kernel(self) -> None:
        found = {
            sockets.nic.name: sockets.kernel.refusal or ""
            for sockets in self._open.values()
            if sockets.kernel is not None
        }
        if found != self._in_kernel:
            self._in_kernel = found
            self._channel.report(in_kernel=found)

    def _report_trouble(self) -> None:
        troubles = [self._hello_trouble] if self._hello_trouble else []
        troubles += [f"cannot answer on {text}" for text in self._layer2.interfaces.trouble.values()]
        sentence = "; ".join(troubles)
        if sentence != self._told:
            self._told = sentence
            self._channel.report(trouble=sentence)
