"""The pool of free addresses: constant time, no lost and no duplicate addresses; and allocation at full size."""

from __future__ import annotations

import gc
import time
from dataclasses import replace
from ipaddress import ip_address

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from porterlb.core.allocation import AllocationMemory, allocate
from porterlb.core.allocation import pool as pools
from porterlb.core.allocation.pool import Pool, decode, encode, version_of
from porterlb.core.model import ServiceKey
from tests.core.allocation_world import eip, got, run, service


@given(st.ip_addresses())
def test_codes(address: object) -> None:
    code = encode(address)  # type: ignore[arg-type]
    assert decode(code) == address
    assert version_of(code) == address.version  # type: ignore[attr-defined]


@pytest.mark.parametrize("remembered", [3, 65_536])
@settings(max_examples=120, deadline=None)
@given(data=st.data())
def test_a_pool_gives_every_address_once(remembered: int, data: st.DataObject) -> None:
    """Compared with a plain set, also if the pool forgets freed addresses (a small limit) and if its ranges change."""
    before, pools.REMEMBERED = pools.REMEMBERED, remembered
    try:
        shapes = [((1, 4), (7, 7), (10, 15)), ((2, 12),), ((1, 1),), ()]
        pool, taken = Pool(shapes[0]), set[int]()
        for now in range(data.draw(st.integers(1, 60))):
            what = data.draw(st.sampled_from(["take", "take", "take", "name", "free", "free", "shape", "copy"]))
            all_ = {code for first, last in pool.ranges for code in range(first, last + 1)}
            if what == "take":
                barred = data.draw(st.sets(st.sampled_from(range(1, 16)), max_size=2))
                code = pool.longest_free(taken, barred)
                assert (code is None) == (all_ <= taken | barred)
                if code is not None:
                    assert code in all_ - taken - barred
                    taken.add(code)
                for freed in sorted(barred & all_ - taken):  # as the caller does when it lifts a bar
                    pool.release(freed, float(now))
            elif what == "name" and all_ - taken:
                taken.add(data.draw(st.sampled_from(sorted(all_ - taken))))
            elif what == "free" and taken:
                code = data.draw(st.sampled_from(sorted(taken)))
                taken.discard(code)
                if code in all_:
                    pool.release(code, float(now))
            elif what == "shape":
                pool = pool.reshaped(data.draw(st.sampled_from(shapes)))
            elif what == "copy":
                pool = pool.copy()
    finally:
        pools.REMEMBERED = before


def test_a_freed_address_is_the_last_to_come_again() -> None:
    pool, taken = Pool(((1, 3),)), set[int]()
    for _ in range(3):
        taken.add(pool.longest_free(taken) or 0)
    for code in (2, 1, 3):
        taken.discard(code)
        pool.release(code, float(code))
    order = []
    while (free := pool.longest_free(taken)) is not None:
        taken.add(free)
        order.append(free)
    assert order == [2, 1, 3]


def test_a_freed_address_that_was_forgotten_is_found_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pools, "REMEMBERED", 1)
    pool, taken = Pool(((1, 3), (5, 6))), {1, 2, 3, 5, 6}
    assert pool.longest_free(taken) is None
    for code in (2, 6, 5):
        taken.discard(code)
        pool.release(code, float(code))
    order = []
    while (free := pool.longest_free(taken)) is not None:
        taken.add(free)
        order.append(free)
    assert order == [5, 2, 6]


def test_a_v6_pool_costs_nothing() -> None:
    """A /64, also with a holder of its last address: no step iterates over the pool."""
    big = eip("big", "2001:db8::-2001:db8::ffff:ffff:ffff:ffff")
    far = service("far", families=(6,), held=(ip_address("2001:db8::ffff:ffff:ffff:ffff"),))
    began = time.process_time()
    result = run([far, service("web", families=(6,))], [big])
    assert got(result, "web") == ["2001:db8::"]
    assert result.eips["big"].size == 2**64
    freed = run([service("web", families=(6,))], [big], result.memory, 1.0)
    more = [service(f"s{n}", families=(6,)) for n in range(300)]
    assert len(run(more, [big], freed.memory, 2.0).eips["big"].used) == 300
    assert time.process_time() - began < 2


def test_ten_thousand_holders_and_one_more() -> None:
    """Generous bounds: all take about 0.1 s and one takes a few ms on an idle machine."""
    eips = {"e": eip("e", "10.0.0.0-10.0.255.255")}
    keys = [ServiceKey("ns", f"s{n}") for n in range(10_000)]
    services = {key: service(key.name, created="2026", uid=key.name) for key in keys}
    first = allocate(services, eips, AllocationMemory(), 0.0)
    held = {key: replace(services[key], held=first.services[key].addresses) for key in keys}
    gc.collect()
    began = time.process_time()
    again = allocate(held, eips, AllocationMemory(), 1.0)
    assert time.process_time() - began < 1.5
    assert all(again.services[key].addresses == first.services[key].addresses for key in keys)
    held[ServiceKey("ns", "new")] = service("new")
    began = time.process_time()
    one = allocate(held, eips, again.memory, 2.0)
    assert time.process_time() - began < 0.2
    assert got(one, "new") == ["10.0.39.16"]
    assert all(one.services[key] is again.services[key] for key in keys)


def test_each_range_of_a_pool_is_used_from_its_first_address() -> None:
    pool, taken, order = Pool(((10, 11), (20, 22))), set[int](), []
    while (free := pool.longest_free(taken)) is not None:
        taken.add(free)
        order.append(free)
    assert order == [10, 11, 20, 21, 22]
