"""What is read from objects and from the states of replicas: without the planner, since commands load this module."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any


def status_of(obj: Mapping[str, Any]) -> Mapping[str, Any]:
    found = obj.get("status")
    return found if isinstance(found, Mapping) else {}


def version_of(obj: Mapping[str, Any]) -> str:
    return str((obj.get("metadata") or {}).get("resourceVersion") or "")


def ingress(status: Mapping[str, Any]) -> list[tuple[str, str]]:
    """(ip, ipMode) of each entry. If absent, ``ipMode`` is VIP, the API server's default (KEP-1860)."""
    found = (status.get("loadBalancer") or {}).get("ingress") or ()
    return [(str(e.get("ip") or e.get("hostname")), str(e.get("ipMode") or "VIP")) for e in found]


def entries(status: Mapping[str, Any] | None) -> Mapping[str, Mapping[str, Any]]:
    """The entries of all nodes in a BgpPeer's status; tolerates invalid values."""
    found = (status or {}).get("nodesPeerStatus")
    if not isinstance(found, Mapping):
        return {}
    return {str(node): entry for node, entry in found.items() if isinstance(entry, Mapping)}


def askers_by_node(by_vip: Iterable[Mapping[str, int]]) -> dict[str, int]:
    """The number of known hosts of several spread VIPs together, by the node that is their next hop."""
    found: Counter[str] = Counter()
    for counts in by_vip:
        found.update(counts)
    return dict(sorted(found.items()))
