"""The node's kernel settings, interfaces and memory that affect ARP, NDP and traffic. For /state and ``doctor``.

Read once a minute, in a thread: some 30 small files of /proc and /sys.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

log = logging.getLogger("porterlb.host")

EVERY = 60.0
"""Seconds between two readings."""

SYSCTLS = ("arp_announce", "arp_filter", "arp_ignore", "proxy_arp", "rp_filter")
"""Settings in net.ipv4.conf that decide how the node answers ARP and which received packets it drops."""

_MULTICAST = 0x1000  # IFF_MULTICAST, linux/if.h
_UNLIMITED = 1 << 60  # bytes; cgroup v1 shows "no limit" as a number near 2^63


class Host:
    """Holds what is known about the node (:meth:`state`); :meth:`run` keeps it up to date.

    Args:
        interfaces: the names of the interfaces that carry addresses of the node.
        root: the root of the file system.
    """

    def __init__(self, release: str, interfaces: Callable[[], Iterable[str]], root: Path = Path("/")) -> None:
        self._release = release
        self._interfaces = interfaces
        self._root = root
        self._known: Mapping[str, Any] = {}

    def state(self) -> dict[str, Any]:
        """JSON values: see :mod:`porterlb.core.status.state`."""
        return {"release": self._release, **self._known}

    async def run(self) -> None:
        """Refreshes the values until cancelled."""
        while True:
            names = sorted(set(self._interfaces()))
            self._known = await asyncio.to_thread(look, self._root, names)
            await asyncio.sleep(EVERY if names else 1.0)


def look(root: Path, interfaces: Iterable[str]) -> dict[str, Any]:
    """Reads all values; values that cannot be read are left out. Blocking."""
    conf = root / "proc/sys/net/ipv4/conf"
    return {
        "all": _sysctls(conf / "all"),
        "nics": {
            name: _sysctls(conf / name) | _flags(root / "sys/class/net" / name / "flags")
            for name in interfaces
            if (conf / name).is_dir()
        },
        "ipvs": (root / "sys/class/net/kube-ipvs0").exists(),
        "memory": _memory(root / "sys/fs/cgroup"),
    }


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii", errors="replace").strip()
    except OSError:
        return ""


def _number(path: Path) -> int | None:
    text = _text(path)
    return int(text) if text.isdecimal() else None


def _sysctls(folder: Path) -> dict[str, int]:
    found = {name: _number(folder / name) for name in SYSCTLS}
    return {name: value for name, value in found.items() if value is not None}


def _flags(path: Path) -> dict[str, bool]:
    text = _text(path)
    try:
        return {"multicast": bool(int(text, 16) & _MULTICAST)}
    except ValueError:
        return {}


def _memory(cgroup: Path) -> dict[str, int | None]:
    """Bytes in use, without memory that the kernel can drop at once (as the kubelet counts); and the limit, or None."""
    for base, current, limit, inactive in (
        (cgroup, "memory.current", "memory.max", "inactive_file"),
        (cgroup / "memory", "memory.usage_in_bytes", "memory.limit_in_bytes", "total_inactive_file"),
    ):
        used = _number(base / current)
        if used is not None:
            most = _number(base / limit)
            stat = dict(line.split(" ", 1) for line in _text(base / "memory.stat").splitlines() if " " in line)
            dropped = int(stat[inactive]) if stat.get(inactive, "").isdecimal() else 0
            return {"used": max(0, used - dropped), "limit": None if most is None or most > _UNLIMITED else most}
    return {}
