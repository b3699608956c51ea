"""Access to the API server: kubeconfig files and service account tokens."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from kubernetes import client
from kubernetes.client.exceptions import ApiException


def write_kubeconfig(path: Path, server: str, authority: Path, user: Mapping[str, str]) -> Path:
    """Writes a kubeconfig with one context, readable by its owner only. `user` is a user entry as in the file
    format."""
    document = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "test", "cluster": {"server": server, "certificate-authority": str(authority)}}],
        "users": [{"name": "test", "user": dict(user)}],
        "contexts": [{"name": "test", "context": {"cluster": "test", "user": "test"}}],
        "current-context": "test",
    }
    path.touch(mode=0o600)
    path.write_text(json.dumps(document, indent=1))  # JSON is YAML
    return path


def request_token(api: client.ApiClient, service_account: str, namespace: str, *, pod: str | None, seconds: int) -> str:
    """Returns a token of the account (TokenRequest), bound to `pod` if one is given.

    Creates the namespace and the account if they are missing. `seconds` (at least 600) is the token's lifetime.
    """
    core = client.CoreV1Api(api)
    _make(core.create_namespace, {"metadata": {"name": namespace}})
    account = {"metadata": {"name": service_account}}
    _make(core.create_namespaced_service_account, account, namespace=namespace)
    bound = None
    if pod is not None:
        uid = _plain(api, core.read_namespaced_pod(pod, namespace))["metadata"]["uid"]
        bound = client.V1BoundObjectReference(api_version="v1", kind="Pod", name=pod, uid=uid)
    # An empty list of audiences means the API server's own audience.
    spec = client.V1TokenRequestSpec(audiences=[], expiration_seconds=seconds, bound_object_ref=bound)
    answer = core.create_namespaced_service_account_token(
        service_account, namespace, client.AuthenticationV1TokenRequest(spec=spec)
    )
    return str(_plain(api, answer)["status"]["token"])


def _plain(api: client.ApiClient, model: Any) -> dict[str, Any]:
    result: dict[str, Any] = api.sanitize_for_serialization(model)
    return result


def _make(create: Callable[..., Any], body: Mapping[str, Any], **where: str) -> None:
    """Creates an object; does nothing if it already exists."""
    try:
        create(body=body, **where)
    except ApiException as error:
        if error.status != 409:
            raise
