"""The template frames. Everything that is sent is a patched copy of one of them (core.neighbour)."""

from __future__ import annotations

from dataclasses import dataclass, field

from porterlb.core.neighbour import ArpTemplate, NeighbourTemplate, advertisement_frame, arp_frame


@dataclass(frozen=True, slots=True)
class Templates:
    """scapy is not needed to make them: its import reads every address of the host (1.75 ms each), and kube-proxy in
    IPVS mode puts each VIP of the cluster on kube-ipvs0."""

    arp: ArpTemplate = field(default_factory=lambda: ArpTemplate(arp_frame()))
    neighbour: NeighbourTemplate = field(default_factory=lambda: NeighbourTemplate(advertisement_frame()))
