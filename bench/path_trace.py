"""Records each call that enters another file of porterlb; inside a manager or a wire process also each send.

bench/path.py makes Python start it (sitecustomize) in each process of one replica. It is slow: a run with it shows
nothing about speed. The records are written to a file when the process ends.
"""

from __future__ import annotations

import atexit
import json
import os
import socket
import sys
import threading
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

FOLDER = "PORTERLB_PATH_TRACE"
"""Name of the environment variable with the folder for the records."""

Note = tuple[float, str, str, str, str]
"""Wall-clock seconds; ``call``, ``pipe``, ``packet`` or ``exabgp``; calling file ('' for the event loop or a new
thread), entered file, function."""

_NOTES: deque[Note] = deque(maxlen=1 << 20)
_SENDS = frozenset({"send", "sendto", "sendmsg", "write"})
_BACKGROUND = "pulse"  # the thread that beats each second
_names: dict[str, str] = {}


def begin() -> None:
    """Starts the trace in the processes whose path is counted. Does nothing in any other process."""
    part = {"porterlb": "manager", "porterlb.wire": "wire"}.get(_module(sys.orig_argv))
    if part is None or FOLDER not in os.environ:
        return
    file = Path(os.environ[FOLDER]) / f"{part}-{os.getpid()}.json"
    atexit.register(lambda: file.write_text(json.dumps(list(_NOTES))))
    threading.setprofile(_look)
    sys.setprofile(_look)


def entering(call: Callable[[], object]) -> list[tuple[str, str, str]]:
    """The calls that enter another file during one call in this process: calling file, entered file, function."""
    found: list[tuple[str, str, str]] = []

    def look(frame: FrameType, event: str, _: Any) -> None:
        if event == "call" and (file := _file(frame)) and (caller := _caller(frame)) != file:
            found.append((caller, file, frame.f_code.co_name))

    sys.setprofile(look)
    try:
        call()
    finally:
        sys.setprofile(None)
    return found


def _module(argv: list[str]) -> str:
    """The module that ``python -m`` runs."""
    return argv[argv.index("-m") + 1] if "-m" in argv[:-1] else ""


def _look(frame: FrameType, event: str, argument: Any) -> None:
    if event == "call":
        file = _file(frame)
        if file:
            caller = _caller(frame)
            if caller != file and threading.current_thread().name != _BACKGROUND:
                _NOTES.append((time.time(), "call", caller, file, frame.f_code.co_name))
    elif event == "c_call" and argument.__name__ in _SENDS:
        target = argument.__self__
        file = _file(frame)
        if isinstance(target, socket.socket):
            if target.family == socket.AF_PACKET:
                _NOTES.append((time.time(), "packet", "", file, frame.f_code.co_name))
            elif target.family == socket.AF_UNIX and frame.f_code.co_filename.endswith("selector_events.py"):
                _NOTES.append((time.time(), "pipe", "", file, frame.f_code.co_name))
        elif file.startswith("edge/bgp/"):
            _NOTES.append((time.time(), "exabgp", "", file, frame.f_code.co_name))


def _caller(frame: FrameType) -> str:
    """The file of porterlb from which the call comes. Frames of other files are skipped."""
    back = frame.f_back
    while back is not None:
        if file := _file(back):
            return file
        back = back.f_back
    return ""


def _file(frame: FrameType) -> str:
    """The path below porterlb/; empty for any other file."""
    name = frame.f_code.co_filename
    found = _names.get(name)
    if found is None:
        found = _names[name] = name.rpartition("/porterlb/")[2] if "/porterlb/" in name else ""
    return found
