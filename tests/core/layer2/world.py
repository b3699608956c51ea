"""Replicas on one segment, without a network: each is a `Layer2` whose actions are applied to plain tables."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from ipaddress import ip_address, ip_interface
from typing import Any

from porterlb.core.desired import DesiredWire
from porterlb.core.hello import encode
from porterlb.core.layer2 import actions as act
from porterlb.core.layer2.chance import Chance
from porterlb.core.layer2.engine import HOUSEKEEPING, Layer2
from porterlb.core.layer2.probes import Probe
from porterlb.core.model import Member
from porterlb.core.observed import Answering, Nic
from porterlb.core.record.layer2 import RecordedLayer2
from porterlb.core.record.log import Log
from porterlb.core.wire_text import WireConfig

KEY = b"a key of the cluster's replicas"
TICK = 0.01
NIC = 1


def mac_of(node: str) -> bytes:
    return b"\2\0\0\0\0" + bytes([int(node[1:])])


def address_of(node: str) -> str:
    return f"10.0.0.{node[1:]}"


def nics_of(node: str, up: bool = True, mac: bytes = b"") -> dict[int, Nic]:
    return {NIC: Nic("eth0", NIC, mac or mac_of(node), up, (ip_interface(f"{address_of(node)}/24"),))}


class Replica:
    """One `Layer2`, and the tables of its host after its actions."""

    def __init__(self, node: str, now: float, seed: int = 1, log: Log[bytes] | None = None) -> None:
        self.node = node
        self.config = WireConfig(node, KEY)
        chance = Chance(seed)
        self.layer2 = Layer2(self.config, now, chance) if log is None else RecordedLayer2(self.config, now, chance, log)
        self.open: set[int] = set()
        self.owned: dict[bytes, bytes] = {}
        self.joined: set[bytes] = set()
        self.announced: list[tuple[float, bytes, bool]] = []
        self.late: list[bytes] = []
        self.told: list[tuple[float, bytes, bytes, bytes]] = []  # when, VIP, MAC, asker
        self.tell: Callable[[bytes, bytes, bytes], None] = lambda address, mac, asker: None
        self.report: dict[str, Any] = {}
        self.answering: dict[str, Answering] = {}
        self.said: list[bytes] = []
        self.probes: list[Probe] = []
        self.checked: list[tuple[float, str]] = []
        self.notes: list[act.Note] = []
        self.trouble: set[int] = set()  # interfaces that cannot be opened
        self.routes: dict[str, int] = {}
        self.sends = True
        self.ended = False
        self.do(self.layer2.nics_changed(nics_of(node), now), now)

    def do(self, actions: Iterable[act.Action], now: float) -> None:
        todo = list(actions)
        while todo:
            todo += self._one(todo.pop(0), now)

    def _one(self, action: act.Action, now: float) -> list[act.Action]:
        match action:
            case act.OpenInterface(nic):
                if nic.index in self.trouble:
                    return self.layer2.interface_failed(nic.index, "no", now)
                self.open.add(nic.index)
            case act.CloseInterface(ifindex):
                self.open.discard(ifindex)
                self.owned.clear()
            case act.Own(ifindex, address, mac):
                assert ifindex in self.open
                self.owned[address] = mac
            case act.Disown(_, address):
                self.owned.pop(address, None)
            case act.Join(_, address):
                self.joined.add(address)
            case act.Leave(_, address):
                self.joined.discard(address)
            case act.Announce(ifindex, address, defence):
                assert address in self.owned
                if self.sends:
                    self.announced.append((now, address, defence))
                self.layer2.announced(address, self.sends, now, defence=defence)
            case act.Tell(_, address, mac, asker, _, key):
                if self.sends:
                    self.told.append((now, address, mac, asker))
                    self.tell(address, mac, asker)
                self.layer2.announced(key, self.sends, now)
            case act.AnswerLate(_, address, _):
                assert address in self.owned
                self.late.append(address)
            case act.SendProbes(probes):
                self.probes += probes
            case act.Say(hello):
                self.said.append(encode(hello, KEY))
            case act.Served(vip, answering):
                self.answering[vip] = answering
            case act.Report(fields, _):
                self.report.update(fields)
            case act.CheckAddress(_, address):
                self.checked.append((now, str(address)))
            case act.FindGateways():
                return self.layer2.gateways_found([])
            case act.FindRoute(goal):
                return self.layer2.route_found(goal, self.routes.get(str(goal), 0))
            case act.Note():
                self.notes.append(action)
            case act.End():
                self.owned.clear()
                self.ended = True
        return []

    def settle(self, now: float) -> None:
        while self.layer2.busy:
            self.do(self.layer2.step(now), now)


class World:
    """``cut``: nodes without a link. ``hung``: replicas whose process is stopped. ``quiet``: managers that hang.

    ``mute``: nodes that answer no probes; their hellos arrive. ``log``: of the first replica.
    """

    def __init__(self, *nodes: str, start: float = 1000.0, log: Log[bytes] | None = None) -> None:
        self._start = self.now = start
        self.ticks = 0
        self.nodes = nodes
        self.cut: set[str] = set()
        self.hung: set[str] = set()
        self.quiet: set[str] = set()
        self.mute: set[str] = set()
        self.digest = 1
        self.wanted = DesiredWire(
            members={
                node: Member(node, address_of(node), 7473, 1, tuple(nics_of(node)[NIC].addresses)) for node in nodes
            },
            nodes={node: (ip_address(address_of(node)),) for node in nodes},
            leader=nodes[0],
        )
        self.rows: dict[str, list[Any]] = {}
        self.replicas = {node: Replica(node, self.now, log=log if node == nodes[0] else None) for node in nodes}
        for node in nodes:
            self.tell(node)

    def restart(self, node: str) -> Replica:
        """Starts a new process on a node; its boot number rises."""
        member = self.wanted.members[node]
        members = {**self.wanted.members, node: replace(member, boot=member.boot + 1)}
        self.wanted = replace(self.wanted, members=members)
        self.replicas[node] = Replica(node, self.now)
        for name in self.replicas:
            self.tell(name)
        return self.replicas[node]

    def vips(self, *rows: tuple[str, tuple[str, ...]], spread: bool = False) -> None:
        """Replaces the wanted VIPs: (address, candidates); ``spread``: all candidates share their askers."""
        old, self.rows = (
            self.rows,
            {text: [text, list(names), "", "", *([list(names)] if spread else [])] for text, names in rows},
        )
        self.digest += 1
        for node in self.replicas.keys() - self.quiet:
            self.tell(node, [text for text in old if text not in self.rows])

    def tell(self, node: str, gone: Iterable[str] = ()) -> None:
        replica = self.replicas[node]
        replica.do(replica.layer2.beat(self.now), self.now)
        replica.do(replica.layer2.want(self.wanted, self.now), self.now)
        replica.do(replica.layer2.want_vips(list(self.rows.values()), list(gone)), self.now)
        replica.do(replica.layer2.want_applied(self.digest), self.now)

    def hears(self, a: str, b: str) -> bool:
        return a not in self.cut and b not in self.cut

    def run(self, seconds: float) -> None:
        for _ in range(round(seconds / TICK)):
            self.tick()

    def tick(self) -> None:
        self.ticks += 1
        self.now = self._start + self.ticks * TICK
        for node, replica in self.replicas.items():
            if node not in self.hung and not replica.ended:
                self._turn(node, replica)
        for node, replica in self.replicas.items():
            said, replica.said = replica.said, []
            for data in said:
                for other, hearer in self.replicas.items():
                    if other != node and self.hears(node, other) and other not in self.hung:
                        hearer.do(hearer.layer2.hello(data, self.now), self.now)

    def _probe(self, replica: Replica, probe: Probe) -> None:
        other = f"n{probe.key.address[3]}"
        if self.hears(replica.node, other) and other not in self.mute:  # its kernel answers
            replica.do(replica.layer2.heard(NIC, probe.key.address, mac_of(other), self.now), self.now)

    def _turn(self, node: str, replica: Replica) -> None:
        now, layer2 = self.now, replica.layer2
        if self.ticks % round(replica.config.probe_interval / TICK) == 0:
            replica.do(layer2.probe(now, 0.0, 0.0), now)
            due = layer2.due(replica.open)
            layer2.probed([probe.key for probe in due])
            for probe in due:
                self._probe(replica, probe)
            replica.do(layer2.hello_tick(now), now)
        if self.ticks % round(HOUSEKEEPING / TICK) == 0:
            replica.do(layer2.housekeeping(now, 0.0), now)
        if self.ticks % round(0.5 / TICK) == 0 and node not in self.quiet:
            replica.do(layer2.beat(now), now)
        for _ in range(50):
            at = layer2.next_at
            if at is None or at > now:
                break
            replica.do(layer2.wake(now, 0.0), now)
        while replica.probes:
            self._probe(replica, replica.probes.pop())
        replica.settle(now)

    def answers(self, vip: str) -> dict[str, bytes]:
        """The replicas that answer for a VIP, each with the MAC in its answer."""
        packed = ip_address(vip).packed
        return {
            node: replica.owned[packed]
            for node, replica in self.replicas.items()
            if packed in replica.owned and node not in self.hung and node not in self.cut
        }
