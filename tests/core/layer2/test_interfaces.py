"""Which interfaces are used, which one an address belongs to, and the probe targets on each."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address, ip_interface, ip_network

from porterlb.core.layer2.interfaces import InterfaceTable
from porterlb.core.layer2.targets import GATEWAY, Gateway, find_targets, source_for
from porterlb.core.model import Member
from porterlb.core.observed import Nic

MAC = b"\2\0\0\0\0\1"


def nic(index: int, *addresses: str, name: str = "", up: bool = True, mac: bytes = MAC) -> Nic:
    return Nic(name or f"eth{index}", index, mac, up, tuple(map(ip_interface, addresses)))


def table(*nics: Nic) -> InterfaceTable:
    made = InterfaceTable()
    made.update({each.index: each for each in nics})
    return made


def test_an_address_belongs_to_the_longest_prefix_that_is_up_whatever_the_order() -> None:
    wide, narrow = nic(1, "10.0.0.1/16"), nic(2, "10.0.7.1/24")
    for nics in ((wide, narrow), (narrow, wide)):
        assert table(*nics).index_of(ip_address("10.0.7.9")) == 2
        assert table(*nics).index_of(ip_address("10.0.8.9")) == 1
    assert table(wide, replace(narrow, up=False)).index_of(ip_address("10.0.7.9")) == 1
    assert table(wide).index_of(ip_address("10.1.0.1")) == 0
    assert table(wide).index_of(ip_address("fd00::1")) == 0


def test_a_host_address_is_no_subnet() -> None:
    made = table(nic(1, "10.0.0.1/24", "10.9.9.9/32", "fd00::1/128"))
    assert made.index_of(ip_address("10.9.9.9")) == 0 and made.index_of(ip_address("fd00::1")) == 0
    assert source_for(nic(1, "10.9.9.9/32"), ip_address("10.9.9.9")) is None
    assert source_for(nic(1, "10.0.0.1/16", "10.0.7.1/24"), ip_address("10.0.7.9")) == ip_address("10.0.7.1")


def test_an_interface_is_opened_once_when_it_is_needed_and_anew_after_it_was_closed() -> None:
    made = table(nic(1, "10.0.0.1/24"))
    first = made.use(1)
    assert first is not None and made.use(1) == first and [each.index for each in made.to_open] == [1]
    made.to_open.clear()
    assert made.use(7) is None
    change = made.update({1: nic(1, "10.0.0.1/24", mac=b"\2\0\0\0\0\2")})
    assert change is not None and change.closed == (1,) and change.gone == ()
    again = made.use(1)
    assert again is not None and again != first and [each.index for each in made.to_open] == [1]


def test_what_closes_an_interface_and_what_does_not() -> None:
    base = nic(1, "10.0.0.1/24")
    for changed, closes in (
        (replace(base, up=False), True),
        (replace(base, mac=b"\2" * 6), True),
        (replace(base, name="lan0"), True),
        (nic(1, "10.0.0.1/24", "10.0.1.1/24"), False),
    ):
        made = table(base)
        made.use(1)
        change = made.update({1: changed})
        assert change is not None and (change.closed == (1,)) is closes, changed
    made = table(base)
    made.use(1)
    change = made.update({2: nic(2, "10.0.0.2/24")})
    assert change is not None and (change.closed, change.gone) == ((1,), (1,))


def test_interfaces_of_pods_come_and_go_unnoticed() -> None:
    made = table(nic(1, "10.0.0.1/24"))
    pod = nic(9, "fe80::1/64", name="veth9")
    assert made.update({1: nic(1, "10.0.0.1/24"), 9: pod}) is None
    assert made.update({1: nic(1, "10.0.0.1/24")}) is None
    assert made.of(ip_address("10.9.0.1"), "veth9", None) is None  # named from now on
    assert made.update({1: nic(1, "10.0.0.1/24"), 9: pod}) is not None
    found = made.of(ip_address("10.9.0.1"), "veth9", None)
    assert found is not None and found.ifindex == 9


def test_what_failed_is_left_alone_until_it_is_tried_again() -> None:
    made = table(nic(1, "10.0.0.1/24"))
    made.use(1)
    made.failed(1, "no such device")
    assert made.use(1) is None and made.trouble == {1: "no such device"} and made.to_open == []
    assert made.try_again() and made.use(1) is not None
    assert not made.try_again()


def test_a_route_is_asked_for_once_and_anew_when_interfaces_change() -> None:
    goal = ip_address("8.8.8.8")
    made = table(nic(1, "10.0.0.1/24"))
    assert made.of(ip_address("10.9.0.1"), "", goal) is None and made.of(ip_address("10.9.0.2"), "", goal) is None
    assert made.to_find == [goal]
    made.to_find.clear()
    made.route_found(goal, 1)
    found = made.of(ip_address("10.9.0.1"), "", goal)
    assert found is not None and found.ifindex == 1
    made.update({1: nic(1, "10.0.0.1/24"), 2: nic(2, "8.8.8.1/24")})
    found = made.of(ip_address("10.9.0.1"), "", goal)
    assert found is not None and found.ifindex == 2 and made.to_find == []
    made.update({1: nic(1, "10.0.0.1/24")})
    assert made.of(ip_address("10.9.0.1"), "", goal) is None and made.to_find == [goal]


def targets(nodes: dict[str, list[str]], *nics: Nic, told: str = "", gateways: tuple[Gateway, ...] = ()) -> set[object]:
    subnets = (ip_interface(told),) if told else ()
    members = {"b": Member("b", "10.0.0.2", 7473, 1, subnets)}
    found = find_targets("a", {n: list(map(ip_address, t)) for n, t in nodes.items()}, members, nics, gateways)
    return {(t.node, t.key.nic, str(ip_address(t.key.address)), t.decides) for t in found}


def test_one_address_of_each_other_node_is_probed_on_each_interface() -> None:
    eth0, eth1 = nic(1, "10.0.0.1/24"), nic(2, "10.1.0.1/24")
    assert targets({"a": ["10.0.0.1"], "b": ["10.0.0.2", "10.0.0.3"]}, eth0) == {("b", 1, "10.0.0.2", True)}
    assert targets({"b": ["192.0.2.1"]}, eth0) == set()
    assert targets({"b": ["10.0.0.2"]}, eth0, eth1, told="10.1.0.2/24") == {
        ("b", 1, "10.0.0.2", True),
        ("b", 2, "10.1.0.2", False),
    }


def test_our_own_and_link_local_addresses_are_not_probed() -> None:
    eth0 = nic(1, "10.0.0.1/24", "fe80::1/64", "169.254.0.1/16")
    assert targets({"b": ["10.0.0.1", "fe80::2", "169.254.0.2", "10.0.0.2"]}, eth0) == {("b", 1, "10.0.0.2", True)}


def test_a_gateway_on_a_subnet_of_ours_is_probed_and_decides_nothing() -> None:
    eth0 = nic(1, "10.0.0.1/24")
    inside, outside = Gateway(1, ip_address("10.0.0.254")), Gateway(1, ip_address("10.9.0.254"))
    found = targets({}, eth0, gateways=(inside, outside, Gateway(5, ip_address("10.0.0.253"))))
    assert found == {(GATEWAY, 1, "10.0.0.254", False)}
    assert ip_address("10.0.0.254") in ip_network("10.0.0.0/24")
