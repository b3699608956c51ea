"""The data about a Kubernetes cluster for doctor: each part is read separately, and reports why it is absent."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

from aiohttp import web

from porterlb.core.doctor.installed import Installation, KubeProxy, Pod, Workload
from porterlb.core.doctor.rights import NEEDED
from porterlb.edge.kube.installation import kube_proxy_of, pod_of
from tests.edge.kube_served import kube_cluster

SPEC = {"serviceAccountName": "porterlb", "nodeName": "node-a"}
CRASHED = {
    "ready": False,
    "restartCount": 7,
    "state": {"waiting": {"reason": "CrashLoopBackOff", "message": "back-off"}},
    "lastState": {"terminated": {"message": "porterlb: Cannot serve HTTP on 127.0.0.1:7472.\n"}},
}
POD = {"metadata": {"name": "porterlb-x"}, "spec": SPEC, "status": {"containerStatuses": [CRASHED]}}
SPEAKER = {"containers": [{"image": "quay.io/metallb/speaker:v1"}]}
CONFIG = "apiVersion: kubeproxy.config.k8s.io/v1alpha1\nmode: ipvs\nipvs: {strictARP: false}\n"


async def read(folder: Path, *, refused: bool = False) -> tuple[Installation, dict[str, str]]:
    async def answer(request: web.Request) -> web.Response:
        path = request.path
        if refused:
            return web.json_response({"kind": "Status", "message": f"{path} is forbidden"}, status=403)
        if path.endswith("/log"):
            return web.Response(text="previous\n" if request.query.get("previous") else "line\n")
        if path.endswith("subjectaccessreviews"):
            attributes = (await request.json())["spec"]["resourceAttributes"]
            return web.json_response({"status": {"allowed": attributes["subresource"] != "status"}})
        if "customresourcedefinitions/eips" in path:
            versions = [
                {"name": "v1alpha2", "served": True, "schema": {"openAPIV3Schema": {"properties": {"spec": {}}}}}
            ]
            return web.json_response({"spec": {"versions": versions}})
        found: dict[str, Any] = {
            "/api/v1/namespaces/porterlb-system/pods": {"items": [POD]},
            "/apis/apps/v1/daemonsets": {
                "items": [
                    {
                        "metadata": {"namespace": "metallb-system", "name": "speaker"},
                        "spec": {"template": {"spec": SPEAKER}},
                    }
                ]
            },
            "/apis/apps/v1/deployments": {"items": []},
            "/api/v1/namespaces/kube-system/configmaps/kube-proxy": {"data": {"config.conf": CONFIG}},
        }
        if path not in found:
            return web.json_response({"kind": "Status", "message": "not found", "details": {"name": "x"}}, status=404)
        return web.json_response(found[path])

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", answer)
    async with kube_cluster(app, folder) as cluster:
        texts = {} if refused else await cluster.replica_texts("node-a")
        return await cluster.installation(), texts


def test_everything_is_read(tmp_path: Path) -> None:
    found, texts = asyncio.run(read(tmp_path))
    assert found.schemas == {"Eip": {"properties": {"spec": {}}}, "BgpConf": None, "BgpPeer": None}
    pod = Pod("porterlb-x", "node-a", False, "CrashLoopBackOff", "porterlb: Cannot serve HTTP on 127.0.0.1:7472.", 7)
    assert found.pods == (pod,)
    assert found.workloads == (Workload("metallb-system", "speaker", ("quay.io/metallb/speaker:v1",)),)
    assert found.kube_proxy == KubeProxy("ipvs", strict_arp=False)
    assert set(found.rights) == set(NEEDED)
    assert {right.resource for right, allowed in found.rights.items() if not allowed} == {
        "services/status",
        "eips/status",
        "bgpconfs/status",
        "bgppeers/status",
    }
    assert found.unread == {} and found.settings == {}
    assert texts == {"porterlb-x.log": "line\n", "porterlb-x.previous.log": "previous\n"}


def test_what_is_refused_is_named(tmp_path: Path) -> None:
    found, _ = asyncio.run(read(tmp_path, refused=True))
    assert set(found.unread) == {"CRDs", "pods of the manager", "workloads", "kube-proxy", "ConfigMaps of kube-system"}
    assert all("forbidden" in why for why in found.unread.values())
    assert found.pods == () and found.kube_proxy is None


def test_pods_and_kube_proxy_as_the_api_has_them() -> None:
    ready = {"metadata": {"name": "p"}, "status": {"containerStatuses": [{"ready": True, "restartCount": 0}]}}
    assert pod_of(ready) == Pod("p", "", True)
    waits = {"type": "PodScheduled", "status": "False", "message": "0/3 nodes are available"}
    assert pod_of({"metadata": {"name": "p"}, "status": {"conditions": [waits]}}).why == "0/3 nodes are available"
    assert kube_proxy_of({"config.conf": "mode: ipvs\nipvs: {strictARP: true}"}) == KubeProxy("ipvs", strict_arp=True)
    assert kube_proxy_of({"config.conf": "mode: [\n"}) is None and kube_proxy_of({}) is None
    assert kube_proxy_of({"config.conf": "mode: ''\nipvs: null"}) == KubeProxy("", strict_arp=False)
