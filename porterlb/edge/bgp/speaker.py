"""The BGP speaker of one replica: keeps an ExaBGP running with exactly the wanted sessions and routes."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from porterlb.core.bfd.values import BfdSession
from porterlb.core.bgp import words
from porterlb.core.bgp.reasons import Trouble, TroubleKind
from porterlb.core.desired import DesiredBgp
from porterlb.core.observed import BgpReport
from porterlb.edge.bgp.process import Log
from porterlb.edge.bgp.run import Restart, Run
from porterlb.edge.bgp.speaker_state import SpeakerState

logger = logging.getLogger(__name__)

_BACK_OFF = (0.0, 0.5, 1.0, 2.0, 5.0, 10.0)  # seconds before each restart in a row: the first one is immediate
_STABLE = 30.0  # seconds of running after which a restart is the first in a row again


class BgpSpeaker:
    """Supervises ExaBGP, level-triggered: ``want`` takes the whole set, the difference is computed here.

    Do not call ``want`` before the set is complete: the End-of-RIB that follows makes routers drop all other routes.

    Args:
        report: called from the event loop at each change of ExaBGP's state; must not block.
        run_dir: for the configuration (it may hold passwords: 0600), a socket and the log; made with mode 0700.
        ack_timeout: seconds after which an ExaBGP that has not acknowledged a command counts as hung.
        heartbeat: seconds between two signs of life, requested from ExaBGP and sent to its API process.
        silence_after: seconds without a sign of life from the manager after which the API process withdraws
            everything and ends ExaBGP: a hung manager must not announce forever.
    """

    def __init__(
        self,
        report: Callable[[BgpReport], None],
        *,
        run_dir: Path,
        ack_timeout: float = 2.0,
        heartbeat: float = 1.0,
        silence_after: float = 10.0,
    ) -> None:
        run_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        run_dir.chmod(0o700)
        log = Log(run_dir / "exabgp.log")
        self._state = SpeakerState(report, run_dir.resolve(), log, ack_timeout, heartbeat, silence_after)
        self._run: Run | None = None
        self._ended = asyncio.Event()
        self._ended.set()  # until it runs

    @property
    def pid(self) -> int:
        """The process ID of the running ExaBGP; 0 if there is none."""
        return self._run.pid if self._run is not None else 0

    def want(self, wanted: DesiredBgp, token: int) -> None:
        """The whole set of sessions and routes from now on. Returns at once; the report has the token once applied."""
        self._state.wanted, self._state.token = wanted, token
        self._state.wake.set()

    def hear_bfd(self, sessions: Mapping[str, BfdSession]) -> None:
        """Takes the state of BFD, by peer name: a session whose BFD has failed counts as lost at once, and is ended."""
        lost = self._state.hear_bfd(sessions)
        if lost and self._run is not None:
            self._run.tear_down(lost)

    @property
    def running(self) -> bool:
        """Whether ExaBGP runs, or is not needed; from any thread."""
        trouble = self._state.trouble
        return trouble is None or trouble.runs

    def beat(self) -> None:
        """Tells the API process that the manager is alive; callable from any thread. The event loop also beats: this is
        for callers that know that a busy loop is alive."""
        life = self._run
        if life is not None:
            life.beat()

    async def stop(self, *, withdraw: bool) -> None:
        """Ends ExaBGP, and thereby :meth:`run`.

        Args:
            withdraw: withdraw all routes first, and wait until that is sent; else graceful restart keeps them.
        """
        self._state.withdraw = withdraw
        self._state.stopping = True
        self._state.wake.set()
        await self._ended.wait()

    async def run(self) -> None:
        """Supervises until stopped or cancelled; when cancelled, graceful restart keeps the routes."""
        state = self._state
        in_a_row = 0
        self._ended.clear()
        try:
            while not state.stopping:
                state.take_over()
                if not state.arranged.config.sessions:
                    state.trouble = None
                    state.settle()
                    await state.wait(state.heartbeat)
                    state.look_again()
                    continue
                started = time.monotonic()
                if await self._run_once():
                    continue
                in_a_row = 1 if time.monotonic() - started > _STABLE else in_a_row + 1
                until = time.monotonic() + _BACK_OFF[min(in_a_row, len(_BACK_OFF)) - 1]
                while not state.stopping and (left := until - time.monotonic()) > 0:
                    await state.wait(left)
        finally:
            state.log.close()
            self._ended.set()

    async def _run_once(self) -> bool:
        """One ExaBGP from its start to its end. False if it ended unexpectedly."""
        state = self._state
        try:
            self._run = await Run.start(state)
            try:
                await self._run.run()
            finally:
                await self._run.end()
                self._run = None
            state.ended()
            return True
        except Restart as end:
            state.trouble = end.trouble
        except OSError as error:
            state.trouble = Trouble(TroubleKind.NOT_STARTED, text=str(error))
        logger.warning("%s", words.trouble(state.trouble))
        state.restarts += 1
        state.ended()
        return False
