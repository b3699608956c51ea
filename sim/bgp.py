"""ExaBGP and the routers: not simulated yet; there are no peers."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from porterlb.core.desired import DesiredBgp
from porterlb.core.observed import BgpReport


class Speaker:
    """Applies each set at once; there are no sessions."""

    def __init__(self, report: Callable[[BgpReport], None], **more: Any) -> None:
        self._report = report
        self._wanted: asyncio.Event = asyncio.Event()
        self._token = 0

    def want(self, wanted: DesiredBgp, token: int) -> None:
        self._token = token
        self._wanted.set()

    running = True

    def hear_bfd(self, sessions: object) -> None: ...

    def beat(self) -> None: ...

    async def stop(self, *, withdraw: bool) -> None: ...

    async def run(self) -> None:
        while True:
            await self._wanted.wait()
            self._wanted.clear()
            await asyncio.sleep(0.02)
            self._report(BgpReport(applied=self._token))
