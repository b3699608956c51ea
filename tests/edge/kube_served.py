"""A KubeCluster in front of a web application that acts as the API server."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from aiohttp import web

from porterlb.edge.kube import KubeCluster
from porterlb.edge.kube.access import Kubeconfig


@asynccontextmanager
async def kube_cluster(app: web.Application, folder: Path) -> AsyncIterator[KubeCluster]:
    """Serves ``app`` on loopback, and writes a kubeconfig for it to ``folder``."""
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    config = {
        "clusters": [{"name": "c", "cluster": {"server": f"http://127.0.0.1:{runner.addresses[0][1]}"}}],
        "contexts": [{"name": "c", "context": {"cluster": "c"}}],
        "current-context": "c",
    }
    path = folder / "kubeconfig"
    path.write_text(json.dumps(config))
    cluster = KubeCluster("porterlb-system", Kubeconfig(str(path)))
    try:
        yield cluster
    finally:
        await cluster.close()
        await runner.cleanup()
