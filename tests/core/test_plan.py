"""The whole plan: the combined announcements and answers of all replicas, over many situations."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address, ip_interface
from operator import attrgetter

from hypothesis import given
from hypothesis import strategies as st

from porterlb.core.bgp.negotiated import Negotiated, as_configured
from porterlb.core.mode import ModePolicy
from porterlb.core.model import (
    AddressRange,
    BgpConf,
    Eip,
    Endpoint,
    Member,
    Mode,
    Node,
    Peer,
    Port,
    Protocol,
    Service,
    ServiceKey,
    Snapshot,
    TrafficPolicy,
    View,
)
from porterlb.core.placement.policy import AT_ONCE
from porterlb.core.plan import Plan, plan
from porterlb.core.problems import Reason

NAMES = ("node-a", "node-b", "node-c")
POLICY = ModePolicy()
ADDRESS = {name: ip_address(f"10.77.0.{i + 11}") for i, name in enumerate(NAMES)}


def eip(name: str, first: str, last: str, protocol: Protocol = Protocol.AUTO) -> Eip:
    return Eip(name, (AddressRange(ip_address(first), ip_address(last)),), created="2026-01-01", protocol=protocol)


EIPS = {
    e.name: e
    for e in (
        eip("routed", "172.16.0.0", "172.16.0.31", Protocol.BGP),
        eip("auto", "10.77.0.200", "10.77.0.215"),
        eip("segment", "10.77.0.220", "10.77.0.229", Protocol.LAYER2),
    )
}


def service(name: str, held: str, policy: TrafficPolicy = TrafficPolicy.CLUSTER) -> Service:
    return Service(
        ServiceKey("default", name),
        uid=name,
        created="2026-01-02",
        ports=frozenset({Port("TCP", 80)}),
        held=(ip_address(held),),
        traffic_policy=policy,
    )


def cluster(node: str = "node-a", **view: object) -> Snapshot:
    services = (service("web", "172.16.0.1"), service("shop", "10.77.0.201"), service("mail", "10.77.0.221"))
    every = {(name, "tor") for name in NAMES}
    shown: dict[str, object] = {
        "fresh": frozenset(NAMES),
        "sessions": frozenset(every),
        "negotiated": dict.fromkeys(every, as_configured((4,), add_path=True)),
        "leader": "node-a",
    }
    return Snapshot(
        view=View(node, **(shown | view)),  # type: ignore[arg-type]
        nodes={name: Node(name, (ADDRESS[name],)) for name in NAMES},
        services={s.key: s for s in services},
        endpoints={s.key: tuple(Endpoint(name) for name in NAMES) for s in services},
        eips=EIPS,
        peers={"tor": Peer("tor", ip_address("10.77.0.1"), 64500, add_path=8, families=(4,))},
        conf=BgpConf(local_as=64512),
        members={
            name: Member(name, str(ADDRESS[name]), 7473, 1, (ip_interface(f"{ADDRESS[name]}/24"),)) for name in NAMES
        },
    )


def on_the_wire(snapshot: Snapshot, replicas: tuple[str, ...] = NAMES) -> dict[str, dict[str, set[str]]]:
    """Next hops by prefix and by replica: the announcements of each live replica, each planned from its own view."""
    found: dict[str, dict[str, set[str]]] = {}
    for name in replicas:
        made = plan(replace(snapshot, view=replace(snapshot.view, node=name)), None, 0.0, POLICY)
        for path, prefixes in made.bgp.routes.items():
            for prefix in prefixes:
                hop = next(node for node, address in ADDRESS.items() if address == path.next_hop)
                found.setdefault(str(prefix), {}).setdefault(hop, set()).add(name)
    return found


def test_every_next_hop_is_told_by_others_and_all_replicas_agree() -> None:
    wire = on_the_wire(cluster())
    assert set(wire) == {"172.16.0.1/32", "10.77.0.201/32"}
    for hops in wire.values():
        assert hops == {name: set(NAMES) - {name} for name in NAMES}
    digests = {plan(cluster(name), None, 0.0, POLICY).digest for name in NAMES}
    assert len(digests) == 1 and digests != {0}


def test_a_dead_node_is_announced_by_nobody_that_lives() -> None:
    dead = cluster(
        dead=frozenset({"node-c"}),
        fresh=frozenset({"node-a", "node-b"}),
        sessions=frozenset({("node-a", "tor"), ("node-b", "tor")}),
    )
    for hops in on_the_wire(dead, ("node-a", "node-b")).values():
        assert hops == {"node-a": {"node-b"}, "node-b": {"node-a"}}


def test_local_policy_announces_where_endpoints_are() -> None:
    snapshot = cluster()
    local = service("web", "172.16.0.1", TrafficPolicy.LOCAL)
    snapshot = replace(
        snapshot,
        services={**snapshot.services, local.key: local},
        endpoints={**snapshot.endpoints, local.key: (Endpoint("node-b"), Endpoint("node-c", ready=False))},
    )
    assert set(on_the_wire(snapshot)["172.16.0.1/32"]) == {"node-b"}
    gone = replace(snapshot, endpoints={**snapshot.endpoints, local.key: ()})
    assert "172.16.0.1/32" not in on_the_wire(gone)


def test_modes_without_sessions() -> None:
    made = plan(cluster(sessions=frozenset()), None, 0.0, POLICY)
    modes = {vip.services[0].name: vip.mode.mode for vip in made.vips.values()}
    assert modes == {"web": Mode.BGP, "shop": Mode.LAYER2, "mail": Mode.LAYER2}
    assert {str(a) for a in made.wire.vips} == {"10.77.0.201", "10.77.0.221"}
    web = made.vips[ip_address("172.16.0.1")]
    assert [problem.reason for problem in web.problems] == [Reason.NO_SESSION]


def test_sessions_lost_withdraws_automatic_vips_at_once_and_keeps_strict_ones_ready() -> None:
    first = plan(cluster(), None, 0.0, POLICY)
    second = plan(cluster(sessions=frozenset()), first, 1.0, POLICY)
    assert {str(p) for prefixes in second.bgp.routes.values() for p in prefixes} == {"172.16.0.1/32"}
    assert ip_address("10.77.0.201") in second.wire.vips


def test_way_back_goes_to_the_present_layer2_next_hop_first() -> None:
    made = plan(cluster(), None, 0.0, POLICY, AT_ONCE)
    made = plan(cluster(sessions=frozenset()), made, 1.0, POLICY, AT_ONCE)
    made = plan(cluster(), made, 2.0, POLICY, AT_ONCE)
    assert made.wake_at == 12.0
    shop = ip_address("10.77.0.201")
    narrow = plan(cluster(), made, 12.0, POLICY, AT_ONCE)
    hops = {hop for told in narrow.vips[shop].announced.values() for by in told.values() for hop in by}
    assert hops == {narrow.vips[shop].candidates[0]}
    wide = plan(cluster(), narrow, narrow.wake_at or 0.0, POLICY, AT_ONCE)
    assert {hop for told in wide.vips[shop].announced.values() for by in told.values() for hop in by} == set(NAMES)


def test_nothing_is_on_the_wire_before_it_is_in_the_status() -> None:
    snapshot = cluster()
    fresh = replace(service("web", "172.16.0.1"), held=())
    made = plan(replace(snapshot, services={fresh.key: fresh}), None, 0.0, POLICY)
    chosen = made.services[fresh.key].addresses
    assert chosen and not made.vips and not made.bgp.routes
    again = plan(replace(snapshot, services={fresh.key: fresh}), made, 0.1, POLICY)
    assert again.services[fresh.key].addresses == chosen and not again.vips


def test_a_follower_gives_no_new_address() -> None:
    fresh = replace(service("web", "172.16.0.1"), held=())
    made = plan(replace(cluster("node-b"), services={fresh.key: fresh}), None, 0.0, POLICY)
    assert made.services[fresh.key].addresses == ()


def test_a_pin_keeps_the_vip_where_it_is() -> None:
    mail = ServiceKey("default", "mail")
    for node in NAMES:
        snapshot = cluster()
        pinned = replace(snapshot.services[mail], pinned_node=node)
        made = plan(replace(snapshot, services={**snapshot.services, mail: pinned}), None, 0.0, POLICY)
        assert made.vips[ip_address("10.77.0.221")].candidates[0] == node


def test_an_automatic_pool_off_the_segment_says_so() -> None:
    snapshot = cluster()
    eips = {**EIPS, "far": eip("far", "192.0.2.1", "192.0.2.9")}
    made = plan(replace(snapshot, eips=eips), None, 0.0, POLICY)
    assert made.eips["far"].layer2_possible is False and "192.0.2.1" in made.eips["far"].layer2_reason
    assert made.eips["auto"].layer2_possible is True and made.eips["routed"].layer2_possible is None


def test_doubt_changes_nothing() -> None:
    made = plan(cluster(), None, 0.0, POLICY)
    cut = cluster(dead=frozenset({"node-b", "node-c"}), fresh=frozenset({"node-a"}), doubt=True, sessions=frozenset())
    assert plan(cut, made, 1.0, POLICY) is made


def test_vips_are_spread_over_the_nodes() -> None:
    pool = eip("wide", "10.77.0.0", "10.77.3.255", Protocol.LAYER2)
    services = [service(f"s{i}", f"10.77.{i // 200 + 1}.{i % 200 + 1}") for i in range(300)]
    snapshot = replace(
        cluster(),
        eips={"wide": pool},
        services={s.key: s for s in services},
        endpoints={s.key: tuple(Endpoint(name) for name in NAMES) for s in services},
        members={
            name: Member(name, str(ADDRESS[name]), 7473, 1, (ip_interface(f"{ADDRESS[name]}/16"),)) for name in NAMES
        },
    )
    made = plan(snapshot, None, 0.0, POLICY)
    counts = [sum(vip.candidates[0] == name for vip in made.vips.values()) for name in NAMES]
    assert sum(counts) == 300 and (max(counts) - min(counts)) / 100 <= 0.25, counts


subsets = st.frozensets(st.sampled_from(NAMES))


@given(dead=subsets, fresh=subsets, sessions=subsets, endpoints=subsets, local=st.booleans())
def test_no_vip_is_announced_towards_a_dead_next_hop(
    dead: frozenset[str],
    fresh: frozenset[str],
    sessions: frozenset[str],
    endpoints: frozenset[str],
    local: bool,
) -> None:
    live = tuple(sorted(fresh - dead))
    policy = TrafficPolicy.LOCAL if local else TrafficPolicy.CLUSTER
    web = service("web", "172.16.0.1", policy)
    shop = service("shop", "10.77.0.201", policy)
    snapshot = replace(
        cluster(dead=dead, fresh=fresh - dead, sessions=frozenset((name, "tor") for name in sessions & set(live))),
        services={web.key: web, shop.key: shop},
        endpoints={s.key: tuple(Endpoint(name) for name in sorted(endpoints)) for s in (web, shop)},
    )
    able = (set(endpoints) if local else set(NAMES) if endpoints else set()) - dead
    for name in live:
        made = plan(replace(snapshot, view=replace(snapshot.view, node=name)), None, 0.0, POLICY)
        told = {path.next_hop for path in made.bgp.routes}
        assert told <= {ADDRESS[node] for node in able}
        for vip in made.wire.vips.values():
            assert set(vip.candidates) <= able and vip.candidates
        if able:
            assert ip_address("10.77.0.201") in made.wire.vips
    if live:
        covered = set().union(*[set(hops) for hops in on_the_wire(snapshot, live).values()] or [set()])
        others = {node for node in able if set(live) - {node}}
        assert covered >= (others if len(sessions & set(live)) in (0, len(live)) else set())


@given(st.permutations(list(range(3))), st.integers(0, 3))
def test_a_plan_cut_short_and_planned_again_ends_in_the_same_place(order: list[int], cut: int) -> None:
    """The same facts give the same routes, answers and digest, whatever was planned before."""
    straight = plan(cluster(), None, 0.0, POLICY)
    services = list(cluster().services.values())
    seen: dict[ServiceKey, Service] = {}
    made: Plan | None = None
    for step, index in enumerate(order):
        seen[services[index].key] = services[index]
        if step >= cut:
            made = plan(replace(cluster(), services=dict(seen)), made, 0.0, POLICY)
    made = plan(cluster(), made, 0.0, POLICY)
    assert made.bgp == straight.bgp and made.wire == straight.wire and made.digest == straight.digest


SHARED = ("10.77.0.222", "10.77.0.223")


@st.composite
def stories(draw: st.DrawFn) -> list[Snapshot]:
    """Services that come, go, change, wait, and share addresses; also changes of endpoints, Eips and sessions."""
    snapshot, story = cluster(), []
    for _ in range(draw(st.integers(1, 7))):
        services, endpoints = dict(snapshot.services), dict(snapshot.endpoints)
        for name in draw(st.sets(st.sampled_from(["web", "shop", "one", "two", "three"]), min_size=1, max_size=3)):
            key = ServiceKey("default", name)
            what = draw(st.sampled_from(["go", "hold", "share", "wait", "endpoints"]))
            if what == "go":
                services.pop(key, None)
            elif what == "endpoints":
                endpoints[key] = tuple(Endpoint(at) for at in sorted(draw(st.sets(st.sampled_from(NAMES)))))
            else:
                held = draw(st.sampled_from(["172.16.0.7", "10.77.0.205", *SHARED]))
                port = frozenset({Port("TCP", draw(st.integers(80, 82)))})
                made = replace(service(name, held), ports=port, sharing_key="key" if what == "share" else "")
                services[key] = replace(made, held=()) if what == "wait" else made
        eips, view = snapshot.eips, snapshot.view
        if draw(st.integers(0, 4)) == 0:
            eips = dict(draw(st.sampled_from([EIPS, {n: e for n, e in EIPS.items() if n != "segment"}])))
        if draw(st.integers(0, 4)) == 0:
            up = draw(st.sets(st.sampled_from(NAMES)))
            view = replace(view, sessions=frozenset((name, "tor") for name in up))
        snapshot = replace(snapshot, services=services, endpoints=endpoints, eips=eips, view=view)
        story.append(snapshot)
    return story


PARTS = (
    "vips",
    "bgp",
    "wire",
    "digest",
    "wake_at",
    "services",
    "eips",
    "peers",
    "routes",
    "unwritten",
    "memory.hold_downs",
    "memory.sessions",
    "memory.modes",
)
"""All parts of a plan that must not depend on reused parts."""


@given(stories(), st.booleans())
def test_looking_only_at_what_has_changed_gives_the_same_plan(story: list[Snapshot], leads: bool) -> None:
    short: Plan | None = None
    whole: Plan | None = None
    for now, seen in enumerate(story):
        snapshot = replace(seen, view=replace(seen.view, leader="node-a" if leads else "node-b"))
        short = plan(snapshot, short, now / 10, POLICY)
        whole = plan(snapshot, Plan(memory=whole.memory) if whole else None, now / 10, POLICY)
        for part in PARTS:
            assert attrgetter(part)(short) == attrgetter(part)(whole), part
        # Again, without a change
        again = plan(replace(snapshot, services=dict(snapshot.services)), short, now / 10, POLICY)
        assert (again.vips, again.bgp, again.digest) == (short.vips, short.bgp, short.digest)


def test_a_change_that_moves_two_vips_alike_changes_the_digest() -> None:
    """The two VIPs of a dual-stack Service move together: values combined by XOR must not cancel out."""

    def pinned(node: str) -> Snapshot:
        base = cluster()
        both = tuple(
            replace(service(name, held), pinned_node=node)
            for name, held in (("x", "10.77.0.222"), ("y", "10.77.0.223"))
        )
        return replace(
            base,
            services={s.key: s for s in both},
            endpoints={s.key: tuple(Endpoint(name) for name in NAMES) for s in both},
        )

    assert len({plan(pinned(name), None, 0.0, POLICY).digest for name in NAMES}) == len(NAMES)


def test_a_vip_of_a_second_segment_needs_its_next_hop_alive_there_and_on_the_internal_ips() -> None:
    """Cilium #35507: the second NIC loses its carrier, and its VIPs stay at the node permanently."""
    storage = {name: ip_interface(f"10.78.0.{i + 11}/24") for i, name in enumerate(NAMES)}

    def seen(**view: object) -> Snapshot:
        made = cluster(**view)  # type: ignore[arg-type]
        members = {name: replace(m, subnets=(*m.subnets, storage[name])) for name, m in made.members.items()}
        extra = service("disk", "10.78.0.200")
        return replace(
            made,
            members=members,
            services={**made.services, extra.key: extra},
            endpoints={**made.endpoints, extra.key: tuple(Endpoint(name) for name in NAMES)},
            eips={**made.eips, "storage": eip("storage", "10.78.0.200", "10.78.0.209", Protocol.LAYER2)},
        )

    def candidates(snapshot: Snapshot, vip: str) -> set[str]:
        return set(plan(snapshot, None, 0.0, POLICY).wire.vips[ip_address(vip)].candidates)

    subnet = storage["node-a"].network
    dead = frozenset({("node-c", subnet)})
    assert candidates(seen(), "10.78.0.200") == set(NAMES)
    assert candidates(seen(dead_on=dead), "10.78.0.200") == {"node-a", "node-b"}
    assert candidates(seen(dead_on=dead), "10.77.0.221") == set(NAMES)
    assert candidates(seen(dead_on=dead, doubt=True), "10.78.0.200") == set(NAMES)
    assert candidates(seen(dead=frozenset({"node-c"})), "10.78.0.200") == {"node-a", "node-b"}


