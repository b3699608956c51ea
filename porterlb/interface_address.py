"""The address of a network interface of this node, without a privilege."""

from __future__ import annotations

import fcntl
import socket
import struct
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path

_SIOCGIFADDR = 0x8915  # netdevice(7)
_NAME = 16  # IFNAMSIZ
_UNUSABLE = 0x40 | 0x08  # IFA_F_TENTATIVE, IFA_F_DADFAILED
_DEPRECATED = 0x20
_GLOBAL, _LINK_LOCAL = 0, 0x20  # the scope of an address in if_inet6; loopback is 0x10


def interface_address(name: str, version: int, *, link_local: bool = False) -> IPv4Address | IPv6Address | None:
    """The first global address of IP version 4 or 6, or the first link-local one of version 6; None without the
    interface or without such an address."""
    return _ipv4(name) if version == 4 else _ipv6(name, _LINK_LOCAL if link_local else _GLOBAL)


def _ipv4(name: str) -> IPv4Address | None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            answer = fcntl.ioctl(probe, _SIOCGIFADDR, struct.pack(f"{_NAME}s24x", name.encode()[: _NAME - 1]))
        except OSError:
            return None
    found = IPv4Address(answer[20:24])
    return None if found.is_loopback else found


def _ipv6(name: str, wanted: int) -> IPv6Address | None:
    try:
        lines = Path("/proc/thread-self/net/if_inet6").read_text(encoding="ascii").splitlines()
    except OSError:
        return None
    found = []
    for line in lines:
        address, _, _, scope, flags, interface = line.split()
        if interface == name and int(scope, 16) == wanted and not int(flags, 16) & _UNUSABLE:
            found.append((bool(int(flags, 16) & _DEPRECATED), IPv6Address(bytes.fromhex(address))))
    return min(found, key=lambda one: one[0])[1] if found else None
