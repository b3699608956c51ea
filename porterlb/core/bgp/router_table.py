"""The routers on a link, by their advertisements (RFC 4861): which there are, and which one a session is opened with.

Routers that are no default routers count only while there is no other. A router that is in use stays in use while it is
valid. Otherwise the one with the highest preference (RFC 4191) counts, then the one with the lowest address.

The node advertises itself, too, as no default router: FRR finds the neighbor of an interface by that. Time is an
argument, in monotonic seconds.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from ipaddress import IPv6Address
from typing import NamedTuple

from porterlb.core.model import Address
from porterlb.core.scope import scoped

SOLICITATION = bytes.fromhex("8500000000000000")
"""A router solicitation (RFC 4861, 4.1); the kernel fills in the checksum."""
ADVERTISEMENT = 134
"""Its ICMPv6 type."""
OWN_ADVERTISEMENT = bytes([ADVERTISEMENT]) + bytes(15)
"""Ours (RFC 4861, 4.2): router lifetime 0, nothing else specified."""
ALL_ROUTERS, ALL_NODES = "ff02::2", "ff02::1"
HOP_LIMIT = 255
"""Of every message: a lower one was forwarded by a router (RFC 4861, 6.1)."""
_HEADER = 16
"""Bytes of an advertisement before its options."""

NOT_A_DEFAULT_ROUTER = 1800.0
"""Seconds for which an advertisement with router lifetime 0 is valid if the router never had another lifetime: it is no
default router, but it is there. AdvDefaultLifetime with the default interval (RFC 4861, 6.2.1)."""
CEASED = 60.0
"""Seconds for which lifetime 0 of a router that had another one means that it ceases (RFC 4861, 6.2.5): it repeats this
up to three times, 16 s apart."""
CONFIRMED = 30.0
"""Seconds in which a router must advertise again after the interface was without carrier."""
FIRST_INTERVAL, LONGEST_INTERVAL = 4.0, 60.0
"""Seconds between two solicitations while no router is known: doubled each time, so that a lost packet does no harm
(RFC 7559, but not as slow)."""
ADVERTISE_INTERVAL, ADVERTISE_DELAY = 10.0, 3.0
"""Seconds between two of our advertisements, and at least (MIN_DELAY_BETWEEN_RAS); FRR sends one in 10 s, too."""
MOST = 16
"""Routers on one link that are kept: more are a mistake, or an attack."""


class Advertised(NamedTuple):
    """``lifetime``: seconds, as a default router. ``preference``: 1, 0 or -1 (RFC 4191)."""

    address: IPv6Address
    lifetime: int
    preference: int = 0


def parse_advertisement(data: bytes, source: IPv6Address, hop_limit: int) -> Advertised | None:
    """A valid router advertisement (RFC 4861, 6.1.2), else None. ``data``: the ICMPv6 message; the kernel has checked
    its checksum."""
    if len(data) < _HEADER or data[0] != ADVERTISEMENT or data[1] != 0:
        return None
    if hop_limit != HOP_LIMIT or not source.is_link_local:
        return None
    at = _HEADER
    while at < len(data):
        length = 8 * data[at + 1] if at + 2 <= len(data) else 0
        if not length or at + length > len(data):
            return None
        at += length
    preference = {1: 1, 3: -1}.get(data[5] >> 3 & 3, 0)
    return Advertised(IPv6Address(int(source)), int.from_bytes(data[6:8], "big"), preference)


@dataclass(slots=True)
class _Router:
    preference: int
    until: float
    default: bool  # it has had a lifetime as a default router
    ceased: bool = False  # ``until`` is then the end of its last advertisements


@dataclass(slots=True)
class _Link:
    routers: dict[IPv6Address, _Router] = field(default_factory=dict)
    used: IPv6Address | None = None
    solicit_at: float = math.inf
    interval: float = FIRST_INTERVAL
    advertise_at: float = 0.0
    advertised_at: float = -math.inf


def _valid(link: _Link) -> dict[IPv6Address, _Router]:
    found = {address: router for address, router in link.routers.items() if not router.ceased}
    default = {address: router for address, router in found.items() if router.default}
    return default or found


@dataclass(slots=True)
class RouterTable:
    """The links to listen on, by interface."""

    _links: dict[str, _Link] = field(default_factory=dict)

    def want(self, interfaces: Iterable[str], now: float) -> None:
        """Listens on these interfaces. A new one is asked at once; the routers of others are forgotten."""
        self._links = {name: self._links.get(name) or _Link(solicit_at=now, advertise_at=now) for name in interfaces}

    def returned(self, interface: str, now: float) -> None:
        """The interface has a carrier again. Another router may be on the link: the known ones must advertise again."""
        link = self._links.get(interface)
        if link is not None:
            link.solicit_at, link.interval = now, FIRST_INTERVAL
            link.advertise_at = now
            for router in link.routers.values():
                router.until = min(router.until, now + CONFIRMED)

    def heard(self, interface: str, said: Advertised, now: float) -> None:
        """Takes an advertisement. Those of other interfaces are ignored."""
        link = self._links.get(interface)
        if link is None:
            return
        known = link.routers.get(said.address)
        if known is None and len(link.routers) >= MOST:
            return
        if known is None:  # it may have started a moment ago, and know nothing of us
            link.advertise_at = min(link.advertise_at, max(now, link.advertised_at + ADVERTISE_DELAY))
        default = said.lifetime > 0
        if not default and known is not None and known.default:
            if not known.ceased:
                link.routers[said.address] = _Router(said.preference, now + CEASED, default=True, ceased=True)
        else:
            lifetime = said.lifetime if default else NOT_A_DEFAULT_ROUTER
            link.routers[said.address] = _Router(said.preference, now + lifetime, default)
            link.solicit_at, link.interval = math.inf, FIRST_INTERVAL
        self._choose(link)

    def step(self, now: float) -> tuple[list[str], list[str]]:
        """Forgets routers whose advertisement has expired. Returns the interfaces on which to solicit and to advertise
        now."""
        due, advertise = [], []
        for name, link in self._links.items():
            link.routers = {address: router for address, router in link.routers.items() if router.until > now}
            self._choose(link)
            if link.used is None and link.solicit_at == math.inf:
                link.solicit_at = now + FIRST_INTERVAL
            if link.solicit_at <= now:
                due.append(name)
                link.solicit_at = now + link.interval
                link.interval = min(2 * link.interval, LONGEST_INTERVAL)
            if link.advertise_at <= now:
                advertise.append(name)
                link.advertised_at, link.advertise_at = now, now + ADVERTISE_INTERVAL
        return due, advertise

    @property
    def next_at(self) -> float | None:
        """When :meth:`step` is due, or None."""
        times = [min(link.solicit_at, link.advertise_at) for link in self._links.values()]
        times += [router.until for link in self._links.values() for router in link.routers.values()]
        found = min(times, default=math.inf)
        return found if found < math.inf else None

    @property
    def routers(self) -> tuple[Address, ...]:
        """The valid routers with their interfaces, by interface; the one that is used is the first of its link."""
        found: list[Address] = []
        for name, link in sorted(self._links.items()):
            valid = _valid(link)
            ordered = sorted(valid, key=lambda at: (at != link.used, -valid[at].preference, int(at)))
            found += [scoped(address, name) for address in ordered]
        return tuple(found)

    @staticmethod
    def _choose(link: _Link) -> None:
        valid = _valid(link)
        if link.used not in valid:
            link.used = min(valid, key=lambda at: (-valid[at].preference, int(at)), default=None)
