"""A subprocess of a manager, as asyncio shows it."""

from __future__ import annotations

import asyncio

from sim.world import Process


class Child:
    """Has the methods of ``asyncio.subprocess.Process`` that PorterLB uses."""

    def __init__(self, parent: Process, process: Process) -> None:
        self.process = process
        self.pid = id(process) & 0xFFFF
        self.returncode: int | None = None
        self._over = asyncio.Event()
        process.on_end.append(lambda: parent.world.after(0.001, self._ended, process=parent))

    def _ended(self) -> None:
        self.returncode = self.process.code
        self._over.set()

    async def wait(self) -> int:
        await self._over.wait()
        assert self.returncode is not None
        return self.returncode

    def send_signal(self, number: int) -> None:
        self.process.signal(int(number))

    def kill(self) -> None:
        self.process.end(-9)

    def terminate(self) -> None:
        self.process.signal(15)
