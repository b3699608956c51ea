"""``porterlb dashboard``: the page of a replica through the API server, until Ctrl-C."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import struct
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from prometheus_client import CollectorRegistry

from porterlb.core.membership import described, lease_name
from porterlb.edge.http import HttpServer
from tests.cli.conftest import MEMBERS, Folder
from tests.core.test_page import state
from tests.edge.kube_served import kube_cluster

LEASES = "/apis/coordination.k8s.io/v1/namespaces/porterlb-system/leases"
PODS = "/api/v1/namespaces/porterlb-system/pods"


def lease(name: str, holder: str, annotations: dict[str, str] | None = None) -> dict[str, Any]:
    return {"metadata": {"name": name, "annotations": annotations or {}}, "spec": {"holderIdentity": holder}}


class ApiServer:
    """Three replicas; each pod's port leads to a manager's web server, except on the nodes in ``away``."""

    def __init__(self, port: int, away: frozenset[str] = frozenset()) -> None:
        self.port, self.away = port, away
        self.forwarded: list[str] = []

    def app(self) -> web.Application:
        app = web.Application()
        app.router.add_get(LEASES, self.leases)
        app.router.add_get(PODS, self.pods)
        app.router.add_get(PODS + "/{pod}/portforward", self.forward)
        return app

    async def leases(self, request: web.Request) -> web.Response:
        own = [lease(lease_name(name), name, dict(described(member))) for name, member in MEMBERS.items()]
        return web.json_response({"items": [*own, lease("porterlb", "node-b_1234")]})

    async def pods(self, request: web.Request) -> web.Response:
        node = request.query["fieldSelector"].removeprefix("spec.nodeName=")
        ports = [{"name": "http", "containerPort": 7472}]
        pod = {"metadata": {"name": f"pod-{node}"}, "spec": {"containers": [{"ports": ports}]}}
        return web.json_response({"items": [] if node in self.away else [pod]})

    async def forward(self, request: web.Request) -> web.StreamResponse:
        self.forwarded.append(request.match_info["pod"])
        socket = web.WebSocketResponse(protocols=("v4.channel.k8s.io",))
        await socket.prepare(request)
        for channel in (0, 1):
            await socket.send_bytes(bytes([channel]) + struct.pack("<H", 7472))
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)

        async def up() -> None:
            async for message in socket:
                writer.write(message.data[1:])

        async def down() -> None:
            while data := await reader.read(4096):
                await socket.send_bytes(b"\x00" + data)

        tasks = [asyncio.create_task(up()), asyncio.create_task(down())]
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        writer.transport.abort()
        await socket.close()
        return socket


@asynccontextmanager
async def installed(folder: Path, away: frozenset[str] = frozenset()) -> AsyncIterator[ApiServer]:
    known = state()
    http = HttpServer("127.0.0.1", 0, ready=lambda: "", state=lambda: lambda: known, registry=CollectorRegistry())
    await http.start()
    api = ApiServer(http.port, away)
    try:
        async with kube_cluster(api.app(), folder):
            yield api
    finally:
        await http.stop()


@asynccontextmanager
async def command(folder: Path, *arguments: str) -> AsyncIterator[asyncio.subprocess.Process]:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-P", "-m", "porterlb", "--kubeconfig", str(folder / "kubeconfig"), "dashboard", *arguments,
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
        env={**os.environ, "PYTHONUNBUFFERED": "1", "BROWSER": "true"},
    )  # fmt: skip
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


def test_the_page_of_the_leader_comes_through_the_api_server_until_ctrl_c(tmp_path: Path) -> None:
    async def main() -> None:
        async with installed(tmp_path) as api, command(tmp_path, "--no-browser") as process:
            assert process.stdout is not None
            async with asyncio.timeout(30):
                line = (await process.stdout.readline()).decode()
            found = re.fullmatch(r"The status page of the replica on node-b: (http://127\.0\.0\.1:\d+/)\n", line)
            assert found, line
            async with aiohttp.ClientSession() as client:
                async with client.get(found[1]) as answer:
                    assert answer.status == 200 and "<h1>PorterLB</h1>" in await answer.text()
                for _ in range(3):
                    async with client.get(f"{found[1]}events") as answer:
                        assert answer.content_type == "text/event-stream"
                        async with asyncio.timeout(10):
                            await answer.content.readuntil(b"event: page\n")
            assert set(api.forwarded) == {"pod-node-b"}
            process.send_signal(signal.SIGINT)
            async with asyncio.timeout(10):
                _, errors = await process.communicate()
            assert (process.returncode, errors.strip()) == (130, b"")

    asyncio.run(main())


@pytest.mark.parametrize(
    ("away", "arguments", "code", "text"),
    [
        (
            {"node-a", "node-b", "node-c"},
            (),
            1,
            "No replica can be reached (node-b: There is no pod of a replica on node-b",
        ),
        ((), ("--node", "node-x"), 2, "There is no replica on node-x. Replicas: node-a, node-b, node-c."),
        ({"node-a"}, ("--node", "node-a"), 1, "No replica can be reached (node-a: There is no pod"),
    ],
    ids=["all-away", "unknown", "away"],
)
def test_what_cannot_be_reached_is_one_sentence(
    tmp_path: Path, away: set[str], arguments: tuple[str, ...], code: int, text: str
) -> None:
    async def main() -> None:
        async with (
            installed(tmp_path, frozenset(away)),
            command(tmp_path, "--no-browser", *arguments) as process,
            asyncio.timeout(30),
        ):
            out, errors = await process.communicate()
            assert (process.returncode, out, errors.count(b"\n")) == (code, b"", 1)
            assert text in errors.decode()

    asyncio.run(main())


def test_another_replica_is_shown_where_the_leader_is_away_and_its_loss_is_told_once(tmp_path: Path) -> None:
    async def main() -> None:
        async with installed(tmp_path, frozenset({"node-b"})) as api, command(tmp_path, "--no-browser") as process:
            assert process.stdout is not None and process.stderr is not None
            async with asyncio.timeout(30):
                line = (await process.stdout.readline()).decode()
            assert "the replica on node-a" in line
            api.away = frozenset(MEMBERS)
            async with aiohttp.ClientSession() as client:
                for _ in range(3):
                    with pytest.raises(aiohttp.ClientError):
                        await client.get(line.split()[-1])
            process.send_signal(signal.SIGINT)
            async with asyncio.timeout(10):
                _, errors = await process.communicate()
            assert errors.decode().count("There is no pod of a replica on node-a") == 1

    asyncio.run(main())


def test_a_directory_of_manifests_and_from_name_the_address(folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[str] = []

    def browse(url: str) -> bool:
        opened.append(url)
        return True

    monkeypatch.setattr("webbrowser.open", browse)
    monkeypatch.setattr("porterlb.cli.replicas.reach", lambda url: None)
    assert folder.cli("dashboard") == 0
    assert folder.out == "The status page: http://127.0.0.1:7472/\n" and opened == ["http://127.0.0.1:7472/"]
    assert folder.cli("dashboard", "--from", "http://127.0.0.1:9/", "--no-browser") == 0
    assert folder.out == "The status page: http://127.0.0.1:9/\n" and len(opened) == 1
    monkeypatch.setattr("webbrowser.open", lambda url: False)
    assert folder.cli("dashboard") == 0 and "There is no browser here" in folder.err


def test_an_address_where_nobody_listens(folder: Folder) -> None:
    assert folder.cli("dashboard", "--from", "http://127.0.0.1:1", "--no-browser") == 1
    assert "http://127.0.0.1:1 cannot be read" in folder.err and folder.out == ""
