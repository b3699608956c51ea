"""What the decisions of Layer 2 ask the wire process to do: values, carried out in order.

Interfaces are named by index; VIPs and MACs are packed.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from typing import Any, NamedTuple

from porterlb.core.hello import Hello
from porterlb.core.layer2.probes import Probe
from porterlb.core.layer2.questions import Question
from porterlb.core.model import Address, Member
from porterlb.core.observed import Answering, Nic


class OpenInterface(NamedTuple):
    """Open the sockets of an interface. If that fails, call `Layer2.interface_failed`."""

    nic: Nic


class CloseInterface(NamedTuple):
    """Close the sockets of an interface. Its multicast groups stay: the interface may return."""

    ifindex: int


class DropInterface(NamedTuple):
    """The interface no longer exists: drop its multicast groups too."""

    ifindex: int


class FindRoute(NamedTuple):
    """Ask the kernel which interface leads to ``goal``, and call `Layer2.route_found`."""

    goal: Address


class Own(NamedTuple):
    """From now on answer for ``address`` with ``mac``. ``by_asker``: hosts are answered with different MACs
    (`Layer2.asked`); this one is for duplicate address probes."""

    ifindex: int
    address: bytes
    mac: bytes
    by_asker: bool = False


class Disown(NamedTuple):
    """Stop answering for ``address``."""

    ifindex: int
    address: bytes


class Join(NamedTuple):
    """Join the solicited-node multicast group of ``address``, to receive questions for it. IPv6 only."""

    ifindex: int
    address: bytes


class Leave(NamedTuple):
    ifindex: int
    address: bytes


class AnswerLate(NamedTuple):
    """Answer a question that arrived before ``address`` was owned."""

    ifindex: int
    address: bytes
    question: Question


class Announce(NamedTuple):
    """Send a gratuitous ARP or an unsolicited advertisement, and call `Layer2.announced`.
    ``defence``: a foreign host claims the address."""

    ifindex: int
    address: bytes
    defence: bool = False


class Tell(NamedTuple):
    """As `Announce`, to one host only: ``address`` is at ``mac``. Call `Layer2.announced` with ``key``.

    ``asker``: the MAC of the host; ``at``: its packed address.
    """

    ifindex: int
    address: bytes
    mac: bytes
    asker: bytes
    at: bytes
    key: bytes


class CheckAddress(NamedTuple):
    """Send a duplicate address probe."""

    ifindex: int
    address: Address


class SendProbes(NamedTuple):
    """Send the probes of bursts now."""

    probes: tuple[Probe, ...]


class Say(NamedTuple):
    """Send this hello to all members."""

    hello: Hello


class Served(NamedTuple):
    """Report who serves a VIP now."""

    vip: str
    answering: Answering


class Report(NamedTuple):
    """Report the complete values of these fields of WireReport; ``now``: not batched with later fields."""

    fields: Mapping[str, Any]
    now: bool = False


class NoteKind(enum.Enum):
    """The events that are logged."""

    NODE_DIED = enum.auto()
    NODE_REVIVED = enum.auto()
    DEAD_ON_SEGMENT = enum.auto()
    ALIVE_ON_SEGMENT = enum.auto()
    TWO_ANSWERS = enum.auto()
    MANAGER_SILENT = enum.auto()
    MANAGER_BACK = enum.auto()


class Note(NamedTuple):
    kind: NoteKind
    subject: str = ""


class SetHelloPeers(NamedTuple):
    """Send hellos to these members from now on."""

    members: Mapping[str, Member]


class FindGateways(NamedTuple):
    """Ask the kernel for its default routes, and call `Layer2.gateways_found`."""


class Settled(NamedTuple):
    """Long-lived objects have been created: a good moment to freeze them for the garbage collector."""


class End(NamedTuple):
    """Close everything and end the process."""


Action = (
    OpenInterface
    | CloseInterface
    | DropInterface
    | FindRoute
    | Own
    | Disown
    | Join
    | Leave
    | AnswerLate
    | Announce
    | Tell
    | CheckAddress
    | SendProbes
    | Say
    | Served
    | Report
    | Note
    | SetHelloPeers
    | FindGateways
    | Settled
    | End
)
