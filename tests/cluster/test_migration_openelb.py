"""docs/migration.md, "Switch from OpenELB", on real kubelets: its commands in order, with traffic.

OpenELB itself does not run. A stand-in provides everything that users see of it: its CRDs with the versions and fields
of OpenELB 0.6, its objects with finalizers and statuses, its Deployment, DaemonSet and webhooks by name, the statuses
and finalizers of Services; and node-a answers ARP for each address.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from lab import objects
from lab.backend import Object
from lab.measure import wait_until
from lab.objects import PORTS
from tests.cluster.nodes import images
from tests.cluster.reader import desk
from tests.cluster.whole import Whole, deployment, whole

pytestmark = [pytest.mark.cluster, pytest.mark.lab, pytest.mark.nodes, pytest.mark.timeout(400)]

GROUP, VERSION = "network.kubesphere.io", "v1alpha2"
SYSTEM = "openelb-system"
ON_OBJECTS, ON_SERVICES = "finalizer.ipam.kubesphere.io/v1alpha1", "finalizer.lb.kubesphere.io/v1alpha1"
PODS = "web"
POOL = "10.77.0.220-10.77.0.239"

HELD = {"web": "10.77.0.220", "shop": "10.77.0.221", "shared-a": "10.77.0.222", "shared-b": "10.77.0.222"}
"""Two Services share an address. OpenELB needs no sharing key for that."""
PORT = {"shared-b": 8080}

TEXT, NUMBER, FLAG = {"type": "string"}, {"type": "integer", "format": "int32"}, {"type": "boolean"}
SPEC: Mapping[str, Mapping[str, Object]] = {
    "Eip": {
        "address": TEXT,
        "disable": FLAG,
        "interface": TEXT,
        "namespaces": {"type": "array", "items": TEXT},
        "namespaceSelector": {"type": "object", "additionalProperties": TEXT},
        "priority": NUMBER,
        "protocol": {"type": "string", "enum": ["bgp", "layer2", "vip"]},
        "usingKnownIPs": FLAG,
    },
    "BgpConf": {"as": NUMBER, "listenPort": NUMBER, "routerId": TEXT},
    "BgpPeer": {"conf": {"type": "object", "properties": {"neighborAddress": TEXT, "peerAs": NUMBER}}},
}
STATUS = {
    "firstIP": TEXT,
    "lastIP": TEXT,
    "occupied": FLAG,
    "poolSize": {"type": "integer"},
    "ready": FLAG,
    "usage": {"type": "integer"},
    "used": {"type": "object", "additionalProperties": TEXT},
    "v4": FLAG,
}

OBJECTS: list[Object] = [
    {
        "kind": "Eip",
        "metadata": {"name": "lan", "annotations": {"eip.openelb.kubesphere.io/is-default-eip": "true"}},
        "spec": {"address": POOL, "protocol": "layer2", "interface": "eth0", "usingKnownIPs": True},
    },
    {
        "kind": "BgpConf",
        "metadata": {"name": "default"},
        "spec": {"as": 64512, "listenPort": 17900, "routerId": "10.0.0.5"},
    },
    {
        "kind": "BgpPeer",
        "metadata": {"name": "router"},
        "spec": {"conf": {"neighborAddress": "10.77.0.1", "peerAs": 64500}},
    },
]


def crd(kind: str) -> Object:
    plural = f"{kind.lower()}s"

    def version(name: str, stored: bool) -> Object:
        properties = {
            "spec": {"type": "object", "properties": SPEC[kind]},
            "status": {"type": "object", "properties": STATUS},
        }
        schema = {"openAPIV3Schema": {"type": "object", "properties": properties}}
        return {"name": name, "served": True, "storage": stored, "schema": schema, "subresources": {"status": {}}}

    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{plural}.{GROUP}"},
        "spec": {
            "group": GROUP,
            "scope": "Cluster",
            "names": {"kind": kind, "listKind": f"{kind}List", "plural": plural, "singular": kind.lower()},
            "versions": [version("v1alpha1", False), version(VERSION, True)],
        },
    }


def workload(kind: str, name: str) -> Object:
    """The Deployment or DaemonSet of OpenELB by name. Its pods are never scheduled, because no node has their label."""
    labels = {"app": name}
    container = {"name": "openelb", "image": images.BACKEND}
    template = {"metadata": {"labels": labels}, "spec": {"containers": [container], "nodeSelector": {"openelb": "no"}}}
    return {
        "apiVersion": "apps/v1",
        "kind": kind,
        "metadata": {"name": name, "namespace": SYSTEM},
        "spec": {"selector": {"matchLabels": labels}, "template": template},
    }


def webhook(kind: str) -> Object:
    """A webhook that refuses every change of an Eip when its server is gone."""
    rule = {"apiGroups": [GROUP], "apiVersions": [VERSION], "operations": ["CREATE", "UPDATE"], "resources": ["eips"]}
    hook = {
        "name": "validate.eip.network.kubesphere.io",
        "clientConfig": {"service": {"name": "openelb-admission", "namespace": SYSTEM, "path": "/validate"}},
        "rules": [rule],
        "failurePolicy": "Fail",
        "sideEffects": "None",
        "admissionReviewVersions": ["v1"],
    }
    return {
        "apiVersion": "admissionregistration.k8s.io/v1",
        "kind": kind,
        "metadata": {"name": "openelb-admission"},
        "webhooks": [hook],
    }


def openelb(lab: Whole) -> None:
    """Creates everything that users see of OpenELB, with Services that hold addresses."""
    plane = lab.backend.plane
    plane.apply([crd(kind) for kind in SPEC])
    lab.kubectl("create", "namespace", SYSTEM)
    plane.apply([workload("Deployment", "openelb-controller"), workload("DaemonSet", "openelb-speaker")])
    for each in OBJECTS:
        metadata = {**each["metadata"], "finalizers": [ON_OBJECTS]}
        plane.apply({"apiVersion": f"{GROUP}/{VERSION}", **each, "metadata": metadata})
    used: dict[str, str] = {}
    for name, address in HELD.items():
        used[address] = ";".join(filter(None, [used.get(address, ""), f"default/{name}"]))
    status = {"occupied": False, "poolSize": 20, "usage": len(used), "used": used, "ready": True, "v4": True}
    lab.backend.patch("eip", "lan", {"status": status}, "--subresource=status")
    plane.apply(deployment(PODS, [node.name for node in lab.nodes]))
    for name, address in HELD.items():
        ports = [(PORTS[0][0], PORT[name], *PORTS[0][2:])] if name in PORT else PORTS[:1]
        annotations = {
            "lb.kubesphere.io/v1alpha1": "openelb",
            "eip.openelb.kubesphere.io/v1alpha2": "lan",
            "protocol.openelb.kubesphere.io/v1alpha1": "layer2",
            "layer2.openelb.kubesphere.io/v1alpha1": "node-a",
        }
        service = objects.service(name, policy="Cluster", annotations=annotations, ports=ports)
        service["spec"]["selector"] = {"app": PODS}
        service["metadata"]["finalizers"] = [ON_SERVICES]
        plane.apply(service)
        lab.backend.patch(
            "service", name, {"status": {"loadBalancer": {"ingress": [{"ip": address}]}}}, "--subresource=status"
        )
    for address in sorted(set(HELD.values())):
        lab.node("node-a").ns.run(["ip", "address", "replace", f"{address}/32", "dev", "lo"])
    plane.apply([webhook("ValidatingWebhookConfiguration"), webhook("MutatingWebhookConfiguration")])


def held(lab: Whole) -> dict[str, str]:
    """The addresses in the statuses of the Services."""
    found: Any = lab.core.list_namespaced_service("default")
    return {
        service.metadata.name: ",".join(one.ip for one in service.status.load_balancer.ingress or [])
        for service in found.items
        if service.spec.type == "LoadBalancer"
    }


def test_services_of_openelb_keep_their_addresses(tmp_path: Path) -> None:
    addresses = sorted(set(HELD.values()))
    with whole(nodes=2, routers=("bird",)) as lab:
        openelb(lab)
        for address in addresses:
            wait_until(lambda vip=address: lab.segment_client.reaches(vip), 60, f"an answer from {address}", 0.2)
        commands, here = tmp_path / "commands", tmp_path / "here"
        for folder in (commands, here):
            folder.mkdir()
        reader = desk(lab, commands, here)
        for address in addresses:  # the speakers of the stand-in end
            lab.node("node-a").ns.run(["ip", "address", "del", f"{address}/32", "dev", "lo"])
        said = reader.follow("migration.md", section="Switch from OpenELB")
        print(said)
        assert held(lab) == HELD
        for address in addresses:
            wait_until(
                lambda vip=address: len(lab.segment_client.who_has(vip)) == 1, 30, f"one answer for {address}", 0.2
            )
            wait_until(lambda vip=address: lab.segment_client.reaches(vip), 20, f"an answer from {address}", 0.2)
        assert set(lab.backend.status("Eip", "lan")["used"]) == set(addresses)
        assert "two load balancers" not in said, "of the doctor"
        assert "usingKnownIPs" in said  # the remarks name the settings that are not converted
        # No finalizer is left: deleted objects disappear
        lab.kubectl("delete", "service", "shop", "--timeout=20s")
        lab.kubectl("delete", "eips,bgpconfs,bgppeers", "--all", "--timeout=20s")
