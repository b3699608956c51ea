"""From a Service to the route in BIRD's kernel table: with the Kubernetes API and with a directory of manifests.

Three nodes with a replica each, one router. The time starts when the request to create the Service is sent (or its file
is renamed into place). Its EndpointSlice already exists.
"""

from __future__ import annotations

import os
import statistics
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

from bench.report import Table, percentile
from bench.usage import processor_seconds, resident_bytes
from lab import objects
from lab.measure import wait_until
from lab.process import descendants
from lab.routers import Router
from tests.lab.product import EIP_ANNOTATION, Product, product

BOTH = ("manifests", "kube")
CLUSTERS: tuple[str, ...] = BOTH
MANY = 10_000
"""Services of the parts with many Services."""

POOL = "172.20.0.0/18"
PORTS = (("http", 80, "TCP", 8080),)
WRITERS = 16
"""Simultaneous requests that create the Services of the burst."""


def choose(cluster: str | None, services: int) -> None:
    """Measures on one of the clusters only, and with another number of Services."""
    global CLUSTERS, MANY
    CLUSTERS, MANY = (cluster,) if cluster else BOTH, services


class Arrivals:
    """The time at which each /32 arrived in the router's kernel table (monotonic seconds), from the kernel's
    notifications."""

    def __init__(self, router: Router) -> None:
        self._process = router.start("route-monitor", ["ip", "-4", "-o", "monitor", "route"], pipes=True)
        self.at: dict[str, float] = {}
        self._thread = threading.Thread(target=self._read, name="route-monitor", daemon=True)
        self._thread.start()

    def _read(self) -> None:
        out = self._process.popen.stdout
        assert out is not None
        for raw in out:
            now = time.monotonic()
            words = raw.decode().split()
            if words and words[0] != "Deleted" and words[0].startswith("172.20."):
                self.at.setdefault(words[0].partition("/")[0], now)

    def close(self) -> None:
        self._process.close()
        self._thread.join(5)


def service(name: str) -> dict[str, Any]:
    return objects.service(name, policy="Local", annotations={EIP_ANNOTATION: "bench"}, ports=PORTS)


@contextmanager
def stage(cluster: str, nodes: int = 3) -> Iterator[tuple[Product, Arrivals]]:
    with product(cluster, nodes=nodes, routers=["bird"]) as lab:
        lab.proxy.close()  # the replacement of kube-proxy would only use processor time
        lab.prepare()
        lab.eip("bench", POOL, protocol="bgp")
        lab.manage()
        lab.wait_settled()
        arrivals = Arrivals(lab.router)
        try:
            yield lab, arrivals
        finally:
            arrivals.close()
            if os.environ.get("PORTERLB_BENCH_LOGS"):
                print(lab.logs())


def slices(lab: Product, names: list[str], apply: Callable[[dict[str, Any]], Any]) -> None:
    with ThreadPoolExecutor(WRITERS) as pool:
        pieces = [objects.endpoint_slices(name, lab.pods, ports=PORTS)[0] for name in names]
        list(pool.map(apply, pieces))


def at_once(names: list[str], create: Callable[[dict[str, Any]], Any]) -> None:
    """Creates Services, `WRITERS` requests at a time."""
    with ThreadPoolExecutor(WRITERS) as pool:
        list(pool.map(create, [service(name) for name in names]))


def cpu_seconds(lab: Product) -> dict[str, float]:
    """CPU seconds used so far: by each manager, its speakers, and the control plane if there is one."""
    found = {}
    for name, process in lab.managers.items():
        found[f"manager {name}"] = of_living(process.pid, processor_seconds)
        found[f"speakers {name}"] = sum(of_living(pid, processor_seconds) for pid, _ in descendants(process.pid))
    for program in ("kube-apiserver", "etcd"):
        if hasattr(lab.backend, "plane"):
            found[program] = of_living(lab.backend.plane._programs[program].pid, processor_seconds)
    return found


def of_living(pid: int, measure: Callable[[int], float]) -> float:
    """A figure of a process; 0 if it has just ended."""
    try:
        return measure(pid)
    except OSError:
        return 0.0


def megabytes(lab: Product) -> dict[str, float]:
    """Resident memory of each replica by node: manager, ExaBGP with its API process, and wire process."""
    found = {}
    for name, process in lab.managers.items():
        pids = [process.pid, *(pid for pid, _ in descendants(process.pid))]
        found[name] = sum(of_living(pid, resident_bytes) for pid in pids) / 1e6
    return found


def creator(lab: Product) -> Callable[[dict[str, Any]], Any]:
    """Creates objects by a plain POST if there is an API (no discovery, no patch), as a fast client does."""
    if not hasattr(lab.backend, "plane"):
        return lab.backend.apply
    from kubernetes import client  # noqa: PLC0415

    api = lab.backend.plane.api
    core: Any = client.CoreV1Api(api)
    discovery: Any = client.DiscoveryV1Api(api)

    def create(obj: dict[str, Any]) -> Any:
        if obj["kind"] == "EndpointSlice":
            return discovery.create_namespaced_endpoint_slice("default", obj)
        return core.create_namespaced_service("default", obj)

    return create


