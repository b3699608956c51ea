"""The manager's small web server: is it alive, is it ready, what does it know, what does it count.

| path | answer |
|---|---|
| /healthz | 200 as long as the event loop turns. Says nothing about the API server: a restart would not mend that |
| /readyz | 200, or 503 with the sentence that says what is not there yet |
| /state | JSON, in the shape of :mod:`porterlb.core.status.state` |
| /metrics | Prometheus text (names begin with ``porterlb_``) |
"""

from __future__ import annotations

import asyncio
import errno
import json
from collections.abc import Callable, Mapping
from typing import Any

from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest

from porterlb.errors import PorterError


class HttpServer:
    """Serves until :meth:`stop`.

    Args:
        host: an address or a name; port: TCP, 0 for any free one (then see :attr:`port`).
        ready: why the manager is not ready, as a sentence; empty when it is.
        state: what /state shows; only JSON values.
        registry: what /metrics shows.
    """

    def __init__(
        self,
        host: str,
        port: int,
        *,
        ready: Callable[[], str],
        state: Callable[[], Mapping[str, Any]],
        registry: CollectorRegistry,
    ) -> None:
        self._host = host
        self._wanted_port = port
        self._ready = ready
        self._state = state
        self._registry = registry
        self._runner: web.AppRunner | None = None

    @property
    def port(self) -> int:
        """The TCP port that is listened on, once started."""
        addresses = self._runner.addresses if self._runner else []
        return int(addresses[0][1]) if addresses else self._wanted_port

    async def start(self) -> None:
        """Listens. Raises PorterError, with what to do, where that is not possible."""
        app = web.Application()
        app.router.add_get("/healthz", self._healthz)
        app.router.add_get("/readyz", self._readyz)
        app.router.add_get("/state", self._get_state)
        app.router.add_get("/metrics", self._metrics)
        runner = web.AppRunner(app, access_log=None, handle_signals=False)
        await runner.setup()
        try:
            await web.TCPSite(runner, self._host, self._wanted_port).start()
        except (OSError, OverflowError) as error:
            await runner.cleanup()
            raise PorterError(
                f"Cannot serve HTTP on {_shown(self._host, self._wanted_port)}: {_because(error)}.",
                "Choose another place with --http HOST:PORT (or PORTERLB_HTTP).",
            ) from error
        self._runner = runner

    async def run(self) -> None:
        """Starts where :meth:`start` has not been called, serves until cancelled, then stops."""
        try:
            if self._runner is None:
                await self.start()
            await asyncio.Event().wait()
        finally:
            await self.stop()

    async def stop(self) -> None:
        """Ends; may be called twice."""
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    async def _healthz(self, _: web.Request) -> web.Response:
        return web.Response(text="ok\n")

    async def _readyz(self, _: web.Request) -> web.Response:
        waiting_for = self._ready()
        return web.Response(text=f"{waiting_for or 'ok'}\n", status=503 if waiting_for else 200)

    async def _get_state(self, _: web.Request) -> web.Response:
        # The text is made in a thread: with 10,000 VIPs it takes a while, and the loop has better things to do.
        text = await asyncio.to_thread(json.dumps, self._state(), sort_keys=True)
        return web.Response(text=text + "\n", content_type="application/json")

    async def _metrics(self, _: web.Request) -> web.Response:
        return web.Response(body=generate_latest(self._registry), headers={"Content-Type": CONTENT_TYPE_LATEST})


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
