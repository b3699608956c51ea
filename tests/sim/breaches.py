"""``python -m tests.sim.breaches``: breaks each promise on purpose, and prints which one was noticed.

A program of its own, for the simulator replaces names in the modules of porterlb.
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
"""Seconds at which the promise is broken: everything is served, and no fault has been there."""


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
        cache._turn[IPv4Address(site.vip("shop")).packed] += 1  # they ask no more
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


def broken(breach: Callable[[Site], None] | None) -> str:
    """The promise that is noticed as broken; empty: none."""
    world = World(5)
    site = Site(world, NAMES)
    site.eip("segment", "10.77.0.200-10.77.0.229", "layer2")
    site.service("shop", "segment", "Cluster", ["n1", "n2"])
    site.run_all()
    Promises(site, Faults(site, [Fault(1.0, "cordon", "n3")]), 35.0)
    if breach is not None:
        world.at(AT, breach, site)
    try:
        world.run(35.0)
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
    for name, (breach, expected) in BREACHES.items():
        found = broken(breach)
        print(f"{name}: {found or 'NOT NOTICED'}{'' if found == expected else ' INSTEAD OF ' + expected}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
