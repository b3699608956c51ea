"""The chart's policy restricts the right to patch the status of pods, on a real API server with the account's token."""

from __future__ import annotations

import asyncio
import copy
import json
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from kubernetes import client

from lab.measure import wait_until
from porterlb.cluster import Denied, Labels, Marked
from porterlb.core.node_failure import MESSAGE, REASON
from porterlb.edge.kube import KubeCluster
from porterlb.edge.kube.api import STRATEGIC_MERGE, Request
from tests.cluster.controlplane.plane import ControlPlane
from tests.cluster.rights import ACCOUNT, NAMESPACE, rights

pytestmark = pytest.mark.cluster

NODE = "worker"
PODS = 110
"""The number of pods that a kubelet runs by default."""


@pytest.fixture(scope="module")
def kubeconfig(plane: ControlPlane) -> Path:
    plane.apply(rights())
    plane.apply({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "default", "namespace": "default"}})
    for number in range(PODS):
        labels = {"app": "web" if number >= PODS - 10 else "db"}
        spec = {"nodeName": NODE, "containers": [{"name": "c", "image": "i"}], "automountServiceAccountToken": False}
        plane.apply(
            {
                "apiVersion": "v1",
                "kind": "Pod",
                "metadata": {"name": f"p{number}", "namespace": "default", "labels": labels},
                "spec": spec,
            }
        )
    return plane.kubeconfig_for(ACCOUNT, NAMESPACE)


@pytest.fixture(autouse=True)
def all_ready(plane: ControlPlane, kubeconfig: Path) -> Iterator[None]:
    """Makes every pod running and Ready."""
    core = client.CoreV1Api(plane.api)
    conditions = [
        {"type": type_, "status": "True", "reason": None, "message": None}
        for type_ in ("Initialized", "ContainersReady", "Ready")
    ]
    addresses = {"podIP": "10.0.0.1", "podIPs": [{"ip": "10.0.0.1"}]}
    body = {"status": {"phase": "Running", "conditions": conditions, **addresses}}
    for number in range(PODS):
        core.patch_namespaced_pod_status(f"p{number}", "default", body)
    yield


def ready(plane: ControlPlane) -> dict[str, tuple[str, str]]:
    """Status and reason of the condition Ready, by pod."""
    found: Any = client.CoreV1Api(plane.api).list_namespaced_pod("default")
    return {
        pod.metadata.name: next((c.status, c.reason or "") for c in pod.status.conditions if c.type == "Ready")
        for pod in found.items
    }


def first(namespace: str, labels: Labels) -> bool:
    return labels.get("app") == "web"


def run(kubeconfig: Path, work: Callable[[KubeCluster], Any]) -> Any:
    async def main() -> Any:
        cluster = KubeCluster.connect(NAMESPACE, str(kubeconfig))
        try:
            return await work(cluster)
        finally:
            await cluster.close()

    return asyncio.run(main())


def test_every_pod_of_a_node_is_marked_within_a_second_and_restored(plane: ControlPlane, kubeconfig: Path) -> None:
    async def mark(cluster: KubeCluster) -> tuple[Marked, float]:
        # Opens the connections
        await cluster.mark_endpoints("elsewhere", first, reason=REASON, message=MESSAGE, deadline=5.0)
        begun = time.monotonic()
        done = await cluster.mark_endpoints(NODE, first, reason=REASON, message=MESSAGE, deadline=5.0)
        return done, time.monotonic() - begun

    done, seconds = run(kubeconfig, mark)
    print(f"{done.done} pods marked in {seconds:.2f} s")
    assert done == Marked(PODS)
    assert set(ready(plane).values()) == {("False", REASON)}
    assert seconds < 5.0, "1 s is what is promised; this machine may be busy"
    again = run(kubeconfig, lambda c: c.mark_endpoints(NODE, first, reason=REASON, message=MESSAGE, deadline=5.0))
    assert again == Marked(0), "what is not ready is left alone"
    restored = run(kubeconfig, lambda c: c.restore_endpoints(NODE, reason=REASON, deadline=5.0))
    assert restored == Marked(PODS)
    assert set(ready(plane).values()) == {("True", "")}


def condition(type_: str, status: str, reason: str | None = REASON) -> dict[str, Any]:
    return {"status": {"conditions": [{"type": type_, "status": status, "reason": reason}]}}


MARK = condition("Ready", "False")


def also(more: Mapping[str, Any]) -> dict[str, Any]:
    """The allowed patch, extended by these fields."""
    whole = copy.deepcopy(MARK)
    for key, value in more.items():
        whole[key] = {**whole.get(key, {}), **value}
    return whole


