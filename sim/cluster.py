"""One simulated site: nodes with their replicas, pods, Kubernetes' controllers, the segment and its hosts."""

from __future__ import annotations

from dataclasses import dataclass, field
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any

import porterlb.app
from porterlb.cluster import Cluster, Kind
from porterlb.core.model import Address
from porterlb.settings import Settings
from sim.api import Api, Client
from sim.platform import Host, run_main
from sim.recordings import Recorded
from sim.router import AS, Router
from sim.segment import PREFIX, PREFIX6, NeighbourCache, Port, Segment
from sim.world import Process, World

if TYPE_CHECKING:
    from sim.exabgp import Exabgp
    from sim.platform import _Responder

NOT_READY_AFTER = 40.0
"""Seconds without a kubelet until Kubernetes considers a node NotReady."""
PROXY = 1.0
"""Seconds, at most, until a node's kube-proxy has written its rules."""
EIP = "eip.porter.kubesphere.io/v1alpha2"
PIN = "layer2.porter.kubesphere.io/v1alpha1"
NS = "default"


@dataclass
class Node:
    """``booted``: how often it has been switched on. ``silent_since``: when it lost its power."""

    name: str
    port: Port
    clock: float
    booted: int = 1
    manager: Process | None = None
    ready: bool = True
    silent_since: float | None = None
    wanted: bool = True  # the DaemonSet wants a replica here


@dataclass
class Pod:
    service: str
    node: str
    ready: bool = True


