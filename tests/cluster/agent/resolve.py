"""Values in a pod that come from elsewhere: the downward API, Secrets, ConfigMaps, $(NAME) in arguments."""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping
from typing import Any

from tests.cluster.agent.api import Api, ApiError, Object


def field(pod: Mapping[str, Any], path: str) -> str:
    """The value of a fieldRef; empty where the pod has none. Raises ValueError for what the agent does not know."""
    if found := re.fullmatch(r"metadata\.(labels|annotations)\['(.+)'\]", path):
        return str((pod["metadata"].get(found[1]) or {}).get(found[2], ""))
    if path == "status.podIPs":
        return ",".join(entry["ip"] for entry in pod["status"].get("podIPs") or [])
    room, _, name = path.partition(".")
    known = {
        "metadata": ("name", "namespace", "uid"),
        "spec": ("nodeName", "serviceAccountName"),
        "status": ("podIP", "hostIP"),
    }
    if name not in known.get(room, ()):
        raise ValueError(f"the agent does not know the field {path}")
    return str(pod[room].get(name, ""))


async def data(api: Api, kind: str, namespace: str, name: str, optional: bool = False) -> dict[str, bytes]:
    """The entries of a Secret or a ConfigMap (``kind``: secrets, configmaps)."""
    try:
        found = await api.get(f"/api/v1/namespaces/{namespace}/{kind}/{name}")
    except ApiError as error:
        if error.status == 404 and optional:
            return {}
        raise
    plain = found.get("data") or {}
    if kind == "secrets":
        return {key: base64.b64decode(value) for key, value in plain.items()}
    coded = found.get("binaryData") or {}
    return {
        **{key: value.encode() for key, value in plain.items()},
        **{key: base64.b64decode(value) for key, value in coded.items()},
    }


async def environment(api: Api, pod: Object, container: Mapping[str, Any]) -> dict[str, str]:
    """The environment that the pod gives to a container. Raises ApiError, KeyError, ValueError."""
    namespace = pod["metadata"]["namespace"]
    found: dict[str, str] = await _api_server(api)
    for source in container.get("envFrom") or []:
        for reference, kind in (("secretRef", "secrets"), ("configMapRef", "configmaps")):
            if named := source.get(reference):
                entries = await data(api, kind, namespace, named["name"], bool(named.get("optional")))
                found |= {f"{source.get('prefix', '')}{key}": value.decode() for key, value in entries.items()}
    for entry in container.get("env") or []:
        origin = entry.get("valueFrom")
        if not origin:
            found[entry["name"]] = expand(str(entry.get("value", "")), found)
        elif "fieldRef" in origin:
            found[entry["name"]] = field(pod, origin["fieldRef"]["fieldPath"])
        else:
            ((reference, named),) = origin.items()
            kind = {"secretKeyRef": "secrets", "configMapKeyRef": "configmaps"}[reference]
            optional = bool(named.get("optional"))
            entries = await data(api, kind, namespace, named["name"], optional)
            if named["key"] in entries or not optional:
                found[entry["name"]] = entries[named["key"]].decode()
    return found


async def _api_server(api: Api) -> dict[str, str]:
    """Where a pod finds the API server unless it is told otherwise: the Service `kubernetes`."""
    service = (await api.get("/api/v1/namespaces/default/services/kubernetes"))["spec"]
    return {
        "KUBERNETES_SERVICE_HOST": service["clusterIP"],
        "KUBERNETES_SERVICE_PORT": str(service["ports"][0]["port"]),
    }


def expand(text: str, values: Mapping[str, str]) -> str:
    """``$(NAME)`` becomes its value, ``$$`` a dollar; a name that is not there stays as it is."""

    def replaced(match: re.Match[str]) -> str:
        whole, name = match[0], match[1]
        return "$" if whole == "$$" else values.get(name, whole)

    return re.sub(r"\$\$|\$\(([^)]+)\)", replaced, text)
