"""Pods: one small server each, in a separate namespace behind its node, as in Kubernetes."""

from __future__ import annotations

import sys
from pathlib import Path

from lab.net import SYSCTL_HOST
from lab.netns import Namespace
from lab.process import Process

HTTP_PORT = 8080
ECHO_PORT = 7007
SERVER = Path(__file__).with_name("podserver.py")


class Pod:
    """A backend that responds with its name: HTTP on 8080, UDP and TCP echo on 7007, in both families.

    Args:
        name: the pod's name, unique in the lab, at most 15 characters (it also names a network interface).
        node: the name of its node.
    """

    def __init__(self, name: str, node: str, ns: Namespace, v4: str, v6: str) -> None:
        self.name = name
        self.node = node
        self.ns = ns
        self.v4 = v4
        self.v6 = v6
        self.process: Process | None = None

    def __repr__(self) -> str:
        return f"Pod({self.name} on {self.node}, {self.v4}, {self.v6})"

    def cable(self, node: Namespace) -> str:
        """The veth pair between node and pod, as an ``ip link add`` line."""
        return f"{self.name} netns {node.name} type veth peer name eth0 netns {self.ns.name}"

    def configure(self, node: Namespace) -> None:
        """Configures addresses in the pod and routes to it on the node (point to point, without a shared subnet)."""
        node.ip(
            f"address add 169.254.1.1/32 dev {self.name}",
            f"address add fe80::1/64 dev {self.name} nodad",
            f"link set {self.name} up",
            f"route replace {self.v4}/32 dev {self.name}",
            f"route replace {self.v6}/128 dev {self.name}",
        )
        self.ns.sysctl(SYSCTL_HOST)
        self.ns.ip(
            "link set lo up",
            f"address add {self.v4}/32 dev eth0",
            f"address add {self.v6}/128 dev eth0 nodad",
            "link set eth0 up",
            "route add default via 169.254.1.1 dev eth0 onlink",
            "route add default via fe80::1 dev eth0",
        )

    def serve(self, logs: Path) -> None:
        """Starts the server. It listens within about 50 ms."""
        argv = [sys.executable, "-I", "-S", str(SERVER), self.name, str(HTTP_PORT), str(ECHO_PORT)]
        self.process = Process(self.name, self.ns, argv, logs / f"pod-{self.name}.log")

    def kill(self) -> None:
        """Kills the server. The pod's namespace stays and refuses connections."""
        if self.process is not None:
            self.process.kill()
