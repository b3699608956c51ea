"""What stands in for an image: which command of this checkout a container runs."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lab.workload import ECHO_PORT, HTTP_PORT, SERVER

CHECKOUT = Path(__file__).resolve().parents[3]

MANAGER = "lab/porterlb"
BACKEND = "lab/backend"
"""Answers with its pod's name: HTTP on 8080, echo on 7007 (lab/podserver.py)."""


class NoImage(Exception):
    """There is no such image, or no such command in it."""


def command(container: Mapping[str, Any], pod: str) -> list[str]:
    """The command line of a container: the pod's ``command`` and ``args``, or what the image says by itself.

    Raises NoImage, as pulling an image would fail.
    """
    image = str(container["image"]).partition(":")[0]
    given, arguments = list(container.get("command") or []), list(container.get("args") or [])
    if image == MANAGER:
        program, *rest = given or ["porterlb"]
        if program != "porterlb":
            raise NoImage(f"the image {image} has no program {program!r}")
        return [sys.executable, "-m", "porterlb", *rest, *(arguments or ([] if given else ["manager"]))]
    if image == BACKEND and not given and not arguments:
        return [sys.executable, "-I", "-S", str(SERVER), pod, str(HTTP_PORT), str(ECHO_PORT)]
    raise NoImage(f"there is no image {container['image']!r} (with the command {given + arguments})")


def environment() -> dict[str, str]:
    """What an image brings by itself."""
    return {
        "PATH": f"{Path(sys.executable).parent}:/usr/sbin:/usr/bin:/sbin:/bin",
        "PYTHONPATH": str(CHECKOUT),
        "PYTHONUNBUFFERED": "1",
        "HOME": "/",
    }
