"""Two replicas that answer for one VIP with different MACs: detected, verified, and resolved by a fixed order.

At every failover the replicas' views of the live nodes differ briefly. If another node's MAC claims a VIP and we still
answer after CONFIRM seconds, we verify the claim with a question for the VIP. If the other replica answers it, the
rendezvous rank of the two nodes decides, with the same result on both sides: one replica stops answering, the other one
announces. The silent replica asks again once a second, and answers again when no replica does. Times: monotonic
seconds, as arguments.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from porterlb.core.rendezvous import ranked

CONFIRM = 0.3  # seconds; a failover is over by then
ASK_AGAIN = 1.0  # seconds
PATIENCE = 0.4  # seconds to wait for an answer: it takes less than a millisecond on a working segment
MOST = 1000  # VIPs; further ones are not verified until there is room


@dataclass(slots=True)
class _Claim:
    node: str
    since: float
    asked: float | None = None
    answered: float | None = None  # not None: confirmed
    yields: bool = False


@dataclass(frozen=True, slots=True)
class Settlement:
    """``ask``: VIPs to send a question for. ``silence``: VIPs to stop answering, with the node that answers them.
    ``resume``: VIPs to answer again."""

    ask: tuple[bytes, ...] = ()
    silence: tuple[tuple[bytes, str], ...] = ()
    resume: tuple[bytes, ...] = ()


class DoubleAnswers:
    def __init__(self) -> None:
        self._claims: dict[bytes, _Claim] = {}

    def claim(self, address: bytes, node: str, now: float) -> None:
        """A VIP that we answer was announced, or our question for it was answered, with the MAC of another ``node``."""
        found = self._claims.get(address)
        if found is None or found.node != node:
            if found is None and len(self._claims) >= MOST:
                return
            # If we yielded, we still yield, and resume when no replica answers: only the other node changed.
            found = self._claims[address] = _Claim(node, now, yields=found is not None and found.yields)
        if found.asked is not None and now >= found.asked:
            found.answered = now

    def forget(self, address: bytes) -> None:
        """``address`` is no longer a VIP."""
        self._claims.pop(address, None)

    @property
    def confirmed(self) -> dict[bytes, str]:
        """VIPs that two replicas answer, with the other node."""
        return {address: found.node for address, found in self._claims.items() if found.answered is not None}

    @property
    def next_at(self) -> float | None:
        """When `review` is due, unless an answer arrives earlier."""
        return min(map(_due, self._claims.values()), default=None) if self._claims else None

    def review(self, now: float, ours: Callable[[bytes], tuple[str, str]]) -> Settlement:
        """What is due. ``ours``: the text of a VIP, and the node with whose MAC we answer for it (empty: we do not)."""
        ask: list[bytes] = []
        silence: list[tuple[bytes, str]] = []
        resume: list[bytes] = []
        for address, found in list(self._claims.items()):
            text, node = ours(address)
            if not node and not found.yields:
                del self._claims[address]  # the failover has completed
            elif found.asked is None:
                if now >= _due(found):
                    found.asked = now
                    ask.append(address)
            elif found.answered is None or found.answered < found.asked:
                if now >= _due(found):  # only one answers
                    if found.yields:
                        resume.append(address)
                    del self._claims[address]
            else:
                if not found.yields and node and ranked(text, [node, found.node])[0] != node:
                    found.yields = True
                    silence.append((address, found.node))
                if now >= _due(found):
                    found.asked = now
                    ask.append(address)
        return Settlement(tuple(ask), tuple(silence), tuple(resume))


def _due(found: _Claim) -> float:
    if found.asked is None:
        return found.since + CONFIRM
    answered = found.answered is not None and found.answered >= found.asked
    return found.asked + (ASK_AGAIN if answered else PATIENCE)
