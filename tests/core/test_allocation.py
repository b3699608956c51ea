"""The allocation rules one by one, and the reason for each refusal."""

from __future__ import annotations

from dataclasses import replace

import pytest

from porterlb.core.model import Eip, Port, Requirement, Selector, Service, TrafficPolicy
from porterlb.core.problems import Reason
from tests.core.allocation_world import addresses, eip, got, of, reasons, run, service, written

UDP = frozenset({Port("UDP", 80)})
LOCAL = TrafficPolicy.LOCAL
APP = (("app", "web"),)


def front(name: str = "tier") -> Selector:
    return Selector((Requirement(name, "In", frozenset({"front"})),))


# --- holders ---------------------------------------------------------------------------------------------------------


def test_a_holder_keeps_its_address_through_everything_that_still_contains_it() -> None:
    held = service("web", held=addresses("10.0.0.7"))
    for pool in (
        eip("e", "10.0.0.1-10.0.0.9"),
        eip("e", "10.0.0.7"),
        eip("e", "10.0.0.1-10.0.0.9", disabled=True),
        eip("e", "10.0.0.1-10.0.0.9", auto_assign=False),
        eip("e", "10.0.0.1-10.0.0.9", namespaces=frozenset({"somewhere"})),
        eip("renamed", "10.0.0.0-10.0.0.255"),
    ):
        result = run([held], [pool])
        assert got(result, "web") == ["10.0.0.7"]
        assert of(result, "web").eips == (pool.name,)
        assert not of(result, "web").refusals
    assert got(run([held], [eip("e", "10.0.0.7")], claimed=frozenset(held.held)), "web") == ["10.0.0.7"]


def test_a_pool_that_no_longer_contains_the_address_gives_another() -> None:
    held = service("web", held=addresses("10.0.0.7"))
    assert got(run([held], [eip("e", "10.0.0.1-10.0.0.6")]), "web") == ["10.0.0.1"]


@pytest.mark.parametrize(
    "wish",
    [{"wanted_addresses": addresses("10.0.1.5")}, {"wanted_eip": "other"}, {"families": (6,)}],
    ids=["address", "eip", "family"],
)
def test_a_holder_that_asks_for_something_else_gets_that(wish: dict[str, object]) -> None:
    held = service("web", held=addresses("10.0.0.7"), **wish)
    eips = [eip("e", "10.0.0.1-10.0.0.9"), eip("other", "10.0.1.5", "2001:db8::1", priority=1)]
    result = run([held], eips)
    assert of(result, "web").eips == ("other",)


def test_two_holders_of_one_address_the_older_keeps_it() -> None:
    new = service("a", created="2026-02-02", held=addresses("10.0.0.1"))
    old = service("z", created="2026-01-01", held=addresses("10.0.0.1"))
    result = run([new, old], [eip("e", "10.0.0.1-10.0.0.2")])
    assert got(result, "z") == ["10.0.0.1"]
    assert got(result, "a") == []
    assert of(result, "a").contested == addresses("10.0.0.1")
    assert reasons(result, "a") == [Reason.ADDRESS_IN_USE]


def test_what_was_given_but_not_written_yet_stays() -> None:
    eips = [eip("e", "10.0.0.1-10.0.0.9")]
    first = run([service("b")], eips)
    second = run([service("b"), service("a")], eips, first.memory)
    assert got(second, "b") == got(first, "b") == ["10.0.0.1"]
    assert got(second, "a") == ["10.0.0.2"]
    again = run([replace(service("b"), uid="another one of that name")], eips, second.memory)
    assert got(again, "b") == ["10.0.0.1"], "another one of that name gets what its namesake had"


def test_an_address_that_turns_out_to_be_claimed_is_replaced_unless_it_is_held() -> None:
    eips = [eip("e", "10.0.0.1-10.0.0.9")]
    first = run([service("web")], eips)
    second = run([service("web")], eips, first.memory, claimed=frozenset(addresses("10.0.0.1")))
    assert got(second, "web") == ["10.0.0.2"]
    problem = second.eips["e"].problems[0]
    assert problem.reason is Reason.ADDRESS_CLAIMED
    assert not problem.fatal


