"""Objects that a kubelet would write: the nodes of a lab have no kubelet."""

from __future__ import annotations

import datetime
from typing import Any


def ready_node(name: str, *addresses: str) -> dict[str, Any]:
    """A Node with these internal addresses (one per family) that is Ready, for `ControlPlane.apply()`."""
    room = {"cpu": "4", "memory": "4Gi", "pods": "110"}
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": name, "labels": {"kubernetes.io/hostname": name}},
        "status": {
            "addresses": [{"type": "InternalIP", "address": address} for address in addresses],
            "conditions": [{"type": "Ready", "status": "True", "reason": "KubeletReady"}],
            "allocatable": room,
            "capacity": room,
        },
    }


def heartbeat(node: str) -> dict[str, Any]:
    """The Lease by which a kubelet reports that its node is alive. Apply a newly made one every few seconds.

    Needed with `controllers=True` only: without one for the grace period, the node's conditions become Unknown.
    """
    now = datetime.datetime.now(datetime.UTC)
    return {
        "apiVersion": "coordination.k8s.io/v1",
        "kind": "Lease",
        "metadata": {"name": node, "namespace": "kube-node-lease"},
        "spec": {
            "holderIdentity": node,
            "leaseDurationSeconds": 40,
            "renewTime": now.strftime("%Y-%m-%dT%H:%M:%S.%fZ"),  # MicroTime: always six digits
        },
    }
