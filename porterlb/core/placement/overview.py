"""The distribution of a plan's VIPs over the nodes, and the moves of a rebalancing: for display."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from porterlb.core.model import Address, ServiceKey
from porterlb.core.placement.census import movable
from porterlb.core.placement.load import FULL, Balance, balance_of
from porterlb.core.placement.state import Move, ordered
from porterlb.core.plan import Plan
from porterlb.core.vip import VipPlan


@dataclass(frozen=True, slots=True)
class Share:
    """What one node serves in Layer 2, or would serve after a loss of BGP. ``load``: the weights of its VIPs together;
    ``capacity``: in hundredths."""

    vips: int = 0
    load: int = 0
    capacity: int = FULL


@dataclass(frozen=True, slots=True)
class Overview:
    """``shares``: by node, including nodes without VIPs that could serve some."""

    shares: Mapping[str, Share] = field(default_factory=dict)
    balance: Balance = Balance()


def overview(made: Plan) -> Overview:
    """The overview of one plan, including next hops that are decided but not recorded yet."""
    if made.shared is None:
        return Overview()
    nodes = made.shared.snapshot.nodes
    eligible = made.shared.topology.eligible
    found = {name: Share(capacity=nodes[name].capacity) for name in eligible}
    for vip in made.vips.values():
        place = place_of(vip, decided(made))
        if place:
            share = found.get(place) or Share(capacity=nodes[place].capacity if place in nodes else FULL)
            found[place] = replace(share, vips=share.vips + 1, load=share.load + vip.weight)
    loads = {name: share.load for name, share in found.items()}
    capacities = {name: share.capacity for name, share in found.items()}
    return Overview({name: found[name] for name in sorted(found)}, balance_of(loads, eligible, capacities))


def decided(made: Plan) -> Mapping[ServiceKey, str]:
    """The next hops that are decided but not recorded yet, by Service."""
    placement = made.memory.placement
    return placement.decided if placement is not None else {}


def place_of(vip: VipPlan, chosen: Mapping[ServiceKey, str]) -> str:
    """The node that serves or will serve a VIP in Layer 2; empty if Layer 2 cannot serve it."""
    return vip.place and chosen.get(vip.services[0], vip.place)


def rebalancing(made: Plan) -> tuple[Move, ...]:
    """The smallest set of moves that restores balance."""
    if made.shared is None:
        return ()
    nodes = made.shared.snapshot.nodes
    capacities = {name: node.capacity for name, node in nodes.items()}
    return ordered(movable(made.vips, made.shared.topology.cordoned, made.shared.snapshot.view.asked), capacities)


def addresses_of(made: Plan, key: ServiceKey) -> tuple[Address, ...]:
    """The VIPs that move together with a Service."""
    found = [vip.address for vip in made.vips.values() if vip.place and vip.services[0] == key]
    return tuple(sorted(found, key=lambda address: (address.version, int(address))))
