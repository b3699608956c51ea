"""The manager's small web server: health, readiness, state and metrics.

| path | answer |
|---|---|
| /healthz | 200 as long as the event loop runs. Ignores the API server: a restart would not end an outage |
| /readyz | 200, or 503 with a sentence that says what is still missing |
| /state | JSON, in the shape of :mod:`porterlb.core.status.state` |
| /metrics | Prometheus text (names begin with ``porterlb_``) |
| / | the status page, with the files that it needs (:mod:`porterlb.edge.page`) |
| /events | the live data of the status page (:mod:`porterlb.edge.state_stream`) |
| /record | the recording in memory, for ``porterlb replay``; to clients on this machine only |
| /ask?VIP,VIP | asks the segment now which hosts answer for these VIPs; to clients on this machine only |

Browsers need extra protection: with DNS rebinding, a web site can make its own name resolve to this address and read
these pages as its own. Therefore the paths that show something about the cluster accept only a Host header that no web
site can have: an address, ``localhost``, or a name without dots, like those of most nodes.

One request per connection (HTTP/1.1 with ``Connection: close``). Everything that a client can make the server wait for
or keep has a limit: the number of connections, the size of a request, the time to send it and the time to read the
answer. A full HTTP library keeps idle connections forever.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import re
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from http import HTTPStatus
from ipaddress import ip_address
from typing import Any, NamedTuple

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest

from porterlb.core.json_text import json_text
from porterlb.core.layer2.inquiry import MOST, Outcome, written
from porterlb.core.model import Address
from porterlb.edge import page
from porterlb.edge.state_stream import STREAMS, StateStream
from porterlb.errors import PorterError

log = logging.getLogger("porterlb.http")

CONNECTIONS = 64
"""Simultaneous connections. One more replaces the one that has waited longest without a request: a client that holds
connections open cannot lock out others."""

HEAD_AT_MOST = 8192
"""Bytes of the request line and the headers."""

HEAD_WITHIN = 5.0
"""Seconds from the connection to the end of the headers."""

ANSWER_WITHIN = 30.0
"""Seconds from the end of the headers until the client has read the answer."""

SAY_AGAIN = 60.0
"""Seconds between two log lines about failures of the same path."""

EVENTS, ASK = "/events", "/ask"

_REQUEST = re.compile(rb"(GET|HEAD|[A-Z]{1,16}) (/[!-~]*) HTTP/1\.[01]\r\n")
_HOST = re.compile(rb"\r\nHost:[ \t]*([!-~]*)[ \t]*\r\n", re.IGNORECASE)
_FOR_ANY_HOST = frozenset({"/healthz", "/readyz", "/metrics"})
_LOCAL = frozenset({"/record", ASK})
_SAFETY = (
    "Cache-Control: no-store",
    "X-Content-Type-Options: nosniff",
    "Referrer-Policy: no-referrer",
    "Cross-Origin-Resource-Policy: same-origin",
    "Content-Security-Policy: default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
)
_CLOSED = (ConnectionError, TimeoutError, asyncio.IncompleteReadError)


class _Answer(NamedTuple):
    status: HTTPStatus
    body: bytes
    kind: str = "text/plain; charset=utf-8"


class HttpServer:
    """Serves until :meth:`stop`.

    Args:
        host: an address or a name; port: TCP, 0 for any free one (then see :attr:`port`).
        ready: why the manager is not ready, as a sentence; empty when it is.
        state: captures what is known, at once; the function that it returns makes the JSON values of /state, in a
            thread.
        registry: the metrics that /metrics shows.
        record: returns the text of /record.
        ask: asks the segment about VIPs, at most `MOST` at once. Raises TimeoutError when it cannot be asked.
    """

    def __init__(
        self,
        host: str,
        port: int,
        *,
        ready: Callable[[], str],
        state: Callable[[], Callable[[], Mapping[str, Any]]],
        registry: CollectorRegistry,
        record: Callable[[], Awaitable[str]] | None = None,
        ask: Callable[[Sequence[Address]], Awaitable[Sequence[Outcome]]] | None = None,
    ) -> None:
        self._host = host
        self._wanted_port = port
        self._ready = ready
        self._state = state
        self._stream = StateStream(state)
        self._registry = registry
        self._record = record
        self._ask = ask
        self._server: asyncio.Server | None = None
        self._open: dict[asyncio.StreamWriter, asyncio.Task[None]] = {}
        self._waiting: dict[asyncio.StreamWriter, None] = {}  # connections without a request, the oldest first
        self._heavy = asyncio.Lock()
        self._said: dict[str, float] = {}
        self._paths: Mapping[str, Callable[[], Awaitable[_Answer]]] = {
            "/healthz": self._healthz,
            "/readyz": self._readyz,
            "/state": self._get_state,
            "/metrics": self._metrics,
            **{path: partial(self._page, path) for path in page.PATHS},
        }
        if record is not None:
            self._paths = {**self._paths, "/record": self._get_record}

    @property
    def port(self) -> int:
        """The TCP port that the server listens on, once started."""
        return int(self._server.sockets[0].getsockname()[1]) if self._server else self._wanted_port

    async def start(self) -> None:
        """Listens. Raises PorterError, with a remedy, when that is not possible."""
        try:
            self._server = await asyncio.start_server(
                self._connected, self._host, self._wanted_port, limit=HEAD_AT_MOST
            )
        except (OSError, OverflowError) as error:
            raise PorterError(
                f"Cannot serve HTTP on {_shown(self._host, self._wanted_port)}: {_because(error)}.",
                "Choose another address with --http HOST:PORT (or PORTERLB_HTTP).",
            ) from error

    async def run(self) -> None:
        """Starts unless :meth:`start` has been called, serves until cancelled, then stops."""
        try:
            if self._server is None:
                await self.start()
            await asyncio.Event().wait()
        finally:
            await self.stop()

    async def stop(self) -> None:
        """Stops the server; may be called twice."""
        if self._server is not None:
            self._server.close()
            self._server = None
        tasks = list(self._open.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    # --- connections

    def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if len(self._open) >= CONNECTIONS:
            longest = next(iter(self._waiting), writer)
            longest.transport.abort()
            if longest is writer:
                return
            del self._waiting[longest]
            self._open.pop(longest).cancel()
        self._waiting[writer] = None
        self._open[writer] = asyncio.create_task(self._serve(reader, writer), name="http-connection")

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            with contextlib.suppress(*_CLOSED):
                async with asyncio.timeout(HEAD_WITHIN):
                    head = await self._head(reader)
                self._waiting.pop(writer, None)
                request = _read(head)
                if request.path == EVENTS and not request.refusal and not self._stream.full:
                    await self._follow(reader, writer)
                    return
                async with asyncio.timeout(ANSWER_WITHIN):
                    writer.write(await self._answer(request, is_local(writer)))
                    writer.close()
                    await writer.wait_closed()
        finally:
            writer.transport.abort()
            self._waiting.pop(writer, None)
            self._open.pop(writer, None)

    @staticmethod
    async def _head(reader: asyncio.StreamReader) -> bytes:
        """The request line and the headers; empty if they are too long."""
        try:
            return await reader.readuntil(b"\r\n\r\n")
        except asyncio.LimitOverrunError:
            return b""

    async def _answer(self, request: _Request, local: bool) -> bytes:
        work = self._paths.get(request.path)
        if request.path == ASK and self._ask is not None:
            work = partial(self._get_outcomes, self._ask, request.query)
        if request.refusal:
            answer = request.refusal
        elif request.path == EVENTS:
            answer = _text(HTTPStatus.SERVICE_UNAVAILABLE, f"{STREAMS} pages follow this replica already: close one.")
        elif work is None:
            answer = _text(
                HTTPStatus.NOT_FOUND, f"There are {', '.join([*self._paths, EVENTS, *([ASK] if self._ask else [])])}."
            )
        elif request.path in _LOCAL and not local:
            answer = _text(HTTPStatus.FORBIDDEN, f"{request.path} answers clients on its own machine only.")
        else:
            answer = await self._worked(request.path, work)
        sent = _head(answer.status, answer.kind, f"Content-Length: {len(answer.body)}")
        return sent if request.method == "HEAD" else sent + answer.body

    async def _follow(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Sends events until the client closes the connection, or does not read one within ANSWER_WITHIN."""
        gone = asyncio.ensure_future(reader.read(1))
        sending = asyncio.ensure_future(self._send_events(writer))
        try:
            await asyncio.wait([gone, sending], return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in (gone, sending):
                task.cancel()
            await asyncio.gather(gone, sending, return_exceptions=True)

    async def _send_events(self, writer: asyncio.StreamWriter) -> None:
        try:
            async with contextlib.aclosing(self._stream.frames()) as frames:
                writer.write(_head(HTTPStatus.OK, "text/event-stream; charset=utf-8"))
                async for frame in frames:
                    writer.write(frame)
                    async with asyncio.timeout(ANSWER_WITHIN):
                        await writer.drain()
        except _CLOSED:
            pass
        except Exception as error:
            self._failed(EVENTS, error)

    async def _worked(self, path: str, work: Callable[[], Awaitable[_Answer]]) -> _Answer:
        try:
            return await work()
        except Exception as error:
            self._failed(path, error)
            return _text(HTTPStatus.INTERNAL_SERVER_ERROR, f"{path} cannot be answered: {type(error).__name__}.")

    def _failed(self, path: str, error: Exception) -> None:
        now = time.monotonic()
        if now - self._said.get(path, -SAY_AGAIN) >= SAY_AGAIN:
            self._said[path] = now
            log.error("%s cannot be answered", path, exc_info=error)

    def changed(self) -> None:
        """Tells the open pages that the state may have changed."""
        self._stream.changed()

    # --- paths

    async def _healthz(self) -> _Answer:
        return _text(HTTPStatus.OK, "ok")

    async def _readyz(self) -> _Answer:
        waiting_for = self._ready()
        return _text(HTTPStatus.SERVICE_UNAVAILABLE if waiting_for else HTTPStatus.OK, waiting_for or "ok")

    async def _get_state(self) -> _Answer:
        # One at a time, and in a thread: with 10,000 VIPs, making the text would block the event loop for too long.
        async with self._heavy:
            make = self._state()
            text = await asyncio.to_thread(lambda: json_text(make()))
        return _Answer(HTTPStatus.OK, text.encode() + b"\n", "application/json; charset=utf-8")

    async def _get_record(self) -> _Answer:
        assert self._record is not None
        async with self._heavy:
            text = await self._record()
        return _Answer(HTTPStatus.OK, text.encode(), "application/jsonl; charset=utf-8")

    async def _get_outcomes(
        self, ask: Callable[[Sequence[Address]], Awaitable[Sequence[Outcome]]], query: str
    ) -> _Answer:
        try:
            vips = [ip_address(text) for text in dict.fromkeys(query.split(",")) if text]
        except ValueError as error:
            return _text(HTTPStatus.BAD_REQUEST, f"{error}. Ask for addresses: {ASK}?10.0.0.1,10.0.0.2.")
        if not 0 < len(vips) <= MOST:
            return _text(HTTPStatus.BAD_REQUEST, f"Ask for 1 to {MOST} addresses at once, not {len(vips)}.")
        try:
            outcomes = await ask(vips)
        except TimeoutError as error:
            return _text(HTTPStatus.SERVICE_UNAVAILABLE, f"The segment cannot be asked: {str(error) or 'no answer'}.")
        text = json_text({"outcomes": [written(outcome) for outcome in outcomes]})
        return _Answer(HTTPStatus.OK, text.encode() + b"\n", "application/json; charset=utf-8")

    async def _metrics(self) -> _Answer:
        async with self._heavy:
            return _Answer(HTTPStatus.OK, generate_latest(self._registry), CONTENT_TYPE_LATEST)

    async def _page(self, path: str) -> _Answer:
        kind, body = await asyncio.to_thread(page.read, path)
        return _Answer(HTTPStatus.OK, body, kind)


class _Request(NamedTuple):
    """``refusal``: the answer to a request that is refused; None if it is not."""

    method: str
    path: str
    refusal: _Answer | None = None
    query: str = ""


def _read(head: bytes) -> _Request:
    found = _REQUEST.match(head)
    if found is None:
        sentence = f"This is not an HTTP request of at most {HEAD_AT_MOST} bytes."
        return _Request("", "", _text(HTTPStatus.BAD_REQUEST, sentence))
    method = found[1].decode("ascii")
    path, _, query = found[2].decode("ascii").partition("?")
    if method not in ("GET", "HEAD") or (method == "HEAD" and path == EVENTS):
        allowed = "GET is" if path == EVENTS else "GET and HEAD are"
        return _Request(method, path, _text(HTTPStatus.METHOD_NOT_ALLOWED, f"Only {allowed} answered."))
    host = _HOST.search(head)
    if path not in _FOR_ANY_HOST and host is not None and not _own(host[1].decode("ascii")):
        sentence = f"{path} is not shown under a name with dots: use an address, localhost or a short name."
        return _Request(method, path, _text(HTTPStatus.MISDIRECTED_REQUEST, sentence))
    return _Request(method, path, query=query)


def _own(host: str) -> bool:
    """Whether no web site can have this name; see the module docstring."""
    name = host[1:].partition("]")[0] if host.startswith("[") else host.partition(":")[0]
    if "." not in name and ":" not in name:
        return True
    try:
        ip_address(name)
    except ValueError:
        return False
    return True


def _head(status: HTTPStatus, kind: str, *more: str) -> bytes:
    lines = [f"HTTP/1.1 {status.value} {status.phrase}", f"Content-Type: {kind}", *more, *_SAFETY, "Connection: close"]
    return "\r\n".join(lines).encode() + b"\r\n\r\n"


def is_local(writer: asyncio.StreamWriter) -> bool:
    """Whether the client is on this machine and uses a loopback address."""
    peer = writer.get_extra_info("peername")
    try:
        found = ip_address(str(peer[0]).partition("%")[0])
    except (TypeError, IndexError, ValueError):
        return False
    mapped = getattr(found, "ipv4_mapped", None)
    return (mapped or found).is_loopback


def _text(status: HTTPStatus, sentence: str) -> _Answer:
    return _Answer(status, sentence.encode() + b"\n")


def _shown(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _because(error: OSError | OverflowError) -> str:
    number = getattr(error, "errno", None)
    if number == errno.EADDRINUSE:
        return "another program listens there"
    if number == errno.EACCES:
        return "this port needs more rights than the manager has"
    if number == errno.EADDRNOTAVAIL:
        return "this machine does not have that address"
    if isinstance(error, OverflowError):
        return "there is no such port"
    return str(error.strerror or error)
