"""All manifests of a directory: which objects exist now, and what is wrong with the files.

An object that was once good is removed only when that is certainly intended: a file that cannot be read or is not
valid keeps its last good objects, and a missing object must stay missing for a moment, because editors and cp empty a
file before they write it.
"""

from __future__ import annotations

import logging
import os
import stat
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from porterlb.edge.manifests.documents import Document, DocumentKey, Loaded, load, source
from porterlb.edge.manifests.state_dir import signature_of

log = logging.getLogger(__name__)

SUFFIXES = (".yaml", ".yml", ".json")
GRACE = 0.1  # seconds that an object must be missing before it counts as deleted
BIGGEST = 64 * 1024 * 1024  # bytes of one file


@dataclass(slots=True)
class _File:
    signature: tuple[int, int, int]
    loaded: Loaded


def _loaded(content: bytes, name: str) -> Loaded:
    try:
        return load(content.decode("utf-8-sig"), name, source(content))
    except UnicodeDecodeError:
        return Loaded((), {1: "This is not UTF-8 text."}, frozenset(), True)
    except Exception as error:  # one file must not keep the others from being read
        log.exception("reading %s failed", name)
        fault = f"The file cannot be read ({type(error).__name__}); the last good version of its objects stays."
        return Loaded((), {1: fault}, frozenset(), True)


def _signature(path: Path) -> tuple[int, int, int] | None:
    """What changes when a regular file is written; None if there is none."""
    try:
        found = path.stat()
    except OSError:
        return None
    return signature_of(found) if stat.S_ISREG(found.st_mode) else None


