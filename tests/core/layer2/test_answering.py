"""Which replica answers: all replicas with the same view choose the same one, and none sends to a known dead node."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from porterlb.core.layer2.answering import NOBODY, answering
from porterlb.core.observed import Answering

nodes = st.sampled_from(["a", "b", "c", "d"])
sets = st.frozensets(nodes)
orders = st.lists(nodes, unique=True)
vips = st.ip_addresses().map(str)


@given(vips, orders, sets, sets, nodes | st.just(""))
def test_one_answerer_and_a_live_next_hop(vip, candidates, dead, replicas, leader) -> None:
    found = answering(vip, candidates, dead, replicas, leader)
    assert found == answering(vip, tuple(candidates), set(dead), sorted(replicas), leader)  # the same on every replica
    alive = [node for node in candidates if node not in dead]
    if not alive:
        assert found == NOBODY
        return
    assert found.next_hop == alive[0]
    # exactly one of the replicas finds its own name
    assert [r for r in sorted(replicas) if r == found.answerer] == ([found.answerer] if replicas else [])
    assert bool(found.answerer) is bool(replicas)
    if found.next_hop in replicas:
        assert found.answerer == found.next_hop
    elif leader in replicas:
        assert found.answerer == leader


@given(vips, orders, sets, sets, nodes, nodes)
def test_a_loss_elsewhere_changes_nothing(vip, candidates, dead, replicas, leader, lost) -> None:
    before = answering(vip, candidates, dead, replicas, leader)
    after = answering(vip, candidates, dead | {lost}, replicas - {lost}, leader)
    if lost not in (before.next_hop, before.answerer):
        assert after == before


@given(vips, orders, sets, sets, nodes | st.just(""), sets)
def test_a_stale_replica_answers_for_its_own_node_only_while_another_is_up_to_date(
    vip, candidates, dead, replicas, leader, stale
) -> None:
    plain = answering(vip, candidates, dead, replicas, leader)
    here = {own: answering(vip, candidates, dead, replicas, leader, stale, own) for own in sorted(replicas)}
    assert {found.next_hop for found in here.values()} <= {plain.next_hop}
    answerers = {own for own, found in here.items() if found.answerer == own}
    if replicas <= stale or plain == NOBODY:
        assert all(found == plain for found in here.values())
    elif plain.next_hop in stale & replicas:
        assert plain.next_hop in answerers and len(answerers) == 2
    else:
        assert len(answerers) == 1 and not answerers & stale


def test_a_node_whose_replica_is_silent_stays_next_hop_and_the_leader_answers_for_it() -> None:
    assert answering("10.0.0.1", ["a", "b"], set(), {"b", "c"}, "c") == Answering("a", "c")
    assert answering("10.0.0.1", ["a", "b"], set(), {"b"}, "c") == Answering("a", "b")
    assert answering("10.0.0.1", ["a", "b"], {"a"}, {"b", "c"}, "c") == Answering("b", "b")
    assert answering("10.0.0.1", ["a", "b"], {"a", "b"}, {"c"}, "c") == NOBODY
    assert answering("10.0.0.1", ["a"], set(), set(), "c") == Answering("a", "")
