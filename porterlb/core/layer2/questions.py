"""The questions of ARP and NDP in one form: who has ``target``?"""

from __future__ import annotations

from typing import NamedTuple

from porterlb.core.neighbour import ARP_REQUEST, Solicitation, parse_arp, parse_neighbour


class Question(NamedTuple):
    """An ARP request or a neighbour solicitation.

    ``sender``: the asker's protocol address, with ``mac`` as its MAC (empty: it does not claim the address).
    ``message``: what the reply is made from, the frame or the parsed solicitation.
    """

    target: bytes
    sender: bytes
    mac: bytes
    message: bytes | Solicitation

    @property
    def gratuitous(self) -> bool:
        """The asker announces its own address: there is nothing to answer."""
        return self.target == self.sender


def arp_question(frame: bytes) -> Question | None:
    """The question in an Ethernet frame that is an ARP request, else None."""
    arp = parse_arp(frame)
    if arp is None or arp.operation != ARP_REQUEST:
        return None
    return Question(arp.tpa, arp.spa, arp.sha, frame)


def ndp_question(frame: bytes) -> Question | None:
    """The question in an Ethernet frame that is a valid neighbour solicitation, else None."""
    asked = parse_neighbour(frame)
    if not isinstance(asked, Solicitation):
        return None
    return Question(asked.target, asked.src, asked.link, asked)
