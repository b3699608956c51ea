"""The plan of one pool: how it is used, and whether Layer 2 can serve its addresses."""

from __future__ import annotations

from dataclasses import dataclass

from porterlb.core.allocation import EipUse
from porterlb.core.model import AddressRange, Eip, Protocol
from porterlb.core.problems import Problem, Reason
from porterlb.core.shared import Shared


@dataclass(frozen=True, slots=True)
class EipPlan:
    """One pool: how it is used, whether Layer 2 can serve it (None: not known yet), and its problems."""

    use: EipUse
    layer2_possible: bool | None = None
    layer2_reason: str = ""
    problems: tuple[Problem, ...] = ()


def eip_plan(shared: Shared, eip: Eip, use: EipUse) -> EipPlan:
    if eip.protocol is Protocol.BGP or not shared.segments.subnets:
        return EipPlan(use, problems=use.problems)
    if eip.interface:
        return _on_interface(shared, eip, use)
    outside = _outside(shared, eip)
    if not outside:
        return EipPlan(use, True, "Every address is in a connected subnet.", use.problems)
    first = outside[0]
    text = str(first.first) if first.first == first.last else f"{first.first}-{first.last}"
    closed = next((net for net in shared.segments.closed if net.version == first[0].version and first[0] in net), None)
    where = (
        f"{text} is in {closed}, which is local to each node: it connects nothing but what runs on one node"
        if closed is not None
        else f"{eip.can_reach} (spec.interface) is behind no interface of any replica"
        if eip.can_reach is not None
        else f"{text} is in no connected subnet of any replica"
    )
    return EipPlan(use, False, f"{where}, so Layer 2 cannot serve it{_fallback(eip)}", use.problems)


def _on_interface(shared: Shared, eip: Eip, use: EipUse) -> EipPlan:
    """An Eip that names its interface: nodes without this interface do not serve its addresses."""
    name = eip.interface
    lack = sorted(shared.lacking(name))
    if not lack:
        return EipPlan(use, True, f"Its addresses are answered on {name}.", use.problems)
    if lack == sorted(shared.snapshot.members):
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


def _fallback(eip: Eip) -> str:
    return "; it has no fallback when BGP is lost." if eip.protocol is Protocol.AUTO else "."


def _outside(shared: Shared, eip: Eip) -> list[AddressRange]:
    """The ranges of an Eip that Layer 2 cannot serve, because they are on no segment."""
    if eip.can_reach is not None:
        return [] if shared.segments.towards(eip.can_reach) is not None else list(eip.ranges)
    return [r for r in eip.ranges if shared.segments.of(r.first) is None or shared.segments.of(r.last) is None]
