"""Router advertisements: which ones are valid, which router of a link is used, and for which time."""

from __future__ import annotations

from ipaddress import IPv6Address, ip_address

import pytest

from porterlb.core.bgp.router_table import (
    CEASED,
    CONFIRMED,
    MOST,
    NOT_A_DEFAULT_ROUTER,
    OWN_ADVERTISEMENT,
    Advertised,
    RouterTable,
    parse_advertisement,
)

ONE, TWO = IPv6Address("fe80::1"), IPv6Address("fe80::2")
RAW = bytes.fromhex("8600000040000708" + "00" * 8)  # lifetime 1,800 s, medium preference
OPTION = bytes.fromhex("0101020000000001")  # source link-layer address


@pytest.mark.parametrize(
    ("data", "found"),
    [
        (RAW, Advertised(ONE, 1800)),
        (RAW + OPTION, Advertised(ONE, 1800)),
        (RAW[:5] + b"\x08" + RAW[6:], Advertised(ONE, 1800, 1)),
        (RAW[:5] + b"\x18\x00\x00" + RAW[8:], Advertised(ONE, 0, -1)),
        (RAW[:5] + b"\x10" + RAW[6:], Advertised(ONE, 1800)),  # reserved: treated as medium
        (RAW[:15], None),
        (b"\x85" + RAW[1:], None),
        (RAW[:1] + b"\x01" + RAW[2:], None),
        (RAW + b"\x01\x00", None),  # an option without a length
        (RAW + OPTION[:7], None),
        (RAW + b"\x01", None),
        (b"", None),
    ],
)
def test_only_valid_advertisements_are_read(data: bytes, found: Advertised | None) -> None:
    assert parse_advertisement(data, ONE, 255) == found


def test_an_advertisement_from_beyond_the_link_is_ignored() -> None:
    assert parse_advertisement(RAW, ONE, 254) is None
    assert parse_advertisement(RAW, IPv6Address("fd00::1"), 255) is None


def table(*interfaces: str) -> RouterTable:
    made = RouterTable()
    made.want(interfaces or ("eth0",), 0.0)
    made.step(0.0)
    return made


def shown(of: RouterTable) -> list[str]:
    return [str(address) for address in of.routers]


def test_a_router_is_used_until_its_lifetime_is_over() -> None:
    made = table()
    made.heard("eth0", Advertised(ONE, 30), 1.0)
    assert made.routers == (ip_address("fe80::1%eth0"),)
    assert made.next_at == 3.0
    made.heard("eth0", Advertised(ONE, 30), 11.0)
    made.step(31.0)
    assert shown(made) == ["fe80::1%eth0"]
    assert made.step(41.0)[0] == [] and shown(made) == []
    assert made.step(45.0)[0] == ["eth0"], "it is solicited again"


def test_lifetime_0_ends_the_use_of_a_default_router_at_once() -> None:
    made = table()
    made.heard("eth0", Advertised(ONE, 1800), 0.0)
    for at in (10.0, 12.0, 14.0):  # its final advertisements
        made.heard("eth0", Advertised(ONE, 0), at)
        assert shown(made) == []
    made.heard("eth0", Advertised(ONE, 1800), 20.0)
    assert shown(made) == ["fe80::1%eth0"], "it is a router again"
    made.heard("eth0", Advertised(ONE, 0), 30.0)
    made.step(30.0 + CEASED)
    made.heard("eth0", Advertised(ONE, 0), 31.0 + CEASED)
    assert shown(made) == ["fe80::1%eth0"], "a router, but no default router any more"


def test_a_router_that_was_never_a_default_router_counts() -> None:
    made = table()
    made.heard("eth0", Advertised(ONE, 0), 5.0)
    assert shown(made) == ["fe80::1%eth0"]
    made.step(5.0 + NOT_A_DEFAULT_ROUTER)
    assert shown(made) == []


def test_of_several_routers_the_one_in_use_stays() -> None:
    made = table()
    made.heard("eth0", Advertised(TWO, 30), 0.0)
    made.heard("eth0", Advertised(ONE, 60), 1.0)
    assert shown(made) == ["fe80::2%eth0", "fe80::1%eth0"]
    made.step(30.0)
    assert shown(made) == ["fe80::1%eth0"]
    made.heard("eth0", Advertised(TWO, 30, 1), 31.0)
    assert shown(made) == ["fe80::1%eth0", "fe80::2%eth0"]


