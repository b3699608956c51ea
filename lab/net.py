"""One run of the lab: its name, its switch, its cables, and their guaranteed removal.

The switch is a separate namespace with a bridge for each network: usually ``segment`` (nodes, routers, one client),
``second`` (the nodes' second NICs, if a lab has them) and ``outside`` (routers, one client). Nothing is created in the
machine's own namespace. A port is named after the connected machine.
"""

from __future__ import annotations

import atexit
import os
import secrets
import signal
import threading
from collections.abc import Iterable
from types import FrameType

from lab import netns, sweep
from lab.netns import LabError, Namespace

SEGMENT = "segment"
SECOND = "second"
OUTSIDE = "outside"

Cable = tuple[Namespace, str, str, str, str]
"""Namespace, interface in it, its MAC, port name on the switch, bridge."""

# Quiet, immediate IPv6 (no duplicate address detection: an address is usable immediately), no reverse path filter
# (replies may take another path than requests), and no redirects (a node forwards on the segment it received from).
SYSCTL_HOST: dict[str, str | int] = {
    "net/ipv4/conf/*/rp_filter": 0,
    "net/ipv4/conf/*/send_redirects": 0,
    "net/ipv6/conf/*/accept_dad": 0,
    "net/ipv6/conf/*/dad_transmits": 0,
    "net/ipv6/conf/*/keep_addr_on_down": 1,
    "net/ipv6/conf/*/accept_ra": 0,
}
SYSCTL_FORWARD: dict[str, str | int] = {
    **SYSCTL_HOST,
    "net/ipv4/ip_forward": 1,
    "net/ipv6/conf/all/forwarding": 1,
    "net/ipv4/fib_multipath_hash_policy": 1,  # also by ports: flows of one client spread over ECMP next hops
    "net/ipv6/fib_multipath_hash_policy": 1,
}

_BRIDGE = "stp_state 0 forward_delay 0"
_SNOOPING = (  # times in hundredths of a second; a querier floods for one response interval when it starts
    "mcast_query_interval 100 mcast_query_response_interval 50 mcast_startup_query_interval 50 "
    "mcast_membership_interval 300 mcast_last_member_interval 20",
    "mcast_snooping 1 mcast_querier 1 mcast_mld_version 2",
)


def _fail_early() -> None:
    if os.geteuid() != 0:
        raise LabError("the lab makes network namespaces: run it as root")