REFUSED = {
    "podIPs": also({"status": {"podIPs": [{"$patch": "replace"}, {"ip": "10.0.0.9"}], "podIP": "10.0.0.9"}}),
    "a-second-podIP": also({"status": {"podIPs": [{"$patch": "replace"}, {"ip": "10.0.0.1"}, {"ip": "fd00::9"}]}}),
    "podIP": also({"status": {"podIP": "10.0.0.9"}}),
    "hostIP": also({"status": {"hostIP": "10.0.0.9"}}),
    "phase": also({"status": {"phase": "Failed"}}),
    "message": also({"status": {"message": "x"}}),
    "no-pod-address": also({"status": {"podIP": None, "podIPs": [{"$patch": "replace"}]}}),
    "labels": also({"metadata": {"labels": {"app": "web"}}}),
    "annotations": also({"metadata": {"annotations": {"a": "b"}}}),
    "finalizers": also({"metadata": {"finalizers": ["example.com/x"]}}),
    "containers-ready": condition("ContainersReady", "False"),
    "another-condition": condition("Initialized", "False"),
    "a-new-condition": condition("example.com/gate", "True"),
    "another-reason": condition("Ready", "False", "Other"),
    "no-reason": condition("Ready", "False", None),
    "unknown": condition("Ready", "Unknown"),
    "the-reason-alone": condition("Ready", "True"),
    "only-the-phase": {"status": {"phase": "Failed"}},
}


@pytest.mark.parametrize("body", REFUSED.values(), ids=REFUSED)
def test_every_other_change_is_refused(plane: ControlPlane, kubeconfig: Path, body: dict[str, Any]) -> None:
    async def patch(cluster: KubeCluster, sent: dict[str, Any], path: str) -> None:
        await cluster._api.call(Request("PATCH", path, (), sent, STRATEGIC_MERGE), 5.0)

    path = "/api/v1/namespaces/default/pods/p0/status"
    before = plane.kubectl("get", "pod", "p0", "-o", "json")
    with pytest.raises(Denied) as refused:
        run(kubeconfig, lambda cluster: patch(cluster, body, path))
    assert "PorterLB may" in str(refused.value), refused.value
    assert plane.kubectl("get", "pod", "p0", "-o", "json") == before
    run(kubeconfig, lambda cluster: patch(cluster, MARK, path))
    assert ready(plane)["p0"] == ("False", REASON)


def test_nobody_is_made_ready_whom_we_have_not_marked(plane: ControlPlane, kubeconfig: Path) -> None:
    core = client.CoreV1Api(plane.api)
    core.patch_namespaced_pod_status("p1", "default", condition("Ready", "False", "Theirs"))

    async def make_ready(cluster: KubeCluster) -> None:
        request = Request("PATCH", "/api/v1/namespaces/default/pods/p1/status", (), condition("Ready", "True", None))
        await cluster._api.call(Request(request.method, request.path, (), request.body, STRATEGIC_MERGE), 5.0)

    async def take_over(cluster: KubeCluster) -> None:
        """With PorterLB's reason, the next step would be allowed."""
        path = "/api/v1/namespaces/default/pods/p1/status"
        await cluster._api.call(Request("PATCH", path, (), MARK, STRATEGIC_MERGE), 5.0)

    for change in (make_ready, take_over):
        with pytest.raises(Denied, match="PorterLB may"):
            run(kubeconfig, change)
        assert ready(plane)["p1"] == ("False", "Theirs")


def test_whether_the_policy_is_enforced_is_asked_without_a_change(plane: ControlPlane, kubeconfig: Path) -> None:
    def bounded() -> bool:
        answer: bool = run(kubeconfig, lambda cluster: cluster.marking_bounded(5.0))
        return answer

    assert bounded()
    kind = "ValidatingAdmissionPolicyBinding"
    (binding,) = [obj for obj in rights() if obj["kind"] == kind]
    before = plane.kubectl("get", "pods", "-o", "json")
    plane.kubectl("delete", kind, binding["metadata"]["name"])
    try:
        wait_until(lambda: not bounded(), 20, "the API server to notice that the policy is not bound any more", 0.2)
        assert plane.kubectl("get", "pods", "-o", "json") == before
    finally:
        plane.apply(binding)
        wait_until(bounded, 20, "the policy to be in force again", 0.2)


def test_nothing_but_the_status_of_a_pod_can_be_changed(plane: ControlPlane, kubeconfig: Path) -> None:
    async def others(cluster: KubeCluster) -> list[str]:
        said = []
        path = "/api/v1/namespaces/default/pods/p0"
        for method, where, body in (
            ("PATCH", path, {"metadata": {"labels": {"app": "web"}}}),
            ("DELETE", path, None),
            ("POST", f"{path}/eviction", {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": "p0"}}),
        ):
            kind = STRATEGIC_MERGE if method == "PATCH" else "application/json"
            with pytest.raises(Denied) as refused:
                await cluster._api.call(Request(method, where, (), body, kind), 5.0)
            said.append(str(refused.value))
        return said

    assert all("cannot" in sentence for sentence in run(kubeconfig, others))
    assert "p0" in json.dumps(list(ready(plane)))
