"""Whether the answers for a VIP on a segment match the plan of the replicas, judged for each asking replica."""

from __future__ import annotations

import enum
from collections.abc import Collection, Iterable
from dataclasses import dataclass

from porterlb.core.layer2.inquiry import Answer, NotAsked, Outcome

MOST_ASKERS = 3
"""Maximum number of asking replicas: on one segment all hear the same. If hosts have their own next hops, three are
enough to show it."""


class Comparison(enum.Enum):
    """``value``: its name in JSON."""

    AS_PLANNED = "asPlanned"
    OTHER_NODE = "otherNode"
    TWO_ANSWERS = "twoAnswers"
    FOREIGN_HOST = "foreignHost"
    NO_ANSWER = "noAnswer"
    OWN = "own"
    """The asking replica is the answerer: it does not hear itself."""
    NOT_ASKED = "notAsked"

    @property
    def differs(self) -> bool:
        """Whether the segment differs from the plan."""
        return self not in (Comparison.AS_PLANNED, Comparison.OWN, Comparison.NOT_ASKED)


@dataclass(frozen=True, slots=True)
class PlannedAnswer:
    """The plan of the replicas for a VIP: its next hops (several if it is spread), and the node of the answerer."""

    next_hops: frozenset[str] = frozenset()
    answerer: str = ""


@dataclass(frozen=True, slots=True)
class AskerReport:
    """The answers that one replica, on the node ``asker``, heard for a VIP."""

    asker: str
    outcome: Outcome
    verdict: Comparison
    planned: PlannedAnswer


def askers(reachable: Iterable[str], answerer: str) -> list[str]:
    """The replicas to ask from: not the answerer, if there is another, because it does not hear its own answer."""
    nodes = sorted(reachable)
    return [node for node in nodes if node != answerer][:MOST_ASKERS] or nodes


def judged(asker: str, outcome: Outcome, planned: PlannedAnswer) -> AskerReport:
    """The verdict. A foreign host takes precedence, then two answers, then a node that is not the next hop."""
    return AskerReport(asker, outcome, _verdict(asker, outcome, planned), planned)


def _verdict(asker: str, outcome: Outcome, planned: PlannedAnswer) -> Comparison:
    nodes = {answer.node for answer in outcome.answers}
    own = bool(asker) and asker == planned.answerer
    if outcome.obstacle is not None:
        return Comparison.NOT_ASKED
    if "" in nodes:
        return Comparison.FOREIGN_HOST
    if not nodes:
        return Comparison.OWN if own else Comparison.NO_ANSWER if planned.next_hops else Comparison.AS_PLANNED
    if own or len(outcome.answers) > 1:
        return Comparison.TWO_ANSWERS
    return Comparison.AS_PLANNED if nodes <= planned.next_hops else Comparison.OTHER_NODE


_OBSTACLES = {
    NotAsked.NOT_LAYER2: "not asked: Layer 2 of this replica does not have the address",
    NotAsked.NO_INTERFACE: "not asked: no interface of this node leads to the segment of the address",
    NotAsked.NOT_SENT: "not asked: the kernel refused to send on {interface}",
}


def sentence(seen: AskerReport) -> str:
    """The answers, and how they compare with the plan."""
    outcome, planned = seen.outcome, _names(seen.planned.next_hops) or "nobody"
    if outcome.obstacle is not None:
        return f"{seen.asker}: {_OBSTACLES[outcome.obstacle].format(interface=outcome.interface)}"
    answers = "; ".join(map(_answer, outcome.answers)) or "no answer"
    how = {
        Comparison.AS_PLANNED: "as planned",
        Comparison.OTHER_NODE: f"planned: {planned}",
        Comparison.TWO_ANSWERS: f"more than one answer, planned: {planned}",
        Comparison.FOREIGN_HOST: f"not only nodes of the cluster, planned: {planned}",
        Comparison.NO_ANSWER: f"planned: {planned}",
        Comparison.OWN: "this replica answers itself, and does not hear its own answer; no other host answers",
    }[seen.verdict]
    return f"{seen.asker} asked on {outcome.interface}: {answers} ({how})"


def problem(seen: AskerReport) -> str:
    """The problem, and what to do; empty if there is none."""
    address, where = seen.outcome.address, f"on {seen.outcome.interface} of {seen.asker}"
    answers = seen.outcome.answers
    match seen.verdict:
        case Comparison.FOREIGN_HOST:
            macs = ", ".join(answer.mac.hex(":") for answer in answers if not answer.node)
            return f"A foreign host ({macs}) answers for {address} {where}. Find it by its MAC, and free the address."
        case Comparison.TWO_ANSWERS:
            nodes = [answer.node for answer in answers]
            nodes += [seen.asker] if seen.asker == seen.planned.answerer else []
            return (
                f"More than one MAC answers for {address} {where}: {_names(nodes)}. Ask again: a move takes a moment."
            )
        case Comparison.OTHER_NODE:
            planned = _names(seen.planned.next_hops) or "nobody"
            node = answers[0].node
            return f"{node} answers for {address} {where}, planned: {planned}. Ask again: a move takes a moment."
        case Comparison.NO_ANSWER:
            return f"Nobody answers for {address} {where}. A switch may filter ARP or neighbor discovery there."
    return ""


def _answer(answer: Answer) -> str:
    return f"{answer.mac.hex(':')} ({answer.node or 'a foreign host'}) after {answer.after * 1000:.1f} ms"


def _names(nodes: Collection[str]) -> str:
    return ", ".join(sorted(set(nodes)))
