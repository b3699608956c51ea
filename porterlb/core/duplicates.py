"""Results of the duplicate address probe: verdicts are remembered, and checked again with exponential back-off.

Without this memory, an address that a Service requests by name would be probed, refused, no longer wanted, forgotten,
and probed again, forever. A host that claims many addresses answers for all of them (proxy ARP, proxy NDP).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

from porterlb.core.model import Address

FIRST = 30.0
"""Seconds until a claimed address is probed again; doubles each time."""
LONGEST = 3600.0
PROXY = 5
"""A host that claims this number of addresses is considered to answer for every address. A host with fewer may have
several addresses in the pool, or may be another load balancer that is being replaced."""
REMEMBERED = 1024
"""Maximum number of verdicts; the oldest are dropped first."""


@dataclass(frozen=True, slots=True)
class Duplicate:
    """``mac`` claims the address. ``times``: how often this was found; ``due``: when to probe again (monotonic s)."""

    mac: bytes
    times: int
    due: float


@dataclass(frozen=True, slots=True)
class Duplicates:
    """The addresses that foreign hosts claim."""

    found: Mapping[Address, Duplicate] = field(default_factory=dict)

    def heard(self, claimed: Mapping[Address, bytes], clear: Collection[Address], now: float) -> Duplicates:
        """The verdicts with a report of the probe. The report changes a remembered verdict only if that verdict was
        due."""
        fresh = dict(self.found)
        for address, mac in claimed.items():
            before = fresh.get(address)
            if before is None or before.due <= now:
                times = before.times + 1 if before else 1
                fresh.pop(address, None)
                fresh[address] = Duplicate(mac, times, now + min(FIRST * 2 ** (times - 1), LONGEST))
        for address in clear:
            before = fresh.get(address)
            if before is not None and before.due <= now:
                del fresh[address]
        for address in list(fresh)[: max(0, len(fresh) - REMEMBERED)]:
            del fresh[address]
        return self if fresh == self.found else Duplicates(fresh)

    @property
    def claimed(self) -> frozenset[Address]:
        return frozenset(self.found)

    @property
    def proxies(self) -> dict[str, frozenset[Address]]:
        """The hosts that answer for every address: by MAC, with the addresses that they claim."""
        by_mac: dict[bytes, set[Address]] = {}
        for address, verdict in self.found.items():
            by_mac.setdefault(verdict.mac, set()).add(address)
        return {mac.hex(":"): frozenset(them) for mac, them in sorted(by_mac.items()) if len(them) >= PROXY}

    def due(self, now: float) -> frozenset[Address]:
        """The addresses that must be probed again."""
        return frozenset(address for address, verdict in self.found.items() if verdict.due <= now)

    @property
    def next_at(self) -> float | None:
        """When the next verdict is due."""
        return min((verdict.due for verdict in self.found.values()), default=None)
