"""The few verbs of the Kubernetes API that the agent needs, as plain JSON."""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import aiohttp

Object = dict[str, Any]

MERGE = "application/merge-patch+json"
STRATEGIC = "application/strategic-merge-patch+json"
DEADLINE = 5.0
"""Seconds for one answer."""
WATCH_LIFE = 60
"""Seconds of a watch; a connection that has been silent for so long is begun again."""


class ApiError(Exception):
    """The API server refuses, or cannot be reached (status 0)."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(f"{status}: {message}")
        self.status = status


class Api:
    """One API server, as a kubeconfig of the control plane's tests names it (JSON, with certificate files)."""

    def __init__(self, kubeconfig: Path) -> None:
        document = json.loads(kubeconfig.read_text())
        cluster, user = document["clusters"][0]["cluster"], document["users"][0]["user"]
        self.server = str(cluster["server"])
        context = ssl.create_default_context(cafile=cluster["certificate-authority"])
        context.load_cert_chain(user["client-certificate"], user["client-key"])
        self._connector = aiohttp.TCPConnector(ssl=context, limit=0)
        self._session = aiohttp.ClientSession(connector=self._connector)

    async def close(self) -> None:
        await self._session.close()

    async def get(self, path: str, **query: str) -> Object:
        return await self._call("GET", path, query=query)

    async def post(self, path: str, body: Mapping[str, Any]) -> Object:
        return await self._call("POST", path, body)

    async def patch(self, path: str, body: Mapping[str, Any], kind: str = MERGE) -> Object:
        return await self._call("PATCH", path, body, kind)

    async def delete(self, path: str, body: Mapping[str, Any]) -> Object:
        return await self._call("DELETE", path, body)

    async def _call(
        self,
        method: str,
        path: str,
        body: Mapping[str, Any] | None = None,
        kind: str = "application/json",
        query: Mapping[str, str] | None = None,
    ) -> Object:
        try:
            async with (
                asyncio.timeout(DEADLINE),
                self._session.request(
                    method,
                    self.server + path,
                    params=query,
                    data=None if body is None else json.dumps(body),
                    headers={"Content-Type": kind},
                ) as answer,
            ):
                text = await answer.text()
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            raise ApiError(0, f"{method} {path}: {error!r}") from None
        if answer.status >= 300:
            raise ApiError(answer.status, f"{method} {path}: {_message(text)}")
        found: Object = json.loads(text)
        return found

    async def follow(self, path: str, **query: str) -> AsyncIterator[list[Object] | tuple[str, Object]]:
        """First all objects as a list, then (ADDED | MODIFIED | DELETED, object), until the watch ends.

        Raises ApiError; begin again then.
        """
        listed = await self.get(path, **query)
        yield list(listed.get("items") or [])
        version = listed["metadata"]["resourceVersion"]
        more = {**query, "watch": "true", "resourceVersion": version, "timeoutSeconds": str(WATCH_LIFE)}
        limit = aiohttp.ClientTimeout(total=None, sock_connect=DEADLINE, sock_read=WATCH_LIFE + DEADLINE)
        try:
            async with self._session.get(self.server + path, params=more, timeout=limit) as answer:
                if answer.status != 200:
                    raise ApiError(answer.status, f"watch {path}: {_message(await answer.text())}")
                async for line in answer.content:
                    event = json.loads(line)
                    if event["type"] == "ERROR":
                        raise ApiError(int(event["object"].get("code") or 500), f"watch {path}: {event['object']}")
                    yield event["type"], event["object"]
        except (aiohttp.ClientError, OSError, TimeoutError, ValueError) as error:
            raise ApiError(0, f"watch {path}: {error!r}") from None


def _message(text: str) -> str:
    try:
        return str(json.loads(text).get("message") or text)
    except ValueError:
        return text.strip()
