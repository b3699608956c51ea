"""Invariants for any Services, any Eips and any order of events (see World.step)."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from porterlb.core.allocation import AllocationMemory
from porterlb.core.model import Port, ServiceKey
from tests.core.allocation_world import (
    ADDRESSES,
    World,
    any_eip,
    any_ranges,
    any_service,
    eip,
    got,
    of,
    run,
    service,
    written,
)

KEYS = [ServiceKey(namespace, f"s{n}") for namespace in ("a", "b") for n in range(4)]
NAMES = ["e0", "e1", "e2"]
EVENTS = ["service", "gone", "write", "write", "foreign", "eip", "reshape", "edit", "edit", "claim", "reserve"]
EVENTS += ["elsewhere", "leader"]
EVENTS.append("restart")


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_any_history(data: st.DataObject) -> None:
    world = World(namespaces={"a": {"tier": "front"}, "b": {}})
    for name in NAMES[: data.draw(st.integers(0, 3))]:
        world.eips[name] = data.draw(any_eip(name))
    for key in data.draw(st.lists(st.sampled_from(KEYS), unique=True)):
        world.services[key] = data.draw(any_service(key))
    world.step(0)
    for seed in range(data.draw(st.integers(0, 8))):
        what = data.draw(st.sampled_from(EVENTS))
        key, name = data.draw(st.sampled_from(KEYS)), data.draw(st.sampled_from(NAMES))
        if what == "service":
            world.services[key] = data.draw(any_service(key))
        elif what == "gone":
            world.services.pop(key, None)
        elif what == "write":
            world.write(data.draw(st.sets(st.sampled_from(KEYS))))
        elif what == "eip":
            if world.eips.pop(name, None) is None:
                world.eips[name] = data.draw(any_eip(name))
        elif what == "edit" and name in world.eips:
            old, new = world.eips[name], data.draw(any_eip(name))
            world.eips[name] = replace(new, ranges=old.ranges, created=old.created, uid=old.uid, probe=old.probe)
        elif what == "reshape" and name in world.eips:
            world.eips[name] = replace(world.eips[name], ranges=data.draw(any_ranges()))
        elif what == "claim":
            world.claimed = frozenset(data.draw(st.sets(ADDRESSES, max_size=3)))
        elif what == "reserve":
            world.reserved = dict.fromkeys(data.draw(st.sets(ADDRESSES, max_size=3)), "is an address of node n")
        elif what == "elsewhere":
            users = st.lists(st.sampled_from(KEYS), min_size=1, max_size=2, unique=True).map(tuple)
            world.elsewhere = data.draw(st.dictionaries(ADDRESSES, users, max_size=2))
        elif what == "foreign" and key in world.services:
            held = tuple(data.draw(st.lists(ADDRESSES, max_size=2, unique=True)))
            world.services[key] = replace(world.services[key], held=held, foreign_writer="kubectl" if held else "")
        elif what == "leader":
            world.leader = not world.leader
        elif what == "restart":
            world.memory, world.last = AllocationMemory(), None
        world.step(seed)


@settings(max_examples=60, deadline=None)
@given(
    size=st.integers(1, 40),
    claimed=st.sets(st.integers(0, 39), max_size=5),
    churn=st.lists(st.integers(0, 60), max_size=60),
)
def test_every_address_of_a_pool_serves_and_not_one_more(size: int, claimed: set[int], churn: list[int]) -> None:
    """After any sequence of events, a pool of N addresses serves exactly N Services."""
    world = World(eips={"e": eip("e", f"10.0.0.0-10.0.0.{size - 1}")})
    for at, n in enumerate(churn):
        key = ServiceKey("ns", f"s{n}")
        if world.services.pop(key, None) is None:
            world.services[key] = service(f"s{n}")
        if at % 7 == 3:
            world.claimed = frozenset(world.eips["e"].ranges[0].first + n for n in claimed if n < size)
        if at % 7 == 6:
            world.claimed = frozenset()
        result = world.step(at)
        want = min(len(world.services), size - len(world.claimed))
        assert sum(1 for a in result.services.values() if a.addresses) >= want
        world.write(world.services)
    world.claimed = frozenset()
    for n in range(size + 3):
        world.services.setdefault(ServiceKey("ns", f"s{n}"), service(f"s{n}"))
    result = world.step(0)
    assert len(result.eips["e"].used) == size


@settings(max_examples=60, deadline=None)
@given(days=st.lists(st.integers(0, 5), min_size=1, max_size=30))
def test_the_longest_free_address_comes_first(days: list[int]) -> None:
    """A returned address is the last one to be assigned again, except to its last holder."""
    world = World(eips={"e": eip("e", "10.0.0.1-10.0.0.8")})
    free = [f"10.0.0.{n}" for n in range(1, 9)]
    last: dict[str, str] = {}
    for step, n in enumerate(days):
        key = ServiceKey("ns", f"s{n}")
        if key in world.services:
            (address,) = got(world.last, f"s{n}") if world.last else []
            free.append(address)
            last[address] = f"s{n}"
            del world.services[key]
            world.step(step)
        else:
            world.services[key] = service(f"s{n}")
            expected = next((a for a in reversed(free) if last.get(a) == f"s{n}"), free[0])
            free.remove(expected)
            last.pop(expected, None)
            assert got(world.step(step), f"s{n}") == [expected]
            world.write([key])


@settings(max_examples=60, deadline=None)
@given(ports=st.lists(st.integers(1, 3), min_size=1, max_size=6))
def test_sharing_puts_disjoint_ports_on_one_address(ports: list[int]) -> None:
    services = [
        service(f"s{n}", ports=frozenset({Port("TCP", port)}), sharing_key="k", created=f"2026-01-0{n + 1}")
        for n, port in enumerate(ports)
    ]
    result = run(services, [eip("e", "10.0.0.1-10.0.0.9")])
    most = max(ports.count(port) for port in ports)
    assert len(result.eips["e"].used) == most
    again = run(written(services, result), [eip("e", "10.0.0.1-10.0.0.9")])
    assert {s.key: of(again, s.key.name).addresses for s in services} == {
        s.key: of(result, s.key.name).addresses for s in services
    }
