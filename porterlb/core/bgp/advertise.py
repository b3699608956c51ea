"""What is announced to one peer for a VIP, by its rules (``spec.advertise``): next hops and attributes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from porterlb.core.bgp import rules
from porterlb.core.desired import Prefix
from porterlb.core.model import (
    Address,
    AdvertiseRule,
    Eip,
    Node,
    Peer,
    PeerOverride,
    RouteAttributes,
    Selector,
    Service,
)


@dataclass(frozen=True, slots=True)
class Offer:
    """The content of one rule. ``nodes``: the next hops that it applies to; None: all. ``length``: length of the
    covering prefix; 0: none. ``only``: without the host route. ``local``: the covering prefix also for policy Local."""

    attributes: RouteAttributes
    nodes: frozenset[str] | None = None
    length: int = 0
    only: bool = True
    local: bool = False

    def aggregates(self, *, local: bool) -> bool:
        """Whether the covering prefix is announced. ``local``: the VIP has policy Local."""
        return bool(self.length) and (self.local or not local)

    def allows(self, node: str) -> bool:
        return self.nodes is None or node in self.nodes


@dataclass(frozen=True, slots=True)
class Told:
    """``offers``: the offers of the rules that match the VIP, in order. ``union``: all offers that allow a next hop
    apply to it, else only the first one."""

    offers: tuple[Offer, ...]
    union: bool = False
    nodes: frozenset[str] | None = field(init=False)
    """The next hops that may be announced; None: all."""

    def __post_init__(self) -> None:
        chosen = [offer.nodes for offer in self.offers if offer.nodes is not None]
        every = len(chosen) < len(self.offers)
        object.__setattr__(self, "nodes", None if every else frozenset().union(*chosen))

    def allowed(self, hops: tuple[str, ...]) -> tuple[str, ...]:
        """The next hops among ``hops`` that may be announced."""
        nodes = self.nodes
        return hops if nodes is None else tuple(hop for hop in hops if hop in nodes)

    def routes(self, node: str, *, local: bool = False) -> tuple[tuple[int, RouteAttributes], ...]:
        """The routes announced with this next hop: the length of each prefix (0: the host route) and its attributes."""
        found = [offer for offer in self.offers if offer.allows(node)]
        if not self.union:
            found = found[:1]
        hosts = [offer.attributes for offer in found if not (offer.only and offer.aggregates(local=local))]
        lengths = sorted({offer.length for offer in found if offer.aggregates(local=local)})
        covering = [
            (length, merged([o.attributes for o in found if o.length == length and o.aggregates(local=local)]))
            for length in lengths
        ]
        return (*([(0, merged(hosts))] if hosts else ()), *covering)


EVERYTHING = Told((Offer(RouteAttributes()),))
"""For a peer without rules."""


def told(
    peer: Peer,
    eip: Eip,
    version: int,
    services: Iterable[Service],
    selected: Mapping[Selector, frozenset[str]],
    names: Mapping[str, str],
) -> Told | None:
    """What is announced to ``peer`` for VIPs of ``eip`` and ``services``; None: nothing. ``version``: IP version.

    ``selected``: nodes by the selector of a rule. ``names``: communities of the BgpConf by name.
    """
    if not peer.advertise:
        return EVERYTHING
    labels = [service.labels for service in services]
    offers = [
        Offer(
            attributes,
            selected[rule.node_selector] if rule.node_selector is not None else None,
            rule.lengths[0 if version == 4 else 1],
            rule.aggregate_only,
            rule.aggregate_local,
        )
        for rule in peer.advertise
        if _matches(rule, eip, labels) and (attributes := resolved(rule, names)) is not None
    ]
    return Told(tuple(offers), peer.advertise_union) if offers else None


def covering(address: Address, length: int, eip: Eip) -> tuple[Address, Prefix] | None:
    """The prefix of this length that contains ``address``, with its first address; None if it reaches beyond the Eip,
    because it would attract traffic for other hosts. An Eip may lack the network and the broadcast address."""
    bits = address.max_prefixlen - length
    first = int(address) >> bits << bits
    last = first + (1 << bits) - 1
    ranges = [found for found in eip.ranges if found.first.version == address.version]
    spare = 1 if bits > 1 else 0
    if not ranges or int(ranges[0].first) > first + spare or int(ranges[-1].last) < last - spare:
        return None
    network = type(address)(first)
    return network, f"{network}/{length}"


def reaches_beyond(rule: AdvertiseRule, eip: Eip) -> int:
    """The length of a covering prefix that reaches beyond one end of the Eip; 0: there is none."""
    for version, length in zip((4, 6), rule.lengths, strict=True):
        ranges = [found for found in eip.ranges if found.first.version == version]
        ends = (ranges[0].first, ranges[-1].last) if ranges and length else ()
        if any(covering(end, length, eip) is None for end in ends):
            return length
    return 0


def matches_eip(rule: AdvertiseRule, eip: Eip) -> bool:
    """Whether the rule applies to VIPs of this Eip, regardless of their Services."""
    if rule.eips and eip.name not in rule.eips:
        return False
    return rule.eip_selector is None or rule.eip_selector.matches(eip.labels)


def selected(peers: Iterable[Peer], nodes: Mapping[str, Node]) -> dict[Selector, frozenset[str]]:
    """The nodes of every selector of a rule or an override."""
    entries: list[AdvertiseRule | PeerOverride] = []
    for peer in peers:
        entries += [*peer.advertise, *peer.overrides]
    return {
        selector: frozenset(name for name, node in nodes.items() if selector.matches(node.labels))
        for selector in {entry.node_selector for entry in entries if entry.node_selector is not None}
    }


def resolved(rule: AdvertiseRule, names: Mapping[str, str]) -> RouteAttributes | None:
    """The attributes of a rule; None if it has a community name that the BgpConf does not define: a route without that
    community might be propagated further than intended."""
    if not rule.community_names:
        return rule.attributes
    values = [names.get(name) for name in rule.community_names]
    found = [value for value in values if value is not None]
    if len(found) < len(values):
        return None
    large = [value for value in found if rules.large_community(value) is not None]
    return merged(
        [
            rule.attributes,
            RouteAttributes(tuple(value for value in found if value not in large), tuple(large)),
        ]
    )


def merged(all_of: Sequence[RouteAttributes]) -> RouteAttributes:
    """The communities of all. Of the other attributes the first value (the parser refuses different values)."""
    if len(all_of) == 1:
        return all_of[0]
    return RouteAttributes(
        communities=tuple(dict.fromkeys(c for of in all_of for c in of.communities)),
        large_communities=tuple(dict.fromkeys(c for of in all_of for c in of.large_communities)),
        local_pref=next((of.local_pref for of in all_of if of.local_pref is not None), None),
        med=next((of.med for of in all_of if of.med is not None), None),
        prepend=next((of.prepend for of in all_of if of.prepend), 0),
    )


def conflict(peer_rules: Sequence[AdvertiseRule]) -> tuple[int, int, str] | None:
    """Two rules that may match the same address and next hop but set different values of a single-valued attribute
    (with advertisePolicy union): their positions and the field; None: there are no such rules."""
    fields = (("local_pref", "localPref"), ("med", "med"), ("prepend", "asPathPrepend"))
    for at, one in enumerate(peer_rules):
        for place, other in enumerate(peer_rules[:at]):
            if one.eips and other.eips and not one.eips & other.eips:
                continue
            for name, shown in fields:
                values = getattr(one.attributes, name), getattr(other.attributes, name)
                if values[0] != values[1] and not {None, 0 if name == "prepend" else None} & {*values}:
                    return place, at, shown
    return None


def _matches(rule: AdvertiseRule, eip: Eip, services: Sequence[Mapping[str, str]]) -> bool:
    if not matches_eip(rule, eip):
        return False
    selector = rule.service_selector
    return selector is None or any(selector.matches(labels) for labels in services)
