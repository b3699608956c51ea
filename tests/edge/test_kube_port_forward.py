"""The state of a replica through the API server: the WebSocket port-forward of a server that supports it."""

from __future__ import annotations

import asyncio
import json
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from porterlb.cluster import Denied, Unavailable
from porterlb.edge.kube.kube_cluster import KubeCluster
from tests.edge.kube_served import kube_cluster

STATE = {"node": "node-a", "vips": {f"10.0.{n >> 8}.{n & 255}": {"since": ""} for n in range(3000)}}
PORTS = [{"name": "hello", "containerPort": 7473}, {"name": "http", "containerPort": 80}]
POD = {"metadata": {"name": "porterlb-x"}, "spec": {"containers": [{"ports": PORTS}]}}


class Server:
    """Lists pods, and forwards to a page: the combined function of the kubelet and the API server."""

    def __init__(self, pods: list[dict[str, Any]], error: str = "", status: int = 101, keep: bool = False) -> None:
        self.pods, self.error, self.status, self.keep = pods, error, status, keep
        self.asked: list[str] = []

    async def list(self, request: web.Request) -> web.Response:
        self.asked.append(request.query_string)
        return web.json_response({"items": self.pods})

    async def forward(self, request: web.Request) -> web.StreamResponse:
        if self.status != 101:
            return web.json_response({"kind": "Status", "message": "no"}, status=self.status)
        self.asked.append(request.query_string)
        socket = web.WebSocketResponse(protocols=("v4.channel.k8s.io",))
        await socket.prepare(request)
        port = struct.pack("<H", int(request.query["ports"]))
        for channel in (0, 1):
            await socket.send_bytes(bytes([channel]) + port)
        message = await socket.receive()
        assert message.type is aiohttp.WSMsgType.BINARY and message.data.startswith(b"\x00GET /state HTTP/1.0\r\n")
        if self.error:
            await socket.send_bytes(b"\x01" + self.error.encode())
        body = json.dumps(STATE).encode()
        answer = b"HTTP/1.0 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body
        for begin in range(0, len(answer), 10_000):
            await socket.send_bytes(b"\x00" + answer[begin : begin + 10_000])
        if self.keep:
            await asyncio.sleep(60)
        await socket.close()
        return socket


@asynccontextmanager
async def served(server: Server, folder: Path) -> AsyncIterator[KubeCluster]:
    app = web.Application()
    app.router.add_get("/api/v1/namespaces/porterlb-system/pods", server.list)
    app.router.add_get("/api/v1/namespaces/porterlb-system/pods/porterlb-x/portforward", server.forward)
    async with kube_cluster(app, folder) as cluster:
        yield cluster


@pytest.mark.parametrize("keep", [False, True])
def test_the_whole_state_comes_through_the_api_server(tmp_path: Path, keep: bool) -> None:
    async def scenario() -> None:
        server = Server([POD], keep=keep)
        async with served(server, tmp_path) as cluster:
            found = await asyncio.wait_for(cluster.replica_state("node-a"), 10)
        assert found.state == STATE and found.source == "port-forward to porterlb-x"
        assert "spec.nodeName%3Dnode-a" in server.asked[0] and server.asked[1] == "ports=80"

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("server", "error", "words"),
    [
        (Server([]), Unavailable, "There is no pod of a replica on node-a"),
        (Server([{**POD, "metadata": {"name": "x", "deletionTimestamp": "now"}}]), Unavailable, "There is no pod"),
        (Server([POD], error="connection refused"), Unavailable, "port-forward failed: connection refused"),
        (Server([POD], status=403), Denied, "port-forward is refused"),
        (Server([POD], status=500), Unavailable, "500"),
    ],
    ids=["no-pod", "ending", "refused", "forbidden", "broken"],
)
def test_what_goes_wrong_is_said(tmp_path: Path, server: Server, error: type[Exception], words: str) -> None:
    async def scenario() -> None:
        async with served(server, tmp_path) as cluster:
            with pytest.raises(error, match=words):
                await asyncio.wait_for(cluster.replica_state("node-a"), 10)

    asyncio.run(scenario())
