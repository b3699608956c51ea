"""The Node object of this node, and the heartbeat by which the control plane knows that it lives."""

from __future__ import annotations

import asyncio
import datetime
import logging
import platform

from tests.cluster.agent.api import STRATEGIC, Api, ApiError, Object

log = logging.getLogger("agent")

BEAT = 1.0
"""Seconds between two renewals of the Lease (a kubelet's own: 10). Tests have short grace periods."""
STATUS = 10.0
"""Seconds between two writings of the status, which nothing waits for (a kubelet's own: 10 to 300)."""
LEASES = "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases"


async def keep(api: Api, name: str, addresses: tuple[str, ...]) -> None:
    """Registers the node and renews its Lease, for ever."""
    told = -STATUS
    loop = asyncio.get_running_loop()
    while True:
        try:
            if loop.time() - told >= STATUS:
                await _status(api, name, addresses)
                told = loop.time()
            await _beat(api, name)
        except ApiError as error:
            log.info("the node cannot be kept: %s", error)
            told = -STATUS
        await asyncio.sleep(BEAT)


async def _status(api: Api, name: str, addresses: tuple[str, ...]) -> None:
    now = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    room = {"cpu": "8", "memory": "16Gi", "pods": "110", "ephemeral-storage": "16Gi"}
    good = [
        ("MemoryPressure", "False", "KubeletHasSufficientMemory"),
        ("DiskPressure", "False", "KubeletHasNoDiskPressure"),
        ("PIDPressure", "False", "KubeletHasSufficientPID"),
        ("Ready", "True", "KubeletReady"),
    ]
    status = {
        "addresses": [
            # Two of one type are one entry for a strategic merge: a kubelet replaces the list too.
            {"$patch": "replace"},
            *({"type": "InternalIP", "address": address} for address in addresses),
            {"type": "Hostname", "address": name},
        ],
        "capacity": room,
        "allocatable": room,
        "conditions": [
            {"type": type_, "status": value, "reason": reason, "message": "", "lastHeartbeatTime": now}
            for type_, value, reason in good
        ],
        "nodeInfo": {
            "architecture": "amd64",
            "operatingSystem": "linux",
            "kernelVersion": platform.release(),
            "kubeletVersion": "v0.0.0-lab",
            "containerRuntimeVersion": "lab://0",
            "bootID": "",
            "machineID": "",
            "systemUUID": "",
            "osImage": "lab",
            "kubeProxyVersion": "",
        },
    }
    try:
        await api.patch(f"/api/v1/nodes/{name}/status", {"status": status}, STRATEGIC)
    except ApiError as error:
        if error.status != 404:
            raise
        labels = {"kubernetes.io/hostname": name, "kubernetes.io/os": "linux"}
        node = {"apiVersion": "v1", "kind": "Node", "metadata": {"name": name, "labels": labels}}
        await api.post("/api/v1/nodes", node)
        await api.patch(f"/api/v1/nodes/{name}/status", {"status": status}, STRATEGIC)


async def _beat(api: Api, name: str) -> None:
    now = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    spec = {"holderIdentity": name, "leaseDurationSeconds": 40, "renewTime": now}
    try:
        await api.patch(f"{LEASES}/{name}", {"spec": spec})
    except ApiError as error:
        if error.status != 404:
            raise
        lease: Object = {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "spec": spec}
        await api.post(LEASES, {**lease, "metadata": {"name": name, "namespace": "kube-node-lease"}})
