"""The command lines of ExaBGP's API: routes announced and withdrawn, End-of-RIB, questions."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from porterlb.core.desired import Neighbor, Path, Prefix
from porterlb.core.exabgp_text.words import Unspeakable, clean

MAX_PREFIXES = 48
"""Prefixes in one command line: ExaBGP does 50 steps of queued work per turn, one a prefix. More of them in a line,
or a second line outstanding, make it sleep between turns: 0.74 s for 10,000 routes become 2.7 s or more."""

_NAME = re.compile(r"[a-z][a-z0-9-]{1,40}")  # no-export, blackhole ...

VERSION = "version"
RELOAD = "reload"
SHOW_NEIGHBORS = "show neighbor json"
HEARTBEAT = "# beat"
"""A comment: ExaBGP acknowledges it and does nothing."""


def announce(neighbor: Neighbor, path: Path, prefixes: Sequence[Prefix]) -> str:
    """One line that announces up to MAX_PREFIXES prefixes of one IP version with one set of attributes.

    The next hop is always written out: ``self`` would put the router ID into IPv4 routes on an IPv6 session.
    LOCAL_PREF goes to iBGP peers only (RFC 4271, 5.1.5), and an AS path is prepended for eBGP peers only: an iBGP
    peer would see its own AS in it, a loop. Raises Unspeakable for what ExaBGP would misread or announce wrongly.
    """
    words = _head(neighbor, path, prefixes, "announce")
    attributes = path.attributes
    ibgp = neighbor.local_as == neighbor.peer_as
    if attributes.med is not None:
        words.append(f"med {_number(attributes.med, 2**32 - 1, 'MED')}")
    if attributes.local_pref is not None and ibgp:
        words.append(f"local-preference {_number(attributes.local_pref, 2**32 - 1, 'local preference')}")
    if attributes.prepend and not ibgp:
        # `as-path` replaces the path that ExaBGP would send, so the local AS itself is in it once more.
        times = _number(attributes.prepend, 16, "AS path prepend") + 1
        words.append(f"as-path [ {' '.join([str(neighbor.local_as)] * times)} ]")
    if attributes.communities:
        words.append(f"community [ {' '.join(_tokens(attributes.communities, 2, 0xFFFF))} ]")
    if attributes.large_communities:
        words.append(f"large-community [ {' '.join(_tokens(attributes.large_communities, 3, 0xFFFFFFFF))} ]")
    return " ".join([*words, "nlri", *prefixes])


def withdraw(neighbor: Neighbor, path: Path, prefixes: Sequence[Prefix]) -> str:
    """One line that withdraws up to MAX_PREFIXES prefixes, of this path only where add-path is on."""
    return " ".join([*_head(neighbor, path, prefixes, "withdraw"), "nlri", *prefixes])


def clear(neighbor: Neighbor | None = None) -> str:
    """Withdraws everything, from one neighbor or from all."""
    return f"neighbor {neighbor.address} clear adj-rib out" if neighbor is not None else "clear adj-rib out"


def end_of_rib(neighbor: Neighbor, version: int) -> str:
    """The End-of-RIB marker (RFC 4724) of one family."""
    return f"neighbor {neighbor.address} announce eor ipv{version} unicast"


def _head(neighbor: Neighbor, path: Path, prefixes: Sequence[Prefix], verb: str) -> list[str]:
    if not prefixes or len(prefixes) > MAX_PREFIXES:
        raise ValueError(f"a line has 1 to {MAX_PREFIXES} prefixes, not {len(prefixes)}")
    for prefix in prefixes:
        version = 6 if ":" in prefix else 4
        if version not in neighbor.families:
            raise Unspeakable(f"BgpPeer {neighbor.peer} has no IPv{version} family (afiSafis).")
        if version != path.next_hop.version:
            raise Unspeakable(f"The next hop {path.next_hop} of {prefix} is of another IP version.")
    if path.path_id and not neighbor.add_path:
        raise Unspeakable(f"BgpPeer {neighbor.peer} has no add-path, so it cannot get path {path.path_id}.")
    words = [f"neighbor {neighbor.address} {verb} attributes"]
    if path.path_id:
        words.append(f"path-information {_number(path.path_id, 2**32 - 1, 'path identifier')}")
    words.append(f"next-hop {path.next_hop}")
    return words


def _number(value: int, most: int, what: str) -> int:
    if not 0 <= value <= most:
        raise Unspeakable(f"A {what} of {value} is not possible (0 to {most}).")
    return value


def _tokens(values: Iterable[str], parts: int, most: int) -> list[str]:
    """Communities as numbers with colons (RFC 1997, RFC 8092), or well-known names, which ExaBGP judges."""
    result = list(values)
    for value in result:
        numbers = value.split(":")
        if not (_NAME.fullmatch(value) and parts == 2) and not (
            len(numbers) == parts and all(n.isascii() and n.isdigit() and int(n) <= most for n in numbers)
        ):
            kind = "community" if parts == 2 else "large community"
            raise Unspeakable(f"{clean(value)!r} is not a {kind}: {parts} numbers of 0 to {most}, with colons.")
    return result
