"""What counts as an answer of a health port."""

from __future__ import annotations

import asyncio
import time
from ipaddress import ip_address

import pytest

from porterlb import health_port
from porterlb.health_port import healthy

HERE = ip_address("127.0.0.1")


async def asked(answer: bytes | None) -> tuple[bool, bytes]:
    """Whether a server with this answer is healthy, and what it was asked. None: it does not answer."""
    heard = b""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal heard
        heard = await reader.readuntil(b"\r\n\r\n")
        if answer is not None:
            writer.write(answer)
        else:
            await reader.read()  # until the other end gives up
        writer.close()
        over.set()

    over = asyncio.Event()
    server = await asyncio.start_server(serve, str(HERE), 0)
    async with server:
        found = await healthy(HERE, server.sockets[0].getsockname()[1], "/healthz")
        await over.wait()
        await asyncio.sleep(0.01)  # until the closed connection is gone
        return found, heard


@pytest.mark.parametrize(
    ("answer", "well"),
    [
        (b"HTTP/1.1 200 OK\r\n\r\n{}", True),
        (b"HTTP/1.0 200\r\n\r\n", True),
        (b"HTTP/1.1 503 Service Unavailable\r\n\r\n", False),
        (b"HTTP/1.1 2000\r\n\r\n", False),
        (b"HTTP/1.1 301 Moved\r\nLocation: /200\r\n\r\n", False),
        (b"SSH-2.0-OpenSSH_9.2\r\n", False),
        (b"x" * 100_000, False),
        (b"", False),
    ],
)
def test_only_status_200_is_healthy(answer: bytes, well: bool) -> None:
    found, heard = asyncio.run(asked(answer))
    assert found is well
    assert heard.startswith(b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1:") and b"\r\nConnection: close\r\n" in heard


def test_a_server_that_does_not_answer_is_given_up(monkeypatch) -> None:
    monkeypatch.setattr(health_port, "TIMEOUT", 0.1)
    begun = time.monotonic()
    assert asyncio.run(asked(None))[0] is False
    assert 0.1 <= time.monotonic() - begun < 5.0


def test_a_closed_port_is_not_healthy() -> None:
    assert asyncio.run(healthy(HERE, 1, "/")) is False
