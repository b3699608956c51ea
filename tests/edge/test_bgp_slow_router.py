"""Routers that read slowly, or not at all: the messages of a session stay intact, or the session ends (RFC 9687)."""

from __future__ import annotations

import asyncio
import socket
import struct
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from ipaddress import IPv4Address
from pathlib import Path as File
from typing import Any

import pytest

from porterlb.core.bgp.reasons import LossCategory
from porterlb.core.desired import SessionConfig
from tests.edge.bgp_routers import LOCAL_AS, Script, Segment, segment
from tests.edge.bgp_speaking import eventually, many, speaking, via, wanted

pytestmark = pytest.mark.lab

HOLD = 3  # seconds: a keepalive every second, and a send hold time of 6 s
FEW = "4096 8192 16384"  # buffer sizes of the node's sockets, in bytes


@pytest.fixture
def net() -> Iterator[Segment]:
    with segment() as made:
        File("/proc/sys/net/ipv4/tcp_wmem").write_text(FEW)
        yield made


class SlowReader:
    """A router at 127.0.0.5 that sends keepalives all the time, and reads a limited number of bytes per second."""

    def __init__(self, rate: int, hold: int = HOLD) -> None:
        self.rate, self.hold = rate, hold
        self.keepalives = 0  # received
        self.updates = 0
        self.broken = ""  # the first bytes that are not a message
        self.end = threading.Event()
        self.listener = socket.socket()
        self.listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        self.listener.bind((Script.ADDRESS, 0))
        self.listener.listen()
        self.port = int(self.listener.getsockname()[1])
        self.threads = [threading.Thread(target=self._serve, daemon=True)]
        self.threads[0].start()

    def config(self, **options: Any) -> SessionConfig:
        """The node's session with this router."""
        peer, own = IPv4Address(Script.ADDRESS), IPv4Address("10.99.0.1")
        return SessionConfig("tor", peer, 64600, LOCAL_AS, own, hold_time=self.hold, remote_port=self.port, **options)

    def close(self) -> None:
        self.end.set()
        self.listener.close()
        for thread in self.threads:
            thread.join(5)

    def _serve(self) -> None:
        connection, _ = self.listener.accept()
        capabilities = bytes.fromhex("020601040001000102064104") + struct.pack("!I", 64600)
        opening = struct.pack("!BHHIB", 4, 64600, self.hold, 0x0A630005, len(capabilities)) + capabilities
        connection.sendall(Script.message(1, opening))
        self.threads.append(threading.Thread(target=self._live, args=(connection,), daemon=True))
        self.threads[1].start()
        with suppress(OSError):
            self._read(connection)

    def _live(self, connection: socket.socket) -> None:
        with suppress(OSError):
            while not self.end.wait(0.5):
                connection.sendall(Script.message(4))
        connection.close()

    def _read(self, connection: socket.socket) -> None:
        stream, step = b"", 0.02
        connection.settimeout(1)
        while not self.end.is_set():
            if self.rate:
                with suppress(TimeoutError):
                    stream += connection.recv(max(1, int(self.rate * step)))
            stream = self._messages(stream)
            time.sleep(step)

    def _messages(self, stream: bytes) -> bytes:
        while len(stream) >= 19 and not self.broken:
            length, kind = struct.unpack("!HB", stream[16:19])
            if stream[:16] != Script.MARKER or not 19 <= length <= 4096 or kind not in (1, 2, 3, 4):
                self.broken = stream[:19].hex()
                break
            if len(stream) < length:
                break
            self.keepalives += kind == 4
            self.updates += kind == 2
            stream = stream[length:]
        return stream


def test_a_slow_router_gets_whole_messages_and_one_that_stops_reading_is_given_up(net: Segment, tmp_path: File) -> None:
    async def story(router: SlowReader) -> None:
        peer = router.config(graceful_restart=0)
        rest = {via("tor", "10.99.0.12", communities=(f"64500:{i}",)): many(40 * i + 40)[-40:] for i in range(250)}
        async with speaking(tmp_path) as watched:
            await watched.applied(wanted([peer], rest))
            await eventually(lambda: router.keepalives >= 4)
            assert not router.broken, "a keepalive was sent in the middle of a message"
            assert router.updates > 10
            assert watched.up() == {"tor"}
            router.rate = 0
            stopped = time.monotonic()
            await watched.applied(wanted([peer], {via("tor", "10.99.0.13"): many(10000)}))
            await eventually(lambda: watched.last.sessions["tor"].losses, 15)
            loss = watched.last.sessions["tor"].loss
            assert loss is not None
            assert (loss.code, loss.subcode, loss.local) == (8, 0, True)
            assert loss.category is LossCategory.HOLD_TIMER
            assert "did not read" in watched.reason("tor")
            assert 4 < time.monotonic() - stopped < 12

    router = SlowReader(4000)
    try:
        asyncio.run(story(router))
    finally:
        router.close()
