"""A Service: whether we manage it, and its settings."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from porterlb.core import sentences
from porterlb.core.model import Address, Port, Protocol, Service, ServiceKey, TrafficPolicy
from porterlb.core.parse.addresses import parse_address, respelled
from porterlb.core.parse.fields import entries, mapping, plain, show
from porterlb.core.parse.meta import DOMAINS, Meta, duplicate_spellings, is_fatal, parse_meta
from porterlb.core.problems import Parsed, Problem, Reason

CLASS = "network.kubesphere.io/porterlb"
OURS = "lb.kubesphere.io/v1alpha1"
_OURS_VALUES = ("porter", "openelb")

_WEIGHT = ("weight", "v1alpha1")
_HEAVIEST = 1000
_ASKS = (("eip", "v1alpha1"), ("eip", "v1alpha2"), ("protocol", "v1alpha1"), ("share", "v1alpha1"), _WEIGHT)
_LAYER2 = ("layer2", "v1alpha1")  # we write it too, in the first spelling, which may differ from an old second one
_VERSIONS = {"IPv4": 4, "IPv6": 6}

_METALLB = ("metallb.io", "metallb.universe.tf")
_METALLB_SHARING = "allow-shared-ip"
_METALLB_REMEDIES = {
    "loadBalancerIPs": f"Write eip.{DOMAINS[0]}/v1alpha1 to ask for an address.",
    "address-pool": f"Write eip.{DOMAINS[0]}/v1alpha2 with the name of an Eip.",
}
_NAME = re.compile(r"[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?(?<![0-9])")  # a DNS subdomain that is not a number
_CLASS_WORDS = ("porter", "openelb", "kubesphere")
OUR_MANAGER = "porterlb"
"""Field manager of the leader; those of the replicas begin with it."""


def parse_service(obj: Mapping[str, Any], claim_without_class: bool) -> Parsed[Service] | None:
    """Any JSON object to a Service that we manage and its problems; None if we do not manage it. Never raises.

    A problem is fatal only if it makes the wanted address unclear, and only while the Service holds no address: if it
    holds one, it keeps it. ``claim_without_class``: the setting of that name.
    """
    meta = parse_meta(obj)
    spec = mapping(obj.get("spec") if isinstance(obj, Mapping) else None)
    if not _is_ours(meta, spec, claim_without_class):
        return None
    problems: list[Problem] = []
    if not meta.name or not meta.namespace:
        problems.append(Problem(Reason.MISSING_FIELD, "is missing: a Service has a name and a namespace.", "metadata"))
    held = _held(mapping(obj.get("status")))
    wanted = _wanted_addresses(meta, spec, problems, held=bool(held))
    families = _families(spec, wanted or held, problems)
    for address in wanted:
        if address.version not in families:
            shown = sentences.families(families)
            message = f"{address} is not of the Service's ipFamilies ({shown})."
            problems.append(Problem(Reason.FAMILY_UNAVAILABLE, message, _wanted_path(meta), fatal=False))
    _check_annotations(meta, problems)
    service = Service(
        key=ServiceKey(meta.namespace, meta.name),
        uid=meta.uid,
        created=meta.created,
        resource_version=meta.resource_version,
        generation=meta.generation,
        labels=meta.labels,
        ports=_ports(spec, problems),
        traffic_policy=_traffic_policy(spec, problems),
        health_check_port=_health_check_port(spec),
        selector=tuple(sorted((k, v) for k, v in mapping(spec.get("selector")).items() if isinstance(v, str))),
        families=families,
        dual_stack_required=spec.get("ipFamilyPolicy") == "RequireDualStack",
        held=held,
        wanted_addresses=wanted,
        wanted_eip=meta.annotation("eip", "v1alpha2"),
        protocol=_protocol(meta, problems),
        sharing_key=meta.annotation("share", "v1alpha1") or _metallb(meta, _METALLB_SHARING),
        shares_anywhere=not meta.annotation("share", "v1alpha1") and bool(_metallb(meta, _METALLB_SHARING)),
        pinned_node=meta.annotation(*_LAYER2),
        foreign_writer=_foreign_writer(obj) if held else "",
        weight=_weight(meta, problems),
    )
    return Parsed(None if is_fatal(problems) else service, tuple(problems))


def _is_ours(meta: Meta, spec: Mapping[str, Any], claim_without_class: bool) -> bool:
    if spec.get("type") != "LoadBalancer":
        return False
    class_ = spec.get("loadBalancerClass")
    if class_:
        return bool(class_ == CLASS)
    marked = meta.annotations.get(OURS, "").strip()
    if marked:
        return marked in _OURS_VALUES
    return claim_without_class


def class_hint(obj: Mapping[str, Any]) -> str:
    """A sentence if a Service names a loadBalancerClass that resembles ours but differs from it; else empty."""
    spec = mapping(obj.get("spec") if isinstance(obj, Mapping) else None)
    class_ = spec.get("loadBalancerClass")
    if spec.get("type") != "LoadBalancer" or not isinstance(class_, str) or class_ == CLASS:
        return ""
    if not any(word in class_.lower() for word in _CLASS_WORDS):
        return ""
    return f"{show(class_)} is not the class of PorterLB, so PorterLB ignores the Service. Write {CLASS}."


def addresses_elsewhere(obj: Mapping[str, Any], *, ours: bool) -> tuple[Address, ...]:
    """The addresses whose traffic kube-proxy sends to this Service and that we have not assigned to it.

    spec.externalIPs of any Service; status.loadBalancer.ingress of a Service that is not ``ours``.
    """
    spec = mapping(obj.get("spec") if isinstance(obj, Mapping) else None)
    external = spec.get("externalIPs")
    texts: list[object] = list(external) if isinstance(external, list | tuple) else []
    found = [address for text in texts if (address := parse_address(text)) is not None]
    if not ours and spec.get("type") == "LoadBalancer":
        found += _held(mapping(obj.get("status")))
    return tuple(dict.fromkeys(found))


def _foreign_writer(obj: Mapping[str, Any]) -> str:
    """The field manager of status.loadBalancer if it is not us. The edge modules keep only these managedFields
    entries."""
    managers = [entry.get("manager") for entry in entries(mapping(obj.get("metadata")).get("managedFields"))]
    return next((name for name in managers if isinstance(name, str) and not name.startswith(OUR_MANAGER)), "")


def _metallb(meta: Meta, name: str) -> str:
    return next((text for domain in _METALLB if (text := meta.annotations.get(f"{domain}/{name}", "").strip())), "")


def _held(status: Mapping[str, Any]) -> tuple[Address, ...]:
    ingress = entries(mapping(status.get("loadBalancer")).get("ingress"))
    found = [address for entry in ingress if (address := parse_address(entry.get("ip"))) is not None]
    return tuple(dict.fromkeys(found))


def _wanted_path(meta: Meta) -> str:
    return meta.given("eip", "v1alpha1") if meta.annotation("eip", "v1alpha1") else "spec.loadBalancerIP"


def _wanted_addresses(
    meta: Meta, spec: Mapping[str, Any], problems: list[Problem], *, held: bool
) -> tuple[Address, ...]:
    """At most one per family; the annotation takes precedence over spec.loadBalancerIP, which is deprecated."""
    path = _wanted_path(meta)
    annotated = meta.annotation("eip", "v1alpha1")
    field = spec.get("loadBalancerIP")
    field = field.strip() if isinstance(field, str) else field
    text = annotated or field
    if not text:
        return ()
    if annotated and field and field != annotated:
        message = f"differs from the annotation {annotated[:80]!r}, and is ignored."
        problems.append(Problem(Reason.INVALID_FIELD, message, "spec.loadBalancerIP", fatal=False))
    kept = " It keeps the address that it has." if held else ""
    found: dict[int, Address] = {}
    for part in text.split(",") if isinstance(text, str) else [text]:
        address, remedy = respelled(part)
        shown = show(part.strip() if isinstance(part, str) else part)
        if address is None:
            remedy = remedy or _eip_instead(part, meta, annotated)
            message = f"{shown} is not an IP address.{f' {remedy}' if remedy else ''}{kept}"
            problems.append(Problem(Reason.INVALID_ADDRESS, message, path, fatal=not held))
            return ()
        if remedy:
            message = f"{shown} is read as {address}. {remedy}"
            problems.append(Problem(Reason.INVALID_ADDRESS, message, path, fatal=False))
        if address.version in found and found[address.version] != address:
            message = f"has two IPv{address.version} addresses; {address} is ignored."
            problems.append(Problem(Reason.INVALID_ADDRESS, message, path, fatal=False))
        found.setdefault(address.version, address)
    return tuple(found.values())


def _eip_instead(part: object, meta: Meta, annotated: str) -> str:
    """The remedy if the name of an Eip was written in place of an address."""
    if not isinstance(part, str) or not _NAME.fullmatch(part.strip()):
        return ""
    key = f"eip.{DOMAINS[0]}/v1alpha2"
    where = meta.given("eip", "v1alpha1").replace("/v1alpha1", "/v1alpha2") if annotated else ""
    return f"To ask for the Eip {part.strip()}, write {where.removeprefix('metadata.annotations[').rstrip(']') or key}."


def _families(spec: Mapping[str, Any], known: tuple[Address, ...], problems: list[Problem]) -> tuple[int, ...]:
    """IP versions in order. The API server sets ipFamilies; a manually written manifest may omit it."""
    given = spec.get("ipFamilies")
    policy = spec.get("ipFamilyPolicy")
    found: list[int] = []
    for name in given if isinstance(given, list | tuple) else ():
        version = _VERSIONS.get(name) if isinstance(name, str) else None
        if version is None:
            message = f"{show(name)} is neither IPv4 nor IPv6, and is ignored."
            problems.append(Problem(Reason.INVALID_FIELD, message, "spec.ipFamilies", fatal=False))
        elif version not in found:
            found.append(version)
    if policy not in (None, "SingleStack", "PreferDualStack", "RequireDualStack"):
        message = f"{show(policy)} is not one of SingleStack, PreferDualStack, RequireDualStack, and is ignored."
        problems.append(Problem(Reason.INVALID_FIELD, message, "spec.ipFamilyPolicy", fatal=False))
    dual = policy == "RequireDualStack" or (policy == "PreferDualStack" and not found)
    if not found:
        found = list(dict.fromkeys(address.version for address in known)) or [4]
    if dual:
        found += [version for version in (4, 6) if version not in found]
    return tuple(found)


def _ports(spec: Mapping[str, Any], problems: list[Problem]) -> frozenset[Port]:
    found = set()
    for entry in entries(spec.get("ports")):
        number, protocol = entry.get("port"), entry.get("protocol") or "TCP"
        if (
            isinstance(number, int)
            and not isinstance(number, bool)
            and 0 < number < 65536
            and isinstance(protocol, str)
        ):
            found.add(Port(protocol, number))
        else:
            message = f"{show(protocol)} {show(number)} is not a port, and is ignored."
            problems.append(Problem(Reason.INVALID_FIELD, message, "spec.ports", fatal=False))
    return frozenset(found)


def _traffic_policy(spec: Mapping[str, Any], problems: list[Problem]) -> TrafficPolicy:
    value = spec.get("externalTrafficPolicy")
    if value in ("Local", "Cluster"):
        return TrafficPolicy(value)
    if value is not None and value != "":
        message = f"{show(value)} is neither Cluster nor Local, and is treated as Cluster."
        problems.append(Problem(Reason.INVALID_FIELD, message, "spec.externalTrafficPolicy", fatal=False))
    return TrafficPolicy.CLUSTER


def _health_check_port(spec: Mapping[str, Any]) -> int:
    """The API server sets it for Services with policy Local; any other value counts as none."""
    port = spec.get("healthCheckNodePort")
    return port if isinstance(port, int) and 0 < port < 65536 else 0


def _protocol(meta: Meta, problems: list[Problem]) -> Protocol | None:
    text = meta.annotation("protocol", "v1alpha1")
    if not text:
        return None
    if text in list(Protocol):
        return Protocol(text)
    path = meta.given("protocol", "v1alpha1")
    if text == "vip":
        message = '"vip" is not supported: the protocol of the Eip is used.'
        problems.append(Problem(Reason.UNSUPPORTED_FIELD, message, path, fatal=False))
    else:
        message = f"{show(text)} is not one of auto, bgp, layer2: the protocol of the Eip is used."
        problems.append(Problem(Reason.INVALID_FIELD, message, path, fatal=False))
    return None


def _weight(meta: Meta, problems: list[Problem]) -> int:
    """The weight of one of its VIPs if VIPs are placed by load."""
    text = meta.annotation(*_WEIGHT)
    if not text:
        return 1
    if text.isascii() and text.isdecimal() and len(text) <= len(str(_HEAVIEST)) and 1 <= int(text) <= _HEAVIEST:
        return int(text)
    message = f"{show(text)} is not a whole number from 1 to {_HEAVIEST}: each address counts with the weight 1."
    problems.append(Problem(Reason.INVALID_FIELD, message, meta.given(*_WEIGHT), fatal=False))
    return 1


def _check_annotations(meta: Meta, problems: list[Problem]) -> None:
    """Warns of unknown annotations of our domains, and of contradicting spellings."""
    known = {f"{kind}.{domain}/{version}" for kind, version in (*_ASKS, _LAYER2) for domain in DOMAINS}
    for key in meta.annotations:
        if key not in known and key.partition("/")[0].endswith(DOMAINS):
            message = "is not a known annotation of a Service and has no effect."
            path = f"metadata.annotations[{plain(key)}]"
            problems.append(Problem(Reason.UNSUPPORTED_FIELD, message, path, fatal=False))
        domain, _, name = key.partition("/")
        if domain in _METALLB and name in _METALLB_REMEDIES:
            message = f"is an annotation of MetalLB and has no effect. {_METALLB_REMEDIES[name]}"
            path = f"metadata.annotations[{plain(key)}]"
            problems.append(Problem(Reason.UNSUPPORTED_FIELD, message, path, fatal=False))
    for kind, version in _ASKS:
        duplicate_spellings(meta, kind, version, problems)
