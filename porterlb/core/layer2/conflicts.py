"""Address conflicts: foreign hosts that claim our VIPs (RFC 5227 2.4)."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from ipaddress import ip_address

from porterlb.core.model import Address
from porterlb.core.observed import AddressConflict

CONFIRM = 0.3  # seconds; by then a node that returned with another MAC has answered a probe and is known
DEFEND_EVERY = 10.0  # seconds; RFC 5227 2.4 (c)
FORGET = 60.0  # seconds
MOST = 1000  # a host that claims everything must not fill our memory


@dataclass(frozen=True, slots=True)
class Review:
    """``changed``: the set of confirmed conflicts changed. ``defend``: the VIPs to defend now."""

    changed: bool
    defend: tuple[bytes, ...]


class Conflicts:
    """Times: monotonic seconds, as arguments."""

    def __init__(self) -> None:
        self._claims: dict[bytes, tuple[bytes, float, float]] = {}  # address: MAC, first, last seen
        self._defended: dict[bytes, float] = {}
        self.found: dict[Address, AddressConflict] = {}

    def claim(self, address: bytes, mac: bytes, now: float) -> None:
        """A MAC of no known node claims a VIP."""
        old = self._claims.get(address)
        if old is not None and old[0] == mac:
            self._claims[address] = (mac, old[1], now)
        elif old is not None or len(self._claims) < MOST:
            self._claims[address] = (mac, now, now)

    def review(self, now: float, known: Collection[bytes]) -> Review:
        """Confirms and expires claims. ``known``: MACs of nodes, which are never in conflict."""
        found: dict[Address, AddressConflict] = {}
        defend = []
        for address, (mac, first, last) in list(self._claims.items()):
            if mac in known or now - last > FORGET:
                self.forget(address)
                continue
            if now - first < CONFIRM:
                continue
            key = ip_address(address)
            found[key] = AddressConflict(key, mac, last)
            defended = self._defended.get(address, -DEFEND_EVERY)
            if last > defended and now - defended >= DEFEND_EVERY:
                defend.append(address)
        changed = found != self.found
        self.found = found
        return Review(changed, tuple(defend))

    def defended(self, address: bytes, now: float) -> None:
        """A defending announcement was sent."""
        if address in self._claims:
            self._defended[address] = now

    def forget(self, address: bytes) -> None:
        """``address`` is no longer one of our VIPs."""
        self._claims.pop(address, None)
        self._defended.pop(address, None)
