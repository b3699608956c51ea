"""Whether this replica may serve: one state machine.

==========  ====================================================================================================
listening   after the start, and after the manager was silent: learns which nodes and replicas are alive. Serves
            nothing.
serving     answers for its own VIPs.
in doubt    hears no other host: probably its own node is cut off. Answers for the VIPs it had; nothing changes.
returned    was cut off. Other replicas may have taken over, and its wanted set may be outdated: serves nothing until
            every replica that answers has the same plan, or no replica answers.
silent      the manager has hung, so the wanted set becomes outdated. Sent a goodbye; serves nothing after OVERLAP.
leaving     is being stopped. Sent a goodbye; the process ends after OVERLAP.
==========  ====================================================================================================
"""

from __future__ import annotations

import enum
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from porterlb.core.hello import Hello

LISTEN = 1.0
"""Seconds for which a starting replica listens before it answers."""
OVERLAP = 0.05
"""Seconds for which the replica still answers after a goodbye."""


class ServingState(enum.StrEnum):
    LISTENING = "listening"
    SERVING = "serving"
    IN_DOUBT = "in doubt"
    RETURNED = "returned"
    SILENT = "silent"
    LEAVING = "leaving"


class ServingEvent(enum.StrEnum):
    READY = "ready"  # listened long enough with a complete wanted set, or up to date after a return
    READY_IN_DOUBT = "ready in doubt"  # the same, while in doubt
    NOT_READY = "not ready"  # up to date after a return, but the first wanted set is not complete
    DOUBT = "doubt"
    CERTAIN = "certain"  # doubt has ended, and no other replica is a member
    CERTAIN_WITH_OTHERS = "certain with others"  # doubt has ended; others may have taken over
    MANAGER_SILENT = "manager silent"
    MANAGER_BACK = "manager back"
    STOP = "stop"


_S, _E = ServingState, ServingEvent

TRANSITIONS: Mapping[tuple[ServingState, ServingEvent], ServingState] = {
    (_S.LISTENING, _E.READY): _S.SERVING,
    (_S.LISTENING, _E.READY_IN_DOUBT): _S.IN_DOUBT,
    (_S.LISTENING, _E.MANAGER_SILENT): _S.SILENT,
    (_S.LISTENING, _E.STOP): _S.LEAVING,
    (_S.SERVING, _E.DOUBT): _S.IN_DOUBT,
    (_S.SERVING, _E.MANAGER_SILENT): _S.SILENT,
    (_S.SERVING, _E.STOP): _S.LEAVING,
    (_S.IN_DOUBT, _E.CERTAIN): _S.SERVING,
    (_S.IN_DOUBT, _E.CERTAIN_WITH_OTHERS): _S.RETURNED,
    (_S.IN_DOUBT, _E.MANAGER_SILENT): _S.SILENT,
    (_S.IN_DOUBT, _E.STOP): _S.LEAVING,
    (_S.RETURNED, _E.READY): _S.SERVING,
    (_S.RETURNED, _E.READY_IN_DOUBT): _S.IN_DOUBT,
    (_S.RETURNED, _E.NOT_READY): _S.LISTENING,
    (_S.RETURNED, _E.MANAGER_SILENT): _S.SILENT,
    (_S.RETURNED, _E.STOP): _S.LEAVING,
    (_S.SILENT, _E.MANAGER_BACK): _S.LISTENING,
    (_S.SILENT, _E.STOP): _S.LEAVING,
}
"""Any other pair of state and event changes nothing."""


class Transition(NamedTuple):
    event: ServingEvent
    state: ServingState
    """The state entered."""


