"""One rule of BgpPeer.spec.advertise: what matches is announced with these attributes."""

from __future__ import annotations

import re

from porterlb.core.model import AdvertiseRule, RouteAttributes
from porterlb.core.parse.fields import Fields, show
from porterlb.core.parse.selectors import parse_selector

_NUMBERS = re.compile(r"[0-9]{1,10}(:[0-9]{1,10}){1,2}")

_WELL_KNOWN = {  # the IANA registry's names, as ExaBGP spells them, or as numbers where it has no name
    "no-export": "no-export",  # RFC 1997
    "no-advertise": "no-advertise",  # RFC 1997
    "no-export-subconfed": "no-export-subconfed",  # RFC 1997
    "no-peer": "no-peer",  # RFC 3765
    "nopeer": "no-peer",
    "blackhole": "blackhole",  # RFC 7999
    "graceful-shutdown": "65535:0",  # RFC 8326
    "accept-own": "65535:1",  # RFC 7611
}


def parse_rule(rule: Fields, local_as: int, peer_as: int) -> AdvertiseRule:
    """The rule in these fields; what is wrong in it is noted there."""
    communities = [_community(rule, text, 2, 0xFFFF) for text in rule.texts("communities")]
    large = [_community(rule, text, 3, 0xFFFFFFFF) for text in rule.texts("largeCommunities")]
    attributes = RouteAttributes(
        communities=tuple(dict.fromkeys(communities)),
        large_communities=tuple(dict.fromkeys(large)),
        local_pref=rule.number("localPref", 0, 0, 2**32 - 1) if rule.has("localPref") else None,
        med=rule.number("med", 0, 0, 2**32 - 1) if rule.has("med") else None,
        prepend=rule.number("asPathPrepend", 0, 0, 16),
    )
    rule.raw("localPref"), rule.raw("med")
    if local_as and local_as != peer_as and attributes.local_pref is not None:
        rule.wrong("localPref", "has no effect: local preference is not sent to an external peer.", fatal=False)
    if local_as and local_as == peer_as and attributes.prepend:
        rule.wrong("asPathPrepend", "has no effect: the AS path is not prepended for an internal peer.", fatal=False)
    found = AdvertiseRule(
        eips=frozenset(rule.texts("eips")),
        eip_selector=parse_selector(rule, "eipSelector"),
        service_selector=parse_selector(rule, "serviceSelector"),
        attributes=attributes,
    )
    rule.unsupported(
        ["aggregation", "aggregationLength", "aggregationLengthV6"],
        "is not supported and has no effect: every address is announced by itself",
    )
    rule.done()
    return found


def _community(rule: Fields, text: str, parts: int, most: int) -> str:
    name = "communities" if parts == 2 else "largeCommunities"
    if parts == 2 and text.lower().replace("_", "-") in _WELL_KNOWN:
        return _WELL_KNOWN[text.lower().replace("_", "-")]
    if _NUMBERS.fullmatch(text):
        numbers = [int(number) for number in text.split(":")]
        if len(numbers) == parts and max(numbers) <= most:
            return ":".join(map(str, numbers))
    shape = "a:b" if parts == 2 else "a:b:c"
    names = " or a well-known name" if parts == 2 else ""
    rule.wrong(name, f"{show(text)} is not a community {shape} (each 0 to {most}){names}.")
    return ""
