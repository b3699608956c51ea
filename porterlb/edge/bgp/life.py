"""One ExaBGP from its start to its end: whoever says anything to it does so here, one command at a time."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
import time
from collections.abc import Callable
from functools import partial

from porterlb.core import exabgp_text as text
from porterlb.core.desired import Path
from porterlb.edge.bgp.ahead import Ahead, Line
from porterlb.edge.bgp.channel import Channel, Closed, Hung
from porterlb.edge.bgp.process import Exabgp, validate
from porterlb.edge.bgp.setup import API_SOCKET, Setup, write
from porterlb.edge.bgp.state import State

logger = logging.getLogger(__name__)

_START = 15.0  # seconds for ExaBGP to start its API process; on a busy machine Python alone takes one or two
_RECONNECT = 5.0  # seconds for ExaBGP to start its API process again: measured 16 to 32 ms
_SLOW = 30.0  # seconds for an acknowledgement of what takes long with many routes or peers: clear, show, reload
_RELOAD = 5.0  # seconds for ExaBGP to show the peers of a new configuration: measured 30 ms
_FLUSH = 5.0  # seconds, at most, to wait for withdrawals to leave
_END = 3.0  # seconds from SIGTERM to SIGKILL
# Times, with add-path. At each End-of-RIB, FRR (8.4) drops one stale path of a prefix only: paths of a Service that
# went while we were away would stay for ever. More of the same say nothing new to other routers.
_END_OF_RIB = 16
_END_OF_RIB_PAUSE = (
    0.3  # seconds between them: FRR takes a dropped path off its list a moment later, and drops it again
)


class Restart(Exception):
    """This ExaBGP is of no more use. The message is a sentence."""


class Life:
    """Started by :meth:`start`; :meth:`run` until it is not needed any more; :meth:`end` in any case."""

    def __init__(self, state: State, exabgp: Exabgp, listener: socket.socket, setup: Setup) -> None:
        self._state, self._exabgp, self._listener = state, exabgp, listener
        self._loaded = setup  # what ExaBGP has
        self._ahead = Ahead(state.difference)
        self._channel: Channel | None = None
        self._check: asyncio.Task[str] | None = None
        self._checking = setup
        self._bad: Setup | None = None  # a configuration that ExaBGP refuses
        self._reasons: dict[Path, str] = {}  # why ExaBGP refused something of a path
        self._beaten = 0.0
        self._again: dict[str, tuple[int, float]] = {}  # End-of-RIBs left to repeat, and when the next is due
        self._shown: text.Shown | None = None
        exabgp.dead.add_done_callback(self._on_death)

    @classmethod
    async def start(cls, state: State) -> Life:
        listener = socket.socket(socket.AF_UNIX)
        folder = os.open(state.run_dir, os.O_PATH | os.O_CLOEXEC)
        try:
            (state.run_dir / API_SOCKET).unlink(missing_ok=True)
            # Not by its own path, which may be longer than the 107 bytes that a socket's may have.
            listener.bind(f"/proc/self/fd/{folder}/{API_SOCKET}")
            listener.listen(4)
            listener.setblocking(False)
            setup = state.setup
            path = state.run_dir / "exabgp.conf"
            write(setup.text(state.run_dir, state.silence_after), path)
            exabgp = await Exabgp.start(path, state.log)
        except BaseException:
            listener.close()
            raise
        finally:
            os.close(folder)
        return cls(state, exabgp, listener, setup)

    @property
    def pid(self) -> int:
        return self._exabgp.pid

    async def run(self) -> None:
        """Returns when ExaBGP is not needed any more or is to be stopped; raises Restart when it is of no use."""
        state = self._state
        await self._connect(_START)
        state.trouble = ""
        state.difference.set_peers(frozenset(self._loaded.neighbors))
        needed = True
        while needed:
            if self._exabgp.dead.done():
                raise Restart(self._obituary())
            try:
                if self._channel is None or self._channel.closed.done():
                    await self._reconnect()
                if state.stopping:
                    await self._stop()
                    return
                state.take_over()
                needed = await self._step()
            except Closed:
                await asyncio.sleep(0)
            except Hung:
                raise Restart("ExaBGP does not answer: it was killed and started again.") from None

    async def end(self) -> None:
        """Kills what is left. The routers keep the routes if graceful restart was negotiated."""
        if self._check is not None:
            self._check.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._check
        await self._exabgp.kill()
        if self._channel is not None:
            self._channel.close()
        self._listener.close()

    async def _step(self) -> bool:
        """Says the next thing, or waits for one. False when ExaBGP is not needed any more."""
        state = self._state
        if time.monotonic() - self._beaten >= state.heartbeat:
            await self._beat()
        elif line := self._ahead.take(self._loaded.neighbors):
            await self._say(line)
        elif peer := self._owed_end_of_rib():
            await self._say_end_of_rib(peer)
        elif again := [peer for peer, (_, due) in self._again.items() if due <= time.monotonic()]:
            await self._repeat_end_of_rib(again[0])
        elif not state.setup.neighbors:
            await self._flush()  # nobody is left, and the withdrawals have been said
            return False
        elif self._is_checked():
            await self._reload()
        else:
            if state.is_current and state.setup in (self._loaded, self._bad):
                state.settle()
            next_time = min([self._beaten + state.heartbeat, *(due for _, due in self._again.values())])
            await state.wait(max(0.0, next_time - time.monotonic()))
        return True

    async def _command(
        self, line: str, patience: float | None = None, meanwhile: Callable[[], None] | None = None
    ) -> bool:
        if self._channel is None:
            raise Closed
        return await self._channel.command(line, patience or self._state.ack_timeout, meanwhile)

    def beat(self) -> None:
        """To the API process alone, which asks for no more; from any thread."""
        channel = self._channel
        if channel is not None:
            channel.beat()

    async def _beat(self) -> None:
        self._beaten = time.monotonic()
        if self._channel is not None:
            self._channel.beat()
        await self._command(text.HEARTBEAT)
        if self._state.setup.listen or self._state.setup.refused:
            self._state.take_over(again=True)  # the address to listen on may have come, gone or changed

    # --- routes ------------------------------------------------------------------------------------------------------

    async def _say(self, line: Line) -> None:
        state, batch, reason = self._state, line.batch, line.refusal
        mark = state.log.written
        if not reason:
            try:
                if await self._command(line.text, meanwhile=partial(self._ahead.make, self._loaded.neighbors)):
                    state.difference.done(batch)
                    return
            except (Closed, Hung):
                state.difference.unsure(batch)
                raise
            if batch.path not in self._reasons:
                await asyncio.sleep(0.02)  # the log comes through another pipe
            words = text.rejection(state.log.since(mark))
            reason = words or self._reasons.get(batch.path, "ExaBGP refuses this route and does not say why.")
            self._reasons[batch.path] = reason
        state.difference.failed(batch, reason)
        if len(batch.prefixes) == 1:
            state.tell()

    def _owed_end_of_rib(self) -> str:
        state = self._state
        return next((peer for peer in sorted(state.end_of_rib) if not state.difference.busy(peer)), "")

    async def _say_end_of_rib(self, peer: str) -> None:
        """ExaBGP sends it after the routes that it has been told before (RFC 4724: then stale ones are dropped)."""
        self._again.pop(peer, None)
        neighbor = self._loaded.neighbors.get(peer)
        if neighbor is not None:
            for version in neighbor.families:
                await self._command(text.end_of_rib(neighbor, version))
            if neighbor.add_path:
                self._again[peer] = (_END_OF_RIB - 1, time.monotonic() + _END_OF_RIB_PAUSE)
        self._state.end_of_rib.discard(peer)

    async def _repeat_end_of_rib(self, peer: str) -> None:
        left, _ = self._again.pop(peer)
        neighbor = self._loaded.neighbors.get(peer)
        if neighbor is None or peer not in self._state.sessions.up():
            return
        for version in neighbor.families:
            await self._command(text.end_of_rib(neighbor, version))
        if left > 1:
            self._again[peer] = (left - 1, time.monotonic() + _END_OF_RIB_PAUSE)

    async def _flush(self) -> None:
        """Until ExaBGP has sent what it was told: it does not say so, but it counts the UPDATE messages sent."""
        deadline = time.monotonic() + _FLUSH
        sent, calm = None, 0
        while calm < 2 and time.monotonic() < deadline:
            await asyncio.sleep(0.05)
            shown = await self._show()
            calm = calm + 1 if shown.sent == sent else 0
            sent = shown.sent

    # --- configuration -----------------------------------------------------------------------------------------------

    def _is_checked(self) -> bool:
        """Whether a new configuration is ready to be loaded. Starts its check, which takes long, on the side."""
        state = self._state
        if state.setup in (self._loaded, self._bad):
            return False
        if self._check is not None and not self._check.done():
            return False  # its end wakes us
        if self._check is None or self._checking != state.setup:
            self._checking = state.setup
            path = state.run_dir / "check.conf"
            write(self._checking.text(state.run_dir, state.silence_after), path)
            self._check = asyncio.create_task(validate(path, state.log.secrets), name="exabgp-validate")
            self._check.add_done_callback(lambda _: state.wake.set())
            return False
        return True

    async def _reload(self) -> None:
        """Loads the checked configuration. Sessions that are the same in it are not touched."""
        state, setup, check = self._state, self._checking, self._check
        assert check is not None
        refusal, self._check = check.result(), None
        if refusal:
            self._bad = setup
            state.trouble = f"ExaBGP refuses the new peers; the old ones stay: {refusal}"
            logger.warning("%s", state.trouble)
            state.tell()
            return
        staying = {neighbor.address for neighbor in setup.neighbors.values()}
        leaving = [n for n in self._loaded.neighbors.values() if n.address not in staying]
        for neighbor in leaving:  # under graceful restart the router would keep what was not withdrawn before
            await self._command(text.clear(neighbor), _SLOW)
        if leaving:
            await self._flush()
        write(setup.text(state.run_dir, state.silence_after), state.run_dir / "exabgp.conf")
        before, self._loaded, self._bad = self._loaded, setup, None
        state.trouble = ""
        await self._command(text.RELOAD, _SLOW)
        if not await self._confirm():
            raise Restart("ExaBGP did not take the new configuration: it was started again.")
        state.difference.set_peers(frozenset(setup.neighbors))
        for name, neighbor in setup.neighbors.items():
            if before.neighbors.get(name, neighbor) != neighbor:
                state.difference.resync(name)
        state.end_of_rib |= state.sessions.up() & setup.neighbors.keys()

    async def _confirm(self) -> bool:
        """Whether ExaBGP has the peers that it is to have. It reloads some turns after the acknowledgement."""
        addresses = {neighbor.address for neighbor in self._loaded.neighbors.values()}
        deadline = time.monotonic() + _RELOAD
        while time.monotonic() < deadline:
            shown = await self._show()
            if shown.states.keys() == addresses:
                return True
            await asyncio.sleep(0.05)
        return False

    async def _show(self) -> text.Shown:
        self._shown = None
        await self._command(text.SHOW_NEIGHBORS, _SLOW)
        return self._shown or text.Shown()

    # --- connection --------------------------------------------------------------------------------------------------

    def _hear(self, said: text.Said) -> None:
        if isinstance(said, text.Shown):
            self._shown = said
        self._state.hear(said)

    async def _connect(self, patience: float) -> None:
        accepting = asyncio.create_task(Channel.accept(self._listener, self._hear), name="exabgp-accept")
        try:
            await asyncio.wait((accepting, self._exabgp.dead), timeout=patience, return_when=asyncio.FIRST_COMPLETED)
            if not accepting.done():
                dead = self._exabgp.dead.done()
                raise Restart(self._obituary() if dead else "ExaBGP did not start its API process.")
            self._channel = accepting.result()
        finally:
            accepting.cancel()
            await asyncio.wait((accepting,))
        self._channel.closed.add_done_callback(lambda _: self._state.wake.set())
        try:
            with contextlib.suppress(Closed):  # then the next one is waited for
                await self._show()
        except Hung:
            raise Restart("ExaBGP does not answer: it was killed and started again.") from None

    async def _reconnect(self) -> None:
        """The API process died, and ExaBGP starts another one: events were lost, and perhaps a command."""
        if self._channel is not None:
            self._channel.close()
        logger.warning("the API process of ExaBGP is gone; waiting for the next one")
        await self._connect(_RECONNECT)
        if not await self._confirm():
            raise Restart("ExaBGP lost peers with its API process: it was started again.")
        for peer in self._loaded.neighbors:
            self._state.difference.resync(peer)
        self._state.end_of_rib |= self._state.sessions.up()

    async def _stop(self) -> None:
        if self._state.withdraw:
            with contextlib.suppress(Closed, Hung):
                await self._command(text.clear(), _SLOW)
                await self._flush()
        self._exabgp.terminate()
        await asyncio.wait((self._exabgp.dead,), timeout=_END)

    def _on_death(self, _: object) -> None:
        if self._channel is not None:
            self._channel.close()
        self._state.wake.set()

    def _obituary(self) -> str:
        code = self._exabgp.dead.result()
        if code < 0:
            return f"ExaBGP was killed by signal {-code}."
        words = self._state.log.last_words()
        return f"ExaBGP ended with code {code}{': ' + words if words else ''}."
