"""BgpPeer.spec.overrides: values that apply to some of the nodes. An error in one entry refuses only that entry."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from porterlb.core.bgp import rules
from porterlb.core.model import Address, DynamicAs, PeerOverride
from porterlb.core.parse.addresses import parse_host, parse_interface, parse_router, parse_router_id
from porterlb.core.parse.fields import Fields, show
from porterlb.core.parse.meta import is_fatal
from porterlb.core.parse.selectors import parse_selector
from porterlb.core.problems import Problem, Reason

_GATEWAYS = {"ipv4": 4, "ipv6": 6}
_VALUES = ("neighborAddress", "defaultGateway", "peerAs", "localAs", "routerId", "localAddress", "interface")


def parse_overrides(spec: Fields, local_address: Address | None) -> tuple[PeerOverride, ...]:
    """``local_address``: of the BgpPeer; it applies if an entry has no source address of its own."""
    found = []
    for path, item in spec.items("overrides"):
        problems: list[Problem] = []
        override = None
        if isinstance(item, Mapping):
            override = _entry(Fields(item, path, problems), local_address)
        else:
            problems.append(Problem(Reason.INVALID_FIELD, f"{show(item)} is not an object.", path))
        unread = override is None
        effect = "The entry is not used." if unread else "The nodes of this entry have no session."
        spec.problems.extend(
            replace(one, message=f"{one.message} {effect}", fatal=False) if one.fatal else one for one in problems
        )
        if override is not None:
            found.append(replace(override, refused=is_fatal(problems)))
    return tuple(found)


def _entry(entry: Fields, base: Address | None) -> PeerOverride | None:
    """None: the nodes that it applies to are unknown."""
    selector = parse_selector(entry, "nodeSelector")
    if is_fatal(entry.problems):
        return None
    if not any(entry.has(name) for name in _VALUES):
        entry.wrong("", f"has no value. Give one of {', '.join(_VALUES)}.", fatal=False)
    (address, zone), gateway = parse_router(entry, "neighborAddress"), _gateway(entry)
    if gateway and entry.has("neighborAddress"):
        entry.wrong("defaultGateway", "and neighborAddress are both given. Leave one out.")
    peer_as, dynamic = parse_peer_as(entry)
    local, interface = parse_host(entry, "localAddress"), one_interface(entry, "interface", zone)
    if interface and entry.has("localAddress"):
        entry.wrong("interface", "and localAddress are both given. Leave one out.")
    source = local or (None if interface else base)
    version = address.version if address is not None else gateway
    if source is not None and version and source.version != version:
        where = "localAddress" if local else "neighborAddress" if address else "defaultGateway"
        message = f"The local address {source} is IPv{source.version}, but the router has IPv{version}."
        entry.wrong(where, message, Reason.INVALID_ADDRESS)
    override = PeerOverride(
        node_selector=selector,
        address=address,
        gateway=gateway,
        peer_as=peer_as,
        dynamic=dynamic,
        local_as=entry.number("localAs", 0, 0, rules.AS_MAX),
        router_id=parse_router_id(entry),
        local_address=local,
        interface=interface,
    )
    entry.done()
    return override


def one_interface(fields: Fields, name: str, zone: str) -> str:
    """The interface in a field. ``zone``: the one that is written with the address of the router."""
    interface = parse_interface(fields, name)
    if zone and interface and zone != interface:
        fields.wrong(name, f"is {interface}, but neighborAddress has %{zone}. Leave one of them out.")
    return interface or zone


def parse_peer_as(fields: Fields) -> tuple[int, DynamicAs | None]:
    """``peerAs``: a number, or ``external`` or ``internal``. 0 and None: absent or wrong; an error is recorded."""
    value = fields.raw("peerAs")
    if isinstance(value, str):
        found = next((kind for kind in DynamicAs if kind.value == value.strip()), None)
        if found is None:
            fields.wrong("peerAs", f"{show(value)} is neither an AS number nor external or internal.")
        return 0, found
    number = fields.number("peerAs", 0, 0, rules.AS_MAX)
    if number == rules.AS_TRANS:
        fields.wrong("peerAs", f"{number} is AS_TRANS (RFC 6793), which no router has as its own.")
    return number, None


def _gateway(entry: Fields) -> int:
    text = entry.text("defaultGateway")
    if text and text not in _GATEWAYS:
        entry.wrong("defaultGateway", f"{show(text)} is neither ipv4 nor ipv6.")
    return _GATEWAYS.get(text, 0)
