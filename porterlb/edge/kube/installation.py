"""What is installed in the cluster, for ``porterlb doctor``: CRDs, rights, pods, other load balancers, kube-proxy."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import yaml

from porterlb.cluster import GROUP, VERSION, Denied, Kind, Unavailable
from porterlb.core.doctor.installed import Installation, KubeProxy, Pod, Workload
from porterlb.core.doctor.rights import NEEDED, Right
from porterlb.edge.kube.api import Api, Json, Request
from porterlb.edge.kube.errors import Missing
from porterlb.edge.kube.port_forward import SELECTOR

DEADLINE = 5.0
"""Seconds for each answer; the parts are read at the same time."""

MESSAGE_AT_MOST = 300
"""Characters of a container's last message."""

LOG_LINES = 2000

_REVIEWS = "/apis/authorization.k8s.io/v1/subjectaccessreviews"
_CONFIG_MAPS = ("cilium-config",)


async def installation(api: Api, namespace: str) -> Installation:
    """Everything that can be read. Never raises Denied or Unavailable: the result says why a part is absent."""
    unread: dict[str, str] = {}

    async def part(name: str, work: Callable[[], Awaitable[Any]], default: Any) -> Any:
        try:
            return await work()
        except (Denied, Unavailable) as error:
            unread[name] = str(error)
            return default

    schemas, pods, workloads, proxy, settings = await asyncio.gather(
        part("CRDs", lambda: _schemas(api), {}),
        part("pods of the manager", lambda: _pods(api, namespace), ()),
        part("workloads", lambda: _workloads(api), ()),
        part("kube-proxy", lambda: _kube_proxy(api), None),
        part("ConfigMaps of kube-system", lambda: _settings(api), {}),
    )
    found, accounts = pods if pods else ((), ())
    rights: Mapping[Right, bool] = {}
    if accounts:
        rights = await part("rights of the manager", lambda: _rights(api, namespace, accounts[0]), {})
    return Installation(schemas, rights, found, workloads, proxy, settings, unread)


async def texts(api: Api, namespace: str, node: str) -> dict[str, str]:
    """The log of the manager's pod on ``node``, and that of the previous container, if there is one."""
    query = [("fieldSelector", f"spec.nodeName={node}"), ("labelSelector", SELECTOR)]
    pods = await api.call(Request("GET", f"/api/v1/namespaces/{namespace}/pods", query), DEADLINE)
    found: dict[str, str] = {}
    for pod in pods.get("items") or []:
        name = pod["metadata"]["name"]
        for suffix, more in (("log", []), ("previous.log", [("previous", "true")])):
            try:
                lines = [("tailLines", str(LOG_LINES)), *more]
                path = f"/api/v1/namespaces/{namespace}/pods/{name}/log"
                found[f"{name}.{suffix}"] = await api.text(Request("GET", path, lines), DEADLINE)
            except (Denied, Unavailable) as error:
                if not more:
                    found[f"{name}.{suffix}"] = f"The log could not be read: {error}\n"
    return found


async def _schemas(api: Api) -> dict[str, Mapping[str, Any] | None]:
    found: dict[str, Mapping[str, Any] | None] = {}
    for kind in (Kind.EIP, Kind.BGP_CONF, Kind.BGP_PEER):
        path = f"/apis/apiextensions.k8s.io/v1/customresourcedefinitions/{kind.plural}.{GROUP}"
        try:
            crd = await api.call(Request("GET", path), DEADLINE)
        except Missing:
            found[kind.kind] = None
            continue
        versions = [v for v in crd["spec"].get("versions") or [] if v.get("name") == VERSION and v.get("served")]
        schema = (versions[0].get("schema") or {}).get("openAPIV3Schema") if versions else None
        found[kind.kind] = schema if schema else None
    return found


async def _pods(api: Api, namespace: str) -> tuple[tuple[Pod, ...], tuple[str, ...]]:
    """The manager's pods, and the names of their service accounts."""
    path = f"/api/v1/namespaces/{namespace}/pods"
    answer = await api.call(Request("GET", path, [("labelSelector", SELECTOR)]), DEADLINE)
    items = [pod for pod in answer.get("items") or [] if not pod["metadata"].get("deletionTimestamp")]
    accounts = [str((pod.get("spec") or {}).get("serviceAccountName") or "") for pod in items]
    return tuple(map(pod_of, items)), tuple(dict.fromkeys(filter(None, accounts)))


