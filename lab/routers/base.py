"""The interface of every router of the lab, and the options of its sessions.

A router is one real daemon in a namespace with several cards, usually two: eth0 in the nodes' subnet and eth1 on the
network behind it (`lab.topology`).
"""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from ipaddress import ip_address
from pathlib import Path
from typing import Any

from lab.host import Host, Nic
from lab.measure import wait_equal, wait_until
from lab.net import SYSCTL_FORWARD, Net
from lab.netns import LabError
from lab.process import Process

ROUTER_AS = 64500
NODES_AS = 64512


@dataclass(frozen=True)
class Session:
    """One BGP session of the router with one node or another router.

    Args:
        node: the neighbor's name; only for names in the daemon's configuration and in `sessions()`.
        address: the node's address; its family is the family of the session's TCP connection.
        families: the exchanged families: v4, v6 or both.
        asn: the node's AS; if it equals the router's, the session is iBGP.
        add_path: the router accepts several paths of one prefix from this neighbor (RFC 7911).
        password: for TCP MD5 (RFC 2385); empty for none.
        multihop: TTL for eBGP with neighbors that are not directly connected; 0 for directly connected.
        passive: the router waits for the node; False: it also connects, to `port` of the node.
        hold: hold time in seconds.
        keepalive: seconds; 0 for a third of the hold time.
        port: TCP port on which the node listens, for routers that connect.
        graceful_restart: keep the routes of a neighbor that announced graceful restart and whose session ended (RFC
            4724).
        bfd: milliseconds between BFD packets, of which three may be missing (RFC 5881); 0: no BFD.
        ttl_security: packets of the node with a TTL below 255 are discarded (RFC 5082).
        transit: the neighbor is another router, and also gets the routes of all other neighbors.
        interface: the router's interface to the node, for a link-local address; with an empty `address`, the router
            discovers the node there by itself (FRR: an unnumbered session).
        extended: the router accepts IPv6 next hops for IPv4 routes (RFC 8950).
    """

    node: str
    address: str
    families: tuple[str, ...] = ("v4",)
    asn: int = NODES_AS
    add_path: bool = True
    password: str = ""
    multihop: int = 0
    passive: bool = True
    hold: int = 9
    keepalive: int = 0
    port: int = 179
    graceful_restart: bool = True
    bfd: int = 0
    ttl_security: bool = False
    transit: bool = False
    interface: str = ""
    extended: bool = False

    @property
    def over_v6(self) -> bool:
        return ":" in self.address or not self.address

    @property
    def peer(self) -> str:
        """The name of the session in FRR: the address, or the interface if it has none."""
        return self.address or self.interface

    @property
    def label(self) -> str:
        """An identifier for configuration files, e.g. node_a_v4."""
        return f"{self.node.replace('-', '_')}_{'v6' if self.over_v6 else 'v4'}"

    @property
    def keepalive_seconds(self) -> int:
        return self.keepalive or max(1, self.hold // 3)


@dataclass(frozen=True)
class RouterConfig:
    """The configuration of a router's daemon.

    Args:
        sessions: see `Session`.
        asn: the router's AS.
        port: TCP port that it listens on.
        max_paths: maximum number of equal next hops in the kernel.
        injected: prefixes that it announces.
    """

    sessions: tuple[Session, ...] = ()
    asn: int = ROUTER_AS
    port: int = 179
    max_paths: int = 16
    injected: tuple[str, ...] = ()


@dataclass(frozen=True)
class RibPath:
    """One path of a prefix in the router's RIB.

    Communities are "64500:1", large communities "64500:1:2". `path_id` is 0 if the router does not report it.
    `neighbor` is the address of the peer that it was learned from. `stale`: kept by graceful restart (RFC 4724)
    although its session is down. BIRD keeps such paths too, but does not report this: there, it is False.
    """

    next_hop: str
    neighbor: str = ""
    as_path: tuple[int, ...] = ()
    local_pref: int | None = None
    med: int | None = None
    communities: frozenset[str] = frozenset()
    large_communities: frozenset[str] = frozenset()
    path_id: int = 0
    stale: bool = False
    extra: dict[str, str] = field(default_factory=dict, compare=False)


@dataclass(frozen=True)
class SessionState:
    """A session as reported by the router: `state` is Established, Idle, Active, Connect, OpenSent or OpenConfirm."""

    neighbor: str
    state: str
    detail: str = ""

    @property
    def established(self) -> bool:
        return self.state == "Established"


class Router(Host, ABC):
    """A router. Subclasses define how their daemon is configured, started and queried."""

    kind = ""
    programs_kernel = True  # learned routes are installed in the kernel, and packets follow them
    takes_passwords = True  # accepts connections with TCP MD5 (RFC 2385)

    def __init__(
        self, net: Net, name: str, nics: Iterable[Nic], config: RouterConfig, routes: Iterable[str] = ()
    ) -> None:
        """`routes`: static routes of its kernel, in the syntax of ``ip route add``."""
        super().__init__(net, name, nics, None, SYSCTL_FORWARD)
        self.static = tuple(routes)
        self.config = config
        self.process: Process | None = None
        self.files = net.folder / self.name

    # For subclasses

    @abstractmethod
    def write_config(self) -> None:
        """Writes `self.config` as the daemon's file(s) below `self.files`."""

    @abstractmethod
    def launch(self) -> Process:
        """Starts the daemon (or the one that speaks BGP, if there are several)."""

    @abstractmethod
    def ready(self) -> bool:
        """Whether the daemon answers queries."""

    @abstractmethod
    def reload(self) -> None:
        """Makes the daemon load `self.config`, already written, without affecting unchanged sessions."""

    @abstractmethod
    def paths(self, family: str) -> dict[str, list[RibPath]]:
        """The RIB of one family (v4 or v6): every path learned by BGP."""

    @abstractmethod
    def sessions(self) -> dict[str, SessionState]:
        """The state of each session, by the neighbor's address."""

    @abstractmethod
    def shutdown_session(self, neighbor: str, message: str = "") -> None:
        """Shuts one session down administratively, with the message of RFC 9003 in the Cease."""

    @abstractmethod
    def enable_session(self, neighbor: str) -> None:
        """Undoes `shutdown_session`."""

    def bfd_states(self) -> dict[str, str]:
        """The state of each BFD session (up, down, init or admindown), by the neighbor's address."""
        raise LabError(f"{self.kind} has no BFD here")

    # Common to all

    def configure(self) -> None:
        super().configure()
        self.ns.ip(*(f"route add {route}" for route in self.static))

    def own_address(self, neighbor: str) -> str:
        """The router's address in the subnet that it shares with a neighbor; the address of its first card if there is
        none."""
        family = "v6" if ":" in neighbor else "v4"
        shared = (nic for nic in self.nics if ip_address(neighbor) in nic.network(family))
        return str(getattr(next(shared, self.nics[0]), family))

    def start_daemon(self) -> None:
        """Starts the daemon and waits until it answers."""
        self.files.mkdir(parents=True, exist_ok=True)
        self.files.chmod(0o755)
        self.write_config()
        self.process = self.launch()

        def answers() -> bool:
            if self.process is not None and not self.process.alive:
                raise LabError(f"{self.kind} ended with {self.process.returncode}: {self.process.output()[-2000:]}")
            return self.ready()

        wait_until(answers, 10.0, f"{self.name} ({self.kind}) to answer", interval=0.01)

    def stop_daemon(self) -> None:
        """Sends SIGTERM, as in an orderly end of the service: sessions are closed with a Cease."""
        if self.process is not None:
            self.process.terminate()

    def kill_daemon(self) -> None:
        """Sends SIGKILL: the kernel closes the connections, and no BGP message is sent."""
        if self.process is not None:
            self.process.kill()

    def pause(self) -> None:
        """Sends SIGSTOP to the daemon: connections stay open and silent until the hold time expires."""
        if self.process is not None:
            self.process.stop()

    def resume(self) -> None:
        if self.process is not None:
            self.process.cont()

    def reconfigure(self, config: RouterConfig) -> None:
        """Changes the options at run time."""
        self.config = config
        self.write_config()
        self.reload()

    def inject(self, *prefixes: str) -> None:
        """Announces these prefixes to the nodes, in addition to the prefixes injected before."""
        merged = tuple(dict.fromkeys((*self.config.injected, *prefixes)))
        self.reconfigure(replace(self.config, injected=merged))

    def uninject(self, *prefixes: str) -> None:
        left = tuple(p for p in self.config.injected if p not in prefixes)
        self.reconfigure(replace(self.config, injected=left))

    def routes(self, family: str = "both") -> dict[str, frozenset[str]]:
        """Prefix -> next hops, learned by BGP. `family` is v4, v6 or both."""
        found: dict[str, frozenset[str]] = {}
        for one in ("v4", "v6") if family == "both" else (family,):
            for prefix, paths in self.paths(one).items():
                found[prefix] = frozenset(path.next_hop for path in paths)
        return found

    def route_details(self, prefix: str) -> list[RibPath]:
        """Every path of one prefix with its attributes; empty if the router has none."""
        return self.paths("v6" if ":" in prefix else "v4").get(prefix, [])

    def kernel_routes(self, family: str = "both") -> dict[str, frozenset[str]]:
        """Prefix -> next hops in the kernel's table, as installed by the daemon. Packets follow these."""
        found: dict[str, frozenset[str]] = {}
        flags = {"v4": ["-4"], "v6": ["-6"]}
        for one in ("v4", "v6") if family == "both" else (family,):
            for route in _kernel_table(self, flags[one]):
                prefix = _full_prefix(route["dst"])
                hops = [_gateway(hop) for hop in route.get("nexthops", [])] or [_gateway(route)]
                found[prefix] = found.get(prefix, frozenset()) | {hop for hop in hops if hop}
        return found

    def next_hops(self) -> dict[str, frozenset[str]]:
        """The table to check for this router: the kernel's table if the router programs one, otherwise its RIB."""
        return self.kernel_routes() if self.programs_kernel else self.routes()

    def established(self) -> set[str]:
        """Addresses of the neighbors whose session is up."""
        return {address for address, state in self.sessions().items() if state.established}

    def wait_established(self, neighbors: Iterable[str], timeout: float = 15.0) -> float:
        """Waits until exactly these sessions are up. Returns the elapsed seconds."""
        wanted = set(neighbors)
        return wait_equal(self.established, wanted, timeout, f"the sessions of {self.name}")

    def block_bgp(self) -> None:
        """Silently drops all TCP packets of BGP on this router, in both directions."""
        ports = f"{{ 179, {self.config.port} }}" if self.config.port != 179 else "179"
        drop = f"tcp dport {ports} counter drop ; tcp sport {ports} counter drop ;"
        self.ns.nft(
            "add table inet lab-block\ndelete table inet lab-block\ntable inet lab-block {\n"
            f" chain in {{ type filter hook input priority 0 ; {drop} }}\n"
            f" chain out {{ type filter hook output priority 0 ; {drop} }}\n}}\n"
        )

    def unblock_bgp(self) -> None:
        self.ns.nft("add table inet lab-block\ndelete table inet lab-block\n")


def _gateway(route: dict[str, Any]) -> str | None:
    """The next hop of a route. For an IPv4 route, it may be an IPv6 address (``via inet6``)."""
    found = route.get("gateway") or (route.get("via") or {}).get("host")
    return str(found) if found else None


def _full_prefix(destination: str) -> str:
    if "/" in destination:
        return destination
    return f"{destination}/128" if ":" in destination else f"{destination}/32"


def _kernel_table(router: Router, flags: list[str]) -> list[dict[str, Any]]:
    # `ip` shows the numbers of these protocols: 12 bird, 186 bgp (FRR). "kernel" and "boot" are not the daemon's.
    rows: list[dict[str, Any]] = json.loads(router.run(["ip", "-j", *flags, "route", "show"]).stdout or "[]")
    ours = {"bird", "bgp", "zebra", "12", "186", "11"}
    return [row for row in rows if str(row.get("protocol")) in ours and row["dst"] != "default"]


def config_file(router: Router, name: str, text: str) -> Path:
    """Writes a configuration file atomically and readable for a daemon of another user."""
    path = router.files / name
    fresh = path.with_name(name + ".new")
    fresh.write_text(text)
    fresh.chmod(0o644)
    fresh.rename(path)
    return path
