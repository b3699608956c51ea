"""The recording of the wire process: kept in memory, sent to the manager in pieces."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterable

from porterlb.core import wire_text
from porterlb.core.record import entries
from porterlb.core.record.file import FULL
from porterlb.core.record.log import Log
from porterlb.core.wire_text import WireConfig
from porterlb.wire.channel import ManagerChannel

BEHIND = 64
"""Pieces that may wait for the manager. While more are waiting, new entries stay in a bounded log."""


class Recording:
    """The log of the process, and its transfer to the manager."""

    def __init__(self, config: WireConfig, channel: ManagerChannel, loop: asyncio.AbstractEventLoop) -> None:
        self._key = config.key
        self._channel = channel
        self._loop = loop
        self._giving: asyncio.Future[list[bytes]] | None = None
        self._streams = config.record_stream
        self.log: Log[bytes] = Log(config.record_ring, streams=config.record_stream)

    @staticmethod
    def wanted(config: WireConfig) -> bool:
        return bool(config.record_ring or config.record_stream)

    def give(self) -> None:
        """Sends the whole ring. Its text is made in a thread: the event loop answers meanwhile."""
        if self._giving is None or self._giving.done():
            self._giving = self._loop.run_in_executor(None, self._pieces, self.log.contents())
            self._giving.add_done_callback(self._made)

    def _pieces(self, contents: Iterable[bytes]) -> list[bytes]:
        if self.log.full:
            return list(wire_text.recorded_lines([FULL]))
        texts = (json.dumps(line, separators=(",", ":")) for line in entries.lines(contents, self._key))
        return list(wire_text.recorded_lines(texts))

    def _made(self, done: asyncio.Future[list[bytes]]) -> None:
        if not done.cancelled():
            failed = done.exception()
            self._channel.send(wire_text.recorded_lines([]) if failed is not None else done.result())

    def stream(self) -> None:
        """Sends new entries; called several times a second."""
        if self._streams and self._channel.waiting < BEHIND:
            taken = self.log.take()
            if taken:
                texts = (json.dumps(line, separators=(",", ":")) for line in entries.lines(taken, self._key))
                self._channel.send(wire_text.streamed_lines(texts))
