"""The folder where a manager keeps its files while it runs: sockets, ExaBGP's configuration and log.

A process that is killed cannot remove it, and leftovers would fill a small volume and contain old passwords. Therefore
each folder has a lock, which ends with its process, and each start removes the folders whose lock is free.
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

log = logging.getLogger("porterlb.workplace")

PREFIX = "porterlb-"
LOCK = "lock"


@contextlib.contextmanager
def workplace(parent: Path | None = None) -> Iterator[Path]:
    """A new folder (0700) in ``parent``, by default the folder for temporary files; removed at the end.

    Raises OSError if it cannot be created.
    """
    if parent is None:
        _sweep(Path(os.environ.get("TMPDIR") or "/tmp"))  # noqa: S108  # removes our own leftovers; before tempfile looks
        parent = Path(tempfile.gettempdir())
    _sweep(parent)
    folder = Path(tempfile.mkdtemp(prefix=PREFIX, dir=parent))
    # The lock gets its name only once it is held: a folder without it has just been created by another process.
    descriptor = os.open(folder / "new", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        (folder / "new").rename(folder / LOCK)
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(descriptor)


def _sweep(parent: Path) -> None:
    """Removes the folders of managers that have ended."""
    with contextlib.suppress(OSError):
        for folder in parent.glob(f"{PREFIX}*"):
            _remove(folder)


def _remove(folder: Path) -> None:
    # Follow no link, and leave folders of other users: any user may write to /tmp.
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
    with contextlib.suppress(OSError):
        directory = os.open(folder, flags)
        try:
            if os.fstat(directory).st_uid != os.getuid():
                return
            lock = os.open(LOCK, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=directory)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(folder, ignore_errors=True)
                log.info("removed %s, left by a manager that was killed", folder)
            finally:
                os.close(lock)
        finally:
            os.close(directory)
