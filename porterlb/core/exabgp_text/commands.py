"""The command lines of ExaBGP's API: announcements, withdrawals, End-of-RIB, queries."""

from __future__ import annotations

from collections.abc import Sequence

from porterlb.core.bgp import rules
from porterlb.core.desired import Path, Prefix, SessionConfig
from porterlb.core.exabgp_text.words import Unspeakable, clean
from porterlb.core.scope import unscoped

MAX_PREFIXES = 500
"""Prefixes in one command line. ExaBGP takes some 5 ms for such a line (exabgp/launcher.py, take_lines_whole), which is
as long as an urgent change waits for it. Of 10,000 routes, lines of 48 cost half as much processor time again."""

VERSION = "version"
RELOAD = "reload"
SHOW_NEIGHBORS = "show neighbor json"
HEARTBEAT = "# beat"
"""A comment: ExaBGP acknowledges it and does nothing."""


def announce(neighbor: SessionConfig, path: Path, prefixes: Sequence[Prefix]) -> str:
    """One line that announces up to MAX_PREFIXES prefixes of one IP version with one set of attributes.

    The next hop is always explicit: ``self`` would put the router ID into IPv4 routes on an IPv6 session. LOCAL_PREF
    is sent to iBGP peers only (RFC 4271, 5.1.5). The AS path is prepended for eBGP peers only: an iBGP peer would see
    its own AS in it and detect a loop. Raises Unspeakable for what ExaBGP would misread or announce wrongly.
    """
    words = _head(neighbor, path, prefixes, "announce")
    attributes = path.attributes
    ibgp = neighbor.local_as == neighbor.peer_as
    if attributes.med is not None:
        words.append(f"med {_number(attributes.med, rules.MAX_U32, 'MED')}")
    if attributes.local_pref is not None and ibgp:
        words.append(f"local-preference {_number(attributes.local_pref, rules.MAX_U32, 'local preference')}")
    if attributes.prepend and not ibgp:
        # `as-path` replaces the path that ExaBGP would send, so the local AS itself must be added once.
        times = _number(attributes.prepend, rules.MAX_PREPEND, "AS path prepend") + 1
        words.append(f"as-path [ {' '.join([str(neighbor.local_as)] * times)} ]")
    if attributes.communities:
        words.append(f"community [ {' '.join(_communities(attributes.communities))} ]")
    if attributes.large_communities:
        words.append(f"large-community [ {' '.join(_large_communities(attributes.large_communities))} ]")
    return " ".join([*words, "nlri", *prefixes])


def withdraw(neighbor: SessionConfig, path: Path, prefixes: Sequence[Prefix]) -> str:
    """One line that withdraws up to MAX_PREFIXES prefixes; with add-path only those of this path."""
    return " ".join([*_head(neighbor, path, prefixes, "withdraw"), "nlri", *prefixes])


def clear(neighbor: SessionConfig | None = None) -> str:
    """Withdraws all routes from one neighbor or from all."""
    return f"neighbor {unscoped(neighbor.address)} clear adj-rib out" if neighbor is not None else "clear adj-rib out"


def teardown(neighbor: SessionConfig, subcode: int) -> str:
    """Ends an established session with a cease of this subcode (RFC 4486, RFC 9384); ExaBGP opens it again."""
    return f"neighbor {unscoped(neighbor.address)} teardown {subcode}"


def end_of_rib(neighbor: SessionConfig, version: int) -> str:
    """The End-of-RIB marker (RFC 4724) of one family."""
    return f"neighbor {unscoped(neighbor.address)} announce eor ipv{version} unicast"


def _head(neighbor: SessionConfig, path: Path, prefixes: Sequence[Prefix], verb: str) -> list[str]:
    if not prefixes or len(prefixes) > MAX_PREFIXES:
        raise ValueError(f"a line has 1 to {MAX_PREFIXES} prefixes, not {len(prefixes)}")
    for prefix in prefixes:
        version = 6 if ":" in prefix else 4
        if version not in neighbor.families:
            raise Unspeakable(f"BgpPeer {neighbor.peer} has no IPv{version} family (afiSafis).")
        if version != path.version:
            raise Unspeakable(f"The next hop {path.next_hop} of {prefix} is of another IP version.")
    if path.path_id and not neighbor.add_path:
        raise Unspeakable(f"BgpPeer {neighbor.peer} has no add-path, so it cannot get path {path.path_id}.")
    words = [f"neighbor {unscoped(neighbor.address)} {verb} attributes"]
    if path.path_id:
        words.append(f"path-information {_number(path.path_id, rules.MAX_U32, 'path identifier')}")
    words.append(f"next-hop {unscoped(path.next_hop)}")
    return words


def _number(value: int, most: int, what: str) -> int:
    if not 0 <= value <= most:
        raise Unspeakable(f"A {what} of {value} is not possible (0 to {most}).")
    return value


def _communities(values: Sequence[str]) -> list[str]:
    found = [rules.community(value) for value in values]
    return _all_of(found, values, "community")


def _large_communities(values: Sequence[str]) -> list[str]:
    found = [rules.large_community(value) for value in values]
    return _all_of(found, values, "large community")


def _all_of(found: Sequence[str | None], values: Sequence[str], what: str) -> list[str]:
    for value, said in zip(values, found, strict=True):
        if said is None:
            raise Unspeakable(f"{clean(value)!r} is not a {what}.")
    return [said for said in found if said is not None]
