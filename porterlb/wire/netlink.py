"""The network interfaces of this host by rtnetlink (RFC 3549): a table, kept up to date by notifications.

/sys is not used: it shows another network namespace if it was mounted there. Needs no privilege.
"""

from __future__ import annotations

import errno
import socket
import struct
import sys
from collections.abc import Iterator
from dataclasses import replace
from ipaddress import ip_address, ip_interface

from porterlb.core.model import Address, Interface
from porterlb.core.observed import Nic

_NLMSG_ERROR, _NLMSG_DONE = 2, 3
_NEWLINK, _DELLINK, _GETLINK = 16, 17, 18
_NEWADDR, _DELADDR, _GETADDR = 20, 21, 22
_NEWROUTE, _GETROUTE = 24, 26
_GROUPS = 0x1 | 0x10 | 0x100  # links, IPv4 addresses, IPv6 addresses
_REQUEST, _DUMP = 0x1, 0x300
_IFLA_MASTER, _IFLA_LINKINFO, _IFLA_EVENT = 10, 18, 44
_IFLA_INFO_KIND = 1
_PF_BRIDGE = 7  # messages about a port of a bridge, not about the interface
_INSIDE = ("bridge", "openvswitch", "dummy")
"""Kinds of interfaces that may connect only workloads on this node."""
_PORTS_INSIDE = ("veth", "tun")
"""Kinds of bridge ports that lead to a container or a virtual machine. Every other port leads to the network."""
_MOVED = (4, 5)  # NOTIFY_PEERS, IGMP_RESEND: a bond has changed to another cable, a machine to another host
_IFF_UP, _IFF_LOOPBACK, _IFF_LOWER_UP = 0x1, 0x8, 0x10000
_NOT_USABLE = 0x40 | 0x08  # IFA_F_TENTATIVE, IFA_F_DADFAILED
_HEADER = struct.Struct("=IHHII")
_ATTRIBUTE = struct.Struct("=HH")
_BUFFER = 1 << 18
HOST_ADDRESSES = 8
"""Addresses without a subnet (/32, /128) that are kept per interface. Only the node's own address among them matters;
kube-proxy in IPVS mode puts every VIP of the cluster on kube-ipvs0, and each causes a notification."""


def messages(data: bytes) -> Iterator[tuple[int, bytes]]:
    """(type, payload) of each netlink message; stops at the first broken one."""
    at = 0
    while at + _HEADER.size <= len(data):
        length, kind, _, _, _ = _HEADER.unpack_from(data, at)
        if length < _HEADER.size or at + length > len(data):
            return
        yield kind, data[at + _HEADER.size : at + length]
        at += (length + 3) & ~3


def attributes(data: bytes) -> dict[int, bytes]:
    """Route attributes by type; stops at the first broken one."""
    found, at = {}, 0
    while at + 4 <= len(data):
        length, kind = _ATTRIBUTE.unpack_from(data, at)
        if length < 4 or at + length > len(data):
            break
        found[kind & 0x3FFF] = data[at + 4 : at + length]
        at += (length + 3) & ~3
    return found


