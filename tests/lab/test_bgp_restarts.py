"""Restarts without a black hole: killed processes restart while traffic flows, and removed routes are withdrawn."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator

import pytest

from lab.measure import wait_until
from tests.lab.bgp_scenes import wait_exactly, wanted_routes
from tests.lab.product import Product, product

pytestmark = pytest.mark.lab

NAMES = ("node-a", "node-b", "node-c")
RESTART = 120  # seconds


@pytest.fixture(scope="module", params=["bird", "frr", "gobgp"])
def alone(request: pytest.FixtureRequest) -> Iterator[Product]:
    """Three nodes with pods, but only one replica, on node-a."""
    with product("manifests", nodes=3, routers=[request.param]) as lab:
        lab.prepare(peers=False)
        # Longer than a start takes on a busy machine: stale routes are then removed by End-of-RIB, not by the timer
        lab.peer(gracefulRestart={"enabled": True, "restartTime": RESTART})
        lab.manage("node-a")
        lab.give("web", "routed")
        try:
            wait_exactly(lab.router, wanted_routes(lab, lab.vips("web"), NAMES), 40, kernel=True)
            yield lab
        finally:
            print(lab.logs())


def child(lab: Product, what: str, node: str = "node-a") -> int:
    """The PID of a part of a manager: ``exabgp``, its API process (``api.py``) or ``wire``."""
    names = {"exabgp": "exabgp.conf", "helper": "api.py", "wire": "porterlb.wire"}
    return lab.managers[node].find(names[what])


def manager_restarted(lab: Product) -> None:
    lab.managers["node-a"].terminate(20)
    lab.manage("node-a")


def manager_killed(lab: Product) -> None:
    lab.managers["node-a"].kill()
    lab.manage("node-a")


def exabgp_killed(lab: Product) -> None:
    os.kill(child(lab, "exabgp"), signal.SIGKILL)


def exabgp_hung(lab: Product) -> None:
    os.kill(child(lab, "exabgp"), signal.SIGSTOP)  # the pipe fills up, nothing is acknowledged


def helper_killed(lab: Product) -> None:
    os.kill(child(lab, "helper"), signal.SIGKILL)


def helper_stopped(lab: Product) -> None:
    pid = child(lab, "helper")
    os.kill(pid, signal.SIGSTOP)
    time.sleep(1)
    os.kill(pid, signal.SIGCONT)


DISTURBANCES = [manager_restarted, manager_killed, exabgp_killed, exabgp_hung, helper_killed, helper_stopped]


class Watch:
    """Continuously checks the table of a router that does not forward; used instead of a stream."""

    def __init__(self, lab: Product, vip: str) -> None:
        self.bad: list[object] = []
        self._wanted = wanted_routes(lab, [vip], NAMES)
        self._lab, self._end = lab, threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)

    def _look(self) -> None:
        while not self._end.is_set():
            if (seen := self._lab.router.routes("v4")) != self._wanted:
                self.bad.append(seen)
            time.sleep(0.02)

    def __enter__(self) -> Watch:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        self._thread.join(10)


def lossless(lab: Product, vip: str, disturb: Callable[[], None]) -> None:
    """No packet of a 1 ms stream is lost during a disturbance (or, if the router does not forward, no next hop)."""
    if lab.router.programs_kernel:
        with lab.client.stream(vip, flows=3) as stream:
            time.sleep(0.3)
            disturb()
            time.sleep(0.5)
            report = stream.report()
        assert report.lost == 0, report
    else:
        with Watch(lab, vip) as watch:
            disturb()
            time.sleep(0.5)
        assert watch.bad == []


def settled_again(lab: Product, before: int) -> None:
    """Waits until the only replica has its session, with all routes announced, in an ExaBGP other than the previous one
    (0: any)."""
    wait_until(lambda: child(lab, "exabgp") != before, 30, "another ExaBGP")
    wait_until(lambda: lab.router.established() == {lab.node("node-a").v4}, 30, "the session")
    lab.wait_settled("node-a")


@pytest.mark.parametrize("disturb", DISTURBANCES)
def test_nothing_is_lost_when_the_only_replica_has(alone: Product, disturb: Callable[[Product], None]) -> None:
    (vip,) = alone.vips("web")
    before = child(alone, "exabgp")

    def happen() -> None:
        disturb(alone)
        settled_again(alone, 0 if "helper" in disturb.__name__ else before)

    lossless(alone, vip, happen)
    wait_exactly(alone.router, wanted_routes(alone, [vip], NAMES), kernel=True)


@pytest.mark.parametrize("when", ["before", "during", "after"])
def test_a_deleted_service_goes_also_when_the_manager_restarts(alone: Product, when: str) -> None:
    """Right before the end, while there is no manager, or right after the start. The other Service loses nothing."""
    (vip,) = alone.vips("web")
    (short,) = alone.give("short", "routed")
    wait_exactly(alone.router, wanted_routes(alone, [vip, short], NAMES), kernel=True)

    def happen() -> None:
        if when == "before":
            alone.delete_service("short")
        alone.managers["node-a"].terminate(20)
        if when == "during":
            alone.delete_service("short")
        alone.manage("node-a")
        if when == "after":
            alone.delete_service("short")
        wait_exactly(alone.router, wanted_routes(alone, [vip], NAMES), RESTART / 2, kernel=True)

    if alone.router.programs_kernel:
        lossless(alone, vip, happen)
    else:
        happen()
    alone.wait_settled("node-a")


@pytest.fixture(scope="module", params=["bird", "frr"])
def three(request: pytest.FixtureRequest) -> Iterator[Product]:
    """A replica on each of three nodes."""
    with product("manifests", nodes=3, routers=[request.param]) as lab:
        lab.prepare(peers=False)
        lab.peer(gracefulRestart={"enabled": True, "restartTime": RESTART})
        lab.manage()
        lab.give("web", "routed")
        try:
            wait_exactly(lab.router, wanted_routes(lab, lab.vips("web"), NAMES), 40, kernel=True)
            lab.wait_settled()
            yield lab
        finally:
            print(lab.logs())


def test_a_rolling_restart_of_all_loses_nothing(three: Product) -> None:
    (vip,) = three.vips("web")

    def happen() -> None:
        for name in NAMES:
            three.managers[name].terminate(20)
            # Handed over: the replica's announcements are gone, and others announce the same
            mine = three.node(name).v4
            paths = three.router.route_details(f"{vip}/32")
            assert [path for path in paths if path.neighbor == mine] == []
            assert {path.next_hop for path in paths} == three.hops(*NAMES)
            three.manage(name)
            three.wait_settled()

    lossless(three, vip, happen)


def test_exabgp_killed_everywhere_one_after_the_other_loses_nothing(three: Product) -> None:
    (vip,) = three.vips("web")

    def happen() -> None:
        for name in NAMES:
            os.kill(child(three, "exabgp", name), signal.SIGKILL)
            time.sleep(0.2)
        time.sleep(1)
        three.wait_settled()

    lossless(three, vip, happen)
    wait_exactly(three.router, wanted_routes(three, [vip], NAMES), kernel=True)


def test_the_last_one_of_several_leaves_its_routes_to_graceful_restart(three: Product) -> None:
    (vip,) = three.vips("web")

    def happen() -> None:
        for name in NAMES:
            three.managers[name].terminate(20)
        three.manage()
        three.wait_settled()

    lossless(three, vip, happen)
    wait_exactly(three.router, wanted_routes(three, [vip], NAMES), kernel=True)
