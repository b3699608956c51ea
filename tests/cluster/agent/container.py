"""One container: a process that is started, asked how it is, started again, and ended."""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import os
import signal
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.cluster.agent.images import NoImage
from tests.cluster.agent.probe import Probe

FIRST_PAUSE, LONGEST_PAUSE, FORGIVEN_AFTER = 10.0, 300.0, 600.0
"""Seconds, a kubelet's own: the first restart comes at once, the next one after 10 s, then 20 s and so on, until the
container has run for 10 minutes."""


NO_STATE: dict[str, Any] = {"waiting": None, "running": None, "terminated": None}
"""In a merge what is not named stays; only one of these may."""


@dataclass(frozen=True)
class Start:
    """How the process is started: found out anew at each start. ``address``: of the pod, for its probes."""

    argv: list[str]
    env: dict[str, str]
    address: str


class Container:
    """Runs until :meth:`stop`.

    Args:
        spec: the container, as in the pod.
        policy: restartPolicy of the pod.
        prepare: how to start it. It may raise NoImage or ValueError (shown as the reason why it waits).
        changed: called whenever :meth:`status` is another one.
    """

    def __init__(
        self,
        spec: Mapping[str, Any],
        policy: str,
        prepare: Callable[[], Awaitable[Start]],
        log: Path,
        changed: Callable[[], None],
    ) -> None:
        self.spec = spec
        self.name = str(spec["name"])
        self.ready = False
        self.restarts = 0
        self.state: dict[str, Any] = {"waiting": {"reason": "ContainerCreating"}}
        self.last: dict[str, Any] = {}
        self._policy = policy
        self._prepare = prepare
        self._log = log
        self._changed = changed
        self._started = False
        self._process: asyncio.subprocess.Process | None = None
        self._stopping = asyncio.Event()

    def status(self) -> dict[str, Any]:
        """As in containerStatuses."""
        return {
            "name": self.name,
            "image": self.spec["image"],
            "imageID": self.spec["image"],
            "containerID": f"lab://{self._process.pid}" if self._process else "",
            "ready": self.ready,
            "started": self._started,
            "restartCount": self.restarts,
            "state": {**NO_STATE, **self.state},
            "lastState": {**NO_STATE, **self.last},
        }

    @property
    def ended(self) -> int | None:
        """The exit code, once it has ended for good."""
        code = self.state.get("terminated", {}).get("exitCode")
        return None if code is None else int(code)

    async def run(self) -> None:
        """Until it has ended for good: stopped, or by the restart policy."""
        pause = 0.0
        while not self._stopping.is_set():
            begun = time.monotonic()
            code = await self._once()
            if self._policy == "Never" or (self._policy == "OnFailure" and code == 0) or self._stopping.is_set():
                return
            if "terminated" in self.state:
                self.last = self.state
                self.restarts += 1
            pause = 0.0 if time.monotonic() - begun > FORGIVEN_AFTER else pause
            if pause and "terminated" in self.state:
                self._show({"waiting": {"reason": "CrashLoopBackOff", "message": f"back-off {pause:.0f} s"}})
            await self._sleep(pause)
            pause = min(LONGEST_PAUSE, 2 * pause if pause else FIRST_PAUSE)

    async def stop(self, grace: float) -> None:
        """SIGTERM, then SIGKILL after ``grace`` seconds."""
        self._stopping.set()
        self._signal(signal.SIGTERM)
        if self._process is not None:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._process.wait(), grace)
            if self._process.returncode is None:
                # With process 1 the kernel ends all others; unshare waits for that, and ends then.
                self._signal(signal.SIGKILL)
                if not first_processes(self._process.pid):
                    self._process.kill()
                await self._process.wait()

    # One life

    async def _once(self) -> int:
        try:
            start = await self._prepare()
            probes = {
                key: Probe.read(self.spec[key], self.spec, start.address)
                for key in ("startupProbe", "livenessProbe", "readinessProbe")
                if key in self.spec
            }
        except (NoImage, ValueError, KeyError) as error:
            reason = "ErrImagePull" if isinstance(error, NoImage) else "CreateContainerConfigError"
            self._show({"waiting": {"reason": reason, "message": str(error)}})
            return 1
        if self._stopping.is_set():
            return 0
        with self._log.open("ab") as output:
            self._process = await asyncio.create_subprocess_exec(
                *start.argv, env=start.env, stdin=asyncio.subprocess.DEVNULL, stdout=output, stderr=output
            )
        began = _now()
        self._show({"running": {"startedAt": began}})
        asking = asyncio.create_task(self._ask(probes))
        try:
            code = await self._process.wait()
        finally:
            asking.cancel()
        code = 128 - code if code < 0 else code
        self.ready = self._started = False
        reason = "Completed" if code == 0 else "Error"
        self._show({"terminated": {"exitCode": code, "reason": reason, "startedAt": began, "finishedAt": _now()}})
        return code

    async def _ask(self, probes: Mapping[str, Probe]) -> None:
        if (startup := probes.get("startupProbe")) and not await self._until_started(startup):
            self._signal(signal.SIGTERM)
            return
        self._started = True
        if "readinessProbe" not in probes:
            self.ready = True
        self._changed()
        async with asyncio.TaskGroup() as group:
            if readiness := probes.get("readinessProbe"):
                group.create_task(self._readiness(readiness))
            if liveness := probes.get("livenessProbe"):
                group.create_task(self._liveness(liveness))

    async def _until_started(self, probe: Probe) -> bool:
        await asyncio.sleep(probe.delay)
        for _ in range(probe.failures):
            if not await probe.ask():
                return True
            await asyncio.sleep(probe.period)
        return False

    async def _readiness(self, probe: Probe) -> None:
        await asyncio.sleep(probe.delay)
        good = bad = 0
        while True:
            why = await probe.ask()
            good, bad = (0, bad + 1) if why else (good + 1, 0)
            wanted = good >= probe.successes if not self.ready else bad < probe.failures
            if wanted != self.ready:
                self.ready = wanted
                self._changed()
            await asyncio.sleep(probe.period)

    async def _liveness(self, probe: Probe) -> None:
        await asyncio.sleep(probe.delay)
        bad = 0
        while True:
            bad = bad + 1 if await probe.ask() else 0
            if bad >= probe.failures:
                self._signal(signal.SIGKILL)
            await asyncio.sleep(probe.period)

    # Parts

    def _signal(self, number: signal.Signals) -> None:
        """To the first process of the container, as a runtime does, not to the one that made its namespaces."""
        if self._process is None or self._process.returncode is not None:
            return
        for pid in first_processes(self._process.pid):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)

    def _show(self, state: dict[str, Any]) -> None:
        self.state = state
        self._changed()

    async def _sleep(self, seconds: float) -> None:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._stopping.wait(), seconds)


def first_processes(pid: int) -> list[int]:
    """The children of unshare: process 1 of the container. Empty while there is none yet."""
    try:
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []


def _now() -> str:
    return datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
