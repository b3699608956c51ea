"""``python -m tests.cluster.nodes.init FOLDER``: process 1 of a node, in namespaces that `node.Machine` made for it.

It gives the node its own view of the machine. It starts the programs of FOLDER/programs.json (name -> command line) in
their order, and restarts each one when it has ended. A program is not started while a file FOLDER/held/NAME exists.
Settings that the kubelet would write to the kernel of the whole machine go into files of FOLDER instead.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import NoReturn

from tests.cluster.nodes import cgroups

PERIOD = 0.05
"""Interval, in seconds, between two checks for ended programs."""

PAUSE = 1.0
"""Delay, in seconds, until an ended program is restarted. The systemd units of the two programs use 5 s and 10 s."""

NEW_CGROUP = 0x02000000
"""CLONE_NEWCGROUP of unshare(2)."""

SETTINGS = {
    "vm/overcommit_memory": 1,
    "vm/panic_on_oom": 0,
    "kernel/panic": 10,
    "kernel/panic_on_oops": 1,
    "kernel/keys/root_maxkeys": 1000000,
    "kernel/keys/root_maxbytes": 25000000,
}
"""Settings that a kubelet writes (setupKernelTunables), with its values. They are not per namespace."""


def main() -> NoReturn:
    folder = Path(sys.argv[1])
    socket.sethostname(folder.name)
    enter_groups(folder)
    mount_everything(folder)
    supervise(folder)


def enter_groups(folder: Path) -> None:
    """Joins the control groups. The group's name is in FOLDER/cgroup. Afterwards, /sys/fs/cgroup shows the node's own
    groups only."""
    joined = cgroups.join((folder / "cgroup").read_text())
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(NEW_CGROUP) != 0:
        error = ctypes.get_errno()
        raise OSError(error, f"unshare(CLONE_NEWCGROUP): {os.strerror(error)}")
    run("umount", "--recursive", "--lazy", "/sys")
    run("mount", "-t", "sysfs", "sysfs", "/sys")  # the sysfs of the network namespace
    for command in cgroups.mount_anew(joined):
        run(*command)
    if joined[0].unified:
        cgroups.make_room()


def mount_everything(folder: Path) -> None:
    run("mount", "-t", "tmpfs", "-o", "mode=755", "tmpfs", "/run")
    for name in ("lib", "log"):
        (folder / name).mkdir(exist_ok=True)
        run("mount", "--bind", str(folder / name), f"/var/{name}")
    (folder / "kernel").mkdir(exist_ok=True)
    for setting, value in SETTINGS.items():
        file = folder / "kernel" / setting.replace("/", ".")
        file.write_text(f"{value}\n")
        run("mount", "--bind", str(file), f"/proc/sys/{setting}")
    run("mount", "--make-rshared", "/")  # volumes that the kubelet mounts appear in containers
    for needed in ("/run/containerd", "/var/log/pods"):
        Path(needed).mkdir(exist_ok=True)


def run(*command: str) -> None:
    subprocess.run(command, check=True)


def supervise(folder: Path) -> NoReturn:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    programs: dict[str, list[str]] = json.loads((folder / "programs.json").read_text())
    running: dict[int, str] = {}
    due = dict.fromkeys(programs, 0.0)
    while True:
        while (ended := _reap()) is not None:  # also orphans of containers
            if name := running.pop(ended, ""):
                due[name] = time.monotonic() + PAUSE
        for name, argv in programs.items():
            held = (folder / "held" / name).exists()
            if name not in running.values() and not held and time.monotonic() >= due[name]:
                running[_spawn(argv, Path("/var/log") / f"{name}.log")] = name
        time.sleep(PERIOD)


def _reap() -> int | None:
    try:
        pid, _ = os.waitpid(-1, os.WNOHANG)
    except ChildProcessError:
        return None
    return pid or None


def _spawn(argv: list[str], log: Path) -> int:
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND
    output = (os.POSIX_SPAWN_OPEN, 1, str(log), flags, 0o644)
    actions = [(os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0), output, (os.POSIX_SPAWN_DUP2, 1, 2)]
    return os.posix_spawnp(argv[0], argv, os.environ, file_actions=actions, setsigdef=[signal.SIGTERM])


if __name__ == "__main__":
    main()
