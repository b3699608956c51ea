"""When a replica starts to answer or is heard again, the others ask for the VIPs that they answer for."""

from __future__ import annotations

from porterlb.core.layer2.reunion import AT_ONCE, PAUSE, Reunion
from porterlb.core.layer2.serving import LISTEN
from tests.core.layer2.world import World

VIPS = [bytes((10, 0, number // 250, number % 250)) for number in range(100)]


def test_a_replica_that_answers_is_asked_about_once_until_it_leaves() -> None:
    made = Reunion(1000, 5.0)
    made.said("b", False, VIPS[:2], 5.0)
    assert made.next_at is None and made.due(5.0) == ()
    made.said("b", True, VIPS[:2], 6.0)
    assert made.next_at == 6.0 and made.due(6.0) == tuple(VIPS[:2]) and made.next_at is None
    made.said("b", True, VIPS[:2], 7.0)
    assert made.next_at is None, "it answered before"
    made.left("b")
    made.said("b", True, VIPS[:1], 8.0)
    assert made.due(8.0) == tuple(VIPS[:1])
    made.said("b", False, VIPS, 9.0)
    made.said("b", True, VIPS[:1], 9.0)
    assert made.due(9.0) == tuple(VIPS[:1])


def test_questions_are_paced_and_each_vip_waits_once() -> None:
    made = Reunion(100, 0.0)
    made.said("b", True, VIPS, 10.0)
    made.said("c", True, VIPS, 10.0)
    sent: list[tuple[float, bytes]] = []
    while (at := made.next_at) is not None:
        assert made.due(at - PAUSE / 2) == ()
        found = made.due(at)
        assert len(found) <= AT_ONCE
        sent += [(at, address) for address in found]
    assert [address for _, address in sent] == VIPS
    assert 0.85 <= sent[-1][0] - 10.0 <= 1.0  # 100 per second, after a burst of 0.1 s


def test_the_others_ask_for_their_vips_when_a_replica_is_heard_again() -> None:
    ours, theirs = "10.0.0.100", "10.0.0.101"
    world = World("n1", "n2", "n3")
    world.vips((ours, ("n1", "n3", "n2")), (theirs, ("n3", "n1", "n2")))
    world.run(LISTEN + 2)
    n1, n3 = world.replicas["n1"], world.replicas["n3"]
    for replica in (n1, n3):
        replica.checked.clear()
    world.run(2)
    assert n1.checked == [], "nothing has changed"
    world.cut = {"n2"}
    world.run(12)
    assert n1.checked == [], "no replica has come"
    world.cut = set()
    world.run(LISTEN + 3)
    assert {vip for _, vip in n1.checked} == {ours}
    assert {vip for _, vip in n3.checked} == {theirs}