class Net:
    """Namespaces, switch and cables of one run. A context manager; `close` may be called at any time, even twice.

    Args:
        snooping: the segment's switch tracks multicast memberships (MLDv2), as managed switches do, instead of
            flooding. It queries each second, and removes a member after 3 s without an answer: faster than usual.
        bridges: of the switch.
    """

    def __init__(self, snooping: bool = False, bridges: Iterable[str] = (SEGMENT, SECOND, OUTSIDE)) -> None:
        _fail_early()
        sweep.sweep()
        self.id = secrets.token_hex(2)
        while (sweep.STATE / self.id).exists():
            self.id = secrets.token_hex(2)
        self.folder = sweep.claim(self.id)
        self.closed = False
        self._owner = os.getpid()
        self._cut: set[tuple[str, str]] = set()
        self._ports: dict[str, str] = {}  # port -> bridge
        self._old_sigterm: object = None
        atexit.register(self.close)
        self._catch_sigterm()
        try:
            self.switch = self.namespace("switch")
            netns.create([self.switch.name])
            self._build_switch(snooping, list(bridges))
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Net:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def namespace(self, name: str) -> Namespace:
        """The namespace of this run for a machine's name. Does not create it."""
        return Namespace(f"{sweep.PREFIX}{self.id}-{name}")

    def _build_switch(self, snooping: bool, bridges: list[str]) -> None:
        self.switch.sysctl({"net/ipv6/conf/all/disable_ipv6": 1, "net/ipv6/conf/default/disable_ipv6": 1})
        self.switch.ip(*(f"link add {bridge} type bridge {_BRIDGE} mcast_snooping 0" for bridge in bridges))
        if snooping:
            # An MLD querier needs an address; without a querier, a Linux bridge floods.
            self.switch.sysctl({f"net/ipv6/conf/{SEGMENT}/disable_ipv6": 0, f"net/ipv6/conf/{SEGMENT}/accept_dad": 0})
            self.switch.ip(*(f"link set {SEGMENT} type bridge {options}" for options in _SNOOPING))
        self.switch.ip(*(f"link set {bridge} up" for bridge in bridges))
        self.switch.nft(
            "table bridge lab {\n"
            " set cut { type ifname . ifname; }\n"
            " chain forward { type filter hook forward priority 0; iifname . oifname @cut counter drop; }\n"
            "}\n"
        )

    def plug(self, cables: Iterable[Cable]) -> None:
        """Creates the machines' namespaces and their cables to the switch, all at once.

        Args:
            cables: a namespace that does not exist yet is created.
        """
        cables = list(cables)
        new = dict.fromkeys(ns.name for ns, *_ in cables if not ns.exists)
        netns.create(
            new,
            [
                f"{nic} netns {ns.name} address {mac} type veth peer name {port} netns {self.switch.name}"
                for ns, nic, mac, port, _ in cables
            ],
        )
        self._ports.update({port: bridge for *_, port, bridge in cables})
        self.switch.ip(*(f"link set {port} master {bridge} up" for *_, port, bridge in cables))

    def unplug(self, port: str) -> None:
        """Removes a cable. On return, both ends are gone."""
        self.switch.run(["ip", "link", "del", port], check=False)

    def port_member(self, port: str, on: bool) -> None:
        """Removes a port from its VLAN, or restores it. Its frames are dropped, but both ends keep their carrier."""
        where = f"master {self._ports[port]}" if on else "nomaster"
        self.switch.ip(f"link set {port} {where}")

    def carrier(self, port: str, on: bool) -> None:
        """Cuts or restores a cable: the machine's interface loses or regains its carrier."""
        self.switch.run(["ip", "link", "set", port, "up" if on else "down"])

    def partition(self, one: Iterable[str], other: Iterable[str] = ()) -> None:
        """The switch drops every frame between the ports `one` and `other` (default: all others), in both directions.
        Carriers stay up: no machine detects it directly."""
        one = list(one)
        self._cut |= _pairs(one, list(other) or [port for port in self._ports if port not in one])
        self._write_cut()

    def heal(self, one: Iterable[str] = (), other: Iterable[str] = ()) -> None:
        """Undoes `partition` between these ports; with `one` only, everything about `one`; without ports,
        everything."""
        one, other = set(one), set(other)
        keep = {(a, b) for a, b in self._cut if (one and not {a, b} & one) or (other and not {a, b} & other)}
        self._cut = keep
        self._write_cut()

    def parted(self, one: str, other: str) -> bool:
        """Whether `partition` is active between two ports."""
        return (one, other) in self._cut

    def _write_cut(self) -> None:
        elements = ", ".join(f'"{a}" . "{b}"' for a, b in sorted(self._cut))
        add = f"add element bridge lab cut {{ {elements} }}\n" if elements else ""
        self.switch.nft(f"flush set bridge lab cut\n{add}")

    def close(self) -> None:
        """Removes everything of this run."""
        if self.closed or os.getpid() != self._owner:  # a fork of the owner owns nothing
            return
        self.closed = True
        sweep.remove(self.id)
        atexit.unregister(self.close)
        if self._old_sigterm is not None and threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, signal.SIG_DFL)

    def _catch_sigterm(self) -> None:
        # By default SIGTERM ends Python without any cleanup. An existing handler is left in place.
        if threading.current_thread() is not threading.main_thread():
            return
        if signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
            self._old_sigterm = signal.SIG_DFL
            signal.signal(signal.SIGTERM, _exit_on_sigterm)


def _exit_on_sigterm(_number: int, _frame: FrameType | None) -> None:
    raise SystemExit(143)


def _pairs(one: Iterable[str], other: Iterable[str]) -> set[tuple[str, str]]:
    left, right = list(one), list(other)
    return {pair for a in left for b in right if a != b for pair in ((a, b), (b, a))}
