"""kube-proxy's function in the lab: translates a VIP and port to a pod's address, by nftables on each node.

externalTrafficPolicy Local: only pods of the node itself; the client's address is kept; without a pod: dropped.
Cluster: any ready pod; the node replaces the client's address with its own, which makes replies return through it. One
transaction per change. A node without the API keeps its rules. A node that boots starts without rules.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from ipaddress import ip_address

from lab.netns import LabError
from lab.node import Node

TABLE = "inet lab-proxy"
MASQUERADE = 0x4000  # the mark that kube-proxy also uses


@dataclass(frozen=True, order=True)
class Endpoint:
    """One pod's port."""

    address: str
    port: int
    node: str


@dataclass(frozen=True, order=True)
class VipPort:
    """One port of one VIP and the ready pods behind it. `protocol` is TCP or UDP, `policy` Local or Cluster."""

    vip: str
    port: int
    protocol: str
    policy: str
    endpoints: tuple[Endpoint, ...]

    @property
    def family(self) -> str:
        return "ip6" if ":" in self.vip else "ip"

    def usable_on(self, node: str) -> tuple[Endpoint, ...]:
        """The pods to which a request that arrives at `node` may be forwarded."""
        return tuple(e for e in self.endpoints if self.policy != "Local" or e.node == node)


def ruleset(node: str, v4: str, v6: str, wanted: Iterable[VipPort]) -> str:
    """The complete nftables table of one node, which replaces the previous one. `v4`, `v6`: the node's addresses."""
    chains: list[str] = []
    verdicts: dict[str, list[str]] = {"ip": [], "ip6": []}
    drops: dict[str, list[str]] = {"ip": [], "ip6": []}
    for number, item in enumerate(sorted(wanted)):
        key = f"{item.vip} . {item.protocol.lower()} . {item.port}"
        pods = item.usable_on(node)
        if not pods:
            drops[item.family].append(f"{key} : drop")
            continue
        mark = "" if item.policy == "Local" else f"meta mark set {MASQUERADE} ; "
        choice = ", ".join(f"{i} : {pod.address} . {pod.port}" for i, pod in enumerate(pods))
        dnat = f"meta l4proto {item.protocol.lower()} dnat {item.family} addr . port to"
        chains.append(f" chain s{number} {{ {mark}{dnat} numgen random mod {len(pods)} map {{ {choice} }} ; }}")
        verdicts[item.family].append(f"{key} : goto s{number}")
    lines = [f"add table {TABLE}", f"delete table {TABLE}", f"table {TABLE} {{", *chains]
    for name, source in (("go", verdicts), ("none", drops)):
        for family, kind in (("ip", "ipv4_addr"), ("ip6", "ipv6_addr")):
            elements = f" elements = {{ {', '.join(source[family])} }} ;" if source[family] else ""
            lines.append(f" map {name}-{family} {{ type {kind} . inet_proto . inet_service : verdict ;{elements} }}")
    look = {
        name: f"ip daddr . meta l4proto . th dport vmap @{name}-ip ; "
        f"ip6 daddr . meta l4proto . th dport vmap @{name}-ip6 ;"
        for name in ("go", "none")
    }
    lines += [
        f" chain nobody {{ type filter hook prerouting priority -110 ; {look['none']} }}",
        f" chain in {{ type nat hook prerouting priority dstnat ; {look['go']} }}",
        f" chain own {{ type nat hook output priority -100 ; {look['go']} }}",
        " chain out { type nat hook postrouting priority srcnat ; "
        f"meta nfproto ipv4 meta mark {MASQUERADE} snat ip to {v4} ; "
        f"meta nfproto ipv6 meta mark {MASQUERADE} snat ip6 to {v6} ; }}",
        "}",
    ]
    return "\n".join(lines) + "\n"


def stale_udp(before: Iterable[VipPort], after: Iterable[VipPort], node: str) -> list[list[str]]:
    """``conntrack -D`` arguments for UDP flows that would still go to a removed pod, or to none although a pod exists.

    A UDP flow has no end: a flow that never pauses keeps its translation. kube-proxy cleans up in the same way.
    """
    old = {(i.vip, i.port): i.usable_on(node) for i in before if i.protocol == "UDP"}
    new = {(i.vip, i.port): i.usable_on(node) for i in after if i.protocol == "UDP"}
    commands = []
    for vip, port in sorted(old.keys() | new.keys()):
        had, has = old.get((vip, port), ()), new.get((vip, port), ())
        family = "ipv6" if ip_address(vip).version == 6 else "ipv4"
        flow = ["-f", family, "-p", "udp", "--orig-dst", vip, "--dport", str(port)]
        if not had and has:
            commands.append(flow)
        commands += [[*flow, "--reply-src", pod.address] for pod in had if pod not in has]
    return commands


class Proxy:
    """Keeps the rules of all nodes equal to `desired`, checking every `interval` seconds on a separate thread.

    Args:
        desired: returns the wanted rules. If it raises LabError or OSError, nothing changes.
        reachable: whether a node, by name, has the API; a node without it keeps its rules.
    """

    def __init__(
        self,
        nodes: list[Node],
        desired: Callable[[], list[VipPort]],
        reachable: Callable[[str], bool],
        interval: float = 0.05,
    ) -> None:
        self.nodes = nodes
        self.desired = desired
        self.reachable = reachable
        self.interval = interval
        self.failure = ""  # the last error of the thread, for debugging
        self._applied: dict[str, tuple[VipPort, ...]] = {}
        self._lock = threading.RLock()
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._run, name="lab-proxy", daemon=True)
        for node in nodes:
            node.on_boot.append(lambda node=node: self._booted(node))  # type: ignore[misc]

    def start(self) -> None:
        self._thread.start()

    def close(self) -> None:
        self._end.set()
        if self._thread.is_alive():
            self._thread.join(10.0)

    def sync(self) -> None:
        """Updates all nodes now, instead of at the next check."""
        with self._lock:
            wanted = tuple(sorted(self.desired()))
            for node in self.nodes:
                if node.on and self.reachable(node.name):
                    self._apply(node, wanted)

    def applied(self, node: str) -> tuple[VipPort, ...]:
        """The current rules of a node."""
        return self._applied.get(node, ())

    def _apply(self, node: Node, wanted: tuple[VipPort, ...]) -> None:
        before = self._applied.get(node.name)
        if before == wanted:
            return
        node.ns.nft(ruleset(node.name, node.v4, node.v6, wanted))
        for flow in stale_udp(before or (), wanted, node.name):
            node.run(["conntrack", "-D", *flow], check=False)  # fails if no flow matches, which is acceptable
        self._applied[node.name] = wanted

    def _booted(self, node: Node) -> None:
        with self._lock:
            self._applied.pop(node.name, None)
            if self.reachable(node.name):
                self._apply(node, tuple(sorted(self.desired())))

    def _run(self) -> None:
        while not self._end.wait(self.interval):
            try:
                self.sync()
                self.failure = ""
            except (LabError, OSError, ValueError) as error:  # e.g. a node is powered off in the meantime
                self.failure = str(error)
