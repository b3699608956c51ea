"""How one VIP is served now, as seen by one replica."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from porterlb.core.model import Mode
from porterlb.core.observed import Answering


@dataclass(frozen=True, slots=True)
class Served:
    """``carried``: next hops that a peer has, by peer. ``answered``: None if no replica answers ARP or NDP for the VIP.

    ``hosts``: if each host on the segment has its own next hop, the nodes that are these next hops.
    ``refused``: routes that ExaBGP rejected, as sentences. ``conflict``: the MAC of a foreign host that claims the VIP.
    """

    mode: Mode
    carried: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    answered: Answering | None = None
    refused: tuple[str, ...] = ()
    conflict: str = ""
    hosts: tuple[str, ...] = ()

    @property
    def next_hops(self) -> tuple[str, ...]:
        """The nodes that its traffic reaches now, by name."""
        if self.mode is Mode.BGP:
            return tuple(sorted({hop for hops in self.carried.values() for hop in hops}))
        return self.hosts or ((self.answered.next_hop,) if self.answered else ())
