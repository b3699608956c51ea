"""Reads a web page of a pod through the API server: port-forward by WebSocket (subprotocol v4.channel.k8s.io).

Each port has two channels, one for data and one for errors; the first byte of a message is the channel. On each channel
the server begins with the port number (two bytes, little-endian).
"""

from __future__ import annotations

import json
from contextlib import AsyncExitStack
from typing import Any

import aiohttp

from porterlb.cluster import Denied, NoReplica, Obj, ReplicaState, Unavailable
from porterlb.edge.kube.api import Api, Request, headers_of, url_of
from porterlb.edge.kube.errors import trouble

PROTOCOL = "v4.channel.k8s.io"
DATA, ERROR = 0, 1
PODS_DEADLINE = 2.0
"""Seconds for the list of the pods on a node."""

CLOSE = 0.05
"""Seconds to wait until the other end closes: the answer has already arrived."""

SELECTOR = "app.kubernetes.io/part-of=porterlb,app.kubernetes.io/component=replica"
"""Labels of the replicas' pods, which do not depend on the chart's values."""
HTTP_PORT = "http"
"""The name of the container port of the manager's web server."""

ANSWER_AT_MOST = 64 * 2**20
"""Bytes: a state with 10,000 VIPs has some 6 MB."""


async def replica_state(api: Api, namespace: str, node: str) -> ReplicaState:
    """What the replica on ``node`` knows, from its /state. Raises Unavailable or Denied."""
    name, answer = await page(api, namespace, node, "/state")
    return ReplicaState(node, _state(answer, name), 0.0, f"port-forward to {name}")


async def page(api: Api, namespace: str, node: str, path: str) -> tuple[str, bytes]:
    """A page of the web server of the replica on ``node``: the pod's name, and the whole HTTP answer."""
    name, tunnel = await connect(api, namespace, node)
    answer = bytearray()
    try:
        await tunnel.send(f"GET {path} HTTP/1.0\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode())
        while len(answer) <= ANSWER_AT_MOST and not _whole(answer) and (data := await tunnel.receive()):
            answer += data
    finally:
        await tunnel.close()
    return name, bytes(answer)


async def connect(api: Api, namespace: str, node: str) -> tuple[str, PortForward]:
    """The pod's name, and a connection to the web server of the replica on ``node``."""
    query = [("fieldSelector", f"spec.nodeName={node}"), ("labelSelector", SELECTOR)]
    pods = await api.call(Request("GET", f"/api/v1/namespaces/{namespace}/pods", query), PODS_DEADLINE)
    found = [pod for pod in pods.get("items") or [] if not pod["metadata"].get("deletionTimestamp")]
    if not found:
        raise NoReplica(f"There is no pod of a replica on {node} in the namespace {namespace} ({SELECTOR}).")
    name, port = found[0]["metadata"]["name"], _port(found[0])
    if not port:
        raise Unavailable(f"The pod {name} has no port named {HTTP_PORT}.")
    return name, await _open(api, f"/api/v1/namespaces/{namespace}/pods/{name}/portforward", port)


def found(answer: bytes) -> bool:
    """Whether an HTTP answer contains the page (status 200)."""
    return answer.split(b" ", 2)[1:2] == [b"200"]


def body(answer: bytes) -> str:
    """The body of an HTTP answer."""
    return answer.partition(b"\r\n\r\n")[2].decode("utf-8", "replace")


def _port(pod: dict[str, Any]) -> int:
    containers = (pod.get("spec") or {}).get("containers") or []
    ports = [port for container in containers for port in container.get("ports") or []]
    return next((int(port["containerPort"]) for port in ports if port.get("name") == HTTP_PORT), 0)


def _state(answer: bytes, pod: str) -> Obj:
    """The body of an HTTP/1.0 answer."""
    head, _, body = answer.partition(b"\r\n\r\n")
    status = head.split(b" ", 2)[1:2]
    if status != [b"200"]:
        raise Unavailable(f"The replica in the pod {pod} answers {head[:60]!r}.")
    try:
        state = json.loads(body)
    except ValueError:
        raise Unavailable(f"The answer of the replica in the pod {pod} is not whole.") from None
    if not isinstance(state, dict):
        raise Unavailable(f"The answer of the replica in the pod {pod} is not an object.")
    return state


class PortForward:
    """One connection to a port of a pod; see :class:`porterlb.cluster.Tunnel`."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse, held: AsyncExitStack) -> None:
        self._socket, self._held = socket, held
        self._begun: set[int] = set()

    async def send(self, data: bytes) -> None:
        try:
            await self._socket.send_bytes(bytes([DATA]) + data)
        except (aiohttp.ClientError, OSError) as error:
            raise Unavailable(_failed(error)) from None

    async def receive(self) -> bytes:
        async for message in self._socket:
            if message.type is not aiohttp.WSMsgType.BINARY or not message.data:
                break
            channel, data = message.data[0], message.data[1:]
            if channel not in self._begun:
                self._begun.add(channel)
                data = data[2:]  # the port number
            if channel == ERROR and data:
                raise Unavailable(f"port-forward failed: {data.decode('utf-8', 'replace').strip()}")
            if channel == DATA and data:
                return bytes(data)
        return b""

    async def close(self) -> None:
        await self._held.aclose()


async def _open(api: Api, path: str, port: int) -> PortForward:
    async with AsyncExitStack() as stack:
        client = await stack.enter_async_context(api.access.client())
        try:
            url = url_of(client, Request("GET", path, [("ports", str(port))]))
            headers = await headers_of(client, {})
            session: aiohttp.ClientSession = client.pool_manager
            patience = aiohttp.ClientWSTimeout(ws_close=CLOSE)
            opening = session.ws_connect(url, protocols=(PROTOCOL,), headers=headers, max_msg_size=0, timeout=patience)
            return PortForward(await stack.enter_async_context(opening), stack.pop_all())
        except aiohttp.WSServerHandshakeError as error:
            refusal = trouble(error.status, b"", path)
            raise (
                Denied(f"port-forward is refused ({error.status}).") if isinstance(refusal, Denied) else refusal
            ) from None
        except (aiohttp.ClientError, OSError) as error:
            raise Unavailable(_failed(error)) from None


def _failed(error: Exception) -> str:
    return f"port-forward failed: {error or type(error).__name__}."


def _whole(answer: bytearray) -> bool:
    """Whether as much has arrived as Content-Length says: the API server may keep the channel open."""
    head, separator, _ = answer.partition(b"\r\n\r\n")
    for line in head.split(b"\r\n") if separator else ():
        name, _, value = line.partition(b":")
        if name.strip().lower() == b"content-length" and value.strip().isdigit():
            return len(answer) >= len(head) + len(separator) + int(value)
    return False
