"""An Eip object: a pool of addresses."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from porterlb.core.model import Address, Eip, Protocol
from porterlb.core.parse.addresses import check_usable, parse_address, parse_ranges, pool_ranges, respelled
from porterlb.core.parse.fields import Fields, mapping, plain, show
from porterlb.core.parse.layer2 import nic_problem, parse_layer2
from porterlb.core.parse.meta import DOMAINS, Meta, duplicate_spellings, is_fatal, parse_meta, top
from porterlb.core.parse.selectors import parse_selector
from porterlb.core.problems import Parsed, Problem, Reason

_CAN_REACH = "can_reach:"
REBALANCE = ("rebalance", "v1alpha1")
"""The annotation by which an operator asks for VIPs to be moved; its value names the request."""
SWITCHED = ("eip", "switched-protocol")
"""The annotation in which ``porterlb mode`` keeps the protocol that it replaced, as ``<before>/<after>``."""
_KNOWN = {f"{kind}.{domain}/{name}" for kind, name in (REBALANCE, SWITCHED) for domain in DOMAINS}
_ELSEWHERE = {
    "addresses": "write them into spec.address, separated by commas",
    "avoidBuggyIPs": "write avoidNetworkAddresses",
    "serviceAllocation": "write namespaces, namespaceSelector, serviceSelector and priority",
    "interfaces": "write layer2.interfaces",
    "nodeSelectors": "write layer2.nodeSelectors",
    "autoassign": "write autoAssign",
    "disabled": "write disable",
}
"""Fields of MetalLB's IPAddressPool and similar names, and their equivalents here."""


def parse_eip(obj: Mapping[str, Any]) -> Parsed[Eip]:
    """Any JSON object to an Eip and its problems; never raises."""
    problems: list[Problem] = []
    meta, spec = top(obj, problems)
    avoid = spec.flag("avoidNetworkAddresses", False)
    text = spec.text("address")
    if not text and not is_fatal(problems):
        spec.missing("address", "give an IP address, CIDR or range a-b, or several separated by commas")
    included = parse_ranges(text, spec.at("address"), problems) if text else []
    check_usable(included, spec.at("address"), problems)
    exclude = spec.text("exclude")
    excluded = parse_ranges(exclude, spec.at("exclude"), problems) if exclude else []
    ranges = pool_ranges(included, excluded, avoid_dotted=avoid)
    if ranges is None:
        spec.wrong("avoidNetworkAddresses", "is not possible with more than 2^24 IPv4 addresses in one Eip.")
    elif not ranges and not is_fatal(problems):
        spec.wrong("exclude", "leaves no address in the Eip.", Reason.EMPTY_POOL)
    interface, can_reach = _interface(spec)
    protocol = _protocol(spec)
    eip = Eip(
        name=meta.name,
        ranges=ranges or (),
        uid=meta.uid,
        created=meta.created,
        generation=meta.generation,
        protocol=protocol,
        interface=interface,
        can_reach=can_reach,
        disabled=spec.flag("disable", False),
        priority=spec.number("priority", 0, -(2**31), 2**31 - 1),
        namespaces=frozenset(spec.texts("namespaces")),
        namespace_selector=parse_selector(spec, "namespaceSelector", plain=True),
        service_selector=parse_selector(spec, "serviceSelector"),
        auto_assign=spec.flag("autoAssign", True),
        layer2_standby=spec.flag("layer2Standby", True),
        layer2_spread=_spread(spec),
        layer2=parse_layer2(spec),
        probe=spec.flag("probe", True),
        is_default=_is_default(meta, problems),
        labels=meta.labels,
        rebalance=_rebalance(meta, obj),
    )
    spec.unsupported(
        ["usingKnownIPs"], "is not supported and has no effect: addresses that Services hold are always kept"
    )
    spec.done(_ELSEWHERE)
    return Parsed(None if is_fatal(problems) else eip, tuple(problems))


def _protocol(spec: Fields) -> Protocol:
    text = spec.text("protocol") or Protocol.AUTO
    if text in ("vip", "dummy"):
        spec.wrong("protocol", f"{show(text)} is not supported. Use auto, bgp or layer2.", Reason.UNSUPPORTED_FIELD)
    elif text not in list(Protocol):
        spec.wrong("protocol", f"{show(text)} is not one of auto, bgp, layer2.")
    else:
        return Protocol(text)
    return Protocol.AUTO


def _spread(spec: Fields) -> bool:
    text = spec.text("layer2Spread") or "none"
    if text not in ("none", "hosts"):
        spec.wrong("layer2Spread", f"{show(text)} is not one of none, hosts.")
    return text == "hosts"


def _interface(spec: Fields) -> tuple[str, Address | None]:
    text = spec.text("interface")
    if text.startswith(_CAN_REACH):
        address = parse_address(text.removeprefix(_CAN_REACH))
        if address is None:
            remedy = f" {respelled(text.removeprefix(_CAN_REACH))[1]}".rstrip()
            message = f"{show(text)} has no IP address behind can_reach:.{remedy}"
            spec.wrong("interface", message, Reason.INVALID_ADDRESS)
        return "", address
    if problem := nic_problem(text, "; write the name of one interface, or can_reach:IP", " nor can_reach:IP"):
        spec.wrong("interface", problem)
    return text, None


def replaced_protocol(obj: Mapping[str, Any]) -> Protocol | None:
    """The protocol that ``porterlb mode restore`` restores for this Eip.

    None: ``porterlb mode`` has not switched it, or its protocol has since been changed by other means.
    """
    before, _, after = parse_meta(obj).annotation(*SWITCHED).partition("/")
    spec = obj.get("spec")
    now = (spec.get("protocol") if isinstance(spec, Mapping) else None) or Protocol.AUTO.value
    valid = {protocol.value for protocol in Protocol}
    return Protocol(before) if before in valid and after == now else None


def _rebalance(meta: Meta, obj: Mapping[str, Any]) -> str:
    """The request to rebalance that the leader has not answered yet."""
    asked = meta.annotation(*REBALANCE)
    return asked if asked != mapping(obj.get("status") if isinstance(obj, Mapping) else None).get("rebalanced") else ""


def _is_default(meta: Meta, problems: list[Problem]) -> bool:
    text = meta.annotation("eip", "is-default-eip").lower()
    if text not in ("", "true", "false"):
        message = f"{show(text)} is neither true nor false, and is treated as false."
        problems.append(Problem(Reason.INVALID_FIELD, message, meta.given("eip", "is-default-eip"), fatal=False))
    duplicate_spellings(meta, "eip", "is-default-eip", problems)
    for key in meta.annotations:
        if key.partition("/")[0].endswith(DOMAINS) and not key.endswith("/is-default-eip"):
            if key in _KNOWN:
                continue
            path = f"metadata.annotations[{plain(key)}]"
            message = "is not a known annotation of an Eip and has no effect."
            problems.append(Problem(Reason.UNSUPPORTED_FIELD, message, path, fatal=False))
    return text == "true"
