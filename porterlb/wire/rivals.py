"""Foreign hosts that claim our VIPs."""

from __future__ import annotations

from collections.abc import Callable, Collection
from ipaddress import ip_address

from porterlb.core.model import Address
from porterlb.core.observed import Rival

CONFIRM = 0.3  # a node that came back with another MAC is known to the prober by then
DEFEND_EVERY = 10.0  # RFC 5227 2.4 (c)
FORGET = 60.0
_MOST = 1000  # a host that claims everything must not fill our memory


class Rivals:
    """Times: monotonic seconds, as arguments."""

    def __init__(self) -> None:
        self._suspects: dict[bytes, tuple[bytes, float, float]] = {}  # address: MAC, first, last seen
        self._defended: dict[bytes, float] = {}
        self.found: dict[Address, Rival] = {}

    def claim(self, address: bytes, mac: bytes, now: float) -> None:
        """A MAC that is no known node's claims a VIP."""
        old = self._suspects.get(address)
        if old is not None and old[0] == mac:
            self._suspects[address] = (mac, old[1], now)
        elif len(self._suspects) < _MOST:
            self._suspects[address] = (mac, now, now)

    def review(self, now: float, known: Collection[bytes], defend: Callable[[bytes], bool]) -> bool:
        """Confirms suspects, defends against those heard since the last defence; whether ``found`` has changed."""
        found: dict[Address, Rival] = {}
        for address, (mac, first, last) in list(self._suspects.items()):
            if mac in known or now - last > FORGET:
                del self._suspects[address]
                self._defended.pop(address, None)
                continue
            if now - first < CONFIRM:
                continue
            key = ip_address(address)
            found[key] = Rival(key, mac, last)
            defended = self._defended.get(address, -DEFEND_EVERY)
            if last > defended and now - defended >= DEFEND_EVERY and defend(address):
                self._defended[address] = now
        changed = found != self.found
        self.found = found
        return changed

    def forget(self, address: bytes) -> None:
        """No VIP of ours any longer."""
        self._suspects.pop(address, None)
        self._defended.pop(address, None)
