"""The peers that a VIP is announced to, and what each of them gets: the rules of all peers (``spec.advertise``),
applied to Eips and Services."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from porterlb.core.bgp import advertise
from porterlb.core.bgp.advertise import Told
from porterlb.core.desired import Prefix
from porterlb.core.model import Address, Eip, Peer, Selector, Service, Snapshot
from porterlb.core.persistent import differing


@dataclass(frozen=True, slots=True)
class Recipients:
    """The peers that a VIP is announced to. ``told``: what each peer gets; ``text``: equal on all replicas."""

    told: Mapping[str, Told]
    names: frozenset[str]
    text: str
    parts: tuple[frozenset[str], ...]
    """The next hops of the peers that get certain nodes only."""


@dataclass(frozen=True, slots=True)
class AdvertiseRules:
    """``peers``: without those that are administratively down. ``selected``: the nodes of each selector in the rules.
    ``communities``: of the BgpConf, by name. ``by_service``: whether the recipients depend on the labels of Services.
    """

    peers: Mapping[str, Peer]
    eips: Mapping[str, Eip]
    selected: Mapping[Selector, frozenset[str]]
    communities: Mapping[str, str]
    by_service: bool
    # Results of pure functions of the other fields:
    _recipients: dict[tuple[str, int], Recipients] = field(default_factory=dict, compare=False, repr=False)
    _covering: dict[tuple[str, int, int, int], tuple[Address, Prefix] | None] = field(
        default_factory=dict, compare=False, repr=False
    )
    _sets: list[frozenset[frozenset[str]]] = field(default_factory=list, compare=False, repr=False)  # at most one

    def recipients(self, eip: Eip, version: int, services: Sequence[Service]) -> Recipients:
        """The peers that VIPs of ``eip`` and of these Services are announced to."""
        key = (eip.name, version)
        found = self._recipients.get(key)
        if found is None:
            told = {
                name: of
                for name, peer in self.peers.items()
                if version in peer.families
                and (of := advertise.told(peer, eip, version, services, self.selected, self.communities)) is not None
            }
            parts = dict.fromkeys(of.nodes for of in told.values() if of.nodes is not None)
            found = Recipients(told, frozenset(told), _text(told), tuple(parts))
            if not self.by_service:
                self._recipients[key] = found
        return found

    def recipient_sets(self) -> frozenset[frozenset[str]]:
        """Every set of peers that a VIP of these Eips may be announced to, without regard to Services."""
        if not self._sets:
            found = frozenset(
                self.recipients(eip, version, ()).names
                for eip in self.eips.values()
                for version in {found.first.version for found in eip.ranges}
            )
            self._sets.append(found)
        return self._sets[0]

    def covering(self, address: Address, length: int, eip: Eip) -> tuple[Address, Prefix] | None:
        """See :func:`porterlb.core.bgp.advertise.covering`: the same for all addresses in the prefix."""
        key = (eip.name, address.version, length, int(address) >> (address.max_prefixlen - length))
        if key not in self._covering:
            self._covering[key] = advertise.covering(address, length, eip)
        return self._covering[key]

    def same_but_eips(self, other: AdvertiseRules) -> bool:
        """Whether both give the same recipients for the same Eip."""
        return self.peers == other.peers and self.selected == other.selected and self.communities == other.communities


def advertise_rules(snapshot: Snapshot, before: tuple[Snapshot, AdvertiseRules] | None = None) -> AdvertiseRules:
    """``before``: of the last plan. It is returned itself if nothing has changed that it depends on; the results for
    Eips that were not edited are reused if the rules are the same."""
    peers, eips, communities = snapshot.peers, snapshot.eips, snapshot.conf.communities
    selected: Mapping[Selector, frozenset[str]] | None = None
    if before is not None:
        last, then = before
        if (peers, snapshot.nodes) == (last.peers, last.nodes):  # a tuple: identical mappings are not compared
            selected = then.selected
            if (eips, communities) == (last.eips, then.communities):
                return then
    up = {name: peers[name] for name in sorted(peers) if not peers[name].admin_down}
    made = AdvertiseRules(
        peers=up,
        eips=eips,
        selected=advertise.selected(peers.values(), snapshot.nodes) if selected is None else selected,
        communities=communities,
        by_service=any(rule.service_selector is not None for peer in up.values() for rule in peer.advertise),
    )
    if before is None or not made.same_but_eips(then):
        return made
    edited = differing(then.eips, eips)
    if not edited:
        return then
    return replace(
        made,
        _recipients={key: found for key, found in then._recipients.items() if key[0] not in edited},
        _covering={key: found for key, found in then._covering.items() if key[0] not in edited},
    )


def _text(told: Mapping[str, Told]) -> str:
    """Only the names if no rule chooses nodes, so that digests equal those of earlier releases."""
    chosen = {name: sorted(of.nodes) for name, of in sorted(told.items()) if of.nodes is not None}
    return f"{sorted(told)}{chosen or ''}"
