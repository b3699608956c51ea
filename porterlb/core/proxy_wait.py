"""Next hops that wait until their node's kube-proxy can deliver.

With externalTrafficPolicy Local, an endpoint that becomes ready makes its node a next hop. The node's kube-proxy
programs the endpoint up to a second later and drops packets that arrive before. Therefore the next hop waits until the
node's health check for the Service answers (KEP-3836, Service.spec.healthCheckNodePort), or for a bounded time. It
waits only while the Service has another next hop.

The state is a value: `step` takes the state before and returns the state now.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace

from porterlb.core.model import Endpoint, Service, ServiceKey, TrafficPolicy

Endpoints = Mapping[ServiceKey, tuple[Endpoint, ...]]


@dataclass(frozen=True, slots=True)
class ProxyPolicy:
    """Seconds. ``delay``: how long a next hop waits if the Service has no health check port. kube-proxy writes its
    rules at most once a second. ``limit``: how long a next hop waits for a health check that does not answer."""

    delay: float = 1.5
    limit: float = 5.0


@dataclass(frozen=True, slots=True)
class NewHop:
    """A node that has become a next hop of a Service. ``port``: its health check port; 0: none."""

    service: ServiceKey
    node: str
    port: int = 0


@dataclass(frozen=True, slots=True)
class ProxyWait:
    """``endpoints``: as last seen. ``waiting``: since when (monotonic seconds) each next hop waits. ``dead``: nodes
    that were dead."""

    endpoints: Endpoints = field(default_factory=dict)
    waiting: Mapping[NewHop, float] = field(default_factory=dict)
    dead: frozenset[str] = frozenset()


def step(
    before: ProxyWait | None,
    services: Mapping[ServiceKey, Service],
    endpoints: Endpoints,
    dead: frozenset[str],
    delivering: Collection[NewHop],
    now: float,
    policy: ProxyPolicy,
    exempt: Collection[str] = (),
) -> ProxyWait:
    """The state now.

    Args:
        before: None at the start, when every next hop counts as settled.
        dead: nodes that are dead now. The endpoints of a node that returns are new.
        delivering: next hops whose health check has answered.
        now: monotonic seconds.
        exempt: nodes that do not wait when they return: see :func:`porterlb.core.node_return.exempt_nodes`.
    """
    if before is None:
        return ProxyWait(endpoints, {}, dead)
    waiting = {
        hop: since
        for hop, since in before.waiting.items()
        if hop not in delivering
        and hop.node not in dead
        and now < since + _patience(hop, policy)
        and hop.service in services
        and hop.node in _ready(endpoints.get(hop.service, ()))
    }
    for key in _changed(before.endpoints, endpoints):
        fresh = _ready(endpoints.get(key, ())) - _ready(before.endpoints.get(key, ()))
        if key in before.endpoints:
            _add(waiting, services.get(key), fresh - dead, now)
    returned = before.dead - dead - frozenset(exempt)
    if returned:
        for key, found in endpoints.items():
            _add(waiting, services.get(key), _ready(found) & returned, now)
    return ProxyWait(endpoints, waiting, dead)


def settled(state: ProxyWait, cache: Endpoints) -> Endpoints:
    """The endpoints without the waiting ones. ``cache``: the last result; equal values stay the same objects."""
    if not state.waiting:
        return state.endpoints
    held: dict[ServiceKey, set[str]] = {}
    for hop in state.waiting:
        held.setdefault(hop.service, set()).add(hop.node)
    found = dict(state.endpoints)
    for key, nodes in held.items():
        if _ready(found[key]) - nodes - state.dead:
            without = tuple(replace(e, ready=False, serving=False) if e.node in nodes else e for e in found[key])
            found[key] = cache[key] if cache.get(key) == without else without
    return found


def wakes_at(state: ProxyWait, policy: ProxyPolicy) -> float | None:
    """When a wait next ends only because time passes (monotonic seconds), or None."""
    return min((since + _patience(hop, policy) for hop, since in state.waiting.items()), default=None)


def _patience(hop: NewHop, policy: ProxyPolicy) -> float:
    return policy.limit if hop.port else policy.delay


def _add(waiting: dict[NewHop, float], service: Service | None, nodes: Collection[str], now: float) -> None:
    if service is not None and service.traffic_policy is TrafficPolicy.LOCAL:
        for node in nodes:
            waiting.setdefault(NewHop(service.key, node, service.health_check_port), now)


def _changed(before: Endpoints, after: Endpoints) -> list[ServiceKey]:
    if before is after:
        return []
    return [key for key, found in after.items() if before.get(key) is not found]


def _ready(endpoints: Collection[Endpoint]) -> frozenset[str]:
    return frozenset(endpoint.node for endpoint in endpoints if endpoint.ready and endpoint.node)
