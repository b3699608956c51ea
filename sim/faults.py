"""Faults and changes: drawn from the seed as a list of values, and applied to a site."""

from __future__ import annotations

import random
from dataclasses import asdict, dataclass
from typing import Any

from porterlb.cluster import Kind
from sim import bgp_faults
from sim.bgp_faults import SINGLE_BGP, BgpFaults
from sim.cluster import NS, Site
from sim.world import Process

QUIET_START, QUIET_END = 12.0, 40.0
"""Seconds without faults at the beginning and at the end of a run."""

SEGMENT = frozenset({"power", "link", "isolate", "deaf", "mute", "pair", "one_way", "split", "loss", "lossy", "jitter"})
"""Faults of the segment: while one of them lasts, replicas may know nothing of one another."""
SINGLE = frozenset({"power", "link", "stop_wire", "stop_both", "kill_manager", "api_out", "api_out_node"})
"""Faults of the failure table, for which the reaction is bounded to 0.25 s."""
API = frozenset({"api_out", "api_out_node", "api_slow", "api_lag", "api_conflicts"})


@dataclass(frozen=True)
class Fault:
    """``at``, ``seconds``: when it begins and how long it lasts (0: a moment). ``a``, ``b``: the nodes or objects."""

    at: float
    kind: str
    a: str = ""
    b: str = ""
    seconds: float = 0.0
    value: float = 0.0

    @property
    def until(self) -> float:
        return self.at + self.seconds

    def told(self) -> str:
        whom = " -> ".join(name for name in (self.a, self.b) if name)
        lasts = f" for {self.seconds:.2f} s" if self.seconds else ""
        value = f" ({self.value:.2f})" if self.value else ""
        return f"{self.kind} {whom}{value}{lasts}".replace("  ", " ")

    def json(self) -> dict[str, Any]:
        return asdict(self)


def draw(seed: int | str, names: tuple[str, ...], services: tuple[str, ...], seconds: float) -> list[Fault]:
    """The faults of a seed."""
    chance = random.Random(f"{seed}/faults")
    found: list[Fault] = []
    at, end = QUIET_START + 4 * chance.random(), seconds - QUIET_END
    while at < end:
        for _ in range(1 if chance.random() < 0.6 else chance.randint(2, 4)):
            found.append(
                _one(chance, at + chance.choice((0.0, 0.02, 0.1, 0.4)) * chance.random(), names, services, end)
            )
        at += chance.choice((0.3, 2.0, 6.0, 12.0)) * (0.5 + chance.random())
    return sorted(found, key=lambda fault: fault.at)


def with_bgp(
    seed: int | str, faults: list[Fault], names: tuple[str, ...], routers: tuple[str, ...], seconds: float
) -> list[Fault]:
    """Adds faults of BGP, at moments of their own."""
    chance = random.Random(f"{seed}/faults of BGP")
    found = list(faults)
    at, end = QUIET_START + 6 * chance.random(), seconds - QUIET_END
    while at < end:
        for _ in range(1 if chance.random() < 0.7 else 2):
            found.append(Fault(*bgp_faults.draw(chance, at + 0.3 * chance.random(), end, names, routers)))
        at += chance.choice((1.0, 6.0, 14.0)) * (0.5 + chance.random())
    return sorted(found, key=lambda fault: fault.at)


def _one(chance: random.Random, at: float, names: tuple[str, ...], services: tuple[str, ...], end: float) -> Fault:
    node, other = chance.sample(names, 2)
    service = chance.choice(services)
    short, long = chance.choice((0.03, 0.1, 0.25, 0.6, 2.0)), chance.choice((1.0, 4.0, 12.0, 30.0))
    lasts = round((short if chance.random() < 0.5 else long) * (0.5 + chance.random()), 3)
    lasts = max(0.01, min(lasts, end - at))
    longer = max(0.01, min(long * (0.5 + chance.random()), end - at))
    kind, weight = zip(*_WEIGHTS.items(), strict=True)
    match chance.choices(kind, weight)[0]:
        case "power":
            return Fault(at, "power", node, seconds=longer)
        case "link" | "isolate" | "deaf" | "mute" as what:
            return Fault(at, what, node, seconds=lasts)
        case "pair" | "one_way" | "split" as what:
            return Fault(at, what, node, other, seconds=lasts)
        case "loss":
            return Fault(at, "loss", seconds=lasts, value=round(chance.choice((0.02, 0.1, 0.3)) * chance.random(), 3))
        case "lossy":
            return Fault(at, "lossy", node, seconds=lasts, value=round(0.6 * chance.random(), 3))
        case "jitter":
            return Fault(at, "jitter", seconds=lasts, value=round(0.03 * chance.random(), 4))
        case "stop_wire" | "stop_manager" | "stop_both" as what:
            return Fault(at, what, node, seconds=lasts)
        case "api_out" | "api_lag" | "api_slow" | "api_conflicts" as what:
            return Fault(at, what, seconds=longer, value=round(chance.random(), 3))
        case "api_out_node":
            return Fault(at, "api_out_node", node, seconds=longer)
        case "pods" | "new_service" | "gone_service" as what:
            return Fault(at, what, service, node, value=round(chance.random(), 3))
        case "cordon":
            return Fault(at, "cordon", node, seconds=longer)
        case what:
            return Fault(at, str(what), node)


