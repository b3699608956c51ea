"""An inquiry: asks the segment, as a host would, who answers for some VIPs. The result is only shown to operators.

No decision depends on an inquiry: it is not an event of `Layer2`. Times: monotonic seconds, as arguments.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from porterlb.core.model import Address

MOST = 64
"""Maximum VIPs of one inquiry."""
GAP = 0.002
"""Seconds between the questions for two VIPs: 500 questions/s."""
REPEAT = 0.3
"""Seconds after which an unanswered question is sent once more: a frame may be lost."""
LISTEN = 0.9
"""Seconds from the first question for the last VIP to the end. Linux delays the answers of proxy ARP by up to 0.8 s
(proxy_delay)."""
MOST_ANSWERS = 8
"""Maximum MACs kept for one VIP: a host that forges answers must not fill the memory."""


class NotAsked(enum.Enum):
    """Why a replica cannot ask for a VIP."""

    NOT_LAYER2 = "notLayer2"
    """Layer 2 of this replica does not know the VIP: BGP only, or not planned."""
    NO_INTERFACE = "noInterface"
    """None of its usable interfaces leads to the segment of the VIP."""
    NOT_SENT = "notSent"
    """The kernel accepted no question."""


class Answer(NamedTuple):
    """``mac``: six bytes. ``node``: the node with this MAC; empty: a foreign host. ``after``: seconds from the first
    question."""

    mac: bytes
    node: str
    after: float


class Outcome(NamedTuple):
    """The result for one VIP. ``interface``: its name; ``answers``: one for each MAC, the earliest first."""

    address: str
    interface: str = ""
    obstacle: NotAsked | None = None
    answers: tuple[Answer, ...] = ()


class _Question:
    """``sent``: when it was first sent; ``again``: whether to repeat it; ``macs``: when each MAC first answered."""

    __slots__ = ("again", "due", "macs", "nic", "sent")

    def __init__(self, nic: int, due: float) -> None:
        self.nic = nic
        self.due: float | None = due
        self.again = True
        self.sent: float | None = None
        self.macs: dict[bytes, float] = {}


class Inquiry:
    """Call `due` at `next_at`, report `sent` and `heard`, and read `outcomes` when it is `over`.

    Args:
        places: for each VIP the index of the interface to ask on, or why it cannot be asked for.
    """

    def __init__(self, places: Mapping[Address, int | NotAsked], now: float) -> None:
        self._places = dict(places)
        asked = [(address, nic) for address, nic in self._places.items() if not isinstance(nic, NotAsked)]
        self._questions = {address: _Question(nic, now + number * GAP) for number, (address, nic) in enumerate(asked)}
        self._by_packed = {address.packed: question for address, question in self._questions.items()}
        self._ends = now + (len(asked) - 1) * GAP + LISTEN if asked else now

    @property
    def next_at(self) -> float:
        """When `due` has something to do, or when the inquiry is over."""
        return min([self._ends, *(of.due for of in self._questions.values() if of.due is not None)])

    def over(self, now: float) -> bool:
        return now >= self._ends

    def due(self, now: float) -> list[tuple[int, Address]]:
        """The questions to send now: interface and VIP."""
        found = []
        for address, of in self._questions.items():
            if of.due is None or now < of.due:
                continue
            if not of.macs:
                found.append((of.nic, address))
            of.due, of.again = (of.due + REPEAT, False) if of.again else (None, False)
        return found

    def sent(self, address: Address, now: float) -> None:
        """A question was sent."""
        question = self._questions[address]
        question.sent = now if question.sent is None else question.sent

    def heard(self, nic: int, address: bytes, mac: bytes, now: float) -> None:
        """An ARP reply or an advertisement says that the packed ``address`` is at ``mac``."""
        of = self._by_packed.get(address)
        if of is not None and of.nic == nic and of.sent is not None and len(of.macs) < MOST_ANSWERS:
            of.macs.setdefault(mac, now)

    def outcomes(self, name: Callable[[int], str], node: Callable[[bytes, int], str]) -> list[Outcome]:
        """The results, in the order of the VIPs.

        Args:
            name: returns the name of an interface.
            node: returns the node with a MAC on an interface; empty if no node has it.
        """
        return [self._outcome(address, name, node) for address in self._places]

    def _outcome(self, address: Address, name: Callable[[int], str], node: Callable[[bytes, int], str]) -> Outcome:
        of = self._questions.get(address)
        if of is None:
            place = self._places[address]
            return Outcome(str(address), obstacle=place if isinstance(place, NotAsked) else None)
        if of.sent is None:
            return Outcome(str(address), name(of.nic), NotAsked.NOT_SENT)
        at = of.sent
        answers = (Answer(mac, node(mac, of.nic), max(0.0, when - at)) for mac, when in of.macs.items())
        return Outcome(str(address), name(of.nic), None, tuple(answers))


def written(outcome: Outcome) -> dict[str, Any]:
    """As JSON: the obstacle is empty if there is none, times are in milliseconds."""
    return {
        "address": outcome.address,
        "interface": outcome.interface,
        "obstacle": outcome.obstacle.value if outcome.obstacle else "",
        "answers": [
            {"mac": answer.mac.hex(":"), "node": answer.node, "after": round(answer.after * 1000, 1)}
            for answer in outcome.answers
        ],
    }


def read(row: Mapping[str, Any]) -> Outcome:
    """The outcome from the form of `written`. Raises KeyError, TypeError or ValueError for any other input."""
    rows: Sequence[Mapping[str, Any]] = row["answers"]
    answers = tuple(
        Answer(bytes.fromhex(one["mac"].replace(":", "")), str(one["node"]), float(one["after"]) / 1000) for one in rows
    )
    obstacle = NotAsked(row["obstacle"]) if row["obstacle"] else None
    return Outcome(str(row["address"]), str(row["interface"]), obstacle, answers)
