"""The contents of a hello."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from operator import attrgetter
from typing import NamedTuple

from porterlb.core.model import Network

GATEWAY = ""
"""The name of a gateway among the contacts of a segment. No node has an empty name."""


class Assignment(NamedTuple):
    """The next hop of one asker of a spread VIP: the host with the MAC ``asker``, which last asked from ``address``.

    Addresses are packed and of one family. ``stamp``: the higher one counts (32 bits on the wire).
    """

    vip: bytes
    asker: bytes
    address: bytes
    node: str
    stamp: int


@dataclass(frozen=True, slots=True)
class SegmentState:
    """What a replica says about one segment of its node: an interface and the subnets connected to it.

    ``up``: the interface is up and has carrier. ``isolated``: no host answers the replica's probes there any longer.
    ``answers``: the replica answers ARP and NDP there. ``mac``: of the interface, six bytes. ``contacts``: third
    parties (nodes, or GATEWAY) that answered the replica's own probes there within the contact window; at most two,
    because at least one of two is not the judged node. ``suspect``: nodes that missed two probes there; ``silent``:
    nodes that missed three probes and the burst.
    """

    subnets: tuple[Network, ...]
    up: bool = True
    isolated: bool = False
    answers: bool = False
    mac: bytes = bytes(6)
    contacts: tuple[str, ...] = ()
    suspect: frozenset[str] = frozenset()
    silent: frozenset[str] = frozenset()

    def votes_on(self, node: str) -> bool:
        """Whether its sender is a voter about ``node`` there: a third party other than ``node`` answered it."""
        return self.up and any(contact != node for contact in self.contacts)


@dataclass(frozen=True, slots=True)
class Hello:
    """The hello of one replica. Integers are unsigned, 64 bits.

    ``sequence`` rises with every datagram of a boot. ``goodbye``: the replica stops; take over immediately.
    ``answers``: it answers ARP and NDP now; False while it only listens after its start. ``stale``: its plan may be
    outdated (:mod:`porterlb.core.layer2.staleness`). ``dead``: nodes that it
    considers dead. ``sessions``: established BGP sessions by peer name; ``negotiated``: what each of them negotiated,
    by peer name. ``hold_downs``: the states of its BGP hold-downs (:func:`porterlb.core.holddown.said`).
    ``segments``: by interface.

    Two managers may run with the same node name by mistake. ``instance`` is a random number of this manager's start,
    and ``echo`` the instance of the other manager that it has heard, 0 for none; ``uptime`` is its age in milliseconds,
    sent to the other manager only. A hello that echoes our own instance cannot be a replay of an earlier start.

    ``assignments``: a part of the sender's table of askers of spread VIPs, new ones first; ``known_askers``: the size
    of that table.
    """

    node: str
    boot: int
    sequence: int
    leader: str = ""
    sessions: frozenset[str] = frozenset()
    dead: frozenset[str] = frozenset()
    digest: int = 0
    applied: int = 0
    answers: bool = False
    goodbye: bool = False
    hold_downs: frozenset[str] = frozenset()
    segments: tuple[SegmentState, ...] = ()
    negotiated: Mapping[str, str] = field(default_factory=dict)
    instance: int = 0
    echo: int = 0
    uptime: int = 0
    assignments: tuple[Assignment, ...] = ()
    known_askers: int = 0
    stale: bool = False

    def numbered(self, sequence: int) -> Hello:
        """The same hello with another sequence. It takes half the time of `dataclasses.replace`, and is called for each
        hello received."""
        return Hello(self.node, self.boot, sequence, *_after_sequence(self))


_after_sequence = attrgetter(*[one.name for one in fields(Hello)][3:])


class HelloRefusal(enum.StrEnum):
    """Why a datagram was refused."""

    MALFORMED = "malformed"
    OVERSIZE = "oversize"
    WRONG_KEY = "wrong_key"
    VERSION = "version"
    FOREIGN = "foreign"
    OWN_NAME = "own_name"
    REPLAY = "replay"
