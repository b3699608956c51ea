"""The program that answers questions for VIPs at the ingress of an interface (tcx, or a tc classifier).

It answers the plain question only: an untagged frame of the expected length, for a VIP in its table, from a host with
ordinary addresses, before the lease ends. Every other frame continues to the network stack and to the packet socket of
the wire process, which decides about it. In particular these reach the wire process:

- questions for VIPs whose answer depends on the asker, which are not in the table;
- duplicate address probes (from 0.0.0.0 or ::), which are not a use of the VIP;
- questions whose sender address is a VIP of the table: another host claims the VIP;
- everything while the lease has ended: the wire process answers, or does not run.

The answer is built on the stack and replaces the question, which returns through the same interface.
"""

from __future__ import annotations

from porterlb.core.ebpf.assembler import FRAME, MAP, MAP_VALUE, Assembler, native
from porterlb.core.ebpf.records import (
    ASKED_MAC,
    ASKED_SENDER,
    ASKED_TARGET,
    ENTRY_MAC,
    ENTRY_REPORTED,
    ENTRY_SOURCE,
    MAPPED,
    REPORT_EVERY,
    STATE_ANSWERED,
    STATE_UNTIL,
)

# Offsets in struct __sk_buff of linux/bpf.h
SKB_LENGTH, SKB_TYPE, SKB_PROTOCOL, SKB_TAGGED, SKB_INTERFACE, SKB_DATA, SKB_END = 0, 4, 16, 20, 40, 76, 80

# Helpers of linux/bpf.h
LOOK_UP, NOW, STORE_BYTES, REDIRECT, CHECKSUM, PUSH = 1, 5, 9, 23, 28, 87

NEXT = -1
"""The result "continue" (TCX_NEXT)."""

_TO_OTHERS = 3  # PACKET_OTHERHOST
_ARP_LENGTH, _NDP_LENGTH = 42, 86  # of a solicitation with one option
_ARP_LONGEST = 64  # with the padding of Ethernet

# The stack, below the frame pointer. An answer begins such that its IP header is aligned to 8 bytes.
_TIME, _ASKED, _ANSWER = -8, -48, -174

_CONTEXT, _DATA, _END, _ENTRY = 6, 7, 8, 9  # registers that keep their values over calls


def responder(table: int, state: int, asked: int) -> bytes:
    """The instructions, for the descriptors of its maps: the table of VIPs, the state, and the queue of questions."""
    return _Program(table, state, asked).code()