def test_only_the_leader_gives_new_addresses() -> None:
    services = [service("new"), service("old", held=addresses("10.0.0.1"))]
    eips = [eip("e", "10.0.0.1-10.0.0.9")]
    result = run(services, eips, may_allocate=False)
    assert got(result, "old") == ["10.0.0.1"]
    assert got(result, "new") == []
    assert reasons(result, "new") == [Reason.NOT_LEADER]
    leader = run(services, eips, result.memory)
    assert got(leader, "new") == ["10.0.0.2"]
    no_longer = run(services, eips, leader.memory, may_allocate=False)
    assert got(no_longer, "new") == []


# --- selection of the Eip --------------------------------------------------------------------------------------------


def test_order_selected_then_default_then_the_others() -> None:
    eips = [
        eip("other", "10.0.1.1"),
        eip("default", "10.0.2.1", is_default=True, priority=9),
        eip("chosen-b", "10.0.3.1", namespaces=frozenset({"ns"}), priority=2),
        eip("chosen-c", "10.0.4.1", service_selector=front(), priority=2),
        eip("chosen-a", "10.0.5.1", namespace_selector=front(), priority=3),
        eip("foreign", "10.0.6.1", namespaces=frozenset({"else"}), priority=-1),
        eip("by-name", "10.0.7.1", auto_assign=False, priority=-2),
        eip("off", "10.0.8.1", disabled=True, priority=-3),
    ]
    services = [service(f"s{n}", labels={"tier": "front"}, created=f"2026-01-0{n + 1}") for n in range(6)]
    result = run(services, eips, namespaces={"ns": {"tier": "front"}})
    order = [of(result, f"s{n}").eips for n in range(6)]
    assert order == [("chosen-b",), ("chosen-c",), ("chosen-a",), ("default",), ("other",), ()]
    message = of(result, "s5").refusals[0].message
    assert "by-name has autoAssign off" in message
    assert "3 more Eips" in message
    assert reasons(result, "s5") == [Reason.EIP_EXHAUSTED]


def test_namespaces_and_their_selector_are_alternatives_labels_are_needed_too() -> None:
    pool = eip(
        "e", "10.0.0.1-10.0.0.9", namespaces=frozenset({"a"}), namespace_selector=front(), service_selector=front("t")
    )
    labels = {"t": "front"}
    services = [
        service("a/in", labels=labels),
        service("b/in", labels=labels),
        service("c/out", labels=labels),
        service("a/out"),
    ]
    result = run(services, [pool], namespaces={"b": {"tier": "front"}, "c": {"tier": "back"}})
    assert got(result, "a/in")
    assert got(result, "b/in")
    assert reasons(result, "c/out") == reasons(result, "a/out") == [Reason.EIP_NOT_ALLOWED]


def test_a_changed_namespace_label_is_seen() -> None:
    eips = [eip("e", "10.0.0.1", namespace_selector=front())]
    first = run([service("web")], eips, namespaces={"ns": {}})
    assert reasons(first, "web") == [Reason.EIP_NOT_ALLOWED]
    assert got(run([service("web")], eips, first.memory, namespaces={"ns": {"tier": "front"}}), "web")


# --- requested addresses ---------------------------------------------------------------------------------------------


def test_an_address_asked_for_goes_to_who_asks_before_it_is_given_to_anybody() -> None:
    asks = service("b", created="2026-03-03", wanted_addresses=addresses("10.0.0.1"))
    result = run([service("a"), asks], [eip("e", "10.0.0.1-10.0.0.9")])
    assert got(result, "b") == ["10.0.0.1"]
    assert got(result, "a") == ["10.0.0.2"]


