"""Removal of everything that a lab created; ``python -m lab.sweep`` removes what dead runs have left behind.

Each lab has a folder ``/run/porterlb-lab/ID`` with its owner (pid and start time, because pids are reused) and a list
of what it has elsewhere. A lab whose owner is dead is removed completely: processes, mounts, namespaces, control
groups, folders. A lab that starts sweeps too.
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
"""The file in a lab's folder that lists what the lab has outside it."""

PATIENCE = 10.0
"""Seconds for the processes of killed PID namespaces to end; they take some milliseconds."""


def start_time(pid: int) -> str:
    """When the process started, in clock ticks since boot; empty if there is none (a zombie does not count)."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return ""
    return "" if fields[0] in "ZX" else fields[19]


def claim(lab_id: str) -> Path:
    """Create the lab's state folder and record that this process owns it."""
    STATE.mkdir(mode=0o755, exist_ok=True)
    folder = STATE / lab_id
    folder.mkdir()
    (folder / "owner").write_text(f"{os.getpid()} {start_time(os.getpid())}\n")
    return folder


def record(lab_id: str, elsewhere: Path) -> None:
    """A folder or control group outside the lab's folder that is removed with the lab; recorded before it is made."""
    with (STATE / lab_id / ELSEWHERE).open("a") as file:
        file.write(f"{elsewhere}\n")


def remove(lab_id: str) -> None:
    """Remove everything of one lab. Safe to call again, and if the lab was only partly created."""
    folder = STATE / lab_id
    names = netns.with_prefix(f"{PREFIX}{lab_id}-")
    kill_in_namespaces(names)
    listed = folder / ELSEWHERE
    elsewhere = [Path(line) for line in dict.fromkeys(listed.read_text().splitlines())] if listed.exists() else []
    for mount in reversed(_mounts_below(folder, *elsewhere)):
        netns.run_command(["umount", "-l", mount], check=False)
    netns.delete(names)
    # Processes of PID namespaces end after their process 1, and until then their control groups cannot be removed.
    deadline = time.monotonic() + PATIENCE
    while remains := [path for path in elsewhere if not _removed(path)]:
        if time.monotonic() > deadline:
            break
        time.sleep(0.05)
    if not remains:  # else the list stays, for the next sweep
        shutil.rmtree(folder, ignore_errors=True)


def _removed(path: Path) -> bool:
    """Remove a folder, or a tree of control groups, whose files cannot be removed and need not be."""
    if path.is_relative_to("/sys/fs/cgroup"):
        for below, _, _ in os.walk(path, topdown=False):
            with contextlib.suppress(OSError):
                Path(below).rmdir()
    else:
        shutil.rmtree(path, ignore_errors=True)
    return not path.exists()


def dead() -> list[str]:
    """Ids of labs whose owner has died."""
    found = []
    for folder in sorted(STATE.iterdir()) if STATE.is_dir() else []:
        try:
            pid, started = (folder / "owner").read_text().split()
        except (OSError, ValueError):
            if not _older_than_a_minute(folder):
                continue  # being created at this moment
            pid, started = "0", "-"
        if start_time(int(pid)) != started:
            found.append(folder.name)
    return found


def sweep() -> list[str]:
    """Remove all dead labs; returns their ids."""
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
