"""The promises of BGP: what each router does with a packet for a VIP, and where the routes of a calm site are."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sim.faults import API, SEGMENT
from sim.router import HOLD, Router

if TYPE_CHECKING:
    from sim.promises import Promises

CLEAN_ROUTE = 0.35
"""Seconds until a router reaches a VIP again after a single fault: detection within 0.25 s, the plan, ExaBGP, and the
router."""
ROUTE = HOLD + 9.0
"""The same after overlapping faults: a session without its replica lives until the hold time is over."""
CARRIES_AFTER = 5.0
"""Seconds from the start of a replica until it must carry VIPs by its sessions."""


class BgpPromises:
    """Part of :class:`sim.promises.Promises`, for sites with routers."""

    def __init__(self, promises: Promises) -> None:
        self.promises = promises
        self.site, self.faults, self.world = promises.site, promises.faults, promises.world
        self._calm: Any = None

    def look(self, service: str, vip: str, able: list[str], *, known: bool) -> None:
        """After every event. ``able``: nodes that can serve. ``known``: whether the Service has a ready pod."""
        for router in self.site.routers:
            self._route(router, service, vip, able, known=known)

    def _route(self, router: Router, service: str, vip: str, able: list[str], *, known: bool) -> None:
        site, name = self.site, router.name
        subject = f"{service} from {name}"
        if not router.port.up:
            self.promises.condition("route", subject, broken=False, detail="")
            return
        hops = [site.segment.by_address[hop].name for hop in router.hops(site.prefix(vip))]
        packed = site.packed(vip)
        on_link = site.is_on_link(service)
        if hops or not on_link:
            router.cache.quiet(packed)
        else:
            router.cache.talk(packed)
        delivering = [node for node in site.names if site.delivers(node, service) and site.linked(name, node)]
        carriers = self.carriers(router, able)
        protocol = site.protocol(service)
        possible = carriers if protocol == "bgp" or not on_link else able
        usable = known and bool(delivering) and bool(possible)
        used = hops or ([self.promises.node_of(router.cache.macs.get(packed, b""))] if on_link else [])
        works = bool(used) and all(node in delivering for node in used)
        detail = f"{vip} goes to {used or 'nowhere'} ({'route' if hops else 'neighbor'}); could go to {delivering}"
        self.promises.condition("route", subject, broken=usable and not works, detail=f"{detail}; {carriers} carry it")

    def carriers(self, router: Router, able: list[str]) -> list[str]:
        """Nodes with a replica that has run long enough and a session with a router that both sides can use."""
        found = []
        for node in able:
            manager = self.site.nodes[node].manager
            young = manager is None or self.world.now - manager.begins < CARRIES_AFTER
            exabgp = self.site.exabgps.get(node)
            runs = exabgp is not None and exabgp.process.alive and not exabgp.process.stopped
            if not young and runs and router.established(node) is not None and router.reachable(node):
                found.append(node)
        return found

    def routed(self, vip: str) -> bool:
        """Whether any router has a route for it."""
        return any(router.port.up and router.hops(self.site.prefix(vip)) for router in self.site.routers)

    def bound(self, since: float, alone: float) -> tuple[float, float]:
        faults, now = self.faults, self.world.now
        if faults.by_itself(since, alone) or faults.ended_by_itself(since, alone):
            return since, CLEAN_ROUTE
        if faults.lasting(SEGMENT - {"power", "link"}) or faults.lasting(API):
            return now, ROUTE
        return max(since, faults.last["any"]), ROUTE

    def calm(self) -> str:
        """What is not as it must be, long after the last fault; empty: nothing."""
        site = self.site
        for router in site.routers:
            if missing := [node for node in site.names if router.established(node) is None]:
                return f"{router.name} has no session with {missing}"
            if stale := [node for node, one in router.neighbors.items() if one.stale]:
                return f"{router.name} keeps stale routes of {stale}"
            wanted = {site.prefix(site.vip(service)): service for service in site.services}
            if more := router.prefixes() - wanted.keys():
                return f"{router.name} has routes that nobody wants: {sorted(more)}"
            for prefix, service in wanted.items():
                hops = [site.segment.by_address[hop].name for hop in router.hops(prefix)]
                if not hops and not self._waits(service):
                    return f"{router.name} has no route for {prefix} ({service})"
                if wrong := [hop for hop in hops if not site.delivers(hop, service)]:
                    return f"{router.name} sends {prefix} ({service}) to {wrong}"
        self._calm = [router.state() for router in site.routers]
        return ""

    def still(self) -> str:
        """What has changed since then; empty: nothing."""
        return "" if self._waiting() or self._calm == [router.state() for router in self.site.routers] else "routes"

    def _waits(self, service: str) -> bool:
        """Whether a back-off after early losses keeps an ``auto`` VIP in Layer 2 (core/holddown)."""
        return self.site.protocol(service) == "auto" and self.site.is_on_link(service) and self._waiting()

    def _waiting(self) -> bool:
        for node in self.site.nodes.values():
            manager = node.manager.manager if node.manager is not None else None
            known = manager.reconciler.known if manager is not None else None
            if known is not None and any(state.losses >= 2 for state in known.plan.memory.hold_downs.values()):
                return True
        return False
