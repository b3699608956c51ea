"""What the node allows now: local addresses, routes to peers, ports that other processes use, capabilities."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from ipaddress import IPv4Address, IPv6Address, ip_address
from pathlib import Path

from porterlb.capabilities import Capability, has
from porterlb.core.bgp.config import Config, Listener, Local
from porterlb.core.bgp.rules import BGP_PORT
from porterlb.core.desired import DesiredBgp
from porterlb.core.model import Address
from porterlb.core.scope import scope_of
from porterlb.interface_address import interface_address

_LISTEN = "0A"  # TCP_LISTEN (linux/tcp_states.h)
_FIRST_PORT = Path("/proc/sys/net/ipv4/ip_unprivileged_port_start")


def look(desired: DesiredBgp, loaded: Config | None) -> Local:
    """``loaded``: the configuration of a running ExaBGP: its own listeners are left out. Sends nothing."""
    sessions = [session for session in desired.sessions.values() if not session.admin_down]
    listening = bool(desired.listen_port)
    free = [s for s in sessions if s.local_address is None and not s.interface and not scope_of(s.address)]
    sources = {s.address: source_address(s.address) for s in free} if listening else {}
    own = loaded.listeners if loaded is not None else frozenset()
    return Local(
        sources=sources,
        absent=frozenset(s.local_address for s in sessions if s.local_address and not is_present(s.local_address)),
        interfaces={
            (s.interface, s.address.version): interface_address(s.interface, s.address.version)
            for s in sessions
            if s.interface
        },
        link_local={
            scope: interface_address(scope, 6, link_local=True) for s in sessions if (scope := scope_of(s.address))
        },
        listeners=frozenset(listeners()) - own if listening else frozenset(),
        first_port=_first_port() if listening else 1,
    )


def source_address(peer: Address) -> Address | None:
    """The local address that the kernel would use towards a peer; None without a route."""
    with socket.socket(_family(peer), socket.SOCK_DGRAM) as probe:
        try:
            probe.connect((str(peer), BGP_PORT))
            return ip_address(str(probe.getsockname()[0]).partition("%")[0])
        except OSError:
            return None


def is_present(address: Address) -> bool:
    """Whether the node has the address."""
    with socket.socket(_family(address), socket.SOCK_DGRAM) as probe:
        try:
            probe.bind((str(address), 0))
        except OSError:
            return False
    return True


def listeners() -> Iterator[Listener]:
    """The addresses and TCP ports that processes in this network namespace listen on (proc(5), /proc/net/tcp)."""
    for name in ("tcp", "tcp6"):
        try:
            lines = Path(f"/proc/thread-self/net/{name}").read_text(encoding="ascii").splitlines()[1:]
        except OSError:
            continue
        for line in lines:
            fields = line.split()
            if len(fields) > 3 and fields[3] == _LISTEN:
                address, _, port = fields[1].partition(":")
                yield _address(bytes.fromhex(address)), int(port, 16)


def _address(words: bytes) -> Address:
    # Each 32-bit word is printed in the byte order of this machine: little-endian on all that we support.
    octets = b"".join(words[at : at + 4][::-1] for at in range(0, len(words), 4))
    if len(octets) == 4:
        return IPv4Address(octets)
    address = IPv6Address(octets)
    return address.ipv4_mapped or address


def _first_port() -> int:
    if has(Capability.NET_BIND_SERVICE):
        return 1
    try:
        return int(_FIRST_PORT.read_text(encoding="ascii"))
    except (OSError, ValueError):
        return 1024


def _family(address: Address) -> socket.AddressFamily:
    return socket.AF_INET if address.version == 4 else socket.AF_INET6
