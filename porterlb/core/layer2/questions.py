"""The questions of ARP and NDP: who has ``target``? Each names its ``sender``, with its ``mac``."""

from __future__ import annotations

from porterlb.core.layer2.arp import ARP_REQUEST, Arp, parse_arp
from porterlb.core.layer2.ndp import Solicitation, parse_ndp

Question = Arp | Solicitation
"""``mac`` is empty where a solicitation does not tell it."""


def arp_question(frame: bytes) -> Arp | None:
    """The ARP request in an Ethernet frame, else None."""
    arp = parse_arp(frame)
    return arp if arp is not None and arp.operation == ARP_REQUEST else None


def ndp_question(frame: bytes) -> Solicitation | None:
    """The valid neighbour solicitation in an Ethernet frame, else None."""
    asked = parse_ndp(frame)
    return asked if isinstance(asked, Solicitation) else None
