"""Forwards TCP connections from loopback to an address inside a network namespace.

`python -m tests.cluster.controlplane.forward LOCAL_PORT NAMESPACE HOST PORT`: it first listens, and then moves into the
namespace, where its outgoing connections start. The test process uses it to reach an API server in a lab.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import sys

from lab import netns


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while data := await reader.read(1 << 16):
            writer.write(data)
            await writer.drain()
    with contextlib.suppress(OSError):
        writer.close()


async def _serve(listening: socket.socket, host: str, port: int) -> None:
    async def carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            far_reader, far_writer = await asyncio.open_connection(host, port)
        except OSError:  # nothing listens: the client sees its connection closed, and retries
            writer.close()
            return
        await asyncio.gather(_pump(reader, far_writer), _pump(far_reader, writer))

    server = await asyncio.start_server(carry, sock=listening)
    await server.serve_forever()


def main() -> None:
    local_port, namespace, host, port = sys.argv[1:]
    with socket.create_server(("127.0.0.1", int(local_port))) as listening:
        netns.enter(netns.Namespace(namespace).path)
        asyncio.run(_serve(listening, host, int(port)))


if __name__ == "__main__":
    main()
