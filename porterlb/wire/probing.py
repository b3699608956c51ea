"""Probes the nodes on our segments: the interfaces around `core.layer2.nodes`."""

from __future__ import annotations

from collections.abc import Callable

from porterlb.core.desired import DesiredWire
from porterlb.core.layer2.nodes import Nodes
from porterlb.core.layer2.targets import find_targets
from porterlb.core.wire_text import WireConfig
from porterlb.wire.ports import Ports
from porterlb.wire.prober import Prober, default_gateways
from porterlb.wire.templates import Templates


class Probing:
    def __init__(
        self, config: WireConfig, nodes: Nodes, templates: Templates, ports: Ports, count: Callable[[str, int], None]
    ) -> None:
        self._own = config.node
        self._nodes = nodes
        self._ports = ports
        self._count = count
        self._prober = Prober(nodes.liveness, templates)

    def find(self, wanted: DesiredWire) -> None:
        """Finds what to probe, after a change of nodes, members, interfaces or the default route."""
        nics = self._ports.nics
        targets = find_targets(self._own, wanted.nodes, wanted.members, nics.values(), default_gateways())
        self._nodes.set_targets(targets)
        self._prober.forget_frames()
        for target in targets:
            self._ports.get(target.key.nic)

    def tick(self, now: float, lag: float, evidence: float) -> None:
        """Takes the answers in, judges, and probes again. ``evidence``: when anything else was heard last."""
        for port in list(self._ports.open.values()):
            port.observer.drain()
        verdict = self._nodes.liveness.judge(now, lag, evidence)
        observers = {index: (port.nic, port.observer) for index, port in self._ports.open.items()}
        self._count("deaths", len(verdict.died))
        self._count("judgements_skipped", int(self._nodes.liveness.late(lag)))
        self._count("probes", self._prober.send(observers))
