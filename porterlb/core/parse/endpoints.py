"""EndpointSlices: the nodes of a Service's pods."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from porterlb.core.model import Endpoint, ServiceKey
from porterlb.core.parse.fields import entries, mapping
from porterlb.core.parse.meta import parse_meta

_SERVICE = "kubernetes.io/service-name"  # label of every EndpointSlice that belongs to a Service
_VERSIONS = {"IPv4": 4, "IPv6": 6}


def parse_endpoint_slice(obj: Mapping[str, Any]) -> tuple[ServiceKey, tuple[Endpoint, ...]] | None:
    """Any JSON object to a Service and its endpoints in this slice; None if it belongs to no Service. Never raises.

    Conditions as the API defines them (discovery.k8s.io/v1): no ``ready`` means ready; no ``serving`` means the same as
    ready; no ``terminating`` means not terminating. A slice of names (FQDN) has no endpoint that a node could serve.
    """
    meta = parse_meta(obj)
    name = meta.labels.get(_SERVICE, "")
    if not name or not meta.namespace:
        return None
    kind = obj.get("addressType")
    if kind == "FQDN":
        return ServiceKey(meta.namespace, name), ()
    version = _VERSIONS.get(kind, 0) if isinstance(kind, str) else 0
    found = [_endpoint(entry, version) for entry in entries(obj.get("endpoints"))]
    return ServiceKey(meta.namespace, name), merge([found])


def _endpoint(entry: Mapping[str, Any], version: int) -> Endpoint:
    conditions = mapping(entry.get("conditions"))
    ready = conditions.get("ready") is not False
    serving = conditions.get("serving")
    node = entry.get("nodeName")
    hinted = [hint.get("name") for hint in entries(mapping(entry.get("hints")).get("forNodes"))]
    return Endpoint(
        node=node if isinstance(node, str) else "",
        ready=ready,
        serving=serving if isinstance(serving, bool) else ready,
        terminating=conditions.get("terminating") is True,
        version=version,
        same_node=isinstance(node, str) and node in hinted,
    )


def merge(slices: Iterable[Iterable[Endpoint]]) -> tuple[Endpoint, ...]:
    """The endpoints of one Service from all its slices: each kind once for each node, in a fixed order.

    The choice of next hops does not depend on the number of pods of one kind on a node, nor on their distribution over
    slices. Therefore equal sets are equal values.
    """
    found = {endpoint for endpoints in slices for endpoint in endpoints}
    return tuple(
        sorted(found, key=lambda e: (e.node, not e.ready, not e.serving, e.terminating, e.version, e.same_node))
    )
