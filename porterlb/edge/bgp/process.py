"""The ExaBGP subprocess: its files, environment, start, end and log."""

from __future__ import annotations

import asyncio
import contextlib
import importlib.resources
import os
import pwd
import re
import signal
import sys
from collections import deque
from collections.abc import Iterable
from pathlib import Path

from porterlb.core.exabgp_text import clean
from porterlb.errors import PorterError

_LOG_SIZE = 1 << 20  # bytes; one older file is kept
_FILES = ("api.py", "exabgp.env", "launcher.py")


def folder() -> Path:
    """The folder of api.py, exabgp.env and launcher.py: in the wheel, or exabgp/ of a checkout (editable install).

    Raises PorterError when they are not installed.
    """
    package = Path(str(importlib.resources.files("porterlb")))
    for candidate in (package / "_exabgp", package.parent / "exabgp"):
        if all((candidate / name).is_file() for name in _FILES):
            return candidate
    raise PorterError("The files that ExaBGP is started with are missing.", "Install porterlb again.")


def environment() -> dict[str, str]:
    """The environment of ExaBGP: from ours only the program paths, HOME and the language."""
    result = {name: os.environ[name] for name in ("PATH", "PYTHONPATH", "HOME", "LANG", "LC_ALL") if name in os.environ}
    try:
        user = pwd.getpwuid(os.getuid()).pw_name
    except KeyError:  # a container with a user ID of its own; ExaBGP only needs a name that exists
        user = "root"
    result["exabgp_daemon_user"] = user
    result["EXABGP_ENVFILE"] = str(folder() / "exabgp.env")  # not a file that an exabgp package may have left in /etc
    return result


def redact(line: str, secrets: Iterable[str]) -> str:
    """The line without passwords: a configuration error may quote the line that it is about."""
    for secret in secrets:
        line = line.replace(secret, "***")
    return line


class Log:
    """ExaBGP's standard error: the last lines in memory, all lines in a file of bounded size."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.written = 0  # lines so far
        self.secrets: frozenset[str] = frozenset()  # must never be written
        self._last: deque[str] = deque(maxlen=200)
        self._file = self._open()

    def _open(self) -> int:
        return os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)

    def write(self, line: str) -> None:
        line = redact(line, self.secrets)
        self.written += 1
        self._last.append(line)
        with contextlib.suppress(OSError):  # a full disk must not stop BGP
            if self._file < 0:
                self._file = self._open()
            if os.fstat(self._file).st_size > _LOG_SIZE:
                os.close(self._file)
                self.path.replace(self.path.with_suffix(".log.1"))
                self._file = self._open()
            os.write(self._file, line.encode("utf-8", "replace") + b"\n")

    def since(self, mark: int) -> list[str]:
        """The lines after the first ``mark`` ones, as far as they are still in memory."""
        count = min(self.written - mark, len(self._last))
        return list(self._last)[len(self._last) - count :] if count > 0 else []

    def last_words(self) -> str:
        """The last informative line, for the message that says why ExaBGP ended."""
        for line in reversed(self._last):
            words = clean(re.sub(r"^[\d:. |]*\b(\w+)\s*\|\s*", "", line))
            if words and not set(words) <= {"-", "=", " ", "*"}:
                return words
        return ""

    def close(self) -> None:
        """May be called twice; the next line opens the file again."""
        if self._file >= 0:
            os.close(self._file)
        self._file = -1


class Exabgp:
    """One running ExaBGP. ``dead`` completes when it has ended."""

    def __init__(self, process: asyncio.subprocess.Process, log: Log) -> None:
        self._process = process
        self._drain = asyncio.create_task(self._read(log), name="exabgp-log")
        self.dead: asyncio.Task[int] = asyncio.create_task(process.wait(), name="exabgp-wait")
        self.pid = process.pid

    @classmethod
    async def start(cls, configuration: Path, log: Log) -> Exabgp:
        return cls(await _spawn(os.getpid(), "server", configuration), log)

    async def _read(self, log: Log) -> None:
        stream = self._process.stderr
        assert stream is not None
        while True:
            try:
                line = await stream.readline()
            except ValueError:  # longer than the stream's limit: dropped
                continue
            if not line:
                return
            log.write(line.decode("utf-8", "replace").rstrip())

    def terminate(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            self._process.send_signal(signal.SIGTERM)

    async def kill(self) -> None:
        """Kills the process at once, even if it is stopped (SIGSTOP), and waits for its end."""
        with contextlib.suppress(ProcessLookupError):
            self._process.kill()
        await self.dead
        # Its API process keeps standard error open for a moment longer: do not wait for it.
        self._drain.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._drain


async def validate(configuration: Path, secrets: Iterable[str] = ()) -> str:
    """Whether ExaBGP would accept this file: empty, or why not. A file that it refuses would break later reloads."""
    process = await _spawn(0, "validate", configuration)
    try:
        async with asyncio.timeout(30):
            _, errors = await process.communicate()
    except TimeoutError:
        return "ExaBGP took longer than 30 s to read it"
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    if process.returncode == 0:
        return ""
    lines = [clean(redact(line, secrets)) for line in errors.decode("utf-8", "replace").splitlines() if line.strip()]
    return next((line for line in lines if line.startswith("error:")), lines[-1] if lines else "no reason given")


async def _spawn(manager: int, verb: str, configuration: Path) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        sys.executable,
        "-P",  # the checkout's folder exabgp/ must not be found as a package
        str(folder() / "launcher.py"),
        str(manager),
        verb,
        str(configuration),
        cwd=configuration.parent,
        env=environment(),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
        start_new_session=True,  # ^C in a terminal is for the manager, which then stops ExaBGP in order
    )
