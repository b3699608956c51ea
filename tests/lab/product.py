"""The lab with the product on it: shared by the scenario tests, on both clusters."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from lab.cluster import Lab
from lab.measure import wait_equal, wait_until
from lab.process import Process

EIP_ANNOTATION = "eip.porter.kubesphere.io/v1alpha2"
POOLS: dict[str, dict[str, Any]] = {
    "routed": {"address": "172.16.0.0/27", "protocol": "bgp"},
    "auto": {"address": "10.77.0.200-10.77.0.215"},
    "segment": {"address": "10.77.0.220-10.77.0.229", "protocol": "layer2"},
}


class Product(Lab):
    """A lab whose nodes run managers.

    ``managers``: the latest manager process of each node.
    """

    managers: dict[str, Process]

    def prepare(self, *, peers: bool = True) -> None:
        """Creates the three usual pools, the local AS and a BgpPeer for each router."""
        self.managers = {}
        for name, spec in POOLS.items():
            self.eip(name, **spec)
        self.bgp_conf()
        if peers:
            for router in self.routers:
                self.peer(router)

    def manage(self, *nodes: str, options: tuple[str, ...] = ("--return-after", "3")) -> None:
        """Starts managers (default: on all nodes). They start again at power-on."""
        for name in nodes or tuple(node.name for node in self.nodes):
            # Next hops are recorded early, not during a measurement.
            self.managers[name] = self.start_manager(name, "--settle-after", "1", *options, remember=True)

    def give(self, name: str, eip: str = "", policy: str = "Local", count: int = 1, **more: Any) -> list[str]:
        """Creates a Service with addresses from an Eip. Returns its addresses."""
        annotations = {**more.pop("annotations", {}), **({EIP_ANNOTATION: eip} if eip else {})}
        self.service(name, policy=policy, annotations=annotations, **more)
        return self.wait_vips(name, count, timeout=30)

    def wait_hops(self, vip: str, *nodes: str, timeout: float = 20, router: int = 0) -> None:
        """Waits until the router's table has exactly these next hops for a VIP (none: no route)."""
        where = self.routers[router]
        family = "v6" if ":" in vip else "v4"
        wanted = self.hops(*nodes, family=family)
        prefix = f"{vip}/{128 if family == 'v6' else 32}"
        wait_equal(
            lambda: where.next_hops().get(prefix, frozenset()),
            wanted,
            timeout,
            f"{where.name} to have {sorted(nodes)} for {prefix}",
        )

    def owners(self, vip: str) -> set[str]:
        """The nodes whose MAC answers for a VIP on the segment. A foreign MAC is returned as is."""
        known = {node.mac: node.name for node in self.nodes}
        return {known.get(mac, mac) for mac in self.segment_client.who_has(vip)}

    def wait_owner(self, vip: str, *nodes: str, timeout: float = 15) -> str:
        """Waits until exactly one node answers (one of these, if any is named). Returns its name."""

        def one() -> str:
            found = self.owners(vip)
            return next(iter(found)) if len(found) == 1 and (not nodes or found <= set(nodes)) else ""

        return wait_until(one, timeout, f"one answer for {vip} (of {nodes or 'any node'})")[0]

    def wait_leader(self, *nodes: str, timeout: float = 20) -> str:
        """Waits until one of these nodes (default: any) holds the lease. Returns its name."""
        return wait_until(
            lambda: name if (name := self.leader()) and (not nodes or name in nodes) else "", timeout, "a leader"
        )[0]

    def conditions(self, kind: str, name: str, namespace: str = "") -> dict[str, dict[str, Any]]:
        return {c["type"]: c for c in self.backend.status(kind, name, namespace).get("conditions", [])}

    def wait_condition(
        self, kind: str, name: str, type_: str, status: str, namespace: str = "", timeout: float = 15
    ) -> dict[str, Any]:
        """Waits until a condition has this status. Returns the condition."""

        def there() -> dict[str, Any]:
            found = self.conditions(kind, name, namespace).get(type_, {})
            return found if found.get("status") == status else {}

        return wait_until(there, timeout, f"{kind} {name} to have {type_}={status}")[0]

    def logs(self) -> str:
        """The end of every manager's log, for a failed test."""
        return "\n".join(f"--- {name}\n{process.output()[-3000:]}" for name, process in self.managers.items())


@contextmanager
def product(kind: str, **options: Any) -> Iterator[Product]:
    """A Product on ``manifests`` or on ``kube``; only routers and pods run on it."""
    if kind == "kube":
        from tests.cluster.backend import KubeBackend  # noqa: PLC0415 - the Kubernetes client takes a second to load

        options = {"backend": KubeBackend, "proxy_interval": 0.2, **options}
    with Product(**options) as made:
        made.managers = {}
        yield made
