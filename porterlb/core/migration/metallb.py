"""MetalLB's objects (metallb.io/v1beta1, v1beta2) to Eips, BgpConf and BgpPeers.

Source: MetalLB's API reference, v0.16. An address pool becomes an Eip of the same name, a BGPPeer a BgpPeer of the same
name. Advertisements become the protocol of Eips and the rules of BgpPeers.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from porterlb.core.migration.value import (
    API_VERSION,
    Conversion,
    Object,
    mapping,
    mappings,
    matches,
    name_of,
    subject,
    texts,
)

GROUP = "metallb.io"
LAST = 2**31 - 1
"""Priority 0 in MetalLB: used after all others."""

SERVICE_ANNOTATIONS = {
    "loadBalancerIPs": "eip.porter.kubesphere.io/v1alpha1",
    "address-pool": "eip.porter.kubesphere.io/v1alpha2",
}
"""Annotations of Services: the part after the prefix -> ours. PorterLB reads ``allow-shared-ip`` itself."""
PREFIXES = ("metallb.io/", "metallb.universe.tf/")


def convert(objects: Iterable[Object]) -> Conversion:
    """Converts all objects of an installation together: pools, advertisements, peers, communities, BFD profiles,
    Services."""
    made = Conversion()
    listed = [obj for obj in objects if isinstance(obj, Mapping)]
    by_kind: dict[str, list[Object]] = {}
    for obj in listed:
        group = str(obj.get("apiVersion", "")).rpartition("/")[0]
        if group == GROUP or obj.get("kind") == "Service":
            by_kind.setdefault(str(obj.get("kind")), []).append(obj)
    pools = sorted([*by_kind.get("IPAddressPool", []), *by_kind.get("AddressPool", [])], key=name_of)
    peers = sorted(by_kind.get("BGPPeer", []), key=name_of)
    layer2, bgp = by_kind.get("L2Advertisement", []), by_kind.get("BGPAdvertisement", [])
    for kind in sorted(by_kind.keys() - _KNOWN):
        made.lost(kind, "PorterLB has no such kind.")
    made.manifests += [_eip(pool, layer2, bgp, made) for pool in pools]
    own = _own_as(peers)
    if own:
        made.manifests.append(_object("BgpConf", "default", {"as": own}))
    names = _communities(by_kind.get("Community", []))
    profiles = {name_of(profile): profile for profile in by_kind.get("BFDProfile", [])}
    for peer in peers:
        made.manifests.append(_peer(peer, own, profiles, _rules(peer, pools, bgp, names, made), made))
    for service in by_kind.get("Service", []):
        _service(service, made)
    return made


_KNOWN = {
    "IPAddressPool", "AddressPool", "L2Advertisement", "BGPAdvertisement", "BGPPeer", "Community", "BFDProfile",
    "Service",
}  # fmt: skip


def _object(kind: str, name: str, spec: Mapping[str, Any]) -> dict[str, Any]:
    return {"apiVersion": API_VERSION, "kind": kind, "metadata": {"name": name}, "spec": dict(spec)}


def _selects(advertisement: Object, pool: Object) -> bool:
    spec = mapping(advertisement.get("spec"))
    named, selectors = texts(spec.get("ipAddressPools")), mappings(spec.get("ipAddressPoolSelectors"))
    labels = mapping(mapping(pool.get("metadata")).get("labels"))
    if not named and not selectors:
        return True
    return name_of(pool) in named or any(matches(selector, labels) for selector in selectors)


def _eip(pool: Object, layer2: Sequence[Object], bgp: Sequence[Object], made: Conversion) -> dict[str, Any]:
    who, spec = subject(pool), mapping(pool.get("spec"))
    told: dict[str, Any] = {"address": ",".join(texts(spec.get("addresses")))}
    by_layer2 = [one for one in layer2 if _selects(one, pool)]
    by_bgp = [one for one in bgp if _selects(one, pool)]
    if pool.get("kind") == "AddressPool":
        told["protocol"] = "bgp" if spec.get("protocol") == "bgp" else "layer2"
    else:
        told["protocol"] = _protocol(who, bool(by_layer2), bool(by_bgp), made)
    if spec.get("autoAssign") is False:
        told["autoAssign"] = False
    if spec.get("avoidBuggyIPs") is True:
        told["avoidNetworkAddresses"] = True
    _allocation(who, mapping(spec.get("serviceAllocation")), told, made)
    _layer2(who, by_layer2, told, made)
    return _object("Eip", name_of(pool), told)


def _protocol(who: str, layer2: bool, bgp: bool, made: Conversion) -> str:
    if layer2 and bgp:
        made.differs(who, "MetalLB announces it by BGP and by Layer 2. With auto, BGP serves while it is available.")
        return "auto"
    if not layer2 and not bgp:
        made.differs(who, "No advertisement selects it, so MetalLB does not announce it. The Eip is announced (auto).")
        return "auto"
    return "layer2" if layer2 else "bgp"


def _allocation(who: str, allocation: Object, told: dict[str, Any], made: Conversion) -> None:
    if not allocation:
        return
    priority = allocation.get("priority")
    told["priority"] = priority if isinstance(priority, int) and priority > 0 else LAST
    if namespaces := texts(allocation.get("namespaces")):
        told["namespaces"] = namespaces
    for theirs, ours in (("namespaceSelectors", "namespaceSelector"), ("serviceSelectors", "serviceSelector")):
        selectors = mappings(allocation.get(theirs))
        if len(selectors) == 1:
            told[ours] = dict(selectors[0])
        elif selectors:
            made.lost(who, f"{theirs} has {len(selectors)} selectors, and an Eip has one. Write one Eip for each.")


def _layer2(who: str, advertisements: Sequence[Object], told: dict[str, Any], made: Conversion) -> None:
    """MetalLB announces by each advertisement that selects the pool; an Eip has one list of nodes and of interfaces. An
    advertisement without a list allows everything."""
    specs = [mapping(one.get("spec")) for one in advertisements]
    interfaces = [texts(spec.get("interfaces")) for spec in specs]
    nodes = [mappings(spec.get("nodeSelectors")) for spec in specs]
    layer2: dict[str, Any] = {}
    if interfaces and all(interfaces):
        layer2["interfaces"] = _unique(interfaces)
        if len(layer2["interfaces"]) > 1:
            text = "MetalLB answers on all interfaces of the list, PorterLB on the first that is on the VIP's subnet."
            made.differs(who, text)
    if nodes and all(nodes):
        layer2["nodeSelectors"] = [dict(selector) for selector in _unique(nodes)]
    if any(one != interfaces[0] for one in interfaces) and any(one != nodes[0] for one in nodes):
        names = ", ".join(subject(one) for one in advertisements)
        made.differs(
            who, f"{names}: each has interfaces for its own nodes. With PorterLB all of these nodes may use them."
        )
    if layer2:
        told["layer2"] = layer2


def _unique(lists: Iterable[Iterable[Any]]) -> list[Any]:
    found: list[Any] = []
    for item in (item for items in lists for item in items):
        if item not in found:
            found.append(item)
    return found


def _own_as(peers: Iterable[Object]) -> int:
    """The local AS that most peers use."""
    found = [spec["myASN"] for peer in peers if isinstance((spec := mapping(peer.get("spec"))).get("myASN"), int)]
    return max(sorted(set(found)), key=found.count) if found else 0


def _peer(
    peer: Object, own: int, profiles: Mapping[str, Object], rules: list[dict[str, Any]] | None, made: Conversion
) -> dict[str, Any]:
    who, spec = subject(peer), mapping(peer.get("spec"))
    conf: dict[str, Any] = {"neighborAddress": spec.get("peerAddress", ""), "peerAs": spec.get("peerASN", 0)}
    told: dict[str, Any] = {"conf": conf}
    if spec.get("myASN") != own:
        conf["localAs"] = spec.get("myASN")
    if spec.get("dynamicASN") in ("external", "internal"):
        conf["peerAs"] = spec["dynamicASN"]
    _password(who, spec, conf, made)
    timers = {
        ours: seconds
        for theirs, ours in (("holdTime", "holdTime"), ("keepaliveTime", "keepaliveInterval"))
        if (seconds := _seconds(spec.get(theirs))) is not None
    }
    if timers:
        told["timers"] = {"config": timers}
    transport = {
        ours: spec[theirs]
        for theirs, ours in (("peerPort", "remotePort"), ("sourceAddress", "localAddress"))
        if spec.get(theirs)
    }
    if transport:
        told["transport"] = transport
    if spec.get("ebgpMultiHop"):
        told["ebgpMultihop"] = {"enabled": True}
    if spec.get("enableGracefulRestart") is not None:
        told["gracefulRestart"] = {"enabled": bool(spec["enableGracefulRestart"])}
    _nodes(who, spec, told, made)
    if spec.get("bfdProfile"):
        told["bfd"] = _bfd(who, str(spec["bfdProfile"]), profiles, made)
    if spec.get("routerID"):
        told["overrides"] = [{"routerId": spec["routerID"]}]
    if spec.get("vrf"):
        made.lost(who, f"vrf {spec['vrf']!r}: PorterLB has no such field of a peer.")
    if spec.get("interface"):
        told["interface"] = spec["interface"]
        if not spec.get("peerAddress"):
            del conf["neighborAddress"]
    if rules:
        told["advertise"] = rules
        named = [name for rule in rules for name in rule["eips"]]
        if len(named) > len(set(named)):
            told["advertisePolicy"] = "union"
    elif rules is not None:
        conf["adminDown"] = True
        made.differs(who, "No BGPAdvertisement is for this peer, so nothing is announced to it: adminDown is set.")
    return _object("BgpPeer", name_of(peer), told)


def _password(who: str, spec: Object, conf: dict[str, Any], made: Conversion) -> None:
    secret = mapping(spec.get("passwordSecret"))
    if secret.get("name"):
        conf["authPasswordSecret"] = {"name": secret["name"], "key": "password"}
        made.todo(
            who,
            f"Copy the Secret {secret['name']} into the namespace of PorterLB, and name it in the chart's value "
            "bgp.passwordSecrets.",
        )
    elif spec.get("password"):
        made.todo(who, "Write its password into a Secret, and name that in spec.conf.authPasswordSecret.")


def _nodes(who: str, spec: Object, told: dict[str, Any], made: Conversion) -> None:
    selectors = mappings(spec.get("nodeSelectors"))
    if len(selectors) == 1:
        told["nodeSelector"] = dict(selectors[0])
    elif selectors:
        made.lost(who, f"nodeSelectors has {len(selectors)} selectors, and a BgpPeer has one: it is for all nodes now.")


def _bfd(who: str, name: str, profiles: Mapping[str, Object], made: Conversion) -> dict[str, Any]:
    """RFC 5880 timers in ms; MetalLB's defaults are FRR's: 300 ms x 3."""
    if name not in profiles:
        made.lost(who, f"The BFDProfile {name} is not among the objects. BFD has the defaults of PorterLB.")
        return {"enabled": True}
    spec = mapping(profiles[name].get("spec"))
    if spec.get("echoMode"):
        made.lost(f"BFDProfile {name}", "echoMode: PorterLB uses asynchronous mode only.")
    return {
        "enabled": True,
        "minReceive": spec.get("receiveInterval") or 300,
        "minTransmit": spec.get("transmitInterval") or 300,
        "detectMultiplier": spec.get("detectMultiplier") or 3,
        **({"passiveMode": True} if spec.get("passiveMode") else {}),
        **({"minimumTtl": spec["minimumTtl"]} if spec.get("minimumTtl") else {}),
    }


def _seconds(value: Any) -> int | None:
    """A Go duration (``1m30s``) in whole seconds; None if it is not one."""
    if not isinstance(value, str) or not value:
        return None
    total, digits = 0.0, ""
    units = {"h": 3600.0, "m": 60.0, "s": 1.0}
    rest = value.replace("ms", "x")
    for character in rest:
        if character.isdigit() or character == ".":
            digits += character
        elif digits and (character in units or character == "x"):
            try:
                total += float(digits) * units.get(character, 0.001)
            except ValueError:
                return None
            digits = ""
        else:
            return None
    return None if digits else max(1, round(total))


def _communities(objects: Iterable[Object]) -> dict[str, str]:
    """Alias -> community, of all Community objects."""
    return {
        str(one["name"]): str(one["value"])
        for obj in objects
        for one in mappings(mapping(obj.get("spec")).get("communities"))
        if one.get("name") and one.get("value")
    }


def _rules(
    peer: Object, pools: Sequence[Object], bgp: Sequence[Object], names: Mapping[str, str], made: Conversion
) -> list[dict[str, Any]] | None:
    """``spec.advertise`` of a peer; None if every pool is announced without attributes, empty if none is."""
    who = name_of(peer)
    mine = [one for one in bgp if not (named := texts(mapping(one.get("spec")).get("peers"))) or who in named]
    rules: list[dict[str, Any]] = []
    covered: set[str] = set()
    for one in sorted(mine, key=name_of):
        spec = mapping(one.get("spec"))
        selected = [name_of(pool) for pool in pools if _selects(one, pool)]
        covered.update(selected)
        rule = {"eips": selected, **_aggregation(one, spec, made), **_attributes(one, spec, names, made)}
        nodes = mappings(spec.get("nodeSelectors"))
        if selected and nodes:
            rules += [{**rule, "nodeSelector": dict(selector)} for selector in nodes]
        elif selected and rule not in rules:
            rules.append(rule)
    if all(set(rule) == {"eips"} for rule in rules) and covered == {name_of(pool) for pool in pools}:
        return None
    return rules


def _aggregation(advertisement: Object, spec: Object, made: Conversion) -> dict[str, Any]:
    found = {
        name: spec[name]
        for name, whole in (("aggregationLength", 32), ("aggregationLengthV6", 128))
        if spec.get(name) not in (None, whole)
    }
    if found:
        made.differs(
            subject(advertisement),
            "Services with externalTrafficPolicy Local keep host routes. Set aggregateLocal to aggregate them as well.",
        )
    return found


def _attributes(advertisement: Object, spec: Object, names: Mapping[str, str], made: Conversion) -> dict[str, Any]:
    told: dict[str, Any] = {}
    for community in texts(spec.get("communities")):
        value = names.get(community, community)
        if value.startswith("large:"):
            told.setdefault("largeCommunities", []).append(value.removeprefix("large:"))
        elif ":" in value:
            told.setdefault("communities", []).append(value)
        else:
            made.lost(subject(advertisement), f"There is no Community with the name {community}.")
    if spec.get("localPref"):
        told["localPref"] = spec["localPref"]
    return told


def _service(service: Object, made: Conversion) -> None:
    """The settings that a Service requests of MetalLB by annotations, and the command that requests the same of
    PorterLB."""
    metadata = mapping(service.get("metadata"))
    name, namespace = str(metadata.get("name", "")), str(metadata.get("namespace", "default"))
    for key, value in sorted(mapping(metadata.get("annotations")).items()):
        prefix = next((one for one in PREFIXES if str(key).startswith(one)), None)
        ours = SERVICE_ANNOTATIONS.get(str(key).removeprefix(prefix)) if prefix else None
        if ours:
            made.todo(subject(service), f"kubectl -n {namespace} annotate service {name} {ours}={value}")
    klass = mapping(service.get("spec")).get("loadBalancerClass")
    if klass:
        made.todo(
            subject(service),
            f"It has the loadBalancerClass {klass}, which cannot be changed: create it again without the class.",
        )
