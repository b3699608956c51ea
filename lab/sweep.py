"""Removal of everything that a lab created; ``python -m lab.sweep`` removes what dead runs have left behind.

Each lab has a folder ``/run/porterlb-lab/ID`` with its owner (pid and start time, because pids are reused).
A lab whose owner is dead is removed completely: processes, mounts, namespaces, folder. A lab that starts sweeps too.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from lab import netns
from lab.process import kill_in_namespaces

STATE = Path("/run/porterlb-lab")
PREFIX = "plb"


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


def remove(lab_id: str) -> None:
    """Remove everything of one lab. Safe to call again, and if the lab was only partly created."""
    folder = STATE / lab_id
    names = netns.with_prefix(f"{PREFIX}{lab_id}-")
    kill_in_namespaces(names)
    for mount in reversed(_mounts_below(folder)):
        netns.run_command(["umount", "-l", mount], check=False)
    netns.delete(names)
    shutil.rmtree(folder, ignore_errors=True)


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


def _mounts_below(folder: Path) -> list[str]:
    inside = str(folder) + "/"
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