@dataclass
class Site:
    """``settings``: the settings of the managers that the seed has chosen for this run. ``routers``: for each router,
    whether it supports add-path. ``ipv6``: whether the segment has IPv6 beside IPv4."""

    world: World
    names: tuple[str, ...]
    settings: dict[str, Any] = field(default_factory=dict)
    paths: tuple[bool, ...] = ()
    ipv6: bool = False

    def __post_init__(self) -> None:
        world = self.world
        Host.site = self
        self.segment = Segment(world)
        self.segment.ipv6 = self.ipv6
        self.api = Api(world)
        self.responders: list[_Responder] = []
        self.wires: dict[str, Process] = {}
        self.exabgps: dict[str, Exabgp] = {}
        self.routers: list[Router] = []
        self.recorded: list[Recorded] = []
        self.pods: list[Pod] = []
        self.marked: set[str] = set()
        self.cordoned: set[str] = set()
        self.services: dict[str, dict[str, Any]] = {}
        self.proxies: dict[tuple[str, str], bool] = {}  # (node, service): whether its kube-proxy delivers locally
        self.gateway_port = self.segment.plug("gateway", 254)
        self.gateway: Address = ip_address(self.gateway_port.address)
        self.client_port = self.segment.plug("client", 250)
        self.clients = []
        for port in (self.gateway_port, self.client_port):
            port.cache = NeighbourCache(port)
            self.clients.append(port.cache)
        self.nodes: dict[str, Node] = {}
        for number, name in enumerate(self.names, 1):
            self.nodes[name] = Node(name, self.segment.plug(name, number), clock=world.random.uniform(10, 1e5))
        for number, add_path in enumerate(self.paths, 1):
            self.routers.append(Router(self.segment, f"r{number}", 239 + number, add_path=add_path, families=(4, 6)))
        self.api.marking = self._mark
        for name in self.names:
            self._put_node(name)
        self.api.put(Kind.NAMESPACE, NS)

    # ---- objects

    def _put_node(self, name: str) -> None:
        node = self.nodes[name]
        ready = "True" if node.ready else "Unknown"
        status = {
            "addresses": [
                {"type": "InternalIP", "address": address}
                for address in (node.port.address, *([node.port.address6] if self.ipv6 else []))
            ],
            "conditions": [{"type": "Ready", "status": ready}],
        }
        labels = {"kubernetes.io/hostname": name}
        self.api.put(
            Kind.NODE, name, metadata={"labels": labels}, spec=self._node_spec(name), status=status, base=status
        )

    def _node_spec(self, name: str) -> dict[str, Any]:
        return {"unschedulable": True} if name in self.cordoned else {}

    def cordon(self, name: str, yes: bool) -> None:
        (self.cordoned.add if yes else self.cordoned.discard)(name)
        self._put_node(name)

    def eip(self, name: str, address: str, protocol: str, **more: Any) -> None:
        spec = {"address": address, "protocol": protocol, **more}
        self.api.put(Kind.EIP, name, spec=spec)

    def peers(self, *, add_path: bool, graceful_restart: bool) -> None:
        """The BgpConf, and a BgpPeer for each router."""
        restart = {} if graceful_restart else {"gracefulRestart": {"enabled": False}}
        self.api.put(Kind.BGP_CONF, "default", spec={"as": 64512, **restart})
        more = {"addPaths": {"config": {"sendMax": 8}}} if add_path else {}
        families = [
            {"config": {"family": {"afi": afi, "safi": "SAFI_UNICAST"}}, **more}
            for afi in ("AFI_IP", *(["AFI_IP6"] if self.ipv6 else []))
        ]
        for router in self.routers:
            conf = {"neighborAddress": router.port.address, "peerAs": AS}
            self.api.put(Kind.BGP_PEER, router.name, spec={"conf": conf, "afiSafis": families})

    def router_at(self, address: str) -> Router | None:
        return next((router for router in self.routers if router.port.address == address), None)

    def protocol(self, service: str) -> str:
        """The protocol of the Eip of a Service."""
        return str(self._eip_spec(service)["protocol"])

    def is_on_link(self, service: str) -> bool:
        return str(self._eip_spec(service)["address"]).startswith((PREFIX, PREFIX6))

    def has_standby(self, service: str) -> bool:
        return bool(self._eip_spec(service).get("layer2Standby", True))

    def _eip_spec(self, service: str) -> dict[str, Any]:
        found: dict[str, Any] = (self.api.get(Kind.EIP, self.services[service]["eip"]) or {})["spec"]
        return found

    def is_spread(self, service: str) -> bool:
        """Whether each host has its own next hop for the address of a Service."""
        eip = self.api.get(Kind.EIP, self.services[service]["eip"]) or {}
        return bool((eip.get("spec") or {}).get("layer2Spread") == "hosts")

    def service(self, name: str, eip: str, policy: str, nodes: list[str], *, at: str = "") -> None:
        """A Service with one pod on each of these nodes, of the IP version of the Eip. ``at``: its first next hop."""
        version = 6 if ":" in str((self.api.get(Kind.EIP, eip) or {})["spec"]["address"]) else 4
        self.pods += [Pod(name, node) for node in nodes]
        self.services[name] = {"eip": eip, "policy": policy, "version": version}
        self.api.put(
            Kind.SERVICE,
            name,
            NS,
            metadata={"annotations": {EIP: eip, **({PIN: at} if at else {})}},
            spec={
                "type": "LoadBalancer",
                "selector": {"app": name},
                "ports": [{"name": "http", "port": 80, "protocol": "TCP", "targetPort": 8080}],
                "externalTrafficPolicy": policy,
                "ipFamilies": [f"IPv{version}"],
                "ipFamilyPolicy": "SingleStack",
            },
            status={},
        )
        self.slices(name)

    def remove_service(self, name: str) -> None:
        self.pods = [pod for pod in self.pods if pod.service != name]
        version = self.services.pop(name)["version"]
        self.api.delete(Kind.ENDPOINT_SLICE, f"{name}-ipv{version}", NS)
        self.api.delete(Kind.SERVICE, name, NS)

    def is_ready(self, pod: Pod) -> bool:
        """Whether the pod is ready according to Kubernetes."""
        return pod.ready and pod.node not in self.marked and self.nodes[pod.node].ready

    def slices(self, name: str) -> None:
        """Writes the endpoints of a Service, as the controller does; each kube-proxy follows within a second."""
        version = self.services[name]["version"]
        pods = "10.244.{}.{}" if version == 4 else "fd44::{:x}:{:x}"
        endpoints = [
            {
                "addresses": [pods.format(self.nodes[pod.node].port.number, number + 1)],
                "nodeName": pod.node,
                "conditions": {"ready": self.is_ready(pod), "serving": pod.ready, "terminating": False},
            }
            for number, pod in enumerate(self.pods)
            if pod.service == name
        ]
        self.api.put(
            Kind.ENDPOINT_SLICE,
            f"{name}-ipv{version}",
            NS,
            metadata={"labels": {"kubernetes.io/service-name": name}},
            addressType=f"IPv{version}",
            ports=[{"name": "http", "port": 8080, "protocol": "TCP"}],
            endpoints=endpoints,
        )
        for node in self.names:
            local = any(pod.service == name and pod.node == node and self.is_ready(pod) for pod in self.pods)
            self.world.after(PROXY * self.world.random.random(), self._proxy, node, name, local)

    def _proxy(self, node: str, service: str, local: bool) -> None:
        self.proxies[node, service] = local
        self.world.dirty = True

    def _mark(self, node: str, marked: bool) -> None:
        self.world.say("api", f"pods of {node} are {'marked not ready' if marked else 'restored'}")
        self.on_mark(node, marked)
        if marked:
            self.marked.add(node)
        else:
            self.marked.discard(node)
        self._slices_of(node)

    def on_mark(self, node: str, marked: bool) -> None:
        """Replaced by the promises."""

    def _slices_of(self, node: str) -> None:
        for name in sorted({pod.service for pod in self.pods if pod.node == node}):
            self.slices(name)

    # ---- nodes and processes

    def client(self, process: Process) -> Cluster:
        return Client(self.api, process)

    def start(self, name: str) -> None:
        """Starts the replica of a node, if its node runs and the DaemonSet wants it."""
        node = self.nodes[name]
        if not node.port.powered or not node.wanted or (node.manager is not None and node.manager.alive):
            return
        process = node.manager = Process(self.world, f"{name}/manager", name, node.clock)
        process.on_end.append(lambda: self._manager_ended(name, process))
        settings = Settings(node=name, **self.settings)
        self.world.say(process.name, "starts")
        self.world.at(self.world.now, run_main, process, _manage(settings), process=process)

    def _manager_ended(self, name: str, process: Process) -> None:
        """The kubelet starts it again, later each time."""
        self.world.dirty = True
        self.world.say(process.name, f"has ended (code {process.code})")
        if self.nodes[name].port.powered:
            self.world.after(1.0 + 2.0 * self.world.random.random(), self.start, name)

    def wire_ended(self, process: Process) -> None:
        """The kernel closes the sockets of the process."""
        self.world.dirty = True
        self.world.say(process.name, f"has ended (code {process.code})")
        self.responders = [responder for responder in self.responders if responder.process is not process]
        port = self.segment.ports[process.node]
        port.sockets = {
            operation: [one for one in there if one.owner is not process] for operation, there in port.sockets.items()
        }
        port.datagrams = [one for one in port.datagrams if one.owner is not process]
        port.tables = [one for one in port.tables if one.owner is not process]

    def power(self, name: str, on: bool) -> None:
        node, world = self.nodes[name], self.world
        if node.port.powered is on:
            return
        node.port.powered = on
        world.dirty = True
        if on:
            node.clock = 5.0 - world.now  # monotonic time begins with the boot
            node.booted += 1
            node.silent_since = None
            world.after(3.0 + 5.0 * world.random.random(), self.start, name)
            world.after(4.0 + 8.0 * world.random.random(), self._kubelet, name, node.booted)
            return
        node.silent_since = world.now
        exabgp = self.exabgps.get(name)
        for process in (node.manager, self.wires.get(name), exabgp.process if exabgp else None):
            if process is not None:
                process.children = []
                process.end(-9)
        world.after(NOT_READY_AFTER, self._not_ready, name, node.booted)

    def _not_ready(self, name: str, booted: int) -> None:
        node = self.nodes[name]
        if node.booted == booted and not node.port.powered and node.ready:
            node.ready = False
            self._put_node(name)
            self._slices_of(name)

    def _kubelet(self, name: str, booted: int) -> None:
        """The node's kubelet is back: the node is Ready, and its pods run."""
        node = self.nodes[name]
        if node.booted != booted or not node.port.powered:
            return
        node.ready = True
        self.marked.discard(name)  # it writes the status of its pods again
        self._put_node(name)
        self._slices_of(name)

    def run_all(self) -> None:
        for name in self.names:
            self.world.after(self.world.random.random(), self.start, name)

    # ---- the state of the site

    def vip(self, service: str) -> str:
        """The address in the status of a Service."""
        obj = self.api.get(Kind.SERVICE, service, NS) or {}
        ingress = ((obj.get("status") or {}).get("loadBalancer") or {}).get("ingress") or []
        return str(ingress[0]["ip"]) if ingress else ""

    def packed(self, vip: str) -> bytes:
        return ip_address(vip).packed

    def prefix(self, vip: str) -> str:
        """The prefix of its host route."""
        return f"{vip}/{128 if ':' in vip else 32}"

    def delivers(self, node: str, service: str) -> bool:
        """Whether a frame that reaches a node reaches a pod of a Service."""
        port = self.segment.ports[node]
        if not port.up or service not in self.services:
            return False
        pods = [pod for pod in self.pods if pod.service == service and self.is_ready(pod)]
        if self.services[service]["policy"] == "Local":
            return self.proxies.get((node, service), False) and any(pod.node == node for pod in pods)
        return any(pod.node == node or self.linked(node, pod.node) for pod in pods)

    def linked(self, one: str, other: str) -> bool:
        """Whether two hosts reach each other."""
        ports, passes = self.segment.ports, self.segment.passes
        return ports[one].up and ports[other].up and passes(one, other) and passes(other, one)

    def leads(self, name: str) -> bool:
        process = self.nodes[name].manager
        manager = process.manager if process is not None and process.alive else None
        return bool(
            process is not None
            and manager is not None
            and manager.leader._machine.leading(self.world.now + process.clock)
        )


async def _manage(settings: Settings) -> int:
    return await porterlb.app._run(settings)