def pod_of(obj: Json) -> Pod:
    """A pod of the manager, from the API's JSON."""
    spec, status = obj.get("spec") or {}, obj.get("status") or {}
    containers = status.get("containerStatuses") or [{}]
    first = containers[0]
    waiting = (first.get("state") or {}).get("waiting") or {}
    ended = (first.get("lastState") or {}).get("terminated") or (first.get("state") or {}).get("terminated") or {}
    conditions = [one for one in status.get("conditions") or [] if one.get("type") == "PodScheduled"]
    unscheduled = [one for one in conditions if one.get("status") != "True"]
    why = waiting.get("reason") or (unscheduled[0].get("message") if unscheduled else "") or status.get("reason") or ""
    words = " ".join(str(ended.get("message") or waiting.get("message") or "").split())
    return Pod(
        obj["metadata"]["name"],
        str(spec.get("nodeName") or ""),
        bool(first.get("ready")),
        str(why),
        words[-MESSAGE_AT_MOST:],
        int(first.get("restartCount") or 0),
    )


async def _workloads(api: Api) -> tuple[Workload, ...]:
    found = []
    for plural in ("daemonsets", "deployments"):
        items, _ = await api.pages(f"/apis/apps/v1/{plural}", deadline=DEADLINE)
        for obj in items:
            containers = obj["spec"]["template"]["spec"].get("containers") or []
            images = tuple(str(container.get("image") or "") for container in containers)
            found.append(Workload(obj["metadata"]["namespace"], obj["metadata"]["name"], images))
    return tuple(found)


async def _config_map(api: Api, name: str) -> dict[str, str] | None:
    try:
        answer = await api.call(Request("GET", f"/api/v1/namespaces/kube-system/configmaps/{name}"), DEADLINE)
    except Missing:
        return None
    return {str(key): str(text) for key, text in (answer.get("data") or {}).items()}


async def _kube_proxy(api: Api) -> KubeProxy | None:
    data = await _config_map(api, "kube-proxy")
    return None if data is None else kube_proxy_of(data)


def kube_proxy_of(data: Mapping[str, str]) -> KubeProxy | None:
    """kube-proxy's configuration as kubeadm writes it; None for anything else."""
    try:
        config = yaml.safe_load(data.get("config.conf", ""))
    except (yaml.YAMLError, RecursionError):
        return None
    if not isinstance(config, dict):
        return None
    ipvs = config.get("ipvs")
    strict = isinstance(ipvs, dict) and ipvs.get("strictARP") is True
    return KubeProxy(str(config.get("mode") or ""), strict)


async def _settings(api: Api) -> dict[str, Mapping[str, str]]:
    found = {f"kube-system/{name}": await _config_map(api, name) for name in _CONFIG_MAPS}
    return {name: data for name, data in found.items() if data is not None}


async def _rights(api: Api, namespace: str, account: str) -> dict[Right, bool]:
    """Asks the API whether the manager's service account has each right; the caller needs a right to ask."""

    async def one(right: Right) -> bool:
        resource, _, sub = right.resource.partition("/")
        attributes = {"verb": right.verb, "group": right.group, "resource": resource, "subresource": sub}
        if right.inside:
            attributes["namespace"] = namespace
        user = f"system:serviceaccount:{namespace}:{account}"
        groups = ["system:serviceaccounts", f"system:serviceaccounts:{namespace}", "system:authenticated"]
        body = {
            "apiVersion": "authorization.k8s.io/v1",
            "kind": "SubjectAccessReview",
            "spec": {"user": user, "groups": groups, "resourceAttributes": attributes},
        }
        answer = await api.call(Request("POST", _REVIEWS, body=body), DEADLINE)
        return (answer.get("status") or {}).get("allowed") is True

    return dict(zip(NEEDED, await asyncio.gather(*map(one, NEEDED)), strict=True))
