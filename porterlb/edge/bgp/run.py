"""One ExaBGP from its start to its end: only this module sends it commands, one at a time."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
import time
from collections.abc import Callable, Collection
from functools import partial

from porterlb.core import exabgp_text as text
from porterlb.core.bgp import words
from porterlb.core.bgp.agenda import Agenda, Beat, Check, Clear, Configs, EndOfRib, Finish, Reload, Teardown, Wait
from porterlb.core.bgp.config import Config
from porterlb.core.bgp.next_line import Line
from porterlb.core.bgp.reasons import BFD_DOWN, Trouble, TroubleKind
from porterlb.core.desired import Path
from porterlb.core.scope import unscoped
from porterlb.edge.bgp.channel import Closed, ExabgpChannel, Hung
from porterlb.edge.bgp.config import API_SOCKET, content, write
from porterlb.edge.bgp.process import Exabgp, validate
from porterlb.edge.bgp.speaker_state import SpeakerState

logger = logging.getLogger(__name__)

_START = 15.0  # seconds for ExaBGP to start its API process; on a busy machine Python alone takes 1 to 2 s
_RECONNECT = 5.0  # seconds for ExaBGP to start its API process again: measured 16 to 32 ms
_SLOW = 30.0  # seconds to acknowledge commands that are slow with many routes or peers: clear, show, reload
_RELOAD = 5.0  # seconds for ExaBGP to show the peers of a new configuration: measured 30 ms
_FLUSH = 5.0  # seconds, at most, to wait until withdrawals are sent
_END = 3.0  # seconds from SIGTERM to SIGKILL
_RETRY = (1.0, 2.0, 5.0, 10.0, 30.0, 60.0)  # seconds until a configuration that could not be loaded is tried again


class Restart(Exception):
    """This ExaBGP must be replaced by a new one."""

    def __init__(self, trouble: Trouble) -> None:
        super().__init__(words.trouble(trouble))
        self.trouble = trouble


class Run:
    """One ExaBGP: started by :meth:`start`; :meth:`run` until it is no longer needed; :meth:`end` in any case."""

    def __init__(self, state: SpeakerState, exabgp: Exabgp, listener: socket.socket, config: Config) -> None:
        self._state, self._exabgp, self._listener = state, exabgp, listener
        self._loaded = config  # the configuration that ExaBGP has
        self._agenda = Agenda(state.difference, state.heartbeat)
        self._channel: ExabgpChannel | None = None
        self._check: asyncio.Task[str] | None = None
        self._checking: Config | None = None  # the configuration that is checked
        self._bad: Config | None = None  # a configuration that ExaBGP refuses, or that could not be written
        self._bad_until = 0.0
        self._failures = 0  # failures in a row to load it
        self._reasons: dict[Path, str] = {}  # why ExaBGP refused a route of a path
        self._shown: text.Shown | None = None
        exabgp.dead.add_done_callback(self._on_death)

    @classmethod
    async def start(cls, state: SpeakerState) -> Run:
        listener = socket.socket(socket.AF_UNIX)
        folder = os.open(state.run_dir, os.O_PATH | os.O_CLOEXEC)
        try:
            (state.run_dir / API_SOCKET).unlink(missing_ok=True)
            # Not by its own path, which may be longer than the 107 bytes allowed for a socket.
            listener.bind(f"/proc/self/fd/{folder}/{API_SOCKET}")
            listener.listen(4)
            listener.setblocking(False)
            config = state.arranged.config
            path = state.run_dir / "exabgp.conf"
            write(content(config, state.run_dir, state.silence_after), path)
            exabgp = await Exabgp.start(path, state.log)
        except BaseException:
            listener.close()
            raise
        finally:
            os.close(folder)
        state.loaded = config
        return cls(state, exabgp, listener, config)

    @property
    def pid(self) -> int:
        return self._exabgp.pid

    async def run(self) -> None:
        """Returns when ExaBGP is no longer needed or must stop; raises Restart when it must be replaced."""
        state = self._state
        await self._connect(_START)
        state.trouble = None
        state.difference.set_peers(frozenset(self._loaded.sessions))
        needed = True
        while needed:
            if self._exabgp.dead.done():
                raise Restart(self._end_of_process())
            try:
                if self._channel is None or self._channel.closed.done():
                    await self._reconnect()
                if state.stopping:
                    await self._stop()
                    return
                state.take_over()
                if not state.sessions.unseen.isdisjoint(self._loaded.sessions):
                    await self._show()
                needed = await self._step()
            except Closed:
                await asyncio.sleep(0)
            except Hung:
                raise Restart(Trouble(TroubleKind.HUNG)) from None

    async def end(self) -> None:
        """Kills the process if it still runs. The routers keep the routes if graceful restart was negotiated."""
        if self._check is not None:
            self._check.cancel()
            with contextlib.suppress(asyncio.CancelledError, OSError):
                await self._check
        await self._exabgp.kill()
        if self._channel is not None:
            self._channel.close()
        self._listener.close()
        self._state.loaded = None

    async def _step(self) -> bool:
        """Takes the next step of the agenda, or waits for one. False when ExaBGP is no longer needed."""
        now = time.monotonic()
        match self._agenda.next(now, self._configs(now), current=self._state.is_current, planned=self._state.planned):
            case Teardown(peer):
                await self._tear_down(peer)
            case Beat():
                await self._beat()
            case Line() as line:
                await self._say(line)
            case Clear(peer):
                await self._clear(peer)
            case EndOfRib(peer):
                await self._say_end_of_rib(peer)
            case Finish():
                await self._flush()
                return False
            case Check(config):
                self._begin_check(config)
            case Reload(config):
                await self._reload(config)
            case Wait(until, settled):
                if settled:
                    self._state.settle()
                await self._state.wait(max(0.0, until - time.monotonic()))
        return True

    def _configs(self, now: float) -> Configs:
        checking = self._check is not None and not self._check.done()
        checked = self._checking if self._check is not None and not checking else None
        bad = self._bad if now < self._bad_until else None
        return Configs(self._state.arranged.config, self._loaded, checked, bad, checking)

    async def _command(
        self, line: str, patience: float | None = None, meanwhile: Callable[[], None] | None = None
    ) -> bool:
        if self._channel is None:
            raise Closed
        return await self._channel.command(line, patience or self._state.ack_timeout, meanwhile)

    def beat(self) -> None:
        """Sends a beat to the API process only, which needs nothing else; callable from any thread."""
        channel = self._channel
        if channel is not None:
            channel.beat()

    def tear_down(self, peers: Collection[str]) -> None:
        """Ends these sessions, which already count as lost; ExaBGP opens them again."""
        self._agenda.tear_down(self._loaded.sessions.keys() & peers)
        self._state.wake.set()

    async def _tear_down(self, peer: str) -> None:
        self._agenda.torn.discard(peer)
        session = self._loaded.sessions.get(peer)
        if session is not None and peer in self._state.sessions.torn:
            await self._command(text.teardown(session, BFD_DOWN))

    async def _beat(self) -> None:
        self._agenda.beaten(time.monotonic())
        if self._channel is not None:
            self._channel.beat()
        await self._command(text.HEARTBEAT)
        self._state.look_again()

    # --- routes ------------------------------------------------------------------------------------------------------

    async def _say(self, line: Line) -> None:
        state, batch, reason = self._state, line.batch, line.refusal
        mark = state.log.written
        if not reason:
            try:
                if await self._command(line.text, meanwhile=partial(self._agenda.line.make, self._loaded.sessions)):
                    state.difference.done(batch)
                    return
            except (Closed, Hung):
                state.difference.unsure(batch)
                raise
            if batch.path not in self._reasons:
                await asyncio.sleep(0.02)  # the log arrives through another pipe
            told = text.rejection(state.log.since(mark))
            reason = told or self._reasons.get(batch.path, "ExaBGP refuses this route and does not say why.")
            self._reasons[batch.path] = reason
        state.difference.failed(batch, reason)
        if len(batch.prefixes) == 1:
            state.tell()

    async def _clear(self, peer: str) -> None:
        session = self._loaded.sessions.get(peer)
        if session is not None:
            await self._command(text.clear(session), _SLOW)
        self._agenda.unfit.discard(peer)
        self._state.difference.cleared(peer)

    async def _say_end_of_rib(self, peer: str) -> None:
        """ExaBGP sends it after all routes that it was given before; routers then drop stale routes (RFC 4724)."""
        session = self._loaded.sessions.get(peer)
        if session is not None:
            for version in session.families:
                await self._command(text.end_of_rib(session, version))
        self._agenda.end_of_rib_said(peer, self._loaded.sessions, time.monotonic())

    async def _flush(self) -> None:
        """Waits until ExaBGP has sent what it was given: it does not report that, but counts its UPDATE messages."""
        deadline = time.monotonic() + _FLUSH
        sent, calm = None, 0
        while calm < 2 and time.monotonic() < deadline:
            await asyncio.sleep(0.05)
            shown = await self._show()
            calm = calm + 1 if shown.sent == sent else 0
            sent = shown.sent

    # --- configuration -----------------------------------------------------------------------------------------------

    def _begin_check(self, config: Config) -> None:
        """Starts a check, in a separate process, whether ExaBGP would accept the configuration: that is slow. The end
        of the check wakes us."""
        state = self._state
        self._checking = config
        self._check = asyncio.create_task(self._checked(config), name="exabgp-validate")
        self._check.add_done_callback(lambda _: state.wake.set())

    async def _checked(self, config: Config) -> str:
        path = self._state.run_dir / "check.conf"
        write(content(config, self._state.run_dir, self._state.silence_after), path)
        return await validate(path, self._state.log.secrets)

    async def _reload(self, config: Config) -> None:
        """Loads the checked configuration. Sessions that are the same in it are not touched.

        The running configuration stays in force if anything fails before ExaBGP is told to reload.
        """
        state, check = self._state, self._check
        assert check is not None
        self._check = None
        try:
            refusal = check.result()
            if refusal:
                self._failed(config, Trouble(TroubleKind.RELOAD_REFUSED, text=refusal))
                return
            new = state.run_dir / "exabgp.conf.next"
            write(content(config, state.run_dir, state.silence_after), new)
        except OSError as error:
            self._failed(config, Trouble(TroubleKind.RELOAD_FAILED, text=str(error)))
            return
        staying = {unscoped(session.address) for session in config.sessions.values()}
        leaving = [s for s in self._loaded.sessions.values() if unscoped(s.address) not in staying]
        for session in leaving:  # under graceful restart, the router would keep routes that were not withdrawn before
            await self._command(text.clear(session), _SLOW)
        if leaving:
            await self._flush()
        new.replace(state.run_dir / "exabgp.conf")
        before, self._loaded, self._bad, self._failures = self._loaded, config, None, 0
        state.loaded = config
        state.trouble = None
        await self._command(text.RELOAD, _SLOW)
        if not await self._confirm():
            raise Restart(Trouble(TroubleKind.NOT_TAKEN))
        state.difference.set_peers(frozenset(config.sessions))
        for name, session in config.sessions.items():
            if before.sessions.get(name, session) != session:
                state.difference.resync(name)
        self._agenda.up(state.sessions.up() & config.sessions.keys())

    def _failed(self, config: Config, trouble: Trouble) -> None:
        self._bad = config
        self._bad_until = time.monotonic() + _RETRY[min(self._failures, len(_RETRY) - 1)]
        self._failures += 1
        if self._state.trouble != trouble:
            logger.warning("%s", words.trouble(trouble))
        self._state.trouble = trouble
        self._state.tell()

    async def _confirm(self) -> bool:
        """Whether ExaBGP has the configured peers. It reloads some turns of its loop after the acknowledgement."""
        addresses = {unscoped(session.address) for session in self._loaded.sessions.values()}
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
        changed = self._state.hear(said)
        up = self._state.sessions.up()
        self._agenda.up(changed & up)
        self._agenda.down(changed - up)
        if changed & up:
            self._state.want_routes()
            sessions, difference = self._state.sessions, self._state.difference
            self._agenda.unfit.update(name for name in changed & up if sessions.unfit(name, difference))
            self._state.wake.set()

    async def _connect(self, patience: float) -> None:
        accepting = asyncio.create_task(ExabgpChannel.accept(self._listener, self._hear), name="exabgp-accept")
        try:
            await asyncio.wait((accepting, self._exabgp.dead), timeout=patience, return_when=asyncio.FIRST_COMPLETED)
            if not accepting.done():
                dead = self._exabgp.dead.done()
                raise Restart(self._end_of_process() if dead else Trouble(TroubleKind.NO_API))
            self._channel = accepting.result()
        finally:
            accepting.cancel()
            await asyncio.wait((accepting,))
        self._channel.closed.add_done_callback(lambda _: self._state.wake.set())
        try:
            with contextlib.suppress(Closed):  # then run() waits for the next API process
                await self._show()
        except Hung:
            raise Restart(Trouble(TroubleKind.HUNG)) from None

    async def _reconnect(self) -> None:
        """The API process died, and ExaBGP starts another one: events were lost, and possibly a command."""
        if self._channel is not None:
            self._channel.close()
        logger.warning("the API process of ExaBGP is gone; waiting for the next one")
        await self._connect(_RECONNECT)
        if not await self._confirm():
            raise Restart(Trouble(TroubleKind.PEERS_LOST))
        for peer in self._loaded.sessions:
            self._state.difference.resync(peer)
        self._agenda.up(self._state.sessions.up())
        self._agenda.tear_down(self._state.sessions.torn)  # the command may be lost

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

    def _end_of_process(self) -> Trouble:
        code = self._exabgp.dead.result()
        if code < 0:
            return Trouble(TroubleKind.KILLED, -code)
        return Trouble(TroubleKind.ENDED, code, self._state.log.last_words())
