"""Two managers with one node name: both detect it by their membership Lease, and the younger one exits.

Each start of a manager has a random ``instance``, and the Lease names the instance that owns it. A manager that starts
writes its instance into the Lease as a challenge, and sends nothing to other hosts before the challenge is decided. A
live owner answers at once by writing its Lease again. A dead owner does not answer, and after `ANSWER_WITHIN` the Lease
is taken over. A manager exits when another one has taken over its Lease. The wall clock is not used.
"""

from __future__ import annotations

import enum
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

ANNOTATION = "porter.kubesphere.io/instance"
ANSWER_WITHIN = 0.5
"""Seconds for the owner's answer: a watch event and a write take about 20 ms in a healthy cluster."""
TOLD_FOR = 600.0
"""Seconds for which a challenge is reported: kubelet restarts a container that keeps exiting at least every 5
minutes."""


@dataclass(frozen=True, slots=True)
class Claim:
    """The ownership data of a membership Lease. ``challenger``: the instance of a manager that starts; ``answered``:
    the last challenger that the owner has answered. Empty texts: none."""

    owner: str = ""
    challenger: str = ""
    answered: str = ""


class ClaimStep(enum.StrEnum):
    WAIT = "wait"  # until the owner answers or the time is over
    CHALLENGE = "challenge"  # write our challenge, then wait
    TAKE = "take"  # write the Lease as its owner
    ANSWER = "answer"  # another manager with our name starts: write the Lease again, with an answer
    KEEP = "keep"  # it is ours
    END = "end"  # another manager with our name is alive, and was first


def starting(claim: Claim, me: str, challenged: bool, waited: float) -> ClaimStep:
    """The next step of a manager that does not own the Lease yet.

    Args:
        claim: the present content of the Lease.
        me: our instance.
        challenged: whether we have written our challenge.
        waited: seconds since then.
    """
    if claim.owner in ("", me):
        return ClaimStep.TAKE
    if not challenged:
        return ClaimStep.CHALLENGE
    if claim.answered == me:
        return ClaimStep.END
    if claim.challenger != me:
        return ClaimStep.END  # a third manager has started after us, or owns the Lease by now
    return ClaimStep.TAKE if waited >= ANSWER_WITHIN else ClaimStep.WAIT


def owning(claim: Claim, me: str, newer: bool) -> ClaimStep:
    """The reaction of the owner of the Lease to its present content.

    Args:
        newer: whether the boot number there is above ours. A lower or equal one comes from a backup, not from a
        take-over.
    """
    if claim.owner != me:
        return ClaimStep.END if claim.owner and newer else ClaimStep.TAKE
    if claim.challenger and claim.challenger not in (me, claim.answered):
        return ClaimStep.ANSWER
    return ClaimStep.KEEP


def written(claim: Claim) -> dict[str, str]:
    """The annotation of the Lease."""
    content = {"owner": claim.owner, "challenger": claim.challenger, "answered": claim.answered}
    return {ANNOTATION: json.dumps({name: text for name, text in content.items() if text}, sort_keys=True)}


def read(carried: Mapping[str, Any]) -> Claim:
    """The ownership data in the annotations of a Lease. Others write them, so invalid values are treated as absent."""
    try:
        content = json.loads(carried[ANNOTATION])
    except (KeyError, TypeError, ValueError, RecursionError):
        return Claim()
    if not isinstance(content, dict):
        return Claim()
    texts = [content.get(name, "") for name in ("owner", "challenger", "answered")]
    return Claim(*(text if isinstance(text, str) else "" for text in texts))
