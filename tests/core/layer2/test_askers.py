"""The table of askers: the same assignment on every replica, an equal share for each node, and bounded memory."""

from __future__ import annotations

from collections import Counter
from ipaddress import ip_address

from hypothesis import given
from hypothesis import strategies as st

from porterlb.core.hello import Assignment
from porterlb.core.layer2.askers import AskerTable, counts, order, place

VIP = ip_address("10.0.0.100").packed
OTHER = ip_address("fd00::100").packed
NODES = ["n1", "n2", "n3", "n4"]

macs = st.integers(1, 2**40 - 1).map(lambda number: b"\2" + number.to_bytes(5, "big"))
askers = st.lists(macs, max_size=40, unique=True)
names = st.lists(st.sampled_from(NODES), min_size=1, unique=True)
some_loads = st.dictionaries(st.sampled_from(NODES), st.integers(0, 20))


def mac(number: int) -> bytes:
    return b"\2\0\0\0" + number.to_bytes(2, "big")


def assignment(asker: int, node: str, stamp: int, vip: bytes = VIP) -> Assignment:
    return Assignment(vip, mac(asker), bytes(len(vip)), node, stamp)


def mean(total: int, nodes: int) -> int:
    return -(-total // nodes)


@given(askers, names, some_loads)
def test_the_place_of_askers_depends_on_values_alone(found, nodes, loads) -> None:
    placed = place(VIP, found, nodes, loads)
    backwards = dict(reversed(loads.items()))
    assert placed == place(VIP, reversed(found), reversed(nodes), backwards)
    assert set(placed) == set(found) and set(placed.values()) <= set(nodes)


@given(askers, names)
def test_no_node_gets_more_than_its_share(found, nodes) -> None:
    one_by_one: Counter[str] = Counter()
    for asker in found:
        one_by_one.update(place(VIP, [asker], nodes, one_by_one).values())
    for loads in (one_by_one, Counter(place(VIP, found, nodes, {}).values())):
        assert max(loads.values(), default=0) <= mean(len(found), len(nodes))


@given(askers, names, some_loads)
def test_a_node_above_its_share_gets_no_asker(found, nodes, loads) -> None:
    placed = Counter(place(VIP, found, nodes, loads).values())
    total = sum(loads.get(name, 0) for name in nodes) + len(found)
    for name in nodes:
        assert not placed[name] or loads.get(name, 0) + placed[name] <= mean(total, len(nodes))


def test_without_a_node_nothing_is_placed() -> None:
    assert place(VIP, [mac(1)], [], {}) == {}


@given(macs, names)
def test_taking_a_node_away_keeps_the_order_of_the_others(asker, nodes) -> None:
    full = order(VIP, asker, nodes)
    assert sorted(full) == sorted(nodes)
    assert order(VIP, asker, full[1:]) == full[1:]


def test_the_order_differs_between_askers_and_between_vips() -> None:
    firsts = Counter(order(vip, mac(number), NODES[:3])[0] for number in range(300) for vip in (VIP, OTHER))
    assert min(firsts.values()) > 150
    assert any(order(VIP, mac(n), NODES)[0] != order(OTHER, mac(n), NODES)[0] for n in range(10))


@given(st.integers(0, 3), st.integers(0, 3), st.sampled_from(NODES), st.sampled_from(NODES))
def test_of_two_assignments_exactly_one_counts(stamp, other, node, another) -> None:
    one, two = assignment(1, node, stamp), assignment(1, another, other)
    assert counts(one, two) + counts(two, one) == int((stamp, node) != (other, another) and not _same(one, two))
    if stamp > other:
        assert counts(one, two)


def _same(one: Assignment, two: Assignment) -> bool:
    return (one.stamp, one.node) == (two.stamp, two.node)


pieces = st.lists(
    st.builds(
        assignment, st.integers(1, 12), st.sampled_from(NODES), st.integers(1, 30), st.sampled_from([VIP, OTHER])
    ),
    max_size=40,
)


@given(pieces, st.randoms())
def test_tables_that_heard_the_same_are_the_same_in_whatever_order(found, random) -> None:
    one, two = AskerTable(), AskerTable()
    for each in found:
        one.take(each, 0.0)
    again = [*found, *found[:5]]
    random.shuffle(again)
    for each in again:
        two.take(each, 1.0)
    assert list(one) == list(two) and len(one) == len(two) and one.clock == two.clock
    for vip in (VIP, OTHER):
        assert one.loads(vip) == two.loads(vip) == dict(Counter(a.node for a in one.of(vip).values()))


@given(pieces)
def test_memory_is_bounded_and_the_oldest_go_first(found) -> None:
    table = AskerTable(most=4)
    for each in found:
        before = {(a.vip, a.asker): a for a in table}
        taken, dropped = table.take(each, 0.0)
        assert len(table) <= 4 and len(table) == len(list(table))
        if dropped is not None:
            assert taken and dropped in {*before, (each.vip, each.asker)}
            assert all(a.stamp >= before.get(dropped, each).stamp for a in table)
    assert len(table._oldest) <= 17


def test_what_was_dropped_for_want_of_room_does_not_return_by_a_late_piece() -> None:
    table = AskerTable(most=2)
    for number in (1, 2, 3):
        table.take(assignment(number, "n1", number), 0.0)
    assert table.get(VIP, mac(1)) is None
    assert table.take(assignment(1, "n1", 1), 0.0) == (False, None)
    assert table.take(assignment(1, "n1", 4), 0.0) == (True, (VIP, mac(2)))  # it has asked again


def test_an_assignment_knows_when_it_was_renewed() -> None:
    table = AskerTable()
    table.take(assignment(1, "n1", 1), 5.0)
    assert table.take(assignment(1, "n1", 1), 9.0) == (False, None) and table.heard(VIP, mac(1)) == 5.0
    assert table.take(assignment(1, "n1", 2), 9.0) == (True, None) and table.heard(VIP, mac(1)) == 9.0
