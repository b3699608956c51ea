"""Duplicate address detection before first use (RFC 5227 2.1, RFC 4862 5.4, shortened): 3 probes in 200 ms."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Collection
from dataclasses import dataclass

from porterlb.core.layer2.bucket import TokenBucket
from porterlb.core.model import Address

PROBES = 3
APART = 0.065  # seconds
VERDICT = 0.07  # seconds after the last probe
_PAUSE = 0.005  # seconds until the bucket is checked again


@dataclass(frozen=True, slots=True)
class DadStep:
    """``probes``: addresses to probe now. ``decided``: there is a new verdict."""

    probes: tuple[Address, ...]
    decided: bool


class DuplicateDetection:
    """Paces the probes, and keeps the verdicts of the addresses that are still wanted.

    ``claimed``: the MAC that claims an address. ``clear``: addresses that no host claims.
    """

    def __init__(self, rate: int, now: float) -> None:
        self._bucket = TokenBucket(float(rate), max(30.0, rate / 10), now)
        self._due: list[tuple[float, int, int, Address]] = []  # heap: when, probes sent, order, address
        self._asked: dict[bytes, Address] = {}
        self._blocked_until: float | None = None
        self.claimed: dict[Address, bytes] = {}
        self.clear: set[Address] = set()

    @property
    def next_at(self) -> float | None:
        """When `due` has something to do."""
        if not self._due:
            return None
        at = self._due[0][0]
        return at if self._blocked_until is None else max(at, self._blocked_until)

    def want(self, addresses: Collection[Address], now: float) -> None:
        """Takes the whole set of addresses to check. Verdicts on other addresses are dropped; running checks go on."""
        wanted = {address.packed: address for address in addresses}
        for packed in [p for p in self._asked if p not in wanted]:
            address = self._asked.pop(packed)
            self.claimed.pop(address, None)
            self.clear.discard(address)
        for packed, address in wanted.items():
            if packed not in self._asked:
                self._asked[packed] = address
                heapq.heappush(self._due, (now, 0, int(address), address))

    def heard(self, address: bytes, mac: bytes) -> bool:
        """A host says that ``address`` is at ``mac``. Returns whether that is a new verdict."""
        asked = self._asked.get(address)
        if asked is None or asked in self.clear or asked in self.claimed:
            return False
        self.claimed[asked] = mac
        return True

    def due(self, now: float, on_link: Callable[[Address], bool]) -> DadStep:
        """What to do now. ``on_link``: whether an address is on a segment of ours; others are clear without probes."""
        self._blocked_until = None
        probes = []
        decided = False
        while self._due and self._due[0][0] <= now:
            if not self._bucket.has(now):
                self._blocked_until = now + _PAUSE
                break
            _, sent, order, address = heapq.heappop(self._due)
            if self._asked.get(address.packed) is None or address in self.claimed or address in self.clear:
                continue
            if sent < PROBES and on_link(address):
                self._bucket.take()
                probes.append(address)
                wait = APART if sent + 1 < PROBES else VERDICT
                heapq.heappush(self._due, (now + wait, sent + 1, order, address))
            else:
                self.clear.add(address)
                decided = True
        return DadStep(tuple(probes), decided)