def fill(lab: Product, arrivals: Arrivals, count: int) -> None:
    """Creates Services and waits until their routes and statuses are there."""
    create = creator(lab)
    names = [f"many-{number}" for number in range(count)]
    slices(lab, names, create)
    at_once(names, create)
    wait_until(lambda: len(arrivals.at) >= count, 420, f"{count} routes", 0.2)
    wait_until(lambda: addresses(lab) >= count, 420, f"{count} addresses", 1.0)
    time.sleep(5)


def one(quick: bool) -> Table:
    """One Service at a time."""
    return _one(10 if quick else 50, 0)


def one_many(quick: bool) -> Table:
    """One Service at a time, beside many."""
    return _one(10 if quick else 20, MANY)


def _one(trials: int, beside: int) -> Table:
    table = Table(
        f"One Service beside {beside:,}: from the request to the route in the router's kernel",
        ("cluster", "trials", "median ms", "p99 ms", "worst ms"),
    )
    for cluster in CLUSTERS:
        with stage(cluster) as (lab, arrivals):
            if beside:
                fill(lab, arrivals, beside)
            create = creator(lab)
            names = [f"one-{number}" for number in range(trials)]
            slices(lab, names, create)
            time.sleep(2)
            took: list[float] = []
            for name in names:
                before = len(arrivals.at)
                begun = time.monotonic()
                create(service(name))
                wait_until(lambda before=before: len(arrivals.at) > before, 10, f"the route of {name}", 0.002)  # type: ignore[misc]
                took.append((max(arrivals.at.values()) - begun) * 1000)
                time.sleep(0.25)
        table.rows.append((cluster, len(took), statistics.median(took), percentile(took, 0.99), max(took)))
        table.raw[cluster] = took
    table.notes.append("The median on the API may be 50 ms above that of the manifests.")
    return table


def start(quick: bool) -> Table:
    """A manager that starts with many Services that have addresses. The router has no routes then."""
    count = 100 if quick else MANY
    table = Table(
        f"Start with {count:,} Services: seconds from the start of the manager",
        ("cluster", "first route", "last route", "CPU seconds of the manager"),
        notes=["one node, one router"],
    )
    for cluster in CLUSTERS:
        with stage(cluster, nodes=1) as (lab, arrivals):
            fill(lab, arrivals, count)
            lab.managers["node-a"].kill()
            for session in lab.router.config.sessions:
                lab.router.birdc(f"restart {session.label}")  # type: ignore[attr-defined]
            wait_until(lambda: not lab.router.kernel_routes(), 60, "no routes", 0.2)
            time.sleep(1)
            arrivals.at.clear()
            begun = time.monotonic()
            lab.manage()
            wait_until(lambda: len(arrivals.at) >= count, 150, f"{count} routes", 0.05)
            at = sorted(moment - begun for moment in arrivals.at.values())
            used = processor_seconds(lab.managers["node-a"].pid)
        table.rows.append((cluster, at[0], at[-1], used))
        table.raw[cluster] = {"first": at[0], "last": at[-1], "cpu": used}
    return table


def leader(quick: bool) -> Table:
    """The leader's process is killed. Either it starts again at once, or the next leader comes from another node."""
    trials = 2 if quick else 5
    table = Table(
        "After the death of the leader's process: seconds, median and worst",
        ("cluster", "case", "trials", "a leader", "", "first address", ""),
        notes=["a new Service waits for its address meanwhile; restarted: the time includes the start of Python"],
    )
    for cluster in CLUSTERS:
        with stage(cluster) as (lab, arrivals):
            create = creator(lab)
            for case in ("restarted on its node", "not restarted"):
                again = case.startswith("restarted")
                led: list[float] = []
                addressed: list[float] = []
                for number in range(trials):
                    name = f"{'again' if again else 'next'}-{number}"
                    slices(lab, [name], create)
                    old = lab.wait_leader()
                    time.sleep(6)
                    before, routes = lab.backend.leader(), len(arrivals.at)
                    begun = time.monotonic()
                    lab.managers[old].kill()
                    if again:
                        lab.manage(old)
                    create(service(name))
                    wait_until(lambda before=before: lab.backend.leader() not in ("", before), 30, "a leader", 0.005)  # type: ignore[misc]
                    led.append(time.monotonic() - begun)
                    wait_until(lambda routes=routes: len(arrivals.at) > routes, 30, "a route", 0.002)  # type: ignore[misc]
                    addressed.append(max(arrivals.at.values()) - begun)
                    if not again:
                        lab.manage(old)
                figures = (statistics.median(led), max(led), statistics.median(addressed), max(addressed))
                table.rows.append((cluster, case, trials, *figures))
                table.raw[f"{cluster}, {case}"] = {"leader": led, "address": addressed}
    return table


