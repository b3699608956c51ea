"""The reports of the two speakers: what is applied and what they observe. Plain values; times in monotonic seconds."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from porterlb.core.bfd.values import BfdSession
from porterlb.core.bgp.negotiated import Negotiated
from porterlb.core.bgp.reasons import Loss, Refusal, Trouble
from porterlb.core.desired import Path, Prefix
from porterlb.core.model import Address, Interface
from porterlb.core.persistent import editing


@dataclass(frozen=True, slots=True)
class SessionState:
    """One BGP session of ours. ``state``: an RFC 4271 state name in lower case (``established``, ``idle`` ...).

    ``since``: when it entered this state. ``loss``: why it was last lost; kept until the next loss. ``losses``: number
    of losses since the start. ``attempt``: why the last attempt since it was last up failed. ``negotiated``: values
    from when it was last established. ``refusal``: why the peer is kept out of ExaBGP. ``limit``: why the peer cannot
    open the session although it should be able to. ``bfd``: of the BFD session with the same router, if one is
    configured.
    """

    peer: str
    state: str
    since: float
    loss: Loss | None = None
    losses: int = 0
    attempt: Loss | None = None
    negotiated: Negotiated | None = None
    refusal: Refusal | None = None
    limit: Refusal | None = None
    bfd: BfdSession | None = None

    @property
    def up(self) -> bool:
        return self.state == "established"


@dataclass(frozen=True, slots=True)
class BgpReport:
    """The state of ExaBGP. ``applied``: the token of the last desired set whose every command was acknowledged.

    ``rejected``: routes that ExaBGP refused or that spec.maxPrefixesSent withholds, with the reason as text.
    ``withheld``: number of prefixes that it withholds, by peer name. ``trouble``: set while ExaBGP does not work
    correctly.
    """

    sessions: Mapping[str, SessionState] = field(default_factory=dict)  # by peer name
    applied: int = 0
    rejected: Mapping[tuple[Path, Prefix], str] = field(default_factory=dict)
    trouble: Trouble | None = None
    restarts: int = 0
    withheld: Mapping[str, int] = field(default_factory=dict)

    @property
    def running(self) -> bool:
        """Whether ExaBGP runs, or is not needed."""
        return self.trouble is None or self.trouble.runs

    def same_for_plan(self, other: BgpReport) -> bool:
        """Whether a plan comes out the same: it depends on which sessions are up, and on the negotiated values."""
        return self._sessions() == other._sessions()

    def _sessions(self) -> Mapping[str, tuple[bool, Negotiated | None]]:
        return {peer: (session.up, session.negotiated) for peer, session in self.sessions.items()}

    def is_urgent(self, before: BgpReport) -> bool:
        """Whether to plan at once, without waiting for other changes: a session was lost or came up.

        Until the plan takes the negotiated values of a new session into account, the router may have the wrong routes,
        and it waits for End-of-RIB.
        """
        up = {peer: state.negotiated for peer, state in self.sessions.items() if state.up}
        lost = any(state.up and peer not in up for peer, state in before.sessions.items())
        known = {peer: state.negotiated for peer, state in before.sessions.items()}
        return lost or any(negotiated != known.get(peer) for peer, negotiated in up.items())


@dataclass(frozen=True, slots=True)
class Nic:
    """A network interface of the node. ``mac``: six bytes."""

    name: str
    index: int
    mac: bytes
    up: bool  # administratively up and with carrier
    addresses: tuple[Interface, ...] = ()
    inner: bool = False  # a bridge or similar that only connects workloads on this node: cni0, docker0, virbr0


@dataclass(frozen=True, slots=True)
class FreshReplica:
    """The content of the last hello of a live replica."""

    node: str
    boot: int
    sessions: frozenset[str] = frozenset()  # established, by peer name
    leader: str = ""  # the replica that it considers the leader
    dead: frozenset[str] = frozenset()
    digest: int = 0
    applied: int = 0
    hold_downs: frozenset[str] = frozenset()  # its hold-down states, as in its hello
    negotiated: Mapping[str, str] = field(default_factory=dict)  # negotiated values of its sessions, by peer name
    stale: bool = False  # its plan may be outdated


@dataclass(frozen=True, slots=True)
class Answering:
    """The replica that serves a VIP on the segment now. ``answerer`` empty: none known."""

    next_hop: str
    answerer: str


@dataclass(frozen=True, slots=True)
class AddressConflict:
    """A foreign host that claims a VIP. ``mac``: six bytes. ``seen``: when it was last seen."""

    address: Address
    mac: bytes
    seen: float


class NoticeKind(enum.StrEnum):
    """Findings about a segment or another replica that the user should know."""

    NO_VOTER = "no_voter"  # nodes are silent, and no replica can tell whose link has failed
    LINK_DOWN = "link_down"
    NO_CONTACT = "no_contact"  # nodes reach no other host on a segment
    NOT_THERE = "not_there"
    OUTVOTED = "outvoted"  # most voters find nodes silent whose hellos arrive
    DIFFERS = "differs"  # our own probes contradict those of two other replicas
    HELLOS_MISSING = "hellos_missing"
    WRONG_KEY = "wrong_key"
    OLD_BOOT = "old_boot"
    OTHER_VERSION = "other_version"
    OWN_NAME = "own_name"
    CONTESTED = "contested"  # a foreign MAC answers for a node's address
    TWO_ANSWERS = "two_answers"  # two replicas answered for one VIP with different MACs


@dataclass(frozen=True, slots=True)
class Notice:
    """``subject``: a connected subnet or an address. Texts: :mod:`porterlb.core.layer2.notices`."""

    kind: NoticeKind
    subject: str = ""
    nodes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Votes:
    """The findings of the replicas on one node on the segments of its InternalIPs, each by its own probes.

    ``voters``: replicas that can judge, because a third host answers them; never the node's own. ``silent``: voters
    that it does not answer. ``heard``: replicas that it answers, there or on another segment.
    """

    voters: frozenset[str] = frozenset()
    silent: frozenset[str] = frozenset()
    heard: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class WireReport:
    """The observations and the state of the wire process.

    ``dead``: nodes that are dead on the segments of their InternalIPs, possibly our own; ``dead_on``: the dead nodes by
    connected subnet (CIDR text); ``unheard``: the dead nodes that have never answered this wire process; ``votes``: on
    every node that a voter finds silent; ``alone``: more than half of the other replicas' nodes do not answer.
    ``probed``: nodes that have answered at least once or whose address is on one of our segments. ``fresh``: live
    replicas by node, without our own. ``answering``: VIPs whose answerer or next hop changed or, in a full report, all
    of them. ``claimed``: result of the duplicate address probe, foreign MAC by address; ``clear``: addresses that no
    host claimed. ``asked``: VIPs that a host has asked for in the last minute, as far as its question reached this node
    (a unicast question goes to the next hop only). ``askers``: for each VIP that is spread over nodes, the number of
    its known askers by the node that is their next hop. ``in_kernel``: if the kernel is to answer, the interfaces in
    use; empty text: it answers there, else the ``Refusal``.
    """

    nics: tuple[Nic, ...] = ()
    dead: frozenset[str] = frozenset()
    dead_on: Mapping[str, frozenset[str]] = field(default_factory=dict)
    unheard: frozenset[str] = frozenset()
    votes: Mapping[str, Votes] = field(default_factory=dict)
    alone: bool = False
    probed: frozenset[str] = frozenset()
    fresh: Mapping[str, FreshReplica] = field(default_factory=dict)
    doubt: bool = False
    answering: Mapping[Address, Answering] = field(default_factory=dict)
    conflicts: Mapping[Address, AddressConflict] = field(default_factory=dict)
    claimed: Mapping[Address, bytes] = field(default_factory=dict)
    clear: frozenset[Address] = frozenset()
    asked: frozenset[Address] = frozenset()
    askers: Mapping[Address, Mapping[str, int]] = field(default_factory=dict)
    gateways: tuple[Address, ...] = ()  # of the default routes; a link-local one with its interface
    routers: tuple[Address, ...] = ()  # heard by router advertisements, each with its interface; the best one first
    notices: tuple[Notice, ...] = ()
    applied: int = 0  # digest of the last desired set taken over
    in_kernel: Mapping[str, str] = field(default_factory=dict)
    counters: Mapping[str, int] = field(default_factory=dict)  # requests, answers, gratuitous, hellos ...
    trouble: str = ""  # a sentence while the wire process does not run or does not work
    restarts: int = 0

    def with_changes(self, report: WireReport) -> WireReport:
        """``report`` completed with the known state of other VIPs: its ``answering`` has the changed VIPs only."""
        answering = editing(self.answering)
        for address, who in report.answering.items():
            if answering.get(address) != who:
                answering[address] = who
        return replace(report, answering=answering.frozen())

    def is_urgent(self, before: WireReport) -> bool:
        """Whether to plan at once: a node died or returned, a replica came, or our doubt about ourselves began or
        ended."""
        return (
            (self.dead, self.dead_on) != (before.dead, before.dead_on)
            or bool(self.fresh.keys() - before.fresh.keys())
            or self.doubt != before.doubt
        )

    def lost_replica(self, before: WireReport) -> bool:
        """Whether a replica is no longer heard."""
        return bool(before.fresh.keys() - self.fresh.keys())

    def same_for_plan(self, other: WireReport) -> bool:
        """Whether a plan comes out the same: it depends on who is dead or in doubt, and on the sessions of replicas."""
        return self._for_plan() == other._for_plan()

    def _for_plan(self) -> tuple[object, ...]:
        replicas = {name: (said.sessions, said.negotiated, said.hold_downs) for name, said in self.fresh.items()}
        return self.dead, self.dead_on, self.probed, self.doubt, replicas

    def says_more_than(self, other: WireReport) -> bool:
        """Whether it differs from ``other`` in more than counters and questions of hosts: those change all the time,
        and no plan or status depends on them at once."""
        return self._without_questions() != other._without_questions()

    def _without_questions(self) -> WireReport:
        return replace(self, counters={}, asked=frozenset(), askers={})
