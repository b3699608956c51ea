"""Which VIPs an event affects, and which of them are decided first."""

from __future__ import annotations

from ipaddress import ip_address

from porterlb.core.layer2 import actions as act
from porterlb.core.layer2.serving import LISTEN
from porterlb.core.layer2.vips import SLICE
from tests.core.layer2.world import NIC, World, mac_of

GOAL = "8.8.8.8"


def world(*rows: tuple[str, tuple[str, ...]]) -> World:
    made = World("n1", "n2")
    made.vips(*rows)
    made.run(LISTEN + 0.5)
    return made


def test_a_vip_is_decided_when_its_route_is_found() -> None:
    made = world(("10.0.0.100", ("n1",)))
    n1, vip = made.replicas["n1"], "10.9.0.1"
    actions = n1.layer2.want_vips([[vip, ["n1"], "", GOAL]], [])
    while n1.layer2.busy:
        actions += n1.layer2.step(made.now)
    assert act.FindRoute(ip_address(GOAL)) in actions and n1.answering.get(vip) is None
    decided = n1.layer2.route_found(ip_address(GOAL), NIC)
    while n1.layer2.busy:
        decided += n1.layer2.step(made.now)
    assert act.Own(NIC, ip_address(vip).packed, mac_of("n1")) in decided
    assert {action.vip for action in decided if isinstance(action, act.Served)} == {vip}


def test_what_a_replica_answered_for_is_decided_first_when_it_leaves() -> None:
    rows = [(f"10.0.0.{number}", ("n1", "n2")) for number in range(100, 200)]
    made = world(*rows, ("10.0.0.250", ("n2", "n1")))
    n1 = made.replicas["n1"]
    n1.do(n1.layer2.want_vips([[text, list(names), "", ""] for text, names in rows], []), made.now)  # not urgent
    made.hung = {"n1"}
    n2 = made.replicas["n2"]
    goodbye = [action for action in n2.layer2.stop(made.now) if isinstance(action, act.Say)]
    n2.do(goodbye, made.now)
    n1.do(n1.layer2.hello(n2.said[-1], made.now), made.now)
    first = n1.layer2.step(made.now)
    assert next(action.vip for action in first if isinstance(action, act.Served)) == "10.0.0.250"
    assert n1.layer2.busy, f"the other {len(rows)} take more than one slice of {SLICE}"


def test_applied_is_reported_once_everything_is_decided() -> None:
    made = world(("10.0.0.100", ("n1",)))
    n1 = made.replicas["n1"]
    actions = n1.layer2.want_vips([[f"10.0.0.{number}", ["n1"], "", ""] for number in range(100, 140)], [])
    actions += n1.layer2.want_applied(77)

    def applied(found: list[act.Action]) -> list[object]:
        return [a.fields["applied"] for a in found if isinstance(a, act.Report) and "applied" in a.fields]

    assert applied(actions) == []
    assert applied(n1.layer2.step(made.now)) == []
    assert applied(n1.layer2.step(made.now)) == [77] and not n1.layer2.busy


def test_a_vip_is_owned_again_when_it_becomes_spread_and_back() -> None:
    """The kernel answers all hosts with one MAC: it must not continue when each host has its own next hop."""
    vip, order = "10.0.0.100", ["n1", "n2"]
    made = world((vip, ("n1", "n2")))
    n1 = made.replicas["n1"]
    packed = ip_address(vip).packed

    def told(*row: object) -> list[act.Action]:
        found = n1.layer2.want_vips([[vip, order, "", "", *row]], [])
        while n1.layer2.busy:
            found += n1.layer2.step(made.now)
        return [action for action in found if isinstance(action, (act.Own, act.Announce, act.Disown))]

    assert told(order) == [act.Own(NIC, packed, mac_of("n1"), by_asker=True)]
    assert told(order) == [], "nothing has changed"
    assert told() == [act.Own(NIC, packed, mac_of("n1"))]
