"""Gives up Linux capabilities that a process does not need (capabilities(7)).

The manager keeps NET_RAW and NET_BIND_SERVICE in reserve for the processes that it starts, and uses none itself. The
wire process uses NET_RAW only. ExaBGP, which talks to routers, uses NET_BIND_SERVICE only, for a listening port below
1024. If the kernel answers ARP and NDP, the manager also keeps BPF and NET_ADMIN in reserve, for the loader alone.
"""

from __future__ import annotations

import ctypes
import enum

_VERSION = 0x20080522  # _LINUX_CAPABILITY_VERSION_3
_PR_SET_NO_NEW_PRIVS = 38


class Capability(enum.IntEnum):
    """Numbers of linux/capability.h."""

    NET_BIND_SERVICE = 10
    NET_ADMIN = 12
    NET_RAW = 13
    BPF = 39


class _Header(ctypes.Structure):
    _fields_ = [("version", ctypes.c_uint32), ("pid", ctypes.c_int)]


class _Sets(ctypes.Structure):
    _fields_ = [("effective", ctypes.c_uint32), ("permitted", ctypes.c_uint32), ("inheritable", ctypes.c_uint32)]


def keep_only(*capabilities: Capability, in_reserve: bool = False) -> None:
    """Keeps these capabilities, as far as this process has them, and gives up all others permanently.

    Programs that it starts cannot regain any, whoever owns their files. ``in_reserve``: they are kept for such programs
    but have no effect here. Never raises for a capability that is missing. Raises OSError if the kernel refuses, which
    it never does for giving up.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    header, sets = _Header(_VERSION, 0), (_Sets * 2)()
    _call(libc.capget, header, sets)
    wanted = sum(1 << capability for capability in capabilities)
    for half in (0, 1):
        kept = sets[half].permitted & (wanted >> (32 * half)) & 0xFFFFFFFF
        sets[half] = _Sets(0 if in_reserve else kept, kept, 0)
    # Without this, a program that root starts regains all capabilities that the bounding set allows.
    if libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_NO_NEW_PRIVS)")
    _call(libc.capset, header, sets)


def has(capability: Capability) -> bool:
    """Whether this process, or a program that it starts and that keeps it, may use the capability."""
    header, sets = _Header(_VERSION, 0), (_Sets * 2)()
    _call(ctypes.CDLL(None, use_errno=True).capget, header, sets)
    return bool(sets[capability // 32].permitted >> (capability % 32) & 1)


def _call(function: object, header: _Header, sets: ctypes.Array[_Sets]) -> None:
    if function(ctypes.byref(header), sets) != 0:  # type: ignore[operator]
        raise OSError(ctypes.get_errno(), "the capabilities of this process cannot be read or set")
