"""Control groups of a node: created below those of this process (version 1) or below the root (version 2).

The version 2 code is for a machine where systemd has enabled the controllers. Only version 1 has been run until now.
"""

from __future__ import annotations

import contextlib
import os
import time
from dataclasses import dataclass
from pathlib import Path

ROOT = Path("/sys/fs/cgroup")

PATIENCE = 5.0
"""Timeout, in seconds, for killed processes to end."""


@dataclass(frozen=True)
class Hierarchy:
    """One mounted hierarchy of control groups.

    ``controllers``: as in the mount options, e.g. ``cpu,cpuacct`` or ``name=systemd``; empty for version 2.
    """

    controllers: str
    mount: Path
    own: str
    """The group of this process, below ``mount``; empty for the root."""

    @property
    def unified(self) -> bool:
        return not self.controllers


def hierarchies() -> list[Hierarchy]:
    """The hierarchies mounted here, from /proc/self/mountinfo and /proc/self/cgroup (cgroups(7))."""
    own: dict[str, str] = {}
    for line in Path("/proc/self/cgroup").read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        own[controllers] = path.strip("/")
    found = []
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        before, _, after = line.partition(" - ")
        kind, _, options = after.split(" ", 2)
        mount = Path(before.split()[4])
        if kind == "cgroup2":
            found.append(Hierarchy("", mount, own.get("", "")))
        elif kind == "cgroup":
            (controllers,) = [c for c in own if c and set(c.split(",")) <= set(options.split(","))]
            found.append(Hierarchy(controllers, mount, own[controllers]))
    return found


def groups(name: str) -> dict[Hierarchy, Path]:
    """The folders of a node's group, in each hierarchy that a container runtime uses."""
    there = hierarchies()
    if not any(hierarchy.controllers and "=" not in hierarchy.controllers for hierarchy in there):
        return {hierarchy: hierarchy.mount / name for hierarchy in there if hierarchy.unified}
    return {hierarchy: hierarchy.mount / hierarchy.own / name for hierarchy in there if not hierarchy.unified}


def join(name: str) -> list[Hierarchy]:
    """Creates the groups of this name and moves this process into them. Returns their hierarchies."""
    for hierarchy, folder in groups(name).items():
        if hierarchy.unified:
            _switch_on(folder.parent)
        for made in (folder.parent, folder):
            made.mkdir(parents=True, exist_ok=True)
            if "cpuset" in hierarchy.controllers.split(","):  # a new cpuset has no CPU and no memory node
                for file in ("cpuset.cpus", "cpuset.mems"):
                    if not (made / file).read_text().strip():
                        (made / file).write_text((made.parent / file).read_text())
        _clear(folder)
        (folder / "cgroup.procs").write_text("0")
    return list(groups(name))


def _clear(folder: Path) -> None:
    """Removes the groups of the previous boot; otherwise, the kubelet would query containerd for 3 s for each.

    The last processes in them end shortly after the node's process 1.
    """
    deadline = time.monotonic() + PATIENCE
    while below := [Path(path) for path, _, _ in os.walk(folder, topdown=False) if Path(path) != folder]:
        for path in below:
            with contextlib.suppress(OSError):
                path.rmdir()
        if time.monotonic() > deadline:
            raise OSError(f"processes are left in {below[0]}")
        time.sleep(0.01)


def mount_anew(there: list[Hierarchy]) -> list[list[str]]:
    """Commands that mount the hierarchies at /sys/fs/cgroup inside a cgroup namespace."""
    if there[0].unified:
        return [["mount", "-t", "cgroup2", "cgroup2", str(ROOT)]]
    commands = [["mount", "-t", "tmpfs", "-o", "mode=755", "cgroup", str(ROOT)]]
    for hierarchy in there:
        named = hierarchy.controllers.startswith("name=")
        folder = ROOT / hierarchy.controllers.removeprefix("name=")
        options = f"none,{hierarchy.controllers}" if named else hierarchy.controllers
        commands += [["mkdir", str(folder)], ["mount", "-t", "cgroup", "-o", options, "cgroup", str(folder)]]
    return commands


def make_room() -> None:
    """Version 2, inside the namespace: a group that contains processes cannot delegate controllers. Moves the processes
    into a leaf group."""
    leaf = ROOT / "init"
    leaf.mkdir(exist_ok=True)
    for process in (ROOT / "cgroup.procs").read_text().split():
        with contextlib.suppress(ProcessLookupError):
            (leaf / "cgroup.procs").write_text(process)
    _switch_on(ROOT)


def _switch_on(folder: Path) -> None:
    for controller in (folder / "cgroup.controllers").read_text().split():
        with contextlib.suppress(OSError):  # some controllers cannot be enabled here
            (folder / "cgroup.subtree_control").write_text(f"+{controller}")
