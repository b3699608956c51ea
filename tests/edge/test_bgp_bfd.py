"""A real ExaBGP with a session that BFD ends: lost at once, torn down with the correct Cease, and opened again."""

from __future__ import annotations

import asyncio
import struct
from contextlib import suppress
from dataclasses import replace
from ipaddress import IPv4Address, ip_address
from pathlib import Path as File

from porterlb.core.bfd.values import BfdSession, BfdSettings, BfdState, BfdTarget, Diagnostic
from porterlb.core.bgp.reasons import LossKind, RefusalKind
from porterlb.core.desired import DesiredBgp, SessionConfig
from tests.edge.bgp_routers import LOCAL_AS, Script
from tests.edge.bgp_speaking import eventually, speaking

UP = BfdSession(BfdState.UP, remote_state=BfdState.UP, heard=True, transitions=1)
FAILED = replace(UP, state=BfdState.DOWN, diagnostic=Diagnostic.DETECTION_EXPIRED, failures=1, transitions=2)
AS = 64600


class Router:
    """A peer on the loopback interface that accepts any number of sessions, one after the other."""

    def __init__(self) -> None:
        self.sessions = 0
        self.notifications: list[bytes] = []
        self.port = 0

    async def serve(self) -> asyncio.Server:
        server = await asyncio.start_server(self._session, Script.ADDRESS, 0)
        self.port = server.sockets[0].getsockname()[1]
        return server

    async def _session(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.sessions += 1
        capabilities = bytes.fromhex("020601040001000102064104") + struct.pack("!I", AS)
        opening = struct.pack("!BHHIB", 4, AS, 90, 0x0A630005, len(capabilities)) + capabilities
        writer.write(Script.message(1, opening) + Script.message(4))
        with suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                head = await reader.readexactly(19)
                body = await reader.readexactly(int.from_bytes(head[16:18], "big") - 19)
                if head[18] == 3:
                    self.notifications.append(body)
        writer.close()


def desired(router: Router, **settings: bool) -> DesiredBgp:
    address = ip_address(Script.ADDRESS)
    peer = SessionConfig(
        "s", address, AS, LOCAL_AS, IPv4Address("10.99.0.1"), remote_port=router.port, hold_time=90, graceful_restart=0
    )
    target = BfdTarget("s", address, settings=BfdSettings(3, 50, 50, **settings))
    return DesiredBgp({"s": peer}, bfd={"s": target})


def test_a_session_whose_bfd_fails_is_torn_down_and_opened_again(tmp_path: File) -> None:
    async def story() -> None:
        router = Router()
        async with await router.serve(), speaking(tmp_path) as bgp:
            await bgp.applied(desired(router))
            await eventually(lambda: bgp.up() == {"s"})
            bgp.speaker.hear_bfd({"s": UP})
            assert bgp.up() == {"s"}
            bgp.speaker.hear_bfd({"s": FAILED})
            assert not bgp.up()  # at once, regardless of ExaBGP
            lost = bgp.last.sessions["s"]
            assert lost.loss is not None and (lost.loss.kind, lost.losses) == (LossKind.BFD, 1)
            await eventually(lambda: bool(router.notifications), 5)
            assert router.notifications[0][:2] == b"\x06\x0a"  # RFC 9384; ExaBGP adds a text
            await eventually(lambda: bgp.up() == {"s"})
            assert (router.sessions, bgp.last.sessions["s"].losses) == (2, 1)
            assert bgp.last.sessions["s"].bfd == FAILED

    asyncio.run(story())


def test_a_strict_peer_is_opened_once_bfd_is_up(tmp_path: File) -> None:
    async def story() -> None:
        router = Router()
        async with await router.serve(), speaking(tmp_path) as bgp:
            await bgp.applied(desired(router, strict=True))
            refusal = bgp.last.sessions["s"].refusal
            assert refusal is not None and refusal.kind is RefusalKind.BFD_NOT_UP
            assert router.sessions == 0
            bgp.speaker.hear_bfd({"s": UP})
            await eventually(lambda: bgp.up() == {"s"})
            bgp.speaker.hear_bfd({"s": FAILED})
            await eventually(lambda: bool(router.notifications), 10)
            for _ in range(100):  # ExaBGP may open it once more before it is told to stop
                assert not bgp.up()
                await asyncio.sleep(0.02)
            seen = router.sessions
            await asyncio.sleep(1.5)
            assert (bgp.up(), router.sessions) == (set(), seen)
            bgp.speaker.hear_bfd({"s": replace(UP, failures=1)})
            await eventually(lambda: bgp.up() == {"s"})

    asyncio.run(story())
