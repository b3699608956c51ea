"""The plan alone: the duration of one plan, by the number of Services and of nodes.

Times are processor time of this process: other load of the machine has little effect. The cluster: every node has a
replica and a session with each of two routers (without add-path); the VIPs are in a /12 of the nodes' segment; each
Service has three endpoints, as in one EndpointSlice.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import replace
from ipaddress import ip_address, ip_interface
from statistics import median

from bench.report import Table
from porterlb.collector import collect_seldom
from porterlb.core.bgp.negotiated import Negotiated
from porterlb.core.mode import ModePolicy
from porterlb.core.model import (
    AddressRange,
    BgpConf,
    Eip,
    Endpoint,
    Member,
    Node,
    Peer,
    Port,
    Service,
    ServiceKey,
    Snapshot,
    TrafficPolicy,
    View,
)
from porterlb.core.persistent import PersistentMap
from porterlb.core.plan import Plan, plan, plan_steps

POLICY = ModePolicy()
collect_seldom()  # as the manager does
ROUTERS = ("tor-1", "tor-2")
FIRST_VIP = int(ip_address("10.16.0.0"))
AGREED = Negotiated((4,), hold_time=9)
POOL = 4  # number of Eips that share the VIPs


def cluster(services: int, nodes: int, policy: TrafficPolicy) -> Snapshot:
    """A cluster as seen by the manager on the first node."""
    names = [f"node-{i:04}" for i in range(nodes)]
    address = {name: ip_address(int(ip_address("10.0.0.10")) + i) for i, name in enumerate(names)}
    made, endpoints = [], {}
    for i in range(services):
        key = ServiceKey("default", f"svc-{i}")
        made.append(
            Service(
                key,
                uid=f"uid-{i}",
                created="2026-01-01T00:00:00Z",
                ports=frozenset({Port("TCP", 80)}),
                held=(ip_address(FIRST_VIP + i),),
                traffic_policy=policy,
            )
        )
        at = sorted({names[(i * 7 + j * 13) % nodes] for j in range(3)})
        endpoints[key] = tuple(Endpoint(node) for node in at)
    size = max(1, -(-services // POOL))
    pools = [
        Eip(
            f"pool-{i}",
            (
                AddressRange(
                    ip_address(FIRST_VIP + i * size), ip_address(FIRST_VIP + (i + 1) * size + 63 * (i == POOL - 1))
                ),
            )
            if i == POOL - 1
            else (AddressRange(ip_address(FIRST_VIP + i * size), ip_address(FIRST_VIP + (i + 1) * size - 1)),),
            created="2026-01-01T00:00:00Z",
        )
        for i in range(POOL)
    ]
    members = {name: Member(name, str(at), 7473, 1, (ip_interface(f"{at}/8"),)) for name, at in address.items()}
    return Snapshot(
        view=View(
            names[0],
            probed=frozenset(names),
            fresh=frozenset(names),
            sessions=frozenset((name, router) for name in names for router in ROUTERS),
            negotiated={(name, router): AGREED for name in names for router in ROUTERS},
            leader=names[0],
        ),
        nodes=PersistentMap({name: Node(name, (at,)) for name, at in address.items()}),
        services=PersistentMap((service.key, service) for service in made),
        endpoints=PersistentMap(endpoints),
        eips=PersistentMap((pool.name, pool) for pool in pools),
        peers={name: Peer(name, ip_address(f"10.0.0.{i}"), 64500) for i, name in enumerate(ROUTERS, 1)},
        conf=BgpConf(local_as=64512),
        members=members,
    )


def without_node(snapshot: Snapshot, name: str) -> Snapshot:
    """A node has lost power, according to probes, hellos and sessions."""
    view = snapshot.view
    lost = {(name, router) for router in ROUTERS}
    negotiated = {session: agreed for session, agreed in view.negotiated.items() if session not in lost}
    seen = replace(view, dead=view.dead | {name}, fresh=view.fresh - {name}, negotiated=negotiated)
    return replace(snapshot, view=replace(seen, sessions=view.sessions - lost))


def with_service(snapshot: Snapshot, number: int, nodes: int) -> Snapshot:
    """The endpoints of one Service have moved to another node."""
    key = ServiceKey("default", f"svc-{number}")
    assert isinstance(snapshot.endpoints, PersistentMap)
    edit = snapshot.endpoints.edit()
    edit[key] = (Endpoint(f"node-{(number * 31 + 3) % nodes:04}"), *snapshot.endpoints[key][1:])
    return replace(snapshot, endpoints=edit.frozen())


def timed(work: Callable[[], Plan]) -> tuple[float, Plan]:
    """Returns the processor seconds and the plan."""
    begun = time.process_time()
    made = work()
    return time.process_time() - begun, made


def measure(services: int, nodes: int, policy: TrafficPolicy, trials: int = 5) -> dict[str, float]:
    """Milliseconds of processor time, the median if there are several: see :data:`COLUMNS`."""
    snapshot = cluster(services, nodes, policy)
    first, made = timed(lambda: plan(snapshot, None, 0.0, POLICY))
    assert len(made.vips) == services and made.bgp.routes
    one, dead, first_out, lost, eip = [], [], [], [], []
    now, seen = 1.0, snapshot
    for trial in range(trials):
        seen, now = with_service(seen, (trial * 37 + 5) % services, nodes), now + 1
        seconds, made = timed(lambda seen=seen, made=made, now=now: plan(seen, made, now, POLICY))  # type: ignore[misc]
        one.append(seconds)
    name_of = {member.address: name for name, member in snapshot.members.items()}
    announced = sorted({name_of[str(path.next_hop)] for path in made.bgp.routes})
    for trial in range(trials):
        gone = f"node-{(trial * 3 + 2) % nodes:04}"
        seconds, _ = timed(lambda: plan(without_node(seen, gone), made, now + 1, POLICY))  # noqa: B023
        dead.append(seconds)
        first_out.append(_routes_out(without_node(seen, announced[trial % len(announced)]), made, now + 1))
        sessions = seen.view.sessions - {(gone, ROUTERS[0])}
        less = replace(seen, view=replace(seen.view, sessions=sessions))
        seconds, _ = timed(lambda: plan(less, made, now + 1, POLICY))  # noqa: B023
        lost.append(seconds)
        assert isinstance(seen.eips, PersistentMap)
        edit = seen.eips.edit()
        edit["pool-1"] = replace(edit["pool-1"], layer2_standby=False)
        seconds, _ = timed(lambda: plan(replace(seen, eips=edit.frozen()), made, now + 1, POLICY))  # noqa: B023
        eip.append(seconds)
    longest = _longest_step(snapshot)
    placement, place_one = _placement(snapshot, trials)
    found = {
        "first_plan_ms": first,
        "node_death_ms": median(dead),
        "withdrawn_ms": median(first_out),
        "session_loss_ms": median(lost),
        "eip_edit_ms": median(eip),
        "one_service_ms": median(one),
        "longest_step_ms": longest,
        "placement_ms": placement,
        "place_one_ms": place_one,
    }
    return {name: round(1000 * seconds, 3) for name, seconds in found.items()}


def _routes_out(snapshot: Snapshot, made: Plan, now: float) -> float:
    """Seconds until BGP is given the routes that no longer lead to a lost node. Other VIPs may be planned later."""
    begun, steps = time.process_time(), plan_steps(snapshot, made, now, POLICY)
    while next(steps, made.bgp) is None:
        pass
    return time.process_time() - begun


def _longest_step(snapshot: Snapshot) -> float:
    """The longest time without a yield of the first plan, made in steps."""
    longest, steps = 0.0, plan_steps(snapshot, None, 0.0, POLICY)
    while True:
        begun = time.process_time()
        more = next(steps, "end") is None
        longest = max(longest, time.process_time() - begun)
        if not more:
            return longest


def _placement(snapshot: Snapshot, trials: int) -> tuple[float, float]:
    """Seconds of a plan that places every VIP at once (the cluster has settled), and of a plan that places one more."""
    made = plan(snapshot, None, 0.0, POLICY)
    everything, made = timed(lambda: plan(snapshot, made, 10.0, POLICY))
    assert made.memory.placement is not None and len(made.memory.placement.decided) == len(snapshot.services)
    decided = made.memory.placement.decided
    assert isinstance(snapshot.services, PersistentMap)
    edit = snapshot.services.edit()
    for key, node in decided.items():
        edit[key] = replace(edit[key], pinned_node=node)
    made = plan(replace(snapshot, services=edit.frozen()), made, 11.0, POLICY)
    one = []
    for trial in range(trials):
        key = ServiceKey("default", f"svc-{trial * 37 + 5}")
        edit[key] = replace(edit[key], pinned_node="")
        seen = replace(snapshot, services=edit.frozen())
        seconds, made = timed(lambda seen=seen, made=made, trial=trial: plan(seen, made, 12.0 + trial, POLICY))  # type: ignore[misc]
        assert made.memory.placement is not None and key in made.memory.placement.decided
        one.append(seconds)
    return everything, median(one)


COLUMNS = (
    "first_plan_ms",
    "node_death_ms",
    "withdrawn_ms",
    "session_loss_ms",
    "eip_edit_ms",
    "one_service_ms",
    "longest_step_ms",
    "placement_ms",
    "place_one_ms",
)


def growth(quick: bool) -> Table:
    """1,000 to 50,000 Services on 10 to 1,000 nodes."""
    table = Table(
        "The plan, milliseconds of processor time",
        ("Services", "nodes", "policy", *(name.removesuffix("_ms").replace("_", " ") for name in COLUMNS)),
    )
    for services in (1_000, 10_000) if quick else (1_000, 10_000, 50_000):
        for nodes in (10, 100, 1_000):
            for policy in TrafficPolicy:
                found = measure(services, nodes, policy, 3)
                table.rows.append((services, nodes, policy.value, *(found[name] for name in COLUMNS)))
    return table


PARTS = {"growth": growth}


def single(services: int, nodes: int, policy: str) -> None:
    """One size. The last line of the output is JSON."""
    found = measure(services, nodes, TrafficPolicy(policy))
    print(json.dumps({"services": services, "nodes": nodes, "policy": policy, **found}))
