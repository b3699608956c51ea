"""The nodes that this replica treats as dead, and the effect of a new failure detector judgement on the VIPs."""

from __future__ import annotations

from porterlb.core.layer2.action_list import ActionList
from porterlb.core.layer2.actions import NoteKind
from porterlb.core.layer2.nodes import Nodes
from porterlb.core.layer2.serving import LISTEN
from porterlb.core.layer2.surroundings import Surroundings
from porterlb.core.layer2.verdict import Place
from porterlb.core.layer2.vips import VipTable


class DeadNodes:
    """Writes ``dead`` and ``dead_places`` of `Surroundings`. Times: monotonic seconds.

    Args:
        own: our node. It is judged too: other replicas may consider it dead.
    """

    def __init__(self, own: str, nodes: Nodes, around: Surroundings, vips: VipTable, actions: ActionList) -> None:
        self._own = own
        self._nodes = nodes
        self._around = around
        self._vips = vips
        self._actions = actions
        self._planned_anew = True  # a wanted set was completed since our own node revived
        self._revived_at = 0.0  # when our own node counted as alive again

    def planned(self) -> None:
        """A wanted set was completed."""
        self._planned_anew = True

    def plan_is_current(self, now: float) -> bool:
        """Whether the wanted set was made while our own node counted as alive.

        While our own node counts as dead, our plan equals the plan of the replicas that consider it dead. The plan
        that counts is made when the node is alive again. It arrives within LISTEN seconds, or it is unchanged.
        """
        return self._own not in self._around.dead and (self._planned_anew or now - self._revived_at >= LISTEN)

    def update(self, now: float) -> bool:
        """Applies the judgement. Returns whether a node died or revived on any segment: then send a hello."""
        around, actions, judgement = self._around, self._actions, self._nodes.judgement
        before = around.dead_places
        if judgement.dead == before:
            return False
        dead = self._nodes.dead
        died, revived = dead - around.dead, around.dead - dead
        if self._own in revived:
            self._revived_at, self._planned_anew = now, False
        around.dead, around.dead_places = dead, judgement.dead
        around.forget()
        actions.count("deaths", len(died - {self._own}))
        actions.report(True, dead=dead, dead_on=self.by_subnet(), unheard=self.unheard)
        for node in sorted(died):
            actions.note(NoteKind.NODE_DIED, node)
        for node in sorted(revived):
            actions.note(NoteKind.NODE_REVIVED, node)
        for place in sorted(judgement.dead - before):
            self._vips.node_died(place.node, now)
            if place.node not in dead:
                actions.note(NoteKind.DEAD_ON_SEGMENT, self._words(place))
        if self._own in {place.node for place in judgement.dead - before}:
            self._vips.touch_all()  # we also answered on behalf of other nodes
        for place in sorted(before - judgement.dead):
            if place.node not in revived:
                actions.note(NoteKind.ALIVE_ON_SEGMENT, self._words(place))
        if before - judgement.dead:
            self._vips.touch_again()  # after a partition: they may have considered us dead
        return True

    @property
    def unheard(self) -> frozenset[str]:
        """The dead nodes that have never answered."""
        return frozenset(node for node in self._around.dead if self._nodes.detector.never_answered(node))

    def by_subnet(self) -> dict[str, frozenset[str]]:
        """Dead nodes by connected subnet."""
        found: dict[str, frozenset[str]] = {}
        for nic in {place.nic for place in self._around.dead_places}:
            for network in self._nodes.detector.statements.networks(nic):
                found[str(network)] = self._nodes.judgement.on(nic)
        return found

    def _words(self, place: Place) -> str:
        nic = self._around.interfaces.nics.get(place.nic)
        return f"{place.node} ({nic.name if nic is not None else place.nic})"
