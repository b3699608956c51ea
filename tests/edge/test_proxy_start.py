"""The kube-proxies of returned nodes are asked, if the own node's kube-proxy can be asked."""

from __future__ import annotations

import asyncio
from ipaddress import ip_address

from aiohttp import web

from porterlb.edge.proxy_start import ProxyStart
from tests.edge.bgp_speaking import eventually

ADDRESSES = {"own": ["127.0.0.1"], "back": ["127.0.0.2", "127.0.0.3"], "off": ["127.0.0.4"]}


async def story() -> None:
    status: dict[str, int] = {}
    asked: list[str] = []

    async def answer(request: web.Request) -> web.Response:
        asked.append(request.host.partition(":")[0])
        return web.Response(status=status.get(asked[-1], 503))

    app = web.Application()
    app.router.add_get("/healthz", answer)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "0.0.0.0", 0).start()
    port = runner.addresses[0][1]
    said: list[frozenset[str]] = []
    start = ProxyStart(
        "own",
        lambda node: [ip_address(text) for text in ADDRESSES[node]],
        said.append,
        port=port,
        own_interval=0.02,
    )
    task = asyncio.create_task(start.run())
    try:
        start.ask(["back", "off"])
        await eventually(lambda: len(asked) >= 3)
        assert set(asked) == {"127.0.0.1"} and not said, "the own node cannot be asked: nobody else is"
        status["127.0.0.1"] = 200
        await eventually(lambda: bool(said))
        assert said == [frozenset()]
        await eventually(lambda: set(asked) == {"127.0.0.1", "127.0.0.2", "127.0.0.3", "127.0.0.4"})
        status["127.0.0.3"] = 200
        await eventually(lambda: len(said) == 2)
        assert said[1] == {"back"}
        start.ask([])
        await asyncio.sleep(0.25)
        before = len(asked)
        await asyncio.sleep(0.25)
        assert len(asked) == before, "nothing is asked when nothing waits"
        status.pop("127.0.0.3")
        start.ask(["back"])
        await eventually(lambda: len(asked) > before + 2)
        assert len(said) == 2, "an answer of an earlier wait does not count"
    finally:
        task.cancel()
        await runner.cleanup()


def test_a_node_is_asked_until_its_kube_proxy_answers_where_ours_does() -> None:
    asyncio.run(story())
