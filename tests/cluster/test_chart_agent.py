"""The node agent does what a kubelet does, as far as the chart's pods need it."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from lab.measure import wait_until
from lab.process import descendants
from lab.workload import HTTP_PORT
from tests.cluster.agent import images, resolve, sandbox
from tests.cluster.whole import Whole, is_ready, whole

pytestmark = [pytest.mark.cluster, pytest.mark.lab]


@pytest.fixture(scope="module")
def lab() -> Iterator[Whole]:
    with whole(nodes=1, routers=()) as made:
        yield made


def pod(name: str, container: dict[str, Any] | None = None, **spec: Any) -> dict[str, Any]:
    server = {"name": "server", "image": images.BACKEND, **(container or {})}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": "default", "labels": {"app": name}},
        "spec": {"terminationGracePeriodSeconds": 1, "containers": [server], **spec},
    }


def start(lab: Whole, wanted: dict[str, Any]) -> str:
    lab.backend.apply(wanted)
    return str(wanted["metadata"]["name"])


def read(lab: Whole, name: str) -> Any:
    return lab.core.read_namespaced_pod(name, "default")


def wait_ready(lab: Whole, name: str) -> Any:
    return wait_until(lambda: found if is_ready(found := read(lab, name)) else None, 30, f"{name} to be ready", 0.1)[0]


def container(lab: Whole, name: str) -> Any:
    statuses = read(lab, name).status.container_statuses
    return statuses[0] if statuses else None


def process(lab: Whole, name: str) -> int:
    """The process of a backend, which has the pod's name as an argument; once the container is set up."""
    agent = next(process for process in lab.nodes[0].processes if process.name.endswith("/agent"))

    def found() -> list[int]:
        family = descendants(agent.pid)
        return [pid for pid, line in family if line.startswith(sys.executable) and f"podserver.py {name} " in line]

    (pid,) = wait_until(found, 10, f"the process of {name}")[0]
    return pid


def gone(pid: int) -> bool:
    return not Path(f"/proc/{pid}").exists()


def delete(lab: Whole, *names: str) -> float:
    begun = time.monotonic()
    for name in names:
        lab.kubectl("delete", "pod", name, "--timeout=30s")
    return time.monotonic() - begun


def test_node_is_registered_and_ready(lab: Whole) -> None:
    core: Any = lab.core
    (node,) = core.list_node().items
    addresses = [a.address for a in node.status.addresses if a.type == "InternalIP"]
    assert addresses == [lab.nodes[0].v4, lab.nodes[0].v6]
    assert lab.ready("node-a") == "True"


