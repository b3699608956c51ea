"""A complete Kubernetes on the lab: real control plane with controllers and scheduler; containerd, kubelet and
kube-proxy on each node. PorterLB is the image that the Dockerfile makes; its chart is installed by Helm."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

import helm_python as helm
from kubernetes import client, dynamic

from lab import objects
from lab.backend import Object
from lab.measure import wait_until
from lab.net import Net
from lab.netns import LabError
from lab.proxy import VipPort
from lab.workload import ECHO_PORT, HTTP_PORT
from tests.chart import chart
from tests.cluster.backend import KubeBackend
from tests.cluster.controlplane import proxy
from tests.cluster.nodes import images
from tests.cluster.nodes.node import Machine, left
from tests.lab.product import EIP_ANNOTATION, POOLS, Product

NAMESPACE = chart.NAMESPACE
ACCOUNT = f"system:serviceaccount:{NAMESPACE}:porterlb"
GRACE = 4.0
"""Seconds without a heartbeat until a node is NotReady (Kubernetes' default: 50 s). The tests measure the time after
it."""

WHEN = "requestReceivedTimestamp"

VALUES: Mapping[str, Any] = {
    "image": {"repository": images.MANAGER},
    "apiServer": {"host": "10.77.0.240", "port": 6443},
    "settings": {"returnAfter": 3},
    "layer2": {"settleAfter": 1},
    "minReadySeconds": 5,
}
"""The values that a user of this cluster would set: the address of the API server without kube-proxy, and short delays
for short tests."""


class WholeBackend(KubeBackend):
    """The API, with controllers and scheduler. The chart installs the objects that PorterLB needs there."""

    grace = GRACE

    def __init__(self, net: Net) -> None:
        super().__init__(
            net,
            controllers=True,
            scheduler=True,
            node_monitor_grace_period=self.grace,
            service_cidr="10.96.0.0/16,fd96::/108",
            # Otherwise, the second dead node's pods are evicted 10 s after the first's, and tests kill many.
            controller_flags=["--node-eviction-rate=10"],
        )

    def _prepare(self) -> None:
        self._talk = dynamic.DynamicClient(self.plane.api, cache_file=str(self.plane.directory / "backend-kinds.json"))

    def apply(self, obj: Object) -> None:
        if obj["kind"] != "Node":  # the kubelet registers the Node
            super().apply(obj)

    def reachable(self, node: str) -> bool:
        return False  # for the lab's substitute of kube-proxy, which is not used: the nodes have the real one

    def manager_args(self, node: str) -> list[str]:
        raise LabError("managers run as the chart says")


class Whole(Product):
    """See the module docstring. ``with whole() as lab: lab.install(); lab.deploy("web")``."""

    backend: WholeBackend

    def equip(self) -> None:
        """Starts containerd, kubelet and kube-proxy on every node, and waits until all nodes are Ready."""
        self.managers = {}
        self.outages: list[tuple[datetime, datetime]] = []
        self.machines: dict[str, Machine] = {}
        plane = self.backend.plane
        store = images.prepare()
        for node in self.nodes:
            self.machines[node.name] = Machine(node, plane, plane.program("kubelet"), store)
            kubeconfig = plane.kubeconfig_as("system:kube-proxy")
            program = str(plane.program("kube-proxy"))
            node.remember("kube-proxy", [program, *proxy.arguments(node.name, kubeconfig)])
        try:
            self.wait_ready(*self.machines)
        except LabError as error:
            raise LabError("\n".join([str(error), *(each.complaints() for each in self.machines.values())])) from None

    def close(self) -> None:
        """Raises LabError with the list of leftovers on this machine, if there are any."""
        super().close()
        if remains := left(self.net.id):
            raise LabError(f"lab {self.net.id} has left behind:\n" + "\n".join(remains))

    def desired(self) -> list[VipPort]:
        return []  # for the lab's substitute of kube-proxy

    # Kubernetes

    @property
    def core(self) -> client.CoreV1Api:
        return client.CoreV1Api(self.backend.plane.api)

    def kubectl(self, *arguments: str, stdin: str | None = None) -> str:
        return self.backend.plane.kubectl(*arguments, stdin=stdin)

    def ready(self, node: str) -> str:
        """The status of the condition Ready: True, False or Unknown."""
        return readiness(self.core.read_node(node))

    def wait_ready(self, *nodes: str, status: tuple[str, ...] = ("True",), timeout: float = 60) -> float:
        """Waits until these nodes are Ready and have no node.kubernetes.io taint. Returns the elapsed seconds."""

        def all_are() -> bool:
            there: Any = self.core.list_node()
            found = [node for node in there.items if node.metadata.name in nodes]
            conditions = [readiness(node) for node in found]
            tainted = any(
                taint.key.startswith("node.kubernetes.io/") for node in found for taint in node.spec.taints or []
            )
            return (
                len(found) == len(nodes)
                and all(c in status for c in conditions)
                and (status != ("True",) or not tainted)
            )

        return wait_until(all_are, timeout, f"{nodes} to be Ready={status}", 0.1)[1]

    def pods_of(self, app: str, namespace: str) -> list[Any]:
        """The pods with the label app=..., or those of the chart, including terminating pods."""
        label = "app.kubernetes.io/name" if namespace == NAMESPACE else "app"
        found: Any = self.core.list_namespaced_pod(namespace, label_selector=f"{label}={app}")
        return list(found.items)

    def replicas(self) -> dict[str, Any]:
        """The chart's pods that are not terminating, by node (empty: not bound yet)."""
        return {
            pod.spec.node_name or "": pod
            for pod in self.pods_of("porterlb", NAMESPACE)
            if not pod.metadata.deletion_timestamp
        }

    def ready_replicas(self) -> dict[str, Any]:
        return {node: pod for node, pod in self.replicas().items() if is_ready(pod)}

    def settled(self, nodes: Collection[str]) -> bool:
        """Whether the replicas on these nodes hear one another and have all their sessions."""
        for name in nodes:
            state = self.state(name)
            heard = {node for node, replica in state.get("replicas", {}).items() if replica["fresh"]}
            routers = {f"{router.name}-{family}" for router in self.routers for family in ("v4", "v6")}
            sessions = [peer["state"] for peer_name, peer in state.get("peers", {}).items() if peer_name in routers]
            if not state.get("replicas") or heard != set(nodes):
                return False
            if any(session != "established" for session in sessions):
                return False
        return True

    def wait_replicas(self, count: int, timeout: float = 60) -> dict[str, Any]:
        """Waits until exactly this number of replicas is ready and settled, and no others exist. Returns them by
        node."""

        def there() -> dict[str, Any]:
            found = self.ready_replicas()
            return found if len(found) == count == len(self.replicas()) and self.settled(found) else {}

        return wait_until(there, timeout, f"{count} ready replicas", 0.1)[0]

    def manager_log(self, node: str) -> str:
        """The logs of the managers on a node."""
        return self.machines[node].logs(f"{NAMESPACE}_*/manager")

    # Helm

    @contextmanager
    def helm(self) -> Iterator[helm.Config]:
        with helm.Config(kubeconfig_path=self.backend.plane.admin_kubeconfig, namespace=NAMESPACE) as config:
            yield config

    def install(self, **values: Any) -> None:
        """Installs the chart with VALUES and these values, and waits until its replicas are ready."""
        with self.helm() as config:
            config.install(chart.FOLDER, chart.RELEASE, merged(VALUES, values), create_namespace=True)
        replicas = values.get("replicas", 2) if values.get("kind") != "DaemonSet" else len(self.nodes)
        self.wait_replicas(replicas)

    def upgrade(self, **values: Any) -> None:
        """Starts the upgrade; see :meth:`rolled_out`."""
        with self.helm() as config:
            config.upgrade(chart.FOLDER, chart.RELEASE, merged(VALUES, values))

    def rolled_out(self, timeout: float = 120) -> None:
        """Waits until the current template runs everywhere."""
        kind = "daemonset" if self.kubectl("-n", NAMESPACE, "get", "ds", "-o", "name") else "deployment"
        arguments = ("rollout", "status", f"{kind}/porterlb", f"--timeout={timeout:.0f}s")
        self.kubectl("-n", NAMESPACE, *arguments)

    def uninstall(self) -> None:
        with self.helm() as config:
            config.uninstall(chart.RELEASE, wait="watcher", timeout=60)

    def pools(self, *, peers: bool = True) -> None:
        """Creates the usual pools, the local AS and a peer for each router. Needs the chart's definitions."""
        for name, spec in POOLS.items():
            self.eip(name, **spec)
        self.eip("routed6", "fd17::/120", protocol="bgp")
        self.eip("segment6", "fd77::c0-fd77::cf", protocol="layer2")
        self.bgp_conf()
        if peers:
            for router in self.routers:
                self.peer(router)
                self.peer(router, family="v6")

    # Applications

    def deploy(
        self,
        name: str,
        eip: str,
        *,
        policy: str = "Local",
        nodes: Iterable[str] = (),
        families: Iterable[str] = ("IPv4",),
    ) -> list[str]:
        """A Deployment with one pod on each of these nodes (default: all) and its Service. Returns the VIPs once they
        are served."""
        on = list(nodes) or [node.name for node in self.nodes]
        families = list(families)
        self.backend.apply(deployment(name, on))
        self.backend.apply(objects.service(name, policy=policy, families=families, annotations={EIP_ANNOTATION: eip}))
        wait_until(lambda: len([p for p in self.pods_of(name, "default") if is_ready(p)]) == len(on), 60, f"{name}")
        vips = self.wait_vips(name, len(families), timeout=30)
        for vip in vips:
            where = self.segment_client if self.on_segment(vip) else self.client
            # On the segment, a VIP has one next hop. Behind the router, each next hop must forward to the pods: a
            # node's kube-proxy may learn of its pod 0.25 s after the routes are installed.
            count = 1 if self.on_segment(vip) else len(on)

            def answered(where: Any = where, vip: str = vip, count: int = count) -> bool:
                return len(where.pods_answering(vip, 10 * count)) >= count

            wait_until(answered, 40, f"answers of {count} pods from {vip}", 0.1)
        return vips

    def on_segment(self, vip: str) -> bool:
        return vip.startswith(("10.77.0.", "fd77::"))

    def undeploy(self, name: str) -> None:
        self.kubectl("delete", "deployment,service", name)
        wait_until(lambda: not self.pods_of(name, "default"), 30, f"{name} to be gone", 0.1)

    def situation(self) -> str:
        """The state of the cluster, for a failed test."""
        states = [f"{name}: {self.manager_http(name)[1]}" for name in self.ready_replicas()]
        asked = (("nodes",), ("pods", "-A", "-o", "wide"), ("services", "-A"), ("endpointslices",))
        return "\n".join([*(self.kubectl("get", *arguments) for arguments in asked), *states])

    # Nodes

    def node_by_node_back(self) -> None:
        """Powers on every node that is off, without waiting, after a failed test."""
        for node in self.nodes:
            node.power_on()

    def back(self, *nodes: str) -> None:
        """Powers the nodes on, and waits until they are used again and the pods bound to them have restarted.

        For a node that was off only briefly, the API's data is correct but dates from before the power loss.
        """
        since = datetime.now(UTC).replace(microsecond=0)
        for name in nodes:
            self.node(name).power_on()

        def anew() -> bool:
            there: Any = self.core.list_pod_for_all_namespaces()
            bound = [pod for pod in there.items if pod.spec.node_name in nodes]
            return all(is_ready(pod) and not pod.metadata.deletion_timestamp and started(pod) >= since for pod in bound)

        wait_until(anew, 60, f"the pods of {nodes} to run again", 0.1)
        self.wait_ready(*nodes)

    @contextmanager
    def api_away(self) -> Iterator[None]:
        """Stops the API server for the duration of the block."""
        begun = datetime.now(UTC)
        self.backend.plane.stop_api()
        try:
            yield
        finally:
            self.backend.plane.start_api()
            self.outages.append((begun, datetime.now(UTC)))

    def decisions(self) -> list[Object]:
        """The API requests of the chart's service account, except those during outages: an API server that is starting
        refuses all requests until it has read its own rules."""
        return [
            event
            for event in self.backend.plane.audit_events(ACCOUNT)
            if not any(begun <= datetime.fromisoformat(event[WHEN]) <= ended for begun, ended in self.outages)
        ]


def deployment(name: str, nodes: list[str]) -> Object:
    labels = {"app": name}
    on = {"matchExpressions": [{"key": "kubernetes.io/hostname", "operator": "In", "values": nodes}]}
    apart = {"topologyKey": "kubernetes.io/hostname", "labelSelector": {"matchLabels": labels}}
    container = {
        "name": "server",
        "image": images.BACKEND,
        "ports": [{"containerPort": HTTP_PORT}, {"containerPort": ECHO_PORT, "protocol": "UDP"}],
        "readinessProbe": {"httpGet": {"port": HTTP_PORT, "path": "/"}, "periodSeconds": 1},
    }
    spec = {
        "terminationGracePeriodSeconds": 1,  # the server is process 1 and does not handle SIGTERM
        "containers": [container],
        "affinity": {
            "nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [on]}},
            "podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [apart]},
        },
    }
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name, "namespace": "default"},
        "spec": {
            "replicas": len(nodes),
            "selector": {"matchLabels": labels},
            "template": {"metadata": {"labels": labels}, "spec": spec},
        },
    }


