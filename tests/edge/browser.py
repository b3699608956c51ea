"""A real browser without a window, driven by the DevTools protocol."""

from __future__ import annotations

import asyncio
import itertools
import os
import shutil
import signal
import subprocess
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path
from typing import Any

import aiohttp

PACKAGE = "chromium-headless-shell"
INSTALL = Path(__file__).resolve().parents[2] / "lab" / "install-packages"
START_WITHIN = 30.0
"""Seconds until the browser listens; the first start on a new machine reads 250 MB."""

KEYS = {"Tab": 9, "Enter": 13, " ": 32}


def program() -> str:
    """The path of the browser; installs it if it is missing."""
    found = shutil.which(PACKAGE)
    if found is None:
        done = subprocess.run([INSTALL, PACKAGE], capture_output=True, text=True, timeout=900, check=False)
        found = shutil.which(PACKAGE)
        assert found, f"The Debian package {PACKAGE} cannot be installed: {done.stdout}{done.stderr}"
    return found


@contextmanager
def browser(folder: Path) -> Iterator[str]:
    """Runs a browser; yields the address of its DevTools."""
    arguments = [
        program(),
        "--no-sandbox",  # the browser has no sandbox for root
        "--remote-debugging-port=0",
        f"--user-data-dir={folder}",
        "--disable-gpu",
        "--disable-dev-shm-usage",
        "--disable-background-networking",
        "about:blank",
    ]
    # Debian's program is a shell script that starts the browser: both are in one group, and end together.
    process = subprocess.Popen(arguments, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)
    try:
        told = folder / "DevToolsActivePort"
        ends = time.monotonic() + START_WITHIN
        while not (told.exists() and told.read_text().count("\n")):
            assert process.poll() is None, f"The browser ended with code {process.returncode}."
            assert time.monotonic() < ends, f"The browser does not listen after {START_WITHIN:g} s."
            time.sleep(0.02)
        port, path = told.read_text().split("\n")[:2]
        yield f"ws://127.0.0.1:{port}{path}"
    finally:
        _end(process, signal.SIGTERM)
        _end(process, signal.SIGKILL)


def _end(process: subprocess.Popen[bytes], number: signal.Signals) -> None:
    """Ends the browser's process group, and waits for it for 5 s."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, number)
    with suppress(subprocess.TimeoutExpired):
        process.wait(5)


class Page:
    """One page. ``complaints``: errors that the browser or the page itself reported."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self._socket = socket
        self._numbers = itertools.count(1)
        self._waiting: dict[int, asyncio.Future[Any]] = {}
        self._session: dict[str, str] = {}
        self.complaints: list[str] = []

    async def read(self) -> None:
        async for message in self._socket:
            said = message.json()
            if "id" in said:
                waiting = self._waiting.pop(said["id"], None)
                if waiting is not None and not waiting.done():
                    waiting.set_result(said)
            elif said["method"] == "Log.entryAdded":
                self.complaints.append(said["params"]["entry"]["text"])
            elif said["method"] == "Runtime.exceptionThrown":
                self.complaints.append(str(said["params"]["exceptionDetails"]))
            elif said["method"] == "Runtime.consoleAPICalled":
                self.complaints.append(str(said["params"]["args"]))

    async def call(self, method: str, **parameters: Any) -> Any:
        number = next(self._numbers)
        answer = self._waiting[number] = asyncio.get_running_loop().create_future()
        await self._socket.send_json({"id": number, "method": method, "params": parameters, **self._session})
        async with asyncio.timeout(30):
            said = await answer
        assert "error" not in said, (method, said)
        return said["result"]

    async def attach(self) -> None:
        target = await self.call("Target.createTarget", url="about:blank", width=1280, height=900)
        attached = await self.call("Target.attachToTarget", targetId=target["targetId"], flatten=True)
        self._session = {"sessionId": attached["sessionId"]}
        for domain in ("Page", "Runtime", "Log", "Accessibility"):
            await self.call(f"{domain}.enable")

    async def open(self, url: str) -> None:
        await self.call("Page.navigate", url=url)

    async def js(self, expression: str) -> Any:
        """The value of an expression; for a promise, its result."""
        answer = await self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    async def until(self, expression: str, within: float = 10.0) -> float:
        """Waits until an expression is true; returns the elapsed time in seconds."""
        began = time.monotonic()
        while not await self.js(expression):
            assert time.monotonic() - began < within, f"{expression} is not true after {within:g} s"
            await asyncio.sleep(0.02)
        return time.monotonic() - began

    async def press(self, key: str, *, shift: bool = False) -> None:
        text = {"Enter": "\r", " ": " "}.get(key, "")
        common = {"key": key, "code": key, "windowsVirtualKeyCode": KEYS[key], "modifiers": 8 if shift else 0}
        await self.call("Input.dispatchKeyEvent", type="keyDown", text=text, **common)
        await self.call("Input.dispatchKeyEvent", type="keyUp", **common)

    async def write(self, text: str) -> None:
        await self.call("Input.insertText", text=text)

    async def scheme(self, name: str) -> None:
        """Sets the user's system preference to ``light`` or ``dark``."""
        await self.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": name}])


@asynccontextmanager
async def page(devtools: str) -> AsyncIterator[Page]:
    """A new page in the browser."""
    async with (
        aiohttp.ClientSession() as client,
        client.ws_connect(devtools, max_msg_size=0) as socket,
    ):
        made = Page(socket)
        reading = asyncio.create_task(made.read())
        try:
            await made.attach()
            yield made
        finally:
            reading.cancel()
            await asyncio.gather(reading, return_exceptions=True)
