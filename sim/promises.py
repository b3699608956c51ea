"""The promises of the design, as conditions that are checked after every event that may change one of them.

Each condition has a bound in seconds, counted from when it began, or from the last fault that excuses it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from porterlb.cluster import Kind
from sim.bgp_promises import BgpPromises
from sim.cluster import NS, Site
from sim.faults import API, SEGMENT, Faults
from sim.signs import Signs

ONE_OWNER = 1.3
"""Seconds for two MACs for one VIP: 0.3 to notice and 1 to settle (liveness: two sender MACs of ours)."""
FAILOVER = 0.25
"""Seconds without a live answerer after a single fault (failure table: L2 next hop, leader's node)."""
UNOWNED = 4.0
"""The same if faults overlap or follow one another: a returning replica waits for the same plan as the others."""
PATH = 9.0
"""Seconds until hosts reach a VIP again after overlapping faults: announcements at 0 to 4.4 s, and a host's own
question."""
CLEAN_PATH = 0.3
"""The same after a single fault: the failover, and the delivery of the announcement."""
TRUTH = 6.0
"""Seconds for which a status may say Serving while no node answers."""
CALM = 20.0
"""Seconds after the last fault until everything has converged."""
ALONE = 8.0
"""A fault is single if no other one began or ended for this many seconds before it."""


class Violation(Exception):
    """``at``: when; ``promise``: its name; ``subject``: the object or node; ``detail``: what was seen."""

    def __init__(self, at: float, promise: str, subject: str, detail: str) -> None:
        super().__init__(at, promise, subject, detail)
        self.at, self.promise, self.subject, self.detail = at, promise, subject, detail

    def __str__(self) -> str:
        return f"{self.at:8.3f} {self.promise}: {self.subject}: {self.detail}"


@dataclass(frozen=True)
class Answer:
    """The answer of one wire process for a VIP."""

    node: str
    mac: bytes


class Promises:
    """Raises Violation from the event that breaks a promise, or at the moment when its bound is exceeded."""

    def __init__(self, site: Site, faults: Faults, end: float, *, balanced: bool = False) -> None:
        self.site, self.faults, self.world, self.end = site, faults, site.world, end
        self.balanced = balanced
        self.since: dict[tuple[str, str], float] = {}
        self.worst: dict[str, float] = {}
        self.writes_at_calm = 0
        self.owners_at_calm: dict[str, Any] = {}
        self.checks = 0
        self.signs = Signs(site, faults)
        self.bgp = BgpPromises(self)
        self._details: dict[tuple[str, str], str] = {}
        self.known_vips: dict[str, float] = {}
        site.world.after_event = self.look
        site.on_mark = self.marked  # type: ignore[method-assign]
        site.api.audit = self.audit
        self.world.at(end - QUIET_TAIL, self._calm)
        self.world.after(0.1, self._sample)

    # ---- the current state

    def answers(self, packed: bytes) -> list[Answer]:
        """The current answers for a VIP."""
        found = []
        for responder in self.site.responders:
            process = responder.process
            mac = responder.owns.get(packed)
            if mac is not None and process.alive and not process.stopped and self.site.segment.ports[process.node].up:
                found.append(Answer(process.node, mac))
        return found

    def node_of(self, mac: bytes) -> str:
        port = self.site.segment.by_mac.get(mac)
        return port.name if port is not None and port.name in self.site.nodes else ""

    def able(self) -> list[str]:
        """Nodes whose replica has run long enough to serve, and is on the segment."""
        found = []
        for name, node in self.site.nodes.items():
            wire, manager = self.site.wires.get(name), node.manager
            if not node.port.up or wire is None or not wire.alive or wire.stopped:
                continue
            if manager is None or not manager.alive or manager.stopped:
                continue
            if self.world.now - wire.begins > ABLE_AFTER:
                found.append(name)
        return found

    # ---- after every event

    def look(self) -> None:
        self.checks += 1
        self.signs.look()
        site, now = self.site, self.world.now
        able = self.able()
        seen: set[str] = set()
        for service in site.services:
            vip = site.vip(service)
            if not vip:
                continue
            seen.add(service)
            self.known_vips.setdefault(service, now)
            packed = site.packed(vip)
            answers = self.answers(packed)
            macs = {answer.mac for answer in answers}
            for cache in site.clients if site.is_on_link(service) else ():
                cache.talk(packed)
            delivering = [name for name in site.names if site.delivers(name, service) and self._connected(name)]
            alive = [answer for answer in answers if self._alive(answer)]
            if not site.is_spread(service):  # there each host has its own owner: see "path"
                self.condition("one owner", service, len(macs) > 1, str(answers))
            known = any(pod.service == service and site.is_ready(pod) for pod in site.pods)
            usable = bool(delivering) and bool(able) and known
            must = self._must_answer(service)
            detail = f"{vip}: answers {answers}, could: {delivering}"
            self.condition("answered", service, usable and must and not alive, detail)
            for cache in site.clients:
                node = self.node_of(cache.macs.get(packed, b""))
                works = bool(node) and site.delivers(node, service) and site.linked(cache.port.name, node)
                self.condition(
                    "path",
                    f"{service} from {cache.port.name}",
                    usable and must and not works,
                    f"{vip} goes to {node or 'nobody'}; could go to {delivering}; answers {answers}",
                )
            self.bgp.look(service, vip, able, known=known)
            served = bool(answers) or self.bgp.routed(vip)
            lies = self._says_serving(service) and not served and bool(able) and self._led()
            self.condition("status is true", service, lies, f"{vip}: nobody answers")
        for service in [service for service in self.known_vips if service not in seen]:
            del self.known_vips[service]
            for key in [key for key in self.since if key[1].split(" ")[0] == service]:
                del self.since[key]

    def _must_answer(self, service: str) -> bool:
        """Whether Layer 2 must always serve its VIP."""
        protocol = self.site.protocol(service)
        return self.site.is_on_link(service) and (
            protocol == "layer2" or (protocol == "auto" and self.site.has_standby(service))
        )

    def _connected(self, node: str) -> bool:
        return all(self.site.linked(node, cache.port.name) for cache in self.site.clients)

    def _alive(self, answer: Answer) -> bool:
        """Whether the node of the MAC is up."""
        node = self.node_of(answer.mac)
        return bool(node) and self.site.segment.ports[node].up

    def _led(self) -> bool:
        """Whether any replica may write a status."""
        return any(self.site.leads(name) for name in self.site.names)

    def _says_serving(self, service: str) -> bool:
        obj = self.site.api.get(Kind.SERVICE, service, NS) or {}
        conditions = (obj.get("status") or {}).get("conditions") or []
        return any(one["type"].endswith("Serving") and one["status"] == "True" for one in conditions)

    def condition(self, promise: str, subject: str, broken: bool, detail: str) -> None:
        key = (promise, subject)
        since = self.since.get(key)
        if not broken:
            if since is not None:
                self.worst[promise] = max(self.worst.get(promise, 0.0), self.world.now - since)
                del self.since[key]
        elif since is None:
            self.since[key] = self.world.now
            self._again(key, self.world.now)
        self._details[key] = detail if broken else ""

    def _again(self, key: tuple[str, str], since: float) -> None:
        """Checks again when the bound is reached."""
        begins, bound = self._bound(key[0], key[1], since)
        self.world.at(max(begins + bound + 1e-6, self.world.now + 0.01), self._due, key, since)

    def _due(self, key: tuple[str, str], since: float) -> None:
        if self.since.get(key) != since:
            return
        self.look()
        if self.since.get(key) != since:
            return
        begins, bound = self._bound(key[0], key[1], since)
        if self.world.now >= begins + bound:
            lasted = self.world.now - since
            raise Violation(self.world.now, key[0], key[1], f"for {lasted:.2f} s (bound {bound}); {self._details[key]}")
        self._again(key, since)

    def _bound(self, promise: str, subject: str, since: float) -> tuple[float, float]:
        """The time from which the seconds count, and the maximum number of seconds."""
        faults, now = self.faults, self.world.now
        if promise == "route":
            return self.bgp.bound(since, ALONE)
        segment = max(since, now if faults.lasting(SEGMENT - {"power", "link"}) else faults.last["segment"])
        anything = max(since, faults.last["any"])
        objects = now if faults.lasting(API) else anything
        match promise:
            case "one owner":
                return segment if faults.lasting(SEGMENT) else anything, ONE_OWNER
            case "status is true":
                return (now if faults.lasting(SEGMENT | API) or faults.active else objects), TRUTH
        if faults.by_itself(since, ALONE):
            return since, CLEAN_PATH if promise == "path" else FAILOVER
        if faults.lasting(SEGMENT - {"power", "link"}) or faults.lasting(API):
            return now, PATH
        return max(segment, objects), PATH if promise == "path" else UNOWNED

    # ---- at each write

    def audit(self, node: str, owner: str, key: tuple[Kind, str, str], status: Mapping[str, Any]) -> None:
        if owner != "porterlb":
            return
        lease = self.site.api.leases.get("porterlb")
        holder = lease.holder.rpartition("_")[0] if lease else ""
        if holder != node:
            raise Violation(self.world.now, "only the leader writes", node, f"writes {key[2]}; the lease is {holder}'s")
        if key[0] is Kind.SERVICE:
            self._address(key[2], status)

    def _address(self, service: str, status: Mapping[str, Any]) -> None:
        ingress = ((status.get("loadBalancer") or {}).get("ingress")) or []
        vip = ingress[0]["ip"] if ingress else ""
        before = self.site.vip(service)
        if before and vip != before:
            raise Violation(self.world.now, "an address stays", service, f"{before} becomes {vip or 'nothing'}")
        for other in self.site.services:
            if vip and other != service and self.site.vip(other) == vip:
                raise Violation(self.world.now, "one Service an address", service, f"{vip} is {other}'s")

    def marked(self, node: str, marked: bool) -> None:
        if not marked or not self.site.segment.ports[node].powered:
            return
        if why := self.signs.possible(node):
            raise Violation(self.world.now, "pods of a living node stay ready", node, f"are marked, but {why}")

    # ---- periodically

    def _sample(self) -> None:
        self.signs.look()
        processes = [one for one in self.world.processes if not one.name.endswith("/exabgp")]
        stopped = {process.node for process in processes if process.stopped and process.alive}
        leaders = [name for name in self.site.names if self.site.leads(name) and name not in stopped]
        if len(leaders) > 1:
            raise Violation(self.world.now, "one leader", ", ".join(leaders), "lead")
        for process in self.world.processes:
            if process.loop.failed:
                raise Violation(self.world.now, "no part fails", process.name, process.loop.failed[0])
        for node in self.site.nodes.values():
            manager = node.manager.manager if node.manager is not None else None
            if manager is not None and manager.parts.failures:
                raise Violation(self.world.now, "no part fails", node.name, str(manager.parts.failures))
        self.world.after(0.1, self._sample)

    def _calm(self) -> None:
        """Everything must have converged, and must not change from now on."""
        self.look()
        site = self.site
        if any(node.port.powered and node.manager is None for node in site.nodes.values()):
            raise Violation(self.world.now, "everything converges", "replicas", "not all run")
        leaders = [name for name in site.names if site.leads(name)]
        if len(leaders) != 1:
            raise Violation(self.world.now, "everything converges", "leader", str(leaders))
        digests = {}
        for name in site.names:
            process = site.nodes[name].manager
            manager = process.manager if process is not None and process.alive else None
            known = manager.reconciler.known if manager is not None else None
            digests[name] = known.plan.digest if known is not None else None
            if known is not None and set(known.wire.fresh) != set(site.names) - {name}:
                raise Violation(self.world.now, "everything converges", name, f"hears only {sorted(known.wire.fresh)}")
            if known is not None and (known.wire.dead or known.wire.doubt or known.outage):
                seen = f"dead {sorted(known.wire.dead)}, doubt {known.wire.doubt}, outage {known.outage!r}"
                raise Violation(self.world.now, "everything converges", name, seen)
        if len(set(digests.values())) != 1:
            raise Violation(self.world.now, "everything converges", "plans", str(digests))
        for service in site.services:
            vip = site.vip(service)
            if not vip:
                raise Violation(self.world.now, "everything converges", service, "has no address")
            answers = self.answers(site.packed(vip))
            if self._must_answer(service) and (
                len(answers) != 1 or not site.delivers(self.node_of(answers[0].mac), service)
            ):
                raise Violation(self.world.now, "everything converges", service, f"{vip}: {answers}")
            if not self._says_serving(service):
                raise Violation(self.world.now, "everything converges", service, "the status does not say Serving")
        if site.marked:
            raise Violation(self.world.now, "everything converges", str(sorted(site.marked)), "pods are still marked")
        if self.balanced:
            self._balance()
        if wrong := self.bgp.calm():
            raise Violation(self.world.now, "everything converges", "BGP", wrong)
        self.writes_at_calm = site.api.writes
        self.owners_at_calm = {name: self.answers(site.packed(site.vip(name))) for name in site.services}
        self.world.at(self.end - 1e-3, self._still)

    def _balance(self) -> None:
        """Checks that no node is both above 1.25 times the mean and two VIPs above it, if one VIP could be moved."""
        site = self.site
        at = {name: self.node_of(self.answers(site.packed(site.vip(name)))[0].mac) for name in site.services}
        loads = Counter(at.values())
        mean = len(at) / len(site.names)
        for node, load in loads.items():
            if load <= 1.25 * mean or load - mean < 2:
                continue
            for name in [name for name, where in at.items() if where == node]:
                places = {pod.node for pod in site.pods if pod.service == name and site.is_ready(pod)}
                if any(loads[place] <= load - 2 for place in places):
                    raise Violation(self.world.now, "the nodes are balanced", node, f"{name} could be moved: {loads}")

    def _still(self) -> None:
        site = self.site
        if site.api.writes != self.writes_at_calm:
            raise Violation(self.world.now, "calm is still", "API", f"{site.api.writes - self.writes_at_calm} writes")
        if moved := self.bgp.still():
            raise Violation(self.world.now, "calm is still", "BGP", moved)
        owners = {name: self.answers(site.packed(site.vip(name))) for name in site.services}
        if owners != self.owners_at_calm:
            raise Violation(self.world.now, "calm is still", "owners", f"{self.owners_at_calm} became {owners}")


QUIET_TAIL = 15.0
"""Seconds at the end of a run in which nothing may change."""
ABLE_AFTER = 2.0
"""Seconds from the start of a wire process until it must serve: 1 s of listening, and the wanted set."""
