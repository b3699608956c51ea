"""The API objects that the lab needs, as plain dicts: nodes, Services with their endpoints, Eips, peers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from lab.backend import Object
from lab.workload import ECHO_PORT, HTTP_PORT, Pod

API = "network.kubesphere.io/v1alpha2"

# name, port of the VIP, protocol, port of the pod
PORTS = (("http", 80, "TCP", HTTP_PORT), ("echo-udp", 7, "UDP", ECHO_PORT), ("echo-tcp", 7, "TCP", ECHO_PORT))


def node(
    name: str,
    addresses: Iterable[str],
    *,
    ready: str = "True",
    labels: Mapping[str, str] | None = None,
    taints: Iterable[Mapping[str, str]] = (),
    unschedulable: bool = False,
) -> Object:
    """A v1 Node. `ready` is True, False or Unknown."""
    spec: dict[str, Any] = {}
    if tainted := [dict(taint) for taint in taints]:
        spec["taints"] = tainted
    if unschedulable:
        spec["unschedulable"] = True
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": name, "labels": {"kubernetes.io/hostname": name, **(labels or {})}},
        "spec": spec,
        "status": {
            "addresses": [
                *({"type": "InternalIP", "address": address} for address in addresses),
                {"type": "Hostname", "address": name},
            ],
            "conditions": [{"type": "Ready", "status": ready}],
        },
    }


def service(
    name: str,
    namespace: str = "default",
    *,
    policy: str = "Cluster",
    families: Iterable[str] = ("IPv4",),
    annotations: Mapping[str, str] | None = None,
    ports: Iterable[tuple[str, int, str, int]] = PORTS,
    **spec: Any,
) -> Object:
    """A v1 Service of type LoadBalancer with HTTP on 80 and echo (UDP, TCP) on 7. `spec` overrides fields of the
    spec."""
    families = list(families)
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name, "namespace": namespace, "annotations": dict(annotations or {})},
        "spec": {
            "type": "LoadBalancer",
            "selector": {"app": name},
            "ports": [
                {"name": port_name, "port": port, "protocol": protocol, "targetPort": target}
                for port_name, port, protocol, target in ports
            ],
            "externalTrafficPolicy": policy,
            "ipFamilies": families,
            "ipFamilyPolicy": "SingleStack" if len(families) == 1 else "RequireDualStack",
            **spec,
        },
    }


def endpoint_slices(
    name: str,
    pods: Iterable[Pod],
    namespace: str = "default",
    *,
    families: Iterable[str] = ("IPv4",),
    ports: Iterable[tuple[str, int, str, int]] = PORTS,
    conditions: Mapping[str, Mapping[str, bool]] | None = None,
) -> list[Object]:
    """discovery.k8s.io/v1 EndpointSlices of a Service, one per family.

    Args:
        conditions: by pod name, instead of ready and serving, e.g. ``{"pod-a": {"ready": False}}``.
    """
    pods = list(pods)
    usual = {"ready": True, "serving": True, "terminating": False}
    return [
        {
            "apiVersion": "discovery.k8s.io/v1",
            "kind": "EndpointSlice",
            "metadata": {
                "name": f"{name}-{family.lower()}",
                "namespace": namespace,
                "labels": {"kubernetes.io/service-name": name},
            },
            "addressType": family,
            "ports": [
                {"name": port_name, "port": target, "protocol": protocol} for port_name, _, protocol, target in ports
            ],
            "endpoints": [
                {
                    "addresses": [pod.v6 if family == "IPv6" else pod.v4],
                    "nodeName": pod.node,
                    "conditions": {**usual, **(conditions or {}).get(pod.name, {})},
                    "targetRef": {"kind": "Pod", "name": pod.name, "namespace": namespace},
                }
                for pod in pods
            ],
        }
        for family in families
    ]


def eip(name: str, address: str, annotations: Mapping[str, str] | None = None, **spec: Any) -> Object:
    """An Eip. `spec` contains further fields, e.g. ``protocol="bgp"``."""
    return {
        "apiVersion": API,
        "kind": "Eip",
        "metadata": {"name": name, "annotations": dict(annotations or {})},
        "spec": {"address": address, **spec},
    }


def bgp_conf(asn: int = 64512, **spec: Any) -> Object:
    return {
        "apiVersion": API,
        "kind": "BgpConf",
        "metadata": {"name": "default"},
        "spec": {"as": asn, **spec},
    }


def bgp_peer(name: str, address: str, asn: int, conf: Mapping[str, Any] | None = None, **spec: Any) -> Object:
    """A BgpPeer. `conf` contains further fields of spec.conf, `spec` further fields of spec."""
    return {
        "apiVersion": API,
        "kind": "BgpPeer",
        "metadata": {"name": name},
        "spec": {"conf": {"neighborAddress": address, "peerAs": asn, **(conf or {})}, **spec},
    }


def secret(name: str, namespace: str = "default", **values: str) -> Object:
    """A v1 Secret with plain values."""
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": name, "namespace": namespace},
        "stringData": values,
    }


def namespace(name: str, labels: Mapping[str, str] | None = None) -> Object:
    return {
        "apiVersion": "v1",
        "kind": "Namespace",
        "metadata": {"name": name, "labels": {"kubernetes.io/metadata.name": name, **(labels or {})}},
    }
