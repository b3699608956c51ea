"""Whether a node is dead on a segment: the rule, as one function of values.

A node X is judged on a segment S (an interface of ours and the subnets connected to it) by its **voters**: fresh
replicas other than X that a third party (a gateway, or a node other than X) answered on S. The answer of a third party
shows that the voter's own link works, so the silence is caused by X.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from porterlb.core.hello import SegmentState


class Place(NamedTuple):
    """A node on an interface of ours. Our own node is judged too."""

    node: str
    nic: int


class Vote(enum.Enum):
    """What one replica finds about X on S."""

    HEARD = "heard"  # X answered since the suspicion, or no replica suspects it
    SUSPECT = "suspect"  # two probes missed, or no answer yet since another replica suspected X
    SILENT = "silent"  # three probes missed and the burst unanswered, or never an answer within 6 s


class Hearing(enum.Enum):
    """Whether X has a replica whose hellos we receive."""

    NONE = "none"  # no replica runs on X
    STALE = "stale"
    FRESH = "fresh"


class Cause(enum.StrEnum):
    """Why a node is dead or alive on a segment."""

    ALIVE = "alive"
    HEARD = "heard"  # some find it silent; a voter has heard it since, or the voters have no majority
    CLAIMS_CONTACT = "claims_contact"  # the only voter finds it silent; its hello claims answers of third parties
    LINK_DOWN = "link_down"  # its own hello says so
    NO_CONTACT = "no_contact"  # its own hello says that no host answers it
    NOT_THERE = "not_there"  # its own hello names no interface on the segment
    SILENT = "silent"  # silent, and its hello is stale or it has no replica
    OUTVOTED = "outvoted"  # its hello is fresh; most voters find it silent
    NO_VOTER = "no_voter"  # no replica can judge: nothing changes


@dataclass(frozen=True, slots=True)
class Verdict:
    """``dead`` None: nothing changes."""

    dead: bool | None
    cause: Cause


ALIVE = Verdict(False, Cause.ALIVE)


@dataclass(frozen=True, slots=True)
class Evidence:
    """What we know about X on S.

    ``own``: our own finding; None if we have none (X is ourselves, or has never answered). ``votes``: the votes about
    X, by voter; ours is included if we are a voter. ``weak``: something was heard since X fell silent (a client's
    request; without a gateway to probe, a BGP session). Our own finding then counts as a vote if there are no voters
    and X's hello is not fresh. ``said``: what X's fresh hello says about S; None: nothing.
    """

    hearing: Hearing
    own: Vote | None = None
    votes: Mapping[str, Vote] = field(default_factory=dict)
    weak: bool = False
    said: SegmentState | None = None
    elsewhere: bool = False
    """X's fresh hello names segments, and S is not among them."""


@dataclass(frozen=True, slots=True)
class Judgement:
    """Which nodes are dead on which interface, and why. ``causes``: for every node that is not clearly alive.

    ``doubt``: we hear no other host, or have no interface towards any node: we are cut off, and nothing must change.
    ``differs``: interfaces on which our own probes disagree with at least two other voters.
    """

    dead: frozenset[Place] = frozenset()
    causes: Mapping[Place, Cause] = field(default_factory=dict)
    doubt: bool = False
    differs: frozenset[int] = frozenset()

    def on(self, nic: int) -> frozenset[str]:
        """The nodes that are dead on one interface."""
        return frozenset(place.node for place in self.dead if place.nic == nic)


def verdict(e: Evidence) -> Verdict:
    """Whether X is dead on S. Replicas with the same evidence reach the same verdict."""
    if e.hearing is Hearing.FRESH:
        if e.said is not None and not e.said.up:
            return Verdict(True, Cause.LINK_DOWN)
        if e.elsewhere:
            return Verdict(True, Cause.NOT_THERE)
        if e.said is not None and e.said.isolated and e.votes:
            return Verdict(True, Cause.NO_CONTACT)
    votes = dict(e.votes)
    if not votes and e.weak and e.own is not None and e.hearing is not Hearing.FRESH:
        votes = {"": e.own}
    if not votes:
        return ALIVE if e.own is Vote.HEARD else Verdict(None, Cause.NO_VOTER)
    silent = sum(vote is Vote.SILENT for vote in votes.values())
    if not silent:
        return ALIVE if e.own is not Vote.SILENT else Verdict(False, Cause.HEARD)
    if e.hearing is Hearing.STALE:
        heard = any(vote is Vote.HEARD for vote in votes.values())
        return Verdict(False, Cause.HEARD) if heard else Verdict(True, Cause.SILENT)
    if 2 * silent <= len(votes):
        return Verdict(False, Cause.HEARD)
    if e.hearing is Hearing.NONE:
        return Verdict(True, Cause.SILENT)
    if len(votes) == 1 and e.said is not None and any(contact not in votes for contact in e.said.contacts):
        return Verdict(False, Cause.CLAIMS_CONTACT)
    return Verdict(True, Cause.OUTVOTED)
