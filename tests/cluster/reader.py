"""A reader who follows a page of docs/ on real nodes: on a machine in their subnet, with kubectl, Helm and the command
line."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Mapping
from pathlib import Path

from lab.workload import HTTP_PORT
from tests.cluster import helm_command
from tests.cluster.nodes import images
from tests.cluster.whole import Whole
from tests.pages import CHECKOUT, Desk

REPLACED: Mapping[str, str] = {
    "REGISTRY/porterlb": images.MANAGER,
    "--image=nginx": f"--image={images.BACKEND}",
    "--port=80": f"--port=80 --target-port={HTTP_PORT}",
    "192.168.1.": "10.77.0.",
}
"""The placeholders that pages ask their readers to replace, and the application."""


def desk(lab: Whole, folder: Path, here: Path = CHECKOUT) -> Desk:
    """``folder``: for programs. ``here``: the current folder. ``helm`` is the one on PATH. If there is none, a
    substitute based on Helm's library is used (`helm_command`)."""
    plane = lab.backend.plane
    if not shutil.which("helm"):
        helm_command.script(folder)
    return Desk(
        lab.segment_client,
        folder,
        {**REPLACED, "API_SERVER_ADDRESS": lab.backend.host.v4, " charts/porterlb": f" {CHECKOUT}/charts/porterlb"},
        {
            "kubectl": str(plane.program("kubectl")),
            "kubectl-porterlb": f"{sys.executable} -m porterlb",
            "porterlb": f"{sys.executable} -m porterlb",
        },
        {"KUBECONFIG": str(plane.kubeconfig_as("reader", ["system:masters"]))},
        here,
    )
