"""Runs one scenario of :mod:`sim.scenarios`, and says what a client saw."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sim.cluster import Site
from sim.faults import Fault, Faults
from sim.promises import Promises
from sim.run import prepare
from sim.scenarios import ROLES, Scenario
from sim.world import World

NAMES = ("n1", "n2", "n3")
SERVED = 7.0
"""Seconds until the replicas run and lead: then the Services are created."""
BEGINS = 14.0
"""Seconds until the VIPs are served: then the faults begin."""
AFTER = 40.0
"""Seconds after the last request in which everything converges, and stays."""
ASK = 0.001
"""Seconds between two requests of the client."""


@dataclass(frozen=True)
class Outcome:
    """``moves``, ``loses``, ``leader``: as in `Scenario`. ``gaps``: for each role, the longest time without a path in
    seconds."""

    moves: frozenset[str]
    loses: frozenset[str]
    leader: bool
    gaps: dict[str, float]


class Play:
    """One run. Raises Violation if a promise is broken."""

    def __init__(self, scenario: Scenario, seed: int) -> None:
        self.scenario = scenario
        self.world = World(seed)
        self.site = Site(self.world, NAMES, {"settle_after": 1.0})
        self.site.eip("segment", "10.77.0.200-10.77.0.229", "layer2")
        self.faults = Faults(self.site, [])
        self.end = BEGINS + scenario.watch + AFTER
        self.promises = Promises(self.site, self.faults, self.end)
        self.roles: dict[str, str] = {}  # node by role
        self._since: dict[str, float] = {}
        self._gaps = dict.fromkeys(ROLES, 0.0)
        self.site.run_all()
        self.world.at(SERVED, self._serve)
        self.world.at(BEGINS, self._begin)
        self.world.at(BEGINS, self._ask)

    def run(self) -> Outcome:
        self.world.run(self.end)
        site = self.site
        owners = {role: {one.node for one in self._answers(role)} for role in ROLES}
        moves = {role for role in ROLES if owners[role] != {self.roles[role]}}
        loses = {role for role, gap in self._gaps.items() if gap}
        leader = not site.leads(self.roles["leader"])
        for process in self.world.processes:
            process.alive = False
        return Outcome(frozenset(moves), frozenset(loses), leader, self._gaps)

    def _answers(self, role: str) -> list[Any]:
        return self.promises.answers(self.site.packed(self.site.vip(f"at-{role}")))

    def _leader(self) -> str:
        (leader,) = [name for name in NAMES if self.site.leads(name)]
        return leader

    def _serve(self) -> None:
        leader = self._leader()
        others = [name for name in NAMES if name != leader]
        self.roles = dict(zip(ROLES, (leader, *others), strict=True))
        for role, node in self.roles.items():
            self.site.service(f"at-{role}", "segment", "Local", list(NAMES), at=node)

    def _begin(self) -> None:
        assert self._leader() == self.roles["leader"]
        for role, node in self.roles.items():
            assert [one.node for one in self._answers(role)] == [node], f"the VIP of {role} is not at {node}"
        for step in self.scenario.steps:
            a, b = (self.roles.get(role, "") for role in (step.role, step.other))
            self.faults.add(Fault(BEGINS + step.at, step.kind, a, b, step.seconds))

    def _ask(self) -> None:
        now, site, client = self.world.now, self.site, self.site.client_port
        for role in ROLES:
            service = f"at-{role}"
            assert client.cache is not None
            node = self.promises.node_of(client.cache.macs.get(site.packed(site.vip(service)), b""))
            if node and site.delivers(node, service) and site.linked(client.name, node):
                self._since.pop(role, None)
            else:
                self._gaps[role] = max(self._gaps[role], now + ASK - self._since.setdefault(role, now))
        if now < BEGINS + self.scenario.watch:
            self.world.after(ASK, self._ask)


def play(scenario: Scenario, seed: int = 1) -> Outcome:
    """Call this in a Python process of its own: it changes the modules of porterlb."""
    prepare()
    return Play(scenario, seed).run()
