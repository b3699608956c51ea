"""The manager's ends of ExaBGP's API pipes, which the API process has handed over."""

from __future__ import annotations

import array
import asyncio
import contextlib
import os
import socket
import threading
from collections.abc import Callable

from porterlb.core import exabgp_text as text

_READ = 1 << 16
_LONGEST = 1 << 24  # `show neighbor json` is one line, some 2 kB per peer


class Closed(Exception):
    """The API process or ExaBGP is gone; the effect of the last command is unknown."""


class Hung(Exception):
    """ExaBGP has not acknowledged a command in time."""


class ExabgpChannel:
    """One outstanding command at a time; all output of ExaBGP is read at once and passed to ``hear``.

    An unread pipe would freeze ExaBGP with its sessions and keepalives.
    """

    def __init__(self, link: socket.socket, read: int, write: int, hear: Callable[[text.Said], None]) -> None:
        self._link, self._read, self._write, self._hear = link, read, write, hear
        self._lock = threading.Lock()
        self._buffer = b""
        self._ack: asyncio.Future[bool] | None = None  # of the outstanding command
        self._loop = asyncio.get_running_loop()
        self.closed: asyncio.Future[None] = self._loop.create_future()
        for descriptor in (read, write):
            os.set_blocking(descriptor, False)
        link.setblocking(False)
        self._loop.add_reader(read, self._on_readable)
        self._loop.add_reader(link.fileno(), self._on_link)

    @classmethod
    async def accept(cls, listener: socket.socket, hear: Callable[[text.Said], None]) -> ExabgpChannel:
        """Waits for an API process and takes its descriptors."""
        loop = asyncio.get_running_loop()
        while True:
            link, _ = await loop.sock_accept(listener)
            link.settimeout(1.0)  # the API process sends them right after it has connected
            try:
                _, ancillary, _, _ = link.recvmsg(1, socket.CMSG_SPACE(8))
            except OSError:
                link.close()
                continue
            descriptors = array.array("i")
            for level, kind, data in ancillary:
                if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
                    descriptors.frombytes(data[: len(data) // 4 * 4])
            if len(descriptors) == 2:
                return cls(link, descriptors[0], descriptors[1], hear)
            for descriptor in descriptors:
                os.close(descriptor)
            link.close()

    async def command(self, line: str, patience: float, meanwhile: Callable[[], None] | None = None) -> bool:
        """Sends a line and waits for its acknowledgement: True for done, False for error. Raises Closed or Hung.

        ``meanwhile`` is called once ExaBGP has the line.
        """
        if self.closed.done():
            raise Closed
        ack: asyncio.Future[bool] = self._loop.create_future()
        self._ack = ack
        try:
            await self._say(line.encode() + b"\n", patience)
            if meanwhile is not None:
                meanwhile()
            # Twice: after a stall of our own, the first wait may end although the answer is in the pipe.
            for seconds in (patience, patience / 4):
                await asyncio.wait((ack, self.closed), timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
                if ack.done():
                    return ack.result()
                if self.closed.done():
                    raise Closed
            raise Hung
        finally:
            self._ack = None

    def beat(self) -> None:
        """Tells the API process that the manager is alive. Callable from any thread: the socket is closed under the
        same lock, so its descriptor cannot have been reused."""
        with self._lock, contextlib.suppress(OSError):
            self._link.send(b".")

    def close(self) -> None:
        if self._read >= 0:
            self._loop.remove_reader(self._read)
            self._loop.remove_reader(self._link.fileno())
            os.close(self._read)
            os.close(self._write)
            with self._lock:
                self._link.close()
            self._read = -1
        if not self.closed.done():
            self.closed.set_result(None)

    async def _say(self, data: bytes, patience: float) -> None:
        deadline = self._loop.time() + patience
        while data:
            try:
                data = data[os.write(self._write, data) :]
            except BlockingIOError:  # ExaBGP does not read
                if self._loop.time() > deadline:
                    raise Hung from None
                await asyncio.sleep(0.01)
            except OSError:
                self.close()
                raise Closed from None

    def _on_readable(self) -> None:
        try:
            data = os.read(self._read, _READ)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data or len(self._buffer) > _LONGEST:
            self.close()
            return
        *lines, self._buffer = (self._buffer + data).split(b"\n")
        for line in lines:
            said = text.parse(line.strip())
            if isinstance(said, text.Ack):
                if self._ack is not None and not self._ack.done():  # else for a command that was given up
                    self._ack.set_result(said.ok)
            else:
                self._hear(said)

    def _on_link(self) -> None:
        """The API process sends nothing more: if the socket is readable, the process is gone."""
        try:
            if self._link.recv(64):
                return
        except BlockingIOError:
            return
        except OSError:
            pass
        self.close()
