"""The volumes of a pod, as folders below the pod's own."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tests.cluster.agent.api import Api, Object
from tests.cluster.agent.resolve import data, field

TOKEN_LIFE = 3607
"""Seconds of a token where the volume does not say."""


class Volumes:
    """Makes and renews them. Every file is written whole, and replaced in one step."""

    def __init__(self, api: Api, root: Path) -> None:
        self._api = api
        self._root = root

    def path(self, name: str) -> Path:
        return self._root / name

    def renewal(self, pod: Object) -> float:
        """Seconds after which the tokens want to be new: at 80% of their life."""
        lives = [
            float(source["serviceAccountToken"].get("expirationSeconds", TOKEN_LIFE))
            for volume in pod["spec"].get("volumes") or []
            for source in (volume.get("projected") or {}).get("sources") or []
            if "serviceAccountToken" in source
        ]
        return 0.8 * min(lives, default=float(TOKEN_LIFE))

    async def write(self, pod: Object) -> None:
        """Brings them to what is wanted now. Raises ApiError, KeyError, ValueError (a kind that is not known)."""
        for volume in pod["spec"].get("volumes") or []:
            folder = self.path(volume["name"])
            folder.mkdir(parents=True, exist_ok=True)
            if "emptyDir" in volume:
                folder.chmod(0o777)
                continue
            files, mode = await self._files(pod, volume)
            for name, content in files.items():
                _replace(folder / name, content, mode)

    async def _files(self, pod: Object, volume: Mapping[str, Any]) -> tuple[dict[str, bytes], int]:
        namespace = pod["metadata"]["namespace"]
        if source := volume.get("secret"):
            entries = await data(self._api, "secrets", namespace, source["secretName"], bool(source.get("optional")))
            return _chosen(entries, source), source.get("defaultMode", 0o644)
        if source := volume.get("configMap"):
            entries = await data(self._api, "configmaps", namespace, source["name"], bool(source.get("optional")))
            return _chosen(entries, source), source.get("defaultMode", 0o644)
        if projected := volume.get("projected"):
            files: dict[str, bytes] = {}
            for part in projected["sources"]:
                files |= await self._part(pod, part)
            return files, projected.get("defaultMode", 0o644)
        kinds = ", ".join(key for key in volume if key != "name")
        raise ValueError(f"the agent has no volumes of the kind {kinds}")

    async def _part(self, pod: Object, part: Mapping[str, Any]) -> dict[str, bytes]:
        namespace = pod["metadata"]["namespace"]
        ((kind, source),) = part.items()
        if kind == "serviceAccountToken":
            return {source["path"]: await self._token(pod, source)}
        if kind == "downwardAPI":
            return {item["path"]: field(pod, item["fieldRef"]["fieldPath"]).encode() for item in source["items"]}
        plural = {"secret": "secrets", "configMap": "configmaps"}[kind]
        return _chosen(await data(self._api, plural, namespace, source["name"], bool(source.get("optional"))), source)

    async def _token(self, pod: Object, source: Mapping[str, Any]) -> bytes:
        meta = pod["metadata"]
        account = pod["spec"].get("serviceAccountName", "default")
        bound = {"apiVersion": "v1", "kind": "Pod", "name": meta["name"], "uid": meta["uid"]}
        request = {
            "apiVersion": "authentication.k8s.io/v1",
            "kind": "TokenRequest",
            "spec": {
                "audiences": [source["audience"]] if source.get("audience") else [],
                "expirationSeconds": source.get("expirationSeconds", TOKEN_LIFE),
                "boundObjectRef": bound,
            },
        }
        answer = await self._api.post(
            f"/api/v1/namespaces/{meta['namespace']}/serviceaccounts/{account}/token", request
        )
        return str(answer["status"]["token"]).encode()

    def remove(self) -> None:
        shutil.rmtree(self._root, ignore_errors=True)


def _chosen(entries: Mapping[str, bytes], source: Mapping[str, Any]) -> dict[str, bytes]:
    if "items" not in source:
        return dict(entries)
    return {item["path"]: entries[item["key"]] for item in source["items"]}


def _replace(path: Path, content: bytes, mode: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    new = path.with_name(f".{path.name}.new")
    new.unlink(missing_ok=True)
    descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
    new.replace(path)
