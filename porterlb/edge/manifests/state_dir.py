"""DIR/.porterlb: the state of a cluster of manifests, and the check that it still exists.

Nothing here ever creates DIR, or creates .porterlb a second time: a folder that has become empty because a mount
vanished must look like an outage, never like a cluster without Services.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import itertools
import os
import secrets
import time
from collections.abc import Iterator
from pathlib import Path

from porterlb.cluster import Denied, Kind, Unavailable

LOCK_PAUSE = 0.002  # seconds, at most, between two attempts to take a lock, which is held for some 100 µs

_counter = itertools.count()


class StateDir:
    """One directory of manifests. Every method does blocking I/O: call it in a thread."""

    def __init__(self, path: Path, *, read_only: bool = False) -> None:
        self.path = path
        self.inside = path / ".porterlb"
        self.read_only = read_only
        self.identity = ""  # of the directory that we serve; empty until it was first found

    def trouble(self, *, in_use: bool) -> str:
        """Why the directory cannot be used now, as a sentence; empty when all is well.

        ``in_use``: objects of it have been seen. Only before that, a fresh directory gets its .porterlb, and another
        directory is accepted in its place (one that is mounted after our start).
        """
        try:
            with os.scandir(self.path):
                pass
        except OSError as error:
            return f"The directory {self.path} cannot be read: {os.strerror(error.errno or errno.EIO)}."
        found = self._read_identity()
        if not found and not in_use and not self.read_only:
            try:
                self._create()
            except OSError as error:
                return f"{self.inside} cannot be made: {os.strerror(error.errno or errno.EIO)}."
            found = self._read_identity()
        if self.read_only and not found and not self.identity:
            return ""
        if not found:
            return f"{self.inside} is gone: was {self.path} unmounted? Mount it again, or restart with a new state."
        if self.identity and found != self.identity and in_use:
            return f"Another directory has taken the place of {self.path}. Bring the first one back, or restart."
        self.identity = found
        return ""

    def guard(self, *, writing: bool = True) -> None:
        """Raises Unavailable unless this is still the directory that we serve; prepares a fresh one first."""
        if self.read_only and writing:
            raise Denied("This directory was opened for reading only.")
        if self.identity:
            found = self._read_identity()
            if found != self.identity:
                raise Unavailable(f"{self.inside} is gone.")
        else:
            trouble = self.trouble(in_use=False)
            if trouble:
                raise Unavailable(trouble)

    def _read_identity(self) -> str:
        try:
            return (self.inside / "id").read_text(encoding="ascii").strip()
        except (OSError, UnicodeDecodeError):
            return ""

    def _create(self) -> None:
        self.inside.mkdir(exist_ok=True)
        for name in ("status", "leases", "locks", "tmp"):
            (self.inside / name).mkdir(exist_ok=True)
        for kind in Kind:
            (self.inside / "status" / kind.kind).mkdir(exist_ok=True)
        self.make_once("id", secrets.token_hex(8).encode())

    def make_once(self, name: str, content: bytes, mode: int = 0o644) -> bytes:
        """A file of .porterlb that the first process creates, once and completely. Returns its content."""
        target = self.inside / name
        with contextlib.suppress(FileExistsError):
            if not target.exists():
                self.link_new(target, content, mode)
        return target.read_bytes()

    def temporary(self, content: bytes, mode: int = 0o644) -> Path:
        """A new file with this content; the caller renames or links it into its place."""
        path = self.inside / "tmp" / f"{os.getpid()}-{secrets.token_hex(4)}-{next(_counter)}"
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(content)
        except OSError:
            path.unlink(missing_ok=True)
            raise
        return path

    def replace(self, target: Path, content: bytes, mode: int = 0o644) -> None:
        """Writes a file so that readers see the old or the new content, never half of it."""
        temporary = self.temporary(content, mode)
        try:
            temporary.replace(target)
        except OSError:
            temporary.unlink(missing_ok=True)
            raise

    def link_new(self, target: Path, content: bytes, mode: int = 0o644, until: float = float("inf")) -> None:
        """Creates a file, which must not exist yet, completely. Raises FileExistsError, or Unavailable after ``until``.

        link(2) decides between several processes, on network file systems too, and needs no lock.
        """
        temporary = self.temporary(content, mode)
        try:
            if time.monotonic() > until:
                raise Unavailable("The deadline of this write has passed.")
            os.link(temporary, target)
        finally:
            temporary.unlink(missing_ok=True)

    @contextlib.contextmanager
    def locked(self, what: str, until: float) -> Iterator[None]:
        """Holds one of 256 locks, chosen by ``what``, across processes; for a few file operations only.

        A process that is stopped while it holds one blocks 1/256 of the objects until it continues or ends.
        Raises Unavailable when the lock is not free until ``until`` (monotonic seconds).
        """
        name = hashlib.sha256(what.encode()).hexdigest()[:2]
        descriptor = os.open(self.inside / "locks" / name, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            pause = 0.0005
            while True:
                try:
                    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    if time.monotonic() + pause > until:
                        raise Unavailable(f"{what} is locked by a process that is stopped.") from None
                    time.sleep(pause)
                    pause = min(pause * 2, LOCK_PAUSE)
            yield
        finally:
            os.close(descriptor)  # releases the lock


def signature_of(found: os.stat_result) -> tuple[int, int, int]:
    """What changes when a file is written."""
    return found.st_ino, found.st_mtime_ns, found.st_size


@contextlib.contextmanager
def outage_as_unavailable() -> Iterator[None]:
    """Turns file system errors into Denied (no permission) or Unavailable, as if an API server had not answered."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.EROFS, errno.EACCES, errno.EPERM):
            raise Denied(f"{error.filename}: {os.strerror(error.errno)}.") from None
        raise Unavailable(f"{error.filename}: {os.strerror(error.errno or errno.EIO)}.") from None
