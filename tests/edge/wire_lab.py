"""Replicas on a segment of network namespaces, with real kernels as clients."""

from __future__ import annotations

import contextlib
import sys
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from ipaddress import ip_address, ip_interface
from typing import Any

from lab.faults import Faults
from lab.host import Host, second_nic, segment_nic
from lab.net import SYSCTL_FORWARD, Net
from lab.process import Process
from porterlb.core.desired import DesiredWire, Layer2Vip
from porterlb.core.model import Member
from porterlb.core.observed import Answering, WireReport
from tests.edge import wire_driver

KEY = b"the key of the tests' hellos 123"
PATIENCE = 8.0  # seconds; generous, for busy machines


class Replica:
    """One replica: the driver with its wire process, on a host."""

    def __init__(self, host: Host, key: bytes = KEY, prefix: Iterable[str] = (), **settings: Any) -> None:
        self.host = host
        self.report = WireReport()
        self.answering: dict[str, Answering] = {}
        self.history: list[tuple[float, WireReport]] = []
        self._news = threading.Condition()
        self.ended = False  # told to stop
        argument = wire_driver.pack(({"node": host.name, **settings}, key)).decode().strip()
        self.process = Process(
            f"wire-{host.name}",
            host.ns,
            [*prefix, sys.executable, "-m", "tests.edge.wire_driver", argument],
            host.net.folder / f"wire-{host.name}.log",
            pipes=True,
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        with contextlib.suppress(ValueError):  # closed during the read: the replica has ended
            self._take_reports()

    def _take_reports(self) -> None:
        assert self.process.popen.stdout is not None
        for line in self.process.popen.stdout:
            at, report = wire_driver.unpack(line)
            with self._news:
                self.report = report
                self.history.append((at, report))
                self.answering.update((str(vip), answering) for vip, answering in report.answering.items())
                self._news.notify_all()

    def want(self, wanted: DesiredWire) -> None:
        assert self.process.popen.stdin is not None
        self.process.popen.stdin.write(wire_driver.pack(wanted))
        self.process.popen.stdin.flush()

    def until(self, true: Callable[[Replica], bool], what: str, patience: float = PATIENCE) -> float:
        """Waits for a state of this replica; returns the monotonic time. AssertionError with the observed states."""
        deadline = time.monotonic() + patience
        with self._news:
            while not true(self):
                left = deadline - time.monotonic()
                if left <= 0 or not self._news.wait(left):
                    raise AssertionError(
                        f"{self.host.name}: not within {patience} s: {what}; report {self.report}, "
                        f"answering {dict(list(self.answering.items())[:5])}, log: {self.process.output()[-2000:]}"
                    )
        return time.monotonic()

    def stop(self) -> None:
        """Tells the manager to stop, as SIGTERM does; returns at once."""
        assert self.process.popen.stdin is not None
        self.ended = True
        self.process.popen.stdin.write(b"stop\n")
        self.process.popen.stdin.flush()

    @property
    def wire_pid(self) -> int:
        return self.process.find("porterlb.wire")

    def close(self) -> None:
        self.process.close()


class Segment:
    """Nodes, a router (the nodes' gateway) and a client on one segment. Addresses: 10.77.0.N and fd77::N.

    ``second``: each node has a second NIC, eth1, on another segment (10.79.0.N, fd79::N), with a client.
    """

    def __init__(self, nodes: int = 3, snooping: bool = False, gateway: bool = True, second: bool = False) -> None:
        self.net = Net(snooping=snooping)
        self.faults = Faults(self.net)
        try:
            router = segment_nic(1)
            self.router = Host(self.net, "router", [router])
            self.client = Host(self.net, "client", [segment_nic(200)])
            self.nodes = [
                Host(
                    self.net,
                    f"n{i}",
                    [segment_nic(10 + i), *([second_nic(10 + i)] if second else [])],
                    router if gateway else None,
                    SYSCTL_FORWARD,
                )
                for i in range(1, nodes + 1)
            ]
            hosts = [*self.nodes, self.router, self.client]
            if second:
                self.second_client = Host(self.net, "client2", [second_nic(200)])
                hosts.append(self.second_client)
            self.net.plug([cable for host in hosts for cable in host.cables()])
            for host in hosts:
                host.configure()
        except BaseException:
            self.net.close()
            raise
        self.replicas: dict[str, Replica] = {}
        self.boot = 1
        self.boots: dict[str, int] = {}
        self.wanted = DesiredWire(
            members=self.members(),
            nodes={host.name: (ip_address(host.v4), ip_address(host.v6)) for host in self.nodes},
            leader="n1",
            digest=1,
        )

    def members(self) -> Mapping[str, Member]:
        return {
            host.name: Member(
                host.name,
                host.v4,
                7473,
                self.boots.get(host.name, 1),
                tuple(ip_interface(text) for nic in host.nics for text in (f"{nic.v4}/24", f"{nic.v6}/64")),
            )
            for host in self.nodes
        }

    def start(self, names: Iterable[str] = (), key: bytes = KEY, **settings: Any) -> None:
        """Starts replicas (all by default) and gives them the wanted set."""
        for host in self.nodes:
            if not names or host.name in list(names):
                self.replicas[host.name] = Replica(host, key, **settings)
        self.tell()

    def tell(self, **changes: Any) -> DesiredWire:
        """Changes the wanted set and tells every replica."""
        self.wanted = replace(self.wanted, digest=self.wanted.digest + 1, **changes)
        for replica in self.replicas.values():
            replica.want(self.wanted)
        return self.wanted

    def restore(self, wanted_vips: Mapping[Any, Layer2Vip]) -> None:
        """Heals the segment, starts the stopped replicas, and wants these VIPs; returns once the segment is settled."""
        self.net.heal()
        self.faults.clear()
        for host in self.nodes:
            self.net.carrier(host.name, True)
            host.ns.ip(f"link set eth0 address {host.mac}")
            old = self.replicas.get(host.name)
            if old is None or not old.process.alive or old.ended:
                if old is not None:
                    old.close()
                self.boot += 1
                self.replicas[host.name] = Replica(host)
                self.boots[host.name] = self.boot
            else:
                old.history.clear()
        self.tell(vips=wanted_vips, check=frozenset(), members=self.members())
        self.settled()
        for replica in self.replicas.values():
            replica.until(lambda r: not r.report.dead and not r.report.doubt, "everybody lives")
            replica.history.clear()

    def settled(self) -> None:
        """Waits until every replica has applied the wanted set, answers, and sees all the others as fresh."""
        others = set(self.replicas)
        for name, replica in self.replicas.items():
            replica.until(lambda r: r.report.applied == self.wanted.digest, "the wanted set is applied")
            replica.until(lambda r, n=name: set(r.report.fresh) == others - {n}, "all others are fresh")
            for vip in self.wanted.vips.values():
                replica.until(
                    lambda r, v=str(vip.address): bool(r.answering.get(v) and r.answering[v].answerer),
                    f"{vip.address} is answered",
                )

    def host(self, name: str) -> Host:
        return next(host for host in self.nodes if host.name == name)

    def close(self) -> None:
        for replica in self.replicas.values():
            replica.close()
        self.net.close()


def vips(*rows: tuple[str, tuple[str, ...]], **fields: Any) -> dict[Any, Layer2Vip]:
    """The ``vips`` of a wanted set: (address, candidates) rows."""
    return {ip_address(text): Layer2Vip(ip_address(text), candidates, **fields) for text, candidates in rows}


def neighbour(host: Host, address: str) -> tuple[str, str]:
    """(MAC, state) of the kernel's neighbor entry."""
    text = host.run(["ip", "neigh", "show", address, "dev", host.nics[0].name]).stdout.split()
    return (text[text.index("lladdr") + 1] if "lladdr" in text else "", text[-1] if text else "")


def resolve(host: Host, address: str) -> tuple[str, str]:
    """Makes the kernel ask for an address, as a client does; (MAC, state) of its entry after at most 1 s."""
    host.run(["ping", "-c", "1", "-W", "1", "-q", address], check=False)
    return neighbour(host, address)
