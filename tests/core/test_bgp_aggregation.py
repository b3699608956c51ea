"""Aggregation (advertise[].aggregationLength): one prefix for many VIPs while at least one of them is served."""

from __future__ import annotations

import random
from dataclasses import replace
from ipaddress import ip_address, ip_network
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from porterlb.core.bgp.advertise import Offer, Told, covering, reaches_beyond
from porterlb.core.bgp.peers import peer_problems
from porterlb.core.model import (
    Address,
    AddressRange,
    AdvertiseRule,
    Eip,
    Endpoint,
    Protocol,
    RouteAttributes,
    Service,
    Snapshot,
    TrafficPolicy,
)
from porterlb.core.plan import Plan, plan
from porterlb.core.status.serving import refusals_of
from tests.core.stage import POLICY, seen
from tests.core.test_plan import NAMES, cluster, eip, service

POOL = eip("pool", "198.51.100.0", "198.51.101.255", Protocol.BGP)
WIDE = "198.51.100.0/24"


def told_with(
    *rules: AdvertiseRule, held: dict[str, str] | None = None, add_path: bool = True, **view: Any
) -> Snapshot:
    """``held``: addresses by the name of a Service; with the policy Local where the name begins with ``local``."""
    of = cluster(**view)
    services = [
        service(name, at, TrafficPolicy.LOCAL if name.startswith("local") else TrafficPolicy.CLUSTER)
        for name, at in (held or {"one": "198.51.100.1", "two": "198.51.100.2", "far": "198.51.101.9"}).items()
    ]
    return replace(
        of,
        services={one.key: one for one in services},
        endpoints={one.key: tuple(Endpoint(name) for name in NAMES) for one in services},
        eips={"pool": POOL},
        peers={"tor": replace(of.peers["tor"], advertise=rules, add_path=8 if add_path else 0)},
    )


def aggregate(length: int = 24, **changes: Any) -> AdvertiseRule:
    return AdvertiseRule(lengths=(length, 0), **changes)


def routes(made: Plan) -> dict[str, set[str]]:
    """Next hops by prefix."""
    found: dict[str, set[str]] = {}
    for path, prefixes in made.bgp.routes.items():
        for prefix in prefixes:
            found.setdefault(prefix, set()).add(str(path.next_hop))
    return found


def without(of: Snapshot, name: str) -> Snapshot:
    return replace(of, services={key: one for key, one in of.services.items() if key.name != name})


OTHERS = {"10.77.0.12", "10.77.0.13"}


def test_one_prefix_for_two_vips_until_the_last_one_goes() -> None:
    of = told_with(aggregate())
    made = plan(of, None, 0.0, POLICY)
    assert routes(made) == {WIDE: OTHERS, "198.51.101.0/24": OTHERS}
    assert sorted(made.shares.values()) == [1, 1, 2, 2]
    for name in ("one", "two", "far"):
        of = without(of, name)
        made = plan(of, made, 1.0, POLICY)
        assert made.bgp.routes == plan(of, None, 1.0, POLICY).bgp.routes
        assert (WIDE in routes(made)) == (name == "one")
    assert not made.shares
    assert not made.routes


def test_host_routes_beside_the_prefix() -> None:
    made = plan(told_with(aggregate(aggregate_only=False), held={"one": "198.51.100.1"}), None, 0.0, POLICY)
    assert routes(made) == {WIDE: OTHERS, "198.51.100.1/32": OTHERS}


def test_policy_local_keeps_host_routes_unless_asked() -> None:
    held = {"one": "198.51.100.1", "local": "198.51.100.2"}
    made = plan(told_with(aggregate(), held=held), None, 0.0, POLICY)
    assert routes(made) == {WIDE: OTHERS, "198.51.100.2/32": OTHERS}
    made = plan(told_with(aggregate(aggregate_local=True), held=held), None, 0.0, POLICY)
    assert routes(made) == {WIDE: OTHERS}


def test_a_prefix_never_reaches_beyond_the_eip() -> None:
    of = told_with(aggregate(22))
    made = plan(of, None, 0.0, POLICY)
    assert set(routes(made)) == {"198.51.100.1/32", "198.51.100.2/32", "198.51.101.9/32"}
    (problem,) = peer_problems(of)["tor"]
    assert str(problem) == (
        "spec.advertise[0].aggregationLength: /22 reaches beyond Eip pool: where it does, host routes are announced."
    )
    assert "tor" not in peer_problems(told_with(aggregate(23)))


def test_replicas_without_add_path_agree_on_the_next_hops_of_a_prefix() -> None:
    held = {f"s{i}": f"198.51.100.{i}" for i in range(1, 40)}
    found = set()
    for name in NAMES:
        made = plan(told_with(aggregate(), held=held, add_path=False, node=name), None, 0.0, POLICY)
        (path,) = made.bgp.routes
        assert made.bgp.routes[path] == {WIDE}
        found.add(path.next_hop)
    assert len(found) == len(NAMES), "each replica announces another node"


