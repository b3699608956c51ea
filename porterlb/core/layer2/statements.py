"""What the fresh replicas say about our segments in their hellos, and the votes about a node that follow from it.

Times are monotonic seconds, as arguments.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from porterlb.core.hello import Hello, SegmentState
from porterlb.core.layer2.probes import Finding
from porterlb.core.layer2.verdict import Place, Vote
from porterlb.core.model import Network

STALE_ROUNDS = 3
"""Hello intervals after which the hello of a suspected node is stale. The hello that suspects the node asks it for an
immediate hello, so two regular hellos and that one are missing. Nodes that no replica suspects have more time."""

VOUCH_AFTER, VOUCH_FOR = 0.2, 2.0
"""Hello intervals. A voter that does not suspect a node vouches for it with a hello at least 0.2 intervals after our
suspicion (an earlier hello may have crossed ours). If the voter suspects the node later, its vouching still counts for
2 intervals, because the next answer usually ends the suspicion."""


@dataclass(slots=True)
class _Said:
    hello: Hello
    at: float
    states: dict[int, SegmentState] = field(default_factory=dict)  # by our interface
    vouched: dict[Place, float] = field(default_factory=dict)  # when it last said that it hears a node


class Statements:
    """The last hello of each fresh replica, matched to our interfaces.

    Args:
        interval: seconds between two hellos of a replica.
        fresh_for: seconds after which a silent replica is given up.
    """

    def __init__(self, interval: float, fresh_for: float) -> None:
        self._interval = interval
        self._stale_after = min(fresh_for, STALE_ROUNDS * interval)
        self._segments: Mapping[int, frozenset[Network]] = {}
        self._said: dict[str, _Said] = {}
        self._questioned: frozenset[Place] | None = None  # None: must be computed again

    # ---- events

    def set_segments(self, segments: Mapping[int, frozenset[Network]]) -> None:
        """Our segments: the subnets of each interface."""
        self._segments = segments
        for said in self._said.values():
            said.states = self._match(said.hello)
        self._questioned = None

    def take(self, hello: Hello, now: float, unwell: Iterable[Finding]) -> bool:
        """Replaces the statement of a replica. Returns whether it says anything new about segments.

        ``unwell``: the nodes that we suspect or find silent ourselves; the sender may vouch for them.
        """
        known = self._said.get(hello.node)
        if known is not None and known.hello.segments == hello.segments:
            known.hello, known.at = hello, now
            self._take_vouchers(known, unwell)
            return False
        said = self._said[hello.node] = _Said(hello, now, self._match(hello))
        if known is not None:
            said.vouched = known.vouched
        self._take_vouchers(said, unwell)
        self._questioned = None
        return True

    def left(self, node: str) -> None:
        """A replica is no longer fresh."""
        self._said.pop(node, None)
        self._questioned = None

    def _match(self, hello: Hello) -> dict[int, SegmentState]:
        """What a hello says about each of our segments; segments match if they share a subnet."""
        states: dict[int, SegmentState] = {}
        for state in hello.segments:
            for index, networks in self._segments.items():
                if networks.intersection(state.subnets) and (index not in states or not states[index].up):
                    states[index] = state
        return states

    def _take_vouchers(self, said: _Said, unwell: Iterable[Finding]) -> None:
        """Records which nodes that we suspect the sender does not suspect."""
        wait = VOUCH_AFTER * self._interval
        for found in unwell:
            node, nic = found.target.node, found.target.key.nic
            state = said.states.get(nic)
            if found.since is None or state is None or said.at < found.since + wait:
                continue
            if node not in state.suspect and node not in state.silent and state.votes_on(node):
                said.vouched[Place(node, nic)] = said.at

    # ---- current state

    def networks(self, nic: int) -> frozenset[Network]:
        """The subnets of an interface that make it a segment."""
        return self._segments.get(nic, frozenset())

    def on(self, node: str) -> Mapping[int, SegmentState]:
        """What the last hello of a fresh replica says about our segments, by interface."""
        said = self._said.get(node)
        return said.states if said is not None else {}

    def names_others_only(self, place: Place) -> bool:
        """Whether the hello of a node names segments, and this one is not among them."""
        said = self._said.get(place.node)
        return said is not None and bool(said.hello.segments) and place.nic not in said.states

    @property
    def latest(self) -> float:
        """When any replica last sent a hello; 0: never."""
        return max((said.at for said in self._said.values()), default=0.0)

    def stale_at(self, node: str) -> float | None:
        """When the hello of a suspected node becomes stale; None: the node has no fresh replica."""
        said = self._said.get(node)
        return said.at + self._stale_after if said is not None else None

    def revoked_at(self, place: Place) -> list[float]:
        """When the vouching of each replica for a node ends if that replica suspects the node itself."""
        lasts = VOUCH_FOR * self._interval
        return [said.vouched[place] + lasts for said in self._said.values() if place in said.vouched]

    @property
    def questioned(self) -> frozenset[Place]:
        """The nodes that hellos give a reason to judge."""
        if self._questioned is None:
            self._questioned = frozenset(self._find_questioned())
        return self._questioned

    def _find_questioned(self) -> set[Place]:
        places: set[Place] = set()
        for name, said in self._said.items():
            for nic, state in said.states.items():
                places.update(Place(node, nic) for node in state.silent)
                if not state.up or state.isolated:
                    places.add(Place(name, nic))
            if said.hello.segments:
                places.update(Place(name, nic) for nic in self._segments if nic not in said.states)
        return places

    def votes(self, place: Place, suspected: float | None, now: float, *, fresh: bool = False) -> dict[str, Vote]:
        """The votes of the other replicas about a node.

        Args:
            suspected: since when we suspect the node ourselves; None: we do not, and no statement is too old.
            fresh: leave out the votes of stale hellos.
        """
        votes: dict[str, Vote] = {}
        lasts = VOUCH_FOR * self._interval
        for name, said in self._said.items():
            state = said.states.get(place.nic)
            if name == place.node or state is None or not state.votes_on(place.node):
                continue
            if fresh and now >= said.at + self._stale_after:
                continue
            vouched = said.vouched.get(place, 0.0)
            if place.node in state.silent:
                votes[name] = Vote.SILENT
            elif suspected is None:
                votes[name] = Vote.SUSPECT if place.node in state.suspect else Vote.HEARD
            else:
                doubts = place.node in state.suspect
                vouches = vouched > suspected and (not doubts or now < vouched + lasts)
                votes[name] = Vote.HEARD if vouches else Vote.SUSPECT
        return votes
