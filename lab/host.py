"""A machine of the lab: a namespace with cables to the switch, addresses, and processes."""

from __future__ import annotations

import http.client
import json
import socket
import subprocess
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network, ip_network
from pathlib import Path

from lab.net import OUTSIDE, SECOND, SEGMENT, SYSCTL_HOST, Cable, Net
from lab.netns import LabError
from lab.process import Process


@dataclass(frozen=True)
class Nic:
    """A network interface card and its addresses (/24, /64). `bridge` is its bridge on the switch, e.g. segment or
    outside."""

    name: str
    bridge: str
    mac: str
    v4: str
    v6: str

    def network(self, family: str) -> IPv4Network | IPv6Network:
        """The subnet of the card's address of one family (v4 or v6)."""
        return ip_network(f"{self.v4}/24" if family == "v4" else f"{self.v6}/64", strict=False)


def segment_nic(number: int, name: str = "eth0") -> Nic:
    """The card of machine `number` (1 to 254) on the segment: 10.77.0.N/24, fd77::N/64 (decimal digits in both)."""
    return Nic(name, SEGMENT, f"02:77:00:00:00:{number:02x}", f"10.77.0.{number}", f"fd77::{number}")


def second_nic(number: int, name: str = "eth1") -> Nic:
    """The card of machine `number` on the second segment: 10.79.0.N/24, fd79::N/64."""
    return Nic(name, SECOND, f"02:79:00:00:00:{number:02x}", f"10.79.0.{number}", f"fd79::{number}")


def outside_nic(number: int, name: str = "eth0") -> Nic:
    """The card of machine `number` on the outside network: 10.88.0.N/24, fd88::N/64."""
    return Nic(name, OUTSIDE, f"02:88:00:00:00:{number:02x}", f"10.88.0.{number}", f"fd88::{number}")


class Host:
    """A machine: created by `Net.plug(host.cables())` and then `configure`.

    Args:
        nics: its cards; `v4`, `v6` and `mac` are those of the first one.
        gateway: the Nic of its default router, if it has one.
        sysctl: kernel settings.
    """

    def __init__(
        self,
        net: Net,
        name: str,
        nics: Iterable[Nic],
        gateway: Nic | None = None,
        sysctl: Mapping[str, str | int] = SYSCTL_HOST,
    ) -> None:
        self.net = net
        self.name = name
        self.nics = list(nics)
        self.gateway = gateway
        self.ns = net.namespace(name)
        self.processes: list[Process] = []
        self._sysctl = sysctl

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.name})"

    @property
    def v4(self) -> str:
        return self.nics[0].v4

    @property
    def v6(self) -> str:
        return self.nics[0].v6

    @property
    def mac(self) -> str:
        return self.nics[0].mac

    def port(self, nic: Nic) -> str:
        """The name of the switch's end of a card's cable (at most 15 characters, a kernel limit)."""
        return self.name if nic is self.nics[0] else f"{self.name}-{nic.name}"

    def cables(self) -> list[Cable]:
        return [(self.ns, nic.name, nic.mac, self.port(nic), nic.bridge) for nic in self.nics]

    def configure(self) -> None:
        """Gives the new namespace its settings, addresses and default routes."""
        self.ns.sysctl(self._sysctl)
        lines = ["link set lo up"]
        for nic in self.nics:
            lines += [
                f"address add {nic.v4}/24 dev {nic.name}",
                f"address add {nic.v6}/64 dev {nic.name} nodad",
                f"link set {nic.name} up",
            ]
        self.ns.ip(*lines, *self.gateway_routes())

    def gateway_routes(self) -> list[str]:
        if self.gateway is None:
            return []
        return [f"route replace default via {self.gateway.v4}", f"route replace default via {self.gateway.v6}"]

    def use_gateway(self, gateway: Nic) -> None:
        """Changes the default router, in both families."""
        self.gateway = gateway
        self.ns.ip(*self.gateway_routes())

    # Processes

    def run(
        self, argv: list[str], stdin: str | None = None, check: bool = True, timeout: float = 30.0
    ) -> subprocess.CompletedProcess[str]:
        """Runs a short command on the machine and waits for it. With `check`, raises LabError with its output if it
        fails."""
        return self.ns.run(argv, stdin, check, timeout)

    def start(
        self,
        name: str,
        argv: list[str],
        env: Mapping[str, str] | None = None,
        pipes: bool = False,
        cwd: Path | None = None,
    ) -> Process:
        """Starts a long-running command on the machine. Its log is in the lab's folder, below logs/."""
        log = self.net.folder / "logs" / f"{self.name}-{name}.log"
        process = Process(f"{self.name}/{name}", self.ns, argv, log, env=env, pipes=pipes, cwd=cwd)
        self.processes = [other for other in self.processes if other.alive] + [process]
        return process

    def kill(self, process: Process) -> None:
        process.kill()

    def stop(self, process: Process) -> None:
        process.stop()

    def cont(self, process: Process) -> None:
        process.cont()

    # Cables

    def cut_link(self, nic: Nic | None = None) -> None:
        """Disconnects the cable: no carrier on either end, and no frame passes."""
        self.net.carrier(self.port(nic or self.nics[0]), False)

    def restore_link(self, nic: Nic | None = None) -> None:
        self.net.carrier(self.port(nic or self.nics[0]), True)

    def partition(self, *others: Host) -> None:
        """The switch drops all frames between this machine and the others (default: all), in both directions. Carriers
        stay up: unlike with `cut_link`, no machine detects it directly."""
        self.net.partition([self.name], [other.name for other in others])

    def heal(self, *others: Host) -> None:
        """Undoes `partition` from these machines; from all if none are named."""
        self.net.heal([self.name], [other.name for other in others])

    def isolate(self) -> None:
        """The switch drops every frame from or to any of the machine's cards. Carriers stay up: no machine detects it
        directly."""
        self.net.partition([self.port(nic) for nic in self.nics])

    def rejoin(self) -> None:
        """Undoes `isolate`."""
        self.net.heal([self.port(nic) for nic in self.nics])

    # Requests from this machine

    def http(self, host: str, port: int, path: str = "/", timeout: float = 2.0) -> tuple[int, str]:
        """(status, body) of one HTTP GET from this machine. Raises LabError if there is no answer in time."""

        def fetch() -> tuple[int, str]:
            connection = http.client.HTTPConnection(host, port, timeout=timeout)
            try:
                connection.request("GET", path)
                response = connection.getresponse()
                return response.status, response.read().decode()
            except (OSError, http.client.HTTPException) as error:
                raise LabError(f"GET {host}:{port}{path} from {self.name}: {error!r}") from None
            finally:
                connection.close()

        return self.ns.call(fetch)

    def http_get(self, vip: str, port: int = 80, timeout: float = 2.0) -> str:
        """The name of the pod that answers an HTTP request to the VIP."""
        return self.http(vip, port, "/", timeout)[1].strip()

    def neighbours(self) -> dict[str, str]:
        """The neighbor table: address -> MAC, without entries that have no MAC (incomplete, failed)."""
        entries = json.loads(self.run(["ip", "-j", "neigh"]).stdout or "[]")
        return {entry["dst"]: entry["lladdr"] for entry in entries if "lladdr" in entry}

    def flush_neighbours(self) -> None:
        """Deletes all neighbor entries. The next packet then triggers a new request."""
        self.ns.ip("neigh flush all")

    def socket(self, family: int, kind: int, protocol: int = 0) -> socket.socket:
        """A socket in this machine's namespace, usable by any thread of the lab."""
        return self.ns.call(lambda: socket.socket(family, kind, protocol))
