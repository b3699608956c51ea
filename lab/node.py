"""A node of the cluster: it can be powered off and on and cut off from the API, and it runs pods."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from lab import netns
from lab.host import Host, Nic
from lab.net import SYSCTL_FORWARD, Net
from lab.process import Process, kill_in_namespaces
from lab.workload import Pod


class ApiAccess(Protocol):
    """The operations to cut a node off from the API and to reconnect it; provided by a Backend."""

    def cut(self, node: str) -> None: ...
    def restore(self, node: str) -> None: ...


@dataclass
class Remembered:
    """A command that restarts whenever the node is powered on, as with a service manager."""

    name: str
    argv: list[str]
    env: Mapping[str, str] = field(default_factory=dict)
    cwd: Path | None = None


def node_name(index: int) -> str:
    """The name of node number `index` (from 0): node-a, node-b, ..., node-27."""
    letters = "abcdefghijklmnopqrstuvwxyz"
    return f"node-{letters[index]}" if index < 26 else f"node-{index + 1}"


def pod_ranges(index: int) -> tuple[str, str]:
    """The pods' prefixes of node number `index`: 10.244.N.0/24 and fd44:N::/64, N = index + 1."""
    return f"10.244.{index + 1}.0/24", f"fd44:{index + 1}::/64"


class Node(Host):
    """Node number `index` (0 is node-a), with its pods in `pod_ranges`.

    `labels`: labels that its Node object always has, in addition to all others.
    """

    def __init__(
        self,
        net: Net,
        index: int,
        nics: Iterable[Nic],
        gateway: Nic | None,
        api: ApiAccess,
        labels: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(net, node_name(index), nics, gateway, SYSCTL_FORWARD)
        self.index = index
        self.labels = dict(labels or {})
        self.api = api
        self.on = False
        self.pods: list[Pod] = []
        self.pod_servers = True  # False: the caller starts the programs in the pods' namespaces
        self.pod_routes: list[str] = []  # to the other nodes' pods; set when all nodes are known
        self.on_boot: list[Callable[[], None]] = []
        self._services: list[Remembered] = []

    def add_pod(self, name: str) -> Pod:
        """Adds a pod to this node. It starts when the node boots, or immediately if the node is up."""
        number = 10 + len(self.pods)
        pod = Pod(
            name,
            self.name,
            self.net.namespace(name),
            f"10.244.{self.index + 1}.{number}",
            f"fd44:{self.index + 1}::{number}",
        )
        self.pods.append(pod)
        if self.on:
            netns.create([pod.ns.name], [pod.cable(self.ns)])
            pod.configure(self.ns)
            self._serve(pod)
        return pod

    def boot(self) -> None:
        """Sets up settings, addresses, pods and remembered services, on newly created namespaces."""
        self.configure()
        self.ns.ip(*self.pod_routes)
        for pod in self.pods:
            pod.configure(self.ns)
        self.on = True
        for then in self.on_boot:
            then()
        for pod in self.pods:
            self._serve(pod)
        for service in self._services:
            self.start(service.name, service.argv, service.env, cwd=service.cwd)

    def _serve(self, pod: Pod) -> None:
        if self.pod_servers:
            pod.serve(self.net.folder / "logs")

    def remember(
        self, name: str, argv: list[str], env: Mapping[str, str] | None = None, cwd: Path | None = None
    ) -> Process:
        """Like `start`, and also starts the command again at each power-on."""
        self._services = [other for other in self._services if other.name != name]
        self._services.append(Remembered(name, argv, env or {}, cwd))
        return self.start(name, argv, env, cwd=cwd)

    def forget(self, name: str) -> None:
        """Stops restarting the command at power-on."""
        self._services = [other for other in self._services if other.name != name]

    def power_off(self) -> None:
        """Power loss: first the link is cut, which prevents further packets; then all processes are killed; then all
        kernel state is removed.

        Connections, neighbor tables, routes and nftables rules are gone, as after a real power loss.
        """
        ports = [self.port(nic) for nic in self.nics]
        for port in ports:
            self.net.carrier(port, False)
        self.on = False
        names = [self.ns.name, *(pod.ns.name for pod in self.pods)]
        kill_in_namespaces(names)
        for port in ports:
            self.net.unplug(port)
        netns.delete(names)
        for process in [*self.processes, *(pod.process for pod in self.pods if pod.process)]:
            process.close()
        self.processes.clear()

    def power_on(self) -> None:
        """Boots again: same name, MAC and addresses, the same pods and remembered services. No other state survives."""
        if self.on:
            return
        self.net.plug(self.cables())
        netns.create((pod.ns.name for pod in self.pods), (pod.cable(self.ns) for pod in self.pods))
        self.boot()

    def cut_api(self) -> None:
        """Cuts this node off from the API: its processes no longer find the manifests (or the API server)."""
        self.api.cut(self.name)

    def restore_api(self) -> None:
        self.api.restore(self.name)
