"""The questions of ARP and NDP: who has ``target``? Each question carries its ``sender`` and the sender's ``mac``."""

from __future__ import annotations

from typing import NamedTuple

from porterlb.core.layer2.arp import ARP_REQUEST, Arp, parse_arp
from porterlb.core.layer2.ndp import Solicitation, parse_ndp

Question = Arp | Solicitation
"""``mac`` is empty if a solicitation does not contain it."""


def arp_question(frame: bytes) -> Arp | None:
    """The ARP request in an Ethernet frame, else None."""
    arp = parse_arp(frame)
    return arp if arp is not None and arp.operation == ARP_REQUEST else None


def ndp_question(frame: bytes) -> Solicitation | None:
    """The valid neighbour solicitation in an Ethernet frame, else None."""
    asked = parse_ndp(frame)
    return asked if isinstance(asked, Solicitation) else None


class Asker(NamedTuple):
    """The host that asks: its MAC, and the packed address that it asks from. ``unicast``: the question was sent to one
    MAC only, as hosts do to verify a neighbour entry (RFC 4861 7.3.3, RFC 1122 2.3.2.1)."""

    mac: bytes
    address: bytes
    unicast: bool


def asker_of(question: Question) -> Asker | None:
    """The asker; None if an answer creates no neighbour entry: a duplicate address probe, or an invalid sender."""
    mac = question.mac or question.source
    if mac[0] & 1 or not any(mac) or not any(question.sender):
        return None
    if isinstance(question, Arp):
        return Asker(mac, question.sender, not question.destination[0] & 1)
    return Asker(mac, question.sender, question.destination == question.target)
