"""The complete lab: ``with Lab(nodes=3, routers=["bird"]) as lab: ...``.

Machines and addresses: `lab.topology`. The pods on node N have the addresses from 10.244.N.10 (fd44:N::10).
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Self

from lab import netns, objects, vrrp
from lab.backend import Backend, DirBackend, Object
from lab.client import Client
from lab.faults import Faults
from lab.host import Host, segment_nic
from lab.measure import wait_equal, wait_until
from lab.net import Net
from lab.netns import LabError
from lab.node import Node
from lab.process import Process
from lab.proxy import Endpoint, Proxy, VipPort
from lab.routers import Router, Session, router_class
from lab.topology import Site, Topology, flat, sessions_with
from lab.workload import Pod

CHECKOUT = Path(__file__).resolve().parent.parent
MANAGER_HTTP = 7472

BackendFactory = Callable[[Net], Backend]

LIVE: list[Lab] = []
"""The running labs."""


class Lab:
    """A cluster. Everything is created by ``with``, and removed at its end, even after a failure.

    Args:
        nodes: number of nodes.
        routers: by name, one or two of bird, frr, gobgp; none for a segment without a router.
        pods: per node, named pod-a1, pod-a2, pod-b1 ...
        pod_servers: whether a server runs in the pods; without it, they are only namespaces with addresses.
        backend: creates the store of the API objects; a directory of manifests by default.
        sessions: the sessions of every router; by default one per node and family (v4 routes over a v4 session, v6
            routes over a v6 session). See `node_sessions`.
        topology: the machines and networks, e.g. `lab.topology.racks()`, instead of the segment described by nodes,
            routers, sessions, asn, port and second.
        asn: AS of each router, in order; 64500 by default.
        port: TCP port on which the routers listen.
        snooping: the segment's switch does multicast snooping.
        second: nodes and a client `second_client` have a NIC on a second segment, 10.79.0.0/24 and fd79::/64.
        proxy_interval: seconds between two checks of the replacement of kube-proxy.
    """

    def __init__(
        self,
        nodes: int = 3,
        routers: Iterable[str] = ("bird",),
        *,
        pods: int = 1,
        pod_servers: bool = True,
        backend: BackendFactory | None = None,
        sessions: Iterable[Session] | None = None,
        asn: Iterable[int] = (),
        port: int = 179,
        snooping: bool = False,
        second: bool = False,
        proxy_interval: float = 0.05,
        topology: Topology | None = None,
    ) -> None:
        self._make_backend = backend
        self.topology = topology or flat(
            nodes, tuple(routers), sessions=sessions, asn=tuple(asn), port=port, second=second
        )
        self._wanted = (pods, snooping)
        self._pod_servers = pod_servers
        self._proxy_interval = proxy_interval
        self.fixed_vips: dict[str, list[str]] = {}

    def __enter__(self) -> Self:
        pods, snooping = self._wanted
        self.nodes: list[Node] = []
        self.routers: list[Router] = []
        self.hosts: list[Host] = []
        self.net = Net(snooping, self.topology.bridges)
        self.faults = Faults(self.net)
        try:
            self._build(pods)
        except BaseException:
            self.close()
            raise
        LIVE.append(self)
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Removes everything. A second call does nothing."""
        if self in LIVE:
            LIVE.remove(self)
        if hasattr(self, "proxy"):
            self.proxy.close()
        if hasattr(self, "backend"):
            self.backend.close()
        self.net.close()
        for host in [*self.nodes, *self.routers, *self.hosts]:
            for process in host.processes:
                process.close()
        for pod in self.pods:
            if pod.process:
                pod.process.close()

    # Construction

    def _build(self, pods: int) -> None:
        net, topology = self.net, self.topology
        make = self._make_backend or (lambda net: DirBackend(net.folder / "manifests", net.folder / "api"))
        self.backend: Backend = make(net)
        self.nodes = [
            Node(net, index, site.nics, site.gateway, self.backend, site.labels)
            for index, site in enumerate(topology.nodes)
        ]
        self.client, self.segment_client = self._client(topology.client), self._client(topology.local)
        if topology.second_local is not None:
            self.second_client = self._client(topology.second_local)
        self.routers = [
            router_class(site.kind)(net, site.name, site.nics, site.config, site.routes) for site in topology.routers
        ]
        for node, site in zip(self.nodes, topology.nodes, strict=True):
            node.pod_servers = self._pod_servers
            node.pod_routes = topology.pod_routes(site)
            for number in range(1, pods + 1):
                node.add_pod(f"pod-{node.name.removeprefix('node-')}{number}")

        machines: list[Host] = [*self.nodes, *self.routers, *self.hosts]
        net.plug(cable for machine in machines for cable in machine.cables())
        netns.create(
            [pod.ns.name for node in self.nodes for pod in node.pods],
            [pod.cable(node.ns) for node in self.nodes for pod in node.pods],
        )
        self.backend.attach(node.name for node in self.nodes)
        for router in self.routers:
            router.configure()
            router.start_daemon()
        vrrp.start(
            {router: site.shared for router, site in zip(self.routers, topology.routers, strict=True) if site.shared}
        )
        self.proxy = Proxy(self.nodes, self.desired, self.backend.reachable, self._proxy_interval)
        for node in self.nodes:
            node.boot()
        for host in self.hosts:
            host.configure()
        for node in self.nodes:
            self.backend.apply(self.node_object(node))
        self.backend.apply(objects.namespace("default"))
        self.proxy.start()

    def _client(self, site: Site) -> Client:
        client = Client(self.net, site.name, site.nics, site.gateway)
        self.hosts.append(client)
        return client

    def node_sessions(self, families: Iterable[str] = ("v4", "v6"), **options: Any) -> tuple[Session, ...]:
        """One session per node and family, with options of `Session`, e.g. ``add_path=False``."""
        return tuple(replace(session, **options) for session in sessions_with(self.topology.nodes, families))

    def add_host(self, name: str, number: int, client: bool = True) -> Host:
        """Adds a machine to the segment, 10.77.0.`number`: a rival host, a control plane, another client."""
        gateway = self.segment_client.gateway
        host = (Client if client else Host)(self.net, name, [segment_nic(number)], gateway)
        self.net.plug(host.cables())
        host.configure()
        self.hosts.append(host)
        return host

    # Parts by name

    def node(self, name: str) -> Node:
        for node in self.nodes:
            if name in (node.name, node.v4, node.v6, node.mac):
                return node
        raise LabError(f"there is no node {name}; there are {', '.join(node.name for node in self.nodes)}")

    @property
    def router(self) -> Router:
        """The first router."""
        if not self.routers:
            raise LabError("this lab has no router")
        return self.routers[0]

    def router_named(self, name: str) -> Router:
        for router in self.routers:
            if router.name == name:
                return router
        raise LabError(f"there is no router {name}; there are {', '.join(router.name for router in self.routers)}")

    @property
    def pods(self) -> list[Pod]:
        return [pod for node in self.nodes for pod in node.pods]

    def pod(self, name: str) -> Pod:
        for pod in self.pods:
            if pod.name == name:
                return pod
        raise LabError(f"there is no pod {name}; there are {', '.join(pod.name for pod in self.pods)}")

    def hops(self, *nodes: str, family: str = "v4") -> frozenset[str]:
        """The next hop addresses of these nodes, for comparison with a router's table."""
        return frozenset(self.node(name).v6 if family == "v6" else self.node(name).v4 for name in nodes)

    # API objects

    def node_object(self, node: Node, **fields: Any) -> Object:
        """The v1 Node of a node. `fields` are those of `objects.node` (ready, labels, taints, unschedulable)."""
        labels = {**node.labels, **fields.pop("labels", {})}
        return objects.node(node.name, [node.v4, node.v6], labels=labels, **fields)

    def set_node(self, name: str, **fields: Any) -> None:
        """Writes the Node again, e.g. ``set_node("node-a", ready="Unknown")``; without fields, in its initial state."""
        self.backend.apply(self.node_object(self.node(name), **fields))

    def service(
        self,
        name: str,
        pods: Iterable[Pod | str] | None = None,
        *,
        policy: str = "Cluster",
        families: Iterable[str] = ("IPv4",),
        annotations: Mapping[str, str] | None = None,
        namespace: str = "default",
        conditions: Mapping[str, Mapping[str, bool]] | None = None,
        **spec: Any,
    ) -> None:
        """Writes a Service (HTTP on 80, echo on 7) and its EndpointSlices; all pods of the lab by default."""
        chosen = self.pods if pods is None else [self.pod(p) if isinstance(p, str) else p for p in pods]
        families = list(families)
        for piece in objects.endpoint_slices(name, chosen, namespace, families=families, conditions=conditions):
            self.backend.apply(piece)
        self.backend.apply(
            objects.service(name, namespace, policy=policy, families=families, annotations=annotations, **spec)
        )

    def delete_service(self, name: str, namespace: str = "default") -> None:
        """Removes a Service and its EndpointSlices."""
        self.backend.delete("Service", name, namespace)
        for piece in self.backend.objects("EndpointSlice"):
            meta = piece["metadata"]
            if meta.get("namespace") == namespace and meta["labels"].get("kubernetes.io/service-name") == name:
                self.backend.delete("EndpointSlice", meta["name"], namespace)

    def eip(self, name: str, address: str, annotations: Mapping[str, str] | None = None, **spec: Any) -> None:
        self.backend.apply(objects.eip(name, address, annotations, **spec))

    def bgp_conf(self, asn: int = 64512, **spec: Any) -> None:
        self.backend.apply(objects.bgp_conf(asn, **spec))

    def peer(
        self,
        router: Router | None = None,
        family: str = "v4",
        name: str = "",
        conf: Mapping[str, Any] | None = None,
        **spec: Any,
    ) -> None:
        """A BgpPeer for the nodes' sessions to a router over one family, e.g. ``peer(family="v6")``."""
        router = router or self.router
        address = router.v6 if family == "v6" else router.v4
        afi: list[dict[str, Any]] = [
            {"config": {"family": {"afi": "AFI_IP6" if family == "v6" else "AFI_IP", "safi": "SAFI_UNICAST"}}}
        ]
        if any(session.add_path for session in router.config.sessions):
            afi[0]["addPaths"] = {"config": {"sendMax": 8}}
        spec.setdefault("afiSafis", afi)
        if router.config.port != 179:
            spec.setdefault("transport", {"remotePort": router.config.port})
        self.backend.apply(
            objects.bgp_peer(name or f"{router.name}-{family}", address, router.config.asn, conf, **spec)
        )

    def vips(self, name: str, namespace: str = "default") -> list[str]:
        """The addresses of the Service according to its status (or to `fix_vips`), v4 first."""
        if fixed := self.fixed_vips.get(f"{namespace}/{name}"):
            return fixed
        status = self.backend.status("Service", name, namespace)
        ingress = (status.get("loadBalancer") or {}).get("ingress") or []
        return sorted((entry["ip"] for entry in ingress if entry.get("ip")), key=lambda ip: ":" in ip)

    def wait_vips(self, name: str, count: int = 1, namespace: str = "default", timeout: float = 10.0) -> list[str]:
        """Waits until the Service has `count` addresses and every reachable node's proxy has them too."""
        vips, _ = wait_until(
            lambda: found if len(found := self.vips(name, namespace)) == count else [],
            timeout,
            f"{namespace}/{name} to have {count} address(es)",
        )
        self.proxy.sync()
        return vips

    def fix_vips(self, name: str, *vips: str, namespace: str = "default") -> None:
        """Sets the addresses of a Service, for tests without the product. On return, the proxies have them."""
        self.fixed_vips[f"{namespace}/{name}"] = list(vips)
        self.proxy.sync()

    def desired(self) -> list[VipPort]:
        """The wanted state of the proxies: each LoadBalancer Service's VIPs, ports and ready endpoints."""
        slices: dict[tuple[str, str], list[Object]] = {}
        for piece in self.backend.objects("EndpointSlice"):
            meta = piece["metadata"]
            service = meta.get("labels", {}).get("kubernetes.io/service-name", "")
            slices.setdefault((meta.get("namespace", "default"), service), []).append(piece)
        failed = {node.name for node in self.nodes if _failed(self.backend.status("Node", node.name))}
        found = []
        for obj in self.backend.objects("Service"):
            namespace, name = obj["metadata"].get("namespace", "default"), obj["metadata"]["name"]
            for vip in self.vips(name, namespace):
                ports = _vip_ports(vip, obj["spec"], slices.get((namespace, name), []))
                found += [
                    replace(port, endpoints=tuple(e for e in port.endpoints if e.node not in failed)) for port in ports
                ]
        return found

    # The product

    def start_manager(
        self,
        node: Node | str,
        *args: str,
        env: Mapping[str, str] | None = None,
        remember: bool = False,
    ) -> Process:
        """Starts ``porterlb manager`` on a node. `remember`: start it again whenever the node is powered on."""
        where = self.node(node) if isinstance(node, str) else node
        argv = [sys.executable, "-m", "porterlb", "manager", "--node", where.name]
        argv += [*self.backend.manager_args(where.name), "--http", f"127.0.0.1:{MANAGER_HTTP}", *args]
        path = os.pathsep.join([str(CHECKOUT), *filter(None, [os.environ.get("PYTHONPATH")])])
        start = where.remember if remember else where.start
        return start("manager", argv, {"PYTHONPATH": path, "PYTHONUNBUFFERED": "1", **(env or {})}, cwd=CHECKOUT)

    def leader(self) -> str:
        """The node that holds the leader's lease according to the API; empty if no node holds it."""
        return self.backend.leader().rpartition("_")[0]

    def manager_http(self, node: Node | str, path: str = "/state") -> tuple[int, str]:
        """(status, body) of the HTTP response of a node's manager."""
        where = self.node(node) if isinstance(node, str) else node
        return where.http("127.0.0.1", MANAGER_HTTP, path)

    def state(self, node: str) -> dict[str, Any]:
        """The /state of a node's manager."""
        code, body = self.manager_http(node, "/state")
        if code != 200:
            raise LabError(f"/state of {node} answers {code}: {body}")
        found: dict[str, Any] = json.loads(body)
        return found

    def wait_settled(self, *nodes: str, timeout: float = 40) -> None:
        """Waits until the replicas of these nodes (default: all) hear one another, have their sessions, and have
        applied the same plan."""
        names = set(nodes or [node.name for node in self.nodes])

        def settled() -> bool:
            states = [self.state(name) for name in names]
            return (
                all("plan" in state for state in states)  # a manager that has just started has no plan
                and all({n for n, r in state["replicas"].items() if r["fresh"]} == names for state in states)
                and all(p["state"] == "established" for state in states for p in state["peers"].values() if p["wanted"])
                and all(state["plan"]["applied"] == state["plan"]["digest"] for state in states)
                and len({state["plan"]["digest"] for state in states}) == 1
            )

        wait_until(settled, timeout, f"{sorted(names)} to agree", interval=0.1)

    def wait_routes(
        self,
        wanted: Mapping[str, frozenset[str]],
        router: Router | None = None,
        timeout: float = 10.0,
        kernel: bool | None = None,
    ) -> float:
        """Waits until a router has exactly these prefixes with exactly these next hops. Returns the elapsed seconds.

        Args:
            kernel: check the kernel's table (True) or the RIB (False). Default: the kernel's, if the router has one.
        """
        where = router or self.router
        from_kernel = where.programs_kernel if kernel is None else kernel
        look = where.kernel_routes if from_kernel else where.routes
        return wait_equal(look, dict(wanted), timeout, f"the routes of {where.name}")


def _failed(status: Object) -> bool:
    """Whether the product has written that the node's endpoints must not be used."""
    conditions = status.get("conditions") or []
    return any(one.get("type") == "EndpointsReady" and one.get("status") == "False" for one in conditions)


def _vip_ports(vip: str, spec: Mapping[str, Any], slices: list[Object]) -> list[VipPort]:
    family = "IPv6" if ":" in vip else "IPv4"
    found = []
    for port in spec.get("ports", []):
        endpoints = []
        for piece in slices:
            numbers = [p["port"] for p in piece.get("ports") or [] if p.get("name") == port.get("name")]
            if piece.get("addressType") != family or not numbers:
                continue
            for entry in piece.get("endpoints") or []:
                if entry.get("conditions", {}).get("ready") is not False:
                    endpoints += [Endpoint(a, numbers[0], entry.get("nodeName", "")) for a in entry["addresses"]]
        policy = spec.get("externalTrafficPolicy", "Cluster")
        found.append(VipPort(vip, port["port"], port.get("protocol", "TCP"), policy, tuple(sorted(endpoints))))
    return found
