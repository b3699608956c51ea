"""Whether two Services may have the same address."""

from __future__ import annotations

from porterlb.core.model import Service, TrafficPolicy


def group_of(service: Service) -> tuple[str, str] | None:
    """The sharing group of the Service: namespace and key; MetalLB's key applies in all namespaces."""
    if not service.sharing_key:
        return None
    return "" if service.shares_anywhere else service.key.namespace, service.sharing_key


def sharing_terms(service: Service) -> tuple[object, ...]:
    """The fields of a Service that decide with which Services it can share an address."""
    return service.ports, service.traffic_policy, service.selector, group_of(service)


def why_not_shared(one: Service, other: Service, *, both_have_it: bool = False) -> str:
    """Empty if the two may share an address, otherwise the reason as the rest of a sentence. Symmetric in its meaning.

    Conditions: the same sharing key in the same namespace, no common (protocol, port), and the same nodes for their
    traffic. That is, both have externalTrafficPolicy Cluster, or both select the same pods (unknown without a
    selector). ``both_have_it``: they have the address already, so no key is needed (OpenELB has no keys).
    """
    if not both_have_it:
        if not one.sharing_key or one.sharing_key != other.sharing_key:
            return "they do not have the same sharing key"
        if group_of(one) != group_of(other):
            return "they are in different namespaces"
    both = one.ports & other.ports
    if both:
        ports = ", ".join(f"{port.protocol}/{port.number}" for port in sorted(both)[:3])
        return f"both use {ports}"
    cluster = one.traffic_policy is TrafficPolicy.CLUSTER and other.traffic_policy is TrafficPolicy.CLUSTER
    if not cluster and not (one.selector and one.selector == other.selector):
        return "at least one has externalTrafficPolicy Local, and they do not select the same pods"
    return ""
