"""The template frames. Each ARP and NDP frame sent is a patched copy of one (core.layer2.arp, core.layer2.ndp)."""

from __future__ import annotations

from dataclasses import dataclass, field

from porterlb.core.layer2.arp import ArpTemplate, arp_frame
from porterlb.core.layer2.ndp import NdpTemplate, advertisement_frame


@dataclass(frozen=True, slots=True)
class Templates:
    """Made without scapy: its import reads every address of the host (1.75 ms each), and kube-proxy in IPVS mode puts
    each VIP of the cluster on kube-ipvs0."""

    arp: ArpTemplate = field(default_factory=lambda: ArpTemplate(arp_frame()))
    ndp: NdpTemplate = field(default_factory=lambda: NdpTemplate(advertisement_frame()))
