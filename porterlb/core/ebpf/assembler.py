"""A small assembler for eBPF (RFC 9669): instructions in, bytes out. For little-endian machines only."""

from __future__ import annotations

import struct

LOAD, STORE, STORE_IMMEDIATE, ATOMIC = 0x61, 0x63, 0x62, 0xC3
JUMP, JUMP32, CALL, EXIT = 0x05, 0x06, 0x85, 0x95
ALU64, ALU32 = 0x07, 0x04
REGISTER = 0x08  # the operand is a register, not an immediate value
LOAD_IMMEDIATE64 = 0x18

SIZES = {1: 0x10, 2: 0x08, 4: 0x00, 8: 0x18}
OPERATIONS = {"+": 0x00, "-": 0x10, "|": 0x40, "&": 0x50, ">>": 0x70, "^": 0xA0, "=": 0xB0}
COMPARISONS = {"==": 0x10, ">": 0x20, "!=": 0x50}

MAP, MAP_VALUE = 1, 2
"""Kinds of a map reference: the map itself, or the address of the only value of an array."""

FRAME = 10
"""The register that points behind the stack."""

_INSTRUCTION = struct.Struct("<BBhI")


def native(data: bytes) -> int:
    """The value that a load of these bytes gives."""
    return int.from_bytes(data, "little")


class Assembler:
    """Collects instructions; :meth:`code` resolves the labels. Registers are numbers 0 to 10, offsets are bytes."""

    def __init__(self) -> None:
        self._instructions: list[tuple[int, int, int, int, int]] = []
        self._labels: dict[str, int] = {}
        self._jumps: list[tuple[int, str]] = []

    def load(self, size: int, register: int, base: int, offset: int) -> None:
        """register = memory at base + offset, zero-extended."""
        self._emit(LOAD | SIZES[size], register, base, offset)

    def store(self, size: int, base: int, offset: int, register: int) -> None:
        """Memory at base + offset = the low bytes of register."""
        self._emit(STORE | SIZES[size], base, register, offset)

    def put(self, base: int, offset: int, data: bytes) -> None:
        """Memory at base + offset = 1, 2 or 4 constant bytes."""
        self._emit(STORE_IMMEDIATE | SIZES[len(data)], base, 0, offset, native(data))

    def add_atomically(self, base: int, offset: int, register: int) -> None:
        """Adds register to the 8 bytes at base + offset."""
        self._emit(ATOMIC | SIZES[8], base, register, offset)

    def copy(self, length: int, base: int, offset: int, source: int, at: int) -> None:
        """Copies bytes to the stack, in the largest pieces that are aligned there. Changes register 1."""
        while length:
            size = next(size for size in (8, 4, 2, 1) if size <= length and offset % size == 0)
            self.load(size, 1, source, at)
            self.store(size, base, offset, 1)
            length, offset, at = length - size, offset + size, at + size

    def compute(self, register: int, operation: str, value: int) -> None:
        self._emit(ALU64 | OPERATIONS[operation], register, 0, 0, value)

    def combine(self, register: int, operation: str, other: int) -> None:
        """As :meth:`compute`, with a register as the operand."""
        self._emit(ALU64 | REGISTER | OPERATIONS[operation], register, other)

    def low_half(self, register: int) -> None:
        """Clears the upper 32 bits."""
        self._emit(ALU32 | REGISTER | OPERATIONS["="], register, register)

    def jump(self, register: int, comparison: str, value: int, label: str) -> None:
        """Compares the low 32 bits, unsigned, with a constant."""
        self._jumps.append((len(self._instructions), label))
        self._emit(JUMP32 | COMPARISONS[comparison], register, 0, 0, value)

    def jump64(self, register: int, comparison: str, value: int, label: str) -> None:
        """Compares all bits with a constant that is not negative: a pointer with 0."""
        self._jumps.append((len(self._instructions), label))
        self._emit(JUMP | COMPARISONS[comparison], register, 0, 0, value)

    def jump_by(self, register: int, comparison: str, other: int, label: str) -> None:
        """As :meth:`jump64`, with a register as the operand."""
        self._jumps.append((len(self._instructions), label))
        self._emit(JUMP | REGISTER | COMPARISONS[comparison], register, other)

    def go(self, label: str) -> None:
        self._jumps.append((len(self._instructions), label))
        self._emit(JUMP)

    def refer(self, register: int, descriptor: int, kind: int) -> None:
        """register = a map, or the address of its value."""
        self._emit(LOAD_IMMEDIATE64, register, kind, 0, descriptor)
        self._emit(0)

    def constant(self, register: int, value: int) -> None:
        """register = a constant of 64 bits."""
        self._emit(LOAD_IMMEDIATE64, register, 0, 0, value & 0xFFFFFFFF)
        self._emit(0, 0, 0, 0, value >> 32)

    def call(self, helper: int) -> None:
        """Calls a helper of the kernel with registers 1 to 5, which are lost; the result is in register 0."""
        self._emit(CALL, 0, 0, 0, helper)

    def exit(self) -> None:
        """Returns register 0."""
        self._emit(EXIT)

    def label(self, name: str) -> None:
        self._labels[name] = len(self._instructions)

    def code(self) -> bytes:
        instructions = list(self._instructions)
        for at, label in self._jumps:
            opcode, register, other, _, value = instructions[at]
            instructions[at] = (opcode, register, other, self._labels[label] - at - 1, value)
        return b"".join(
            _INSTRUCTION.pack(opcode, other << 4 | register, offset, value & 0xFFFFFFFF)
            for opcode, register, other, offset, value in instructions
        )

    def _emit(self, opcode: int, register: int = 0, other: int = 0, offset: int = 0, value: int = 0) -> None:
        self._instructions.append((opcode, register, other, offset, value))
