"""A lab node as a Kubernetes node: its files, its process 1, and the operations of a test on its programs."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import sys
from pathlib import Path

from lab import sweep
from lab.measure import wait_until
from lab.node import Node, pod_ranges
from lab.process import Process, descendants
from tests.cluster.controlplane.plane import ControlPlane
from tests.cluster.nodes import cgroups, config, images

SERVICE = "kubernetes"
"""Name of the node's process 1 among the processes of a lab node."""


class Machine:
    """Containerd and kubelet of one node. They start immediately and at each power-on; ``node.power_off()`` ends them.

    ``Machine(node, plane, program, store)``: ``program`` is the kubelet, ``store`` the folder of `images.prepare`.
    """

    def __init__(self, node: Node, plane: ControlPlane, program: Path, store: Path) -> None:
        self.node = node
        lab = node.net.id
        self.folder = images.ROOM / "state" / lab / node.name
        group = f"{sweep.PREFIX}{lab}-nodes/{node.name}"
        # Recorded first: the lab's removal then finds these folders after any failure, including the death of this
        # process.
        for elsewhere in (self.folder.parent, *(folder.parent for folder in cgroups.groups(group).values())):
            sweep.record(lab, elsewhere)
        self.folder.mkdir(parents=True)
        (self.folder / "cgroup").write_text(group)
        self._write(plane, program)
        images.populate(store, self.folder / "lib" / "containerd")
        apart = ["unshare", "--mount", "--pid", "--ipc", "--uts", "--fork", "--kill-child", "--mount-proc"]
        argv = [*apart, "--propagation", "private", sys.executable, "-m", "tests.cluster.nodes.init", str(self.folder)]
        node.remember(SERVICE, argv, cwd=images.CHECKOUT)

    def _write(self, plane: ControlPlane, program: Path) -> None:
        folder, name = self.folder, self.node.name
        for made in ("lib/kubelet", "held", "cni"):
            (folder / made).mkdir(parents=True)
        authority = plane.authority
        identity = plane.kubeconfig_as(f"system:node:{name}", ["system:nodes"])
        shutil.copy(identity, folder / "kubeconfig")
        shutil.copy("/etc/resolv.conf", folder / "resolv.conf")  # it may be a link into /run
        (folder / "containerd.toml").write_text(config.containerd(folder / "cni"))
        ranges = pod_ranges(self.node.index)
        (folder / "cni" / "10-lab.conflist").write_text(json.dumps(config.network(ranges)))
        (folder / "kubelet.json").write_text(json.dumps(config.kubelet(authority, folder / "resolv.conf")))
        kubelet = config.kubelet_command(program, folder, name, (self.node.v4, self.node.v6))
        programs = {"containerd": ["containerd", "--config", str(folder / "containerd.toml")], "kubelet": kubelet}
        (folder / "programs.json").write_text(json.dumps(programs))

    # Programs of the node

    @property
    def _process(self) -> Process:
        return next(each for each in self.node.processes if each.name == f"{self.node.name}/{SERVICE}")

    def processes(self, text: str) -> list[int]:
        """PIDs, in this process's PID namespace, of the node's processes whose command line matches a regular
        expression."""
        return [pid for pid, command in descendants(self._process.pid) if re.search(text, command)]

    def pid(self, program: str) -> int:
        """The PID of containerd or the kubelet."""
        return wait_until(lambda: self.processes(rf"^(\S*/)?{program} --config")[:1], 10, f"{program} to run")[0][0]

    def kill(self, program: str) -> None:
        """Sends SIGKILL. The program restarts shortly afterwards unless it is held."""
        os.kill(self.pid(program), signal.SIGKILL)

    def hold(self, program: str) -> None:
        """Kills the program and prevents its restart until :meth:`release`. Containers keep running."""
        (self.folder / "held" / program).touch()
        self.kill(program)

    def release(self, program: str) -> None:
        (self.folder / "held" / program).unlink(missing_ok=True)

    # Logs of the node's containers

    def logs(self, pattern: str) -> str:
        """Logs of containers: ``pattern`` is NAMESPACE_POD_UID/CONTAINER, with wildcards (*)."""
        found = sorted((self.folder / "log" / "pods").glob(f"{pattern}/*.log"))
        return "\n".join(path.read_text(errors="replace") for path in found)

    def complaints(self) -> str:
        """The end of the logs of the node's programs, for a failed test."""
        texts = {name: self.folder / "log" / f"{name}.log" for name in ("containerd", "kubelet")}
        return "\n".join(
            f"--- {self.node.name} {name}\n{path.read_text(errors='replace')[-3000:]}"
            for name, path in texts.items()
            if path.exists()
        )


def left(lab: str) -> list[str]:
    """Describes what a closed lab has left on this machine; empty if nothing remains."""
    state = images.ROOM / "state" / lab
    found = [f"folder {path}" for path in (state, sweep.STATE / lab) if path.exists()]
    for hierarchy in cgroups.hierarchies():
        groups = hierarchy.mount.rglob(f"{sweep.PREFIX}{lab}-nodes")
        found += [f"control group {path}" for path in groups]
    mounts = Path("/proc/self/mountinfo").read_text().splitlines()
    found += [f"mount {line.split()[4]}" for line in mounts if str(state) in line]
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                command = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            except OSError:
                continue  # the process has ended
            if str(state) in command:
                found.append(f"process {entry.name}: {command[:100]}")
    return found
