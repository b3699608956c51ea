"""Memory between plans: a separate value that depends on the events and not on the order of dicts."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address
from itertools import permutations
from operator import attrgetter
from random import Random
from typing import Any, TypeVar

from hypothesis import given
from hypothesis import strategies as st

from porterlb.core.mode import ModePolicy, Phase
from porterlb.core.model import (
    AdvertiseRule,
    Eip,
    Endpoint,
    Mode,
    Peer,
    Protocol,
    Requirement,
    Selector,
    ServiceKey,
    Snapshot,
    TrafficPolicy,
)
from porterlb.core.placement.policy import AT_ONCE
from porterlb.core.plan import Plan, plan
from porterlb.core.problems import Reason
from tests.core.test_plan import NAMES, PARTS, POLICY, cluster, eip, service

X, Y = ip_address("10.77.0.201"), ip_address("10.77.0.231")
EVERYTHING = {"x": eip("x", "10.77.0.200", "10.77.0.209"), "y": eip("y", "10.77.0.230", "10.77.0.239")}
K = TypeVar("K")
V = TypeVar("V")


def router(name: str, *eips: str, labels: str = "") -> Peer:
    """A peer that receives the VIPs of these pools, or of Services with this label; without either, all VIPs."""
    selector = Selector((Requirement("for", "In", frozenset({labels})),)) if labels else None
    rules = (AdvertiseRule(eips=frozenset(eips), service_selector=selector),) if eips or labels else ()
    return Peer(name, ip_address(f"10.77.0.{name[1:]}"), 64500, add_path=8, families=(4,), advertise=rules)


def two_pools(peers: tuple[Peer, ...], up: tuple[str, ...], order: tuple[int, ...] = (0, 1)) -> Snapshot:
    base = cluster(sessions=frozenset((node, peer) for node in NAMES for peer in up))
    services = [service("x", str(X)), service("y", str(Y))]
    return replace(
        base,
        services={services[i].key: services[i] for i in order},
        endpoints={services[i].key: tuple(Endpoint(name) for name in NAMES) for i in order},
        eips={name: EVERYTHING[name] for i in order for name in ("xy"[i],)},
        peers={peers[i].name: peers[i] for i in order},
    )


def test_what_bgp_serves_keeps_its_routes_when_its_peers_are_edited_in_whatever_order() -> None:
    """Pool x is announced to r1, which is down, and pool y to r2, which is up; then both receive everything."""
    for order in permutations((0, 1)):
        made = plan(two_pools((router("r1", "x"), router("r2", "y")), ("r1", "r2"), order), None, 0.0, POLICY)
        made = plan(two_pools((router("r1", "x"), router("r2", "y")), ("r2",), order), made, 20.0, POLICY)
        assert (made.vips[X].mode.phase, made.vips[Y].mode.phase) == (Phase.LAYER2, Phase.BGP)
        made = plan(two_pools((router("r1"), router("r2")), ("r2",), order), made, 21.0, POLICY)
        assert made.vips[Y].mode.mode is Mode.BGP
        assert any("10.77.0.231/32" in prefixes for prefixes in made.bgp.routes.values())
        assert made.memory.hold_downs.keys() == {frozenset({"r1", "r2"})}


def test_the_hold_down_is_there_before_the_first_service() -> None:
    """A Service that is created again while a session is held down waits like its predecessor."""
    peers = (router("r1", "x"), router("r2", "y"))
    made = plan(two_pools(peers, ("r1", "r2")), None, 0.0, POLICY)
    made = plan(two_pools(peers, ("r2",)), made, 20.0, POLICY)
    back = two_pools(peers, ("r1", "r2"))
    gone = replace(back, services={key: of for key, of in back.services.items() if key.name != "x"})
    made = plan(gone, made, 21.0, POLICY)
    assert X not in made.vips and X not in made.memory.modes
    assert plan(back, made, 22.0, POLICY).vips[X].mode.phase is Phase.WAITING


def test_an_automatic_vip_that_is_lost_with_each_announcement_says_so() -> None:
    up, down = (two_pools((router("r1"), router("r2")), live) for live in (("r1", "r2"), ()))
    made, now = plan(up, None, 0.0, POLICY, AT_ONCE), 0.0
    for losses in (1, 2, 3):
        made = plan(down, made, now := now + 1, POLICY, AT_ONCE)
        problems = [problem for problem in made.vips[X].problems if problem.reason is Reason.ROUTES_LOST]
        assert len(problems) == (losses > 1)
        if problems:
            assert "1.0 s after" in problems[0].message and f"{losses} times" in problems[0].message
            assert f"{10 * 2 ** (losses - 1)} s" in problems[0].message and not problems[0].fatal
        made = plan(up, made, now := now + 1, POLICY, AT_ONCE)
        assert made.vips[X].mode.phase is Phase.WAITING and made.wake_at == now + 10 * 2 ** (losses - 1)
        assert made.wake_at is not None
        now = made.wake_at
        made = plan(up, made, now, POLICY, AT_ONCE)
        assert made.vips[X].mode.phase is Phase.NARROW


def shuffled(values: dict[K, V], seed: int) -> dict[K, V]:
    items = list(values.items())
    return dict(items[seed % len(items) :] + items[: seed % len(items)][::-1]) if items else {}


RULES = ((), ("x",), ("y",), ("x", "y"))
RANGES = (EVERYTHING["x"].ranges, EVERYTHING["y"].ranges, EVERYTHING["x"].ranges + EVERYTHING["y"].ranges)
HELD = {"a": "10.77.0.201", "b": "10.77.0.202", "c": "10.77.0.231", "d": "172.16.0.9"}


Event = tuple[str, str, object]
"""The kind of event, its object, and the change."""


class World:
    """Three nodes, up to three routers, four Services, three pools: the state that the events produce."""

    def __init__(self) -> None:
        self.rules = {"r1": router("r1"), "r2": router("r2")}
        self.labels = dict.fromkeys(HELD, "")
        self.eips: dict[str, Eip] = {**EVERYTHING, "far": eip("far", "172.16.0.0", "172.16.0.15")}
        self.up = {(node, peer) for node in NAMES for peer in self.rules}
        self.there, self.local = set(HELD), set[str]()
        self.dead, self.cordoned = set[str](), set[str]()
        self.endpoints = dict.fromkeys(HELD, NAMES[:2])

    def do(self, event: Event) -> None:
        what, name, how = event
        match what, how:
            case "peer", None:
                self.rules.pop(name, None)
            case "peer", Peer():
                self.rules[name] = how
            case "session", str():
                self.up ^= {(name, how)}
            case "router", _:
                self.up ^= {(node, name) for node in NAMES}
            case "service", _:
                self.there ^= {name}
            case "local", _:
                self.local ^= {name}
            case "label", str():
                self.labels[name] = how
            case "endpoints", tuple():
                self.endpoints[name] = how
            case "node", _:
                self.dead ^= {name}
            case "cordon", _:
                self.cordoned ^= {name}
            case "eip", Eip():
                self.eips[name] = how
            case _:
                assert what == "time", event

    def snapshot(self) -> Snapshot:
        base = cluster(
            dead=frozenset(self.dead - {"node-a"}),
            fresh=frozenset(set(NAMES) - self.dead | {"node-a"}),
            sessions=frozenset((node, peer) for node, peer in self.up if node not in self.dead),
        )
        services = [
            replace(
                service(of, HELD[of], TrafficPolicy.LOCAL if of in self.local else TrafficPolicy.CLUSTER),
                labels={"for": self.labels[of]},
            )
            for of in sorted(self.there)
        ]
        return replace(
            base,
            nodes={name: replace(node, cordoned=name in self.cordoned) for name, node in base.nodes.items()},
            services={s.key: s for s in services},
            endpoints={
                ServiceKey("default", of): tuple(Endpoint(at) for at in nodes) for of, nodes in self.endpoints.items()
            },
            eips=dict(self.eips),
            peers=dict(self.rules),
        )


HELD_NAMES, ROUTERS = st.sampled_from(list(HELD)), st.sampled_from(["r1", "r2", "r3"])
NODE_NAMES, POOLS = st.sampled_from(NAMES), st.sampled_from(["x", "y"])


@st.composite
def changed_peers(draw: st.DrawFn) -> Event:
    name = draw(ROUTERS)
    made = router(name, *draw(st.sampled_from(RULES)), labels=draw(st.sampled_from(["", "", "blue"])))
    return "peer", name, replace(made, router_per_node=draw(st.booleans()))


@st.composite
def changed_eips(draw: st.DrawFn) -> Event:
    name = draw(POOLS)
    return (
        "eip",
        name,
        replace(
            EVERYTHING[name],
            layer2_standby=draw(st.booleans()),
            disabled=draw(st.booleans()),
            protocol=draw(st.sampled_from(list(Protocol))),
            ranges=draw(st.sampled_from(RANGES)),
            can_reach=draw(st.sampled_from([None, ip_address("10.77.0.1"), ip_address("192.0.2.1")])),
        ),
    )


EVENTS: st.SearchStrategy[Event] = st.one_of(
    st.tuples(st.just("session"), NODE_NAMES, ROUTERS),
    st.tuples(st.just("router"), ROUTERS, st.none()),
    changed_peers(),
    st.tuples(st.just("peer"), ROUTERS, st.none()),
    st.tuples(st.just("service"), HELD_NAMES, st.none()),
    st.tuples(st.just("local"), HELD_NAMES, st.none()),
    st.tuples(st.just("label"), HELD_NAMES, st.sampled_from(["", "blue"])),
    st.tuples(st.just("endpoints"), HELD_NAMES, st.sampled_from([NAMES[:1], NAMES[1:], NAMES, ()])),
    st.tuples(st.sampled_from(["node", "cordon"]), NODE_NAMES, st.none()),
    changed_eips(),
    st.just(("time", "", None)),
)


@st.composite
def stories(draw: st.DrawFn) -> list[tuple[float, Snapshot]]:
    """Changes of peers, pools, Services, nodes, sessions and labels, with time between the changes."""
    now, world, story = 0.0, World(), []
    for _ in range(draw(st.integers(1, 8))):
        now += draw(st.sampled_from([0.0, 0.4, 3.0, 10.0, 40.0]))
        world.do(draw(EVENTS))
        story.append((now, world.snapshot()))
    return story


def reordered(of: Snapshot, seed: int) -> Snapshot:
    """The same values, with the mappings in a different order."""
    parts = ("nodes", "services", "endpoints", "eips", "peers", "members")
    mixed: dict[str, Any] = {name: shuffled(dict(getattr(of, name)), seed) for name in parts}
    return replace(of, **mixed)


@given(stories(), st.integers(0, 5), st.sampled_from([ModePolicy(), ModePolicy(return_after=1, widen_after=5)]))
def test_equal_values_give_equal_plans_whatever_is_reused_and_in_which_order(
    story: list[tuple[float, Snapshot]], seed: int, policy: ModePolicy
) -> None:
    """Incremental, full and reordered planning give the same plan, at every step of a random sequence."""
    short: Plan | None = None
    whole, other = Plan(), Plan()
    for now, snapshot in story:
        short = plan(snapshot, short, now, policy)
        whole = plan(snapshot, Plan(memory=whole.memory), now, policy)
        memory = replace(other.memory, hold_downs=shuffled(dict(other.memory.hold_downs), seed))
        other = plan(reordered(snapshot, seed), Plan(memory=memory), now, policy)
        for part in PARTS:
            assert attrgetter(part)(short) == attrgetter(part)(whole), part
            assert attrgetter(part)(short) == attrgetter(part)(other), part


def test_a_vip_that_only_the_lost_session_carried_goes_to_layer2_while_another_replica_keeps_its_own() -> None:
    """With one router per node, a router takes traffic for its node only. The replica loses its session; the remaining
    replica cannot announce the only endpoint to its router. The hold-down stays, because a session exists."""
    peer = replace(router("r1"), router_per_node=True)
    base = replace(
        cluster(sessions=frozenset({("node-a", "r1"), ("node-b", "r1")})),
        services={ServiceKey("default", "x"): service("x", str(X), TrafficPolicy.LOCAL)},
        endpoints={ServiceKey("default", "x"): (Endpoint("node-a"),)},
        eips={"x": EVERYTHING["x"]},
        peers={"r1": peer},
    )
    made = plan(base, None, 0.0, POLICY)
    assert made.vips[X].mode.mode is Mode.BGP
    less = replace(base, view=replace(base.view, sessions=frozenset({("node-b", "r1")})))
    made = plan(less, made, 1.0, POLICY)
    assert made.memory.hold_downs[frozenset({"r1"})].phase is Phase.BGP
    assert made.vips[X].mode.mode is Mode.LAYER2 and X in made.wire.vips


@given(
    st.lists(EVENTS, max_size=4),
    st.lists(EVENTS, min_size=2, max_size=4),
    st.floats(0, 20),
    st.randoms(use_true_random=False),
)
def test_events_of_one_moment_lead_to_the_same_plan_in_whatever_order_they_come(
    earlier: list[Event], events: list[Event], now: float, order: Random
) -> None:
    """Each event changes a different object. They are planned together: with a plan after each event the order may
    matter, because a mode and the state of a set of peers depend on the previous state."""
    events = list({(what, name): (what, name, how) for what, name, how in events}.values())
    found = []
    for sequence in (events, sorted(events, key=lambda _: order.random())):
        world, made = World(), None
        for at, event in enumerate(earlier):
            world.do(event)
            made = plan(world.snapshot(), made, float(at), POLICY)
        for event in sequence:
            world.do(event)
        found.append(plan(world.snapshot(), made, len(earlier) + now, POLICY))
    for part in PARTS:
        assert attrgetter(part)(found[0]) == attrgetter(part)(found[1]), part
