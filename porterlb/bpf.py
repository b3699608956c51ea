"""The bpf(2) system call: maps, programs and links. Errors are OSError.

Only the loader (:mod:`porterlb.loader`) creates objects: that needs CAP_BPF and CAP_NET_ADMIN. A process without
capabilities may use the descriptors that it is given.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import platform
import struct

_NUMBERS = {"x86_64": 321, "aarch64": 280, "riscv64": 280}  # of the system call
_CREATE, _UPDATE, _DELETE, _LOAD, _TAKE, _UPDATE_MANY, _LINK = 0, 2, 3, 5, 21, 26, 28

HASH, ARRAY, QUEUE = 1, 2, 22
"""Types of maps."""
ALLOCATE_LATE = 1  # BPF_F_NO_PREALLOC
MAPPABLE = 1 << 10  # BPF_F_MMAPABLE

_CLASSIFIER = 3  # BPF_PROG_TYPE_SCHED_CLS
_TCX_INGRESS = 46
_BEFORE = 1 << 3  # BPF_F_BEFORE, of nothing in particular: at the head

_libc = ctypes.CDLL(None, use_errno=True)


def supported() -> bool:
    """Whether the number of the system call is known for this machine, which must be little-endian."""
    return platform.machine() in _NUMBERS


def create_map(kind: int, key: int, value: int, entries: int, flags: int, name: str) -> int:
    """A new map; sizes in bytes. Returns its descriptor."""
    return _call(_CREATE, struct.pack("<5I2I16s", kind, key, value, entries, flags, 0, 0, name.encode()))


def load_classifier(code: bytes, name: str, licence: str) -> int:
    """Loads a program for tc or tcx. Returns its descriptor."""
    steps, terms = _copy(code), _copy(licence.encode() + b"\0")
    count = len(code) // 8
    head = struct.pack("<IIQQIIQII16s", _CLASSIFIER, count, _at(steps), _at(terms), 0, 0, 0, 0, 0, name.encode())
    return _call(_LOAD, head)


def attach(program: int, ifindex: int) -> int:
    """Attaches a program to the ingress of an interface, before all others. Returns the descriptor of the link: the
    program is detached when all copies of it are closed. Linux 6.6."""
    return _call(_LINK, struct.pack("<IIIIIIQ", program, ifindex, _TCX_INGRESS, _BEFORE, 0, 0, 0))


def update(table: int, key: bytes, value: bytes) -> None:
    held, new = _copy(key), _copy(value)
    _call(_UPDATE, struct.pack("<I4xQQQ", table, _at(held), _at(new), 0))


def update_many(table: int, keys: bytes, values: bytes, count: int) -> None:
    held, new = _copy(keys), _copy(values)
    _call(_UPDATE_MANY, struct.pack("<QQQQIIQQ", 0, 0, _at(held), _at(new), count, table, 0, 0))


def delete(table: int, key: bytes) -> None:
    held = _copy(key)
    _call(_DELETE, struct.pack("<I4xQQQ", table, _at(held), 0, 0))


def take(queue: int, size: int) -> bytes:
    """Removes the oldest record of a queue. Raises FileNotFoundError if it is empty."""
    value = ctypes.create_string_buffer(size)
    _call(_TAKE, struct.pack("<I4xQQQ", queue, 0, _at(value), 0))
    return value.raw


def memory(array: int, size: int) -> mmap.mmap:
    """The values of an array that was created as MAPPABLE."""
    return mmap.mmap(array, -(-size // mmap.PAGESIZE) * mmap.PAGESIZE)


def _copy(data: bytes) -> ctypes.Array[ctypes.c_char]:
    """A buffer that must live until the call has returned."""
    return ctypes.create_string_buffer(data, len(data))


def _at(buffer: ctypes.Array[ctypes.c_char]) -> int:
    return ctypes.addressof(buffer)


def _call(command: int, attributes: bytes) -> int:
    buffer = ctypes.create_string_buffer(attributes.ljust(128, b"\0"), 128)
    result: int = _libc.syscall(_NUMBERS[platform.machine()], command, buffer, len(buffer))
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return result
