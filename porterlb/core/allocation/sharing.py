"""Whether two Services may have the same address."""

from __future__ import annotations

from porterlb.core.model import Service, TrafficPolicy


def why_not_shared(one: Service, other: Service) -> str:
    """Empty if the two may share an address, else the reason as the rest of a sentence. Symmetric in its meaning.

    The same sharing key in the same namespace, no common (protocol, port), and the same nodes to send traffic to:
    both have externalTrafficPolicy Cluster, or both select the same pods (without a selector nobody knows).
    """
    if not one.sharing_key or one.sharing_key != other.sharing_key:
        return "they do not have the same sharing key"
    if one.key.namespace != other.key.namespace:
        return "they are in different namespaces"
    both = one.ports & other.ports
    if both:
        ports = ", ".join(f"{port.protocol}/{port.number}" for port in sorted(both)[:3])
        return f"both use {ports}"
    cluster = one.traffic_policy is TrafficPolicy.CLUSTER and other.traffic_policy is TrafficPolicy.CLUSTER
    if not cluster and not (one.selector and one.selector == other.selector):
        return "at least one has externalTrafficPolicy Local, and they do not select the same pods"
    return ""
