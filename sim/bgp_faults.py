"""Faults of BGP: drawn from the seed beside the other ones, and applied to the routers, ExaBGP and the Eips."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

from porterlb.cluster import Kind
from sim.router import ADMIN_RESET, ADMIN_SHUTDOWN

if TYPE_CHECKING:
    from sim.cluster import Site
    from sim.exabgp import Exabgp
    from sim.faults import Fault, Faults

BGP = frozenset(
    {"session", "sessions", "bgp_cut", "router", "exabgp_kill", "exabgp_stop", "exabgp_helper", "add_path", "protocol"}
)
"""``session``: a router shuts one session down; ``sessions``: all routers shut down all of theirs; ``bgp_cut``: BGP
packets between a router and a node are dropped; ``router``: a router loses its power; ``exabgp_helper``: its API
process is killed; ``add_path``: a router no longer supports it, or begins to; ``protocol``: an Eip has another one."""
SINGLE_BGP = frozenset({"session", "sessions", "bgp_cut", "exabgp_kill", "exabgp_stop", "exabgp_helper", "add_path"})
"""Those after which no request is lost for longer than the bound of a single fault."""

_WEIGHTS = {
    "session": 3,
    "sessions": 2,
    "bgp_cut": 2,
    "router": 2,
    "exabgp_kill": 3,
    "exabgp_stop": 2,
    "exabgp_helper": 1,
    "add_path": 1,
    "protocol": 2,
}


def draw(
    chance: random.Random, at: float, end: float, names: tuple[str, ...], routers: tuple[str, ...]
) -> tuple[float, str, str, str, float, float]:
    """One fault: the fields of a Fault."""
    kind = chance.choices(list(_WEIGHTS), list(_WEIGHTS.values()))[0]
    node, router = chance.choice(names), chance.choice(routers)
    lasts = chance.choice((0.2, 1.0, 4.0, 12.0, 25.0)) * (0.5 + chance.random())
    seconds = round(max(0.01, min(lasts, end - at)), 3)
    match kind:
        case "session" | "bgp_cut":
            return at, kind, node, router, seconds, 0.0
        case "sessions":
            return at, kind, "", "", seconds, 0.0
        case "router" | "add_path":
            return at, kind, router, "", seconds, 0.0
        case "exabgp_stop":
            return at, kind, node, "", seconds, 0.0
        case "protocol":
            return at, kind, "segment", chance.choice(("bgp", "layer2")), seconds, 0.0
        case _:
            return at, kind, node, "", 0.0, 0.0


class BgpFaults:
    """Applies them."""

    def __init__(self, site: Site, faults: Faults) -> None:
        self.site, self.faults = site, faults

    def _active(self, kind: str) -> list[Fault]:
        return [fault for fault in self.faults.active if fault.kind == kind]

    def _exabgp(self, node: str) -> Exabgp | None:
        found = self.site.exabgps.get(node)
        return found if found is not None and found.process.alive else None

    def session(self, fault: Fault, on: bool) -> None:
        everywhere = bool(self._active("sessions"))
        for router in self.site.routers:
            down = {one.a for one in self._active("session") if one.b == router.name}
            before, router.refuses = router.refuses, set(self.site.names) if everywhere else down
            for node in sorted(router.refuses - before):
                router.cease(node, ADMIN_SHUTDOWN)

    sessions = session

    def bgp_cut(self, fault: Fault, on: bool) -> None:
        for router in self.site.routers:
            router.filters = {one.a for one in self._active("bgp_cut") if one.b == router.name}

    def router(self, fault: Fault, on: bool) -> None:
        for router in self.site.routers:
            up = all(one.a != router.name for one in self._active("router"))
            if router.port.powered is not up:
                router.power(up)

    def add_path(self, fault: Fault, on: bool) -> None:
        router = next(router for router in self.site.routers if router.name == fault.a)
        router.add_path = not router.add_path
        for node in self.site.names:
            router.cease(node, ADMIN_RESET)

    def exabgp_kill(self, fault: Fault, on: bool) -> None:
        if (found := self._exabgp(fault.a)) is not None:
            found.process.end(-9)

    def exabgp_helper(self, fault: Fault, on: bool) -> None:
        if (found := self._exabgp(fault.a)) is not None:
            found.kill_helper()

    def exabgp_stop(self, fault: Fault, on: bool) -> None:
        """Stops the one that runs now; a later one is not stopped."""
        if on and (found := self._exabgp(fault.a)) is not None:
            found.process.stop()
        elif not on and all(one.a != fault.a for one in self._active("exabgp_stop")):
            for process in self.site.world.processes:
                if process.name == f"{fault.a}/exabgp":
                    process.resume()

    def protocol(self, fault: Fault, on: bool) -> None:
        active = [one for one in self._active("protocol") if one.a == fault.a]
        spec = dict((self.site.api.get(Kind.EIP, fault.a) or {})["spec"])
        spec["protocol"] = active[-1].b if active else "auto"
        self.site.api.put(Kind.EIP, fault.a, spec=spec)
