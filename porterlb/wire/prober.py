"""Asks every node on our segments for its MAC, all the time: who does not answer is dead.

Unicast after the first answer, as the kernel's own re-checks are; the last probe before a verdict, and now and then
one to a dead node, goes to all, for a node may have come back with another MAC.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from ipaddress import ip_address

from porterlb.core.model import Address, Member
from porterlb.core.neighbour import BROADCAST
from porterlb.core.observed import Nic
from porterlb.wire import netlink
from porterlb.wire.liveness import GATEWAY, Key, Liveness, Target
from porterlb.wire.observer import Observer
from porterlb.wire.templates import Templates

_EAGER = 20  # probes that a target never heard of gets at full pace; then one in _EAGER


def source_for(nic: Nic, address: Address) -> Address | None:
    """Our own address on an interface in the subnet of ``address``, longest prefix first; None: not on-link."""
    fitting = [own for own in nic.addresses if own.version == address.version and address in own.network]
    fitting = [own for own in fitting if own.network.prefixlen < own.max_prefixlen]
    return max(fitting, key=lambda own: own.network.prefixlen).ip if fitting else None


def find_targets(
    own: str,
    nodes: Mapping[str, Iterable[Address]],
    members: Mapping[str, Member],
    nics: Iterable[Nic],
) -> list[Target]:
    """What to probe: for each node and interface one address. InternalIPs decide about life; where a node has none
    on an interface of ours, the addresses that its replica told are asked for their MAC only."""
    nics = list(nics)
    ours = {interface.ip for nic in nics for interface in nic.addresses}
    targets: dict[Key, Target] = {}
    for node, addresses in nodes.items():
        if node == own:
            continue
        told = members[node].subnets if node in members else ()
        for nic in nics:
            choices = [(address, True) for address in addresses] + [(interface.ip, False) for interface in told]
            for address, decides in choices:
                if address not in ours and not address.is_link_local and source_for(nic, address) is not None:
                    key = Key(nic.index, address.packed)
                    targets.setdefault(key, Target(node, key, decides, nic.up))
                    break
    for probe in ("192.0.2.1", "2001:db8::1"):  # documentation addresses: whatever has no better route
        index, gateway = netlink.route(ip_address(probe))
        nic_of = next((nic for nic in nics if nic.index == index), None)
        if gateway is not None and nic_of is not None and source_for(nic_of, gateway) is not None:
            key = Key(index, gateway.packed)
            targets.setdefault(key, Target(GATEWAY, key, False, nic_of.up))
    return list(targets.values())


class Prober:
    """Sends the probes of one tick."""

    def __init__(self, liveness: Liveness, limit: int, templates: Templates) -> None:
        self.liveness = liveness
        self._limit = limit
        self._templates = templates
        self._tick = 0
        self._frames: dict[tuple[Key, bytes], bytes] = {}

    def forget_frames(self) -> None:
        """After any change of interfaces or targets."""
        self._frames.clear()

    def send(self, observers: Mapping[int, tuple[Nic, Observer]]) -> int:
        """Probes every target whose interface is up; returns how many."""
        self._tick += 1
        sent = 0
        for place, target in enumerate(self.liveness.targets.values()):
            if not target.up or target.key.nic not in observers:
                continue
            now_and_then = (self._tick + place) % _EAGER == 0
            if not target.mac and target.misses >= _EAGER and not now_and_then:
                continue
            nic, observer = observers[target.key.nic]
            last_chance = target.misses == self._limit - 1
            to_all = not target.mac or last_chance or (target.misses >= self._limit and now_and_then)
            frame = self._frame(nic, target.key, BROADCAST if to_all else target.mac)
            if frame and observer.send(frame):
                sent += 1
                target.misses += 1
        return sent

    def _frame(self, nic: Nic, key: Key, mac: bytes) -> bytes:
        frame = self._frames.get((key, mac))
        if frame is None:
            address = ip_address(key.address)
            source = source_for(nic, address)
            if source is None:
                return b""
            if address.version == 4:
                frame = self._templates.arp.request(nic.mac, mac, nic.mac, source.packed, key.address)
            else:
                to = b"" if mac == BROADCAST else mac
                frame = self._templates.neighbour.solicitation(nic.mac, source.packed, key.address, to)
            self._frames[key, mac] = frame
        return frame
