"""A BgpPeer object: a router that the nodes hold sessions with."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from porterlb.core.bfd.values import MAX_INTERVAL, MAX_MULTIPLIER, MIN_INTERVAL, MIN_MULTIPLIER, BfdSettings
from porterlb.core.bgp import rules
from porterlb.core.bgp.advertise import conflict
from porterlb.core.model import Address, AdvertiseRule, BgpConf, Peer, PeerOverride
from porterlb.core.names import KEY_RULE, NAME_RULE, is_key, is_name
from porterlb.core.parse.addresses import parse_address, parse_interface, parse_router
from porterlb.core.parse.advertise import parse_rule
from porterlb.core.parse.fields import Fields, show
from porterlb.core.parse.meta import is_fatal, top
from porterlb.core.parse.overrides import one_interface, parse_overrides, parse_peer_as
from porterlb.core.parse.selectors import parse_selector
from porterlb.core.problems import Parsed, Problem, Reason
from porterlb.core.sentences import without_interface

_FAMILIES = {"AFI_IP": 4, "AFI_IP6": 6}


def parse_peer(obj: Mapping[str, Any]) -> Parsed[Peer]:
    """Any JSON object to a Peer and its problems; never raises."""
    problems: list[Problem] = []
    meta, spec = top(obj, problems)
    conf = spec.object("conf")
    address, zone = parse_router(conf, "neighborAddress")
    interface = _interface(spec, conf, zone)
    peer_as, dynamic = parse_peer_as(conf)
    password, secret = _password(conf)
    hold_time, keepalive, connect_retry = _timers(spec.object("timers"))
    transport = spec.object("transport")
    multihop = spec.object("ebgpMultihop")
    enabled = multihop.flag("enabled", False)
    ttl = multihop.number("multihopTtl", 0, 0, 255)
    multihop.done()
    minimum_ttl = _ttl_security(spec.object("ttlSecurity"), enabled, ttl)
    families, add_path = _families(spec)
    local_as = conf.number("localAs", 0, 0, rules.AS_MAX)
    advertise = tuple(parse_rule(rule) for rule in spec.objects("advertise"))
    union = _advertise_policy(spec, advertise)
    local_address = _local_address(transport, address, interface)
    overrides = parse_overrides(spec, local_address)
    if not is_fatal(problems):
        _required(conf, address, overrides, interface, peer_as or dynamic)
    peer = Peer(
        name=meta.name,
        address=address,
        peer_as=peer_as,
        local_as=local_as,
        dynamic=dynamic,
        uid=meta.uid,
        created=meta.created,
        generation=meta.generation,
        description=conf.text("description"),
        admin_down=conf.flag("adminDown", False),
        password=password,
        password_secret=secret,
        multihop_ttl=(ttl or 255) if enabled else 0,
        minimum_ttl=minimum_ttl,
        hold_time=hold_time,
        keepalive=keepalive,
        connect_retry=connect_retry,
        passive=transport.flag("passiveMode", False),
        remote_port=transport.number("remotePort", rules.BGP_PORT, 0, 65535) or rules.BGP_PORT,
        local_address=local_address,
        interface=interface,
        graceful_restart=parse_graceful_restart(spec),
        families=families,
        add_path=add_path,
        max_prefixes=spec.number("maxPrefixesSent", 0, 0, rules.MAX_U32),
        node_selector=parse_selector(spec, "nodeSelector"),
        router_per_node=spec.flag("routerPerNode", False),
        bfd=_bfd(spec.object("bfd")),
        advertise=advertise,
        advertise_union=union,
        overrides=overrides,
    )
    conf.unsupported(_CONF)
    conf.done()
    transport.unsupported(["remoteAddress", "mtuDiscovery", "tcpMss"])
    transport.done()
    spec.done()
    return Parsed(None if is_fatal(problems) else peer, tuple(problems))


_CONF = (
    "peerGroup",
    "peerType",
    "removePrivateAs",
    "routeFlapDamping",
    "sendCommunity",
    "vrf",
    "allowOwnAs",
    "replacePeerAs",
)


def _required(
    conf: Fields, address: Address | None, overrides: tuple[PeerOverride, ...], interface: str, own_as: object
) -> None:
    """Address and AS of the router may both be absent if overrides have them; the address also with an interface."""
    given = interface or any(o.interface for o in overrides)
    somewhere = given or any(o.address or o.gateway or o.refused for o in overrides)
    if not conf.text("neighborAddress") and not somewhere:
        conf.missing("neighborAddress", "the IP address of the router, or set spec.interface")
    elif address is not None and address.is_link_local and not given:
        conf.wrong("neighborAddress", without_interface(address), Reason.INVALID_ADDRESS)
    elif not own_as and not any(o.peer_as or o.dynamic or o.refused for o in overrides):
        conf.missing("peerAs", "the AS number of the router, or external or internal")


def _interface(spec: Fields, conf: Fields, zone: str) -> str:
    """``spec.interface``, or its OpenELB spelling ``spec.conf.neighborInterface``."""
    interface = one_interface(spec, "interface", zone)
    other = parse_interface(conf, "neighborInterface")
    if interface and other and interface != other:
        conf.wrong("neighborInterface", f"is {other}, but the interface is also given as {interface}. Leave one out.")
    return interface or other


def _local_address(transport: Fields, neighbor: Address | None, interface: str) -> Address | None:
    text = transport.text("localAddress")
    address = parse_address(text)
    if not text or (address is not None and address.is_unspecified):
        return None  # GoBGP writes 0.0.0.0 for any address
    if address is None:
        transport.wrong("localAddress", f"{show(text)} is not an IP address.", Reason.INVALID_ADDRESS)
    elif interface:
        transport.wrong("localAddress", "and spec.interface are both given. Leave one out.")
    elif address.is_link_local:
        message = f"{address} is a link-local address. Leave it out, and set spec.interface if the router has one, too."
        transport.wrong("localAddress", message, Reason.INVALID_ADDRESS)
    elif neighbor is not None and address.version != neighbor.version:
        transport.wrong(
            "localAddress",
            f"{address} is IPv{address.version}, but the router is {neighbor}.",
            Reason.INVALID_ADDRESS,
        )
    return address


def _password(conf: Fields) -> tuple[str, tuple[str, str] | None]:
    password = conf.raw("authPassword")
    if password is None:
        password = ""
    if not isinstance(password, str):  # the value itself is never shown
        conf.wrong("authPassword", "is not a string.")
        password = ""
    elif not rules.password_allowed(password):
        conf.wrong("authPassword", f"must be at most {rules.MAX_PASSWORD} bytes of printable characters.")
    if password:
        conf.wrong(
            "authPassword",
            "can be read by everyone who can read this object. Put it into a Secret and name that in "
            "authPasswordSecret.",
            Reason.PLAIN_PASSWORD,
            fatal=False,
        )
    if not conf.has("authPasswordSecret"):
        conf.raw("authPasswordSecret")
        return password, None
    secret = conf.object("authPasswordSecret")
    name, key = secret.text("name"), secret.text("key") or "password"
    secret.done()
    if not name:
        secret.missing("name", "the Secret that has the password, in the namespace of PorterLB")
    elif not is_name(name):
        secret.wrong("name", f"{show(name)} is not the name of a Secret: {NAME_RULE}.")
    if not is_key(key):
        secret.wrong("key", f"{show(key)} is not a key of a Secret: {KEY_RULE}.")
    if password:
        conf.wrong("authPassword", "and authPasswordSecret are both given. Leave one out.")
    return password, (name, key)


def _timers(timers: Fields) -> tuple[int, int, int]:
    """Hold time, keepalive interval, connect retry, in seconds."""
    config = timers.object("config")
    timers.done()
    hold = config.number("holdTime", 9, 0, 65535, digits=True)
    keepalive = config.number("keepaliveInterval", 0, 0, 65535, digits=True)
    retry = config.number("connectRetry", 0, 0, 65535, digits=True)
    config.unsupported(["minimumAdvertisementInterval"])
    config.done()
    if not rules.hold_time_allowed(hold):
        config.wrong("holdTime", f"{hold} s is not allowed: it must be 3 or more, or 0 for none (RFC 4271, 4.2).")
    elif hold == 0:
        config.wrong("holdTime", "With 0, BGP does not detect a dead router or node. Use 3 or more.", fatal=False)
    elif keepalive >= hold:
        config.wrong("keepaliveInterval", f"{keepalive} s must be below holdTime ({hold} s), best a third of it.")
    if rules.keepalive_of(hold) < keepalive < hold:
        message = f"is more than a third of the hold time: keepalives are sent every {rules.keepalive_of(hold)} s."
        config.wrong("keepaliveInterval", message, Reason.INVALID_FIELD, fatal=False)
    return hold, keepalive, retry


def _ttl_security(security: Fields, multihop: bool, multihop_ttl: int) -> int:
    """The lowest TTL that is accepted from the router (RFC 5082); 0: any."""
    enabled = security.flag("enabled", False)
    lowest = security.number("ttlMin", 0, 0, rules.GTSM_TTL)
    security.done()
    if not enabled:
        return 0
    if multihop and not lowest:
        message = f"is missing: with ebgpMultihop, write {rules.GTSM_TTL} less the number of routers in between."
        security.wrong("ttlMin", message, Reason.MISSING_FIELD)
    if multihop and multihop_ttl not in (0, rules.GTSM_TTL):
        message = f"needs ebgpMultihop.multihopTtl to be {rules.GTSM_TTL} or absent: the router checks it (RFC 5082)."
        security.wrong("", message)
    return lowest or rules.GTSM_TTL


def parse_graceful_restart(spec: Fields) -> int | None:
    """The restart time in ``gracefulRestart`` in seconds, 0 for off, None if it is not set."""
    if not spec.has("gracefulRestart"):
        spec.raw("gracefulRestart")
        return None
    restart = spec.object("gracefulRestart")
    enabled = restart.flag("enabled", True)
    seconds = restart.number("restartTime", 0, 0, rules.MAX_RESTART)
    restart.unsupported(
        [
            "helperOnly",
            "deferralTime",
            "notificationEnabled",
            "longlivedEnabled",
            "staleRoutesTime",
            "peerRestartTime",
            "peerRestarting",
            "localRestarting",
            "mode",
        ]
    )
    restart.done()
    return (seconds or BgpConf().graceful_restart) if enabled else 0


def _bfd(bfd: Fields) -> BfdSettings | None:
    """None if BFD is not enabled. Intervals in milliseconds."""
    default = BfdSettings()
    enabled = bfd.flag("enabled", False)
    settings = BfdSettings(
        detect_multiplier=bfd.number("detectMultiplier", default.detect_multiplier, MIN_MULTIPLIER, MAX_MULTIPLIER),
        min_transmit=bfd.number("minTransmit", default.min_transmit, MIN_INTERVAL, MAX_INTERVAL),
        min_receive=bfd.number("minReceive", default.min_receive, MIN_INTERVAL, MAX_INTERVAL),
        passive=bfd.flag("passiveMode", default.passive),
        minimum_ttl=bfd.number("minimumTtl", default.minimum_ttl, 1, 255),
        strict=bfd.flag("strict", default.strict),
    )
    bfd.unsupported(["authentication", "echoMode", "echoInterval", "demandMode"])
    bfd.done()
    return settings if enabled else None


def _advertise_policy(spec: Fields, advertise: tuple[AdvertiseRule, ...]) -> bool:
    """Whether all matching rules apply together."""
    policy = spec.text("advertisePolicy") or "first"
    if policy not in ("first", "union"):
        spec.wrong("advertisePolicy", f"{show(policy)} is neither first nor union.")
    if policy != "union":
        return False
    if found := conflict(advertise):
        one, other, name = found
        message = (
            f"is union, and advertise[{one}] and advertise[{other}] have different values of {name} and may match the "
            "same address. Give both the same value, or name different eips."
        )
        spec.wrong("advertisePolicy", message)
    return True


def _families(spec: Fields) -> tuple[tuple[int, ...], int]:
    """IP versions to announce, and the largest sendMax."""
    entries = spec.objects("afiSafis")
    if not entries:
        return (4, 6), 0
    found: set[int] = set()
    add_path = 0
    for entry in entries:
        config = entry.object("config")
        family = config.object("family")
        afi, safi = family.text("afi"), family.text("safi") or "SAFI_UNICAST"
        family.done()
        enabled = config.flag("enabled", True)
        config.done()
        paths = entry.object("addPaths")
        path = paths.object("config")
        most = path.number("sendMax", 0, 0, 255)
        path.unsupported(["receive"], "has no effect: routes that peers send are never used")
        path.done()
        paths.done()
        entry.unsupported(["mpGracefulRestart"], "has no effect: see spec.gracefulRestart, which is for all families")
        entry.done()
        if not afi:
            family.missing("afi", "AFI_IP or AFI_IP6")
        elif afi not in _FAMILIES or safi != "SAFI_UNICAST":
            shown = f"{afi[:40]}/{safi[:40]}"
            message = f"{shown} is not supported and is left out: only AFI_IP and AFI_IP6 with SAFI_UNICAST are."
            family.wrong("", message, Reason.UNSUPPORTED_FIELD, fatal=False)
        elif enabled:
            found.add(_FAMILIES[afi])
            add_path = max(add_path, most)
    if not found and not is_fatal(spec.problems):
        spec.wrong("afiSafis", "leaves no address family. Enable AFI_IP or AFI_IP6, or leave the list out.")
    return tuple(sorted(found)), add_path
