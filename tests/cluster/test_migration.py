"""From MetalLB to PorterLB and back, on a real API, with traffic: no Service gets another address.

MetalLB itself does not run. A stand-in provides everything that users see of it: its objects are in the API, under CRDs
with the names and versions that it publishes; it writes the status of each Service; and node-a answers ARP for each
address.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from lab.backend import Object
from lab.measure import wait_until
from lab.objects import PORTS
from tests.cluster.backend import KubeBackend
from tests.cluster.scenarios import NAMES, KubeProduct

pytestmark = [pytest.mark.lab, pytest.mark.cluster]

GAP_MS = 500.0
"""In milliseconds. Generous: a failover of Layer 2 takes about 0.2 s."""

CLAIM = ("--settle-after", "1", "--claim-services-without-class")
NO_CLAIM = ("--settle-after", "1", "--no-claim-services-without-class")

ALONE = {f"web-{i:02}": f"10.77.0.{100 + i}" for i in range(35)}
SHARED = {f"shared-{i}": "10.77.0.140" for i in range(5)}
HELD = ALONE | SHARED

POOL_AND_ADVERTISEMENT = """
apiVersion: metallb.io/v1beta1
kind: IPAddressPool
metadata: {name: lan, namespace: metallb-system}
spec: {addresses: [10.77.0.100-10.77.0.149]}
---
apiVersion: metallb.io/v1beta1
kind: L2Advertisement
metadata: {name: lan, namespace: metallb-system}
spec: {ipAddressPools: [lan]}
"""


def crd(kind: str, plural: str) -> Object:
    schema = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
    version = {"name": "v1beta1", "served": True, "storage": True, "schema": {"openAPIV3Schema": schema}}
    names = {"kind": kind, "plural": plural, "singular": kind.lower(), "listKind": f"{kind}List"}
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{plural}.metallb.io"},
        "spec": {"group": "metallb.io", "scope": "Namespaced", "names": names, "versions": [version]},
    }


class MetalLb:
    """The stand-in for MetalLB. Its node answers ARP for an address while the address is on its loopback interface."""

    def __init__(self, road: KubeProduct) -> None:
        self._road = road
        self._node = road.node("node-a")

    def assign(self, services: dict[str, str]) -> None:
        for name, address in services.items():
            status = {"status": {"loadBalancer": {"ingress": [{"ip": address, "ipMode": "VIP"}]}}}
            self._road.patch("service", name, status, "--subresource=status")

    def answer(self, addresses: Iterable[str]) -> None:
        self._each("replace", addresses)

    def stop(self, addresses: Iterable[str]) -> None:
        self._each("del", addresses)

    def _each(self, verb: str, addresses: Iterable[str]) -> None:
        for address in sorted(set(addresses)):
            self._node.ns.run(["ip", "address", verb, f"{address}/32", "dev", "lo"])


@contextmanager
def cluster() -> Iterator[KubeProduct]:
    with KubeProduct(backend=KubeBackend, nodes=3, routers=["bird"], proxy_interval=0.2) as road:
        road.managers = {}
        road.plane.apply([crd("IPAddressPool", "ipaddresspools"), crd("L2Advertisement", "l2advertisements")])
        road.kubectl("create", "namespace", "metallb-system")
        road.kubectl("apply", "-f", "-", stdin=POOL_AND_ADVERTISEMENT)
        for name in ALONE:
            road.service(name)
        for i, name in enumerate(SHARED):
            ports = PORTS if not i else [(PORTS[0][0], 8080 + i, "TCP", PORTS[0][3])]
            road.service(name, annotations={"metallb.universe.tf/allow-shared-ip": "one"}, ports=ports)
        try:
            yield road
        finally:
            print(road.logs())


def held(road: KubeProduct) -> dict[str, str]:
    """The addresses in the statuses of the Services."""
    found = {}
    for service in road.get("services", "-n", "default")["items"]:
        ingress = service["status"].get("loadBalancer", {}).get("ingress", [])
        if service["spec"]["type"] == "LoadBalancer":
            found[service["metadata"]["name"]] = ",".join(one["ip"] for one in ingress)
    return found


def imported(road: KubeProduct, folder: Path) -> str:
    """The output of `porterlb import metallb` for the objects in the API, as in docs/migration.md."""
    files: list[Path] = []
    for what in (("ipaddresspools,l2advertisements", "-A"), ("services", "-n", "default")):
        files.append(folder / f"{len(files)}.yaml")
        files[-1].write_text(road.kubectl("get", *what, "-o", "yaml"))
    done = subprocess.run(
        [sys.executable, "-m", "porterlb", "import", "metallb", *map(str, files)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def manage(road: KubeProduct, options: tuple[str, ...]) -> None:
    """Starts the managers with these options, or restarts them one by one, as a rolling update does."""
    for name in NAMES:
        if name in road.managers:
            road.managers[name].terminate(20)
        road.managers[name] = road.start_manager(name, *options, remember=True)
        wait_until(lambda name=name: road.readiness(name)[0] == 200, 20, f"{name} to be ready")
    road.wait_settled(*NAMES)


def answered(road: KubeProduct, addresses: Iterable[str]) -> dict[str, int]:
    """The number of MACs that answer for each address; only addresses with a number other than one."""
    counts = {address: len(road.segment_client.who_has(address)) for address in sorted(set(addresses))}
    return {address: count for address, count in counts.items() if count != 1}


def test_40_services_of_metallb_move_and_return_with_their_addresses(tmp_path: Path) -> None:
    with cluster() as road:
        metallb = MetalLb(road)
        metallb.assign(HELD)
        metallb.answer(HELD.values())
        for name in ("web-00", "shared-0"):
            road.wait_vips(name)
        assert held(road) == HELD and not answered(road, HELD.values())

        # PorterLB beside MetalLB: its objects exist, and it serves no Service
        road.kubectl("apply", "-f", "-", stdin=imported(road, tmp_path))
        watched = [ALONE["web-00"], ALONE["web-01"], ALONE["web-34"], SHARED["shared-0"]]
        with road.segment_client.stream(watched, flows=2, interval=0.01) as stream:
            manage(road, NO_CLAIM)
            assert stream.report().lost == 0
        assert held(road) == HELD and not answered(road, HELD.values())

        # One Service: MetalLB stops advertising its address, and the annotation assigns it to PorterLB
        first = ALONE["web-01"]
        with road.segment_client.stream(watched, flows=2, interval=0.01) as stream:
            metallb.stop([first])
            mine = "lb.kubesphere.io/v1alpha1"
            road.patch("service", "web-01", {"metadata": {"annotations": {mine: "porter"}}})
            wait_until(lambda: not answered(road, [first]), 15, "PorterLB to answer for the first Service")
            report = stream.report()
        print(f"one Service: {report}")
        assert report.worst_gap_ms <= GAP_MS and held(road) == HELD

        # The Service returns to MetalLB
        with road.segment_client.stream(watched, flows=2, interval=0.01) as stream:
            road.patch("service", "web-01", {"metadata": {"annotations": {mine: None}}})
            wait_until(lambda: not road.segment_client.who_has(first), 15, "PorterLB to leave the Service")
            metallb.answer([first])
            report = stream.report()
        print(f"back: {report}")
        assert report.worst_gap_ms <= GAP_MS and held(road) == HELD and not answered(road, [first])

        # All Services move to PorterLB
        with road.segment_client.stream(watched, flows=2, interval=0.01) as stream:
            metallb.stop(HELD.values())
            manage(road, CLAIM)
            wait_until(lambda: not answered(road, HELD.values()), 30, "PorterLB to answer for all Services", 0.5)
            report = stream.report()
        print(f"all Services: {report}")
        assert report.worst_gap_ms <= GAP_MS and held(road) == HELD
        shown: dict[str, Any] = road.backend.status("Eip", "lan")["used"]
        assert set(shown) == set(HELD.values())

        # All Services return to MetalLB
        with road.segment_client.stream(watched, flows=2, interval=0.01) as stream:
            manage(road, NO_CLAIM)
            wait_until(
                lambda: not any(road.segment_client.who_has(address) for address in watched), 15, "PorterLB to leave"
            )
            metallb.answer(HELD.values())
            report = stream.report()
        print(f"all back: {report}")
        assert report.worst_gap_ms <= GAP_MS and held(road) == HELD and not answered(road, HELD.values())
        road.healthy()
