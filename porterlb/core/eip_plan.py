"""The plan of one pool: how it is used, and whether Layer 2 can serve its addresses."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from porterlb.core.allocation import EipUse
from porterlb.core.layer2_choice import Layer2Choices
from porterlb.core.model import AddressRange, Eip, Protocol
from porterlb.core.problems import Problem, Reason
from porterlb.core.sentences import clauses
from porterlb.core.topology import Topology


@dataclass(frozen=True, slots=True)
class EipPlan:
    """One pool: how it is used, whether Layer 2 can serve it (None: not known yet), and its problems.

    ``left_out``: the nodes that spec.layer2 excludes, each with the reason as a clause.
    """

    use: EipUse
    layer2_possible: bool | None = None
    layer2_reason: str = ""
    problems: tuple[Problem, ...] = ()
    left_out: Mapping[str, str] = field(default_factory=dict)


def eip_plan(choices: Layer2Choices, eip: Eip, use: EipUse) -> EipPlan:
    if eip.protocol is Protocol.BGP or not choices.topology.segments.subnets:
        return EipPlan(use, problems=use.problems)
    if eip.layer2.limits:
        return _limited(choices, eip, use)
    return _anywhere(choices.topology, eip, use)


def _anywhere(topology: Topology, eip: Eip, use: EipUse) -> EipPlan:
    """Without regard to spec.layer2."""
    if eip.interface:
        return _on_interface(topology, eip, use)
    outside = _outside(topology, eip)
    if not outside:
        return EipPlan(use, True, "Every address is in a connected subnet.", use.problems)
    first = outside[0]
    text = str(first.first) if first.first == first.last else f"{first.first}-{first.last}"
    closed = next(
        (net for net in topology.segments.closed if net.version == first[0].version and first[0] in net), None
    )
    where = (
        f"{text} is in {closed}, which is local to each node: it connects nothing but what runs on one node"
        if closed is not None
        else f"{eip.can_reach} (spec.interface) is behind no interface of any replica"
        if eip.can_reach is not None
        else f"{text} is in no connected subnet of any replica"
    )
    return EipPlan(use, False, f"{where}, so Layer 2 cannot serve it{_fallback(eip)}", use.problems)


def _on_interface(topology: Topology, eip: Eip, use: EipUse) -> EipPlan:
    """An Eip that names its interface: nodes without this interface do not serve its addresses."""
    name = eip.interface
    lack = sorted(topology.lacking(name))
    if not lack:
        return EipPlan(use, True, f"Its addresses are answered on {name}.", use.problems)
    if lack == sorted(topology.members):
        sentence = f"no replica has an interface {name} that is up, so Layer 2 cannot serve it{_fallback(eip)}"
        return EipPlan(use, False, sentence[0].upper() + sentence[1:], use.problems)
    have = "has" if len(lack) == 1 else "have"
    problem = Problem(
        Reason.NO_INTERFACE,
        f"{', '.join(lack)} {have} no interface {name} that is up, and so no part in Layer 2 for this Eip. "
        "Name an interface that every node has, or write can_reach:IP.",
        "spec.interface",
        fatal=False,
    )
    return EipPlan(use, True, f"Its addresses are answered on {name}.", (*use.problems, problem))


def _limited(choices: Layer2Choices, eip: Eip, use: EipUse) -> EipPlan:
    """An Eip of which only some nodes may serve the addresses (spec.layer2)."""
    replicas = choices.topology.members.keys() & choices.topology.nodes.keys()
    matching, out = _matching(choices, eip), _left_out(choices, eip)
    if not matching:
        problem = _problem(Reason.NO_NODE, "matches no node. Correct the selectors, or label the nodes.", _SELECTORS)
        sentence = f"No node matches {_SELECTORS}, so Layer 2 cannot serve it{_fallback(eip)}"
        return EipPlan(use, False, sentence, (*use.problems, problem), out)
    if not matching & replicas:
        problem = _problem(
            Reason.NO_REPLICA,
            "matches no node with a replica. Label other nodes, or let replicas run on these.",
            _SELECTORS,
        )
        sentence = f"No node that matches {_SELECTORS} has a replica, so Layer 2 cannot serve it{_fallback(eip)}"
        return EipPlan(use, False, sentence, (*use.problems, problem), out)
    if not eip.layer2.interfaces:
        return replace(_anywhere(choices.topology, eip, use), left_out=out)
    lack = sorted(matching & replicas & out.keys())
    names = " or ".join(eip.layer2.interfaces)
    if not lack:
        return EipPlan(use, True, f"Its addresses are answered on {names}.", use.problems, out)
    problem = _problem(
        Reason.NO_INTERFACE,
        f"{clauses({name: out[name] for name in lack})}: no part in Layer 2 for this Eip. Add the name of the "
        f"interface of these nodes, or exclude the nodes by {_SELECTORS}.",
        "spec.layer2.interfaces",
    )
    segments = choices.segments_of(eip)
    by_segment = [choices.choice(eip, segment) for segment in segments[1:] or segments]
    possible = any(matching & replicas - made.left_out.keys() for made in by_segment)
    sentence = (
        f"Its addresses are answered on {names}."
        if possible
        else f"No replica has an interface {names} that can serve it, so Layer 2 cannot serve it{_fallback(eip)}"
    )
    return EipPlan(use, possible, sentence, (*use.problems, problem), out)


_SELECTORS = "spec.layer2.nodeSelectors"


def _problem(reason: Reason, message: str, field: str) -> Problem:
    return Problem(reason, message, field, fatal=False)


def _matching(choices: Layer2Choices, eip: Eip) -> frozenset[str]:
    """The nodes that the selectors of the Eip select; all nodes without selectors."""
    if not eip.layer2.node_selectors:
        return frozenset(choices.topology.nodes)
    return frozenset().union(*(choices.selected[selector] for selector in eip.layer2.node_selectors))


def _left_out(choices: Layer2Choices, eip: Eip) -> dict[str, str]:
    """The nodes that cannot serve some of the addresses, each with the reason as a clause."""
    found: dict[str, str] = {}
    for segment in reversed(choices.segments_of(eip)):
        for name, why in choices.choice(eip, segment).left_out.items():
            found.setdefault(name, why)
    return dict(sorted(found.items()))


def _fallback(eip: Eip) -> str:
    return "; it has no fallback when BGP is lost." if eip.protocol is Protocol.AUTO else "."


def _outside(topology: Topology, eip: Eip) -> list[AddressRange]:
    """The ranges of an Eip that Layer 2 cannot serve, because they are on no segment."""
    if eip.can_reach is not None:
        return [] if topology.segments.towards(eip.can_reach) is not None else list(eip.ranges)
    return [r for r in eip.ranges if topology.segments.of(r.first) is None or topology.segments.of(r.last) is None]
