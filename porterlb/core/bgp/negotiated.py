"""The capabilities that one BGP session negotiated: the plan uses these, never the configured ones."""

from __future__ import annotations

import re
from dataclasses import dataclass

_TEXT = re.compile(r"(?:[46]\+?){0,2}")


@dataclass(frozen=True, slots=True)
class Negotiated:
    """``families``: IP versions whose unicast routes the peer accepts (RFC 4760). ``add_path``: those for which we may
    send several paths (RFC 7911). ``hold_time``: seconds. ``graceful_restart``: both sides support RFC 4724. ``asn4``:
    four-octet AS numbers (RFC 6793). ``route_refresh``: both sides support RFC 2918. ``router_id``, ``peer_as``: those
    of the router; empty and 0 if unknown."""

    families: tuple[int, ...] = ()
    add_path: tuple[int, ...] = ()
    hold_time: int = 0
    graceful_restart: bool = False
    asn4: bool = True
    route_refresh: bool = False
    router_id: str = ""
    peer_as: int = 0

    @property
    def text(self) -> str:
        """The part that other replicas need, for a hello: ``4+6`` is IPv4 with add-path and IPv6 without."""
        return "".join(f"{version}{'+' if version in self.add_path else ''}" for version in self.families)


def from_text(text: str) -> Negotiated | None:
    """The reverse of :attr:`Negotiated.text`; None for any other text."""
    if not _TEXT.fullmatch(text):
        return None
    families = tuple(version for version in (4, 6) if str(version) in text)
    return Negotiated(families, tuple(version for version in families if f"{version}+" in text))


def as_configured(families: tuple[int, ...], *, add_path: bool, hold_time: int = 9) -> Negotiated:
    """The result with a router that accepts all configured capabilities."""
    return Negotiated(families, families if add_path else (), hold_time, graceful_restart=True)