def test_a_bgp_next_hop_is_alive_on_the_segment_of_its_session() -> None:
    snapshot = cluster(dead_on=frozenset({("node-c", ip_interface("10.77.0.0/24").network)}))
    made = plan(snapshot, None, 0.0, POLICY)
    assert made.bgp.routes and all(path.next_hop != ADDRESS["node-c"] for path in made.bgp.routes)
    other = cluster(dead_on=frozenset({("node-c", ip_interface("10.99.0.0/24").network)}))
    assert any(path.next_hop == ADDRESS["node-c"] for path in plan(other, None, 0.0, POLICY).bgp.routes)


def agreed(families: tuple[int, ...], add_path: tuple[int, ...] = ()) -> dict[tuple[str, str], Negotiated]:
    return dict.fromkeys(((name, "tor") for name in NAMES), Negotiated(families, add_path))


def test_without_negotiated_add_path_each_replica_announces_one_next_hop_without_path_id() -> None:
    """For any sendMax: paths without identifiers replace one another, and one withdrawal removes the prefix."""
    of = cluster(negotiated=agreed((4,)))
    for name in NAMES:
        made = plan(replace(of, view=replace(of.view, node=name)), None, 0.0, POLICY)
        assert [path.path_id for path in made.bgp.routes] == [0]
        for by_replica in (vip.announced["tor"] for vip in made.vips.values() if vip.announced):
            assert sorted(hop for hops in by_replica.values() for hop in hops) == sorted(NAMES)
    several = plan(cluster(), None, 0.0, POLICY)
    assert all(path.path_id for path in several.bgp.routes)


