"""A cluster whose Services are served by Layer 2 only, and the actions of scenarios and benchmarks on it.

Written for `Product`: the same scenario runs on a directory of manifests and on a real control plane.
"""

from __future__ import annotations

import contextlib
import json
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from math import inf
from typing import Any

from lab import objects
from lab.backend import DirBackend
from lab.measure import wait_until
from lab.netns import LabError
from lab.process import Process
from lab.stream import Report
from tests.lab.product import product

POOL = "10.77.0.100-10.77.0.229,fd77::1:0-fd77::1:fff"
BOTH = ("IPv4", "IPv6")
PIN = "layer2.porter.kubesphere.io/v1alpha1"


class Stage:
    """A lab of nodes with a replica each. A context manager.

    Args:
        cluster: manifests or kube.
        nodes: the number of nodes.
        replicas: the nodes that run a manager; default: all.
        profile: of the managers' settings.
        options: further arguments of the managers.
        lab: arguments of `Lab`. The router is only a gateway: a node that hears no other host suspects itself.
    """

    def __init__(
        self,
        cluster: str = "manifests",
        nodes: int = 3,
        *,
        replicas: Iterable[str] | None = None,
        profile: str = "default",
        options: Iterable[str] = (),
        pool: str = POOL,
        **lab: Any,
    ) -> None:
        self._product = product(cluster, nodes=nodes, **{"routers": ("bird",), **lab})
        self._replicas = replicas
        # Next hops are recorded early: the failover is tested, not the arrival of replicas.
        self._options = ("--profile", profile, "--settle-after", "1", *options)
        self._pool = pool
        self.vips: dict[str, list[str]] = {}

    def __enter__(self) -> Stage:
        self.lab = self._product.__enter__()
        try:
            self.lab.eip("segment", self._pool, protocol="layer2")
            for name in self._replicas if self._replicas is not None else [node.name for node in self.lab.nodes]:
                self.start(name)
        except BaseException:
            self.__exit__(*sys.exc_info())
            raise
        return self

    def __exit__(self, *error: Any) -> None:
        if error[0] is not None:
            self.tell()
        self._product.__exit__(None, None, None)

    def tell(self) -> None:
        """Prints the logs of all managers, to help explain a failed test."""
        for path in sorted((self.lab.net.folder / "logs").glob("*-manager.log")):
            print(f"--- {path.name}\n{path.read_text(errors='replace')[-4000:]}")

    # Replicas

    def start(self, node: str) -> Process:
        """Starts a manager on a node. It starts again whenever the node is powered on."""
        return self.lab.start_manager(node, *self._options, remember=True)

    def manager(self, node: str) -> Process:
        """The newest manager of a node."""
        return next(p for p in reversed(self.lab.node(node).processes) if p.name == f"{node}/manager")

    def wire(self, node: str) -> int:
        """The process ID of a node's wire process."""
        return self.manager(node).find("porterlb.wire")

    @property
    def running(self) -> list[str]:
        """The nodes with a live manager."""
        found = []
        for node in self.lab.nodes:
            if node.on and any(p.alive and p.name.endswith("/manager") for p in node.processes):
                found.append(node.name)
        return found

    def leader(self, *, other_than: str = "") -> str:
        """Waits for a leader (other than the given one) and returns its node."""
        return self.lab.wait_leader(*[node.name for node in self.lab.nodes if node.name != other_than])

    # Services

    def serve(
        self,
        name: str,
        pods: Iterable[str] | None = None,
        *,
        at: str = "",
        policy: str = "Local",
        families: Iterable[str] = BOTH,
        **options: Any,
    ) -> list[str]:
        """Creates a Service and returns its addresses. `at`: the node that is to serve it first."""
        families = tuple(families)
        annotations = {PIN: at} if at else {}
        self.lab.service(name, pods, policy=policy, families=families, annotations=annotations, **options)
        self.vips[name] = self.lab.wait_vips(name, len(families), timeout=30.0)
        return self.vips[name]

    def serve_one_at_each(self) -> dict[str, list[str]]:
        """Creates one Service per node, served there first. Returns the addresses by node name."""
        return {node.name: self.serve(f"at-{node.name.removeprefix('node-')}", at=node.name) for node in self.lab.nodes}

    def write_many(self, count: int, prefix: str = "many") -> None:
        """Creates this number of IPv6 Services with a pod on each node, all at once: as one file, which works only with
        a directory."""
        backend = self.lab.backend
        assert isinstance(backend, DirBackend)
        names = [f"{prefix}-{number}" for number in range(count)]
        pods = [node.pods[0] for node in self.lab.nodes]
        pieces = [
            piece
            for name in names
            for piece in (
                objects.service(name, policy="Local", families=("IPv6",)),
                *objects.endpoint_slices(name, pods, families=("IPv6",)),
            )
        ]
        fresh = backend.folder / f".{prefix}.new"
        # JSON is YAML, and is written a hundred times faster
        fresh.write_text("\n".join(f"---\n{json.dumps(piece)}" for piece in pieces) + "\n")
        fresh.rename(backend.folder / f"{prefix}.yaml")

    def owners(self, vip: str, timeout: float = 0.15, within: float = inf) -> set[str]:
        """The nodes whose MACs answer for a VIP now. A foreign MAC is returned as is.

        Answers after ``within`` seconds do not count: this process may be stopped longer than ``timeout``.
        """
        known = {node.mac: node.name for node in self.lab.nodes}
        answers = self.lab.segment_client.answers(vip, timeout)
        return {known.get(answer.mac, answer.mac) for answer in answers if answer.after < within}

    def owner(self, vip: str) -> str:
        """Waits until exactly one node's MAC answers for a VIP. Returns the node."""
        return self.lab.wait_owner(vip)

    def settle(self, timeout: float = 30.0) -> None:
        """Waits until all running replicas know one another, agree about every VIP, and answer."""
        wanted = {vip for vips in self.vips.values() for vip in vips}
        wait_until(lambda: self._agreed(wanted), timeout, "replicas that agree", interval=0.1)
        for vip in wanted:
            self.owner(vip)

    def _agreed(self, wanted: set[str]) -> bool:
        running = self.running
        states = {name: self.lab.state(name) for name in running}
        views = {}
        for name, state in states.items():
            fresh = {other for other, replica in state.get("replicas", {}).items() if replica["fresh"]}
            if not set(running) <= fresh or not wanted <= set(state.get("vips", ())) or state["leader"] not in running:
                raise LabError(f"{name} hears {sorted(fresh)}, knows {len(state.get('vips', ()))} VIPs")
            views[name] = {vip: state["vips"][vip]["answering"] for vip in wanted}
            if not all(state["vips"][vip]["recorded"] for vip in wanted):
                raise LabError(f"{name} does not know the recorded next hop of every VIP yet")
            # A node that has just returned answers for itself only after it has listened
            for vip, seen in views[name].items():
                if not seen or (seen["nextHop"] in running and seen["answerer"] != seen["nextHop"]):
                    raise LabError(f"{name} says that {vip} is answered by {seen}")
        if any(view != next(iter(views.values())) for view in views.values()):
            raise LabError(f"the replicas do not agree: {views}")
        return True

    # Measurement

    def during(
        self,
        vips: Iterable[str],
        what: Callable[[], object],
        *,
        after: float = 1.5,
        interval: float = 0.001,
    ) -> Report:
        """A stream of requests to VIPs before, during and `after` seconds after an action."""
        with self.lab.segment_client.stream(list(vips), interval=interval) as stream:
            time.sleep(0.4)
            what()
            time.sleep(after)
            return stream.report()

    def pins(self, node: str) -> int:
        """The number of VIPs that the API records as served by a node in Layer 2."""
        names = [eip["metadata"]["name"] for eip in self.lab.backend.objects("Eip")]
        eips = [self.lab.backend.status("Eip", name) for name in names]
        return sum(list(eip.get("layer2NextHops", {}).values()).count(node) for eip in eips)

    def wait_moved(self, node: str) -> None:
        """Waits until the API shows that this node serves no VIP. It can then return without taking any."""
        wait_until(lambda: self.pins(node) == 0, 20.0, f"the API to know that {node} serves nothing")

    def all_vips(self) -> list[str]:
        return [vip for vips in self.vips.values() for vip in vips]

    def back(self, *nodes: str) -> None:
        """Powers nodes on again and waits until the former state is restored."""
        for name in nodes:
            self.lab.node(name).power_on()
        self.settle()

    def time_to_allocate(self, name: str, timeout: float = 30.0) -> float:
        """Seconds from the creation of a new Service until it has its address."""
        begun = time.monotonic()
        self.lab.service(name, policy="Local")
        wait_until(lambda: self.lab.vips(name), timeout, f"an address for {name}", interval=0.02)
        return time.monotonic() - begun

    @contextlib.contextmanager
    def watched(self, vips: Iterable[str]) -> Iterator[list[set[str]]]:
        """For the duration of the block, collects the nodes that answered each request for these VIPs within 0.05 s.

        A node that takes over a VIP answers its last request again. That is some 0.1 s later at the earliest: a node
        counts as dead 0.15 s after its last answer to a probe, and probes are 0.05 s apart.
        """
        seen: list[set[str]] = []
        end = threading.Event()
        wanted = list(vips)

        def ask() -> None:
            while not end.is_set():
                seen.extend(self.owners(vip, timeout=0.05, within=0.05) for vip in wanted)

        thread = threading.Thread(target=ask, name="lab-watch", daemon=True)
        thread.start()
        try:
            yield seen
        finally:
            end.set()
            thread.join(10.0)
