"""Notices of the kernel about changed files: inotify(7) on the folders of a directory of manifests.

A manifest is reported when its writer has closed it or has moved it into place, so that no half of it is read. Files
of .porterlb are complete as soon as they are there. Changes that come without a notice (another machine on a network
file system, a link, a writer that keeps its file open) are found by the full scans of ManifestsCluster.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import struct
from collections.abc import Iterator
from pathlib import Path

_CLOSE_WRITE, _MOVED_FROM, _MOVED_TO, _CREATE, _DELETE = 0x08, 0x40, 0x80, 0x100, 0x200
_ATTRIB = 0x04  # a file that could not be read may be readable now
_UNMOUNT, _OVERFLOW, _IGNORED, _IS_DIRECTORY = 0x2000, 0x4000, 0x8000, 0x40000000
_ONLY_DIRECTORIES = 0x01000000
_WATCHED = _CLOSE_WRITE | _MOVED_FROM | _MOVED_TO | _CREATE | _DELETE | _ATTRIB | _ONLY_DIRECTORIES
_HEADER = struct.Struct("iIII")  # watch, mask, cookie, length of the name
_READ = 1 << 16  # bytes

_libc = ctypes.CDLL(None, use_errno=True)


class Inotify:
    """``root``: the directory of manifests. ``inside``: its .porterlb. Raises OSError if there can be no notices."""

    def __init__(self, root: Path, inside: Path) -> None:
        self._root, self._inside = root, inside
        self._read_below = (inside / "status", inside / "leases")
        self._folders: dict[int, Path] = {}  # by watch
        self.descriptor = _checked(_libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC))
        try:
            self._watch(root)
            self.cover()
        except OSError:
            self.close()
            raise

    def cover(self) -> None:
        """Watches the folders that exist now."""
        for folder in (*_below(self._root), *self._own()):
            try:
                self._watch(folder)
            except (FileNotFoundError, NotADirectoryError):
                continue  # not created yet, or removed meanwhile

    def read(self) -> set[Path] | None:
        """The files with a notice since the last call, without waiting; None: folders have changed or notices were
        lost, so that everything must be scanned after another :meth:`cover`."""
        found: set[Path] = set()
        whole = True
        while data := self._data():
            at = 0
            while at < len(data):
                watch, mask, _, length = _HEADER.unpack_from(data, at)
                at += _HEADER.size
                name = os.fsdecode(data[at : at + length].rstrip(b"\0"))
                at += length
                whole &= self._take(self._folders.get(watch), mask, name, found)
        return found if whole else None

    def close(self) -> None:
        os.close(self.descriptor)

    def _take(self, folder: Path | None, mask: int, name: str, found: set[Path]) -> bool:
        """Adds the file of a notice to ``found``. Returns False if everything must be scanned."""
        if mask & (_OVERFLOW | _UNMOUNT | _IGNORED):
            return False
        if folder is None:
            return True
        path = folder / name
        if name.startswith(".") and path != self._inside:
            return True
        if mask & _IS_DIRECTORY:
            return bool(mask & _ATTRIB)
        if folder.is_relative_to(self._inside):
            if folder.parent in self._read_below and path.suffix == ".json":
                found.add(path)
        elif mask & ~_CREATE:  # a file that was only created is written next
            found.add(path)
        return True

    def _data(self) -> bytes:
        try:
            return os.read(self.descriptor, _READ)
        except BlockingIOError:
            return b""

    def _watch(self, folder: Path) -> None:
        watch = _libc.inotify_add_watch(self.descriptor, os.fsencode(folder), _WATCHED)
        self._folders[_checked(watch, folder)] = folder

    def _own(self) -> Iterator[Path]:
        """The folders of .porterlb whose files are read, after their parents: what is created in a folder that is
        watched already leads to a notice, and to another :meth:`cover`."""
        yield self._inside
        for parent in self._read_below:
            yield parent
            with contextlib.suppress(FileNotFoundError, NotADirectoryError):
                yield from (Path(entry.path) for entry in os.scandir(parent) if entry.is_dir(follow_symlinks=False))


def _below(root: Path) -> Iterator[Path]:
    """The folders below ``root`` that may contain manifests."""
    for folder, folders, _ in os.walk(root):
        folders[:] = [name for name in folders if not name.startswith(".")]
        yield from (Path(folder) / name for name in folders)


def _checked(result: int, folder: Path | None = None) -> int:
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code), str(folder) if folder else "inotify")
    return result
