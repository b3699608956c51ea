"""The pipe to the manager: lines in, reports out; never blocks, and reports when the manager is gone."""

from __future__ import annotations

import asyncio
import json
import socket
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from porterlb.core.observed import Answering
from porterlb.core.wire_text import PIECE, report_line

COALESCE = 0.003  # seconds; changes within this time are sent together


class ManagerChannel:
    """One end of a stream socket. ``take`` gets each message, one per turn of the event loop; ``ended`` is called when
    the manager has closed its end."""

    def __init__(
        self,
        pipe: socket.socket,
        take: Callable[[Mapping[str, Any]], None],
        ended: Callable[[], None],
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        pipe.setblocking(False)
        self._pipe = pipe
        self._take = take
        self._ended = ended
        self._loop = loop
        self._part = b""
        self._lines: deque[bytes] = deque()
        self._taking = False
        self._fields: dict[str, Any] = {}
        self._answering: dict[str, Answering] = {}
        self._out = b""
        self._bulk: deque[bytes] = deque()
        self._timer: asyncio.TimerHandle | None = None
        self._open = True
        loop.add_reader(pipe, self._read)

    def report(self, *, now: bool = False, **fields: Any) -> None:
        """Reports fields of WireReport, each complete; together with others within COALESCE, or at once (``now``)."""
        self._fields.update(fields)
        self._later(now)

    def answering(self, vip: str, served: Answering) -> None:
        self._answering[vip] = served
        self._later(False)

    def send(self, messages: Iterable[bytes]) -> None:
        """Sends messages that may wait: each is sent when there is nothing to report."""
        if self._open:
            self._bulk.extend(messages)
            if not self._out:
                self._next_out()

    @property
    def waiting(self) -> int:
        """Messages of :meth:`send` that have not been sent."""
        return len(self._bulk)

    def close(self) -> None:
        """Sends what fits and closes."""
        self._flush()
        self._end()
        self._pipe.close()

    def _later(self, now: bool) -> None:
        if now:
            self._flush()
        elif self._timer is None:
            self._timer = self._loop.call_later(COALESCE, self._flush)

    def _flush(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if not self._open or self._out:
            return  # unsent fields are kept in their newest form only: a manager that hangs costs no memory
        if self._fields or self._answering:
            fields, self._fields = self._fields, {}
            if self._answering:
                fields["answering"] = {vip: self._answering.pop(vip) for vip in list(self._answering)[: 4 * PIECE]}
            self._out = report_line(fields)
            self._write()

    def _write(self) -> None:
        try:
            sent = self._pipe.send(self._out)
        except BlockingIOError:
            sent = 0
        except OSError:
            self._end()
            return
        self._out = self._out[sent:]
        if self._out:
            self._loop.add_writer(self._pipe, self._write)
        else:
            self._loop.remove_writer(self._pipe)
            self._next_out()

    def _next_out(self) -> None:
        if self._answering or self._fields:
            self._later(False)
        elif self._bulk:
            self._out = self._bulk.popleft()
            self._loop.add_writer(self._pipe, self._write)

    def _read(self) -> None:
        try:
            data = self._pipe.recv(1 << 16)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._end()
            self._ended()
            return
        *lines, self._part = (self._part + data).split(b"\n")
        self._lines.extend(lines)
        self._next()

    def _next(self) -> None:
        if self._lines and not self._taking:
            self._taking = True
            self._loop.call_soon(self._one)

    def _one(self) -> None:
        self._taking = False
        if self._lines:
            self._take(json.loads(self._lines.popleft()))
            self._next()

    def _end(self) -> None:
        if self._open:
            self._open = False
            self._out = b""
            self._bulk.clear()
            self._loop.remove_reader(self._pipe)
            self._loop.remove_writer(self._pipe)
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None