def test_what_was_negotiated_is_told_to_the_speaker_and_to_the_others() -> None:
    made = plan(cluster(negotiated=agreed((4,), (4,))), None, 0.0, POLICY)
    assert made.bgp.negotiated == {"tor": Negotiated((4,), (4,))}
    assert made.wire.negotiated == {"tor": "4+"}


def test_a_session_of_which_nothing_is_known_is_taken_for_ours_else_for_the_least() -> None:
    mine = plan(cluster(negotiated={("node-a", "tor"): Negotiated((4,), (4,))}), None, 0.0, POLICY)
    assert all(path.path_id for path in mine.bgp.routes)
    nothing = plan(cluster(negotiated={}), None, 0.0, POLICY)
    assert [path.path_id for path in nothing.bgp.routes] == [0]


def test_a_family_that_no_session_negotiated_is_not_carried() -> None:
    of = cluster(negotiated=agreed(()))
    made = plan(of, None, 0.0, POLICY)
    assert not made.bgp.routes
    assert made.vips[ip_address("10.77.0.201")].mode.mode is Mode.LAYER2
    assert made.vips[ip_address("172.16.0.1")].mode.mode is not Mode.BGP or made.vips[ip_address("172.16.0.1")].problems
    changed = plan(cluster(negotiated=agreed((4,))), made, 1.0, POLICY)
    assert changed.bgp.routes
