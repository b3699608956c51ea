"""The gaps for clients in both modes when a node or a replica fails: on real nodes, and on nodes of the lab.

Real nodes are those of tests/cluster/nodes: containerd, a kubelet and kube-proxy each. PorterLB runs from its image, as
in the chart. Nodes of the lab run managers as plain processes, and a substitute for kube-proxy. Everything else is the
same: a real API server, three nodes, two replicas, BIRD with add-path, policy Local with a pod on each node.
"""

from __future__ import annotations

import os
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, suppress
from functools import partial

from bench.report import Table, percentile
from lab.measure import wait_until
from lab.netns import LabError
from tests.cluster.memory import kill_for_memory
from tests.cluster.scenarios import NAMES, KubeProduct, kube_product
from tests.cluster.whole import NAMESPACE, Whole, whole
from tests.lab.product import Product

TRIALS = int(os.environ.get("PORTERLB_TRIALS", "20"))
LATE = 2.0
"""Seconds after a power loss at which a route to the node is a fault: the router's table is then printed."""

OUTAGE = 6.0
"""Seconds without the API before the failure. This is longer than the lease; therefore, no replica leads."""


BOOT = 5.0
"""Seconds from a power loss to the first packet of the new kernel. No machine boots faster; see core/node_return.py."""


class Place:
    """Three nodes with two replicas, and a Service in each mode. ``routed`` and ``segment`` are their VIPs."""

    name = ""
    lab: Product
    routed: str
    segment: str

    def replicas(self) -> list[str]:
        """The nodes of the two replicas, once they are settled."""
        raise NotImplementedError

    def pin(self, victim: str) -> None:
        """Makes a node the recorded Layer 2 next hop."""
        raise NotImplementedError

    def kill(self, victim: str) -> None:
        """Ends a replica without warning."""
        raise NotImplementedError

    def back(self, victim: str) -> None:
        """Powers the node on, or restarts the replica."""
        raise NotImplementedError

    def api_away(self) -> AbstractContextManager[None]:
        raise NotImplementedError

    def ready(self) -> list[str]:
        """Waits until the state before a trial is restored. Returns the nodes of the replicas. The router keeps the
        routes of a replica that was not stopped in order, and did not return, for the restart time: these trials are
        about single failures."""
        found = self.replicas()
        self.lab.wait_hops(self.routed, *NAMES, timeout=60)
        own = {self.lab.node(name).v4 for name in found}
        wait_until(lambda: self._neighbors() == own, 60, f"routes of {found} alone")
        return found

    def _neighbors(self) -> set[str]:
        """The sessions that the routes of the routed VIP came by."""
        return {path.neighbor for path in self.lab.router.paths("v4").get(f"{self.routed}/32", [])}

    def serve_at(self, victim: str) -> None:
        """Waits until this node serves the Layer 2 VIP. The leader may write its record after this one, and replace
        it."""

        def served() -> bool:
            if self.lab.owners(self.segment) != {victim}:
                self.pin(victim)
                time.sleep(1.0)
            return self.lab.owners(self.segment) == {victim}

        wait_until(served, 60, f"{self.segment} to be served by {victim}")


class RealNodes(Place):
    name = "real nodes"
    lab: Whole

    def __init__(self, lab: Whole) -> None:
        self.lab = lab
        lab.install()
        lab.pools()
        (self.routed,) = lab.deploy("far", "routed")
        (self.segment,) = lab.deploy("near", "segment")

    def replicas(self) -> list[str]:
        return list(self.lab.wait_replicas(2, timeout=120))

    def pin(self, victim: str) -> None:
        _pin(self.lab, self.segment, victim)

    def kill(self, victim: str) -> None:
        kill_for_memory(self.lab, victim)

    def back(self, victim: str) -> None:
        if self.lab.node(victim).on:
            pod = self.lab.replicas()[victim].metadata.name
            self.lab.kubectl("-n", NAMESPACE, "delete", "pod", pod)  # its memory limit was changed
        else:
            self.lab.back(victim)

    def api_away(self) -> AbstractContextManager[None]:
        return self.lab.api_away()


class LabNodes(Place):
    name = "nodes of the lab"
    lab: KubeProduct

    def __init__(self, lab: KubeProduct) -> None:
        self.lab = lab
        (self.routed,) = lab.give("far", "routed")
        (self.segment,) = lab.give("near", "segment")

    def replicas(self) -> list[str]:
        self.lab.wait_settled(*NAMES[:2])
        return list(NAMES[:2])

    def pin(self, victim: str) -> None:
        _pin(self.lab, self.segment, victim)

    def kill(self, victim: str) -> None:
        self.lab.manager(victim).kill()

    def back(self, victim: str) -> None:
        if self.lab.node(victim).on:
            self.lab.manage(victim)
        else:
            self.lab.node(victim).power_on()

    @contextmanager
    def api_away(self) -> Iterator[None]:
        self.lab.plane.stop_api()
        try:
            yield
        finally:
            self.lab.plane.start_api()


def _pin(lab: Whole | KubeProduct, vip: str, victim: str) -> None:
    record = f'{{"status":{{"layer2NextHops":{{"{vip}":"{victim}"}}}}}}'
    lab.kubectl("patch", "eip", "segment", "--subresource=status", "--type=merge", "-p", record)


