"""When a replica starts to answer or is heard again, the others ask for the VIPs that they answer for."""

from __future__ import annotations

from porterlb.core.layer2.reunion import AT_ONCE, PAUSE, Reunion

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
