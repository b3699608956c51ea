"""Control groups of a node: made below those of this process (version 1) or below the root (version 2).

Version 2 is written for a machine where systemd has switched the controllers on; so far only version 1 has been run.
"""

from __future__ import annotations

import contextlib
import os
import time
from dataclasses import dataclass
from pathlib import Path

ROOT = Path("/sys/fs/cgroup")

PATIENCE = 5.0
"""Seconds for processes that were killed to end."""


@dataclass(frozen=True)
class Hierarchy:
    """One mounted tree of control groups.

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
    """Those that are mounted here, from /proc/self/mountinfo and /proc/self/cgroup (cgroups(7))."""
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
    """Moves this process into the groups of this name, which are made; returns their hierarchies."""
    for hierarchy, folder in groups(name).items():
        if hierarchy.unified:
            _switch_on(folder.parent)
        for made in (folder.parent, folder):
            made.mkdir(parents=True, exist_ok=True)
            if "cpuset" in hierarchy.controllers.split(","):  # a new one has no processor and no memory
                for file in ("cpuset.cpus", "cpuset.mems"):
                    if not (made / file).read_text().strip():
                        (made / file).write_text((made.parent / file).read_text())
        _clear(folder)
        (folder / "cgroup.procs").write_text("0")
    return list(groups(name))


def _clear(folder: Path) -> None:
    """A boot begins without the groups of the last one: the kubelet would ask containerd 3 s for each.

    The last processes in them end a moment after the node's process 1.
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
    """Commands that mount them at /sys/fs/cgroup inside a cgroup namespace."""
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
    """Version 2, inside the namespace: a group with processes cannot share controllers out, so they go into a leaf."""
    leaf = ROOT / "init"
    leaf.mkdir(exist_ok=True)
    for process in (ROOT / "cgroup.procs").read_text().split():
        with contextlib.suppress(ProcessLookupError):
            (leaf / "cgroup.procs").write_text(process)
    _switch_on(ROOT)


def _switch_on(folder: Path) -> None:
    for controller in (folder / "cgroup.controllers").read_text().split():
        with contextlib.suppress(OSError):  # one that cannot be shared out here
            (folder / "cgroup.subtree_control").write_text(f"+{controller}")
