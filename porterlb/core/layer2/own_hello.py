"""Our own hello: its contents, and the goodbyes at the end. Times: monotonic seconds, as arguments."""

from __future__ import annotations

from porterlb.core.desired import DesiredWire
from porterlb.core.hello import Assignment, Hello
from porterlb.core.layer2.action_list import ActionList
from porterlb.core.layer2.actions import Say
from porterlb.core.layer2.hellos import Hellos
from porterlb.core.layer2.nodes import Nodes
from porterlb.core.layer2.serving import Serving
from porterlb.core.layer2.spread import BULK, Spread
from porterlb.core.layer2.surroundings import Surroundings

_GOODBYES = (0.01, 0.02)  # seconds after the first goodbye, which may be lost


class OwnHello:
    """Reads the other parts; decides nothing about them."""

    def __init__(
        self,
        around: Surroundings,
        nodes: Nodes,
        hellos: Hellos,
        serving: Serving,
        spread: Spread,
        actions: ActionList,
    ) -> None:
        self._around = around
        self._nodes = nodes
        self._hellos = hellos
        self._serving = serving
        self._spread = spread
        self._actions = actions
        self._goodbyes: list[float] = []

    def say(self, now: float, *, goodbye: bool = False) -> None:
        """Sends our hello now, with new assignments of askers, if we are a member. After a goodbye only goodbyes are
        sent."""
        self._send(now, self._spread.piece(now), goodbye=goodbye)

    def say_askers(self, now: float) -> None:
        """Sends further hellos with the table of askers, while another replica listens before it answers."""
        if len(self._spread) and not all(hello.answers for hello in self._hellos.last):
            for _ in range(BULK):
                self._send(now, self._spread.piece(now, bulk=True))

    def _send(self, now: float, assignments: tuple[Assignment, ...], *, goodbye: bool = False) -> None:
        around, wanted = self._around, self._around.wanted
        member = wanted.members.get(around.own)
        if member is None or (self._serving.said_goodbye and not goodbye):
            return
        answers = self._serving.answers and not around.interfaces.trouble
        hello = Hello(
            node=around.own,
            boot=member.boot,
            sequence=self._hellos.next_sequence(now),
            leader=wanted.leader,
            sessions=wanted.sessions,
            hold_downs=wanted.hold_downs,
            negotiated=wanted.negotiated,
            dead=around.dead,
            digest=wanted.digest,
            applied=wanted.applied,
            answers=answers,
            goodbye=goodbye,
            segments=self._nodes.detector.speak(now, around.interfaces.used if answers else ()),
            assignments=assignments,
            known_askers=len(self._spread),
            stale=around.own in around.stale,
        )
        self._actions.add(Say(hello))

    def repeat_goodbye(self, now: float) -> None:
        """A goodbye is sent now; schedules two repetitions."""
        self._goodbyes = [now + after for after in _GOODBYES]

    def cancel_goodbyes(self) -> None:
        self._goodbyes.clear()

    @property
    def next_at(self) -> float | None:
        """When to repeat the goodbye."""
        return self._goodbyes[0] if self._goodbyes else None

    def goodbye_due(self, now: float) -> bool:
        if not self._goodbyes or self._goodbyes[0] > now:
            return False
        self._goodbyes.pop(0)
        return True


def told(wanted: DesiredWire) -> tuple[object, ...]:
    """The parts of the wanted set whose change makes us send a hello immediately."""
    return (wanted.leader, wanted.sessions, wanted.hold_downs, wanted.negotiated)
