"""The store of the API objects of the lab's cluster. `DirBackend` is a directory of YAML manifests.

A backend for a real API server has the same few methods. Scenarios therefore run on both.
"""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Protocol

import yaml

from lab.measure import wait_until
from lab.netns import LabError, run_command
from porterlb.cluster import Kind, Unavailable
from porterlb.edge.manifests import ManifestsCluster

Object = dict[str, Any]

_KINDS = {kind.kind: kind for kind in Kind}
_Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_Dumper: Any = getattr(yaml, "CSafeDumper", yaml.SafeDumper)


class Backend(Protocol):
    """API objects as plain dicts, and each node's access to them."""

    def attach(self, nodes: Iterable[str]) -> None:
        """Gives each node its access. The nodes already exist."""

    def apply(self, obj: Object) -> None:
        """Creates the object, or replaces the one with the same kind, namespace and name."""

    def delete(self, kind: str, name: str, namespace: str = "") -> None:
        """Removes the object. Raises LabError if it does not exist."""

    def objects(self, kind: str) -> list[Object]:
        """All objects of a kind, as last applied, without the status that status() returns."""

    def status(self, kind: str, name: str, namespace: str = "") -> Object:
        """The object's status as the product has written it; empty if it has not written one."""

    def events(self, kind: str, name: str, namespace: str = "") -> list[Object]:
        """The Events about an object. Each has type, reason, message and count."""

    def leader(self) -> str:
        """The holder of the leader's lease, exactly as written in the lease; empty if no replica holds it."""

    def manager_args(self, node: str) -> list[str]:
        """Command-line arguments that make a manager on that node find this API."""

    def cut(self, node: str) -> None:
        """Cuts the node off from the API."""

    def restore(self, node: str) -> None: ...

    def reachable(self, node: str) -> bool: ...

    def close(self) -> None: ...


class DirBackend:
    """A directory of manifests, bind-mounted for each node at a separate path, which can be removed.

    Args:
        folder: the directory; created if missing.
        mounts: the folder of the nodes' paths.
    """

    def __init__(self, folder: Path, mounts: Path) -> None:
        self.folder = folder
        self.mounts = mounts
        folder.mkdir(parents=True, exist_ok=True)
        self._cut: set[str] = set()
        self._statuses: dict[Path, tuple[int, Object]] = {}
        self._parsed: dict[Path, tuple[int, list[Object]]] = {}

    # Objects

    def _file(self, kind: str, name: str, namespace: str) -> Path:
        return self.folder / ("-".join(part for part in (kind.lower(), namespace, name) if part) + ".yaml")

    def apply(self, obj: Object) -> None:
        meta = obj["metadata"]
        path = self._file(obj["kind"], meta["name"], meta.get("namespace", ""))
        fresh = path.with_name(f".{path.name}.new")
        fresh.write_text(yaml.dump(obj, Dumper=_Dumper, sort_keys=False))
        fresh.rename(path)

    def delete(self, kind: str, name: str, namespace: str = "") -> None:
        try:
            self._file(kind, name, namespace).unlink()
        except FileNotFoundError:
            raise LabError(f"there is no {kind} {namespace}/{name} in {self.folder}") from None

    def objects(self, kind: str) -> list[Object]:
        found = []
        paths = {Path(entry.path): entry for entry in os.scandir(self.folder) if entry.name.endswith(".yaml")}
        self._parsed = {path: parsed for path, parsed in self._parsed.items() if path in paths}
        for path, entry in sorted(paths.items()):
            if entry.name.startswith("."):
                continue
            try:
                changed = entry.stat().st_mtime_ns
                before = self._parsed.get(path)
                if before is None or before[0] != changed:
                    documents = list(yaml.load_all(path.read_text(), Loader=_Loader))
                    before = changed, [doc for doc in documents if isinstance(doc, dict)]
                    self._parsed[path] = before
            except (OSError, yaml.YAMLError):  # removed, or broken on purpose: the product must handle that
                continue
            found += [doc for doc in before[1] if doc.get("kind") == kind]
        return found

    def events(self, kind: str, name: str, namespace: str = "") -> list[Object]:
        path = self.folder / ".porterlb" / "events.jsonl"
        found = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
        return [e for e in found if (e["kind"], e["name"], e["namespace"]) == (kind, name, namespace)]

    def leader(self) -> str:
        versions = (self.folder / ".porterlb" / "leases" / "porterlb").glob("*.json")
        try:
            newest = max(versions, key=lambda path: int(path.stem))
            record = json.loads(newest.read_text())
        except (OSError, ValueError):
            return ""
        return str(record.get("holder", ""))

    def status_file(self, kind: str, name: str, namespace: str = "") -> Path:
        """The file in which the product stores the status of an object."""
        stem = f"{namespace}_{name}" if namespace else name
        return self.folder / ".porterlb" / "status" / kind / f"{stem}.json"

    def status(self, kind: str, name: str, namespace: str = "") -> Object:
        path = self.status_file(kind, name, namespace)
        try:
            changed = path.stat().st_mtime_ns
            before = self._statuses.get(path)
            if before is None or before[0] != changed:
                owners = json.loads(path.read_text()).get("owners", {})
                before = changed, _merged([owners[owner] for owner in sorted(owners)])
                self._statuses[path] = before
        except (OSError, ValueError):
            return {}
        return before[1]

    def write_status(
        self, kind: str, name: str, fields: Object, manager: str, namespace: str = "", patience: float = 30.0
    ) -> None:
        """Writes fields of a status as another controller does: with its own field manager, taking them from other
        managers. A busy machine delays a write, and a stopped process can hold the lock of the object: the write is
        repeated for ``patience`` seconds."""

        async def write() -> bool:
            cluster = ManifestsCluster(self.folder)
            try:
                await cluster.apply_status(_KINDS[kind], name, namespace, fields, owner=manager)
            except Unavailable as error:
                raise LabError(str(error)) from None
            finally:
                await cluster.close()
            return True

        wait_until(lambda: asyncio.run(write()), patience, f"the status of {kind} {name} to be written", interval=0.5)

    # Nodes

    def node_path(self, node: str) -> Path:
        """The path at which that node sees the directory."""
        return self.mounts / node

    def attach(self, nodes: Iterable[str]) -> None:
        for node in nodes:
            self._mount(self.node_path(node))

    def _mount(self, path: Path) -> None:
        path.mkdir(parents=True, exist_ok=True)
        run_command(["mount", "--bind", str(self.folder), str(path)])

    def manager_args(self, node: str) -> list[str]:
        return ["--cluster", f"dir:{self.node_path(node)}"]

    def cut(self, node: str) -> None:
        if node not in self._cut:
            run_command(["umount", "-l", str(self.node_path(node))])
            self.node_path(node).rmdir()  # missing, not empty: no new cluster can be started there
            self._cut.add(node)

    def restore(self, node: str) -> None:
        if node in self._cut:
            self._mount(self.node_path(node))
            self._cut.discard(node)

    def reachable(self, node: str) -> bool:
        return node not in self._cut

    def close(self) -> None:
        """The mounts are removed with the lab's folder. The given directory stays."""


def _merged(parts: list[Object]) -> Object:
    # Each owner keeps the fields that it wrote. Lists of conditions are merged; every other list belongs to one owner
    whole: Object = {}
    for part in parts:
        for key, value in part.items():
            old = whole.get(key)
            if isinstance(old, dict) and isinstance(value, dict):
                whole[key] = _merged([old, value])
            elif isinstance(old, list) and key == "conditions":
                whole[key] = [*old, *value]
            else:
                whole[key] = value
    return whole
