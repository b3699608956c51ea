"""Runs eBPF programs of :mod:`porterlb.core.ebpf` without a kernel: the instructions of RFC 9669 that they use.

Memory consists of regions at addresses far apart; an access outside of a region is an error, as the verifier demands.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field

from porterlb.core.ebpf import records
from porterlb.core.ebpf.responder import (
    CHECKSUM,
    LOOK_UP,
    NOW,
    PUSH,
    REDIRECT,
    SKB_DATA,
    SKB_END,
    SKB_INTERFACE,
    SKB_LENGTH,
    SKB_PROTOCOL,
    SKB_TAGGED,
    SKB_TYPE,
    STORE_BYTES,
    responder,
)

TABLE, STATE, ASKED = 101, 102, 103  # descriptors
IFINDEX = 7
BROADCAST, TO_OTHERS = 1, 3  # types of packets
NEXT, REDIRECTED = 0xFFFFFFFF, 7

_WORD = (1 << 64) - 1
_CONTEXT, _PACKET, _STACK, _VALUES = 1 << 20, 2 << 20, 3 << 20, 4 << 20
_STACK_SIZE = 512
_SIZES = {0x10: 1, 0x08: 2, 0x00: 4, 0x18: 8}


@dataclass
class Kernel:
    """The maps of a responder, and the clock in nanoseconds."""

    entries: dict[bytes, bytearray] = field(default_factory=dict)
    state: bytearray = field(default_factory=lambda: bytearray(records.STATE_SIZE))
    asked: list[bytes] = field(default_factory=list)
    room: int = 4096  # of the queue
    now: int = 10**12
    writable: bool = True  # whether frames can be changed

    def own(self, address: bytes, mac: bytes, source: bytes) -> None:
        self.entries[records.key(address)] = bytearray(records.entry(mac, source))

    def lease(self, until: int) -> None:
        struct.pack_into("<Q", self.state, records.STATE_UNTIL, until)

    @property
    def answered(self) -> int:
        found: int = struct.unpack_from("<Q", self.state, records.STATE_ANSWERED)[0]
        return found

    def receive(
        self, frame: bytes, *, kind: int = BROADCAST, tagged: bool = False, readable: int = 2048
    ) -> bytes | None:
        """The frame that the program sends; None: it passes the frame on. ``readable``: bytes that are in one piece."""
        run = _Run(self, frame, kind, tagged, readable)
        result = run.run(responder(TABLE, STATE, ASKED))
        assert result in (NEXT, REDIRECTED)
        if result == NEXT:
            assert run.packet == frame, "a frame that is passed on is not changed"
            return None
        return bytes(run.packet)


class _Run:
    def __init__(self, kernel: Kernel, frame: bytes, kind: int, tagged: bool, readable: int) -> None:
        self._kernel = kernel
        self.packet = bytearray(frame)
        context = bytearray(192)
        values = {
            SKB_LENGTH: len(frame),
            SKB_TYPE: kind,
            SKB_PROTOCOL: int.from_bytes(frame[12:14], "little"),
            SKB_TAGGED: int(tagged),
            SKB_INTERFACE: IFINDEX,
            SKB_DATA: _PACKET,
            SKB_END: _PACKET + min(readable, len(frame)),
        }
        for offset, value in values.items():
            struct.pack_into("<I", context, offset, value)
        self._regions: dict[int, bytearray] = {
            _CONTEXT: context,
            _PACKET: bytearray(frame[:readable]),
            _STACK: bytearray(_STACK_SIZE),
            _VALUES: kernel.state,
        }
        self._registers: list[int | None] = [None] * 11
        self._registers[1], self._registers[10] = _CONTEXT, _STACK + _STACK_SIZE
        self._written: set[int] = set()  # bytes of the stack

    def run(self, code: bytes) -> int:
        steps = list(struct.iter_unpack("<BBhi", code))
        at = 0
        while True:
            opcode, registers, offset, value = steps[at]
            at += 1
            to, other = registers & 15, registers >> 4
            if opcode == 0x95:
                return self._get(0) & 0xFFFFFFFF
            if opcode == 0x18:
                high = steps[at][3]
                at += 1
                wide = (value & 0xFFFFFFFF) | (high & 0xFFFFFFFF) << 32
                self._registers[to] = {0: wide, 1: value, 2: _VALUES}[other]
            elif opcode == 0x85:
                self._call(value)
            elif opcode & 7 == 1:
                self._registers[to] = self._read(self._get(other) + offset, _SIZES[opcode & 0x18])
            elif opcode & 7 in (2, 3):
                size = _SIZES[opcode & 0x18]
                if opcode & 0xE0 == 0xC0:
                    self._write(self._get(to) + offset, 8, self._read(self._get(to) + offset, 8) + self._get(other))
                else:
                    self._write(self._get(to) + offset, size, self._get(other) if opcode & 7 == 3 else value)
            elif opcode & 7 in (4, 7):
                operand = self._get(other) if opcode & 8 else value & _WORD
                self._compute(to, opcode & 0xF0, operand, 64 if opcode & 7 == 7 else 32)
            else:
                operand = self._get(other) if opcode & 8 else value & _WORD
                mask = _WORD if opcode & 7 == 5 else 0xFFFFFFFF
                if opcode == 0x05 or self._holds(opcode & 0xF0, self._get(to) & mask, operand & mask):
                    assert offset >= 0, "a loop"
                    at += offset

    def _get(self, register: int) -> int:
        value = self._registers[register]
        assert value is not None, f"register {register} has no value"
        return value

    def _compute(self, to: int, operation: int, operand: int, bits: int) -> None:
        have = 0 if operation == 0xB0 else self._get(to)
        results = {
            0x00: have + operand,
            0x10: have - operand,
            0x40: have | operand,
            0x50: have & operand,
            0x70: have >> (operand & 63),
            0xA0: have ^ operand,
            0xB0: operand,
        }
        self._registers[to] = results[operation] & ((1 << bits) - 1)

    @staticmethod
    def _holds(comparison: int, left: int, right: int) -> bool:
        return {0x10: left == right, 0x20: left > right, 0x50: left != right}[comparison]

    def _region(self, address: int, size: int) -> tuple[int, int]:
        base = address >> 20 << 20
        assert base in self._regions and address - base + size <= len(self._regions[base]), hex(address)
        return base, address - base

    def _read(self, address: int, size: int) -> int:
        base, at = self._region(address, size)
        if base == _STACK:
            assert at % size == 0 and self._written.issuperset(range(at, at + size)), "a value that was never written"
        return int.from_bytes(self._regions[base][at : at + size], "little")

    def _write(self, address: int, size: int, value: int) -> None:
        base, at = self._region(address, size)
        assert base not in (_PACKET, _CONTEXT)
        if base == _STACK:
            assert at % size == 0
            self._written.update(range(at, at + size))
        self._regions[base][at : at + size] = (value & _WORD).to_bytes(8, "little")[:size]

    def _bytes(self, register: int, size: int) -> bytes:
        base, at = self._region(self._get(register), size)
        assert base != _STACK or self._written.issuperset(range(at, at + size))
        return bytes(self._regions[base][at : at + size])

    def _call(self, helper: int) -> None:
        kernel, result = self._kernel, 0
        if helper == LOOK_UP:
            assert self._get(1) == TABLE
            entry = kernel.entries.get(self._bytes(2, records.KEY_SIZE))
            if entry is not None:
                result = max(self._regions) + (1 << 20)
                self._regions[result] = entry
        elif helper == NOW:
            result = kernel.now
        elif helper == PUSH:
            assert self._get(1) == ASKED
            if len(kernel.asked) < kernel.room:
                kernel.asked.append(self._bytes(2, records.ASKED_SIZE))
            else:
                result = -7 & _WORD
        elif helper == CHECKSUM:
            assert (self._get(1), self._get(2)) == (0, 0)
            data = self._bytes(3, self._get(4))
            result = self._get(5) + sum(int.from_bytes(data[at : at + 4], "little") for at in range(0, len(data), 4))
            while result >> 32:
                result = (result & 0xFFFFFFFF) + (result >> 32)
        elif helper == STORE_BYTES:
            size = self._get(4)
            if kernel.writable:
                self.packet[self._get(2) : self._get(2) + size] = self._bytes(3, size)
                del self._regions[_PACKET]  # pointers into the frame are no longer valid
            else:
                result = -14 & _WORD
        else:
            assert helper == REDIRECT and (self._get(1), self._get(2)) == (IFINDEX, 0)
            result = REDIRECTED
        self._registers[:6] = [result, None, None, None, None, None]