class _Program:
    def __init__(self, table: int, state: int, asked: int) -> None:
        self._table = table
        self._state = state
        self._asked = asked
        self._assembler = Assembler()

    def code(self) -> bytes:
        a = self._assembler
        a.combine(_CONTEXT, "=", 1)
        a.load(4, 2, _CONTEXT, SKB_TAGGED)
        a.jump(2, "!=", 0, "next")
        a.load(4, 2, _CONTEXT, SKB_TYPE)
        a.jump(2, ">", _TO_OTHERS - 1, "next")
        a.load(4, _DATA, _CONTEXT, SKB_DATA)
        a.load(4, _END, _CONTEXT, SKB_END)
        a.load(4, 2, _CONTEXT, SKB_PROTOCOL)
        a.jump(2, "==", native(b"\x08\x06"), "arp")
        a.jump(2, "==", native(b"\x86\xdd"), "ndp")
        a.go("next")
        self._arp()
        self._ndp()
        a.label("next")
        a.compute(0, "=", NEXT)
        a.exit()
        return a.code()

    def _arp(self) -> None:
        a = self._assembler
        a.label("arp")
        self._has(_ARP_LENGTH)
        a.load(4, 2, _CONTEXT, SKB_LENGTH)
        a.jump(2, ">", _ARP_LONGEST, "next")
        self._equal(14, b"\x00\x01\x08\x00")
        self._equal(18, b"\x06\x04\x00\x01")
        a.load(4, 2, _DATA, 28)
        a.jump(2, "==", 0, "next")  # a probe (RFC 5227)
        a.jump(2, "==", 0xFFFFFFFF, "next")
        a.load(1, 2, _DATA, 28)
        a.jump(2, "==", 127, "next")
        a.compute(2, "&", 0xF0)
        a.jump(2, "==", 0xE0, "next")  # multicast
        self._ordinary_mac(22)
        for at in (ASKED_TARGET, ASKED_SENDER):
            for offset in range(0, len(MAPPED), 4):
                a.put(FRAME, _ASKED + at + offset, MAPPED[offset : offset + 4])
        a.copy(4, FRAME, _ASKED + ASKED_TARGET + len(MAPPED), _DATA, 38)
        a.copy(4, FRAME, _ASKED + ASKED_SENDER + len(MAPPED), _DATA, 28)
        self._note_mac(22)
        self._admit("arp answer")
        a.copy(6, FRAME, _ANSWER, _DATA, 22)
        a.copy(6, FRAME, _ANSWER + 6, _ENTRY, ENTRY_SOURCE)
        a.put(FRAME, _ANSWER + 12, b"\x08\x06")
        a.put(FRAME, _ANSWER + 14, b"\x00\x01\x08\x00")
        a.put(FRAME, _ANSWER + 18, b"\x06\x04\x00\x02")
        a.copy(6, FRAME, _ANSWER + 22, _ENTRY, ENTRY_MAC)
        a.copy(4, FRAME, _ANSWER + 28, _DATA, 38)
        a.copy(6, FRAME, _ANSWER + 32, _DATA, 22)
        a.copy(4, FRAME, _ANSWER + 38, _DATA, 28)
        self._send(_ARP_LENGTH)

    def _ndp(self) -> None:
        a = self._assembler
        a.label("ndp")
        self._has(_NDP_LENGTH)
        self._equal(20, b"\x3a\xff")  # ICMPv6, hop limit 255: all other traffic ends here
        self._equal(54, b"\x87\x00")
        a.load(4, 2, _CONTEXT, SKB_LENGTH)
        a.jump(2, "!=", _NDP_LENGTH, "next")
        a.load(1, 2, _DATA, 14)
        a.compute(2, "&", 0xF0)
        a.jump(2, "!=", 0x60, "next")
        self._equal(18, b"\x00\x20")
        self._equal(78, b"\x01\x01")  # its only option: the source link-layer address
        a.load(8, 2, _DATA, 22)
        a.jump64(2, "==", 0, "next")  # a duplicate address probe, or loopback
        for offset in (22, 62):
            a.load(1, 2, _DATA, offset)
            a.jump(2, "==", 0xFF, "next")  # multicast
        self._ordinary_mac(80)
        a.copy(16, FRAME, _ASKED + ASKED_TARGET, _DATA, 62)
        a.copy(16, FRAME, _ASKED + ASKED_SENDER, _DATA, 22)
        self._note_mac(80)
        a.combine(3, "=", _DATA)
        a.compute(3, "+", 22)
        self._sum()
        a.jump(0, "!=", 0xFFFF, "next")
        self._admit("ndp answer")
        a.copy(6, FRAME, _ANSWER, _DATA, 80)
        a.copy(6, FRAME, _ANSWER + 6, _ENTRY, ENTRY_SOURCE)
        a.put(FRAME, _ANSWER + 12, b"\x86\xdd")
        a.put(FRAME, _ANSWER + 14, b"\x60\x00\x00\x00")
        a.put(FRAME, _ANSWER + 18, b"\x00\x20\x3a\xff")
        a.copy(16, FRAME, _ANSWER + 22, _DATA, 62)
        a.copy(16, FRAME, _ANSWER + 38, _DATA, 22)
        a.put(FRAME, _ANSWER + 54, b"\x88\x00\x00\x00")
        a.put(FRAME, _ANSWER + 58, b"\x60\x00\x00\x00")  # solicited, override
        a.copy(16, FRAME, _ANSWER + 62, _DATA, 62)
        a.put(FRAME, _ANSWER + 78, b"\x02\x01")
        a.copy(6, FRAME, _ANSWER + 80, _ENTRY, ENTRY_MAC)
        a.combine(3, "=", FRAME)
        a.compute(3, "+", _ANSWER + 22)
        self._sum()
        a.compute(0, "^", 0xFFFF)
        a.jump(0, "!=", 0, "checksum")
        a.compute(0, "=", 0xFFFF)
        a.label("checksum")
        a.store(2, FRAME, _ANSWER + 56, 0)
        self._send(_NDP_LENGTH)

    def _has(self, length: int) -> None:
        """The first bytes of the frame can be read."""
        a = self._assembler
        a.combine(2, "=", _DATA)
        a.compute(2, "+", length)
        a.jump_by(2, ">", _END, "next")

    def _equal(self, offset: int, data: bytes) -> None:
        self._assembler.load(len(data), 2, _DATA, offset)
        self._assembler.jump(2, "!=", native(data), "next")

    def _ordinary_mac(self, offset: int) -> None:
        """The MAC is neither a group address nor zero."""
        a = self._assembler
        a.load(1, 2, _DATA, offset)
        a.compute(2, "&", 1)
        a.jump(2, "!=", 0, "next")
        a.load(4, 2, _DATA, offset)
        a.load(2, 3, _DATA, offset + 4)
        a.combine(2, "|", 3)
        a.jump(2, "==", 0, "next")

    def _note_mac(self, offset: int) -> None:
        a = self._assembler
        a.copy(6, FRAME, _ASKED + ASKED_MAC, _DATA, offset)
        a.put(FRAME, _ASKED + ASKED_MAC + 6, b"\0\0")

    def _sum(self) -> None:
        """Register 0 = the folded one's complement sum of the ICMPv6 pseudo-header and message: of the 64 bytes at
        register 3, which begin with the addresses, and of the length and the protocol."""
        a = self._assembler
        a.compute(1, "=", 0)
        a.compute(2, "=", 0)
        a.compute(4, "=", 64)
        a.compute(5, "=", native(b"\x00\x20") + native(b"\x00\x3a"))
        a.call(CHECKSUM)
        a.low_half(0)
        for _ in range(2):
            a.combine(1, "=", 0)
            a.compute(1, ">>", 16)
            a.compute(0, "&", 0xFFFF)
            a.combine(0, "+", 1)

    def _find(self, at: int) -> None:
        """Register 0 = the entry of an address on the stack, or 0."""
        a = self._assembler
        a.refer(1, self._table, MAP)
        a.combine(2, "=", FRAME)
        a.compute(2, "+", _ASKED + at)
        a.call(LOOK_UP)

    def _admit(self, then: str) -> None:
        """Goes to the label ``then`` if the target is in the table, the lease has not ended, and the sender is not in
        the table. Reports the question if none for this VIP was reported lately."""
        a = self._assembler
        self._find(ASKED_TARGET)
        a.jump64(0, "==", 0, "next")
        a.combine(_ENTRY, "=", 0)
        a.call(NOW)
        a.store(8, FRAME, _TIME, 0)
        a.refer(1, self._state, MAP_VALUE)
        a.load(8, 1, 1, STATE_UNTIL)
        a.jump_by(0, ">", 1, "next")
        self._find(ASKED_SENDER)
        a.jump64(0, "!=", 0, "next")
        a.load(8, 1, FRAME, _TIME)
        a.load(8, 2, _ENTRY, ENTRY_REPORTED)
        a.combine(1, "-", 2)
        a.constant(2, int(REPORT_EVERY * 1e9))
        a.jump_by(2, ">", 1, then)
        a.refer(1, self._asked, MAP)
        a.combine(2, "=", FRAME)
        a.compute(2, "+", _ASKED)
        a.compute(3, "=", 0)
        a.call(PUSH)
        a.jump64(0, "!=", 0, then)  # the queue is full: report a later one
        a.load(8, 1, FRAME, _TIME)
        a.store(8, _ENTRY, ENTRY_REPORTED, 1)
        a.label(then)

    def _send(self, length: int) -> None:
        """Replaces the question by the answer, counts it, and sends it through the interface of the question."""
        a = self._assembler
        a.combine(1, "=", _CONTEXT)
        a.compute(2, "=", 0)
        a.combine(3, "=", FRAME)
        a.compute(3, "+", _ANSWER)
        a.compute(4, "=", length)
        a.compute(5, "=", 0)
        a.call(STORE_BYTES)
        a.jump64(0, "!=", 0, "next")
        a.refer(1, self._state, MAP_VALUE)
        a.compute(2, "=", 1)
        a.add_atomically(1, STATE_ANSWERED, 2)
        a.load(4, 1, _CONTEXT, SKB_INTERFACE)
        a.compute(2, "=", 0)
        a.call(REDIRECT)
        a.exit()