def test_a_prefix_has_one_next_hop_of_a_replica_also_where_not_all_fit() -> None:
    """Chosen for each VIP, next hops would rotate with the addresses, and the paths would replace one another."""
    held = {f"s{i}": f"198.51.100.{i}" for i in range(1, 40)}
    two = frozenset((name, "tor") for name in NAMES[:2])
    made = plan(told_with(aggregate(), held=held, add_path=False, sessions=two), None, 0.0, POLICY)
    assert list(made.bgp.routes.values()) == [{WIDE}]
    hosts = plan(told_with(held=held, add_path=False, sessions=two), None, 0.0, POLICY)
    assert len(hosts.bgp.routes) > 1


@pytest.mark.parametrize(
    ("address", "length", "prefix"),
    [
        ("198.51.100.77", 24, WIDE),
        ("198.51.100.77", 26, "198.51.100.64/26"),
        ("198.51.101.77", 23, "198.51.100.0/23"),
        ("198.51.100.77", 22, None),
        ("2001:db8::5", 64, None),
    ],
)
def test_what_covers_an_address(address: str, length: int, prefix: str | None) -> None:
    found = covering(ip_address(address), length, POOL)
    assert (found and found[1]) == prefix


def test_network_and_broadcast_addresses_may_be_missing_from_the_eip() -> None:
    hosts = Eip("hosts", (AddressRange(ip_address("192.0.2.1"), ip_address("192.0.2.254")),))
    assert covering(ip_address("192.0.2.9"), 24, hosts) is not None
    assert reaches_beyond(aggregate(24), hosts) == 0
    less = Eip("less", (AddressRange(ip_address("192.0.2.2"), ip_address("192.0.2.254")),))
    assert covering(ip_address("192.0.2.9"), 24, less) is None
    assert reaches_beyond(aggregate(24), less) == 24
    short = Eip("short", (AddressRange(ip_address("192.0.2.0"), ip_address("192.0.2.253")),))
    assert covering(ip_address("192.0.2.9"), 24, short) is None
    six = Eip("six", (AddressRange(ip_address("2001:db8::"), ip_address("2001:db8::ffff:ffff:ffff:ffff")),))
    found = covering(ip_address("2001:db8::5"), 64, six)
    assert found == (ip_address("2001:db8::"), "2001:db8::/64")


@given(st.integers(0, 511), st.integers(23, 32))
def test_the_covering_prefix_holds_the_address(at: int, length: int) -> None:
    address: Address = POOL.ranges[0].first + at
    found = covering(address, length, POOL)
    assert found is not None
    assert ip_network(found[1]).network_address == found[0]
    assert address in ip_network(found[1])


def test_a_union_keeps_host_routes_and_prefixes_apart() -> None:
    host, wide = RouteAttributes(communities=("1:1",)), RouteAttributes(communities=("2:2",))
    both = RouteAttributes(communities=("2:2", "3:3"))
    told = Told(
        (Offer(host), Offer(wide, length=24), Offer(RouteAttributes(communities=("3:3",)), frozenset({"b"}), 24)),
        union=True,
    )
    assert told.routes("a") == ((0, host), (24, wide))
    assert told.routes("b") == ((0, host), (24, both))
    assert told.routes("b", local=True) == ((0, RouteAttributes(communities=("1:1", "2:2", "3:3"))),)


def test_a_prefix_that_is_refused_is_told_of_every_vip_in_it() -> None:
    of = told_with(aggregate())
    made = plan(of, None, 0.0, POLICY)
    (refused,) = [path for path, prefixes in made.routes.items() if WIDE in prefixes and str(path.next_hop)[-1] == "2"]
    known = seen(made, of, bgp={"rejected": {(refused, WIDE): "no room."}})
    where = {(refused.peer, refused.next_hop): "no room"}
    assert refusals_of(known) == dict.fromkeys((ip_address("198.51.100.1"), ip_address("198.51.100.2")), where)


def test_the_count_is_right_after_any_story() -> None:
    """Services come, go and move: after each step the routes equal those of a plan from scratch."""
    chance = random.Random(17)
    names = [f"{'local' if i % 4 == 0 else 's'}{i}" for i in range(12)]
    at = {name: f"198.51.{100 + i % 2}.{i}" for i, name in enumerate(names)}
    present: set[str] = set()
    made: Plan | None = None
    for step in range(60):
        present ^= {chance.choice(names)}
        dead = frozenset({chance.choice(NAMES[1:])}) if chance.random() < 0.3 else frozenset()
        rules = (aggregate(25, aggregate_only=chance.random() < 0.9),)
        of = told_with(*rules, held={name: at[name] for name in sorted(present)} or {"x": at["s1"]}, dead=dead)
        made = plan(of, made, float(step), POLICY)
        fresh = plan(of, None, float(step), POLICY)
        assert made.routes == fresh.routes
        assert dict(made.shares) == dict(fresh.shares)


def test_many_vips_are_one_route() -> None:
    pool = eip("pool", "198.18.0.0", "198.19.255.255", Protocol.BGP)
    first = pool.ranges[0].first
    services: list[Service] = [service(f"s{i}", str(first + i)) for i in range(500)]
    of = told_with(aggregate(16))
    of = replace(
        of,
        eips={"pool": pool},
        services={one.key: one for one in services},
        endpoints={one.key: (Endpoint("node-a"),) for one in services},
    )
    made = plan(of, None, 0.0, POLICY)
    assert routes(made) == {"198.18.0.0/16": OTHERS}
    assert set(made.shares.values()) == {500}