def test_the_highest_preference_counts_then_the_lowest_address() -> None:
    three = IPv6Address("fe80::3")
    made = table()
    made.heard("eth0", Advertised(IPv6Address("fe80::9"), 10), 0.0)
    for address, preference in ((TWO, 0), (three, 1), (ONE, -1)):
        made.heard("eth0", Advertised(address, 1800, preference), 1.0)
    made.step(10.0)
    assert shown(made) == ["fe80::3%eth0", "fe80::2%eth0", "fe80::1%eth0"]


def test_solicitations_become_rarer_and_end_with_the_first_answer() -> None:
    made = RouterTable()
    made.want(["eth0"], 0.0)
    sent = []
    while (at := made.next_at) is not None and at < 200:
        if made.step(at)[0]:
            sent.append(at)
    assert sent == [0.0, 4.0, 12.0, 28.0, 60.0, 120.0, 180.0]
    made.heard("eth0", Advertised(ONE, 1800), 200.0)
    assert made.step(299.0)[0] == []
    made.returned("eth0", 300.0)
    assert made.step(300.0)[0] == ["eth0"], "after a loss of carrier, another router may be there"
    made.heard("eth0", Advertised(ONE, 1800), 301.0)
    assert made.step(399.0)[0] == []
    made.returned("eth0", 400.0)
    made.heard("eth0", Advertised(TWO, 1800), 401.0)
    assert shown(made) == ["fe80::1%eth0", "fe80::2%eth0"]
    made.step(400.0 + CONFIRMED)
    assert shown(made) == ["fe80::2%eth0"], "the other one has not advertised again"


def test_the_node_advertises_itself_and_a_new_router_hears_it_soon() -> None:
    made = RouterTable()
    made.want(["eth0"], 0.0)
    sent = []

    def until(end: float) -> None:
        while (at := made.next_at) is not None and at < end:
            if made.step(at)[1]:
                sent.append(at)

    until(25.0)
    assert sent == [0.0, 10.0, 20.0]
    made.heard("eth0", Advertised(ONE, 1800), 25.0)
    until(30.0)
    made.heard("eth0", Advertised(TWO, 1800), 26.0)
    until(40.0)
    assert sent[3:] == [25.0, 28.0, 38.0]
    assert parse_advertisement(OWN_ADVERTISEMENT, ONE, 255) == Advertised(ONE, 0)


def test_default_routers_count_before_others() -> None:
    """Other nodes on the link also advertise themselves, with lifetime 0."""
    made = table()
    made.heard("eth0", Advertised(ONE, 0), 0.0)
    assert shown(made) == ["fe80::1%eth0"]
    made.heard("eth0", Advertised(TWO, 1800), 1.0)
    assert shown(made) == ["fe80::2%eth0"]
    made.heard("eth0", Advertised(TWO, 0), 2.0)
    assert shown(made) == ["fe80::1%eth0"]


def test_links_are_separate() -> None:
    made = table("eth0", "eth1")
    made.heard("eth1", Advertised(ONE, 1800), 0.0)
    made.heard("eth0", Advertised(ONE, 1800), 0.0)
    made.heard("eth9", Advertised(ONE, 1800), 0.0)
    assert shown(made) == ["fe80::1%eth0", "fe80::1%eth1"]
    made.want(["eth1"], 1.0)
    assert shown(made) == ["fe80::1%eth1"]
    made.want([], 2.0)
    assert shown(made) == [] and made.next_at is None


def test_a_flood_of_routers_is_bounded() -> None:
    made = table()
    for number in range(1, 1000):
        made.heard("eth0", Advertised(IPv6Address(f"fe80::{number:x}"), 9000), 0.0)
    assert len(made.routers) == MOST and shown(made)[0] == "fe80::1%eth0"


def test_a_router_that_announces_itself_for_one_second_is_a_default_router_for_that_second() -> None:
    made = table()
    made.heard("eth0", Advertised(ONE, 1), 10.0)
    made.step(10.9)
    assert len(shown(made)) == 1
    made.step(11.0)
    assert shown(made) == []