class Serving:
    """Each event returns the transition that it caused, or None if nothing changed.

    Args:
        silence_after: seconds without a message of the manager after which the manager counts as hung.
        hello_fresh: seconds within which every live replica sends a hello.
    """

    def __init__(self, now: float, silence_after: float, hello_fresh: float) -> None:
        self._silence_after = silence_after
        self._hello_fresh = hello_fresh
        self.state = ServingState.LISTENING
        self._listens_since = now
        self._beat = now
        self._complete = False
        self._doubt = False
        self._returned_at = 0.0
        self._overlap_until: float | None = None  # in silent and leaving: it still answers until then
        self._served = False  # before silent and leaving

    # ---- current state

    @property
    def answers(self) -> bool:
        """Whether this replica may answer for VIPs."""
        if self.state in (ServingState.SILENT, ServingState.LEAVING):
            return self._served and self._overlap_until is not None
        return self.state in (ServingState.SERVING, ServingState.IN_DOUBT)

    @property
    def frozen(self) -> bool:
        """Whether nothing must change, because of doubt."""
        return self._doubt and self.state not in (ServingState.SILENT, ServingState.LEAVING)

    @property
    def said_goodbye(self) -> bool:
        return self.state in (ServingState.SILENT, ServingState.LEAVING)

    @property
    def next_at(self) -> float | None:
        """When the overlap after a goodbye ends."""
        return self._overlap_until

    def listened(self, now: float) -> bool:
        """Whether LISTEN seconds have passed since the start of listening."""
        return now - self._listens_since >= LISTEN

    # ---- events

    def complete(self) -> None:
        """The first wanted set is complete."""
        self._complete = True

    def beat(self, now: float) -> Transition | None:
        """A message of the manager arrived."""
        self._beat = now
        return self._step(ServingEvent.MANAGER_BACK, now)

    def doubt(self, doubt: bool, others: bool, now: float) -> Transition | None:
        """Doubt began or ended. ``others``: other replicas are members."""
        self._doubt = doubt
        if doubt:
            return self._step(ServingEvent.DOUBT, now)
        return self._step(ServingEvent.CERTAIN_WITH_OTHERS if others else ServingEvent.CERTAIN, now)

    def check_manager(self, now: float, lag: float) -> Transition | None:
        """Judges the silence of the manager, unless ``lag`` shows that our own process stalled."""
        if now - self._beat > self._silence_after and lag < self._silence_after / 2:
            return self._step(ServingEvent.MANAGER_SILENT, now)
        return None

    def check_listened(self, now: float) -> Transition | None:
        """Begins to serve when listening is over."""
        if self.state is ServingState.LISTENING and self.listened(now) and self._complete:
            return self._step(self._ready(), now)
        return None

    def check_returned(self, since_return: Iterable[Hello], digest: int, now: float) -> Transition | None:
        """Serves again when our plan equals the plan of the other replicas.

        Args:
            since_return: the last hello of each fresh replica that sent one since `returned_at`.
            digest: digest of our own plan.
        """
        if self.state is not ServingState.RETURNED:
            return None
        answering = [hello for hello in since_return if hello.answers]
        wait = self._hello_fresh if answering else LISTEN
        if now - self._returned_at < wait or any(hello.digest != digest for hello in answering):
            return None
        ready = self._complete and self.listened(now)
        return self._step(self._ready() if ready else ServingEvent.NOT_READY, now)

    @property
    def returned_at(self) -> float:
        return self._returned_at

    def stop(self, now: float) -> Transition | None:
        return self._step(ServingEvent.STOP, now)

    def check_overlap(self, now: float) -> bool:
        """Whether the overlap after a goodbye has just ended."""
        if self._overlap_until is None or now < self._overlap_until:
            return False
        self._overlap_until = None
        return True

    def _ready(self) -> ServingEvent:
        return ServingEvent.READY_IN_DOUBT if self._doubt else ServingEvent.READY

    def _step(self, event: ServingEvent, now: float) -> Transition | None:
        entered = TRANSITIONS.get((self.state, event))
        if entered is None:
            return None
        served = self.answers
        self.state = entered
        if entered is ServingState.LISTENING:
            if event is ServingEvent.MANAGER_BACK:
                self._listens_since = now  # listen first, as after a start
            self._overlap_until = None
        elif entered is ServingState.RETURNED:
            self._returned_at = now
        elif entered in (ServingState.SILENT, ServingState.LEAVING):
            self._served = served
            self._overlap_until = now + OVERLAP
        return Transition(event, entered)
