"""AF_PACKET sockets with a classic BPF filter in the kernel. Needs CAP_NET_RAW."""

from __future__ import annotations

import contextlib
import ctypes
import socket
import struct
from collections.abc import Collection

SNAP = 512  # bytes; no neighbour discovery message that is meant for us is longer

_SO_ATTACH_FILTER = 26
_SO_RCVBUFFORCE = 33
_SOL_PACKET = 263
_PACKET_ADD_MEMBERSHIP, _PACKET_DROP_MEMBERSHIP = 1, 2
_PACKET_MR_MULTICAST = 0
_PACKET_STATISTICS = 6
_PACKET_IGNORE_OUTGOING = 23
_RECEIVE_BUFFER = 8 << 20  # a stall of 0.5 s at 5,000 frames/s overflows the default 208 KiB

ETHERTYPE_ARP = 0x0806
ETHERTYPE_IPV6 = 0x86DD

# Opcodes of linux/filter.h
_LD_WORD, _LD_HALF, _LD_BYTE, _LD_LENGTH = 0x20, 0x28, 0x30, 0x80
_JUMP, _JEQ, _JGT, _RETURN = 0x05, 0x15, 0x25, 0x06
_PACKET_TYPE = 0xFFFFF004  # SKF_AD_OFF + SKF_AD_PKTTYPE
_TO_US = 0  # PACKET_HOST: unicast to our MAC
_TO_OTHERS = 3  # PACKET_OTHERHOST: also the type of VLAN-tagged frames without a VLAN interface

Program = list[tuple[int, int, int, int]]


def _accept_when(*tests: tuple[int, int, int, bool]) -> Program:
    """Accepts a frame if all tests (load opcode, offset, value, greater) hold; a load past its end refuses the frame.

    ``greater``: the test is "not greater than value", instead of "equal to".
    """
    program: Program = []
    for left, (load, offset, value, greater) in zip(range(len(tests), 0, -1), tests, strict=True):
        refuse = 2 * left - 1  # instructions from the jump to the last one
        program.append((load, 0, 0, offset))
        program.append((_JGT, refuse, 0, value) if greater else (_JEQ, 0, refuse, value))
    return [*program, (_RETURN, 0, 0, SNAP), (_RETURN, 0, 0, 0)]


def arp_program(operation: int) -> Program:
    """ARP for IPv4 over Ethernet with one operation, not for other hosts, at least 42 bytes."""
    return _accept_when(
        (_LD_BYTE, _PACKET_TYPE, _TO_OTHERS - 1, True),
        (_LD_HALF, 12, ETHERTYPE_ARP, False),
        (_LD_WORD, 14, 0x00010800, False),
        (_LD_WORD, 18, 0x06040000 | operation, False),
        (_LD_BYTE, 41, 0xFF, True),
    )


def ndp_program(kind: int) -> Program:
    """ICMPv6 of one type with hop limit 255, not for other hosts, not longer than SNAP."""
    return _accept_when(
        (_LD_BYTE, _PACKET_TYPE, _TO_OTHERS - 1, True),
        (_LD_HALF, 12, ETHERTYPE_IPV6, False),
        (_LD_HALF, 20, 58 << 8 | 255, False),
        (_LD_HALF, 54, kind << 8, False),
        (_LD_BYTE, 77, 0xFF, True),
        (_LD_LENGTH, 0, SNAP, True),
    )


def without(program: Program, offset: int, targets: Collection[bytes]) -> Program:
    """As ``program``, but refuses unicast frames with one of these addresses at ``offset``: 4 or 16 bytes each."""
    return _split(program, offset, targets, accept_targets=False)


def only(program: Program, offset: int, targets: Collection[bytes]) -> Program:
    """The frames that :func:`without` refuses."""
    return _split(program, offset, targets, accept_targets=True)


def _split(program: Program, offset: int, targets: Collection[bytes], *, accept_targets: bool) -> Program:
    refuse, accept = (_RETURN, 0, 0, 0), (_RETURN, 0, 0, SNAP)
    hit, miss = (accept, refuse) if accept_targets else (refuse, accept)
    compared: Program = []
    for target in targets:
        words = struct.unpack(f">{len(target) // 4}I", target)
        for number, word in enumerate(words):
            left = 2 * (len(words) - 1 - number) + 1  # instructions from the jump to the next address
            compared += [(_LD_WORD, 0, 0, offset + 4 * number), (_JEQ, 0, left, word)]
        compared.append(hit)
    begin = [(_LD_BYTE, 0, 0, _PACKET_TYPE), (_JEQ, 1, 0, _TO_US), miss]
    return _moved(program, [*begin, *compared, miss])


