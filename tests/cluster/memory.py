"""Makes a replica on a real node run out of memory."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Any

from lab.measure import wait_until
from tests.cluster.controlplane.program import PlaneError
from tests.cluster.nodes import cgroups
from tests.cluster.nodes.node import Machine
from tests.cluster.whole import NAMESPACE, Whole


def restarts(pod: Any) -> int:
    return int(pod.status.container_statuses[0].restart_count)


def group_of(machine: Machine, pod: Any) -> Path:
    """The memory control group of a pod's container."""
    identity = pod.status.container_statuses[0].container_id.removeprefix("containerd://")
    group = (machine.folder / "cgroup").read_text()
    found = [path for folder in cgroups.groups(group).values() for path in folder.rglob(identity)]
    (memory,) = [path for path in found if (path / "memory.limit_in_bytes").exists() or (path / "memory.max").exists()]
    return memory


def kill_for_memory(lab: Whole, name: str) -> None:
    """Lowers the limit to slightly above the memory that cannot be reclaimed, and then fills the in-memory volume. The
    kernel kills the largest process."""
    pod = lab.replicas()[name]
    group = group_of(lab.machines[name], pod)
    version_1 = group / "memory.limit_in_bytes"
    stat = dict(line.split() for line in (group / "memory.stat").read_text().splitlines())
    kept = int(stat["rss"] if version_1.exists() else stat["anon"])
    limit = version_1 if version_1.exists() else group / "memory.max"
    limit.write_text(str(kept + (24 << 20)))
    grow = ("-n", NAMESPACE, "exec", pod.metadata.name, "--", "sh", "-c", "cat /dev/zero > /run/porterlb/full")
    with suppress(PlaneError):  # the command may be killed too
        lab.kubectl(*grow)
    wait_until(lambda: restarts(lab.replicas()[name]) > restarts(pod), 30, "the replica to be killed", 0.1)