REFUSED: dict[str, tuple[list[Service], list[Eip], Reason, str]] = {
    "no Eip at all": ([service("web")], [], Reason.NO_EIP, "There is no Eip"),
    "full": (
        [service("web"), service("old", held=addresses("10.0.0.1"))],
        [eip("e", "10.0.0.1")],
        Reason.EIP_EXHAUSTED,
        "e is full",
    ),
    "disabled": ([service("web")], [eip("e", "10.0.0.1", disabled=True)], Reason.EIP_DISABLED, "e is disabled"),
    "not allowed": (
        [service("web")],
        [eip("e", "10.0.0.1", namespaces=frozenset({"x"}))],
        Reason.EIP_NOT_ALLOWED,
        "e does not allow it",
    ),
    "only by name": ([service("web")], [eip("e", "10.0.0.1", auto_assign=False)], Reason.NO_EIP, "autoAssign off"),
    "family": (
        [service("web", families=(6,))],
        [eip("e", "10.0.0.1")],
        Reason.FAMILY_UNAVAILABLE,
        "e has no IPv6 addresses",
    ),
    "Eip unknown": (
        [service("web", wanted_eip="x")],
        [eip("e", "10.0.0.1")],
        Reason.EIP_UNKNOWN,
        "Asks for Eip x, which does not exist",
    ),
    "Eip full": (
        [service("web", wanted_eip="e"), service("old", held=addresses("10.0.0.1"))],
        [eip("e", "10.0.0.1"), eip("f", "10.0.0.2")],
        Reason.EIP_EXHAUSTED,
        "e is full",
    ),
    "Eip disabled": (
        [service("web", wanted_eip="e")],
        [eip("e", "10.0.0.1", disabled=True)],
        Reason.EIP_DISABLED,
        "Asks for Eip e, but e is disabled",
    ),
    "Eip not allowed": (
        [service("web", wanted_eip="e")],
        [eip("e", "10.0.0.1", service_selector=front())],
        Reason.EIP_NOT_ALLOWED,
        "Asks for Eip e, but e does not allow it",
    ),
    "address nowhere": (
        [service("web", wanted_addresses=addresses("10.9.9.9"))],
        [eip("e", "10.0.0.1")],
        Reason.ADDRESS_NOT_IN_EIP,
        "10.9.9.9, which is in no Eip",
    ),
    "address not in the Eip": (
        [service("web", wanted_addresses=addresses("10.0.0.2"), wanted_eip="e")],
        [eip("e", "10.0.0.1"), eip("f", "10.0.0.2")],
        Reason.ADDRESS_NOT_IN_EIP,
        "10.0.0.2 of Eip e, which does not contain it",
    ),
    "address in use": (
        [service("web", wanted_addresses=addresses("10.0.0.1")), service("old", held=addresses("10.0.0.1"))],
        [eip("e", "10.0.0.1-10.0.0.9")],
        Reason.ADDRESS_IN_USE,
        "10.0.0.1, which Service ns/old has",
    ),
    "address of a disabled Eip": (
        [service("web", wanted_addresses=addresses("10.0.0.1"))],
        [eip("e", "10.0.0.1", disabled=True)],
        Reason.EIP_DISABLED,
        "Asks for 10.0.0.1, but Eip e is disabled",
    ),
    "address of an Eip not for it": (
        [service("web", wanted_addresses=addresses("10.0.0.1"))],
        [eip("e", "10.0.0.1", namespaces=frozenset({"x"}))],
        Reason.EIP_NOT_ALLOWED,
        "Eip e does not allow it",
    ),
    "address of the wrong family": (
        [service("web", wanted_addresses=addresses("2001:db8::1"))],
        [eip("e", "10.0.0.1", "2001:db8::1")],
        Reason.FAMILY_UNAVAILABLE,
        "its ipFamilies are IPv4",
    ),
    "sharing: same port": (
        [
            service("web", wanted_addresses=addresses("10.0.0.1"), sharing_key="k"),
            service("old", held=addresses("10.0.0.1"), sharing_key="k"),
        ],
        [eip("e", "10.0.0.1-10.0.0.9")],
        Reason.SHARING_DENIED,
        "both use TCP/80",
    ),
    "sharing: other namespace": (
        [
            service("web", wanted_addresses=addresses("10.0.0.1"), sharing_key="k"),
            service("b/old", held=addresses("10.0.0.1"), sharing_key="k", ports=UDP),
        ],
        [eip("e", "10.0.0.1-10.0.0.9")],
        Reason.SHARING_DENIED,
        "different namespaces",
    ),
    "conflicting Eip": (
        [service("web", wanted_eip="young")],
        [eip("old", "10.0.0.1-10.0.0.9", created="1"), eip("young", "10.0.0.9-10.0.0.12", created="2")],
        Reason.OVERLAPPING,
        "young overlaps old",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_every_refusal_says_why(case: str) -> None:
    services, eips, reason, words = REFUSED[case]
    result = run(services, eips)
    assert got(result, "web") == []
    problem = of(result, "web").refusals[0]
    assert problem.reason is reason
    assert words in problem.message
    assert problem.message.endswith(".")
    assert problem.fatal


def test_an_address_of_a_foreign_host_is_refused_and_passed_over() -> None:
    claimed = frozenset(addresses("10.0.0.1"))
    asks = service("web", wanted_addresses=addresses("10.0.0.1"))
    result = run([asks, service("any")], [eip("e", "10.0.0.1-10.0.0.2")], claimed=claimed)
    assert reasons(result, "web") == [Reason.ADDRESS_CLAIMED]
    assert got(result, "any") == ["10.0.0.2"]
    later = run([asks, service("any")], [eip("e", "10.0.0.1-10.0.0.2")], result.memory, 9.0)
    assert got(later, "web") == ["10.0.0.1"]


def test_what_waits_is_served_as_soon_as_something_is_free() -> None:
    eips = [eip("e", "10.0.0.1")]
    holder, waiter = service("a", held=addresses("10.0.0.1")), service("b")
    full = run([holder, waiter], eips)
    assert reasons(full, "b") == [Reason.EIP_EXHAUSTED]
    assert got(run([waiter], eips, full.memory, 1.0), "b") == ["10.0.0.1"]
    grown = run([holder, waiter], [eip("e", "10.0.0.1-10.0.0.2")], full.memory, 1.0)
    assert got(grown, "b") == ["10.0.0.2"]


# --- both families ---------------------------------------------------------------------------------------------------


def test_both_families_come_from_one_eip_where_it_has_both() -> None:
    eips = [
        eip("a", "10.0.0.1"),
        eip("b", "2001:db8:b::1"),
        eip("c", "10.0.2.1", "2001:db8:c::1", priority=5),
    ]
    result = run([service("web", families=(6, 4))], eips)
    assert got(result, "web") == ["2001:db8:c::1", "10.0.2.1"]
    assert of(result, "web").eips == ("c", "c")
    mixed = run([service("web", families=(4, 6))], eips[:2])
    assert of(mixed, "web").eips == ("a", "b")


def test_prefer_dual_stack_takes_one_family_and_gets_the_other_later() -> None:
    web = service("web", families=(4, 6))
    first = run([web], [eip("e", "10.0.0.1")])
    assert got(first, "web") == ["10.0.0.1"]
    problem = of(first, "web").refusals[0]
    assert problem.reason is Reason.FAMILY_UNAVAILABLE
    assert not problem.fatal
    assert "No IPv6 address" in problem.message
    later = run(written([web], first), [eip("e", "10.0.0.1", "2001:db8::1")], first.memory, 1.0)
    assert got(later, "web") == ["10.0.0.1", "2001:db8::1"]
    assert not of(later, "web").refusals


def test_require_dual_stack_takes_both_or_nothing_and_never_takes_away() -> None:
    web = service("web", families=(4, 6), dual_stack_required=True)
    result = run([web], [eip("e", "10.0.0.1")])
    assert got(result, "web") == []
    assert of(result, "web").refusals[0].fatal
    held = run([replace(web, held=addresses("10.0.0.1"))], [eip("e", "10.0.0.1")])
    assert got(held, "web") == ["10.0.0.1"]
    assert of(held, "web").refusals[0].fatal


def test_one_family_asked_for_by_address_the_other_from_the_same_eip() -> None:
    eips = [eip("a", "10.0.0.1", "2001:db8:a::1"), eip("b", "10.0.1.1", "2001:db8:b::1", priority=1)]
    web = service("web", families=(4, 6), wanted_addresses=addresses("10.0.1.1"))
    assert got(run([web], eips), "web") == ["10.0.1.1", "2001:db8:b::1"]


# --- sharing ---------------------------------------------------------------------------------------------------------


def test_a_sharing_key_brings_services_together() -> None:
    eips = [eip("e", "10.0.0.1-10.0.0.9")]
    services = [
        service("tcp", sharing_key="k", created="1"),
        service("udp", sharing_key="k", created="2", ports=UDP),
        service("more", sharing_key="k", created="3"),  # TCP 80 is taken: it gets another address
        service("alone", created="4", ports=UDP),
        service("b/udp", sharing_key="k", created="5", ports=frozenset({Port("UDP", 81)})),
    ]
    result = run(services, eips)
    assert got(result, "tcp") == got(result, "udp") == ["10.0.0.1"]
    assert got(result, "more") == ["10.0.0.2"]
    assert got(result, "alone") == ["10.0.0.3"]
    assert got(result, "b/udp") == ["10.0.0.4"]
    key = services[0].key
    assert result.eips["e"].used[addresses("10.0.0.1")[0]] == (key, services[1].key)
    left = run(services[1:], eips, result.memory, 1.0)
    assert got(left, "udp") == ["10.0.0.1"]


@pytest.mark.parametrize(
    ("one", "other", "together"),
    [
        ({}, {}, True),
        ({"traffic_policy": LOCAL}, {}, False),
        ({"traffic_policy": LOCAL, "selector": APP}, {"traffic_policy": LOCAL, "selector": APP}, True),
        ({"traffic_policy": LOCAL, "selector": APP}, {"selector": APP}, True),
        ({"traffic_policy": LOCAL, "selector": APP}, {"traffic_policy": LOCAL, "selector": (("app", "x"),)}, False),
        ({"traffic_policy": LOCAL}, {"traffic_policy": LOCAL}, False),  # no selector: the nodes of its pods are unknown
    ],
)
def test_sharing_needs_the_same_nodes(one: dict[str, object], other: dict[str, object], together: bool) -> None:
    a = service("a", sharing_key="k", **one)
    b = service("b", sharing_key="k", ports=UDP, **other)
    result = run([a, b], [eip("e", "10.0.0.1-10.0.0.9")])
    assert (got(result, "a") == got(result, "b")) is together


def test_a_change_that_ends_sharing_leaves_the_one_that_changed_without() -> None:
    eips = [eip("e", "10.0.0.1-10.0.0.9")]
    old = service("old", created="1", sharing_key="k", held=addresses("10.0.0.1"))
    young = service("young", created="2", sharing_key="k", ports=UDP, held=addresses("10.0.0.1"))
    first = run([old, young], eips)
    assert got(first, "young") == ["10.0.0.1"]
    second = run([replace(old, ports=UDP), young], eips, first.memory, 1.0)
    assert got(second, "young") == ["10.0.0.1"]
    assert got(second, "old") == []
    assert of(second, "old").contested == addresses("10.0.0.1")
    third = run([replace(old, ports=frozenset({Port("TCP", 80)})), young], eips, second.memory, 2.0)
    assert got(third, "young") == got(third, "old") == ["10.0.0.1"]


# --- overlapping Eips ------------------------------------------------------------------------------------------------


def test_of_two_overlapping_eips_the_older_serves() -> None:
    old = eip("z", "10.0.0.1-10.0.0.4", created="2026-01-01")
    young = eip("a", "10.0.0.4-10.0.0.9", created="2026-02-02", priority=-1)
    services = [
        service("new"),
        service("both", held=addresses("10.0.0.4")),
        service("behind", held=addresses("10.0.0.6")),
        service("asks", wanted_eip="a", held=addresses("10.0.0.4"), sharing_key="k"),
    ]
    result = run(services[:3], [young, old])
    assert result.eips["a"].conflicting == ("z",)
    assert result.eips["a"].problems[0].reason is Reason.OVERLAPPING
    assert not result.eips["z"].conflicting
    assert of(result, "new").eips == ("z",)
    assert of(result, "both").eips == ("z",)
    assert of(result, "behind").eips == ("a",)
    assert got(run([services[3]], [young, old]), "asks") == ["10.0.0.4"]
    mended = run(services[:3], [replace(young, ranges=young.ranges[:0] + eip("a", "10.0.0.5-10.0.0.9").ranges), old])
    assert not mended.eips["a"].conflicting
    assert of(mended, "new").eips == ("a",)


def test_an_eip_that_was_in_conflict_for_a_while_has_lost_no_address() -> None:
    young, old = eip("young", "10.0.0.1-10.0.0.2", created="2"), eip("old", "10.0.0.1-10.0.0.9", created="1")
    first = run([service("a"), service("b")], [young])
    during = run([service("a"), service("b")], [young, old], first.memory, 1.0)
    without = run([service("b")], [young, old], during.memory, 2.0)
    after = run([service("b"), service("c")], [young], without.memory, 3.0)
    assert got(after, "b") == ["10.0.0.2"]
    assert got(after, "c") == ["10.0.0.1"]


def test_memory_is_never_changed() -> None:
    eips = [eip("e", "10.0.0.1-10.0.0.9")]
    first = run([service("a")], eips)
    one = run([service("a"), service("b")], eips, first.memory, 1.0)
    other = run([service("a"), service("c")], eips, first.memory, 1.0)
    assert got(one, "b") == got(other, "c") == ["10.0.0.2"]
    assert got(run([service("a")], eips, first.memory, 2.0), "a") == ["10.0.0.1"]