@contextmanager
def real_nodes() -> Iterator[Place]:
    with whole() as lab:
        yield RealNodes(lab)


@contextmanager
def lab_nodes() -> Iterator[Place]:
    with kube_product(*NAMES[:2]) as lab:
        yield LabNodes(lab)


Gaps = tuple[float, float, float]
"""The worst gap by BGP and by Layer 2, and the longest delay of the benchmark's own senders, in ms."""
Trial = Mapping[str, Gaps]
"""What happened -> the gaps meanwhile."""


def next_hop(place: Place, number: int) -> Trial:
    """A node that does not lead loses its power: alternately one without and one with a replica. Then it returns."""
    replicas = place.ready()
    leader = place.lab.wait_leader(*replicas)
    others = sorted(set(NAMES) - {leader}, key=lambda name: name in replicas)
    victim = others[number % len(others)]
    place.serve_at(victim)
    off = _power_off(place, victim)
    time.sleep(BOOT)
    back = _during(place, lambda: place.back(victim), place.ready)
    return {"a next hop's node loses power": off, "that node returns": back}


def leader(place: Place, _: int) -> Trial:
    victim = place.lab.wait_leader(*place.ready())
    place.serve_at(victim)
    off = _power_off(place, victim)
    place.back(victim)
    return {"the leader's node loses power": off}


def leader_without_api(place: Place, _: int) -> Trial:
    victim = place.lab.wait_leader(*place.ready())
    place.serve_at(victim)
    with place.api_away():
        time.sleep(OUTAGE)
        off = _power_off(place, victim)
    place.back(victim)
    return {"the same, the API away": off}


def replica(place: Place, number: int) -> Trial:
    """A replica is killed. Its node stays alive, and stays the next hop."""
    victim = place.ready()[number % 2]
    place.serve_at(victim)
    killed = _during(place, lambda: place.kill(victim), lambda: None)
    place.back(victim)
    return {"a replica is killed": killed}


def _power_off(place: Place, victim: str) -> Gaps:
    others = [name for name in NAMES if name != victim]

    def moved() -> None:
        with suppress(LabError):
            place.lab.wait_hops(place.routed, *others, timeout=LATE)
            return
        print(f"  {victim} is off for {LATE:.0f} s, and the router still has: {_paths(place)}", file=sys.stderr)
        place.lab.wait_hops(place.routed, *others, timeout=40)

    def served() -> None:
        moved()
        place.lab.wait_owner(place.segment, *others, timeout=10)

    return _during(place, place.lab.node(victim).power_off, served)


def _paths(place: Place) -> str:
    """Each next hop of the routed VIP, and the session that it came by."""
    names = {node.v4: node.name for node in place.lab.nodes}
    paths = place.lab.router.paths("v4").get(f"{place.routed}/32", [])
    return ", ".join(f"{names[path.next_hop]} by {names[path.neighbor]}" for path in paths)


def _during(place: Place, fail: Callable[[], object], moved: Callable[[], object]) -> Gaps:
    with (
        place.lab.client.stream(place.routed, flows=12, interval=0.005) as far,
        place.lab.segment_client.stream(place.segment, flows=4, interval=0.002) as near,
    ):
        time.sleep(0.5)
        fail()
        moved()
        time.sleep(1.0)
        reports = far.report(), near.report()
    return reports[0].worst_gap_ms, reports[1].worst_gap_ms, max(report.sender_stall_ms for report in reports)


FAULTS: tuple[Callable[[Place, int], Trial], ...] = (next_hop, leader, leader_without_api, replica)
PLACES: Mapping[str, Callable[[], AbstractContextManager[Place]]] = {"real": real_nodes, "lab": lab_nodes}


def measure(where: str, quick: bool) -> Table:
    """Alternates the faults: a change of the machine's load then affects all of them."""
    count = 2 if quick else TRIALS
    found = defaultdict[str, list[Gaps]](list)
    with PLACES[where]() as place:
        for number in range(count):
            for fault in FAULTS:
                for event, gaps in fault(place, number).items():
                    found[event].append(gaps)
                    bgp, layer2, _ = gaps
                    print(f"  {number + 1}/{count} {event}: BGP {bgp:.0f} ms, Layer 2 {layer2:.0f} ms", file=sys.stderr)
        table = Table(
            f"Gaps on {place.name}, ms ({count} trials)",
            ("what happens", "mode", "median", "worst", "own stall"),
            notes=["BGP: a request every 5 ms in each of 12 flows; Layer 2: every 2 ms in each of 4 flows"],
        )
    for event, each in found.items():
        stalls = max(stall for *_, stall in each)
        for number, mode in enumerate(("BGP", "Layer 2")):
            longest = [gaps[number] for gaps in each]
            table.rows.append((event, mode, percentile(longest, 0.5), max(longest), stalls))
            table.raw[f"{event}, {mode}"] = longest
    return table


PARTS: Mapping[str, Callable[[bool], Table]] = {where: partial(measure, where) for where in PLACES}
"""``real`` needs the images of the nodes, which are built if they are missing (two minutes)."""
