"""One rule of BgpPeer.spec.advertise: matching VIPs are announced with these attributes."""

from __future__ import annotations

from porterlb.core.bgp import rules
from porterlb.core.model import AdvertiseRule, RouteAttributes
from porterlb.core.parse.fields import Fields, show
from porterlb.core.parse.selectors import parse_selector


def parse_rule(rule: Fields) -> AdvertiseRule:
    """The rule in these fields; errors are recorded there."""
    texts = rule.texts("communities")
    named = [text for text in texts if rules.community(text) is None and rules.community_name(text)]
    communities = [_community(rule, text) for text in texts if text not in named]
    large = [_large_community(rule, text) for text in rule.texts("largeCommunities")]
    attributes = RouteAttributes(
        communities=tuple(dict.fromkeys(communities)),
        large_communities=tuple(dict.fromkeys(large)),
        local_pref=rule.number("localPref", 0, 0, rules.MAX_U32) if rule.has("localPref") else None,
        med=rule.number("med", 0, 0, rules.MAX_U32) if rule.has("med") else None,
        prepend=rule.number("asPathPrepend", 0, 0, rules.MAX_PREPEND),
    )
    rule.raw("localPref"), rule.raw("med")
    found = AdvertiseRule(
        eips=frozenset(rule.texts("eips")),
        eip_selector=parse_selector(rule, "eipSelector"),
        service_selector=parse_selector(rule, "serviceSelector"),
        node_selector=parse_selector(rule, "nodeSelector"),
        attributes=attributes,
        community_names=tuple(dict.fromkeys(named)),
        lengths=(_length(rule, "aggregationLength", 32), _length(rule, "aggregationLengthV6", 128)),
        aggregate_only=rule.flag("aggregateOnly", True),
        aggregate_local=rule.flag("aggregateLocal", False),
    )
    for name in ("aggregateOnly", "aggregateLocal"):
        if rule.has(name) and found.lengths == (0, 0):
            rule.wrong(name, "has no effect without aggregationLength or aggregationLengthV6.", fatal=False)
    rule.done()
    return found


def _length(rule: Fields, name: str, most: int) -> int:
    """The prefix length; 0 if it is absent or that of a host route."""
    return rule.number(name, most, 1, most) % most


def _community(rule: Fields, text: str) -> str:
    found = rules.community(text)
    if found is None:
        hint = " As it has a number above 65535, it may belong to largeCommunities (a:b:c)." if _is_large(text) else ""
        names = ", ".join(sorted(rules.WELL_KNOWN))
        rule.wrong(
            "communities",
            f"{show(text)} is not a community a:b (each 0 to 65535), nor one of {names}, nor can it be a name in "
            f"spec.communities of the BgpConf.{hint}",
        )
    return found or ""


def _is_large(text: str) -> bool:
    numbers = text.split(":")
    return all(n.isascii() and n.isdigit() for n in numbers) and any(int(n) > 0xFFFF for n in numbers if len(n) < 12)


def _large_community(rule: Fields, text: str) -> str:
    found = rules.large_community(text)
    if found is None:
        hint = " Two numbers belong to communities." if rules.community(text) is not None else ""
        message = f"{show(text)} is not a large community a:b:c (each 0 to {rules.MAX_U32}).{hint}"
        rule.wrong("largeCommunities", message)
    return found or ""
