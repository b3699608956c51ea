"""What each replica knows, in .porterlb/replicas/NODE.json: for those who cannot reach its web server."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from urllib.parse import quote

from porterlb.cluster import Obj, ReplicaState, Unavailable
from porterlb.edge.manifests.home import Home


def _path(home: Home, node: str) -> Path:
    return home.inside / "replicas" / f"{quote(node, safe='')}.json"


def write(home: Home, node: str, text: str | None) -> None:
    """Replaces the state of a replica; None: it is still as it was, now. Blocking. Raises OSError or Unavailable."""
    home.guard()
    path = _path(home, node)
    if text is None:
        os.utime(path)
        return
    path.parent.mkdir(exist_ok=True)
    home.replace(path, text.encode())


def remove(home: Home, node: str) -> None:
    """A replica that stops leaves nothing behind. Blocking."""
    home.guard()
    _path(home, node).unlink(missing_ok=True)


def read(home: Home, node: str) -> ReplicaState:
    """Blocking. Raises Unavailable where there is none, or none that can be read."""
    path = _path(home, node)
    try:
        age = time.time() - path.stat().st_mtime
        state: Obj = json.loads(path.read_bytes())
    except FileNotFoundError:
        raise Unavailable("It has not written its state.") from None
    except ValueError:
        raise Unavailable(f"{path} cannot be read: it is not JSON.") from None
    return ReplicaState(node, state, max(0.0, age), "file")
