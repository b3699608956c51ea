"""What the two speakers report: what they applied and what they see. Plain values; times in monotonic seconds."""

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

    ``since``: when it came into this state. ``loss``: why it was lost last; kept until the next loss. ``losses``: how
    often it was lost since the start. ``attempt``: why the last attempt failed, since it was up last. ``negotiated``:
    when it was established last. ``refusal``: why the peer is kept out of ExaBGP. ``limit``: why the peer cannot open
    the session, where it was to be able to. ``bfd``: of the BFD session with the same router, where there is to be one.
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
    """What ExaBGP has. ``applied``: the token of the last desired set whose every command was acknowledged.

    ``rejected``: routes that ExaBGP refused or that spec.maxPrefixesSent withholds, with the reason in words.
    ``withheld``: how many prefixes it withholds, by peer name. ``trouble``: while ExaBGP does not do what it is to do.
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
        """Whether a plan comes out the same: it depends on which sessions are up, and on what they negotiated."""
        return self._sessions() == other._sessions()

    def _sessions(self) -> Mapping[str, tuple[bool, Negotiated | None]]:
        return {peer: (session.up, session.negotiated) for peer, session in self.sessions.items()}

    def is_urgent(self, before: BgpReport) -> bool:
        """Whether to plan at once, without waiting for other changes: a session was lost, or one came up.

        Until it is planned for what a new session negotiated, the router may have the wrong routes, and waits for
        End-of-RIB.
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
    inner: bool = False  # a bridge or the like that only connects what runs on this node: cni0, docker0, virbr0


@dataclass(frozen=True, slots=True)
class FreshReplica:
    """What the last hello of a live replica said."""

    node: str
    boot: int
    sessions: frozenset[str] = frozenset()  # established, by peer name
    leader: str = ""  # whom it holds for the leader
    dead: frozenset[str] = frozenset()
    digest: int = 0
    applied: int = 0
    hold_downs: frozenset[str] = frozenset()  # its hold-down states, as its hello says them
    negotiated: Mapping[str, str] = field(default_factory=dict)  # what its sessions negotiated, by peer name


@dataclass(frozen=True, slots=True)
class Answering:
    """Who serves a VIP on the segment now. ``answerer`` empty: nobody that we know of."""

    next_hop: str
    answerer: str


@dataclass(frozen=True, slots=True)
class AddressConflict:
    """A foreign host that claims a VIP. ``mac``: six bytes. ``seen``: when last."""

    address: Address
    mac: bytes
    seen: float


class NoticeKind(enum.StrEnum):
    """What a person should know of a segment or of another replica."""

    NO_VOTER = "no_voter"  # nodes are silent, and nobody can tell whose link is at fault
    LINK_DOWN = "link_down"
    NO_CONTACT = "no_contact"  # nodes reach nobody on a segment
    NOT_THERE = "not_there"
    OUTVOTED = "outvoted"  # most voters find nodes silent whose hellos arrive
    DIFFERS = "differs"  # our own probes contradict two others
    HELLOS_MISSING = "hellos_missing"
    WRONG_KEY = "wrong_key"
    OLD_BOOT = "old_boot"
    OTHER_VERSION = "other_version"
    OWN_NAME = "own_name"
    CONTESTED = "contested"  # a foreign MAC answers for a node's address
    TWO_ANSWERS = "two_answers"  # two replicas answered for one VIP with different MACs


@dataclass(frozen=True, slots=True)
class Notice:
    """``subject``: a connected subnet or an address. In words: :mod:`porterlb.core.layer2.notices`."""

    kind: NoticeKind
    subject: str = ""
    nodes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Votes:
    """What the replicas find of one node on the segments of its InternalIPs, each by its own probes.

    ``voters``: those that can tell, for a third party answers them; never the node's own. ``silent``: voters that it
    does not answer. ``heard``: replicas that it answers, there or on another segment.
    """

    voters: frozenset[str] = frozenset()
    silent: frozenset[str] = frozenset()
    heard: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class WireReport:
    """What the wire process sees and does.

    ``dead``: nodes that are dead on the segments of their InternalIPs, perhaps our own; ``dead_on``: the dead by
    connected subnet (CIDR text); ``votes``: on every node that a voter finds silent; ``alone``: more
    than half of the other replicas' nodes do not answer. ``probed``: nodes that have
    answered at least once or whose address is on a segment of ours. ``fresh``: live replicas by node, without our
    own. ``answering``: VIPs whose answerer or next hop changed or, in a full report, all of them. ``claimed``: result
    of the duplicate address probe, foreign MAC by address; ``clear``: addresses that nobody claimed.
    ``asked``: VIPs that a host has asked for in the last minute, as far as its question came to this node (a question
    by unicast goes to the next hop only). ``askers``: of each VIP that is spread, the number of its known askers by the
    node that is their next hop.
    """

    nics: tuple[Nic, ...] = ()
    dead: frozenset[str] = frozenset()
    dead_on: Mapping[str, frozenset[str]] = field(default_factory=dict)
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
    gateways: tuple[Address, ...] = ()  # of the default routes
    notices: tuple[Notice, ...] = ()
    applied: int = 0  # digest of the last wanted set taken over
    counters: Mapping[str, int] = field(default_factory=dict)  # requests, answers, gratuitous, hellos ...
    trouble: str = ""  # a sentence while the wire process does not run, or cannot do its work
    restarts: int = 0

    def with_changes(self, report: WireReport) -> WireReport:
        """``report``, of which ``answering`` has the changed VIPs only, with what is known of the others."""
        answering = editing(self.answering)
        for address, who in report.answering.items():
            if answering.get(address) != who:
                answering[address] = who
        return replace(report, answering=answering.frozen())

    def is_urgent(self, before: WireReport) -> bool:
        """Whether to plan at once: a node went or came, a replica came, or we began or ceased to doubt ourselves."""
        return (
            (self.dead, self.dead_on) != (before.dead, before.dead_on)
            or bool(self.fresh.keys() - before.fresh.keys())
            or self.doubt != before.doubt
        )

    def lost_replica(self, before: WireReport) -> bool:
        """Whether a replica is not heard any more."""
        return bool(before.fresh.keys() - self.fresh.keys())

    def same_for_plan(self, other: WireReport) -> bool:
        """Whether a plan comes out the same: it depends on who is dead or in doubt, and on the sessions of replicas."""
        return self._for_plan() == other._for_plan()

    def _for_plan(self) -> tuple[object, ...]:
        replicas = {name: (said.sessions, said.negotiated, said.hold_downs) for name, said in self.fresh.items()}
        return self.dead, self.dead_on, self.probed, self.doubt, replicas

    def says_more_than(self, other: WireReport) -> bool:
        """Whether it differs from ``other`` in more than counters and in what hosts have asked for: those change all
        the time, and no plan or status waits for them."""
        return self._without_questions() != other._without_questions()

    def _without_questions(self) -> WireReport:
        return replace(self, counters={}, asked=frozenset(), askers={})
