"""``python -m tests.sim.breaches``: breaks each promise on purpose, and prints which breach was detected.

A separate program, because the simulator replaces names in the modules of porterlb.
"""

from __future__ import annotations

import logging
import random
import sys
from collections.abc import Callable
from ipaddress import IPv4Address

from porterlb.cluster import Kind
from sim.cluster import NS, Site
from sim.faults import Fault, Faults
from sim.platform import substitute
from sim.promises import Promises, Violation
from sim.world import World

NAMES = ("n1", "n2", "n3")
AT = 8.0
"""The time of the breach, in seconds: everything is served, and there has been no fault."""


def two_owners(site: Site) -> None:
    vip = IPv4Address(site.vip("shop")).packed
    for responder in site.responders:
        responder.own(vip, site.segment.ports[responder.process.node].mac)


def nobody_answers(site: Site) -> None:
    vip = IPv4Address(site.vip("shop")).packed
    for responder in list(site.responders):
        responder.disown(vip)


def hosts_are_wrong(site: Site) -> None:
    for cache in site.clients:
        cache.macs[IPv4Address(site.vip("shop")).packed] = b"\2\0\0\0\0\x63"
        cache._turn[IPv4Address(site.vip("shop")).packed] += 1  # they no longer ask
    site.world.dirty = True


def not_the_leader_writes(site: Site) -> None:
    other = next(name for name in NAMES if not site.leads(name))
    site.api.apply_status(other, (Kind.SERVICE, NS, "shop"), {}, "porterlb", "")


def another_address(site: Site) -> None:
    leader = next(name for name in NAMES if site.leads(name))
    status = {"loadBalancer": {"ingress": [{"ip": "10.77.0.229"}]}}
    site.api.apply_status(leader, (Kind.SERVICE, NS, "shop"), status, "porterlb", "")


def a_living_node_is_marked(site: Site) -> None:
    site._mark("n2", True)


def two_leaders(site: Site) -> None:
    for name in NAMES:
        process = site.nodes[name].manager
        assert process is not None
        process.manager.leader._machine._leading_until = site.world.now + process.clock + 5.0


def a_part_fails(site: Site) -> None:
    process = site.nodes["n1"].manager
    assert process is not None
    process.manager.parts.failed("test", ValueError("on purpose"))


def a_status_is_written_in_calm(site: Site) -> None:
    site.world.at(33.0, site.api.put, Kind.SERVICE, "shop", NS)
    site.world.at(33.0, _count, site)


def _count(site: Site) -> None:
    site.api.writes += 1


def a_route_is_lost(site: Site) -> None:
    router = site.routers[0]
    router.neighbors.clear()
    router._changed({f"{site.vip('routed')}/32"})


def a_route_leads_to_a_node_without_pods(site: Site) -> None:
    router = site.routers[0]
    router._used[f"{site.vip('routed')}/32"] = ("10.77.0.3",)
    site.world.dirty = True


def a_route_changes_in_calm(site: Site) -> None:
    site.world.at(END_WITH_BGP - 5.0, site.routers[0].neighbors["n1"].routes.clear)


def a_session_is_never_back(site: Site) -> None:
    site.routers[0].refuses.add("n2")
    site.routers[0].cease("n2", 2)


END_WITH_BGP = 50.0
"""Seconds: the bound for a route is longer than the bounds of the other promises."""
WITH_BGP: dict[str, tuple[Callable[[Site], None], str]] = {
    "a route is lost": (a_route_is_lost, "status is true"),
    "a route leads to a node without pods": (a_route_leads_to_a_node_without_pods, "route"),
    "a session is never back": (a_session_is_never_back, "everything converges"),
    "a route changes in calm": (a_route_changes_in_calm, "calm is still"),
}
BREACHES: dict[str, tuple[Callable[[Site], None], str]] = {
    "two owners": (two_owners, "one owner"),
    "nobody answers": (nobody_answers, "answered"),
    "hosts are wrong": (hosts_are_wrong, "path"),
    "not the leader writes": (not_the_leader_writes, "only the leader writes"),
    "another address": (another_address, "an address stays"),
    "a living node is marked": (a_living_node_is_marked, "pods of a living node stay ready"),
    "two leaders": (two_leaders, "one leader"),
    "a part fails": (a_part_fails, "no part fails"),
    "a status is written in calm": (a_status_is_written_in_calm, "calm is still"),
}


def broken(breach: Callable[[Site], None] | None, *, bgp: bool = False) -> str:
    """The promise that is reported as broken; empty: none."""
    world = World(5)
    site = Site(world, NAMES, paths=(True,) if bgp else ())
    site.eip("segment", "10.77.0.200-10.77.0.229", "auto" if bgp else "layer2")
    if bgp:
        site.peers(add_path=True, graceful_restart=True)
        site.eip("routed", "10.99.0.0/28", "bgp")
        site.service("routed", "routed", "Local", ["n1", "n2"])
    site.service("shop", "segment", "Cluster", ["n1", "n2"])
    site.run_all()
    end = END_WITH_BGP if bgp else 35.0
    Promises(site, Faults(site, [Fault(1.0, "cordon", "n3")]), end)
    if breach is not None:
        world.at(AT, breach, site)
    try:
        world.run(end)
    except Violation as found:
        return found.promise
    finally:
        for process in world.processes:
            process.alive = False
    return ""


def main() -> int:
    logging.disable(logging.CRITICAL)
    random.seed(1)
    substitute()
    sys.unraisablehook = lambda unraisable: None
    print(f"untouched: {broken(None) or 'nothing'}")
    print(f"untouched with BGP: {broken(None, bgp=True) or 'nothing'}")
    for name, (breach, expected) in {**BREACHES, **WITH_BGP}.items():
        found = broken(breach, bgp=name in WITH_BGP)
        print(f"{name}: {found or 'NOT NOTICED'}{'' if found == expected else ' INSTEAD OF ' + expected}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