class NicTable:
    """Every interface with an Ethernet address, by index. ``fileno`` is readable when something has changed.

    ``returned``: the interfaces that got a carrier, or another cable, since the set was last emptied.
    """

    def __init__(self) -> None:
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, 0)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
        self._socket.bind((0, _GROUPS))
        self._socket.setblocking(False)
        self._links: dict[int, Nic] = {}
        self._addresses: dict[int, set[Interface]] = {}
        self._kinds: dict[int, tuple[str, int]] = {}  # by index: kind (empty: physical), and index of the master
        self.returned: set[int] = set()
        self._read_all()

    def fileno(self) -> int:
        return self._socket.fileno()

    def close(self) -> None:
        self._socket.close()

    @property
    def nics(self) -> dict[int, Nic]:
        outward = {master for kind, master in self._kinds.values() if master and kind not in _PORTS_INSIDE}
        return {
            index: replace(
                nic,
                addresses=tuple(sorted(self._addresses.get(index, ()), key=str)),
                inner=self._kinds.get(index, ("", 0))[0] in _INSIDE and index not in outward,
            )
            for index, nic in self._links.items()
        }

    def update(self) -> None:
        """Applies the pending notifications; reads everything again if the kernel says that some were lost."""
        try:
            while True:
                for kind, payload in messages(self._socket.recv(_BUFFER)):
                    self._apply(kind, payload)
        except BlockingIOError:
            return
        except OSError as error:
            if error.errno != errno.ENOBUFS:
                raise
            self._read_all()

    def _read_all(self) -> None:
        links, addresses, kinds = self._links, self._addresses, self._kinds
        self._links, self._addresses, self._kinds = {}, {}, {}
        try:
            for request in (_GETLINK, _GETADDR):
                for kind, payload in _ask(request, _REQUEST | _DUMP, bytes(16)):
                    self._apply(kind, payload)
        except OSError:
            self._links, self._addresses, self._kinds = links, addresses, kinds
            raise

    def _apply(self, kind: int, payload: bytes) -> None:
        if kind in (_NEWLINK, _DELLINK) and len(payload) >= 16:
            if payload[0] == _PF_BRIDGE:  # a port that leaves its bridge is "deleted" as a port only
                return
            index, flags = struct.unpack_from("=iI", payload, 4)
            found = attributes(payload[16:])
            mac, name = found.get(1, b""), found.get(3, b"").rstrip(b"\0").decode(errors="replace")
            if kind == _DELLINK or len(mac) != 6 or flags & _IFF_LOOPBACK:
                self._links.pop(index, None)
                self._kinds.pop(index, None)
                if kind == _DELLINK:
                    self._addresses.pop(index, None)
                return
            info = attributes(found.get(_IFLA_LINKINFO, b"")).get(_IFLA_INFO_KIND, b"")
            master = int.from_bytes(found.get(_IFLA_MASTER, b""), sys.byteorder)
            self._kinds[index] = info.rstrip(b"\0").decode(errors="replace"), master
            up = bool(flags & _IFF_UP and flags & _IFF_LOWER_UP)
            before = self._links.get(index)
            event = int.from_bytes(found.get(_IFLA_EVENT, b""), sys.byteorder)
            if up and (before is None or not before.up or event in _MOVED):
                self.returned.add(index)
            self._links[index] = Nic(name, index, mac, up)
        elif kind in (_NEWADDR, _DELADDR) and len(payload) >= 8:
            prefix, flags, index = payload[1], payload[2], struct.unpack_from("=I", payload, 4)[0]
            found = attributes(payload[8:])
            raw = found.get(2) or found.get(1)  # IFA_LOCAL, IFA_ADDRESS
            if raw is None or len(raw) not in (4, 16):
                return
            address = ip_interface(f"{ip_address(raw)}/{prefix}")
            if kind == _NEWADDR and not flags & _NOT_USABLE:
                known = self._addresses.setdefault(index, set())
                if not _is_host(address) or sum(map(_is_host, known)) < HOST_ADDRESSES:
                    known.add(address)
            else:
                self._addresses.get(index, set()).discard(address)


def _is_host(address: Interface) -> bool:
    return address.network.prefixlen == address.max_prefixlen


def _ask(kind: int, flags: int, body: bytes) -> Iterator[tuple[int, bytes]]:
    """The answers of the kernel to one request. Raises OSError with its error number."""
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, 0) as ask:
        ask.settimeout(1.0)
        ask.bind((0, 0))
        ask.send(_HEADER.pack(_HEADER.size + len(body), kind, flags, 1, 0) + body)
        while True:
            for answer, payload in messages(ask.recv(_BUFFER)):
                if answer == _NLMSG_DONE:
                    return
                if answer == _NLMSG_ERROR:
                    code = struct.unpack_from("=i", payload)[0]
                    raise OSError(-code, "netlink")
                yield answer, payload
                if not flags & _DUMP:
                    return


def route(address: Address) -> tuple[int, Address | None]:
    """Where the kernel would send a packet for ``address``: interface index and gateway. (0, None): nowhere."""
    family = socket.AF_INET if address.version == 4 else socket.AF_INET6
    packed = address.packed
    body = struct.pack("=BBBBBBBBI", family, 8 * len(packed), 0, 0, 0, 0, 0, 0, 0)
    body += _ATTRIBUTE.pack(4 + len(packed), 1) + packed
    try:
        for kind, payload in _ask(_GETROUTE, _REQUEST, body):
            if kind == _NEWROUTE:
                found = attributes(payload[12:])
                gateway = found.get(5)
                index = struct.unpack("=I", found[4])[0] if 4 in found else 0
                return index, ip_address(gateway) if gateway else None
    except OSError:
        pass
    return 0, None
