"""The capabilities that one BGP session negotiated: the plan uses these, never the configured ones."""

from __future__ import annotations

import re
from dataclasses import dataclass

_TEXT = re.compile(r"(?:[46]\+?){0,2}x?")


@dataclass(frozen=True, slots=True)
class Negotiated:
    """``families``: IP versions whose unicast routes the peer accepts (RFC 4760). ``add_path``: those for which we may
    send several paths (RFC 7911). ``hold_time``: seconds. ``graceful_restart``: both sides support RFC 4724. ``asn4``:
    four-octet AS numbers (RFC 6793). ``route_refresh``: both sides support RFC 2918. ``router_id``, ``peer_as``: those
    of the router; empty and 0 if unknown. ``extended_next_hop``: IPv4 routes may have IPv6 next hops (RFC 8950)."""

    families: tuple[int, ...] = ()
    add_path: tuple[int, ...] = ()
    hold_time: int = 0
    graceful_restart: bool = False
    asn4: bool = True
    route_refresh: bool = False
    router_id: str = ""
    peer_as: int = 0
    extended_next_hop: bool = False

    @property
    def text(self) -> str:
        """The part that other replicas need, for a hello: ``4+6`` is IPv4 with add-path and IPv6 without; ``46x``: IPv4
        routes may have IPv6 next hops."""
        found = "".join(f"{version}{'+' if version in self.add_path else ''}" for version in self.families)
        return f"{found}x" if self.extended_next_hop else found


def from_text(text: str) -> Negotiated | None:
    """The reverse of :attr:`Negotiated.text`; None for any other text."""
    if not _TEXT.fullmatch(text):
        return None
    families = tuple(version for version in (4, 6) if str(version) in text)
    add_path = tuple(version for version in families if f"{version}+" in text)
    return Negotiated(families, add_path, extended_next_hop=text.endswith("x"))


def as_configured(families: tuple[int, ...], *, add_path: bool, hold_time: int = 9) -> Negotiated:
    """The result with a router that accepts all configured capabilities."""
    return Negotiated(families, families if add_path else (), hold_time, graceful_restart=True)
