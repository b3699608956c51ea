"""What each replica knows, in .porterlb/replicas/NODE.json: for readers that cannot reach its web server."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from urllib.parse import quote

from porterlb.cluster import Obj, ReplicaState, Unavailable
from porterlb.edge.manifests.state_dir import StateDir


def _path(state_dir: StateDir, node: str) -> Path:
    return state_dir.inside / "replicas" / f"{quote(node, safe='')}.json"


def write(state_dir: StateDir, node: str, text: str | None) -> None:
    """Replaces the state of a replica; None: it is still the same now. Blocking. Raises OSError or Unavailable."""
    state_dir.guard()
    path = _path(state_dir, node)
    if text is None:
        os.utime(path)
        return
    path.parent.mkdir(exist_ok=True)
    state_dir.replace(path, text.encode())


def remove(state_dir: StateDir, node: str) -> None:
    """Removes the state of a replica that stops. Blocking."""
    state_dir.guard()
    _path(state_dir, node).unlink(missing_ok=True)


def read(state_dir: StateDir, node: str) -> ReplicaState:
    """The state of a replica. Blocking. Raises Unavailable if there is none, or if it cannot be read."""
    path = _path(state_dir, node)
    try:
        age = time.time() - path.stat().st_mtime
        state: Obj = json.loads(path.read_bytes())
    except FileNotFoundError:
        raise Unavailable("It has not written its state.") from None
    except ValueError:
        raise Unavailable(f"{path} cannot be read: it is not JSON.") from None
    return ReplicaState(node, state, max(0.0, age), "file")
