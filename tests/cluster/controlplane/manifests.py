"""Server-side apply of manifests of any kind, including their status."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml
from kubernetes import client, dynamic

ESTABLISH_LIMIT = 30.0
"""Limit, in seconds, until a CustomResourceDefinition is served. It takes 0.1 s on an idle machine."""

Manifests = str | Mapping[str, Any] | Iterable[Mapping[str, Any]]
"""YAML text with any number of documents, one object, or objects."""


class Applier:
    """Applies by force as field manager `test`. `cache` is a file that caches the kinds that the server knows."""

    def __init__(self, api: client.ApiClient, cache: Path) -> None:
        self._talk: Any = dynamic.DynamicClient(api, cache_file=str(cache))

    def apply(self, manifests: Manifests) -> list[dict[str, Any]]:
        """Applies the manifests in order and returns the resulting objects.

        The namespace is `default` if a manifest of a namespaced kind does not name one. A status is applied to the
        status subresource. Returns once the defined custom resources are served.
        """
        if isinstance(manifests, str):
            wanted = [each for each in yaml.safe_load_all(manifests) if each]
        else:
            wanted = [manifests] if isinstance(manifests, Mapping) else list(manifests)
        return [self._apply(dict(each)) for each in wanted]

    def _apply(self, manifest: dict[str, Any]) -> dict[str, Any]:
        resource = self._talk.resources.get(api_version=manifest["apiVersion"], kind=manifest["kind"])
        metadata = manifest["metadata"]
        namespace = metadata.get("namespace", "default") if resource.namespaced else None
        path = resource.path(name=metadata["name"], namespace=namespace)
        status = manifest.pop("status", None)
        result = self._patch(path, manifest, "application/apply-patch+yaml", field_manager="test", force_conflicts=True)
        if status is not None:
            # Not by server-side apply, which refuses the two addresses of a dual-stack Node: their schema allows only
            # one of each type.
            result = self._patch(f"{path}/status", {"status": status}, "application/merge-patch+json")
        if manifest["kind"] == "CustomResourceDefinition":
            result = self._established(path)
        return result

    def _patch(self, path: str, body: dict[str, Any], content_type: str, **options: Any) -> dict[str, Any]:
        result: dict[str, Any] = self._talk.request(
            "patch", path, body=body, content_type=content_type, **options
        ).to_dict()
        return result

    def _established(self, path: str) -> dict[str, Any]:
        deadline = time.monotonic() + ESTABLISH_LIMIT
        while True:
            definition: dict[str, Any] = self._talk.request("get", path).to_dict()
            conditions = (definition.get("status") or {}).get("conditions") or []
            if any(each["type"] == "Established" and each["status"] == "True" for each in conditions):
                return definition
            if time.monotonic() > deadline:
                raise TimeoutError(f"{path} is not established after {ESTABLISH_LIMIT:.0f} s: {conditions}")
            time.sleep(0.05)
