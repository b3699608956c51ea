"""VIPs with a scope (spec.layer2): the interface on which a replica answers, and that no other replica answers."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address, ip_interface

import pytest
from hypothesis import given
from hypothesis import strategies as st

from porterlb.core.desired import Layer2Scope
from porterlb.core.layer2.interfaces import InterfaceTable
from porterlb.core.model import Address
from porterlb.core.observed import Nic
from tests.core.layer2.world import World, mac_of

VIP = "10.0.0.200"
ADDRESS = ip_address(VIP)
PACKED = ADDRESS.packed


def table(**nics: tuple[bool, str]) -> InterfaceTable:
    """By name: whether the interface is up, and its address."""
    made = InterfaceTable()
    made.update(
        {
            at: Nic(name, at, bytes(6), up, (ip_interface(address),) if address else ())
            for at, (name, (up, address)) in enumerate(nics.items(), 1)
        }
    )
    return made


def chosen(made: InterfaceTable, *names: str, strict: bool = False, address: Address = ADDRESS) -> str:
    usage = made.listed(address, names, strict=strict)
    return made.nics[usage.ifindex].name if usage is not None else ""


def test_the_interface_on_the_subnet_of_the_vip_is_chosen_and_otherwise_the_first_that_is_up() -> None:
    made = table(eth0=(True, "10.1.0.1/24"), eth1=(True, "10.0.0.1/24"), eth2=(True, ""), eth3=(False, "10.0.0.2/24"))
    assert chosen(made, "eth0", "eth1") == "eth1" and chosen(made, "eth3", "eth1") == "eth1"
    assert chosen(made, "eth2", "eth0") == "eth2" and chosen(made, "eth3", "eth0") == "eth0"
    assert chosen(made, "eth2", "eth0", strict=True) == "" and chosen(made, "eth0", "eth1", strict=True) == "eth1"
    assert chosen(made, "none") == "" and chosen(made, "eth3") == "" and chosen(made) == ""
    assert chosen(made, "eth1", "eth0", address=ip_address("fd00::1")) == "eth1", "the first one: of the other version"


def test_an_interface_without_an_address_is_noticed_once_a_scope_names_it() -> None:
    made = table(eth2=(False, ""))
    assert chosen(made, "eth2") == ""
    up = {1: Nic("eth2", 1, bytes(6), True)}
    assert made.update(up) is not None and chosen(made, "eth2") == "eth2"


NODES = ("n1", "n2", "n3")


def scoped(world: World, scope: Layer2Scope, candidates: tuple[str, ...], *, spread: bool = False) -> None:
    """Gives all replicas one VIP with a scope."""
    world.wanted = replace(world.wanted, scopes={"pool": scope})
    world.rows = {VIP: [VIP, list(candidates), "", "", list(candidates) if spread else [], "pool"]}
    world.digest += 1
    for node in world.replicas:
        world.tell(node)


@pytest.mark.parametrize("interfaces", [(), ("eth0",)])
def test_only_replicas_of_the_scope_answer_also_on_behalf_of_a_dead_replica(interfaces: tuple[str, ...]) -> None:
    world = World(*NODES)
    scoped(world, Layer2Scope(frozenset({"n2", "n3"}), interfaces), ("n2", "n3"))
    world.run(2.0)
    assert world.answers(VIP) == {"n2": mac_of("n2")}
    world.hung.add("n2")  # n1 is the leader, and would answer on its behalf
    world.run(1.0)
    assert world.answers(VIP) == {"n3": mac_of("n2")}
    assert {r.answering[VIP].answerer for n, r in world.replicas.items() if n != "n2"} == {"n3"}, "all see the same"


def test_a_vip_leaves_a_replica_that_the_scope_excludes_and_an_unknown_scope_is_nobodys() -> None:
    world = World(*NODES)
    world.vips((VIP, ("n1", "n2")))
    world.run(2.0)
    assert world.answers(VIP) == {"n1": mac_of("n1")}
    scoped(world, Layer2Scope(frozenset({"n2"})), ("n2",))
    world.run(1.0)
    assert world.answers(VIP) == {"n2": mac_of("n2")}
    scoped(world, Layer2Scope(frozenset({"n1"})), ("n1",))
    world.run(1.0)
    assert world.answers(VIP) == {"n1": mac_of("n1")}, "the row is told again"
    world.wanted = replace(world.wanted, scopes={"pool": Layer2Scope(frozenset({"n1"}), ("eth7",))})
    world.tell("n1")
    world.run(0.1)
    assert world.answers(VIP) == {}, "the scope alone has changed"
    world.wanted = replace(world.wanted, scopes={})
    world.tell("n1")
    world.run(0.1)
    assert world.answers(VIP) == {}


@pytest.mark.parametrize("spread", [False, True])
def test_a_replica_answers_on_a_listed_interface_only(spread: bool) -> None:
    world = World(*NODES)
    scoped(world, Layer2Scope(frozenset(NODES), ("eth7", "eth0"), True), NODES, spread=spread)
    world.run(2.0)
    assert set(world.answers(VIP)) == {"n1"}, "if it is spread, the others answer their askers only"
    scoped(world, Layer2Scope(frozenset(NODES), ("eth7",), True), NODES, spread=spread)
    world.run(0.5)
    assert world.answers(VIP) == {}


SCOPES = st.builds(
    Layer2Scope,
    st.frozensets(st.sampled_from(NODES)),
    st.sampled_from([(), ("eth0",), ("eth7",), ("eth7", "eth0")]),
    st.booleans(),
)


@given(
    st.lists(
        st.tuples(SCOPES, st.permutations(NODES), st.sampled_from(["", *NODES]), st.sampled_from(["", *NODES])),
        min_size=1,
        max_size=4,
    ),
    st.booleans(),
)
def test_whatever_happens_no_replica_outside_the_scope_answers(
    story: list[tuple[Layer2Scope, list[str], str, str]], spread: bool
) -> None:
    world = World(*NODES)
    for scope, order, hung, cut in story:
        world.hung, world.cut = {hung} - {""}, {cut} - {""}
        scoped(world, scope, tuple(node for node in order if node in scope.nodes), spread=spread)
        for _ in range(4):
            world.run(0.2)
            allowed = scope.nodes if scope.interfaces != ("eth7",) else frozenset()
            live = {node: mac for node, mac in world.answers(VIP).items() if node in world.replicas}
            assert set(live) <= allowed
            assert set(live.values()) <= {mac_of(node) for node in scope.nodes}
