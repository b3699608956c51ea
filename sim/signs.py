"""Whether a living node could show that it is alive: then its pods must not be marked, whatever the segment's state."""

from __future__ import annotations

from itertools import permutations

from sim.cluster import Site
from sim.faults import API, Faults
from sim.world import Process

KNOWN = 0.5
"""Seconds for which a leader must have been able to connect to the node: longer than Rules.confirm."""
WRITES = 3.0
"""Seconds for which the node's replica must have run with the API: it needs them to notice that it is cut off, and to
write."""
LOSS = 0.1
"""More loss than this may prevent the leader's connections to the node for as long as Rules.confirm."""


class Signs:
    """When each sign of life was last impossible. Call :meth:`look` whenever something may have changed."""

    def __init__(self, site: Site, faults: Faults) -> None:
        self.site, self.faults = site, faults
        self._pairs = tuple(permutations(site.names, 2))
        self._apart: dict[tuple[str, str], float] = {}  # (node, node): when they could not connect
        self._silent: dict[str, float] = {}  # when the node's replica could not write, or the leader could not read it

    def look(self) -> None:
        site, now = self.site, self.site.world.now
        weather, ports = site.segment.weather, site.segment.ports
        if weather.loss or weather.lossy or weather.cut or not all(ports[name].up for name in site.names):
            for pair in self._pairs:
                if not self._connects(*pair):
                    self._apart[pair] = now
        wires: dict[str, list[Process]] = {name: [] for name in site.names}
        for process in site.world.processes:
            if process.alive and process.name.endswith("/wire"):
                wires[process.node].append(process)
        away = self.faults.lasting(API)
        for name in site.names:
            if away or not self._writes(name, wires[name]):
                self._silent[name] = now

    def possible(self, node: str) -> str:
        """Which sign of life the node could have shown, in words; empty: it looks like a node without power."""
        self.look()
        now = self.site.world.now
        leaders = [name for name in self.site.names if name != node and self.site.leads(name)]
        if leaders and all(now - self._apart.get((name, node), 0.0) >= KNOWN for name in leaders):
            return f"{', '.join(leaders)} could connect to it"
        if now - self._silent.get(node, 0.0) >= WRITES:
            return "its replica could write to the API"
        return ""

    def _connects(self, one: str, other: str) -> bool:
        weather = self.site.segment.weather
        loss = max(weather.loss, weather.lossy.get(one, 0.0), weather.lossy.get(other, 0.0))
        return loss <= LOSS and self.site.linked(one, other)

    def _writes(self, name: str, wires: list[Process]) -> bool:
        """Whether the replica could write to an API that answers. A start takes some seconds: the process is younger
        than its node's last silence. The manager learns from its wire process (``wires``: those that live) that the
        node is cut off; if the wire process is stopped or has ended, also because the manager is told to stop, the
        manager notices that only after a while."""
        process = self.site.nodes[name].manager
        if process is None or not process.alive or process.stopped:
            return False
        if not wires or any(one.stopped for one in wires):
            return False
        return process.manager is not None and self.site.world.now - process.begins >= WRITES