def test_environment_volumes_and_token(lab: Whole) -> None:
    meta = {"namespace": "default"}
    lab.backend.apply(
        {"apiVersion": "v1", "kind": "Secret", "metadata": {**meta, "name": "s"}, "stringData": {"key": "hidden"}}
    )
    lab.kubectl("create", "configmap", "c", "--from-literal=colour=blue", "-n", "default")
    env = [
        {"name": "POD", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
        {"name": "NODE", "valueFrom": {"fieldRef": {"fieldPath": "spec.nodeName"}}},
        {"name": "IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}},
        {"name": "SECRET", "valueFrom": {"secretKeyRef": {"name": "s", "key": "key"}}},
        {"name": "WHOLE", "value": "$(POD) on $(NODE), $$(POD)"},
    ]
    mounts = [{"name": name, "mountPath": f"/run/{name}"} for name in ("secret", "empty")]
    volumes = [{"name": "secret", "secret": {"secretName": "s"}}, {"name": "empty", "emptyDir": {}}]
    security = {"readOnlyRootFilesystem": True, "capabilities": {"drop": ["ALL"]}, "allowPrivilegeEscalation": False}
    own = {"env": env, "envFrom": [{"configMapRef": {"name": "c"}}], "volumeMounts": mounts}
    name = start(lab, pod("given", {**own, "securityContext": security}, volumes=volumes))
    found = wait_ready(lab, name)
    pid = process(lab, name)
    given = dict(item.split("=", 1) for item in Path(f"/proc/{pid}/environ").read_text().split("\0") if item)
    assert (given["POD"], given["NODE"], given["IP"]) == ("given", "node-a", found.status.pod_ip)
    assert (given["SECRET"], given["colour"]) == ("hidden", "blue")
    assert given["WHOLE"] == "given on node-a, $(POD)"
    assert "KUBECONFIG" not in given and given["KUBERNETES_SERVICE_HOST"] == "10.96.0.1"
    root = Path(f"/proc/{pid}/root")
    assert (root / "run/secret/key").read_text() == "hidden"
    account = root / "run/secrets/kubernetes.io/serviceaccount"
    assert {path.name for path in account.iterdir()} == {"token", "ca.crt", "namespace"}
    status = Path(f"/proc/{pid}/status").read_text()
    assert "CapEff:\t0000000000000000" in status and "CapBnd:\t0000000000000000" in status
    assert "NSpid:" in status and status.split("NSpid:")[1].split("\n")[0].split()[-1] == "1"
    assert delete(lab, name) < 20
    assert gone(pid)


def test_a_container_that_ends_is_started_again_with_growing_pauses(lab: Whole) -> None:
    name = start(lab, pod("crashing"))
    wait_ready(lab, name)
    os.kill(process(lab, name), signal.SIGKILL)
    wait_until(
        lambda: container(lab, name).restart_count == 1 and is_ready(read(lab, name)), 8, "the first at once", 0.1
    )
    os.kill(process(lab, name), signal.SIGKILL)
    wait_until(lambda: container(lab, name).state.waiting, 8, "the second to wait", 0.1)
    waiting = container(lab, name)
    assert waiting.state.waiting.reason == "CrashLoopBackOff"
    assert waiting.last_state.terminated.exit_code in (137, 1)  # unshare 2.38 does not tell which signal it was
    assert not is_ready(read(lab, name))
    delete(lab, name)


def test_restart_policy_never(lab: Whole) -> None:
    name = start(lab, pod("once", restartPolicy="Never"))
    wait_ready(lab, name)
    os.kill(process(lab, name), signal.SIGKILL)
    wait_until(lambda: read(lab, name).status.phase == "Failed", 10, "it to have failed", 0.1)
    delete(lab, name)


def test_probes(lab: Whole) -> None:
    """A readiness probe that fails keeps the pod from being ready; a liveness probe that fails restarts it."""
    wrong = {"httpGet": {"port": HTTP_PORT + 1, "path": "/"}, "periodSeconds": 1, "failureThreshold": 2}
    unready = start(lab, pod("unready", {"readinessProbe": wrong}))
    unlive = start(lab, pod("unlive", {"livenessProbe": wrong}))
    wait_until(lambda: container(lab, unlive) and container(lab, unlive).restart_count >= 1, 20, "a restart", 0.1)
    assert container(lab, unready).state.running
    assert not is_ready(read(lab, unready))
    delete(lab, unready, unlive)


def test_an_image_that_is_not_there(lab: Whole) -> None:
    name = start(lab, pod("nowhere", {"image": "nobody/nothing"}))

    def reason() -> str:
        status = container(lab, name)
        return str(status.state.waiting.reason) if status and status.state.waiting else ""

    wait_until(lambda: reason() == "ErrImagePull", 20, "a reason", 0.1)
    assert read(lab, name).status.phase == "Pending"
    delete(lab, name)


def test_pods_live_on_while_the_api_is_away_and_end_with_the_node(lab: Whole) -> None:
    name = start(lab, pod("lasting"))
    address = wait_ready(lab, name).status.pod_ip
    before = process(lab, name)
    lab.backend.plane.stop_api()
    try:
        time.sleep(2)
        assert lab.nodes[0].http(address, HTTP_PORT)[1].strip() == name
    finally:
        lab.backend.plane.start_api()
    assert process(lab, name) == before
    lab.nodes[0].power_off()
    wait_until(lambda: gone(before), 5, "its process to be gone")
    lab.wait_ready("node-a", status=("Unknown",))
    lab.back("node-a")

    def answers() -> bool:  # perhaps at another address: its network is new too
        return lab.nodes[0].http(read(lab, name).status.pod_ip, HTTP_PORT)[1].strip() == name

    wait_until(answers, 30, "the pod to be started again", 0.1)
    delete(lab, name)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"security": {"runAsUser": 65532}}, "user 0 only"),
        ({"mounts": [(Path("/tmp"), "/data", False)]}, "below /run only, not at /data"),
    ],
)
def test_what_the_agent_cannot_do_is_said(change: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        sandbox.argv(["true"], **change)


def test_expansion() -> None:
    values = {"A": "1"}
    assert resolve.expand("$(A) $$(A) $(B) $A", values) == "1 $(A) $(B) $A"
