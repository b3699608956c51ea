"""Requests to the API server as plain JSON, each with one deadline and with errors by meaning."""

from __future__ import annotations

import asyncio
import json
import os
import ssl
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote, urlencode

import aiohttp

from porterlb.cluster import GROUP, Kind, Obj, Unavailable
from porterlb.core.depth import limited, shallow
from porterlb.edge.kube.access import Access
from porterlb.edge.kube.errors import Busy, Expired, Trouble, Unauthorized, trouble

APPLY = "application/apply-patch+yaml"
MERGE = "application/merge-patch+json"
STRATEGIC_MERGE = "application/strategic-merge-patch+json"

PAGE = 500
"""Objects per page of a list, as in client-go; 10,000 Services are 20 answers of 1-2 MB."""

CONNECT = 3.0
"""Seconds for a connection to the API server, without TLS: the server is in the same data centre."""

Query = Iterable[tuple[str, str]]
Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Request:
    """A request to the API server. ``body``: any mapping that JSON can represent."""

    method: str
    path: str
    query: Query = ()
    body: Mapping[str, Any] | None = None
    content_type: str = "application/json"


@dataclass(slots=True, eq=False)
class Api:
    """The API server. Methods raise Unavailable, Denied, Conflict or Expired, and nothing else."""

    access: Access
    on_timeout: list[Callable[[], None]] = field(default_factory=list)
    """Called when a call has timed out: readers of a stream may check whether it is alive."""

    async def call(self, request: Request, deadline: float) -> Json:
        """One request and its answer, in ``deadline`` seconds, including the time that a busy API asks us to wait."""
        try:
            async with asyncio.timeout(deadline):
                return await self._patient(request)
        except TimeoutError:
            self.access.distrust()
            for notify in self.on_timeout:
                notify()
            raise Unavailable(f"The Kubernetes API has not answered within {deadline:g} s.") from None

    async def text(self, request: Request, deadline: float) -> str:
        """One request whose answer is plain text (the log of a pod), in ``deadline`` seconds."""
        try:
            async with asyncio.timeout(deadline), self.access.client() as client:
                response = await self._send(client, request)
                if not 200 <= response.status < 300:
                    raise await self._failed(response, request.path)
                return (await response.read()).decode("utf-8", "replace")
        except TimeoutError:
            raise Unavailable(f"The Kubernetes API has not answered within {deadline:g} s.") from None
        except (aiohttp.ClientError, OSError) as error:
            raise Unavailable(f"The answer of the Kubernetes API cannot be read: {_reason(error)}.") from None

    async def pages(self, path: str, *, deadline: float) -> tuple[list[Json], str]:
        """Every object of a list and the resourceVersion of the list. ``deadline``: seconds for each page."""
        for _ in range(3):
            try:
                return await self._pages(path, deadline)
            except Expired:
                continue  # the token of the next page has expired by compaction: start again
        raise Unavailable(f"The Kubernetes API has forgotten the list of {path} three times while it was read.")

    @asynccontextmanager
    async def stream(self, path: str, query: Query, *, deadline: float) -> AsyncIterator[AsyncIterator[bytes]]:
        """A watch: lines as they arrive, until the server ends it. ``deadline``: seconds until it has begun.

        The reader decides how long silence may last: its time limit ends the wait for the next line.
        """
        async with self.access.client() as client:
            try:
                async with asyncio.timeout(deadline):
                    response = await self._send(client, Request("GET", path, query))
                    if response.status != 200:
                        raise await self._failed(response, path)
            except TimeoutError:
                self.access.distrust()
                raise Unavailable(f"The Kubernetes API has not answered within {deadline:g} s.") from None
            except Unauthorized:
                self.access.distrust()
                raise
            try:
                yield _lines(response.content)
            finally:
                # Abort: an orderly close would wait for the peer (TLS, 30 s), although the connection may be dead.
                if response.connection and response.connection.transport:
                    response.connection.transport.abort()
                response.close()

    async def _pages(self, path: str, deadline: float) -> tuple[list[Json], str]:
        items: list[Json] = []
        token = ""
        while True:
            query = [("limit", str(PAGE)), *([("continue", token)] if token else [])]
            page = await self.call(Request("GET", path, query), deadline)
            items += page.get("items") or []
            metadata = page.get("metadata") or {}
            token = metadata.get("continue") or ""
            if not token:
                return items, metadata.get("resourceVersion") or ""

    async def _patient(self, request: Request) -> Json:
        renewed = False
        while True:
            try:
                return await self._once(request)
            except Busy as busy:
                await asyncio.sleep(busy.after)  # bounded by the caller's deadline
            except Unauthorized:
                if renewed or not self.access.distrust():
                    raise
                renewed = True  # the token was renewed, or its exec plugin has a new one

    async def _once(self, request: Request) -> Json:
        async with self.access.client() as client:
            response = await self._send(client, request)
            if not 200 <= response.status < 300:
                raise await self._failed(response, request.path)
            try:
                answer = decoded(await response.read())
            except (aiohttp.ClientError, OSError, ValueError) as error:
                raise Unavailable(f"The answer of the Kubernetes API cannot be read: {_reason(error)}.") from None
            if not isinstance(answer, dict):
                raise Unavailable("The answer of the Kubernetes API is not an object.")
            return answer

    async def _send(self, client: Any, request: Request) -> aiohttp.ClientResponse:
        """The head of the answer; its body has not been read yet."""
        try:
            url = url_of(client, request)
            headers = await headers_of(client, {"Accept": "application/json", "Content-Type": request.content_type})
            body = None if request.body is None else plain(request.body)
            # Not a number: the client would use it as the limit of the whole answer, and a watch has none.
            limits = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT)
            answer = await client.request(request.method, url, headers, body, _request_timeout=limits)
        except TimeoutError:
            raise Unavailable(f"{client.configuration.host} does not accept connections (no answer).") from None
        except (aiohttp.ClientError, OSError, ValueError) as error:
            raise Unavailable(f"{client.configuration.host} cannot be reached: {_reason(error)}.") from None
        response: aiohttp.ClientResponse = answer.response
        return response

    async def _failed(self, response: aiohttp.ClientResponse, path: str) -> Trouble:
        try:
            body = await response.read()
        except (aiohttp.ClientError, OSError):
            body = b""
        return trouble(response.status, body, path, response.headers.get("Retry-After", ""))


