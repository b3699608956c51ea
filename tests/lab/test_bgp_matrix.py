"""All combinations of session options between nodes and a router: the router must have exactly the wanted next hops.

The combinations cover every pair of two options at least once (`test_every_two_options_meet` proves it).
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field, fields
from typing import Any

import pytest

from lab import objects
from lab.measure import wait_equal, wait_until
from lab.routers import KINDS, Router
from tests.lab.bgp_scenes import (
    DUAL,
    FAMILIES,
    PASSWORD,
    Combination,
    connect,
    far_router,
    has_attributes,
    wait_exactly,
    wanted_routes,
)
from tests.lab.product import EIP_ANNOTATION, Product, product

pytestmark = pytest.mark.lab

NAMES = ("node-a", "node-b", "node-c")
ROUTED = {EIP_ANNOTATION: "routed"}
VALUES: dict[str, list[Any]] = {
    "router": sorted(KINDS),
    "carry": list(FAMILIES),
    "relation": ["direct", "multihop", "ibgp"],
    "add_path": [True, False],
    "password": [True, False],
    "passive": [True, False],
    "port": [179, 1790],
    "timers": [(9, 0), (3, 1), (30, 10)],
    "nodes": ["all", "rack"],
    "restart": [True, False],
}
# In the order of the fields of Combination: router, carry, relation, add-path, password, passive, port, timers, nodes,
# graceful restart
COMBINATIONS = [
    Combination("bird", "v6", "direct", False, False, True, 179, (9, 0), "all", False),
    Combination("bird", "v6 over v4", "direct", True, False, False, 179, (30, 10), "all", True),
    Combination("bird", "both over v4", "ibgp", True, True, True, 1790, (3, 1), "all", False),
    Combination("bird", "v6 over v4", "ibgp", True, False, False, 179, (9, 0), "rack", False),
    Combination("bird", "two sessions", "ibgp", False, True, True, 1790, (3, 1), "rack", True),
    Combination("bird", "two sessions", "multihop", True, True, True, 179, (9, 0), "all", False),
    Combination("bird", "v4", "multihop", True, False, False, 179, (9, 0), "all", True),
    Combination("frr", "two sessions", "direct", True, False, False, 179, (9, 0), "all", True),
    Combination("frr", "v4", "ibgp", False, False, False, 1790, (3, 1), "rack", False),
    Combination("frr", "v6 over v4", "multihop", False, False, True, 1790, (9, 0), "all", True),
    Combination("frr", "v6", "multihop", True, True, False, 179, (3, 1), "rack", True),
    Combination("frr", "both over v4", "multihop", False, False, False, 179, (30, 10), "all", False),
    Combination("gobgp", "two sessions", "direct", False, False, False, 179, (30, 10), "rack", False),
    Combination("gobgp", "v4", "direct", True, True, True, 1790, (30, 10), "all", True),
    Combination("gobgp", "both over v4", "direct", True, True, False, 179, (9, 0), "rack", True),
    Combination("gobgp", "v6 over v4", "direct", False, True, True, 1790, (3, 1), "rack", False),
    Combination("gobgp", "v6", "ibgp", False, True, True, 1790, (30, 10), "rack", True),
    Combination("gobgp", "v4", "multihop", True, False, False, 179, (9, 0), "all", True),
    Combination("openbgpd", "v4", "direct", True, False, True, 179, (9, 0), "all", True),
    Combination("openbgpd", "v6", "multihop", False, False, False, 1790, (3, 1), "rack", False),
    Combination("openbgpd", "v6 over v4", "ibgp", True, False, True, 179, (30, 10), "rack", False),
    Combination("openbgpd", "both over v4", "direct", False, False, False, 1790, (9, 0), "all", True),
    Combination("openbgpd", "two sessions", "multihop", True, False, True, 1790, (3, 1), "all", True),
]
IMPOSSIBLE = {(kind, True) for kind, router in KINDS.items() if not router.takes_passwords}
"""Combinations of router and password that are impossible."""


def test_every_two_options_meet() -> None:
    names = [each.name for each in fields(Combination)]
    assert names == list(VALUES)
    for one, other in itertools.combinations(names, 2):
        met = {(getattr(c, one), getattr(c, other)) for c in COMBINATIONS}
        possible = set(itertools.product(VALUES[one], VALUES[other]))
        if (one, other) == ("router", "password"):
            possible -= IMPOSSIBLE
        assert met == possible, f"{one} and {other}"


@dataclass
class Scenes:
    """One lab at a time: the lab of a router is kept while the same router is requested."""

    kind: str = ""
    stack: ExitStack = field(default_factory=ExitStack)
    made: tuple[Product, Router] | None = None

    def of(self, kind: str) -> tuple[Product, Router]:
        if self.made is None or kind != self.kind:
            self.close()
            self.kind = kind
            self.made = self._make(kind)
        return self.made

    def close(self) -> None:
        if self.made is not None:
            print(self.made[0].logs())
        self.made = None
        self.stack.close()

    def _make(self, kind: str) -> tuple[Product, Router]:
        """Managers on three nodes, a dual-stack Service, a router on the segment and one behind it; no BgpPeer yet."""
        lab = self.stack.enter_context(product("manifests", nodes=3, routers=[kind], sessions=[], pod_servers=False))
        lab.prepare(peers=False)
        lab.eip("routed", "172.16.0.0/27,fd99::/120", protocol="bgp")
        for name in NAMES[:2]:
            lab.set_node(name, labels={"rack": "one"})
        lab.backend.apply(objects.secret("bgp", "porterlb-system", word=PASSWORD))
        far = far_router(lab, kind)
        far.start_daemon()
        lab.manage()
        lab.give("web", "routed", count=2, **DUAL)
        return lab, far


@pytest.fixture(scope="module")
def scenes() -> Iterator[Scenes]:
    made = Scenes()
    try:
        yield made
    finally:
        made.close()


@pytest.mark.parametrize("combination", COMBINATIONS, ids=str)
def test_the_router_has_exactly_the_wanted_next_hops(scenes: Scenes, combination: Combination) -> None:
    lab, far = scenes.of(combination.router)
    c = combination
    router = far if c.relation == "multihop" else lab.router
    speakers = NAMES if c.nodes == "all" else NAMES[:2]
    vips = [vip for vip in lab.vips("web") if ("v6" if ":" in vip else "v4") in c.families]
    # The far router has no direct route to a next hop on the segment: only its RIB is checked
    near = c.relation != "multihop"
    connect(lab, router, c)
    try:
        wait_equal(router.established, {s.address for s in router.config.sessions}, 40, "the sessions", interval=0.05)
        wanted = wanted_routes(lab, vips, NAMES)
        if not c.add_path and c.nodes != "all":
            # Each replica announces one next hop: two replicas cover two of three nodes, as planned
            for vip in vips:
                wanted |= wanted_routes(lab, [vip], planned(lab, vip, len(speakers)))
        wait_exactly(router, wanted, kernel=near)
        for prefix in wanted:
            paths = router.route_details(prefix)
            assert paths
            assert [path for path in paths if not has_attributes(path, c)] == []
        check_timers(lab, c)

        lab.service("web", ["pod-a1", "pod-c1"], annotations=ROUTED, **DUAL)
        wait_exactly(router, wanted_routes(lab, vips, ["node-a", "node-c"]), kernel=near)
        lab.service("web", annotations=ROUTED, **DUAL)
        wait_exactly(router, wanted, kernel=near)
    finally:
        for over in c.sessions:
            lab.backend.delete("BgpPeer", f"peer-{over}")
        lab.service("web", annotations=ROUTED, **DUAL)
    # Graceful restart must not keep the routes of a removed peer
    wait_exactly(router, {}, 20, kernel=near)


def planned(lab: Product, vip: str, count: int) -> set[str]:
    """The next hops that the replicas of the rack together announce, by their plan."""

    def covered() -> set[str]:
        announced = lab.state("node-a")["vips"][vip]["announced"]
        found = [{node for nodes in by_replica.values() for node in nodes} for by_replica in announced.values()]
        return found[0] if found and len(found[0]) == count else set()

    return wait_until(covered, 10, f"a plan with {count} next hops")[0]


def check_timers(lab: Product, c: Combination) -> None:
    """The timers in the status equal the configured ones, on each node that is to have a session."""
    hold, keepalive = c.timers
    wanted = dict.fromkeys(NAMES if c.nodes == "all" else NAMES[:2], (str(hold), str(keepalive or hold // 3)))
    for over in c.sessions:

        def told(peer: str = f"peer-{over}") -> dict[str, tuple[str, str]]:
            nodes = lab.backend.status("BgpPeer", peer).get("nodesPeerStatus", {})
            timers = {node: entry.get("timersState", {}) for node, entry in nodes.items()}
            return {node: (t.get("holdTime", ""), t.get("keepaliveInterval", "")) for node, t in timers.items()}

        wait_equal(told, wanted, 10, f"the timers in the status of peer-{over}")  # the routes arrive before the status
