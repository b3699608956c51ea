"""Which replicas find which node silent on the segments of its InternalIPs, counted from all hellos including ours.

The verdict of one replica (:mod:`porterlb.core.layer2.verdict`) already includes the findings of the others, but one
voter may be enough for it. A decision that needs a majority, such as marking the pods of a dead node, counts findings.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping

from porterlb.core.desired import DesiredWire
from porterlb.core.hello import SegmentState
from porterlb.core.layer2.action_list import ActionList
from porterlb.core.layer2.hellos import Hellos
from porterlb.core.layer2.nodes import Nodes
from porterlb.core.layer2.verdict import Vote
from porterlb.core.model import Address
from porterlb.core.observed import Votes


def votes(said: Mapping[str, Iterable[SegmentState]], nodes: Mapping[str, Collection[Address]]) -> dict[str, Votes]:
    """The votes about every node that at least one voter finds silent.

    ``said``: what each fresh replica says about its segments, by node, ours included. ``nodes``: InternalIPs by node.
    """
    silent = {name for states in said.values() for state in states for name in state.silent}
    found = {name: _votes(name, nodes[name], said) for name in sorted(silent & nodes.keys())}
    return {name: one for name, one in found.items() if one.silent}


def _votes(name: str, addresses: Collection[Address], said: Mapping[str, Iterable[SegmentState]]) -> Votes:
    voters, silent, heard = set(), set(), set()
    for replica, states in said.items():
        if replica == name:
            continue
        for state in states:
            quiet = name in state.silent or name in state.suspect
            if any(address in subnet for address in addresses for subnet in state.subnets):
                if not state.votes_on(name):
                    continue
                voters.add(replica)
                if name in state.silent:
                    silent.add(replica)
                elif not quiet:
                    heard.add(replica)
            elif name in state.contacts and not quiet:
                heard.add(replica)
    return Votes(frozenset(voters), frozenset(silent), frozenset(heard))


def alone(members: Collection[str], heard: Mapping[str, bool], fresh: Collection[str]) -> bool:
    """Whether more than half of the other replicas' nodes do not answer: they may consider our own node dead.

    ``members``: the other replicas. ``heard``: for each probed node, whether it answers our probes on the segment of
    its InternalIP; the other nodes count by their hellos (``fresh``). With fewer than two other replicas there is no
    majority against us.
    """
    lost = [name for name in members if not heard.get(name, name in fresh)]
    return len(members) >= 2 and 2 * len(lost) > len(members)


class CountedVotes:
    """Reports changes of the votes, and of whether we are `alone`, to the manager. ``latest``: last reported votes."""

    def __init__(self, own: str, nodes: Nodes, hellos: Hellos, actions: ActionList) -> None:
        self._own = own
        self._nodes = nodes
        self._hellos = hellos
        self._actions = actions
        self.latest: Mapping[str, Votes] = {}
        self.alone = False

    def update(self, wanted: DesiredWire, now: float) -> None:
        """Call after each evaluation of the probes and hellos."""
        probes = self._nodes.detector.probes
        if probes.unwell or self.alone:
            heard = {f.target.node: f.vote is Vote.HEARD for f in probes.nodes if f.target.decides}
            is_alone = alone(wanted.members.keys() - {self._own}, heard, {hello.node for hello in self._hellos.last})
            if is_alone is not self.alone:
                self.alone = is_alone
                self._actions.report(True, alone=is_alone)
        said = {hello.node: hello.segments for hello in self._hellos.last}
        silence = any(state.silent for states in said.values() for state in states)
        if not (silence or self.latest or self._nodes.detector.finds_silence):
            return
        found = votes({**said, self._own: self._nodes.detector.states(now)}, wanted.nodes)
        if found != self.latest:
            self.latest = found
            self._actions.report(True, votes=found)
