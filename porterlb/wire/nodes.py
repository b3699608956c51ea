"""The nodes on our segments: probed, judged, and known by their MACs."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import NamedTuple

from porterlb.core.desired import DesiredWire
from porterlb.core.hello import Hello
from porterlb.core.wire_text import WireConfig
from porterlb.wire.liveness import GATEWAY, Liveness, Target
from porterlb.wire.ports import Ports
from porterlb.wire.prober import Prober, find_targets
from porterlb.wire.templates import Templates


class Heard(NamedTuple):
    """What an answer has changed. ``mac``: new on that interface; ``revived``: the node was dead."""

    node: str
    mac: bool
    revived: bool


class Nodes:
    def __init__(
        self, config: WireConfig, templates: Templates, ports: Ports, count: Callable[[str, int], None]
    ) -> None:
        self._own = config.node
        self._interval = config.probe_interval
        self._ports = ports
        self._count = count
        self._liveness = Liveness(config.probe_interval, config.probe_misses)
        self._prober = Prober(self._liveness, config.probe_misses, templates)
        self._macs: dict[tuple[str, int], bytes] = {}
        self._learned: set[bytes] = set()

    @property
    def doubt(self) -> bool:
        return self._liveness.doubt

    @property
    def judged_dead(self) -> frozenset[str]:
        """By our own probes alone: what our hello says."""
        return frozenset(self._liveness.dead)

    @property
    def latest(self) -> float:
        """When any probed address answered last."""
        return self._liveness.latest

    @property
    def probed(self) -> frozenset[str]:
        """Nodes on a segment of ours: probes decide about them."""
        return frozenset(t.node for t in self._targets() if t.decides)

    @property
    def gateways(self) -> bool:
        """Whether there is a gateway to be heard."""
        return any(target.node == GATEWAY for target in self._liveness.targets.values())

    def known(self) -> set[bytes]:
        """Every MAC that is a node's, a gateway's or our own."""
        return self._learned | {nic.mac for nic in self._ports.nics.values()}

    def is_known(self, mac: bytes) -> bool:
        return mac in self._learned or any(mac == nic.mac for nic in self._ports.nics.values())

    def mac(self, node: str, nic: int) -> bytes:
        return self._macs.get((node, nic), b"")

    def find(self, wanted: DesiredWire) -> None:
        """Finds what to probe, after a change of nodes, members, interfaces or the default route."""
        nics = self._ports.nics.values()
        self._liveness.set_targets(find_targets(self._own, wanted.nodes, wanted.members, nics))
        self._prober.forget_frames()
        for target in self._liveness.targets.values():
            self._ports.get(target.key.nic)

    def tick(self, now: float, lag: float, evidence: float) -> None:
        """Takes the answers in, judges, and probes again. ``evidence``: when anything else was heard last."""
        for port in list(self._ports.open.values()):
            port.observer.drain()
        died = self._liveness.judge(now, lag, evidence)
        observers = {index: (port.nic, port.observer) for index, port in self._ports.open.items()}
        self._count("deaths", len(died))
        self._count("judgements_skipped", int(lag > self._interval / 2))
        self._count("probes", self._prober.send(observers))

    def heard(self, nic: int, address: bytes, mac: bytes, now: float) -> Heard | None:
        """An answer from the segment; None when it says nothing new about a node."""
        dead = self._liveness.dead
        was_dead = bool(dead) and (target := self._liveness.at(nic, address)) is not None and target.node in dead
        news = self._liveness.heard(nic, address, mac, now)
        if news is None:
            return None
        self._learned.add(mac)
        new = self._macs.get((news.node, nic)) != mac
        self._macs[news.node, nic] = mac
        return Heard(news.node, new, was_dead)

    def dead(self, hellos: Iterable[Hello]) -> frozenset[str]:
        """The dead, all told: by our own probes; those who say so of themselves (their link is gone); and of nodes
        that we probe but have never heard, those that a fresh replica says are dead."""
        hellos = tuple(hellos)
        seen = self._liveness.seen
        unknown = {target.node for target in self._targets()} - seen
        dead = set(self._liveness.dead)
        dead.update(hello.node for hello in hellos if hello.node in hello.dead)
        dead.update(node for hello in hellos for node in hello.dead if node in unknown)
        return frozenset(dead - {self._own})

    def _targets(self) -> list[Target]:
        return [target for target in self._liveness.targets.values() if target.node != GATEWAY]