def _moved(program: Program, more: Program) -> Program:
    """A program of :func:`_accept_when` with ``more`` in place of its acceptance. Its jumps to the refusal are bytes:
    they go to a refusal directly behind the tests."""
    *tests, _, refuse = program
    ahead = (_JUMP, 0, 0, 1)  # jump over the refusal
    return [*tests, ahead, refuse, *more]


def mld_query_program() -> Program:
    """MLD queries: ICMPv6 type 130 behind 8 bytes of hop-by-hop options, hop limit 1, not longer than SNAP."""
    return _accept_when(
        (_LD_BYTE, _PACKET_TYPE, _TO_OTHERS - 1, True),
        (_LD_HALF, 12, ETHERTYPE_IPV6, False),
        (_LD_HALF, 20, 1, False),
        (_LD_HALF, 54, 58 << 8, False),
        (_LD_HALF, 62, 130 << 8, False),
        (_LD_BYTE, 85, 0xFF, True),
        (_LD_LENGTH, 0, SNAP, True),
    )


def open_socket(nic: str, ethertype: int, program: Program) -> socket.socket:
    """A non-blocking raw socket on one interface. Raises OSError (PermissionError without CAP_NET_RAW)."""
    # Protocol 0 receives nothing: no frame can arrive before the filter is attached.
    opened = socket.socket(socket.AF_PACKET, socket.SOCK_RAW | socket.SOCK_CLOEXEC, 0)
    try:
        change_filter(opened, program)
        opened.setsockopt(_SOL_PACKET, _PACKET_IGNORE_OUTGOING, 1)
        enlarge_buffer(opened, _RECEIVE_BUFFER)
        opened.setblocking(False)
        opened.bind((nic, ethertype))
    except OSError:
        opened.close()
        raise
    return opened


def open_counter(nic: str, ethertype: int, program: Program) -> socket.socket:
    """A socket for :func:`arrived` that is never read: with the smallest buffer. Raises OSError."""
    opened = open_socket(nic, ethertype, program)
    opened.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)
    return opened


def change_filter(opened: socket.socket, program: Program) -> None:
    """Replaces the filter of a socket at once; no frame is lost."""
    code = b"".join(struct.pack("=HBBI", *instruction) for instruction in program)
    buffer = ctypes.create_string_buffer(code, len(code))
    # struct sock_fprog: a 16-bit count, padding, a pointer
    opened.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, struct.pack("@HP", len(program), ctypes.addressof(buffer)))


class MulticastFilter:
    """Multicast MAC addresses that an interface must accept, without the knowledge of the network layer.

    The kernel keeps them in a list per socket, hence several sockets; none of them receives anything. They stay when
    the interface loses carrier. Raises OSError (PermissionError without CAP_NET_RAW).
    """

    _A_SOCKET = 500

    def __init__(self, nic: int) -> None:
        self._nic = nic
        self._sockets: list[socket.socket] = []
        self._newest = 0  # number of addresses of the newest socket
        self._of: dict[bytes, socket.socket] = {}

    def add(self, mac: bytes) -> None:
        if not self._sockets or self._newest >= self._A_SOCKET:
            self._sockets.append(socket.socket(socket.AF_PACKET, socket.SOCK_RAW | socket.SOCK_CLOEXEC, 0))
            self._newest = 0
        self._sockets[-1].setsockopt(_SOL_PACKET, _PACKET_ADD_MEMBERSHIP, self._request(mac))
        self._newest += 1
        self._of[mac] = self._sockets[-1]

    def remove(self, mac: bytes) -> None:
        opened = self._of.pop(mac, None)
        if opened is not None:
            opened.setsockopt(_SOL_PACKET, _PACKET_DROP_MEMBERSHIP, self._request(mac))

    def _request(self, mac: bytes) -> bytes:
        return struct.pack("@iHH8s", self._nic, _PACKET_MR_MULTICAST, len(mac), mac)  # struct packet_mreq

    def close(self) -> None:
        for opened in self._sockets:
            opened.close()
        self._of.clear()


def enlarge_buffer(opened: socket.socket, size: int) -> None:
    """Sets a receive buffer of ``size`` bytes; without CAP_NET_ADMIN, no more than net.core.rmem_max allows."""
    try:
        opened.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, size)
    except OSError:
        with contextlib.suppress(OSError):
            opened.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, size)


def dropped(opened: socket.socket) -> int:
    """Frames lost because the buffer was full, since the last call."""
    return _statistics(opened)[1]


def arrived(opened: socket.socket) -> int:
    """Frames that passed the filter since the last call, whether they were read or not."""
    return _statistics(opened)[0]


def _statistics(opened: socket.socket) -> tuple[int, int]:
    try:
        found: tuple[int, int] = struct.unpack("=II", opened.getsockopt(_SOL_PACKET, _PACKET_STATISTICS, 8))
    except OSError:
        return 0, 0
    return found
