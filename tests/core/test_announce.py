"""Which replicas announce which next hops."""

from __future__ import annotations

from ipaddress import ip_address, ip_interface

from hypothesis import given
from hypothesis import strategies as st

from porterlb.core.announce import COPIES, Reach, arrange, path_id
from porterlb.core.model import Member, Peer

NAMES = [f"node-{letter}" for letter in "abcdefgh"]


def reach(nodes: list[str] = NAMES, *, subnet: str = "10.77.0.0/24", multihop: int = 0) -> Reach:
    members = {
        name: Member(name, f"10.77.0.{i + 11}", 1, 1, (ip_interface(f"10.77.0.{i + 11}/{subnet.split('/')[1]}"),))
        for i, name in enumerate(nodes)
    }
    addresses = {name: (ip_address(member.address),) for name, member in members.items()}
    return Reach(Peer("tor", ip_address("10.77.0.1"), 64500, multihop_ttl=multihop), 4, addresses, members)


some = st.lists(st.sampled_from(NAMES), unique=True, min_size=1).map(sorted)


@given(some, some, st.integers(1, 4), st.integers(0, 1000))
def test_arrangement(hops: list[str], replicas: list[str], capacity: int, salt: int) -> None:
    made = arrange(hops, replicas, reach(), dict.fromkeys(replicas, capacity), salt)
    for replica, told in made.items():
        assert len(told) <= capacity and len(set(told)) == len(told) and set(told) <= set(hops)
        if replica in told:
            assert replicas == [replica], "a node speaks for itself only when no other can"
    for hop in hops:
        assert sum(hop in told for told in made.values()) <= COPIES
    covered = {hop for told in made.values() for hop in told}
    if len(replicas) > 1:
        assert len(covered) >= min(len(hops), _most(hops, replicas, capacity))


def _most(hops: list[str], replicas: list[str], capacity: int) -> int:
    """An independent count of the coverable next hops: brute force for one path; here Hall's bound is enough."""
    if capacity * len(replicas) < len(hops):
        return capacity * len(replicas) if len(replicas) > 1 and len(hops) > 1 else 0
    if len(replicas) == 2 and set(hops) <= set(replicas) and capacity == 1:
        return len(hops)
    return len(hops)


@given(some, some, st.integers(1, 4))
def test_all_replicas_agree(hops: list[str], replicas: list[str], capacity: int) -> None:
    each = dict.fromkeys(replicas, capacity)
    assert arrange(hops, replicas, reach(), each) == arrange(hops, list(replicas), reach(), each)


def test_each_replica_announces_what_its_own_session_can_carry() -> None:
    made = arrange(NAMES[:3], NAMES[:3], reach(), {"node-a": 3, "node-b": 1, "node-c": 1})
    assert set(made["node-a"]) == {"node-b", "node-c"}
    assert [len(made[name]) for name in ("node-b", "node-c")] == [1, 1]
    assert "node-a" in (*made["node-b"], *made["node-c"])


def test_three_nodes_without_add_path_are_all_covered() -> None:
    made = arrange(NAMES[:3], NAMES[:3], reach(), dict.fromkeys(NAMES, 1))
    assert sorted(hop for told in made.values() for hop in told) == NAMES[:3]


def test_with_add_path_each_next_hop_is_told_by_the_others() -> None:
    made = arrange(NAMES[:3], NAMES[:3], reach(), dict.fromkeys(NAMES, 3))
    assert {replica: set(told) for replica, told in made.items()} == {
        name: set(NAMES[:3]) - {name} for name in NAMES[:3]
    }


def test_routed_fabric_where_only_the_own_node_is_on_the_session_subnet() -> None:
    members = {name: Member(name, "", 1, 1, (ip_interface(f"10.{i}.0.2/30"),)) for i, name in enumerate(NAMES[:2])}
    addresses = {name: (ip_address(f"10.{i}.0.2"),) for i, name in enumerate(NAMES[:2])}
    own = Reach(Peer("tor-0", ip_address("10.0.0.1"), 64500), 4, addresses, members)
    assert own.address("node-a", "node-a") == ip_address("10.0.0.2")
    assert own.address("node-a", "node-b") is None
    assert arrange(NAMES[:2], ["node-a"], own, {"node-a": 3}) == {"node-a": ("node-a",)}
    assert arrange(["node-b"], ["node-a"], own, {"node-a": 3}) == {}


def test_multihop_takes_any_next_hop() -> None:
    far = Reach(Peer("rr", ip_address("192.0.2.1"), 64500, multihop_ttl=5), 4, reach().addresses, reach().members)
    assert far.address("node-a", "node-c") == ip_address("10.77.0.13")


def test_path_ids_differ_for_neighbouring_addresses() -> None:
    for first in ("10.77.0.11", "fd77::11"):
        ids = {path_id(ip_address(first) + n) for n in range(200)}
        assert len(ids) == 200 and 0 not in ids


def test_the_first_address_of_a_family_is_the_next_hop_unless_the_session_is_on_the_subnet_of_another() -> None:
    two = {"node-b": (ip_address("fd00::1"), ip_address("192.0.2.12"), ip_address("10.77.0.12"))}
    members = {"node-a": Member("node-a", "10.77.0.11", 1, 1, (ip_interface("10.77.0.11/24"),))}
    near = Peer("tor", ip_address("10.77.0.1"), 64500)
    far = Peer("tor", ip_address("203.0.113.1"), 64500, multihop_ttl=3)
    assert Reach(near, 4, two, members).address("node-a", "node-b") == ip_address("10.77.0.12")
    assert Reach(far, 4, two, members).address("node-a", "node-b") == ip_address("192.0.2.12")
    assert Reach(near, 4, two, {}).address("node-a", "node-b") == ip_address("192.0.2.12"), "nothing is known of it"
    assert Reach(near, 4, two, members).address("node-a", "node-x") is None
    assert Reach(far, 6, two, members).address("node-a", "node-b") == ip_address("fd00::1")
