"""The BFD process: one loop with the sockets, the timer and the pipe around `core.bfd`.

It imports little and does not use asyncio: it needs some 10 MiB, and nothing else runs between a packet and its answer.
"""

from __future__ import annotations

import contextlib
import json
import logging
import random
import selectors
import socket
import time
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Protocol

from porterlb.bfd.sockets import Blocked, Receiver, Sender
from porterlb.core.bfd import text
from porterlb.core.bfd.sessions import BfdSessions, Send
from porterlb.core.bfd.values import MULTIHOP_PORT, BfdReport, BfdTarget, Obstacle

log = logging.getLogger("porterlb.bfd")

TICK = 1.0
"""Seconds between two reports when nothing changes, and between two attempts to open a socket."""

LAST_WORDS = 0.5
"""Seconds, at most, to send the AdminDown packets at the end."""

_READ = 1 << 16
_Port = tuple[int, int]  # IP version, UDP port


class _Readable(Protocol):
    def fileno(self) -> int: ...


class BfdProcess:
    """``pipe``: to the manager; ``beats``: each byte is its sign of life; ``wake``: readable after SIGTERM."""

    def __init__(self, pipe: socket.socket, beats: socket.socket, wake: socket.socket, silence_after: float) -> None:
        self._pipe, self._beats, self._wake = pipe, beats, wake
        self._silence_after = silence_after
        self._sessions = BfdSessions(random.random)
        self._selector = selectors.DefaultSelector()
        self._receivers: dict[_Port, Receiver] = {}
        self._senders: dict[str, tuple[BfdTarget, Sender]] = {}
        self._obstacles: dict[str, Obstacle] = {}
        self._part = b""
        self._out = b""
        self._beaten = time.monotonic()
        self._tick_at = 0.0
        self._end_at: float | None = None
        for readable, do in ((pipe, self._on_pipe), (beats, self._on_beat), (wake, self._on_signal)):
            readable.setblocking(False)
            self._watch(readable, do)

    def run(self) -> None:
        """Runs until told to end or until the manager is gone; then the routers are told that BFD is switched off."""
        while not self._over(time.monotonic()):
            for key, _ in self._selector.select(self._pause()):
                key.data()
            now = time.monotonic()
            self._judge_manager(now)
            if now >= self._tick_at:
                self._tick_at = now + TICK
                self._open(now)
                self._sessions.changed = True
            self._send(self._sessions.wake(now))
            if self._sessions.changed:
                self._report()
        for _, sender in self._senders.values():
            sender.close()

    def _pause(self) -> float:
        times = [at for at in (self._sessions.next_at, self._tick_at, self._end_at) if at is not None]
        return max(0.0, min(times) - time.monotonic())

    def _over(self, now: float) -> bool:
        return self._end_at is not None and (not self._sessions.targets or now >= self._end_at)

    # ---- the manager

    def _on_beat(self) -> None:
        with contextlib.suppress(BlockingIOError):
            if self._beats.recv(4096):
                self._beaten = time.monotonic()
            else:
                self._selector.unregister(self._beats)

    def _judge_manager(self, now: float) -> None:
        """BFD must not keep sessions up when the manager or ExaBGP is permanently gone."""
        silent = now - self._beaten > self._silence_after
        if silent and not self._sessions.held:
            log.warning("no sign of life of the manager or of ExaBGP for %.0f s: AdminDown", self._silence_after)
            self._sessions.hold(now)
        elif not silent and self._sessions.held:
            log.warning("the manager and ExaBGP are back")
            self._sessions.release(now)

    def _on_signal(self) -> None:
        with contextlib.suppress(BlockingIOError):
            self._wake.recv(64)
        self._stop()

    def _stop(self) -> None:
        if self._end_at is None:
            now = time.monotonic()
            self._end_at = now + LAST_WORDS
            self._sessions.want((), now)

    def _on_pipe(self) -> None:
        try:
            data = self._pipe.recv(_READ)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._selector.unregister(self._pipe)
            self._stop()
            return
        *lines, self._part = (self._part + data).split(b"\n")
        for line in lines:
            message = json.loads(line)
            if message["t"] == "stop":
                self._stop()
            elif message["t"] == "want" and self._end_at is None:
                self._want(text.read_want(message))

    def _want(self, targets: Iterable[BfdTarget]) -> None:
        now = time.monotonic()
        self._sessions.want(targets, now)
        self._open(now)

    def _report(self) -> None:
        """Sends the whole state. No report is queued while the manager does not read; the next one is the newest."""
        self._sessions.changed = False
        if not self._out:
            sessions = {
                peer: replace(session, obstacle=self._obstacles.get(peer))
                for peer, session in self._sessions.reports.items()
            }
            self._out = text.report_line(BfdReport(sessions, self._sessions.discarded))
        try:
            self._out = self._out[self._pipe.send(self._out) :]
        except OSError:
            return

    # ---- the routers

    def _open(self, now: float) -> None:
        """Opens missing sockets, closes those that are not needed."""
        targets = self._sessions.targets
        self._obstacles = {}
        needed = {(target.address.version, target.port) for target in targets.values()}
        for port in self._receivers.keys() - needed:
            self._selector.unregister(self._receivers[port])
            self._receivers.pop(port).close()
        blocked: dict[_Port, Obstacle] = {}
        for version, number in needed - self._receivers.keys():
            try:
                receiver = Receiver(version, number)
            except Blocked as error:
                blocked[version, number] = error.obstacle
                continue
            self._receivers[version, number] = receiver
            self._watch(receiver, self._receiving(receiver, number))
        for peer, (target, sender) in list(self._senders.items()):
            there = targets.get(peer)
            if there is None or sender.broken or not there.same_path(target):
                del self._senders[peer]
                sender.close()
        for peer, target in targets.items():
            if obstacle := blocked.get((target.address.version, target.port)):
                self._obstacles[peer] = obstacle
            elif peer not in self._senders:
                try:
                    self._senders[peer] = target, Sender(target)
                except Blocked as error:
                    self._obstacles[peer] = error.obstacle
        self._send(self._sessions.wake(now))

    def _receiving(self, receiver: Receiver, port: int) -> Callable[[], None]:
        def read() -> None:
            now = time.monotonic()
            for data, source, ttl in receiver.read():
                self._send(self._sessions.receive(data, source, ttl, now, multihop=port == MULTIHOP_PORT))

        return read

    def _send(self, sends: Iterable[Send]) -> None:
        for send in sends:
            if send.peer in self._senders:
                self._senders[send.peer][1].send(send.data)

    def _watch(self, readable: _Readable, do: Callable[[], None]) -> None:
        self._selector.register(readable, selectors.EVENT_READ, do)
