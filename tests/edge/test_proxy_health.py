"""The health check of kube-proxy is requested until it answers 200."""

from __future__ import annotations

import asyncio
from ipaddress import ip_address

from aiohttp import web

from porterlb.core.model import ServiceKey
from porterlb.core.proxy_wait import NewHop
from porterlb.edge.proxy_health import ProxyHealth
from tests.edge.bgp_speaking import eventually

KEY = ServiceKey("default", "web")


async def story() -> None:
    status, asked = 503, 0

    async def answer(_: web.Request) -> web.Response:
        nonlocal asked
        asked += 1
        return web.Response(status=status)

    app = web.Application()
    app.router.add_get("/", answer)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    port = runner.addresses[0][1]
    said: list[frozenset[NewHop]] = []
    health = ProxyHealth({"a": ip_address("127.0.0.1")}.get, said.append)
    task = asyncio.create_task(health.run())
    try:
        hop, unknown, silent = NewHop(KEY, "a", port), NewHop(KEY, "b", port), NewHop(KEY, "a", 0)
        health.ask([hop, unknown, silent])
        await eventually(lambda: asked >= 2)
        assert not said, "503 says that it cannot deliver yet"
        status = 200
        await eventually(lambda: bool(said))
        assert said == [frozenset({hop})]
        health.ask([])
        await asyncio.sleep(0.3)
        before = asked
        await asyncio.sleep(0.3)
        assert asked == before, "nothing is asked when nothing waits"
        status = 503
        health.ask([hop])
        await eventually(lambda: asked > before)
        assert said == [frozenset({hop})], "an answer of an earlier wait does not count"
    finally:
        task.cancel()
        await runner.cleanup()


def test_a_hop_delivers_once_its_health_check_says_so() -> None:
    asyncio.run(story())