class Directory:
    """Blocking; used by one thread at a time. ``now`` is monotonic, in seconds."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.published: dict[DocumentKey, Document] = {}
        self.recheck: float | None = None
        """When to scan again, because an object is missing that does not count as deleted yet."""
        self._files: dict[str, _File] = {}
        self._candidates: dict[DocumentKey, dict[str, Document]] = {}
        self._in_file: dict[str, set[DocumentKey]] = {}  # what is published, by file
        self._missing: dict[DocumentKey, float] = {}
        self._duplicates: dict[DocumentKey, dict[str, str]] = {}
        self._faulty: dict[str, dict[str, str]] = {}

    def seed(self, documents: Iterable[Document]) -> None:
        """Sets the objects that were good before the start. Call it once, before the first scan."""
        for document in documents:
            self._publish(document)

    def read(self, paths: Iterable[Path] | None = None) -> set[DocumentKey]:
        """Reads what has changed (of ``paths``, or of everything) and returns the keys to resolve.

        Raises OSError if the directory itself cannot be listed.
        """
        touched: set[DocumentKey] = set(self._missing)
        if paths is None:
            names = self._names(self._files)
            for name in self._files.keys() - names:
                touched |= self._take(name, None)
            touched |= self.published.keys() - self._candidates.keys()
        else:
            names = {name for path in paths if (name := self._name(path))}
        for name in sorted(names):
            touched |= self._look(name)
        return touched

    def changed(self) -> list[Path]:
        """The files that are not as they were when they were read. Changes nothing, and may run beside other methods.

        Raises OSError if the directory itself cannot be listed.
        """
        known = {name: file.signature for name, file in self._files.copy().items()}
        names = self._names(known)
        return [self.root / name for name in known.keys() | names if _signature(self.root / name) != known.get(name)]

    def resolve(
        self, touched: Iterable[DocumentKey], now: float, grace: float = GRACE
    ) -> dict[DocumentKey, Document | None]:
        """Publishes what was read. Returns the keys whose object has changed, with the previous object."""
        self.recheck = None
        before = {key: self.published.get(key) for key in touched}
        return {key: old for key, old in before.items() if self._resolve(key, now, grace)}

    def problems(self) -> dict[str, str]:
        """A sentence for each place (``file:line``) that something is wrong with."""
        found: dict[str, str] = {}
        for part in (*self._faulty.values(), *self._duplicates.values()):
            for where, message in part.items():
                found[where] = f"{found[where]} {message}" if where in found else message
        return found

    def _name(self, path: Path) -> str:
        """The path below the root, or nothing if it is not a manifest."""
        try:
            relative = path.relative_to(self.root)
        except ValueError:
            return ""
        if any(part.startswith(".") for part in relative.parts) or relative.suffix not in SUFFIXES:
            return ""
        return str(relative)

    def _names(self, known: Iterable[str]) -> set[str]:
        """The manifests that are there now. ``known``: those that were there before."""
        found: set[str] = set()

        def failed(error: OSError) -> None:
            if error.filename == str(self.root):
                raise error
            if not isinstance(error, FileNotFoundError):  # a subfolder that cannot be listed keeps its objects
                prefix = os.path.relpath(error.filename, self.root)
                found.update(name for name in known if name.startswith(f"{prefix}/"))

        for folder, folders, files in os.walk(self.root, onerror=failed):
            folders[:] = [name for name in folders if not name.startswith(".")]
            prefix = os.path.relpath(folder, self.root)
            for name in files:
                if name.endswith(SUFFIXES) and not name.startswith("."):
                    found.add(name if prefix == "." else f"{prefix}/{name}")
        return found

    def _look(self, name: str) -> set[DocumentKey]:
        path = self.root / name
        try:
            found = path.stat()
            if not stat.S_ISREG(found.st_mode):
                return set()
            signature = signature_of(found)
            known = self._files.get(name)
            if known and known.signature == signature:
                return set()
            if found.st_size > BIGGEST:
                loaded = Loaded((), {1: "The file is too big."}, frozenset(), True)
            else:
                content = path.read_bytes()
                loaded = self._as_before(content, name) or _loaded(content, name)
        except FileNotFoundError:
            return self._take(name, None)
        except OSError as error:
            loaded = Loaded((), {1: f"The file cannot be read: {error.strerror}."}, frozenset(), True)
            signature = (0, 0, 0)
        return self._take(name, _File(signature, loaded))

    def _as_before(self, content: bytes, name: str) -> Loaded | None:
        """The objects of a file that has not been read since the start, if it is the same as before."""
        published = [self.published[key] for key in self._in_file.get(name, ()) if name not in self._files]
        if not published or published[0].of != len(published):
            return None
        found = source(content)
        if any(document.source != found for document in published):
            return None
        return Loaded(tuple(sorted(published, key=lambda document: document.line)))

    def _take(self, name: str, file: _File | None) -> set[DocumentKey]:
        old = self._files.pop(name, None)
        touched: set[DocumentKey] = set()
        for document in old.loaded.documents if old else ():
            touched.add(document.key)
            candidates = self._candidates.get(document.key, {})
            candidates.pop(name, None)
            if not candidates:
                self._candidates.pop(document.key, None)
        touched |= old.loaded.refused if old else set()
        self._faulty.pop(name, None)
        published = self._in_file.get(name, set())
        touched |= self._missing.keys() & published
        if file is None:
            return touched | published
        self._files[name] = file
        for document in file.loaded.documents:
            touched.add(document.key)
            self._candidates.setdefault(document.key, {})[name] = document
        if file.loaded.troubles:
            self._faulty[name] = {f"{name}:{line}": text for line, text in file.loaded.troubles.items()}
        if old is None or old.loaded.doubtful:
            # Objects kept while the file was doubtful, or from before the start, are checked again.
            touched |= published
        return touched

    def _resolve(self, key: DocumentKey, now: float, grace: float) -> bool:
        candidates = self._candidates.get(key, {})
        current = self.published.get(key)
        self._duplicates.pop(key, None)
        if candidates:
            self._missing.pop(key, None)
            file = current.file if current and current.file in candidates else min(candidates)
            chosen = candidates[file]
            if len(candidates) > 1:
                self._duplicates[key] = {
                    f"{other.file}:{other.line}": f"{key} is in {file}:{chosen.line} already; that one is used."
                    for other in candidates.values()
                    if other is not chosen
                }
            self._publish(chosen)
            return current is None or (current.digest, current.file) != (chosen.digest, chosen.file)
        if current is None:
            return False
        if self._kept(key, current):
            self._missing.pop(key, None)
            return False
        since = self._missing.setdefault(key, now)
        if now - since < grace:
            self.recheck = min(self.recheck or since + grace, since + grace)
            return False
        del self._missing[key]
        self._withdraw(key)
        return True

    def _publish(self, document: Document) -> None:
        self._withdraw(document.key)
        self.published[document.key] = document
        self._in_file.setdefault(document.file, set()).add(document.key)

    def _withdraw(self, key: DocumentKey) -> None:
        old = self.published.pop(key, None)
        if old is not None:
            keys = self._in_file[old.file]
            keys.discard(key)
            if not keys:
                del self._in_file[old.file]

    def _kept(self, key: DocumentKey, current: Document) -> bool:
        """Whether an object that no file defines stays, because its file is broken or has it in a broken version."""
        file = self._files.get(current.file)
        if file is None:
            return any(key in other.loaded.refused for other in self._files.values())
        return file.loaded.doubtful or key in file.loaded.refused