def url_of(client: Any, request: Request) -> str:
    query = urlencode(list(request.query), quote_via=quote)
    return f"{client.configuration.host}{request.path}{'?' if query else ''}{query}"


async def headers_of(client: Any, headers: Mapping[str, str]) -> dict[str, str]:
    """``headers`` with our name and credentials."""
    settings = await client.configuration.auth_settings()
    return {**headers, "User-Agent": "porterlb", **{setting["key"]: setting["value"] for setting in settings.values()}}


LINE_AT_MOST = 64 * 2**20
"""Bytes: forty times the largest object that etcd stores."""


async def _lines(content: aiohttp.StreamReader) -> AsyncIterator[bytes]:
    """Lines without line ends. aiohttp's own reader of lines is limited to a few MiB per line."""
    parts: list[bytes] = []
    size = 0
    try:
        async for chunk in content.iter_any():
            first, *rest = chunk.split(b"\n")
            parts.append(first)
            size += len(first)
            for following in rest:
                yield b"".join(parts)
                parts, size = [following], len(following)
            if size > LINE_AT_MOST:
                raise Unavailable("The Kubernetes API sends a line without an end.")
    except (aiohttp.ClientError, OSError) as error:
        raise Unavailable(f"The connection to the Kubernetes API broke: {_reason(error)}.") from None


DECODER_DEPTH = 300
"""Levels, at most, that Python's JSON decoder gets: it counts them against the interpreter's recursion limit, 1,000,
together with the frames that are already on the stack."""


def decoded(text: bytes) -> Any:
    """The value of a JSON text, nested to any depth: see :mod:`porterlb.core.depth`. Raises ValueError."""
    try:
        return json.loads(text)
    except RecursionError:
        return json.loads(shallow(text.decode(), DECODER_DEPTH))


def shaped(kind: Kind, obj: Json) -> Obj:
    """An object in the form that the other modules expect.

    A field without a schema can be nested to any depth; only our own kinds have such a field.

    Lists of built-in kinds leave out apiVersion and kind: they are added. managedFields are dropped: with server-side
    apply they are half of an object. For a Service, other writers of its addresses are kept.
    """
    obj.setdefault("apiVersion", kind.api_version)
    obj.setdefault("kind", kind.kind)
    metadata = obj.get("metadata")
    if isinstance(metadata, dict):
        managed = metadata.pop("managedFields", None)
        if kind is Kind.SERVICE and isinstance(managed, list) and (others := _writers_of_addresses(managed)):
            metadata["managedFields"] = others
    return limited(obj) if kind.value[0] == GROUP else obj


def _writers_of_addresses(managed: list[Any]) -> list[Json]:
    """The field managers of status.loadBalancer.ingress that are not ours: name, time of their last write, and of our
    last write to the object (``ours``). Times are texts, empty if there is none."""
    found: list[Json] = []
    ours = ""
    for entry in managed:
        fields = entry.get("fieldsV1") or {} if isinstance(entry, dict) else {}
        name = entry.get("manager") if isinstance(entry, dict) else None
        if not isinstance(name, str):
            continue
        time = str(entry.get("time") or "")
        if name.startswith("porterlb"):
            ours = max(ours, time)
        elif ((fields.get("f:status") or {}).get("f:loadBalancer") or {}).get("f:ingress") is not None:
            found.append({"manager": name, "time": time})
    return [{**entry, "ours": ours} for entry in found]


def plain(value: Any) -> Any:
    """The same value as dict and list: the client treats any other mapping as one of its models."""
    if isinstance(value, Mapping):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return value


def _reason(error: Exception) -> str:
    if isinstance(error, aiohttp.ClientConnectorCertificateError | ssl.SSLError):
        return f"its certificate is not accepted ({error})"
    if isinstance(error, aiohttp.ClientConnectorError):
        # asyncio replaces the system's text by its own, with the address.
        return os.strerror(error.os_error.errno) if error.os_error.errno else str(error.os_error)
    return " ".join(str(error).split()) or type(error).__name__