def readiness(node: Any) -> str:
    return next((c.status for c in node.status.conditions or [] if c.type == "Ready"), "")


def started(pod: Any) -> datetime:
    """The time of the last start of a pod's container; datetime.min if it does not run."""
    states = [status.state.running for status in pod.status.container_statuses or []]
    times: list[datetime] = [running.started_at for running in states if running]
    return min(times, default=datetime.min.replace(tzinfo=UTC))


def is_ready(pod: Any) -> bool:
    return any(c.type == "Ready" and c.status == "True" for c in pod.status.conditions or [])


def merged(base: Mapping[str, Any], more: Mapping[str, Any]) -> dict[str, Any]:
    found = dict(base)
    for key, value in more.items():
        old = found.get(key)
        found[key] = merged(old, value) if isinstance(old, Mapping) and isinstance(value, Mapping) else value
    return found


@contextmanager
def whole(
    nodes: int = 3,
    routers: Iterable[str] = ("bird",),
    backend: Callable[[Net], WholeBackend] = WholeBackend,
    **options: Any,
) -> Iterator[Whole]:
    """The cluster, without PorterLB."""
    with Whole(nodes, routers, pods=0, proxy_interval=5.0, pod_servers=False, backend=backend, **options) as made:
        made.equip()
        yield made
