"""The chart for the tests: rendered by Helm itself (its Go library), as objects."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import helm_python as helm
import yaml

FOLDER = Path(__file__).resolve().parents[2] / "charts" / "porterlb"
RELEASE = "porterlb"
NAMESPACE = "porterlb-system"

Object = dict[str, Any]

# Every template, branch and value occurs at least once.
MATRIX: Mapping[str, dict[str, Any]] = {
    "defaults": {},
    "daemonset": {"kind": "DaemonSet", "controlPlaneNodes": False, "tolerations": [{"operator": "Exists"}]},
    "one-replica": {"replicas": 1, "podDisruptionBudget": {"enabled": False}, "tolerationSeconds": 2},
    "fast": {"profile": "fast", "log": {"format": "json"}, "settings": {"returnAfter": 3, "gratuitousRate": 500}},
    "all-settings": {
        "settings": {
            "helloInterval": 0.1,
            "helloFresh": 0.4,
            "probeInterval": 0.1,
            "probeMisses": 4,
            "leaseDuration": 8,
            "leaseRenewDeadline": 5,
            "leaseRetry": 1,
            "returnAfter": 0,
            "widenAfter": 2.5,
            "proxyDelay": 0,
            "proxyLimit": 10,
            "claimServicesWithoutClass": False,
            "ignoreExcludeLabel": True,
            "gratuitousRate": 100,
            "silenceAfter": 20,
            "markAgainAfter": 60,
        }
    },
    "layer2": {"layer2": {"rebalance": "manual", "rebalanceAfter": 60, "rebalancePace": 2.5, "settleAfter": 5}},
    "answers-auto": {"layer2": {"answers": "auto"}},
    "answers-kernel": {"layer2": {"answers": "kernel"}, "bgp": {"listenOnPrivilegedPort": True}},
    "api-server": {"apiServer": {"host": "2001:db8::1", "port": 443}},
    "bgp": {"bgp": {"passwordSecrets": ["router-a", "router-b"], "listenOnPrivilegedPort": True}},
    "key-given": {"hello": {"key": "0123456789abcdef", "port": 17473}, "http": {"port": 17472, "host": "::1"}},
    "own-secret": {"hello": {"createSecret": False}, "crds": {"install": False}},
    "pods-not-marked": {"nodeFailure": {"markPodsNotReady": False}},
    "monitors": {
        "metrics": {
            "podMonitor": {"enabled": True, "labels": {"team": "net"}},
            "serviceMonitor": {"enabled": True, "interval": "10s"},
        }
    },
    "alerts": {
        "metrics": {
            "podMonitor": {
                "enabled": True,
                "scrapeTimeout": "5s",
                "relabelings": [{"sourceLabels": ["__meta_kubernetes_pod_node_name"], "targetLabel": "node"}],
                "metricRelabelings": [{"action": "drop", "regex": "porterlb_wire_.*"}],
            },
            "prometheusRule": {
                "enabled": True,
                "labels": {"team": "net"},
                "disabled": ["PorterLBSingleReplica"],
                "runbookUrl": "https://docs.example/alerts.html",
            },
        }
    },
    "dashboard": {
        "metrics": {
            "podMonitor": {"enabled": True},
            "grafanaDashboard": {
                "enabled": True,
                "namespace": "monitoring",
                "annotations": {"grafana_folder": "Network"},
            },
        }
    },
    "own-account": {"serviceAccount": {"create": False, "name": "mine"}, "rbac": {"create": False}},
    "names": {"nameOverride": "lb", "fullnameOverride": "edge-lb", "serviceAccount": {"annotations": {"a": "b"}}},
    "placed": {
        "image": {"repository": "images.example/porterlb", "tag": "1", "pullPolicy": "Always", "pullSecrets": ["pull"]},
        "nodeSelector": {"node-role.kubernetes.io/worker": ""},
        "affinity": {"nodeAffinity": {}},
        "podAnnotations": {"a": "b"},
        "podLabels": {"c": "d"},
        "env": [{"name": "PYTHONASYNCIODEBUG", "value": "1"}],
        "priorityClassName": "",
        "runtimeClassName": "runc",
        "topologySpreadConstraints": [
            {"maxSkew": 1, "topologyKey": "topology.kubernetes.io/zone", "whenUnsatisfiable": "ScheduleAnyway"}
        ],
    },
    "common": {
        "commonLabels": {"team": "net"},
        "commonAnnotations": {"owner": "net@example.com"},
        "image": {"pullSecrets": [{"name": "pull"}]},
        "extraContainers": [{"name": "shipper", "image": "images.example/shipper:1"}],
        "extraObjects": [
            {
                "apiVersion": "v1",
                "kind": "ConfigMap",
                "metadata": {
                    "name": "{{ .Release.Name }}-extra",
                    "labels": {"app.kubernetes.io/instance": "{{ .Release.Name }}"},
                },
            }
        ],
    },
}


def templates(values: Mapping[str, Any] | None = None) -> dict[str, str]:
    """Template name -> text, for a first installation. The schema validates the values too, as in Helm's actions."""
    with helm.Chart.load(FOLDER) as chart:
        chart.validate_schema(dict(values or {}))
        rendered = chart.render(dict(values or {}), name=RELEASE, namespace=NAMESPACE)
    return {name.removeprefix("porterlb/templates/"): text for name, text in rendered.items()}


def rendered(values: Mapping[str, Any] | None = None) -> list[Object]:
    """Every object that an installation creates."""
    return [obj for obj in _objects(values) if not _hook(obj)]


def of_helm_test(values: Mapping[str, Any] | None = None) -> list[Object]:
    """The objects of ``helm test``."""
    return [obj for obj in _objects(values) if _hook(obj) == "test"]


def _objects(values: Mapping[str, Any] | None) -> list[Object]:
    texts = [text for name, text in templates(values).items() if name.endswith(".yaml")]
    return [found for text in texts for found in yaml.safe_load_all(text) if found]


def _hook(obj: Object) -> str:
    return str((obj["metadata"].get("annotations") or {}).get("helm.sh/hook", ""))


def only(objects: Iterable[Object], kind: str, name: str = "") -> Object:
    """The only object of a kind (and name)."""
    (found,) = (o for o in objects if o["kind"] == kind and name in ("", o["metadata"]["name"]))
    return found


def pod(objects: Iterable[Object]) -> Object:
    """The pod spec."""
    (found,) = (o for o in objects if o["kind"] in ("Deployment", "DaemonSet"))
    spec: Object = found["spec"]["template"]["spec"]
    return spec


def container(objects: Iterable[Object]) -> Object:
    """The manager's container, which is the first."""
    found, *_ = pod(objects)["containers"]
    whole: Object = found
    return whole


def environment(objects: Iterable[Object]) -> dict[str, Any]:
    """Name -> value, or its source."""
    return {entry["name"]: entry.get("value", entry.get("valueFrom")) for entry in container(objects)["env"]}
