"""The BgpConf object ``default``: the common settings of all our BGP speakers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from porterlb.core.bgp import rules
from porterlb.core.model import Address, BgpConf
from porterlb.core.parse.addresses import parse_address, parse_router_id
from porterlb.core.parse.fields import Fields, plain, show
from porterlb.core.parse.meta import is_fatal, top
from porterlb.core.parse.peer import parse_graceful_restart
from porterlb.core.problems import Parsed, Problem, Reason

NAME = "default"


def parse_conf(obj: Mapping[str, Any]) -> Parsed[BgpConf]:
    """Any JSON object to a BgpConf and its problems; never raises. Only the one named ``default`` is used."""
    problems: list[Problem] = []
    meta, spec = top(obj, problems)
    if meta.name and meta.name != NAME:
        message = f"{show(meta.name)} is not used: the one BgpConf that is used has the name {NAME}."
        problems.append(Problem(Reason.INVALID_FIELD, message, "metadata.name"))
    local_as = spec.number("as", 0, 0, rules.AS_MAX)
    racks = _racks(spec.object("asPerRack"), spec.raw("asPerRack"))
    restart = parse_graceful_restart(spec)
    conf = BgpConf(
        local_as=local_as,
        as_per_rack=racks,
        router_id=parse_router_id(spec),
        listen_port=max(0, spec.number("listenPort", 0, -1, 65535)),  # -1: do not listen, as GoBGP writes it
        listen_addresses=_listen_addresses(spec),
        graceful_restart=BgpConf().graceful_restart if restart is None else restart,
        communities=_communities(spec.object("communities"), spec.raw("communities")),
        generation=meta.generation,
    )
    if not local_as and not racks and not is_fatal(problems):
        message = "is missing: only BgpPeers with a localAs of their own can have sessions."
        spec.wrong("as", message, Reason.NO_LOCAL_AS, fatal=False)
    spec.unsupported(
        ["routerId"],
        "is used only on nodes without an IPv4 address: every replica speaks BGP and needs an identifier of its own",
    )
    spec.unsupported(["families"], "is not supported and has no effect: use afiSafis of BgpPeers")
    spec.unsupported(["useMultiplePaths"], "has no effect: routes that peers send are never used")
    spec.unsupported(["policy"], "is not supported and has no effect: use advertise of BgpPeers")
    spec.done()
    return Parsed(None if is_fatal(problems) else conf, tuple(problems))


def _racks(fields: Fields, value: Any) -> dict[str, int]:
    """AS numbers by the value of a node's label."""
    found: dict[str, int] = {}
    for name in sorted(value, key=str) if isinstance(value, Mapping) else ():
        if not isinstance(name, str) or not 0 < len(name) <= 63:
            fields.wrong(plain(name), "is not the value of a label: it has 1 to 63 characters.")
        elif number := fields.number(name, 0, 1, rules.AS_MAX):
            found[name] = number
    return found


def _communities(fields: Fields, value: Any) -> dict[str, str]:
    """Communities by name, as ExaBGP takes them."""
    found: dict[str, str] = {}
    for name, text in sorted(value.items(), key=str) if isinstance(value, Mapping) else ():
        known = rules.community(text) or rules.large_community(text) if isinstance(text, str) else None
        if not isinstance(name, str) or not rules.community_name(name):
            message = "is not a name for a community: lower-case letters, digits and -, and not a well-known community."
            fields.wrong(plain(name), message)
        elif known is None:
            message = f"{show(text)} is neither a community a:b (each 0 to 65535) nor a large one a:b:c (each 32 bits)."
            fields.wrong(name, message)
        else:
            found[name] = known
    return found


def _listen_addresses(spec: Fields) -> tuple[Address, ...]:
    found: list[Address] = []
    for text in spec.texts("listenAddresses"):
        address = parse_address(text)
        if address is None:
            spec.wrong("listenAddresses", f"{show(text)} is not an IP address.", Reason.INVALID_ADDRESS)
        else:
            found.append(address)
    return tuple(dict.fromkeys(found))
