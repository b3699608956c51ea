"""Parts of sentences that several messages share."""

from __future__ import annotations

from collections.abc import Iterable, Mapping


def listed(names: Iterable[object]) -> str:
    """``a``, ``a and b``, ``a, b and c``: names in a sentence."""
    words = [str(name) for name in names]
    return " and ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)


def families(versions: Iterable[int]) -> str:
    """IP versions in a sentence: ``IPv4 and IPv6``."""
    return listed(f"IPv{version}" for version in versions)


def without_interface(address: object) -> str:
    """Why a link-local address of a router cannot be used."""
    return f"{address} is a link-local address: set spec.interface to the interface of the node towards the router."


def no_ipv4_next_hop(peers: Iterable[object] = ()) -> str:
    """Why IPv4 routes are not announced over a session with an IPv6 address. ``peers``: in a message about another
    object."""
    whose = f"{listed(peers)} did not negotiate" if peers else "The router did not negotiate"
    return (
        f"{whose} IPv6 next hops for IPv4 routes (RFC 8950), and the nodes have no IPv4 address on the link. Enable "
        "them on the router (FRR: capability extended-nexthop; BIRD: extended next hop on)."
    )


def clauses(whys: Mapping[str, str], most: int = 5) -> str:
    """Names with a reason each, grouped by reason: ``a, b (does not answer); c (is down)``. At most ``most`` names of a
    group are written."""
    groups: dict[str, list[str]] = {}
    for name, why in sorted(whys.items()):
        groups.setdefault(why, []).append(name)
    return "; ".join(
        f"{', '.join(names[:most])}{f' and {len(names) - most} more' if len(names) > most else ''} ({why})"
        for why, names in groups.items()
    )
