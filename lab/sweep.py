"""Removal of everything that a lab created. ``python -m lab.sweep`` removes the leftovers of dead runs.

Each lab has a folder ``/run/porterlb-lab/ID`` with its owner (PID and start time, because PIDs are reused) and a list
of its files elsewhere. A lab whose owner is dead is removed completely: processes, mounts, namespaces, control groups,
folders. A starting lab also sweeps.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import time
from pathlib import Path

from lab import netns
from lab.process import kill_in_namespaces

STATE = Path("/run/porterlb-lab")
PREFIX = "plb"
ELSEWHERE = "elsewhere"
"""The file in a lab's folder that lists the lab's files outside the folder."""

PATIENCE = 10.0
"""Timeout, in seconds, for the processes of killed PID namespaces to end. They take some milliseconds."""


def start_time(pid: int) -> str:
    """The start time of the process, in clock ticks since boot; empty if it does not exist (a zombie does not
    count)."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return ""
    return "" if fields[0] in "ZX" else fields[19]


def claim(lab_id: str) -> Path:
    """Creates the lab's state folder and records that this process owns it."""
    STATE.mkdir(mode=0o755, exist_ok=True)
    folder = STATE / lab_id
    folder.mkdir()
    (folder / "owner").write_text(f"{os.getpid()} {start_time(os.getpid())}\n")
    return folder


def record(lab_id: str, elsewhere: Path) -> None:
    """Records a folder or control group outside the lab's folder that is removed with the lab. It is recorded before
    its creation."""
    with (STATE / lab_id / ELSEWHERE).open("a") as file:
        file.write(f"{elsewhere}\n")


def remove(lab_id: str) -> None:
    """Removes everything of one lab. Safe to call again, and for a partly created lab."""
    folder = STATE / lab_id
    names = netns.with_prefix(f"{PREFIX}{lab_id}-")
    kill_in_namespaces(names)
    listed = folder / ELSEWHERE
    elsewhere = [Path(line) for line in dict.fromkeys(listed.read_text().splitlines())] if listed.exists() else []
    for mount in reversed(_mounts_below(folder, *elsewhere)):
        netns.run_command(["umount", "-l", mount], check=False)
    netns.delete(names)
    # Processes of PID namespaces end after their process 1. Until then, their control groups cannot be removed.
    deadline = time.monotonic() + PATIENCE
    while remains := [path for path in elsewhere if not _removed(path)]:
        if time.monotonic() > deadline:
            break
        time.sleep(0.05)
    if not remains:  # otherwise, the list stays for the next sweep
        shutil.rmtree(folder, ignore_errors=True)


def _removed(path: Path) -> bool:
    """Removes a folder, or a tree of control groups, whose files cannot be removed and need not be."""
    if path.is_relative_to("/sys/fs/cgroup"):
        for below, _, _ in os.walk(path, topdown=False):
            with contextlib.suppress(OSError):
                Path(below).rmdir()
    else:
        shutil.rmtree(path, ignore_errors=True)
    return not path.exists()


def dead() -> list[str]:
    """IDs of labs whose owner has died."""
    found = []
    for folder in sorted(STATE.iterdir()) if STATE.is_dir() else []:
        try:
            pid, started = (folder / "owner").read_text().split()
        except (OSError, ValueError):
            if not _older_than_a_minute(folder):
                continue  # it is being created now
            pid, started = "0", "-"
        if start_time(int(pid)) != started:
            found.append(folder.name)
    return found


def sweep() -> list[str]:
    """Removes all dead labs. Returns their IDs."""
    ids = dead()
    for lab_id in ids:
        remove(lab_id)
    return ids


def _mounts_below(*folders: Path) -> list[str]:
    inside = tuple(f"{folder}/" for folder in folders if not folder.is_relative_to("/sys"))
    lines = Path("/proc/self/mountinfo").read_text().splitlines()
    return [line.split()[4] for line in lines if line.split()[4].startswith(inside)]


def _older_than_a_minute(folder: Path) -> bool:
    now = Path("/proc/self").stat().st_mtime
    try:
        return now - folder.stat().st_mtime > 60
    except OSError:
        return False


def main() -> None:
    ids = sweep()
    print(f"removed what {len(ids)} dead run(s) had left: {' '.join(ids)}" if ids else "nothing was left behind")


if __name__ == "__main__":
    main()
