"""The rendezvous order: the same on every node, stable under loss, balanced over a pool."""

from __future__ import annotations

import statistics
import time
from collections import Counter
from ipaddress import ip_address

from hypothesis import given
from hypothesis import strategies as st

from porterlb.core.rendezvous import ranked, shuffled

NAMES = st.lists(st.text(min_size=1, max_size=20), unique=True, max_size=8)
KEYS = st.one_of(st.ip_addresses().map(str), st.text(max_size=30))


@given(KEYS, NAMES, st.randoms())
def test_is_a_permutation_that_ignores_the_order_given(key, names, random) -> None:
    order = ranked(key, names)
    assert sorted(order) == sorted(names)
    random.shuffle(names)
    assert ranked(key, names) == order


@given(KEYS, NAMES.filter(bool), st.data())
def test_a_lost_name_changes_nothing_for_the_others(key, names, data) -> None:
    lost = data.draw(st.sampled_from(names))
    assert ranked(key, [n for n in names if n != lost]) == tuple(n for n in ranked(key, names) if n != lost)


@given(KEYS, NAMES, st.data())
def test_the_cheap_order_is_a_permutation_too_that_a_lost_name_does_not_change(key, names, data) -> None:
    order = shuffled(key, names)
    assert sorted(order) == sorted(names) and shuffled(key, names[::-1]) == order
    if names:
        lost = data.draw(st.sampled_from(names))
        assert shuffled(key, [n for n in names if n != lost]) == [n for n in order if n != lost]


def test_the_cheap_order_puts_each_name_first_for_some_keys() -> None:
    names = ["node-a", "node-b", "node-c"]
    first = Counter(shuffled(f"10.0.0.{i}", names)[0] for i in range(200))
    assert set(first) == set(names) and min(first.values()) > 40


def spread(first: str, count: int, names: list[str]) -> float:
    """(fullest - emptiest) / mean of the first choices over consecutive addresses."""
    start = ip_address(first)
    held = Counter(ranked(str(start + i), names)[0] for i in range(count))
    return (max(held[n] for n in names) - min(held[n] for n in names)) / (count / len(names))


def test_300_addresses_over_3_nodes_are_balanced() -> None:
    pools = [f"10.{a}.{b}.10" for a in range(10) for b in (0, 7, 100)]
    pools += [f"192.168.{b}.1" for b in range(20)]
    pools += [f"fd00:{a:x}::{b:x}00" for a in range(10) for b in (0, 1)]
    namings = (["node-a", "node-b", "node-c"], ["node1", "node2", "node3"], ["k8s-worker-1", "k8s-worker-2", "edge"])
    found = [spread(pool, 300, names) for pool in pools for names in namings]
    assert statistics.mean(found) < 0.13  # plain hashing: 0.166
    assert sum(x > 0.25 for x in found) <= 0.04 * len(found)  # plain hashing: 15%


def test_ten_thousand_addresses_are_ordered_quickly() -> None:
    names, first = ["node-a", "node-b", "node-c"], ip_address("10.99.0.0")
    keys = [str(first + i) for i in range(10_000)]
    begun = time.process_time()
    for key in keys:
        ranked(key, names)
    assert time.process_time() - begun < 1.0  # 40 ms on an idle machine; bench/ has measurements