def burst(quick: bool) -> Table:
    """A thousand Services at once."""
    return _burst(100 if quick else 1000)


def burst_many(quick: bool) -> Table:
    """Many Services at once."""
    return _burst(100 if quick else MANY)


def _burst(count: int) -> Table:
    table = Table(
        f"{count:,} Services at once: seconds from the first request",
        ("cluster", "all created", "first route", "half", "last route", "all addresses written"),
    )
    for cluster in CLUSTERS:
        with stage(cluster) as (lab, arrivals):
            create = creator(lab)
            names = [f"many-{number}" for number in range(count)]
            slices(lab, names, create)
            time.sleep(3)
            used = cpu_seconds(lab)
            begun = time.monotonic()
            at_once(names, create)
            created = time.monotonic() - begun
            wait_until(lambda: len(arrivals.at) >= count, 420, f"{count} routes", 0.05)
            at = sorted(moment - begun for moment in arrivals.at.values())
            wait_until(lambda: addresses(lab) >= count, 420, f"{count} addresses", 0.3)
            addressed = time.monotonic() - begun
            used = {name: round(seconds - used[name], 2) for name, seconds in cpu_seconds(lab).items()}
        table.rows.append((cluster, created, at[0], at[count // 2], at[-1], addressed))
        table.raw[cluster] = {"routes": at, "cpu": used}
        table.notes.append(f"{cluster}: CPU seconds: {', '.join(f'{name} {cpu:g}' for name, cpu in used.items())}")
    return table


def waiting(quick: bool) -> Table:
    """Existing Services get their addresses at once when their pool is created: without the API's work of creating the
    Services."""
    count = 100 if quick else 1000
    table = Table(
        f"{count} Services wait for a pool: seconds from the pool's request",
        ("cluster", "first route", "half", "last route", "all addresses written"),
    )
    for cluster in CLUSTERS:
        with stage(cluster) as (lab, arrivals):
            lab.backend.delete("Eip", "bench")
            create = creator(lab)
            names = [f"many-{number}" for number in range(count)]
            slices(lab, names, create)
            at_once(names, create)
            lab.wait_condition("Service", names[-1], "AddressAssigned", "False", "default", timeout=60)
            time.sleep(10)
            used = cpu_seconds(lab)
            begun = time.monotonic()
            lab.eip("bench", POOL, protocol="bgp")
            wait_until(lambda: len(arrivals.at) >= count, 150, f"{count} routes", 0.05)
            at = sorted(moment - begun for moment in arrivals.at.values())
            wait_until(lambda: addresses(lab) >= count, 150, f"{count} addresses", 0.3)
            addressed = time.monotonic() - begun
            used = {name: round(seconds - used[name], 2) for name, seconds in cpu_seconds(lab).items()}
        table.rows.append((cluster, at[0], at[count // 2], at[-1], addressed))
        table.raw[cluster] = {"routes": at, "cpu": used}
        table.notes.append(f"{cluster}: CPU seconds: {', '.join(f'{name} {cpu:g}' for name, cpu in used.items())}")
    return table


def memory(quick: bool) -> Table:
    """The memory of a replica with many Services, each with one EndpointSlice of three pods."""
    table = Table(
        "Memory of a replica: manager, ExaBGP and wire process",
        ("cluster", "Services", "leader MB", "another replica MB"),
        notes=["resident; what the processes share is counted in each"],
    )
    for cluster, count in (("kube", 100), ("kube", 1000), ("manifests", 1000), ("manifests", 10_000)):
        if quick and count > 100:
            continue
        with stage(cluster) as (lab, arrivals):
            create = creator(lab)
            names = [f"many-{number}" for number in range(count)]
            slices(lab, names, create)
            at_once(names, create)
            wait_until(lambda count=count, at=arrivals.at: len(at) >= count, 300, f"{count} routes", 0.05)  # type: ignore[misc]
            time.sleep(15)  # until the statuses are written
            taken = megabytes(lab)
            leader = taken.pop(lab.wait_leader())
        table.rows.append((cluster, count, leader, max(taken.values())))
        table.raw[f"{cluster}, {count}"] = {"leader": leader, "others": sorted(taken.values())}
    return table


def addresses(lab: Product) -> int:
    """The number of Services with an address in their status."""
    if not hasattr(lab.backend, "plane"):
        return sum(bool(lab.vips(obj["metadata"]["name"])) for obj in lab.backend.objects("Service"))
    return sum(bool((obj["status"].get("loadBalancer") or {}).get("ingress")) for obj in lab.backend.objects("Service"))


PARTS: Mapping[str, Callable[[bool], Table]] = {
    "one": one,
    "one_many": one_many,
    "start": start,
    "leader": leader,
    "burst": burst,
    "burst_many": burst_many,
    "waiting": waiting,
    "memory": memory,
}
