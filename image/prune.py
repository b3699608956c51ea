"""Removes from a virtual environment what PorterLB never imports, and checks that everything else still works.

Run by the environment's own Python: ``python prune.py prune``, then ``python prune.py smoke``. Nearly all of the
package kubernetes is generated: a class for each kind and each API group, of which none is used here (requests are
made as plain JSON). It imports them when they are asked for, so that they can be left out.
"""

from __future__ import annotations

import asyncio
import importlib
import json
import pkgutil
import shutil
import sys
import sysconfig
import tempfile
from pathlib import Path

SITE = Path(sysconfig.get_path("purelib"))

GENERATED = (
    "kubernetes/client/api",
    "kubernetes/client/models",
    "kubernetes/aio/client/api",
    "kubernetes/aio/client/models",
)
TESTS = ("test", "tests", "e2e_test", "testing")
"""Folders of this name go, in every package that no module of ours imports from there."""


def main(verb: str) -> None:
    if verb == "prune":
        prune()
    else:
        smoke()


def everything() -> None:
    """Imports every module of ours, and what they import only when it is used."""
    import porterlb  # noqa: PLC0415

    for module in pkgutil.walk_packages(porterlb.__path__, "porterlb."):
        if not module.name.endswith(("__main__", "_exabgp")) and "._exabgp." not in module.name:
            importlib.import_module(module.name)
    importlib.import_module("kubernetes.aio.config")
    importlib.import_module("exabgp.application.main")


def prune() -> None:
    everything()
    kept = {
        Path(file).resolve() for module in list(sys.modules.values()) if (file := getattr(module, "__file__", None))
    }
    removed = 0
    for folder in GENERATED:
        for path in sorted((SITE / folder).glob("*.py")):
            if path.resolve() not in kept and path.name != "__init__.py":
                removed += path.stat().st_size
                path.unlink()
    for path in sorted(SITE.rglob("*")):
        used = any(file.is_relative_to(path) for file in kept) if path.name in TESTS else True
        if path.is_dir() and path.name in TESTS and not used:
            removed += sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
            shutil.rmtree(path)
    for path in SITE.rglob("*.pyi"):
        removed += path.stat().st_size
        path.unlink()
    print(f"removed {removed / 2**20:.1f} MiB that nothing imports")


def smoke() -> None:
    """Fails where something is missing that is used at run time."""
    everything()
    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(_ask_a_server_that_refuses(Path(folder)))
    from porterlb import crds  # noqa: PLC0415

    assert set(crds.load()) == {"Eip", "BgpConf", "BgpPeer"}
    print("smoke test passed")


async def _ask_a_server_that_refuses(folder: Path) -> None:
    """A whole request, its answer and a watch through the Kubernetes client."""
    from porterlb.cluster import Denied, Kind, Outage  # noqa: PLC0415
    from porterlb.edge.kube import KubeCluster  # noqa: PLC0415

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        body = json.dumps({"kind": "Status", "code": 403, "message": "no"}).encode()
        head = f"HTTP/1.1 403 Forbidden\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
        writer.write(head.encode() + body)
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    config = {
        "clusters": [{"name": "c", "cluster": {"server": f"http://127.0.0.1:{port}"}}],
        "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
        "users": [{"name": "u", "user": {"token": "t"}}],
        "current-context": "c",
    }
    path = folder / "kubeconfig"
    path.write_text(json.dumps(config))
    cluster = KubeCluster.connect("porterlb-system", str(path))
    try:
        try:
            await cluster.get(Kind.EIP, "x")
        except Denied as error:
            assert str(error) == "no", error
        else:
            raise AssertionError("a refusal was not seen")
        async for event in cluster.watch([Kind.EIP]):
            assert isinstance(event, Outage) and event.refused, event
            break
    finally:
        await cluster.close()
        server.close()


if __name__ == "__main__":
    main(sys.argv[1])
