"""A Node: a possible destination of traffic."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal, InvalidOperation
from typing import Any

from porterlb.core.model import Address, Node, Ready
from porterlb.core.parse.addresses import parse_address
from porterlb.core.parse.fields import entries, mapping, show
from porterlb.core.parse.meta import Meta, is_fatal, parse_meta
from porterlb.core.problems import Parsed, Problem, Reason

EXCLUDED = "node.kubernetes.io/exclude-from-external-load-balancers"  # label; its value does not matter (KEP-1143)
_OUT_OF_SERVICE = "node.kubernetes.io/out-of-service"  # taint (KEP-2268)
_CAPACITY = ("capacity", "v1alpha1")  # annotation
_FULL = 100
_LEAST, _MOST = Decimal("0.1"), Decimal(100)  # capacities


DRAIN = ("drain", "v1alpha2")
"""Annotation: ``drain.porter.kubesphere.io/v1alpha2``; any value but ``false`` drains the node."""


def parse_node(
    obj: Mapping[str, Any], *, ignore_exclude_label: bool = False, drain_cordoned: bool = False
) -> Parsed[Node]:
    """Any JSON object to a Node and its problems; never raises.

    ``ignore_exclude_label``, ``drain_cordoned``: the settings of these names.

    A node without a Ready condition counts as ready: its state was never reported, as in a directory of manifests.
    """
    problems: list[Problem] = []
    meta = parse_meta(obj)
    spec, status = (mapping(obj.get(part) if isinstance(obj, Mapping) else None) for part in ("spec", "status"))
    if not meta.name:
        problems.append(Problem(Reason.MISSING_FIELD, "is missing: every object needs a name.", "metadata.name"))
    conditions = {
        entry["type"]: entry.get("status")
        for entry in entries(status.get("conditions"))
        if isinstance(entry.get("type"), str)
    }
    ready = conditions.get("Ready", "True")
    cordoned = spec.get("unschedulable") is True
    node = Node(
        name=meta.name,
        addresses=_addresses(status, problems),
        other_addresses=_other_addresses(status),
        labels=meta.labels,
        ready=Ready(ready) if ready in list(Ready) else Ready.UNKNOWN,
        network_unavailable=conditions.get("NetworkUnavailable") == "True",
        excluded=EXCLUDED in meta.labels and not ignore_exclude_label,
        out_of_service=any(taint.get("key") == _OUT_OF_SERVICE for taint in entries(spec.get("taints"))),
        cordoned=cordoned,
        draining=meta.annotation(*DRAIN).lower() not in ("", "false") or (drain_cordoned and cordoned),
        capacity=_capacity(meta, problems),
    )
    return Parsed(None if is_fatal(problems) else node, tuple(problems))


def _capacity(meta: Meta, problems: list[Problem]) -> int:
    """In hundredths of the default."""
    text = meta.annotation(*_CAPACITY)
    if not text:
        return _FULL
    try:
        number = Decimal(text)
    except InvalidOperation:
        number = Decimal(0)
    if number.is_finite() and _LEAST <= number <= _MOST:
        return int(number * _FULL)
    message = f"{show(text)} is not a number from {_LEAST} to {_MOST}: the node counts with the capacity 1."
    problems.append(Problem(Reason.INVALID_FIELD, message, meta.given(*_CAPACITY), fatal=False))
    return _FULL


def _addresses(status: Mapping[str, Any], problems: list[Problem]) -> tuple[Address, ...]:
    found: list[Address] = []
    for entry in entries(status.get("addresses")):
        if entry.get("type") != "InternalIP":
            continue
        address = parse_address(entry.get("address"))
        if address is not None:
            found.append(address)
        else:
            message = f"{show(entry.get('address'))} is not an IP address, and is ignored."
            problems.append(Problem(Reason.INVALID_ADDRESS, message, "status.addresses", fatal=False))
    return tuple(dict.fromkeys(found))


def _other_addresses(status: Mapping[str, Any]) -> tuple[Address, ...]:
    """Addresses that are neither InternalIPs nor names."""
    others = [entry for entry in entries(status.get("addresses")) if entry.get("type") != "InternalIP"]
    found = [address for entry in others if (address := parse_address(entry.get("address"))) is not None]
    return tuple(dict.fromkeys(found))
