"""A segment with many hosts, for a VIP with a separate next hop for each host. The nodes answer the VIP's pings.

A router on the segment is one more host that asks. Its client, on another network, pings through the router.
"""

from __future__ import annotations

import itertools
import re
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Any

from lab.host import Host, outside_nic, segment_nic
from lab.net import SYSCTL_HOST
from lab.process import Process
from porterlb.core.desired import Layer2Vip
from tests.edge.wire_lab import Segment, neighbour

V4, V6 = "10.77.0.100", "fd77::100"
NODES = ("n1", "n2", "n3")
INTERVAL = 0.02  # seconds between two pings
_numbers = itertools.count()  # of log files
_SEQUENCE = re.compile(r"bytes from .* icmp_seq=(\d+)")


def spread_vips(nodes: tuple[str, ...] = NODES) -> Mapping[Any, Layer2Vip]:
    return {ip_address(t): Layer2Vip(ip_address(t), nodes, takers=nodes) for t in (V4, V6)}


@dataclass(frozen=True)
class Lost:
    """Lost pings from one host to one VIP. ``longest``: the longest time without an answer, in seconds."""

    host: str
    vip: str
    count: int
    longest: float


class Crowd:
    """Three nodes with a replica each, ``hosts`` hosts, and ``routers`` routers, each with a client behind it.

    ``settings``: of the replicas. `hosts` are all hosts that ask, including the routers.
    """

    def __init__(self, hosts: int, routers: int = 0, **settings: Any) -> None:
        self.segment = Segment()
        try:
            self.hosts = [Host(self.segment.net, f"h{i}", [segment_nic(100 + i)]) for i in range(1, hosts + 1)]
            self.clients: dict[str, Host] = {}
            for i in range(1, routers + 1):
                self._add_router(i)
            machines = [*self.hosts, *self.clients.values()]
            self.segment.net.plug([cable for host in machines for cable in host.cables()])
            for host in machines:
                host.configure()
            for router in self.hosts[hosts:]:
                self._route_through(router)
            for node in self.segment.nodes:
                node.ns.ip(f"address add {V4}/32 dev lo", f"address add {V6}/128 dev lo")
                # Like strictARP of kube-proxy: an ARP request with the VIP as its sender would move every host.
                node.ns.sysctl({"net/ipv4/conf/all/arp_ignore": 1, "net/ipv4/conf/all/arp_announce": 2})
            self.segment.tell(vips=spread_vips())
            self.segment.start(**settings)
            self.segment.settled()
        except BaseException:
            self.segment.close()
            raise

    def _add_router(self, number: int) -> None:
        net, inside = self.segment.net, outside_nic(number, "eth1")
        forwards = {**SYSCTL_HOST, "net/ipv4/ip_forward": 1, "net/ipv6/conf/all/forwarding": 1}
        router = Host(net, f"r{number}", [segment_nic(200 + number), inside], sysctl=forwards)
        self.hosts.append(router)
        self.clients[router.name] = Host(net, f"c{number}", [outside_nic(100 + number)], gateway=inside)

    def _route_through(self, router: Host) -> None:
        """The nodes send answers for a router's client back through that router."""
        client = self.clients[router.name]
        for node in self.segment.nodes:
            node.ns.ip(f"route add {client.v4} via {router.v4}", f"route add {client.v6} via {router.v6}")

    def close(self) -> None:
        self.segment.close()

    def resolve(self) -> None:
        """Every host asks for both VIPs at the same time."""
        started = [
            host.start(f"ask-{next(_numbers)}", ["ping", "-c", "1", "-W", "2", "-n", vip])
            for host in self.hosts
            for vip in (V4, V6)
        ]
        for process in started:
            process.wait(10.0)
            process.close()

    def forget(self) -> None:
        """Every host loses its neighbor entries."""
        for host in self.hosts:
            host.ns.ip("neigh flush dev eth0")

    def entries(self, vip: str) -> dict[str, str]:
        """The node in each host's neighbor entry; empty: the host has no entry."""
        names = {node.mac: node.name for node in self.segment.nodes}
        return {host.name: names.get(neighbour(host, vip)[0], "") for host in self.hosts}

    def shares(self, vip: str) -> dict[str, int]:
        counts = Counter(self.entries(vip).values())
        return {node: counts[node] for node in NODES}

    def wait_known(self, count: int | None = None, patience: float = 5.0) -> None:
        """Waits until every replica knows all hosts of both VIPs."""
        wanted = len(self.hosts) if count is None else count
        for replica in self.segment.replicas.values():
            replica.until(
                lambda r: all(sum(r.report.askers.get(ip_address(vip), {}).values()) >= wanted for vip in (V4, V6)),
                f"{wanted} hosts are known",
                patience,
            )

    def ping(self, seconds: float) -> Pings:
        return Pings({host.name: self.clients.get(host.name, host) for host in self.hosts}, seconds)


class Pings:
    """Every host, or the client behind it, pings both VIPs at each INTERVAL; `lost` waits for the end.

    ``pinging``: the source of the pings, by the name of the host that asks for the VIPs.
    """

    def __init__(self, pinging: Mapping[str, Host], seconds: float) -> None:
        self.count = round(seconds / INTERVAL)
        argv = ["ping", "-n", "-i", str(INTERVAL), "-c", str(self.count), "-W", "1"]
        self._running: list[tuple[str, str, Process]] = [
            (name, vip, host.start(f"ping-{next(_numbers)}", [*argv, vip]))
            for name, host in pinging.items()
            for vip in (V4, V6)
        ]
        self.begun = time.monotonic()

    def lost(self) -> list[Lost]:
        found = []
        for host, vip, process in self._running:
            process.wait(20.0)
            heard = {int(number) for number in _SEQUENCE.findall(process.log.read_text())}
            process.close()
            longest = run = 0
            for number in range(1, self.count + 1):
                run = 0 if number in heard else run + 1
                longest = max(longest, run)
            found.append(Lost(host, vip, self.count - len(heard), longest * INTERVAL))
        return found
