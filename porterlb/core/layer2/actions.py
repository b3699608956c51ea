"""What the decisions of Layer 2 ask of the process around them: values, carried out in their order.

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
    """Open the sockets of an interface. If that fails, say `Layer2.interface_failed`."""

    nic: Nic


class CloseInterface(NamedTuple):
    """Close its sockets. Its multicast groups stay: it may return."""

    ifindex: int


class DropInterface(NamedTuple):
    """The interface does not exist any more: its multicast groups go too."""

    ifindex: int


class FindRoute(NamedTuple):
    """Ask the kernel which interface leads to ``goal``, and say `Layer2.route_found`."""

    goal: Address


class Own(NamedTuple):
    """From now on answer for ``address`` with ``mac``."""

    ifindex: int
    address: bytes
    mac: bytes


class Disown(NamedTuple):
    """Do not answer for ``address`` any more."""

    ifindex: int
    address: bytes


class Join(NamedTuple):
    """Let questions for ``address`` reach us: its solicited-node multicast group. Only for IPv6."""

    ifindex: int
    address: bytes


class Leave(NamedTuple):
    ifindex: int
    address: bytes


class AnswerLate(NamedTuple):
    """Answer a question that came before ``address`` was owned."""

    ifindex: int
    address: bytes
    question: Question


class Announce(NamedTuple):
    """Send a gratuitous ARP or an unsolicited advertisement, and say `Layer2.announced`.
    ``defence``: against a foreign host that claims it."""

    ifindex: int
    address: bytes
    defence: bool = False


class Tell(NamedTuple):
    """As `Announce`, to one host only: ``address`` is at ``mac``. Say `Layer2.announced` of ``key``.

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
    """Send the probes of bursts, now."""

    probes: tuple[Probe, ...]


class Say(NamedTuple):
    """Send this hello to every member."""

    hello: Hello


class Served(NamedTuple):
    """Report who serves a VIP now."""

    vip: str
    answering: Answering


class Report(NamedTuple):
    """Report these fields of WireReport, whole; ``now``: without waiting for others."""

    fields: Mapping[str, Any]
    now: bool = False


class NoteKind(enum.Enum):
    """What is worth a line in the log."""

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
    """Hellos go to these members from now on."""

    members: Mapping[str, Member]


class FindGateways(NamedTuple):
    """Ask the kernel for its default routes, and say `Layer2.gateways_found`."""


class Settled(NamedTuple):
    """Long-lived objects have been made: a good moment to tell the garbage collector."""


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
