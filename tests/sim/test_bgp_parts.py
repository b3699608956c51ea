"""The simulated routers follow BGP: hold time, graceful restart, add-path, equal-cost paths."""

from __future__ import annotations

from dataclasses import dataclass, field
from ipaddress import IPv4Address
from typing import Any

import pytest

from porterlb.core.desired import SessionConfig
from sim.connection import Connection, Message
from sim.router import HOLD, Route, Router
from sim.segment import Segment
from sim.world import Process, World

VIP = "10.77.0.200/32"


@dataclass
class Site:
    """A router and two nodes; the test acts as the nodes' speakers."""

    add_path: bool = True
    restart: int = 30
    heard: list[Message] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.world = World(5)
        self.segment = Segment(self.world)
        self.ports = {name: self.segment.plug(name, number) for number, name in enumerate(("n1", "n2"), 1)}
        self.router = Router(self.segment, "r1", 240, add_path=self.add_path, families=(4,))

    def connect(self, node: str) -> Connection:
        """An established session; the test must send its keepalives."""
        process = Process(self.world, f"{node}/exabgp", node, 0.0)
        connection = Connection(self.router, self.ports[node], process, lambda _, message: self.heard.append(message))
        config = SessionConfig(
            "r1", IPv4Address("10.77.0.240"), 64500, 64512, IPv4Address(1), graceful_restart=self.restart, add_path=True
        )
        connection.up.push("open", config)
        self.go(0.1)
        connection.up.push("keepalive")
        self.go(0.1)
        return connection

    def go(self, seconds: float) -> None:
        self.world.run(self.world.now + seconds)

    def announce(self, connection: Connection, hop: str, path_id: int = 0, *, low: bool = False) -> None:
        connection.up.push("update", (VIP,), path_id, Route(hop, low))
        self.go(0.1)

    @property
    def hops(self) -> Any:
        return self.router.hops(VIP)


def test_a_session_negotiates_what_both_sides_support() -> None:
    with_paths, without = Site(), Site(add_path=False)
    with_paths.connect("n1")
    without.connect("n1")
    assert with_paths.router.established("n1") is not None
    assert (with_paths.heard[0][1].families, with_paths.heard[0][1].add_path) == ((4,), (4,))
    assert without.heard[0][1].add_path == ()


def test_equal_paths_share_the_traffic_and_a_draining_one_is_used_last() -> None:
    site = Site()
    one, two = site.connect("n1"), site.connect("n2")
    site.announce(one, "10.77.0.1", 1)
    site.announce(one, "10.77.0.2", 2)
    assert site.hops == ("10.77.0.1", "10.77.0.2")
    site.announce(one, "10.77.0.2", 2, low=True)
    assert site.hops == ("10.77.0.1",)
    site.announce(two, "10.77.0.2")
    assert site.hops == ("10.77.0.1", "10.77.0.2")


def test_a_silent_neighbor_is_lost_after_the_hold_time_with_all_its_routes() -> None:
    site = Site()
    site.announce(site.connect("n1"), "10.77.0.1")
    site.ports["n1"].powered = False
    site.go(HOLD - 1.0)
    assert site.hops == ("10.77.0.1",)
    site.go(1.0)
    assert site.hops == ()
    assert site.router.established("n1") is None


def test_a_short_cut_costs_no_session() -> None:
    site = Site()
    connection = site.connect("n1")
    site.announce(connection, "10.77.0.1")
    site.router.filters = {"n1"}
    connection.up.push("keepalive")
    site.go(2.0)
    site.router.filters = set()
    site.go(HOLD - 2.5)
    assert site.router.established("n1") is not None


@pytest.mark.parametrize("restart", [0, 30])
def test_graceful_restart_keeps_routes_until_the_end_of_rib(restart: int) -> None:
    site = Site(restart=restart)
    connection = site.connect("n1")
    site.announce(connection, "10.77.0.1", 1)
    site.announce(connection, "10.77.0.2", 2)
    connection.up.push("fin")
    site.go(1.0)
    assert bool(site.hops) is bool(restart)
    connection = site.connect("n1")
    site.announce(connection, "10.77.0.1", 1)
    assert site.hops == (("10.77.0.1", "10.77.0.2") if restart else ("10.77.0.1",))
    connection.up.push("end", 4)
    site.go(0.1)
    assert site.hops == ("10.77.0.1",)


def test_graceful_restart_ends_with_the_restart_time_and_a_notification_allows_none() -> None:
    site = Site(restart=5)
    connection = site.connect("n1")
    site.announce(connection, "10.77.0.1")
    connection.up.push("fin")
    site.go(4.8)
    assert site.hops
    site.go(0.5)
    assert not site.hops
    connection = site.connect("n1")
    site.announce(connection, "10.77.0.1")
    connection.up.push("notification", 6, 3)
    site.go(0.1)
    assert not site.hops


def test_a_router_without_power_forgets_and_resets_what_it_does_not_know() -> None:
    site = Site()
    connection = site.connect("n1")
    site.announce(connection, "10.77.0.1")
    site.router.power(False)
    site.router.power(True)
    assert site.hops == ()
    connection.up.push("keepalive")
    site.go(0.1)
    assert site.heard[-1] == ("reset",)


def test_a_shut_down_session_ends_at_once_and_is_refused() -> None:
    site = Site()
    site.announce(site.connect("n1"), "10.77.0.1")
    site.router.refuses = {"n1"}
    site.router.cease("n1", 2)
    site.go(0.1)
    assert (site.hops, site.heard[-1]) == ((), ("notification", 6, 2))
    site.connect("n1")
    assert site.router.established("n1") is None
    assert ("notification", 6, 5) in site.heard