_WEIGHTS = {
    "power": 3,
    "link": 3,
    "isolate": 2,
    "deaf": 1,
    "mute": 1,
    "pair": 2,
    "one_way": 2,
    "split": 1,
    "loss": 2,
    "lossy": 2,
    "jitter": 1,
    "stop_wire": 3,
    "stop_manager": 3,
    "stop_both": 3,
    "kill_wire": 2,
    "kill_manager": 2,
    "term_manager": 2,
    "api_out": 2,
    "api_out_node": 2,
    "api_slow": 1,
    "api_lag": 1,
    "api_conflicts": 1,
    "pods": 3,
    "new_service": 1,
    "gone_service": 1,
    "cordon": 1,
}


class Faults:
    """Applies the faults. ``last``: when a fault of a group last began or ended; ``active``: those in force."""

    def __init__(self, site: Site, faults: list[Fault]) -> None:
        self.site = site
        self.world = site.world
        self.active: list[Fault] = []
        self._before = -100.0  # the change before the last one
        self._single: Fault | None = None  # the last change is the beginning of this one
        self._over: Fault | None = None  # the last change is the end of this one
        self.bgp = BgpFaults(site, self)
        self.last: dict[str, float] = {"segment": 0.0, "api": 0.0, "any": 0.0}
        self.begun = 0
        for fault in faults:
            self.add(fault)

    def add(self, fault: Fault) -> None:
        self.world.at(fault.at, self._begin, fault)

    def lasting(self, kinds: frozenset[str]) -> bool:
        return any(fault.kind in kinds for fault in self.active)

    def by_itself(self, since: float, apart: float) -> bool:
        """Whether the last fault to begin is one of the failure table, long after all others, so that what has been
        broken since then is broken by it alone."""
        fault, at = self._single, self.last["any"]
        return (
            fault is not None
            and fault.kind in SINGLE | SINGLE_BGP
            and at - self._before >= apart
            and at <= since < at + 5.0
        )

    def ended_by_itself(self, since: float, apart: float) -> bool:
        """The same for the end of a fault of BGP, with no other one in force."""
        fault, at = self._over, self.last["any"]
        return fault is not None and fault.kind in SINGLE_BGP and at - self._before >= apart and at <= since < at + 15.0

    def _note(self, fault: Fault) -> None:
        now = self.world.now
        self._before, self.last["any"] = self.last["any"], now
        self._single = self._over = None
        if fault.kind in SEGMENT:
            self.last["segment"] = now
        if fault.kind in API:
            self.last["api"] = now

    def _begin(self, fault: Fault) -> None:
        self.begun += 1
        self._note(fault)
        self.world.say("FAULT", fault.told())
        self._single = fault if not self.active else None
        if fault.seconds:
            self.active.append(fault)
            self.world.after(fault.seconds, self._end, fault)
        self.world.dirty = True
        self._do(fault, True)

    def _end(self, fault: Fault) -> None:
        self.active.remove(fault)
        self._note(fault)
        self._over = fault if not self.active else None
        self.world.say("FAULT", f"over: {fault.told()}")
        self.world.dirty = True
        self._do(fault, False)

    def _do(self, fault: Fault, on: bool) -> None:
        if fault.kind in bgp_faults.BGP:
            getattr(self.bgp, fault.kind)(fault, on)
        else:
            getattr(self, f"_{fault.kind}")(fault, on)

    def _still(self, kind: str, node: str) -> bool:
        return any(fault.kind == kind and fault.a == node for fault in self.active)

    # ---- nodes and the segment

    def _power(self, fault: Fault, on: bool) -> None:
        if on or not self._still("power", fault.a):
            self.site.power(fault.a, not on)

    def _link(self, fault: Fault, on: bool) -> None:
        port = self.site.segment.ports[fault.a]
        link = not (on or self._still("link", fault.a))
        if port.link is not link:
            port.link = link
            port.changed()

    def _cuts(self) -> None:
        names = list(self.site.segment.ports)
        cut: set[tuple[str, str]] = set()
        for fault in self.active:
            others = [name for name in names if name != fault.a]
            if fault.kind in ("isolate", "deaf"):
                cut.update((other, fault.a) for other in others)
            if fault.kind in ("isolate", "mute"):
                cut.update((fault.a, other) for other in others)
            if fault.kind in ("pair", "one_way"):
                cut.add((fault.a, fault.b))
            if fault.kind == "pair":
                cut.add((fault.b, fault.a))
            if fault.kind == "split":  # a and b on one side, all others on the other
                here = {fault.a, fault.b}
                cut.update((one, two) for one in names for two in names if (one in here) is not (two in here))
        self.site.segment.weather.cut = cut

    def _isolate(self, fault: Fault, on: bool) -> None:
        self._cuts()

    _deaf = _mute = _pair = _one_way = _split = _isolate

    def _weather(self, fault: Fault, on: bool) -> None:
        weather = self.site.segment.weather
        weather.loss = max([f.value for f in self.active if f.kind == "loss"], default=0.0)
        weather.jitter = max([f.value for f in self.active if f.kind == "jitter"], default=0.0)
        weather.duplicate = 0.2 if weather.jitter else 0.0
        weather.lossy = {f.a: f.value for f in self.active if f.kind == "lossy"}

    _loss = _lossy = _jitter = _weather

    # ---- processes

    def _processes(self, fault: Fault) -> list[Process]:
        manager, wire = self.site.nodes[fault.a].manager, self.site.wires.get(fault.a)
        which = {"stop_wire": (wire,), "stop_manager": (manager,), "stop_both": (manager, wire)}[fault.kind]
        return [process for process in which if process is not None]

    def _stop(self, fault: Fault, on: bool) -> None:
        for process in self._processes(fault):
            if on:
                process.stop()
            elif not any(self._holds(other, process) for other in self.active):
                process.resume()

    def _holds(self, fault: Fault, process: Process) -> bool:
        return fault.kind.startswith("stop_") and process in self._processes(fault)

    _stop_wire = _stop_manager = _stop_both = _stop

    def _kill_wire(self, fault: Fault, on: bool) -> None:
        if (process := self.site.wires.get(fault.a)) is not None:
            process.end(-9)

    def _kill_manager(self, fault: Fault, on: bool) -> None:
        if (process := self.site.nodes[fault.a].manager) is not None:
            process.end(-9)

    def _term_manager(self, fault: Fault, on: bool) -> None:
        process = self.site.nodes[fault.a].manager
        if process is not None:
            process.signal(15)
            self.world.after(30.0, process.end, -9)  # the pod's grace period

    # ---- the API and its objects

    def _api(self, fault: Fault, on: bool) -> None:
        api = self.site.api
        away: set[str] = set()
        for active in self.active:
            if active.kind == "api_out":
                away.update(self.site.names)
            if active.kind == "api_out_node":
                away.add(active.a)
        api.mend(api.away - away)
        api.cut(away - api.away)
        api.slow = max([0.8 * f.value for f in self.active if f.kind == "api_slow"], default=0.0)
        api.lag = max([3.0 * f.value for f in self.active if f.kind == "api_lag"], default=0.0)
        api.conflicts = max([0.5 * f.value for f in self.active if f.kind == "api_conflicts"], default=0.0)

    _api_out = _api_out_node = _api_slow = _api_lag = _api_conflicts = _api

    def _cordon(self, fault: Fault, on: bool) -> None:
        self.site.cordon(fault.a, on)

    def _pods(self, fault: Fault, on: bool) -> None:
        """One pod of a Service becomes ready or not ready; at least one is always ready."""
        pods = [pod for pod in self.site.pods if pod.service == fault.a]
        if not pods:
            return
        pod = pods[min(int(fault.value * len(pods)), len(pods) - 1)]
        if pod.ready and sum(one.ready for one in pods) < 2:
            return
        pod.ready = not pod.ready
        self.world.say("api", f"pod of {pod.service} on {pod.node} is {'ready' if pod.ready else 'not ready'}")
        self.site.slices(fault.a)

    def _new_service(self, fault: Fault, on: bool) -> None:
        name = f"new-{self.begun}"
        policy = "Local" if fault.value < 0.5 else "Cluster"
        self.site.service(name, "segment", policy, list(self.site.names) if fault.value < 0.7 else [fault.b])

    def _gone_service(self, fault: Fault, on: bool) -> None:
        if len(self.site.services) > 1 and self.site.api.get(Kind.SERVICE, fault.a, NS) is not None:
            self.site.remove_service(fault.a)
