"""The nodes themselves: real kubelets that leave this machine unchanged, even after failures."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from lab import sweep
from lab.measure import wait_until
from lab.netns import LabError
from tests.cluster.nodes import cgroups, images, init
from tests.cluster.nodes.node import Machine, left
from tests.cluster.whole import Whole, is_ready, whole

pytestmark = [pytest.mark.cluster, pytest.mark.lab, pytest.mark.nodes, pytest.mark.timeout(300)]

CHECKOUT = Path(__file__).parents[2]


def settings() -> dict[str, str]:
    """The settings of the whole machine's kernel that a kubelet writes."""
    return {name: Path("/proc/sys", name).read_text().strip() for name in init.SETTINGS}


BEFORE = settings()


@pytest.fixture(scope="module")
def lab() -> Iterator[Whole]:
    with whole(nodes=1, routers=()) as made:
        yield made


def pod(lab: Whole, name: str) -> Any:
    return lab.core.read_namespaced_pod(name, "default")


def test_a_node_has_its_addresses_and_runs_pods_behind_its_bridge(lab: Whole) -> None:
    nodes: Any = lab.core.list_node()
    (node,) = nodes.items
    addresses = [each.address for each in node.status.addresses if each.type == "InternalIP"]
    assert addresses == [lab.nodes[0].v4, lab.nodes[0].v6]
    lab.kubectl("run", "one", f"--image={images.BACKEND}")
    wait_until(lambda: is_ready(pod(lab, "one")), 30, "the pod", 0.1)
    status = pod(lab, "one").status
    assert status.pod_ip.startswith("10.244.1.") and status.pod_ips[1].ip.startswith("fd44:1:")
    assert lab.nodes[0].http(status.pod_ip, 8080)[1].strip() == "one"
    assert lab.kubectl("exec", "one", "--", "hostname").strip() == "one", "the API server reaches the kubelet"
    lab.kubectl("delete", "pod", "one", "--now")


def test_the_kernel_of_this_machine_has_the_settings_that_it_had(lab: Whole) -> None:
    machine = lab.machines["node-a"]
    assert settings() == BEFORE
    written = {name: (machine.folder / "kernel" / name.replace("/", ".")).read_text().strip() for name in init.SETTINGS}
    assert written == {name: str(value) for name, value in init.SETTINGS.items()}


def test_a_loss_of_power_ends_all_containers_and_the_disk_survives(lab: Whole) -> None:
    lab.kubectl("run", "lasting", f"--image={images.BACKEND}")
    wait_until(lambda: is_ready(pod(lab, "lasting")), 30, "the pod", 0.1)
    machine = lab.machines["node-a"]
    (server,) = machine.processes("podserver.py lasting ")
    uid = pod(lab, "lasting").metadata.uid
    lab.nodes[0].power_off()
    wait_until(lambda: not Path(f"/proc/{server}").exists(), 2, "the container to have ended")
    lab.nodes[0].power_on()
    wait_until(
        lambda: is_ready(found := pod(lab, "lasting")) and found.status.container_statuses[0].restart_count == 1,
        30,
        "the pod to run again",
        0.1,
    )
    assert pod(lab, "lasting").metadata.uid == uid, "the same pod"
    lab.kubectl("delete", "pod", "lasting", "--now")


def test_a_failure_in_the_middle_leaves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """The creation of the second node fails while the first node's programs start."""
    made = Machine.__init__
    labs = []

    def fail(self: Machine, *arguments: object) -> None:
        made(self, *arguments)  # type: ignore[arg-type]
        labs.append(self.node.net.id)
        if self.node.name == "node-b":
            raise LabError("as if the disk were full")

    monkeypatch.setattr(Machine, "__init__", fail)
    with pytest.raises(LabError, match="as if the disk were full"), whole(nodes=2, routers=()):
        pass
    assert labs and left(labs[0]) == []


def test_what_a_killed_run_leaves_is_removed_by_the_next() -> None:
    """SIGKILL to the test run: the kernel ends the processes, and the next lab removes folders and control groups."""
    script = (
        "import time\n"
        "from tests.cluster.whole import whole\n"
        "with whole(nodes=1, routers=()) as lab:\n"
        "    print(lab.net.id, flush=True)\n"
        "    time.sleep(600)\n"
    )
    argv = [sys.executable, "-c", script]
    with subprocess.Popen(argv, cwd=CHECKOUT, stdout=subprocess.PIPE, text=True) as run:
        assert run.stdout is not None
        lab = run.stdout.readline().strip()
        os.kill(run.pid, signal.SIGKILL)
    assert lab and left(lab), "there was something"
    group = f"{sweep.PREFIX}{lab}-nodes/node-a"
    assert any(folder.exists() for folder in cgroups.groups(group).values())
    assert lab in sweep.sweep()
    assert left(lab) == []
